# The lab itself works: a guest boots on KVM inside the emulated machine, fills its memory,
# reads every byte back and powers off, all without a pager. A sceptic should care because
# a later failure with the pager is only the pager's if this one passes.
# shellcheck shell=dash
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

guest_start
note "ready after $(guest_field uptime) s of the guest's own time"

guest_ask 'fill 50' '^filled ' 60
note "filled $(guest_field filled) bytes"
expect_ge "resident guest RAM" "$(guest_ram_rss)" "$(guest_field filled)"

guest_ask 'hot 10' '^hot ' 60
guest_wait '^rounds ' 60
guest_verify 60
guest_ask 'stress 5 2' '^stress ' 30
expect_eq "mismatches under stress" "$(guest_field mismatches)" 0
expect_ge "stress writes" "$(guest_field writes)" 100
guest_verify 60

qmp '{"execute":"system_reset"}' >/dev/null
event_wait RESET 30
guest_wait '^ready ' 120
guest_quit
