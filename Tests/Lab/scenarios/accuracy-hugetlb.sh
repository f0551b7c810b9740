# Does tracker rwp know which huge pages of hugetlbfs are cold as a whole?
# shellcheck shell=dash
#lab: LAB_TIMEOUT=240
: "${GUEST_MEMORY=768M}" "${GUEST_BACKEND=memfd,hugetlb=on,hugetlbsize=2M}"
: "${TRACKER=rwp}" "${IDLE=6}" "${PATTERNS=uniform zipf read-only}"
: "${UNIT=512}" "${FILLED=80}"
: "${PAGER=tracker=$TRACKER,store=compressed,mode=observe,limit=0,idle-age=$IDLE}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-accuracy.sh
. /lab/lib-accuracy.sh

judge_patterns
