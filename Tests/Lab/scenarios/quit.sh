# QEMU ends at once and cleanly with the whole guest evicted: nothing is read back first,
# nothing hangs, nothing crashes on the way out. By QMP and by SIGTERM.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=240
: "${GUEST_MEMORY=256M}"
: "${PAGER=tracker=rwp,store=compressed,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

# A stopped guest touches nothing, so nearly all of it goes.
everything_out() { [ "$(guest_ram_rss)" -lt $((24 << 20)) ]; }

start_and_evict() {
    guest_start
    guest_ask 'fill 50' '^filled ' 90
    qmp '{"execute":"stop"}' >/dev/null
    pager_set idle-age 1
    wait_until 90 "everything is evicted" everything_out
    note "resident: $(guest_ram_rss), evicted: $(pager_stat evicted-bytes)"
}

start_and_evict
qmp '{"execute":"quit"}' >/dev/null
guest_ended 10
note "ended by QMP"

start_and_evict
kill -TERM "$guest_pid"
guest_ended 10
note "ended by SIGTERM"
