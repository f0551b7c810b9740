# As stress-wp, with guard write-protect: pages are protected, copied out, checked and dropped. Pages
# that are only read leave all the time, so that under a lower limit the guest hardly gets on.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=480
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${GUEST_BACKEND=ram}"
: "${PAGER=tracker=wp,guard=write-protect,store=compressed,limit=144M,idle-age=0,mode=off}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

stress_and_verify wp write-protect 20000
