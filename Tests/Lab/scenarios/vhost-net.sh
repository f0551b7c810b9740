# The host's kernel, and not QEMU, reads and writes a guest's frames (vhost-net), and nobody tells
# the pager: it copies through QEMU's page tables and waits for what has left like any thread. A
# frame that was read or written too late or too early would show as a mismatch.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=600
: "${GUEST_MEMORY=256M}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}" "${KINDS=ram memfd}"
: "${ZEROCOPY=0}"                         # 1: what is sent is not copied, its pages are held
: "${PAGER=store=compressed,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

for module in vhost_iotlb vhost tun tap "vhost_net experimental_zcopytx=$ZEROCOPY" llc stp bridge; do
    # shellcheck disable=SC2086 # one word each
    insmod /lab/modules/${module%% *}.ko ${module#"${module%% *}"}
done
brctl addbr bridge0
ip link set bridge0 up
for tap in tap0 tap1; do
    tunctl -t "$tap" >/dev/null
    brctl addif bridge0 "$tap"
    ip link set "$tap" up
done

# Accesses of vhost's threads that somebody else had to be waited for (majflt), so far.
vhost_waits() {
    local thread sum=0
    for thread in $vhost_threads; do
        sum=$((sum + $(cut -d ' ' -f 12 "/proc/$guest_pid/task/$thread/stat")))
    done
    echo $sum
}
find_vhost() {
    local task
    for task in "/proc/$guest_pid/task"/*; do
        case $(cat "$task/comm") in
        vhost-*) echo "${task##*/}" ;;
        esac
    done
}

evictions_since() { [ "$(pager_stat evictions)" -ge $(($1 + $2)) ]; }

# exchange FRAMES PAUSE: from one card to the other, over the host's bridge.
exchange() {
    local waits
    waits=$(vhost_waits)
    guest_ask "net eth0 eth1 $1 $2" '^(net done|error)' 180
    waits=$(($(vhost_waits) - waits))
    note "$guest_line; vhost waited $waits times"
    expect_eq "frames" "$(guest_field frames)" "$1"
    expect_eq "mismatches on the wire" "$(guest_field mismatches)" 0
    vhost_waited=$waits
}

for GUEST_BACKEND in $KINDS; do
    note "guest memory: $GUEST_BACKEND"
    # Rings as large as they get, so that a buffer rests for long between two frames.
    guest_start \
        -netdev tap,id=net0,ifname=tap0,script=no,downscript=no,vhost=on \
        -device virtio-net-pci,netdev=net0,romfile=,rx_queue_size=1024,mac=52:54:00:00:00:01 \
        -netdev tap,id=net1,ifname=tap1,script=no,downscript=no,vhost=on \
        -device virtio-net-pci,netdev=net1,romfile=,rx_queue_size=1024,mac=52:54:00:00:00:02
    guest_ask 'fill 50' '^filled ' 90
    guest_ask 'net eth0 eth1 64' '^(net done|error)' 60 # from here on the kernel has the rings
    vhost_threads=$(find_vhost)
    # shellcheck disable=SC2086 # one word each
    expect_ge "threads of vhost" "$(set -- $vhost_threads && echo $#)" 2

    note "what rests for a second leaves, the buffers of frames to come among it"
    pager_set idle-age 1
    exchange 1024 500
    [ -z "$PAGER" ] || expect_ge "waits of vhost for pages" "$vhost_waited" 100

    note "pages leave all the time, at a limit"
    pager_set idle-age 0
    guest_ask 'hot 80' '^hot ' 60
    pager_set limit $((144 << 20))
    before=$(pager_stat evictions)
    wait_until 60 "pages leave for others that come back" evictions_since "$before" 1000
    before=$(pager_stat evictions)
    exchange 2048 0
    note "evictions meanwhile: $(($(pager_stat evictions) - before)), faults and rescues so far: $(pager_stat faults rescues)"
    expect_ge "evictions meanwhile" $(($(pager_stat evictions) - before)) 500

    pager_set limit 0 # what follows is about bytes, not about pressure
    guest_verify 120
    guest_quit
done
