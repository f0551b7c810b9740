# For Tests/Lab/selftest: one bit of the guest's filled memory that is not what was written
# must be found, or "0 mismatches" means nothing.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=60
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
guest_start
guest_ask 'fill 50' '^filled ' 60
guest_ask spoil '^spoilt' 60
guest_ask verify '^verified ' 60
expect_eq "mismatches" "$(guest_field mismatches)" 1
guest_quit
