# NUMA balancing in the host makes QEMU's pages inaccessible to see who touches them, and moves
# them between two nodes: cold memory is seen and leaves, hot memory stays, no byte is lost.
# shellcheck shell=dash
#lab: LAB_NODES=2 LAB_TIMEOUT=240
: "${GUEST_MEMORY=256M}"
: "${PAGER=tracker=rwp,store=compressed,mode=observe,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

# 2^4 seconds: several times what the emulated guest needs to look at its hot tenth once, on a
# busy machine, too.
readonly power=4

vmstat() { sed -n "s/^$1 //p" /proc/vmstat; }
balancing() { echo "$(vmstat numa_pte_updates) $(vmstat numa_hint_faults) $(vmstat numa_pages_migrated)"; }
idle_bytes() { working_set "idle.$power.bytes"; }
# No less than what is left cold, and no more than all that the guest has in RAM but the hot part.
cold_is_idle() {
    idle=$(idle_bytes)
    [ "$idle" -ge $((cold * 9 / 10)) ] && [ "$idle" -le $(($(guest_ram_rss) - hot * 9 / 10)) ]
}
cold_is_out() { [ "$(pager_stat evicted-bytes)" -ge $((cold * 9 / 10)) ]; }
hot_has_moved() { [ "$(vmstat numa_pages_migrated)" -ge $((migrated + hot / 4096 / 2)) ]; }

expect_eq "nodes" "$(cat /sys/devices/system/node/has_memory)" 0-1
expect_eq "NUMA balancing" "$(cat /proc/sys/kernel/numa_balancing)" 1

# The guest begins on the node without a CPU, and stays there for now.
cgroup_enter vm cpuset
echo 1 >"$vm_cgroup/cpuset.mems"
guest_start
cgroup_leave
guest_ask 'fill 50' '^filled ' 90
filled=$(guest_field filled)
guest_ask 'hot 10' '^hot ' 60
hot=$(guest_field hot)
cold=$((filled - hot))
wait_until 90 "what is cold is idle, and what is hot is not" cold_is_idle
note "of $(mebibytes "$(guest_ram_rss)") MiB in RAM, $(mebibytes $cold) left cold: $(mebibytes "$idle") idle for $((1 << power)) s"

# What is hot moves to the other node, and what is cold leaves, at the same time. (Later, the
# kernel may look for nothing to move for minutes.)
note "entries made inaccessible, hinting faults, pages migrated: $(balancing)"
migrated=$(vmstat numa_pages_migrated) updated=$(vmstat numa_pte_updates)
pager_set idle-age $((1 << power))
pager_set mode active
echo 0-1 >"$vm_cgroup/cpuset.mems"
wait_until 90 "NUMA balancing moves half of the hot memory" hot_has_moved
wait_until 60 "what is cold leaves" cold_is_out
expect_ge "entries made inaccessible by NUMA balancing meanwhile" $(($(vmstat numa_pte_updates) - updated)) $((hot / 4096 / 2))
fetches=$(pager_stat fetches)
sleep 20
note "entries made inaccessible, hinting faults, pages migrated: $(balancing)"
note "in 20 s: fetches $(($(pager_stat fetches) - fetches)), evicted $(mebibytes "$(pager_stat evicted-bytes)") MiB"
expect_ge "evicted memory" "$(pager_stat evicted-bytes)" $((cold * 9 / 10))
expect_le "pages fetched meanwhile, of the hot ones a tenth" $(($(pager_stat fetches) - fetches)) $((hot / 4096 / 10))
pager_set idle-age 0
guest_verify 150
guest_quit
