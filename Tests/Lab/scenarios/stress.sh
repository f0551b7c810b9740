# Nothing is lost when pages leave and come back all the time: both vCPUs read and write at
# random, every write is remembered, and the limit is far below what they touch. A lost
# write, a stale page or a torn one would show as a mismatch.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=480
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
:
: "${PAGER=tracker=rwp,store=compressed,limit=144M,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

stress_and_verify rwp move 20000
