# Ages inside huge pages: the kernel notes one touch for all of one, so the pager splits those that
# stay warm and looks at their pages. Judged by pages, while it evicts what it calls cold.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=420
: "${GUEST_MEMORY=256M}" "${HOST_THP=always}"
: "${TRACKER=rwp}"
: "${IDLE=6}"                             # seconds that "idle" means
: "${LENGTH=40}"                          # of them some until it splits, and then as many again as "idle"
: "${PATTERNS=zipf read-only}"            # "all": these, uniform, scan, phases and write-only
: "${PAGER=tracker=$TRACKER,store=compressed,mode=active,limit=0,idle-age=$IDLE}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-accuracy.sh
. /lab/lib-accuracy.sh

judge_patterns
