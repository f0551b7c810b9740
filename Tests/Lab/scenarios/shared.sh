# Shared guest memory: the host really gets it back when it is evicted, none of it is counted
# twice for being mapped twice, what a balloon takes out of it is dropped from the store, and
# nothing stays behind when QEMU ends with everything evicted.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=400
# The balloon's pages must be given back as they are: a kernel that clears what it allocates
# would fetch them first.
: "${GUEST_MEMORY=256M}" "${GUEST_BACKEND=memfd}" "${GUEST_APPEND=init_on_alloc=0}"
: "${PAGER=store=compressed,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

host_shmem() { awk '$1 == "Shmem:" { print $2 * 1024 }' /proc/meminfo; }
# Pages of guest RAM that QEMU has mapped, one that is mapped twice counted twice.
mapped() {
    awk '/^[0-9a-f]+-[0-9a-f]+ / { is_ram = /\/memfd:/ }
        is_ram && $1 == "Rss:" { sum += $2 }
        END { print sum * 1024 }' "/proc/$guest_pid/smaps"
}

small_enough() { [ "$(guest_ram_rss)" -lt $((filled / 3)) ]; }
# Pages leave in between, so it may take a second look.
no_more_is_mapped() { [ "$(mapped)" -le $(($(guest_ram_rss) + (2 << 20))) ]; }
everything_out() { [ "$(guest_ram_rss)" -lt $((24 << 20)) ]; }
balloon_is() { [ "$(qmp query-balloon | lab json actual)" = "$1" ]; }

fill() {
    guest_ask 'fill 50' '^filled ' 90
    filled=$(guest_field filled)
}

evict() {
    pager_set idle-age 3
    wait_until 90 "guest RAM in the host's falls below a third" small_enough
    pager_set idle-age 3600
}

# set_balloon BYTES: what the guest shall have.
set_balloon() {
    qmp "{\"execute\":\"balloon\",\"arguments\":{\"value\":$1}}" >/dev/null
    wait_until 60 "the balloon moves" balloon_is "$1"
}

before=$(host_shmem)
guest_start -device virtio-balloon-pci
expect_eq "tracker and guard" "$(pager_stat tracker guard)" "rwp minor"
fill
full=$(guest_ram_rss)
full_shmem=$(host_shmem)
evict
fell=$((full_shmem - $(host_shmem)))
note "$(mebibytes "$full") MiB of RAM, now $(mebibytes "$(guest_ram_rss)") MiB; the host's shared memory fell by $(mebibytes "$fell") MiB"
expect_ge "what the host got back" "$fell" $((filled / 2))
wait_until 30 "no more guest RAM is mapped than there is" no_more_is_mapped
guest_verify 120
wait_until 30 "no more guest RAM is mapped than there is, with everything back" no_more_is_mapped

note "what the guest gives back while it is in the store is dropped there"
evict
qmp '{"execute":"system_reset"}' >/dev/null
event_wait RESET 30
guest_wait '^ready ' 120
evicted=$(pager_stat evicted-bytes)
guest_ask balloon '^balloon ' 30
set_balloon $((128 << 20))
note "evicted: $(mebibytes "$evicted") MiB, then $(mebibytes "$(pager_stat evicted-bytes)") MiB"
expect_ge "discarded pages" "$(pager_stat discarded-pages)" 8000
expect_le "what is in the store" "$(pager_stat evicted-bytes)" $((evicted - (32 << 20)))
set_balloon "$(lab size "$GUEST_MEMORY")"
fill
evict
guest_verify 120

note "everything out, and quit"
qmp '{"execute":"stop"}' >/dev/null
pager_set idle-age 1
wait_until 90 "everything is evicted" everything_out
qmp '{"execute":"quit"}' >/dev/null
guest_ended 10
expect_le "shared memory that stays behind" "$(($(host_shmem) - before))" $((8 << 20))
