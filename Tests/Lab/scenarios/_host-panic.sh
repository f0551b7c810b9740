# For Tests/Lab/selftest: a panic of the lab host's kernel must not look like a result.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=20
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
echo c >/proc/sysrq-trigger
