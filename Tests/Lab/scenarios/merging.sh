# The host merges equal pages (KSM) of a guest that may be merged: what it has merged stays and
# is counted, what is cold beside it leaves, hot memory stays, and under stress no byte is lost.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=240
: "${GUEST_MEMORY=160M}" "${GUEST_BACKEND=ram,merge=on}"
: "${SECONDS_OF_STRESS=10}"
: "${PAGER=tracker=rwp,store=compressed,mode=observe,limit=0,idle-age=6}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

readonly ksm=/sys/kernel/mm/ksm

merged_by_kernel() { echo $((($(cat $ksm/pages_shared) + $(cat $ksm/pages_sharing)) << 12)); }
equal_is_merged() { [ "$(merged_by_kernel)" -ge $((equal * 95 / 100)) ]; }
cold_is_out() { [ "$(pager_stat evicted-bytes)" -ge $((cold * 9 / 10)) ]; }
merged_is_known() { [ "$(pager_stat merged-bytes)" -ge $((equal * 9 / 10)) ]; }
# Of QEMU's other memory, such as the firmware's, there are some dozen pages left.
little_is_merged() { [ "$(merged_by_kernel)" -lt $((1 << 20)) ]; }

set_merging() {
    qmp "{\"execute\":\"qom-set\",\"arguments\":{\"path\":\"/objects/ram0\",\"property\":\"merge\",\"value\":$1}}" \
        >/dev/null || fail "cannot set merge to $1: $(tail -n 1 "$qmp_log")"
}

echo 3000 >$ksm/pages_to_scan
guest_start
guest_ask 'fill 40 huge 50' '^filled ' 90
filled=$(guest_field filled)
equal=$(guest_field equal)
guest_ask 'hot 20' '^hot ' 60
hot=$(guest_field hot)
cold=$((filled - equal - hot))

echo 1 >$ksm/run
wait_until 60 "the kernel merges the equal pages" equal_is_merged
note "of $(mebibytes "$equal") MiB that are equal: pages merged into others $(cat $ksm/pages_sharing), others $(cat $ksm/pages_shared)"
expect_ge "pages that were merged into others" "$(cat $ksm/pages_sharing)" $((equal / 4096 / 2))
echo 200 >$ksm/pages_to_scan # it goes on, and leaves the CPU to others
expect_eq "merged memory, before anything is to leave" "$(pager_stat merged-bytes)" 0

pager_set mode active
wait_until 60 "what is cold leaves" cold_is_out
wait_until 30 "what is merged has been tried" merged_is_known
fetches=$(pager_stat fetches)
busy=$(pager_stat busy-pages)
sleep 12
note "evicted $(mebibytes "$(pager_stat evicted-bytes)") MiB, merged $(mebibytes "$(pager_stat merged-bytes)") MiB, in 12 s: fetches $(($(pager_stat fetches) - fetches)), refused $(($(pager_stat busy-pages) - busy))"
expect_ge "evicted, of what is cold and not equal" "$(pager_stat evicted-bytes)" $((cold * 9 / 10))
expect_ge "merged memory" "$(pager_stat merged-bytes)" $((equal * 9 / 10))
expect_le "merged memory by the kernel's account" "$(pager_stat merged-bytes)" "$(merged_by_kernel)"
expect_ge "in RAM: what is merged and what is hot" "$(guest_ram_rss)" $(((equal + hot) * 9 / 10))
expect_le "pages fetched meanwhile, of the hot ones a tenth" $(($(pager_stat fetches) - fetches)) $((hot / 4096 / 10))
# Twice the idle age: merged pages that are not left alone would all be tried again.
expect_le "pages refused meanwhile, of the merged ones a tenth" $(($(pager_stat busy-pages) - busy)) $((equal / 4096 / 10))

# Merged pages become the guest's own when they are written, and are merged again.
stress() {
    guest_ask "stress $1 1" '^stress ' $(($1 + 60))
    note "$guest_line"
    expect_eq "mismatches under stress" "$(guest_field mismatches)" 0
}
stress "$SECONDS_OF_STRESS"
pager_set idle-age 0
guest_verify 90

set_merging false
wait_until 10 "guest memory is not merged any more" little_is_merged
stress $((SECONDS_OF_STRESS / 2))
guest_quit
