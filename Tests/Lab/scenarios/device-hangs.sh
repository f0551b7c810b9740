# The disk neither gives pages back nor says that it cannot. After half a minute the VM stops
# with run state io-error and says so; the operator is answered all the while, and hears of pages
# that it does not take either; when the disk answers again the VM goes on by itself, and every
# byte is right. Reads that no access waits for stop no VM.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=400 LAB_DISK=256M
: "${GUEST_MEMORY=128M}"
: "${PAGER=tracker=rwp,store=file,path=/dev/dm-0,size=96M,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-tiers.sh
. /lab/lib-tiers.sh

mostly_out() { [ "$(pager_stat file-bytes)" -gt $((filled * 3 / 4)) ]; }
stopped() { [ "$(run_state)" = io-error ]; }
takes_pages() { grep -q 'MEMORY_PAGER_RECOVERED.*"operation": "write"' "$events_log"; }
nothing_is_out() { [ "$(pager_stat evicted-bytes)" = 0 ]; }
stops_told() { grep -c 'MEMORY_PAGER_ERROR.*"action": "stop"' "$events_log"; }
nothing_waits() { [ "$(pager_stat waiting-pages)" = 0 ]; }

make_disk 96
guest_start
guest_ask 'fill 36' '^filled ' 90
filled=$(guest_field filled)
pager_set idle-age 2
wait_until 90 "three quarters of the memory are evicted" mostly_out
pager_set idle-age 3600

lab dm suspend disk
hung=$(cut -d. -f1 /proc/uptime)
guest_send verify
wait_until 75 "the VM stops" stopped
expect_ge "seconds until then" $(($(cut -d. -f1 /proc/uptime) - hung)) 29
event_wait MEMORY_PAGER_ERROR 30
note "$event_line"
expect_eq "failed operation, and what was done" "$(event_fields operation action)" "read stop"
expect_ge "read errors" "$(pager_stat read-errors)" 1
expect_ge "pages waited for" "$(pager_stat waiting-pages)" 1

press 8
event_wait MEMORY_PAGER_ERROR 60 '"operation": "write"'
note "$event_line"
expect_eq "failed operation, what was done, and where" "$(event_fields operation action tier)" "write keep 0"
expect_eq "state of its tier" "$(tier 0 state)" failing
expect_ge "write errors" "$(tier 0 write-errors)" 1
pager_set limit 0

lab dm resume disk
wait_until 30 "no page is waited for any more" nothing_waits
event_wait MEMORY_PAGER_RECOVERED 30 '"operation": "read"'
event_wait RESUME 30
expect_eq "run state" "$(run_state)" running
wait_until 30 "it takes pages again" takes_pages
guest_wait '^verified ' 120
expect_eq "mismatches in $(guest_field verified) bytes" "$(guest_field mismatches)" 0

note "nobody waits for what the operator wants back: the guest's CPUs rest"
pager_set idle-age 2
wait_until 90 "three quarters of the memory are evicted again" mostly_out
pager_set idle-age 3600
qmp stop >/dev/null
told=$(stops_told)
lab dm suspend disk
pager_set mode drain
sleep 35
expect_eq "pages waited for" "$(pager_stat waiting-pages)" 0
expect_eq "failures told that stop the VM" "$(stops_told)" "$told"
lab dm resume disk
wait_until 60 "all comes back" nothing_is_out
qmp cont >/dev/null
guest_verify 60
guest_quit
