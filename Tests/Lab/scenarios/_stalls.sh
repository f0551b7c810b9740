# What a vCPU waits for while pages leave, with each guard: one that writes to other pages, all
# of them armed anew each second, beside the same with nothing leaving and another process on the
# CPU; and one that writes to pages of the part that is leaving. There is one CPU, and an exit
# from a guest within an emulated machine takes long: only the figures of one run beside each
# other say something.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=1800
: "${GUEST_MEMORY=256M}"
: "${ROUNDS=5}" "${WINDOW=2}" # seconds
: "${CELLS=rwp/move/private rwp/freeze/private rwp/minor/shared rwp/freeze/shared zap/minor/shared wp/write-protect/private}"
PAGER=
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-report.sh
. /lab/lib-report.sh

readonly figures=/run/figures
readonly others='0 16'  # from and how much, per cent of what is filled
readonly cold='20 80'
readonly leaving=$((96 << 20))

is_back() { [ "$(pager_stat evicted-bytes)" = 0 ]; }

# Of what is in RAM, so much begins to leave.
evict() {
    pager_set limit $(($(pager_stat resident-bytes) - leaving))
    pager_set mode active
}

# All comes back, and a pass or two arm it.
bring_back() {
    pager_set limit 0
    pager_set mode drain
    wait_until 120 "all is back" is_back
    pager_set mode observe
    sleep 3
}

# stalls WHAT PART SPACING: notes p50, p99 and the longest wait, and the evictions meanwhile.
stalls() {
    local before
    before=$(pager_stat evictions)
    guest_ask "stalls $WINDOW $2 $3" '^stalls ' 60
    evicted=$(($(pager_stat evictions) - before))
    echo "$(guest_field p50) $(guest_field p99) $(guest_field longest) $evicted" >>"$figures/$1"
}

# figure WHAT COLUMN: its median, in microseconds.
figure() { cut -d ' ' -f "$2" "$figures/$1" | median | awk '{ print $1 / 1000 }'; }

start() { # TRACKER GUARD MEMORY
    GUEST_BACKEND=ram
    [ "$3" != shared ] || GUEST_BACKEND=memfd
    PAGER=tracker=$1,guard=$2,store=compressed,mode=observe,limit=0,idle-age=8
    mkdir -p "$figures"
    rm -f "$figures"/*
    use_guest "$(echo "$1_$2_$3" | tr -- - _)"
    # shellcheck disable=SC2119
    guest_start
    guest_ask 'fill 50' '^filled ' 120
    guest_ask 'walk 1 0 16' '^walked ' 60
    sleep 3
}

measure() { # TRACKER GUARD MEMORY
    local round=0 busy name=guard/$2/$3/$1 met
    start "$@"
    while [ "$round" -lt "$ROUNDS" ]; do
        evict
        stalls others "$others" 200
        expect_ge "$name: pages that left meanwhile" "$evicted" 1000
        bring_back
        gzip -1 </dev/zero >/dev/null &
        busy=$!
        stalls floor "$others" 200
        kill "$busy"
        met=$(pager_stat rescues)
        evict
        stalls cold "$cold" 3000
        echo $(($(pager_stat rescues) - met)) >>"$figures/met"
        bring_back
        round=$((round + 1))
    done
    result "$name/vcpu-stall-other/p50" "$(figure others 1)" us "$(figure floor 1)" \
        "a vCPU's writes to other pages, armed each second; the same with nothing leaving and the CPU as busy"
    result "$name/vcpu-stall-other/p99" "$(figure others 2)" us "$(figure floor 2)" "the same"
    result "$name/vcpu-stall-leaving/p50" "$(figure cold 1)" us "" \
        "a vCPU's writes to pages of a part that is leaving, some there still, some out, $(awk '{ s += $1 } END { print s }' "$figures/met") on their way"
    result "$name/vcpu-stall-leaving/p99" "$(figure cold 2)" us "" "the same"
    guest_verify 120
    guest_quit
}

echo never >/sys/kernel/mm/transparent_hugepage/enabled
for cell in $CELLS; do
    # shellcheck disable=SC2046 # one word each
    measure $(echo "$cell" | tr / ' ')
done
write_report "a vCPU writes to pages in no order, $WINDOW s at a time, the median of $ROUNDS; $((leaving >> 20)) MiB of $GUEST_MEMORY leave meanwhile"
