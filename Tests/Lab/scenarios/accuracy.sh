# Does the tracker know what is cold? A guest that knows when it touched each page is the judge.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=240
: "${GUEST_MEMORY=168M}"
: "${TRACKER=rwp}"                        # or wp, zap, none; damon, which needs PAGER=
: "${IDLE=6}"                             # seconds that "idle" means
: "${PATTERNS=zipf scan read-only}"       # "all": these, uniform, phases and write-only
: "${PAGER=tracker=$TRACKER,store=compressed,mode=observe,limit=0,idle-age=$IDLE}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-accuracy.sh
. /lab/lib-accuracy.sh

judge_patterns
