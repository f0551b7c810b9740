# Devices touch guest memory behind the vCPUs' backs: a disk with and without O_DIRECT, and
# two network cards that talk to each other, while the pager evicts without pause. A page
# evicted under a DMA in flight would show as a mismatch on the disk or on the wire.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=300 LAB_DISK=256M
: "${GUEST_MEMORY=256M}"
: "${PAGER=tracker=rwp,store=compressed,limit=128M,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

expect_no_mismatch() {
    note "$guest_line"
    expect_eq "$1" "$(guest_field mismatches)" 0
}

little_is_resident() { [ "$(pager_stat resident-bytes)" -le $(($(lab size "$GUEST_MEMORY") / 4)) ]; }

truncate -s 64M /disk/guest.img
guest_start \
    -drive file=/disk/guest.img,format=raw,if=none,id=disk0,cache=none \
    -device virtio-blk-pci,drive=disk0 \
    -netdev hubport,id=net0,hubid=0 -device virtio-net-pci,netdev=net0,romfile= \
    -netdev hubport,id=net1,hubid=0 -device virtio-net-pci,netdev=net1,romfile=
guest_ask 'fill 40' '^filled ' 90
guest_ask 'hot 10' '^hot ' 60

guest_ask 'blk /dev/vda 8 2 direct' '^(blk done|error)' 120
expect_no_mismatch "mismatches on the disk, direct"
guest_ask 'blk /dev/vda 8 2 buffered' '^(blk done|error)' 120
expect_no_mismatch "mismatches on the disk, buffered"
guest_ask 'net eth0 eth1 2048' '^(net done|error)' 60
expect_no_mismatch "mismatches on the wire"
expect_eq "frames" "$(guest_field frames)" 2048

if [ -n "$PAGER" ]; then
    note "evictions, faults, busy: $(pager_stat evictions faults busy-pages)"
    expect_ge "evictions" "$(pager_stat evictions)" 5000

    # A transfer that began and never ended would keep its memory in RAM for good.
    pager_set limit 0
    pager_set idle-age 4
    wait_until 60 "what devices have used leaves" little_is_resident
    note "$(mebibytes "$(pager_stat resident-bytes)") MiB stay in RAM"
    pager_set idle-age 0 # what follows is about bytes, not about pressure
fi
guest_verify 120
guest_quit
