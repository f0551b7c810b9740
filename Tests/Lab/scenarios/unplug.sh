# A memory module comes and goes while the guest runs: the pager takes it on, pages it, and lets
# go of it. The guest moves its pages out of the module first, evicted ones included, and then
# the rest is dropped; a page lost on the way, or a block that cannot be detached, would show.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=300
: "${GUEST_MEMORY=256M}" "${GUEST_APPEND=memhp_default_state=online_movable}"
: "${PAGER=tracker=rwp,store=compressed,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

readonly module=$((128 << 20))
base=$(lab size "$GUEST_MEMORY")

guest_has_more() {
    guest_ask status '^status ' 60
    [ "$(guest_field ram)" -gt "$base" ]
}
# Not counting what is zero: of that the guest has plenty.
half_is_out() { [ "$(pager_stat compressed-bytes)" -gt $((filled / 2)) ]; }
pager_has_less() { [ "$(pager_stat guest-bytes)" = "$base" ]; }

evict_half() {
    pager_set idle-age 3
    wait_until 90 "half of the memory is evicted" half_is_out
    pager_set idle-age 3600
    note "evicted: $(pager_stat evicted-bytes)"
}

guest_start -m "$((base >> 20))M,slots=1,maxmem=1G"
qmp "{\"execute\":\"object-add\",\"arguments\":{\"qom-type\":\"memory-backend-ram\",\"id\":\"m1\",\"size\":$module,\"pager\":\"pager0\"}}" >/dev/null
qmp '{"execute":"device_add","arguments":{"driver":"pc-dimm","id":"d1","memdev":"m1"}}' >/dev/null
wait_until 30 "the guest uses the module" guest_has_more
expect_eq "bytes that the pager manages" "$(pager_stat guest-bytes)" $((base + module))

guest_ask 'fill 30' '^filled ' 90 # movable memory is used first, so most of it is in the module
filled=$(guest_field filled)
evict_half

qmp '{"execute":"device_del","arguments":{"id":"d1"}}' >/dev/null
event_wait DEVICE_DELETED 120
qmp '{"execute":"object-del","arguments":{"id":"m1"}}' >/dev/null
wait_until 30 "the pager lets the module go" pager_has_less
note "fetched to empty it: $(pager_stat fetches) pages; evicted: $(pager_stat evicted-bytes)"
expect_ge "pages fetched to empty it" "$(pager_stat fetches)" 5000
guest_verify 120
evict_half
guest_verify 120
guest_quit
