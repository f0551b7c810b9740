# For Tests/Lab/selftest: a scenario that hangs must end with the status for that, and soon.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=5
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
sleep 1000
