# The disk does not answer, and what it has is on another, too: the guest goes on as if nothing
# were, the operator is told, and what the disk owes harms nobody when it comes.
# shellcheck shell=dash
#lab: LAB_DISK=256M
tiers() {
    printf '%s' '"tracker":"rwp","limit":0,"idle-age":0,"tiers":[' \
        '{"type":"file","path":"/dev/dm-0","size":100663296,' \
        '"mirror":{"type":"file","path":"/disk/mirror","size":100663296}}]'
}
: "${GUEST_MEMORY=128M}"
: "${PAGER=$(tiers)}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-tiers.sh
. /lab/lib-tiers.sh

mostly_out() { [ "$(pager_stat file-bytes)" -gt $((filled * 3 / 4)) ]; }
reads_are_told() { grep -q 'MEMORY_PAGER_ERROR.*"operation": "read", "tier": 0, "action": "keep"' "$events_log"; }
owes_nothing() { [ "$(tier 0 in-flight)" = 0 ]; }

make_disk 96
guest_start
guest_ask 'fill 36' '^filled ' 90
filled=$(guest_field filled)
pager_set idle-age 2
wait_until 90 "three quarters of the memory are evicted" mostly_out
pager_set idle-age 3600
wait_until 30 "both disks have them" owes_nothing

lab dm suspend disk
guest_verify 120
# Of a read; or of what the pager's worker waits for, which cannot tell of reads then.
event_wait MEMORY_PAGER_ERROR 90
note "$event_line"
expect_eq "what was done, and where" "$(event_fields action tier)" "keep 0"
expect_eq "run state" "$(run_state)" running
expect_ge "reads that the disk still owes" "$(tier 0 in-flight)" 1
expect_eq "failed reads of the guest's" "$(pager_stat read-errors)" 0

lab dm resume disk
wait_until 30 "the disk owes nothing" owes_nothing
wait_until 30 "reads that the mirror was asked for are told" reads_are_told
guest_verify 120
guest_quit
