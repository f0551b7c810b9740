# As stress, with guard freeze: accesses to armed pages wait while pages are moved out.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=480
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${GUEST_BACKEND=ram}"
: "${PAGER=tracker=rwp,guard=freeze,store=compressed,limit=144M,idle-age=0,mode=off}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

stress_and_verify rwp freeze 20000
