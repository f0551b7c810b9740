# Cold memory runs down a cascade while the guest works: a little compressed RAM, a small file,
# a larger one. Under stress one more file is added, and two tiers are emptied and go. A lost
# write, a stale page or a torn one would show as a mismatch.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=500 LAB_DISK=896M
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${SECONDS_OF_STRESS=90}"
: "${PAGER=tracker=rwp,limit=96M,idle-age=0,tiers.0.type=compressed,tiers.0.max-bytes=8M,tiers.1.type=file,tiers.1.path=/disk/small,tiers.1.size=16M,tiers.2.type=file,tiers.2.path=/disk/large,tiers.2.size=256M}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

# tier INDEX FIELD…: of the tier that is called so; nothing when there is none.
tier() {
    local index=$1 position=0 found field
    shift
    while found=$(pager_stat "tiers.$position.index" 2>/dev/null) && [ -n "$found" ]; do
        if [ "$found" = "$index" ]; then
            for field in "$@"; do pager_stat "tiers.$position.$field"; done
            return
        fi
        position=$((position + 1))
    done
}
holds_pages() { [ "$(tier "$1" stored-bytes)" -gt 0 ]; }
moves_on() { [ "$(tier "$1" demotions)" -gt 0 ]; }
is_gone() { [ -z "$(tier "$1" state)" ]; }
# The file has no name; QEMU's descriptor of it is all that is left.
is_open() { find "/proc/$guest_pid/fd" -type l -exec readlink {} + | grep -q "^/disk/$1 "; }
remove_tier() {
    qmp "{\"execute\":\"memory-pager-remove-tier\",\"arguments\":{\"id\":\"pager0\",\"index\":$1}}" \
        >/dev/null || fail "cannot remove tier $1: $(tail -n 1 "$qmp_log")"
}

guest_start
pager_set mode active
guest_ask 'fill 50' '^filled ' 120
guest_send "stress $SECONDS_OF_STRESS $GUEST_CPUS"
for index in 0 1 2; do
    wait_until 60 "tier $index holds pages" holds_pages "$index"
    note "tier $index: $(tier "$index" type state stored-bytes cost max-bytes demotions | tr '\n' ' ')"
    expect_le "cost of tier $index" "$(tier "$index" cost)" "$(tier "$index" max-bytes)"
done
wait_until 60 "pages move on from the compressed tier" moves_on 0

added=$(qmp '{"execute":"memory-pager-add-tier","arguments":{"id":"pager0","tier":{"type":"file","path":"/disk/added","size":268435456}}}' | lab json index)
expect_eq "index of the added tier" "$added" 3
remove_tier 2
wait_until 90 "the large file is empty and gone" is_gone 2
is_open large && fail "the large file is still open"
wait_until 60 "the added file holds pages" holds_pages 3
remove_tier 0
wait_until 90 "the compressed tier is empty and gone" is_gone 0

guest_wait '^stress ' $((SECONDS_OF_STRESS + 120))
note "$guest_line"
note "evictions, faults, rescues: $(pager_stat evictions faults rescues)"
expect_eq "mismatches under stress" "$(guest_field mismatches)" 0
expect_ge "evictions" "$(pager_stat evictions)" 5000
expect_eq "errors of writing and reading" "$(pager_stat write-errors read-errors)" "0 0"
pager_set limit 0
guest_verify 200
guest_quit
