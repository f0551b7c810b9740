# The host reclaims guest memory at the same time: a memory cgroup, the kernel's swap, zram.
# Sourced after lib.sh, by scenarios that set TRACKER and SECONDS_OF_STRESS.
#
# Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
# shellcheck disable=SC2154 # what lib.sh sets

# 2^5 seconds: of what is brought back all at once, nothing is idle for so long, unless ages
# outlive the swap.
readonly power=5

# The page table keeps a swapped page's arming for private memory only.
case $GUEST_BACKEND in
memfd* | *share=on*) is_shared=yes reclaimed=1M evictions_min=2000 ;;
*) is_shared='' reclaimed=4M evictions_min=5000 ;;
esac
# What the host takes twice a second under stress. Shared memory comes back more slowly: each page
# that was swapped out is a message, and read in by the one fault thread. At 4M nearly all of the
# guest is out in the end, and it does not get on.
readonly is_shared reclaimed evictions_min

vmstat() { sed -n "s/^$1 //p" /proc/vmstat; }
# VmSwap counts private memory only. Shared memory is mapped twice, by the guest and by the pager.
swapped_bytes() {
    if [ -n "$is_shared" ]; then
        awk '/^[0-9a-f]+-[0-9a-f]+ / { is_ram = /\/memfd:/ }
            is_ram && $1 == "Swap:" { sum += $2 }
            END { print sum * 512 }' "/proc/$guest_pid/smaps"
    else
        echo $(($(sed -n 's/^VmSwap:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$guest_pid/status") << 10))
    fi
}
# The blocks of a file without a name are those in swap, too.
in_ram_bytes() {
    if [ -n "$is_shared" ]; then
        echo $(($(guest_ram_rss) - $(swapped_bytes)))
    else
        guest_ram_rss
    fi
}
idle_bytes() { working_set "idle.$power.bytes"; }
passes_after() { [ "$(pager_stat passes)" -ge "$1" ]; }
reclaim_on() {
    while :; do
        echo "$reclaimed" >"$vm_cgroup/memory.reclaim" 2>/dev/null || true
        sleep 0.5
    done
}
most_is_swapped() { echo 32M >"$vm_cgroup/memory.reclaim" 2>/dev/null || true; [ "$(swapped_bytes)" -ge $((cold / 2)) ]; }
# Looks at memory that rests are up to 16 passes apart, in a guest of less than a GiB.
look_at_all() {
    passes=$(pager_stat passes)
    wait_until 60 "the tracker looks at everything" passes_after $((passes + 18))
}

# Memory that is swapped out is not brought back to be looked at, and does not count as resident.
# Private memory comes back as old as it is, shared memory as new.
looks_beside_swap() {
    local swapped before resident in_ram idle_in_ram idle
    wait_until 90 "the host swaps half of the guest out" most_is_swapped
    sleep 20 # what was in use is back, and the rest is idle for that long when it is looked at
    look_at_all
    swapped=$(swapped_bytes)
    before=$(vmstat pswpin)
    look_at_all
    note "$(mebibytes "$swapped") MiB are swapped out, $(($(pager_stat passes) - passes)) passes, pages swapped in meanwhile: $(($(vmstat pswpin) - before))"
    expect_ge "swapped out" "$(swapped_bytes)" $((cold / 2))
    # The guest's own: a timer, a report on the serial line.
    expect_le "pages swapped in during all these looks" $(($(vmstat pswpin) - before)) $((swapped >> 12 >> 6))
    resident=$(working_set resident-bytes)
    in_ram=$(in_ram_bytes)
    expect_le "resident by the pager's account, but for a sixteenth that of the kernel" \
        $((resident > in_ram ? resident - in_ram : in_ram - resident)) $((filled / 16))

    [ -z "$is_shared" ] || expect_eq "swapped shared memory that the pager knows of" "$(pager_stat swapped-bytes)" 0

    idle_in_ram=$(idle_bytes)
    swapoff /dev/zram0
    look_at_all
    idle=$(idle_bytes)
    note "idle for $((1 << power)) s: $(mebibytes "$idle_in_ram") MiB before swap was taken away, $(mebibytes "$idle") MiB after"
    if [ -n "$is_shared" ]; then
        expect_le "idle memory, once all is back" "$idle" $((idle_in_ram + swapped / 4))
    else
        expect_ge "idle memory, once all is back" "$idle" $((idle_in_ram + swapped / 2))
    fi
}

# Nothing that the guest has read is idle for as long as that is ago, if the tracker sees reads.
looks_while_read() {
    local begun elapsed since=0 idle
    begun=$(cut -d. -f1 /proc/uptime)
    guest_verify 120
    look_at_all
    elapsed=$(($(cut -d. -f1 /proc/uptime) + 1 - begun))
    while [ $((1 << since)) -lt "$elapsed" ]; do since=$((since + 1)); done
    idle=$(working_set "idle.$since.bytes")
    note "the guest has read everything within $elapsed s; idle for $((1 << since)) s: $(mebibytes "$idle") of $(mebibytes "$(working_set resident-bytes)") MiB"
    if [ "$TRACKER" = wp ]; then
        expect_ge "idle memory, once all was read and nothing written" "$idle" $((cold * 3 / 4))
    else
        expect_le "idle memory, once all was read" "$idle" $(($(working_set resident-bytes) - cold * 7 / 8))
    fi
}

stress_beside_swap() {
    local before reclaimer
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
    expect_ge "evictions" "$(pager_stat evictions)" "$evictions_min"
    expect_ge "pages swapped out by the host meanwhile" $(($(vmstat pswpout) - before)) 1000
    echo max >"$vm_cgroup/memory.max"
    pager_set limit 0
    guest_verify 300
}

page_beside_swap() {
    swap_on 384M
    cgroup_enter vm memory
    guest_start
    cgroup_leave
    pager_set mode observe # off while the guest booted, to be quicker
    expect_eq "tracker" "$(pager_stat tracker)" "$TRACKER"
    guest_ask 'fill 50' '^filled ' 120
    filled=$(guest_field filled)
    guest_ask 'hot 5' '^hot ' 60
    cold=$((filled - $(guest_field hot)))

    looks_beside_swap
    looks_while_read
    stress_beside_swap
    guest_quit
}
