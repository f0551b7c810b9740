# The host reclaims at the same time: a memory cgroup, the kernel's swap, zram. What it swapped
# out keeps its age and is not brought back to be looked at, and under stress no byte is lost.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=400
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${SECONDS_OF_STRESS=30}"
: "${PAGER=tracker=rwp,store=compressed,mode=observe,limit=0,idle-age=2}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

# 2^4 seconds: of what is brought back all at once, nothing is idle for so long, unless ages
# outlive the swap.
readonly power=4

vmstat() { sed -n "s/^$1 //p" /proc/vmstat; }
swapped_bytes() { echo $(($(sed -n 's/^VmSwap:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$guest_pid/status") << 10)); }
idle_bytes() { working_set "idle.$power.bytes"; }
passes_after() { [ "$(pager_stat passes)" -ge "$1" ]; }
reclaim_on() {
    while :; do
        echo 4M >"$vm_cgroup/memory.reclaim" 2>/dev/null || true
        sleep 0.5
    done
}
most_is_swapped() { echo 32M >"$vm_cgroup/memory.reclaim" 2>/dev/null || true; [ "$(swapped_bytes)" -ge $((cold / 2)) ]; }
# Looks at memory that rests are up to 64 passes apart, in a large guest.
look_at_all() {
    passes=$(pager_stat passes)
    wait_until 90 "the tracker looks at everything" passes_after $((passes + 66))
}

swap_on 384M
cgroup_enter vm memory
guest_start
cgroup_leave
guest_ask 'fill 50' '^filled ' 120
filled=$(guest_field filled)
guest_ask 'hot 5' '^hot ' 60
cold=$((filled - $(guest_field hot)))

wait_until 90 "the host swaps half of the guest out" most_is_swapped
sleep 5 # what was in use is back
look_at_all
swapped=$(swapped_bytes)
before=$(vmstat pswpin)
look_at_all
note "$(mebibytes "$swapped") MiB of QEMU are swapped out, $(($(pager_stat passes) - passes)) passes, pages swapped in meanwhile: $(($(vmstat pswpin) - before))"
expect_ge "swapped out" "$(swapped_bytes)" $((cold / 2))
# The guest's own: a timer, a report on the serial line.
expect_le "pages swapped in during all these looks" $(($(vmstat pswpin) - before)) $((swapped >> 12 >> 6))
resident=$(working_set resident-bytes)
expect_le "resident by the pager's account, but for a sixteenth that of the kernel" \
    $((resident > $(guest_ram_rss) ? resident - $(guest_ram_rss) : $(guest_ram_rss) - resident)) \
    $((filled / 16))

idle_in_ram=$(idle_bytes)
swapoff /dev/zram0
look_at_all
note "idle for $((1 << power)) s: $(mebibytes "$idle_in_ram") MiB before swap was taken away, $(mebibytes "$(idle_bytes)") MiB after"
expect_ge "idle memory, once all is back" "$(idle_bytes)" $((idle_in_ram + swapped / 2))
idle=$(working_set idle.5.bytes)
guest_verify 120
look_at_all
note "idle for 32 s: $(mebibytes "$idle") MiB before the guest read everything, $(mebibytes "$(working_set idle.5.bytes)") MiB after"
expect_le "idle memory, once all was read" "$(working_set idle.5.bytes)" $((idle - cold / 2))

swapon /dev/zram0
pager_set idle-age 0
pager_set limit $((144 << 20))
pager_set mode active
# About what QEMU holds at the limit, so that its threads must reclaim themselves at times; and
# the host takes some all the time, however little the pager has left there.
echo 148M >"$vm_cgroup/memory.max"
before=$(vmstat pswpout)
reclaim_on &
reclaimer=$!
guest_ask "stress $SECONDS_OF_STRESS $GUEST_CPUS" '^stress ' $((SECONDS_OF_STRESS + 90))
kill "$reclaimer"
note "$guest_line"
note "evictions, faults, rescues: $(pager_stat evictions faults rescues); pages swapped out by the host: $(($(vmstat pswpout) - before))"
expect_eq "mismatches under stress" "$(guest_field mismatches)" 0
expect_ge "evictions" "$(pager_stat evictions)" 5000
expect_ge "pages swapped out by the host meanwhile" $(($(vmstat pswpout) - before)) 1000
echo max >"$vm_cgroup/memory.max"
pager_set limit 0
guest_verify 200
guest_quit
