# The disk stops giving pages back. Zeros would be silent corruption, so the VM stops with
# run state io-error and says so; when the disk is well again the operator, who asked for that
# (resume=off), lets it go on, and every byte is right. With read-error=machine-check, only the program that needs the page is told.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=400 LAB_DISK=512M
: "${GUEST_MEMORY=192M}"
: "${PAGER=tracker=rwp,store=file,path=/dev/dm-0,size=128M,limit=0,idle-age=0,resume=off}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

break_reads() { lab dm load disk "0 $sectors flakey /dev/loop0 0 0 1 1 error_reads"; }
# One MiB in the middle of what is stored. Were all of it bad, the code that the guest handles
# a machine check with would be, too.
break_a_piece() {
    local at after
    at=$(($(pager_stat file-cost) / 2 >> 20 << 11))
    after=$((at + (1 << 11)))
    lab dm load disk "0 $at linear /dev/loop0 0" \
        "$at $((1 << 11)) flakey /dev/loop0 $at 0 1 1 error_reads" \
        "$after $((sectors - after)) linear /dev/loop0 $after"
}

mostly_out() { [ "$(pager_stat file-bytes)" -gt $((filled * 3 / 4)) ]; }
stopped() { [ "$(run_state)" = io-error ]; }
nothing_waits() { [ "$(pager_stat waiting-pages)" = 0 ]; }

start_and_evict() {
    guest_start
    guest_ask 'fill 40' '^filled ' 90
    filled=$(guest_field filled)
    pager_set idle-age 2
    wait_until 90 "three quarters of the memory are evicted" mostly_out
    pager_set idle-age 3600
}

make_disk 160
start_and_evict
break_reads
guest_send verify
wait_until 60 "the VM stops" stopped
event_wait MEMORY_PAGER_ERROR 30 '"action": "stop"'
note "$event_line"
expect_eq "failed operation, and what was done" "$(event_fields operation action)" "read stop"
expect_ge "read errors" "$(pager_stat read-errors)" 1
expect_ge "pages waited for" "$(pager_stat waiting-pages)" 1

repair_disk
wait_until 30 "no page is waited for any more" nothing_waits
event_wait MEMORY_PAGER_RECOVERED 30
sleep 2
expect_eq "run state until the operator says so" "$(run_state)" io-error
qmp '{"execute":"cont"}' >/dev/null
guest_wait '^verified ' 120
expect_eq "mismatches in $(guest_field verified) bytes" "$(guest_field mismatches)" 0
guest_quit

note "the same with a machine check"
PAGER=$PAGER,read-error=machine-check
GUEST_CPU=qemu64,+succor,+overflow-recov # without these an AMD guest's kernel panics at once
# It may also reach the guest while its kernel runs, and then that panics, as on a real machine.
GUEST_FATAL=
for try in 1 2 3; do
    start_and_evict
    break_a_piece
    # One is enough: the emulator may deliver the next while the guest's kernel has interrupted the
    # program, and that the kernel does not survive.
    guest_send 'verify 1'
    # The guest's kernel speaks, not the payload: once the emulator has delivered a machine check,
    # the guest gets no more interrupts from its serial line.
    # Or nothing came of it: what lay in that piece had been fetched again before it broke.
    guest_wait 'Memory failure: .* Sending SIGBUS to init|Fatal local machine check|^verified ' 90
    note "$guest_line"
    case $guest_line in
    *SIGBUS*) break ;;
    esac
    [ "$try" -lt 3 ] || fail "each time the guest's kernel panicked, or met no bad page"
    repair_disk
    qmp '{"execute":"quit"}' >/dev/null
    guest_ended 20
done
guest_wait 'Memory failure: .* Recovered' 30
event_wait MEMORY_PAGER_ERROR 30 '"action": "machine-check"' # after those that came early in vain
expect_eq "failed operation, and what was done" "$(event_fields operation action)" "read machine-check"
expect_ge "poisoned pages" "$(pager_stat poisoned-pages)" 1
expect_eq "mismatches so far" "$(grep -c '^mismatch' "$guest_log")" 0
repair_disk
qmp '{"execute":"quit"}' >/dev/null
guest_ended 20
