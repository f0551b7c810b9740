# As stress, on a kernel without RWP: private memory, of which only writes are seen, so that
# hot pages leave as well.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=480
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${GUEST_BACKEND=ram}"
: "${PAGER=tracker=wp,guard=move,store=compressed,limit=144M,idle-age=0,mode=off}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

stress_and_verify wp move 20000
