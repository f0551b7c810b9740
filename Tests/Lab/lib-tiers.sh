# Words for scenarios about tiers, besides those of lib.sh. Sourced after it.
#
# Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
# shellcheck disable=SC2154 # what lib.sh sets

# tier INDEX FIELD…: of the tier that is called so; nothing when there is none.
tier() {
    local index=$1 position=0 answer found field paths=''
    shift
    answer=$(qmp query-memory-pager) || fail "query-memory-pager: $answer"
    while found=$(echo "$answer" | lab json "0.tiers.$position.index" 2>/dev/null); do
        if [ "$found" = "$index" ]; then
            for field in "$@"; do paths="$paths 0.tiers.$position.$field"; done
            # shellcheck disable=SC2086 # one word each
            echo "$answer" | lab json $paths
            return
        fi
        position=$((position + 1))
    done
}
note_tier() { note "tier $1: $(tier "$1" type state stored-bytes cost max-bytes writes reads demotions)"; }
holds_pages() { [ "$(tier "$1" stored-bytes)" -gt 0 ]; }
moved_on() { [ "$(tier "$1" demotions)" -gt 0 ]; }
took_more_than() { [ "$(tier "$1" writes)" -gt "$2" ]; }
refused_reads() { [ "$(tier "$1" read-errors)" -ge "$2" ]; }
gave_more_than() { [ "$(tier "$1" reads)" -gt "$2" ]; }
is_gone() { [ -z "$(tier "$1" state)" ]; }

# add_tier INDEX TIER: what it is to be called, and what it is to be, as JSON.
add_tier() {
    local answer
    answer=$(qmp "{\"execute\":\"memory-pager-add-tier\",\"arguments\":{\"id\":\"pager0\",\"tier\":$2}}") ||
        fail "cannot add a tier: $answer"
    expect_eq "index of the added tier" "$(echo "$answer" | lab json index)" "$1"
}
remove_tier() {
    qmp "{\"execute\":\"memory-pager-remove-tier\",\"arguments\":{\"id\":\"pager0\",\"index\":$1}}" >/dev/null ||
        fail "cannot remove tier $1: $(tail -n 1 "$qmp_log")"
}

# press MEBIBYTES: so much of what is resident has to leave, which a tier must take, down to the
# lowest limit there is. A guest that is within its limit gives a tier nothing to fail at, or to
# recover by.
press() {
    local limit=$(($(pager_stat resident-bytes) - ($1 << 20))) lowest=$((32 << 20))
    [ "$limit" -ge "$lowest" ] || limit=$lowest
    pager_set limit "$limit"
}

# The guest works for as long as the rest takes.
work() {
    while [ ! -e "$run/enough" ]; do
        guest_ask "stress 10 $GUEST_CPUS" '^stress ' 90
        note "$guest_line"
        [ "$(guest_field mismatches)" = 0 ] || fail "mismatches under stress"
    done
}
