# A reset with memory evicted: the firmware and the next kernel overwrite pages that are in
# the store, and must never see the old guest's bytes come back over their own.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=300
: "${GUEST_MEMORY=256M}"
: "${PAGER=tracker=rwp,store=compressed,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

mostly_out() { [ "$(pager_stat evicted-bytes)" -gt $((filled / 2)) ]; }

fill_and_evict() {
    guest_ask 'fill 50' '^filled ' 90
    filled=$(guest_field filled)
    pager_set idle-age 2
    wait_until 90 "half of the memory is evicted" mostly_out
    pager_set idle-age 3600 # or the emulated guest would lose what it has just read
}

guest_start
fill_and_evict

qmp '{"execute":"system_reset"}' >/dev/null
event_wait RESET 30
guest_wait '^ready ' 120
note "booted again after a reset from outside"
fill_and_evict
guest_verify 120

guest_send reboot
guest_wait '^ready ' 120
note "booted again after the guest's own reboot"
guest_ask 'fill 50' '^filled ' 90
guest_verify 120
guest_quit
