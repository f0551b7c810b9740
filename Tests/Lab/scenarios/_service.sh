# What saving memory costs a real service: redis with a data set that is mostly cold, under a
# stall budget, and without a pager with as much taken away by the host's own reclaim into zram.
# shellcheck shell=dash
#lab: LAB_MEMORY=2560M LAB_TIMEOUT=1200 LAB_SERVICE=yes
: "${GUEST_MEMORY=384M}"
: "${GUEST_INITRD=/run/guest.cpio}"
# A fault costs thirty times as much here as on a real host: ten times the usual budget.
: "${PAGER=tracker=rwp,store=compressed,mode=off,limit=0,idle-age=0,stall-budget=50000}"
# Of the guest's memory, 60 %.
: "${DATA_MIB=230}"
# Hundredths of the exponent of Zipf's law.
: "${EXPONENT=130}"
: "${SETTLE=180}" "${WINDOW=30}" "${WINDOWS=2}"
# "PLAIN_COST COST MISSED" of an earlier run: bytes without and with eviction, pages brought
# back for 1000 requests. The first part is left out then.
: "${FIRST_PART=}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

readonly zram=/sys/block/zram0

vmstat() { sed -n "s/^$1 //p" /proc/vmstat; }

# What the guest costs the host, the compressed pages included: the pager's pool is QEMU's
# memory, zram's is the kernel's.
net_cost() {
    local pool=0
    [ ! -s "$zram/mm_stat" ] || read -r _ _ pool _ <"$zram/mm_stat"
    echo $(($(process_rss) + pool))
}

request() { # SECONDS
    guest_ask "request $1 $EXPONENT" '^requested ' $(($1 + 120))
    [ "$(guest_field mismatches)" = 0 ] || fail "wrong replies: $guest_line"
}

# Pages that had to be brought back because somebody waited for them.
refaults() {
    if [ -n "$PAGER" ]; then
        # shellcheck disable=SC2046 # one word each
        set -- $(pager_stat fetches prefetches)
        echo $(($1 - $2))
    else
        vmstat pswpin
    fi
}

# measure WHAT: WINDOWS windows. The mean rate is in $rate (thousandths), pages brought back
# for a thousand requests in $missed, the mean net cost in $cost.
measure() {
    local before each=0 requests=0
    before=$(refaults)
    rate=0 cost=0
    while [ "$each" -lt "$WINDOWS" ]; do
        request "$WINDOW"
        note "$1: $(($(guest_field per-1000s) / 1000)) a second; p50 $(guest_field p50) us, p99 $(guest_field p99) us, p99.9 $(guest_field p999) us; $(mebibytes "$(net_cost)") MiB"
        rate=$((rate + $(guest_field per-1000s) / WINDOWS))
        requests=$((requests + $(guest_field requested)))
        cost=$((cost + $(net_cost) / WINDOWS))
        each=$((each + 1))
    done
    missed=$((($(refaults) - before) * 1000 / requests))
    note "$1: $((rate / 1000)) a second, $(mebibytes $cost) MiB, $missed pages brought back for 1000 requests"
}

# start: a guest that serves.
start() {
    guest_start
    guest_ask "serve $DATA_MIB" '^serving ' 400
    request 10
}

stop() {
    guest_ask 'recall 3000' '^recalled ' 300
    expect_eq "wrong values among $(guest_field recalled)" "$(guest_field mismatches)" 0
    guest_quit
}

percent() { echo $((100 * $1 / $2)); }
# loss RATE: per cent of the rate without help.
loss() { echo $((100 - 100 * $1 / plain_rate)); }

cat /lab/guest.cpio /lab/service.cpio >/run/guest.cpio

# under_budget: sets plain_cost, pager_cost and pager_missed.
under_budget() {
    start
    measure "pager off"
    plain_rate=$rate plain_cost=$cost
    pager_set mode active
    for step in 1 2 3 4 5 6; do
        request $((SETTLE / 6))
        progress "settling $step of 6: $(mebibytes "$(net_cost)") MiB, evicted $(mebibytes "$(pager_stat evicted-bytes)") MiB, refaults $(refaults), waited $(($(pager_stat fault-time.total) / 1000000)) ms"
    done
    measure "stall budget"
    pager_cost=$cost pager_missed=$missed pager_rate=$rate
    pager_set mode off
    pager_set stall-budget 0
    stop
    note "stall budget: $(percent $((plain_cost - pager_cost)) "$plain_cost") % of memory saved, throughput lost $(loss $pager_rate) %"
}

# The second part alone, with what the first one measured.
if [ -n "$FIRST_PART" ]; then
    # shellcheck disable=SC2086 # one word each
    set -- $FIRST_PART
    plain_cost=$1 pager_cost=$2 pager_missed=$3
else
    under_budget
fi

PAGER=
cgroup_enter vm memory
start
cgroup_leave
measure "no pager"
plain_rate=$rate
swap_on "$GUEST_MEMORY"
as_much_is_saved() {
    echo 4M >"$vm_cgroup/memory.reclaim" 2>/dev/null || true
    [ "$(net_cost)" -le "$pager_cost" ]
}
wait_until 200 "the host saves as much" as_much_is_saved
# What comes back pushes something else out.
cat "$vm_cgroup/memory.current" >"$vm_cgroup/memory.high"
request $((SETTLE / 6))
measure "cgroup and zram"
note "cgroup and zram: $(percent $((plain_cost - cost)) "$plain_cost") % of memory saved, throughput lost $(loss $rate) %"
echo max >"$vm_cgroup/memory.high"
stop

note "brought back for 1000 requests: stall budget $pager_missed, cgroup and zram $missed pages"
expect_ge "memory saved under the stall budget, per cent" "$(percent $((plain_cost - pager_cost)) "$plain_cost")" 15
# Neither is steady to a few pages in so short a time.
expect_le "pages that the stall budget brings back, beside the host's own reclaim" "$pager_missed" $((missed * 5 / 4 + 20))
