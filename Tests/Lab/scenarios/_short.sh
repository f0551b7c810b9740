# For Tests/Lab/selftest: an amount that is missed has a status of its own, in a substitution, too.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=20
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
answer=$(expect_le "sizes beyond 32 bits" 4294967296 4294967295)
note "not reached: $answer"
