#!/usr/bin/env bash
# A Ceph cluster of one node, and an RBD image of it that an NBD server exports: the smallest
# thing that stands for remote storage. To be read as a recipe, and run for tests; it keeps one
# copy of everything, so it is no place for data.
#
#   scripts/ceph-node.sh start FOLDER [MEBIBYTES]   prints the URI of the export
#   scripts/ceph-node.sh stop FOLDER                ends what start began, and nothing else
#
# All of its state is in FOLDER, which start creates and stop leaves for reading the logs.
# Needs the Debian packages ceph-mon, ceph-mgr, ceph-osd, ceph-common, qemu-utils and
# qemu-block-extra.
set -euo pipefail

die() {
    echo "ceph-node: $*" >&2
    exit 1
}

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

require_programs() {
    local program missing=()
    for program in ceph-mon ceph-mgr ceph-osd ceph rbd monmaptool ceph-authtool qemu-nbd; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [[ ${#missing[@]} = 0 ]] || die "not found: ${missing[*]}; install the packages ceph-mon," \
        "ceph-mgr, ceph-osd, ceph-common, qemu-utils and qemu-block-extra"
}

# A port that nobody listens on.
free_port() {
    local port
    for port in $(shuf -i 20000-29999 -n 50); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || {
            echo "$port"
            return
        }
    done
    die "no free port between 20000 and 29999"
}

# What every daemon must know: where the monitor is, and that one copy is enough here.
write_configuration() {
    cat >"$folder/ceph.conf" <<EOF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = v2:127.0.0.1:$1/0
mon initial members = a
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $folder/keyring
run dir = $folder
log file = $folder/\$name.log
admin socket = $folder/\$name.\$pid.asok
pid file = $folder/\$name.pid
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
auth allow insecure global id reclaim = false
mon data = $folder/mon
mgr data = $folder/mgr
osd data = $folder/osd
ms bind msgr1 = false
osd objectstore = bluestore
bluestore block create = true
bluestore block size = $((osd_mebibytes << 20))
osd memory target = 1073741824
EOF
}

# One keyring for all: each daemon finds its own key in it.
make_keys() {
    ceph-authtool --create-keyring "$folder/keyring" --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool "$folder/keyring" --gen-key -n client.admin \
        --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    ceph-authtool "$folder/keyring" --gen-key -n mgr.a \
        --cap mon 'allow profile mgr' --cap osd 'allow *'
    ceph-authtool "$folder/keyring" --gen-key -n osd.0 \
        --cap mon 'allow profile osd' --cap mgr 'allow profile osd' --cap osd 'allow *'
}

ceph_command() { timeout 120 ceph --conf "$folder/ceph.conf" --connect-timeout 60 "$@"; }

start_monitor() {
    local fsid
    fsid=$(sed -n 's/^fsid = //p' "$folder/ceph.conf")
    monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$1]" "$folder/monmap"
    ceph-mon --conf "$folder/ceph.conf" -i a --mkfs --monmap "$folder/monmap" --keyring "$folder/keyring"
    ceph-mon --conf "$folder/ceph.conf" -i a
    # The monitor took its own key and that of client.admin; the others are to be told.
    ceph_command auth import -i "$folder/keyring"
}

start_storage() {
    local uuid
    mkdir -p "$folder/osd" "$folder/mgr"
    ceph-mgr --conf "$folder/ceph.conf" -i a
    uuid=$(cat /proc/sys/kernel/random/uuid)
    ceph_command osd new "$uuid"
    ceph-osd --conf "$folder/ceph.conf" -i 0 --mkfs --osd-uuid "$uuid"
    ceph-osd --conf "$folder/ceph.conf" -i 0
}

start_image() {
    ceph_command osd pool create frostline 8 8
    ceph_command osd pool application enable frostline rbd
    timeout 120 rbd --conf "$folder/ceph.conf" create "frostline/cold" --size "$image_mebibytes"
    qemu-nbd --fork --persistent --shared=8 --cache=none --aio=threads --discard=unmap \
        --format=raw --pid-file="$folder/qemu-nbd.pid" --socket="$folder/nbd.sock" \
        --export-name=cold "rbd:frostline/cold:conf=$folder/ceph.conf"
}

start() {
    local port
    require_programs
    [[ ! -e $folder ]] || die "$folder exists; name a folder that does not, or remove it"
    mkdir -p "$folder/mon"
    folder=$(cd "$folder" && pwd)
    chmod 700 "$folder"
    port=$(free_port)
    {
        write_configuration "$port"
        make_keys
        start_monitor "$port"
        start_storage
        start_image
    } >"$folder/start.log" 2>&1 || {
        tail -n 20 "$folder/start.log" >&2
        stop
        die "the cluster did not start; see $folder"
    }
    echo "nbd+unix:///cold?socket=$folder/nbd.sock"
}

# By the ids in the files that each wrote; clients first, the monitor last.
stop() {
    local name pid
    for name in qemu-nbd osd.0 mgr.a mon.a; do
        [[ -s $folder/$name.pid ]] || continue
        pid=$(<"$folder/$name.pid")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 100); do
            [[ -d /proc/$pid ]] || break
            sleep 0.1
        done
        [[ ! -d /proc/$pid ]] || kill -9 "$pid"
        rm -f "$folder/$name.pid"
    done
}

[[ $# -ge 2 ]] || {
    usage >&2
    exit 1
}
folder=$2
image_mebibytes=${3:-2048}
osd_mebibytes=$((image_mebibytes * 2 + 4096))
case $1 in
start) start ;;
stop) stop ;;
*)
    usage >&2
    exit 1
    ;;
esac
