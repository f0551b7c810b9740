# The disk under the store fills up: the pages stay in RAM, the guest does not notice, the
# operator is told by a counter and an event, and when there is room again eviction goes on.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=300 LAB_DISK=256M
: "${GUEST_MEMORY=256M}"
: "${PAGER=tracker=rwp,store=file,path=/disk/store,size=128M,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

evicted_more_than() { [ "$(pager_stat evicted-bytes)" -gt "$1" ]; }

# The store is made first; what it has not claimed by then, the ballast takes.
guest_start
guest_ask 'fill 50' '^filled ' 90
dd if=/dev/zero of=/disk/ballast bs=1M 2>/dev/null || true
note "free on the disk: $(df -k /disk | awk 'END { print $4 }') KiB"
pager_set idle-age 2
event_wait MEMORY_PAGER_ERROR 60
note "$event_line"
expect_eq "failed operation, and what was done" "$(event_fields operation action)" "write keep"
sleep 5
expect_ge "write errors" "$(pager_stat write-errors)" 1
expect_ge "pages put back" "$(pager_stat returned-pages)" 1
expect_eq "run state" "$(run_state)" running
guest_verify 120

rm /disk/ballast
wait_until 60 "eviction goes on when there is room" evicted_more_than $((48 << 20))
event_wait MEMORY_PAGER_RECOVERED 30
expect_eq "recovered operation" "$(event_fields operation)" write
pager_set idle-age 3600
guest_verify 180
guest_quit
