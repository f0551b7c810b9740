# The host reclaims at the same time: a memory cgroup, the kernel's swap, zram. What it swapped
# out keeps its age and is not brought back to be looked at, and under stress no byte is lost.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=400
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${TRACKER=rwp}"                        # or wp
: "${SECONDS_OF_STRESS=30}"
: "${PAGER=tracker=$TRACKER,store=compressed,mode=off,limit=0,idle-age=2}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-swap.sh
. /lab/lib-swap.sh

page_beside_swap
