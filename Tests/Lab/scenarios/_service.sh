# What saving memory costs a real service: redis with a data set that is mostly cold, under a
# stall budget; from the same state on without a pager; and with as much taken away by the
# host's own reclaim into zram. A fourth has no pager either, but its memory in small pages: so
# much of what is lost is the price of them. All guests are there together, but one runs at a
# time, and they take turns every few seconds, so that what else slows this machine slows them
# alike. Requests are counted for each second of CPU time that the emulator has, and for each
# instruction that it executes, in the guest and for the guest, ticks included: that differs about
# half as much from turn to turn, but knows nothing of caches and TLBs.
# shellcheck shell=dash
#lab: LAB_MEMORY=3072M LAB_TIMEOUT=3600 LAB_SERVICE=yes LAB_COUNT=yes
: "${GUEST_MEMORY=384M}"
: "${GUEST_INITRD=/run/guest.cpio}"
# Of the time, in millionths. Much less than the 2 % that may be lost: looking and evicting cost
# something, too.
: "${BUDGET=2500}"
# "lz4" or "zstd": of the pager's memory and of zram alike.
: "${COMPRESSION=zstd}"
[ -n "${PAGER+set}" ] ||
    PAGER='"tracker":"rwp","mode":"off","limit":0,"idle-age":0,"stall-budget":'$BUDGET',"tiers":[{"type":"compressed","compression":"'$COMPRESSION'"}]'
# Of the guest's memory, 65 %.
: "${DATA_MIB=250}"
# Which keys are popular: "latest", the newest, which lie together (YCSB's workload D); or
# "scattered", with a popular one in most of the huge pages.
: "${POPULAR=latest}"
# Per cent of the keys, the popular ones, that are asked for at all.
: "${ASKED=20}"
# Hundredths of the exponent of Zipf's law.
: "${EXPONENT=150}"
# Thousands of requests before anything leaves: a service has a past.
: "${WARM=200}"
# Seconds to settle, and of a turn; turns of each guest. Two guests without a pager differ in a
# turn by a tenth and more, each way: many short turns tell more than few long ones.
: "${SETTLE=240}" "${WINDOW=3}" "${ROUNDS=60}"
# "no" leaves out the guest in small pages.
: "${SMALL=yes}"
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

# CPU time of the pager's two threads so far, in nanoseconds.
pager_cpu() {
    local task sum=0 part _
    for task in "/proc/$guest_pid/task"/*; do
        case $(cat "$task/comm") in
        frostline-*)
            read -r part _ <"$task/schedstat"
            sum=$((sum + part))
            ;;
        esac
    done
    echo "$sum"
}

expect_right() { [ "$(guest_field mismatches)" = 0 ] || fail "wrong replies: $guest_line"; }

request() { # SECONDS
    guest_ask "request $1 $EXPONENT" '^requested ' $(($1 + 120))
    expect_right
}

# window ROUND: requests, and a line of figures.
window() {
    local before after cost rate work
    before=$(refaults) rate=$(emulator_cpu) work=$(emulator_instructions)
    request "$WINDOW"
    work=$((($(emulator_instructions) - work) / $(guest_field requested)))
    rate=$(($(guest_field requested) * 1000 / ($(emulator_cpu) - rate)))
    after=$(($(refaults) - before))
    cost=$(net_cost)
    echo "$1 $guest_name $rate $(guest_field requested) $after $cost" \
        "$(guest_field p50) $(guest_field p99) $work" >>"$windows"
    note "$1: $guest_name: $rate a second, $work instructions each; p50 $(guest_field p50) us, p99 $(guest_field p99) us;" \
        "$(mebibytes "$cost") MiB, $after pages brought back"
}

is_saved() { [ "$(qmp query-migrate | lab json status)" = completed ]; }

# One guest is filled, and its state saved: all go on from there, with the same pages and the
# same requests to come.
prepare() {
    use_guest first
    # shellcheck disable=SC2119
    guest_start
    guest_ask "serve $DATA_MIB $POPULAR $ASKED" '^serving ' 900
    note "$(guest_field serving) keys at $(uptime_seconds)"
    qmp '{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":10000000000}}' >/dev/null
    qmp "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"file:$state\"}}" >/dev/null
    wait_until 600 "the guest's state is saved" is_saved
    qmp quit >/dev/null
    guest_ended 60
}

goes_on() { [ "$(run_state)" = running ]; }

# start NAME: a guest that serves, and has done so for a while.
start() {
    use_guest "$1"
    guest_launch -incoming "file:$state"
    wait_until 300 "$1 goes on" goes_on
    [ "$1" != guest ] || pager_set mode observe
    guest_ask "warm $WARM $EXPONENT" '^warmed ' 1800
    expect_right
}

# No time passes for the guest, nor for its pager, whose looks at it are as far apart as if it ran
# all the time: a mode that is set brings one at once, for which a short turn would pay.
rest() { qmp stop >/dev/null; }

go_on() { qmp cont >/dev/null; }

# turn NAME: one guest runs for a window. What it does first is not counted: memory that the
# others have pushed out of the CPU's caches.
turn() {
    use_guest "$1"
    go_on
    request 1
    window "$round"
    rest
}

# turns NAME…: as many rounds, every other one in the opposite order.
turns() {
    round=1
    while [ "$round" -le "$ROUNDS" ]; do
        reversed=
        for name in "$@"; do
            turn "$name"
            reversed="$name $reversed"
        done
        # shellcheck disable=SC2086 # one word each
        set -- $reversed
        round=$((round + 1))
    done
}

stop() {
    use_guest "$1"
    go_on
    [ "$1" != guest ] || pager_set stall-budget 0
    guest_ask 'recall 3000' '^recalled ' 300
    expect_eq "$guest_name: wrong values among $(guest_field recalled)" "$(guest_field mismatches)" 0
    guest_quit
}

# The pager finds out what the budget allows.
settle() {
    local left=$SETTLE
    pager_before=$(net_cost)
    pager_set mode active
    while [ "$left" -gt 0 ]; do
        request $((SETTLE / 8))
        note "settling: $(mebibytes "$(net_cost)") MiB, evicted $(mebibytes "$(pager_stat evicted-bytes)") MiB," \
            "brought back $(refaults), waited $(($(pager_stat fault-time.total) / 1000000)) ms, passes $(pager_stat passes)"
        left=$((left - SETTLE / 8))
    done
    pager_saved=$((pager_before - $(net_cost)))
}

# The host's kernel takes from the guest until as much is saved, a little at a time while the
# guest serves, so that it can tell what is in use; what comes back then pushes something else out.
reclaim() {
    local said tries=0 goal
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
}

cat /lab/guest.cpio /lab/service.cpio >/run/guest.cpio
echo 0 >/proc/sys/vm/page-cluster # as is usual with zram: no neighbours beside what is wanted
swap_on "$GUEST_MEMORY" "$COMPRESSION"

readonly options=$PAGER
PAGER=
prepare
PAGER=$options
start guest
budget=$(pager_stat stall-budget)
settle
rest
PAGER=
start plain
rest
cgroup_enter vm memory
start reclaimed
cgroup_leave
reclaim
rest
small=
if [ "$SMALL" = yes ]; then
    small=small
    echo never >/sys/kernel/mm/transparent_hugepage/enabled
    start small
    rest
fi
rm "$state"

use_guest guest
# shellcheck disable=SC2046 # one word each
set -- $(pager_stat fault-time.total faults)
waited=$1 faults=$2 worked=$(pager_cpu)
turns plain guest $small reclaimed
use_guest guest
# shellcheck disable=SC2046 # one word each
set -- $(pager_stat fault-time.total faults fault-time.p50 evicted-bytes same-filled-bytes passes)
waited=$(($1 - waited)) faults=$(($2 - faults)) worked=$(($(pager_cpu) - worked)) fault_p50=$3
note "out: $(mebibytes "$4") MiB, of that same-filled $(mebibytes "$5") MiB; $6 passes"
echo max >"$vm_cgroup/memory.high"
stop plain
stop guest
stop reclaimed
[ -z "$small" ] || stop small

# shellcheck disable=SC2016
loss_rows='
# The loss of throughput and, where there is one, of a guest in small pages.
function rows(name, what, of, kernel_lost, kernel_words, loss) {
    kernel_lost = lost(what, "reclaimed")
    kernel_words = sprintf("%.2f, standard error %.2f, median %.2f", kernel_lost, error, middle)
    loss = lost(what, "guest")
    row(name, loss, "%", kernel_lost > 0 ? kernel_lost : "",
        sprintf("of the requests %s without a pager, %d turns of each, standard error %.2f, " \
            "median %.2f; reclaim into zram loses %s", of, rounds, error, middle, kernel_words))
    if (!(("small", 1) in rate)) return
    loss = lost(what, "small")
    row(name "/small-pages", loss, "%", "",
        sprintf("of a guest without a pager, its memory in small pages, standard error %.2f, " \
            "median %.2f", error, middle))
}'
# Windows of one round are compared with each other: a report as the benchmarks write it.
# shellcheck disable=SC2016 # awk's variables
report='
function root(x, r, i) {
    if (x <= 0) return 0
    r = x
    for (i = 0; i < 80; i++) r = (r + x / r) / 2
    return r
}
# Of the requests, for each second or each instruction, of the guest without a pager in the same
# round, in percent: by the mean of the logarithms, since ratios that are too large by half and too
# small by a third cancel each other. The median of the rounds is in `middle`: one turn in which
# something else had the machine hardly moves it.
function lost(what, guest, i, j, sum, squares, part, sorted) {
    for (i = 1; i <= rounds; i++) {
        part = 100 * ln(what["plain", i] / what[guest, i])
        sum += part
        squares += part * part
        for (j = i; j > 1 && sorted[j - 1] > part; j--) sorted[j] = sorted[j - 1]
        sorted[j] = part
    }
    middle = in_percent((sorted[int((rounds + 1) / 2)] + sorted[int((rounds + 2) / 2)]) / 2)
    error = rounds > 1 ? root((squares - sum * sum / rounds) / (rounds - 1) / rounds) : 0
    return in_percent(sum / rounds)
}
function in_percent(hundredths) { return 100 - 100 / power_of_e(hundredths / 100) }
# BusyBox has neither log nor exp where it comes without floating-point functions.
function ln(x, part, power, sum, i) {
    part = (x - 1) / (x + 1)
    power = part
    for (i = 1; i < 200; i += 2) {
        sum += 2 * power / i
        power *= part * part
    }
    return sum
}
function power_of_e(x, i, term, sum) {
    term = sum = 1
    for (i = 1; i < 60; i++) sum += term *= x / i
    return sum
}
function mean(what, guest, i, sum) {
    for (i = 1; i <= rounds; i++) sum += what[guest, i]
    return sum / rounds
}
function row(name, value, unit, floor, words) {
    printf "%s  {\n    \"name\": \"policy/redis-%s-%s/%s\",\n    \"value\": %.4f,\n", comma, popular, asked, name, value
    if (floor == "") printf "    \"floor\": null,\n    \"ratio\": null,\n"
    else printf "    \"floor\": %.4f,\n    \"ratio\": %.4f,\n", floor, value / floor
    printf "    \"unit\": \"%s\",\n    \"floor_of\": \"%s\"\n  }", unit, words
    comma = ",\n"
}
{
    if ($1 > rounds) rounds = $1
    rate[$2, $1] = $3
    cost[$2, $1] = $6
    median[$2, $1] = $7
    requests[$2] += $4
    missed[$2] += $5
    per_instruction[$2, $1] = 1 / $9
}
END {
    printf "{\n\"machine\": \"%s\",\n\"commit\": \"\",\n\"notes\": [\"%s\"],\n\"results\": [\n", machine, notes
    row("saved", 100 * (1 - mean(cost, "guest") / pager_before), "%",
        100 * (1 - mean(cost, "reclaimed") / kernel_before),
        sprintf("of what the guest costs the host, store and pool subtracted; the hosts own reclaim into zram, " \
            "brought level (%d and %d MiB before)",
            pager_before / 1048576, kernel_before / 1048576))
    rows("loss", rate, "a second")
    rows("loss-by-work", per_instruction, "for each instruction")
    row("throughput", mean(rate, "guest"), "/s", mean(rate, "plain"), "requests a second of the emulators CPU time without a pager")
    row("throughput/kernel", mean(rate, "reclaimed"), "/s", mean(rate, "plain"),
        "the same for reclaim into zram")
    kernel_missed = 1000 * missed["reclaimed"] / requests["reclaimed"]
    row("refetches-against-kernel", 1000 * missed["guest"] / requests["guest"],
        "/1000 requests", kernel_missed > 0 ? kernel_missed : "",
        "pages brought back because somebody waited; by reclaim into zram, as much being saved")
    row("stall", waited / (rounds * window * 1e9) * 100, "%", budget / 1e4,
        "of the time, waited for pages; the budget")
    row("cpu", worked / (rounds * (window + 1) * 1e9) * 100, "%", "",
        "of the CPU, used by the pager, which looks, evicts and serves, while its guest runs")
    if (faults > 0)
        row("wait", waited / faults / 1000, "us", mean(median, "plain"),
            sprintf("for a page, on average, median %.0f; a request as a whole, median", fault_p50 / 1000))
    printf "\n]\n}\n"
}'
awk -v pager_before="$pager_before" -v kernel_before="$kernel_before" -v waited="$waited" \
    -v faults="$faults" -v worked="$worked" -v fault_p50="$fault_p50" -v window="$WINDOW" -v budget="$budget" \
    -v machine="lab host: 1 CPU, emulated (TCG), Linux $LAB_KERNEL" \
    -v popular="$POPULAR" -v asked="$ASKED" \
    -v notes="redis, $DATA_MIB MiB of values in a guest of $GUEST_MEMORY, keys ($POPULAR, $ASKED %) by Zipf's law with exponent $EXPONENT/100; $(echo "$options" | tr -d '"')" \
    "$loss_rows $report" "$windows" >/out/report.json
awk -F '": ' '/"name"/ { name = $2 } /"value"/ { value = $2 } /"floor":/ { floor = $2 }
    /"floor_of"/ { print name, value, "beside", floor, $2 }' /out/report.json
