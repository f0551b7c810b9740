# A slow disk writes into guest memory that the pager takes away meanwhile. For shared memory
# the kernel notices nothing: with a library that is not told of transfers the guest reads zeros
# where the disk's bytes should be. Told of them, the library leaves those pages where they are.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=500 LAB_DISK=64M
: "${GUEST_MEMORY=192M}" "${GUEST_BACKEND=memfd}"
: "${PAGER=store=compressed,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

readonly sectors=$((32 << 11))
readonly delay=4000 # milliseconds that a read takes

truncate -s 32M /disk/guest.img
losetup /dev/loop0 /disk/guest.img
lab dm create slow "0 $sectors linear /dev/loop0 0"
wait_until 10 "the disk appears" test -b /dev/dm-0

# The guest writes a MiB and reads it back, both past its page cache and past the host's. It
# is idle while it waits for the disk.
read_slowly() {
    note "$1"
    lab dm load slow "0 $sectors linear /dev/loop0 0"
    guest_start -drive file=/dev/dm-0,format=raw,if=none,id=disk0,cache=none \
        -device virtio-blk-pci,drive=disk0
    guest_ask 'blk /dev/vda 1 1 direct' '^(blk done|error)' 60 # and find out what the disk is
    expect_eq "mismatches as long as the disk is quick" "$(guest_field mismatches)" 0
    lab dm load slow "0 $sectors delay /dev/loop0 0 $delay /dev/loop0 0 0"
    pager_set idle-age 1
    guest_ask 'blk /dev/vda 1 1 direct' '^(blk done|error)' 120
    lost=$(guest_field mismatches)
    note "$guest_line"
    note "evictions, busy: $(pager_stat evictions busy-pages)"
    expect_ge "evictions" "$(pager_stat evictions)" 1000
}

PAGER_LIBRARY=/lab/libfrostline-deaf.so
read_slowly "shared memory, not told of transfers"
expect_ge "pages lost" "$lost" 1
qmp quit >/dev/null
guest_ended 20

PAGER_LIBRARY=/lab/libfrostline.so
read_slowly "shared memory, told of them"
expect_eq "pages lost" "$lost" 0
qmp quit >/dev/null
guest_ended 20

GUEST_BACKEND=ram PAGER_LIBRARY=/lab/libfrostline-deaf.so
read_slowly "private memory, not told of transfers: the kernel refuses to move what it has pinned"
expect_eq "pages lost" "$lost" 0
expect_ge "pages that could not be moved" "$(pager_stat busy-pages)" 1
qmp quit >/dev/null
guest_ended 20
