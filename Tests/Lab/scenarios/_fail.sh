# For Tests/Lab/selftest: a scenario that fails must be reported as failed. A lab that calls
# everything a pass proves nothing.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=20
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
expect_le "sizes beyond 32 bits" 4294967295 4294967296
expect_eq "one" 1 2
