# Precopy migration with most of the guest in the store: the source brings everything back and
# says so, the destination pages it anew. A page that is sent, or placed, behind a pager's back
# would show as a mismatch; a cancelled migration must leave no trace. What the source's pager knew
# of the pages' ages is saved and loaded.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=400
: "${GUEST_MEMORY=192M}"
: "${PAGER=tracker=rwp,store=compressed,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

readonly channel=/run/migration.sock

# Not counting what is zero: of that the guest has plenty.
half_is_out() { [ "$(pager_stat compressed-bytes)" -gt $((filled / 2)) ]; }

another_pass() { [ "$(pager_stat passes)" -gt "$passes" ]; }

evict_half() {
    pager_set idle-age 3
    wait_until 90 "half of the memory is evicted" half_is_out
    passes=$(pager_stat passes)
    pager_set idle-age 3600 # what comes back now stays
    wait_until 60 "the pass under way ends" another_pass
    note "evicted on $guest_name: $(pager_stat evicted-bytes)"
}

# A QEMU like the first, that waits for a guest.
start_destination() {
    use_guest destination
    guest_launch -incoming "unix:$channel"
    use_guest guest
}

# migrate BYTES_A_SECOND: starts to.
migrate() {
    qmp "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-bandwidth\":$1}}" >/dev/null
    qmp "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"unix:$channel\"}}" >/dev/null
}
migration_stat() { qmp query-migrate | lab json "$1"; }
migration_is() { [ "$(migration_stat status)" = "$1" ]; }
hotness() { # save or load
    qmp "{\"execute\":\"memory-pager-$1-hotness\",\"arguments\":{\"id\":\"pager0\",\"filename\":\"/run/hotness\"}}" \
        >/dev/null || fail "hotness: $(tail -n 1 "$qmp_log")"
}
# Longer than any guest here has run.
long_idle() { working_set idle.10.bytes; }
knows_half() { [ "$(long_idle)" -ge $((filled / 2)) ]; }
some_is_sent() { [ "$(migration_stat ram.transferred)" -gt $((4 << 20)) ]; }

guest_start
guest_ask 'fill 50' '^filled ' 90
filled=$(guest_field filled)
guest_ask 'hot 5' '^hot ' 60
evict_half

start_destination
migrate $((2 << 20))
wait_until 60 "some of the guest is sent" some_is_sent
expect_eq "migration to be cancelled" "$(migration_stat status)" active
qmp migrate_cancel >/dev/null
wait_until 30 "the migration is cancelled" migration_is cancelled
use_guest destination
wait_until 30 "the destination gives up" guest_gone
use_guest guest
expect_eq "run state" "$(run_state)" running
guest_verify 120
evict_half

start_destination
hotness save
# shellcheck disable=SC2046 # one word each
set -- $(pager_stat fetches evicted-bytes)
migrate $((1 << 30))
wait_until 120 "the migration is completed" migration_is completed
expect_eq "run state of the source" "$(run_state)" postmigrate
expect_ge "bytes fetched to be sent" $((($(pager_stat fetches) - $1) << 12)) "$2"
expect_eq "bytes still evicted on the source" "$(pager_stat evicted-bytes)" 0
expect_eq "warnings" "$(grep -c 'warning: .*brings back into RAM' "$qemu_log")" 1
rounds=$(sed -n 's/^rounds //p' "$guest_log" | tail -n 1)
qmp quit >/dev/null
guest_ended 20

use_guest destination
guest_wait '^rounds ' 60
expect_ge "rounds, counted on from the source's" "$(guest_field rounds)" "$rounds"
expect_eq "run state" "$(run_state)" running
expect_eq "bytes that the destination knows to be idle for 1024 s" "$(long_idle)" 0
hotness load
wait_until 30 "it knows of half of the memory" knows_half
note "idle for 1024 s: $(long_idle)"
guest_verify 120
evict_half
fetches=$(pager_stat fetches)
guest_verify 120
expect_ge "pages fetched on the destination" $(($(pager_stat fetches) - fetches)) 10000
# The pager there still keeps out what would pin its memory.
pin='{"execute":"blockdev-add","arguments":{"driver":"nvme","node-name":"n","device":"0000:00:00.0","namespace":1}}'
! refusal=$(qmp "$pin") || fail "memory that has a pager could be pinned"
expect_ge "pinning is refused" "$(echo "$refusal" | grep -c "remove 'pager'")" 1
guest_quit
