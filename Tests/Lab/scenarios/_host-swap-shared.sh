# As host-swap, with shared memory: the page table forgets what is swapped out, so a page that
# comes back is as young as any that arrives. It is not brought back to be looked at either.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=700
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${GUEST_BACKEND=memfd}" "${TRACKER=rwp}" # or zap
: "${SECONDS_OF_STRESS=30}"
: "${PAGER=tracker=$TRACKER,store=compressed,mode=off,limit=0,idle-age=2}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-swap.sh
. /lab/lib-swap.sh

page_beside_swap
