# As stress, with shared memory: pages are unmapped, read through a second mapping, and punched
# out of their file.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=480
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${GUEST_BACKEND=memfd}"
: "${PAGER=tracker=rwp,guard=minor,store=compressed,limit=144M,idle-age=0,mode=off}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

stress_and_verify rwp minor 20000
