# For Tests/Lab/selftest: a panic of the guest's kernel must be a failure, even of a scenario
# that does not look.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=60
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
guest_start
guest_send crash
sleep 5
