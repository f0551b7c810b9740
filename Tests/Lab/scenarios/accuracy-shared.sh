# Does tracker rwp know what is cold in shared memory, by a guest that knows when it touched what?
# shellcheck shell=dash
#lab: LAB_TIMEOUT=240
: "${GUEST_MEMORY=168M}" "${GUEST_BACKEND=memfd}"
: "${TRACKER=rwp}" "${IDLE=6}" "${PATTERNS=zipf read-only}"
: "${PAGER=tracker=$TRACKER,store=compressed,mode=observe,limit=0,idle-age=$IDLE}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-accuracy.sh
. /lab/lib-accuracy.sh

judge_patterns
