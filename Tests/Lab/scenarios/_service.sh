# What saving memory costs a real service: redis with a data set that is mostly cold, under a
# stall budget; and, from the same state on, without a pager, before and after, and with as much
# taken away by the host's own reclaim into zram. One guest at a time: several at once, even idle,
# slow the emulator down out of all proportion.
# shellcheck shell=dash
#lab: LAB_MEMORY=2560M LAB_TIMEOUT=2400 LAB_SERVICE=yes
: "${GUEST_MEMORY=384M}"
: "${GUEST_INITRD=/run/guest.cpio}"
# Half of the 2 % that may be lost: looking and evicting cost something, too.
: "${PAGER=tracker=rwp,store=compressed,mode=off,limit=0,idle-age=0,stall-budget=10000}"
# Of the guest's memory, 65 %.
: "${DATA_MIB=250}"
# Hundredths of the exponent of Zipf's law.
: "${EXPONENT=150}"
# Thousands of requests before anything leaves: a service has a past.
: "${WARM=600}"
: "${SETTLE=300}" "${WINDOW=30}" "${CALIBRATIONS=3}" "${ROUNDS=5}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

readonly zram=/sys/block/zram0
readonly windows=/out/windows.txt
readonly state=/run/state

vmstat() { sed -n "s/^$1 //p" /proc/vmstat; }

# What a guest costs the host, the compressed pages included: the pager's pool is QEMU's
# memory, zram's is the kernel's.
net_cost() {
    local pool=0
    [ "$guest_name" != reclaimed ] || read -r _ _ pool _ <"$zram/mm_stat"
    echo $(($(process_rss) + pool))
}

# Pages that had to be brought back because somebody waited for them.
refaults() {
    case $guest_name in
    guest)
        # shellcheck disable=SC2046 # one word each
        set -- $(pager_stat fetches prefetches)
        echo $(($1 - $2))
        ;;
    reclaimed) vmstat pswpin ;;
    *) echo 0 ;;
    esac
}

expect_right() { [ "$(guest_field mismatches)" = 0 ] || fail "wrong replies: $guest_line"; }

request() { # SECONDS
    guest_ask "request $1 $EXPONENT" '^requested ' $(($1 + 120))
    expect_right
}

# window PHASE: requests, and a line of figures.
window() {
    local before after cost
    before=$(refaults)
    request "$WINDOW"
    after=$(($(refaults) - before))
    cost=$(net_cost)
    echo "$1 $guest_name $(guest_field per-1000s) $(guest_field requested) $after $cost" \
        "$(guest_field p50) $(guest_field p99)" >>"$windows"
    note "$1: $guest_name: $(($(guest_field per-1000s) / 1000)) a second; p50 $(guest_field p50) us," \
        "p99 $(guest_field p99) us; $(mebibytes "$cost") MiB, $after pages brought back"
}

# repeat COUNT COMMAND…
repeat() {
    local left=$1
    shift
    while [ "$left" -gt 0 ]; do
        "$@"
        left=$((left - 1))
    done
}

is_saved() { [ "$(qmp query-migrate | lab json status)" = completed ]; }

# One guest is filled, and its state saved: all go on from there, with the same pages and the
# same requests to come.
prepare() {
    use_guest first
    # shellcheck disable=SC2119
    guest_start
    guest_ask "serve $DATA_MIB" '^serving ' 900
    note "$(guest_field serving) keys at $(uptime_seconds)"
    qmp '{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":10000000000}}' >/dev/null
    qmp "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"file:$state\"}}" >/dev/null
    wait_until 600 "the guest's state is saved" is_saved
    qmp quit >/dev/null
    guest_ended 60
}

goes_on() { [ "$(run_state)" = running ]; }

# start NAME: a guest that serves.
start() {
    use_guest "$1"
    guest_launch -incoming "file:$state"
    wait_until 300 "$1 goes on" goes_on
}

warm() {
    guest_ask "warm $WARM $EXPONENT" '^warmed ' 1800
    expect_right
}

stop() {
    guest_ask 'recall 3000' '^recalled ' 300
    expect_eq "$guest_name: wrong values among $(guest_field recalled)" "$(guest_field mismatches)" 0
    guest_quit
}

# plain NAME: what the service does without help.
plain() {
    start "$1"
    request 10
    repeat 2 window plain
    guest_quit
}

calibrate() {
    pager_set mode off
    window off
    pager_set mode observe
    window observe
}

paged() {
    start guest
    budget=$(pager_stat stall-budget)
    pager_set mode observe
    warm
    repeat "$CALIBRATIONS" calibrate
    pager_before=$(net_cost)
    pager_set mode active
    repeat 6 settle
    # shellcheck disable=SC2046 # one word each
    set -- $(pager_stat fault-time.total faults)
    waited=$1 faults=$2
    repeat "$ROUNDS" window final
    # shellcheck disable=SC2046 # one word each
    set -- $(pager_stat fault-time.total faults fault-time.p50 evicted-bytes same-filled-bytes passes)
    waited=$(($1 - waited)) faults=$(($2 - faults)) fault_p50=$3
    note "out: $(mebibytes "$4") MiB, of that same-filled $(mebibytes "$5") MiB; $6 passes"
    pager_saved=$((pager_before - $(net_cost)))
    pager_set stall-budget 0
    stop
}

settle() {
    request $((SETTLE / 6))
    note "settling: $(mebibytes "$(net_cost)") MiB, evicted $(mebibytes "$(pager_stat evicted-bytes)") MiB," \
        "brought back $(refaults), waited $(($(pager_stat fault-time.total) / 1000000)) ms, passes $(pager_stat passes)"
}

# The host's kernel takes from the guest until as much is saved, a little at a time while the
# guest serves, so that it can tell what is in use; what comes back then pushes something else out.
reclaimed() {
    local said tries=0 goal
    cgroup_enter vm memory
    start reclaimed
    cgroup_leave
    warm
    kernel_before=$(net_cost)
    goal=$((kernel_before - pager_saved))
    said=$(grep -c '^requested ' "$guest_log") || true
    guest_send "request $SETTLE $EXPONENT"
    while [ "$(grep -c '^requested ' "$guest_log")" = "$said" ]; do
        [ "$(net_cost)" -le "$goal" ] || echo 3M >"$vm_cgroup/memory.reclaim" 2>/dev/null || true
        sleep 1
    done
    guest_wait '^requested ' 60
    expect_right
    while [ "$tries" -lt 200 ] && [ "$(net_cost)" -gt "$goal" ]; do
        echo 1M >"$vm_cgroup/memory.reclaim" 2>/dev/null || true
        tries=$((tries + 1))
    done
    cat "$vm_cgroup/memory.current" >"$vm_cgroup/memory.high"
    repeat "$ROUNDS" window final
    echo max >"$vm_cgroup/memory.high"
    stop
}

cat /lab/guest.cpio /lab/service.cpio >/run/guest.cpio
echo 0 >/proc/sys/vm/page-cluster # as is usual with zram: no neighbours beside what is wanted
swap_on "$GUEST_MEMORY"

readonly options=$PAGER
PAGER=
prepare
plain plain
PAGER=$options
paged
PAGER=
plain between
reclaimed
plain after

# Means of the windows, with the standard error of the mean: a report as the benchmarks write it.
# shellcheck disable=SC2016 # awk's variables
report='
function root(x, r, i) {
    if (x <= 0) return 0
    r = x
    for (i = 0; i < 80; i++) r = (r + x / r) / 2
    return r
}
function take(what, value) { n[what]++; sum[what] += value; squares[what] += value * value }
function mean(what) { return n[what] ? sum[what] / n[what] : 0 }
function spread(what) {
    if (n[what] < 2) return 0
    return root((squares[what] - sum[what] * sum[what] / n[what]) / (n[what] - 1) / n[what])
}
function lost(kind, guest, base) { return 100 - 100 * mean(kind "/" guest "/rate") / mean(base "/rate") }
function error(kind, guest, base, x, y) {
    x = spread(kind "/" guest "/rate") / mean(base "/rate")
    y = spread(base "/rate") / mean(base "/rate")
    return 100 * root(x * x + y * y)
}
function row(name, value, unit, floor, words) {
    printf "%s  {\n    \"name\": \"policy/redis/%s\",\n    \"value\": %.4f,\n", comma, name, value
    if (floor == "") printf "    \"floor\": null,\n    \"ratio\": null,\n"
    else printf "    \"floor\": %.4f,\n    \"ratio\": %.4f,\n", floor, value / floor
    printf "    \"unit\": \"%s\",\n    \"floor_of\": \"%s\"\n  }", unit, words
    comma = ",\n"
}
$1 == "plain" { $2 = "plain" }
{
    requests[$1, $2] += $4
    missed[$1, $2] += $5
    take($1 "/" $2 "/rate", $3 / 1000)
    take($1 "/" $2 "/cost", $6)
    take($1 "/" $2 "/median", $7)
}
END {
    printf "{\n\"machine\": \"%s\",\n\"commit\": \"\",\n\"notes\": [\"%s\"],\n\"results\": [\n", machine, notes
    saved = 100 * (pager_before - mean("final/guest/cost")) / pager_before
    kernel_saved = 100 * (kernel_before - mean("final/reclaimed/cost")) / kernel_before
    row("saved", saved, "%", kernel_saved,
        sprintf("of what the guest costs the host, store and pool subtracted; the hosts own reclaim into zram, " \
            "brought level (%d and %d MiB before)",
            pager_before / 1048576, kernel_before / 1048576))
    plain = "plain/plain"
    row("loss", lost("final", "guest", plain), "%", "",
        sprintf("of the requests a second without a pager, %d windows against %d; standard error %.2f; " \
            "reclaim into zram loses %.2f, standard error %.2f",
            n["final/guest/rate"], n[plain "/rate"], error("final", "guest", plain),
            lost("final", "reclaimed", plain), error("final", "reclaimed", plain)))
    row("loss/tracking", lost("observe", "guest", "off/guest"), "%", "",
        sprintf("in mode observe, nothing evicted, against mode off in turns; standard error %.2f",
            error("observe", "guest", "off/guest")))
    row("throughput", mean("final/guest/rate"), "/s", mean(plain "/rate"), "requests a second without a pager")
    row("throughput/kernel", mean("final/reclaimed/rate"), "/s", mean(plain "/rate"),
        "the same for reclaim into zram")
    kernel_missed = 1000 * missed["final", "reclaimed"] / requests["final", "reclaimed"]
    row("refetches-against-kernel", 1000 * missed["final", "guest"] / requests["final", "guest"],
        "/1000 requests", kernel_missed > 0 ? kernel_missed : "",
        "pages brought back because somebody waited; by reclaim into zram, as much being saved")
    row("stall", waited / (n["final/guest/rate"] * window * 1e9) * 100, "%", budget / 1e4,
        "of the time, waited for pages; the budget")
    if (faults > 0)
        row("wait", waited / faults / 1000, "us", mean(plain "/median"),
            sprintf("for a page, on average, median %.0f; a request as a whole, median", fault_p50 / 1000))
    printf "\n]\n}\n"
}'
awk -v pager_before="$pager_before" -v kernel_before="$kernel_before" -v waited="$waited" \
    -v faults="$faults" -v fault_p50="$fault_p50" -v window="$WINDOW" -v budget="$budget" \
    -v machine="lab host: 1 CPU, emulated (TCG), Linux $LAB_KERNEL" \
    -v notes="redis, $DATA_MIB MiB of values in a guest of $GUEST_MEMORY, keys by Zipf's law with exponent $EXPONENT/100; $PAGER" \
    "$report" "$windows" >/out/report.json
awk -F '": ' '/"name"/ { name = $2 } /"value"/ { value = $2 } /"floor":/ { floor = $2 }
    /"floor_of"/ { print name, value, "beside", floor, $2 }' /out/report.json
