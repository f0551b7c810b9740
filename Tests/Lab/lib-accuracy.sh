# How well a tracker knows what is cold, against a guest that knows when it touched each page.
# Where the host maps huge pages, a look sees one touch for all 512 pages, so with UNIT=512 the
# question is which of them have no page in use.
# Sourced after lib.sh, by scenarios that set TRACKER, IDLE and PATTERNS.
#
# Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
# shellcheck disable=SC2154 # what lib.sh sets

: "${PRECISION=9900}"                     # the least that passes, in ten-thousandths; "": any
: "${RECALL=$PRECISION}"
: "${HOST_THP=never}"                     # of the emulated host: "always" makes huge pages
: "${UNIT=1}"                             # pages that are judged together; 512: a huge page
: "${LENGTH=$((IDLE * 22 / 10))}"          # seconds of a pattern
: "${FILLED=40}"                          # per cent of guest memory

[ "$PATTERNS" != all ] || PATTERNS='uniform zipf scan phases read-only write-only'
readonly truth=/out/truth.bin
# shellcheck source=Tests/Lab/lib-damon.sh
. /lab/lib-damon.sh

# What the tracker calls idle, as ranges of pages. Leaves the time between two looks.
look() {
    if [ "$TRACKER" = damon ]; then
        damon_interval "$1" "$2" >/out/interval
        damon_write state update_schemes_tried_regions
        lab damon "$kdamond/contexts/0/schemes/0/tried_regions" "$damon_start_address" \
            "$(awk "BEGIN { printf \"%.0f\", $IDLE / $(cat /out/interval) }")" >/out/told
    else
        qmp '{"execute":"memory-pager-save-hotness","arguments":{"id":"pager0","filename":"/out/hotness"}}' \
            >/dev/null || fail "no hotness: $(tail -n 1 "$qmp_log")"
        lab hotness /out/hotness "$IDLE" >/out/told 2>/out/interval || fail "$(cat /out/interval)"
    fi
}

# Nothing can be said of pages whose idle time differs from the one in question by less than
# the time between two looks, and than the time that passed between the last touch and the look.
# Looks are an eighth of the idle time apart, more where this machine is kept busy by others;
# more than twice that is not forgiven.
judge() {
    local begun aggregations=0 before after asked answered delay interval margin figures
    begun=$(uptime_seconds)
    [ "$TRACKER" != damon ] || aggregations=$(damon_aggregations)
    guest_ask "pattern $1 $LENGTH $IDLE $UNIT" "^pattern $1 " $((LENGTH * 4 + 60))
    before=$(uptime_seconds)
    look "$begun" "$aggregations"
    after=$(uptime_seconds)
    asked=$after
    guest_ask since '^since ' 30
    answered=$(uptime_seconds)
    guest_since=$(guest_field since)
    : >$truth
    guest_ask truth '^truth ' 60
    # Between the pattern's end and the look, by the guest's clock: the middle of what is
    # possible, and half of its width.
    set -- "$1" "$guest_since"
    delay=$(awk "BEGIN { print $2 - (($answered - $before) + ($asked - $after)) / 2 }")
    interval=$(cat /out/interval)
    note "$TRACKER, $1: looks are $interval s apart"
    interval=$(awk "BEGIN { e = $IDLE / 8; i = $interval; print (i < e ? e : i > 2 * e ? 2 * e : i) }")
    margin=$(awk "BEGIN { print $interval + (($answered - $before) - ($asked - $after)) / 2 }")
    figures=$(lab accuracy $truth "$(awk "BEGIN { print $IDLE - $delay }")" "$margin" "$UNIT" \
        </out/told)
    note "$TRACKER, $1: $figures (margin $margin s)"
    echo "$TRACKER $GUEST_BACKEND $HOST_THP $UNIT $1 $margin $figures" >>/out/accuracy.txt
    # shellcheck disable=SC2086 # one word each
    set -- "$1" $figures
    if [ "$7" = 0 ] || [ "$5" -ge $(($3 / 2)) ]; then fail "$1 shows too little: $figures"; fi
    [ -z "$PRECISION" ] || expect_ge "precision of $TRACKER, $1, in 1/10000" "${13}" "$PRECISION"
    [ -z "$RECALL" ] || expect_ge "recall of $TRACKER, $1, in 1/10000" "${15}" "$RECALL"
}

# Bytes of QEMU's private memory that are in huge pages.
in_huge_pages() { awk '$1 == "AnonHugePages:" { print $2 * 1024 }' "/proc/$guest_pid/smaps_rollup"; }

# From the guest's boot to its end, each of $PATTERNS in turn.
judge_patterns() {
    local pattern huge_pages=$(($(lab size "$GUEST_MEMORY") >> 21)) page_kind=small
    echo "$HOST_THP" >/sys/kernel/mm/transparent_hugepage/enabled
    case $GUEST_BACKEND in
    *hugetlb=on*)
        echo "$huge_pages" >/proc/sys/vm/nr_hugepages
        expect_eq "huge pages set aside" "$(cat /proc/sys/vm/nr_hugepages)" "$huge_pages"
        ;;
    esac
    # The guest's 2 MiB must be those of the host: where it maps them small, they are anywhere.
    [ "$UNIT" = 1 ] || page_kind=huge
    guest_start -device virtio-serial-pci -chardev "file,id=truth,path=$truth,append=on" \
        -device virtserialport,chardev=truth,name=truth
    guest_ask "fill $FILLED $page_kind" '^filled ' 120
    [ "$HOST_THP" != always ] || expect_ge "guest memory in huge pages of the host" \
        "$(in_huge_pages)" $(($(guest_field filled) * 9 / 10))
    [ "$TRACKER" != damon ] || damon_start
    for pattern in $PATTERNS; do
        judge "$pattern"
    done
    guest_quit
}
