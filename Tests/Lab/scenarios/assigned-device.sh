# What pins guest memory and a pager exclude each other, whichever comes second: an assigned
# device (VFIO) and QEMU's own NVMe driver, at the start and while the guest runs. Where it was
# not refused, a device would go on writing to pages that have left. Without a pager, it works.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=240 LAB_NVME=1e
: "${GUEST_MEMORY=128M}"
: "${PAGER=tracker=rwp,store=compressed,limit=0,idle-age=2}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

readonly device=0000:00:1e.0

give_device_to_vfio() {
    local path=/sys/bus/pci/devices/$device
    echo vfio-pci >"$path/driver_override"
    [ ! -e "$path/driver" ] || echo "$device" >"$path/driver/unbind"
    echo "$device" >/sys/bus/pci/drivers_probe
    wait_until 10 "the device is VFIO's" test -e "/dev/vfio/$(basename "$(readlink "$path/iommu_group")")"
}

# expect_error WORDS QMP_COMMAND: the command fails, and says so in these words.
expect_error() {
    local answer
    ! answer=$(qmp "$2") || fail "not refused: $2"
    case $answer in
    *"$1"*) echo "ok: refused: $answer" ;;
    *) fail "no '$1' in: $answer" ;;
    esac
}

nvme="{\"driver\":\"nvme\",\"node-name\":\"n\",\"device\":\"$device\",\"namespace\":1}"
vfio="{\"driver\":\"vfio-pci\",\"id\":\"v\",\"host\":\"$device\",\"bus\":\"root1\"}"
pager='{"qom-type":"memory-pager-frostline","id":"p","library":"/lab/libfrostline.so"}'
memory='{"qom-type":"memory-backend-ram","id":"m","size":67108864,"pager":"p"}'

give_device_to_vfio
expect_refusal "remove 'pager' from the memory backends" -device "vfio-pci,host=$device"
expect_refusal 'something pins guest memory' -blockdev "$nvme"

guest_start -device pcie-root-port,id=root1
expect_error "remove 'pager'" "{\"execute\":\"device_add\",\"arguments\":$vfio}"
expect_error "remove 'pager'" "{\"execute\":\"blockdev-add\",\"arguments\":$nvme}"
guest_ask 'fill 30' '^filled ' 60
guest_verify 60
guest_quit

note "the same without a pager"
PAGER=
guest_launch -S -device "vfio-pci,host=$device"
qmp "{\"execute\":\"object-add\",\"arguments\":$pager}" >/dev/null
expect_error 'something pins guest memory' "{\"execute\":\"object-add\",\"arguments\":$memory}"
qmp quit >/dev/null
guest_ended 20
guest_launch -S
qmp "{\"execute\":\"blockdev-add\",\"arguments\":$nvme}" >/dev/null
qmp "{\"execute\":\"object-add\",\"arguments\":$pager}" >/dev/null
expect_error 'something pins guest memory' "{\"execute\":\"object-add\",\"arguments\":$memory}"
# Once nothing is pinned any more, the pager is welcome.
qmp '{"execute":"blockdev-del","arguments":{"node-name":"n"}}' >/dev/null
qmp "{\"execute\":\"object-add\",\"arguments\":$memory}" >/dev/null
qmp quit >/dev/null
guest_ended 20
