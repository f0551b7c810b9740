# Cold memory runs down to an NBD server that is killed, fails and stays away while the guest
# works, and is taken out in the end. A server that is back in time is missed by nobody. One
# that refuses writes keeps what it has; one that is away for too long stops the VM, which goes
# on by itself when it is back. A lost write, a stale page or a torn one would show as a mismatch.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=400 LAB_DISK=256M LAB_NBD=yes
cascade() {
    printf '%s' '"tracker":"rwp","limit":83886080,"idle-age":0,"mode":"off","tiers":[' \
        '{"type":"compressed","max-bytes":16777216},' \
        '{"type":"nbd","uri":"nbd+unix:///?socket=/run/nbd.sock","timeout":20}]'
}
: "${GUEST_MEMORY=128M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${PAGER=$(cascade)}"
: "${KILLS=3}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-tiers.sh
. /lab/lib-tiers.sh

# ---- the server --------------------------------------------------------------------

readonly trigger=/run/fail-writes server_log=/out/nbdkit.log answers=/out/nbdkit-answers.log
server_pid=

is_listening() { grep -q ' 00010000 .* /run/nbd.sock$' /proc/net/unix; }

# All writes fail while the trigger is there.
server_start() {
    rm -f /run/nbd.sock
    /lab/nbd/nbdkit -f -U /run/nbd.sock --filter=/lab/nbd/nbdkit-log-filter.so \
        --filter=/lab/nbd/nbdkit-error-filter.so /lab/nbd/nbdkit-file-plugin.so /disk/export \
        logfile="$answers" logappend=true error-file="$trigger" error-pwrite-rate=100% \
        >>"$server_log" 2>&1 &
    server_pid=$!
    wait_until 20 "the server listens" is_listening
}

server_kill() {
    kill -9 "$server_pid"
    wait "$server_pid" || true
}

# times_back COUNT: the pager has said so often that the server is there again.
times_back() { [ "$(grep -c 'the server is back' "$qemu_log")" -ge "$1" ]; }
refusals() { grep -c 'return=-1' "$answers"; }
has_stopped() { [ "$(run_state)" = io-error ]; }
nothing_waits() { [ "$(pager_stat waiting-pages)" = 0 ]; }

# ---- the scenario ------------------------------------------------------------------

truncate -s 96M /disk/export
server_start
guest_start
pager_set mode active # off while the guest booted, to be quicker
guest_ask 'fill 36' '^filled ' 150
work &
worker=$!
for index in 0 1; do
    wait_until 60 "tier $index holds pages" holds_pages "$index"
    note_tier "$index"
done

note "the server is killed while the guest works"
count=0
while [ "$count" -lt "$KILLS" ]; do
    server_kill
    sleep 1
    server_start
    count=$((count + 1))
    wait_until 60 "the server is back, time $count" times_back "$count"
    given=$(tier 1 reads)
    wait_until 60 "pages are read from it" gave_more_than 1 $((given + 10))
done
expect_eq "errors that anybody was told of" "$(grep -c MEMORY_PAGER_ERROR "$events_log")" 0
expect_eq "run state" "$(run_state)" running

note "it refuses writes"
touch "$trigger"
press 16
event_wait MEMORY_PAGER_ERROR 90
note "$event_line"
expect_eq "failed operation, what was done, and where" "$(event_fields operation action tier)" "write keep 1"
expect_eq "state of its tier" "$(tier 1 state)" failing
expect_eq "run state" "$(run_state)" running
rm "$trigger"
press 8
event_wait MEMORY_PAGER_RECOVERED 90
expect_eq "recovered operation, and where" "$(event_fields operation tier)" "write 1"
note "refused by the server: $(refusals) writes, counted: $(tier 1 write-errors) pages"
expect_ge "refused writes" "$(refusals)" 1
expect_ge "pages that it failed to take" "$(tier 1 write-errors)" "$(refusals)"

note "it stays away for longer than it is waited for"
server_kill
wait_until 90 "the VM stops" has_stopped
event_wait MEMORY_PAGER_ERROR 30 '"action": "stop"' # after any that nobody waited for
note "$event_line"
expect_eq "failed operation, and what was done" "$(event_fields operation action)" "read stop"
expect_ge "pages waited for" "$(pager_stat waiting-pages)" 1
server_start
wait_until 60 "no page is waited for any more" nothing_waits
event_wait RESUME 30
expect_eq "run state" "$(run_state)" running
expect_ge "read errors of its tier" "$(tier 1 read-errors)" 1

note "a file is added, and it goes"
add_tier 2 '{"type":"file","path":"/disk/store","size":100663296}'
remove_tier 1
wait_until 90 "the server's tier is empty and gone" is_gone 1
server_kill # nobody needs it
wait_until 60 "the file holds pages" holds_pages 2

touch "$run/enough"
wait "$worker" || fail "the guest's work"
note "evictions, faults, rescues: $(pager_stat evictions faults rescues)"
for index in 0 2; do note_tier "$index"; done
expect_ge "evictions" "$(pager_stat evictions)" 5000
expect_ge "faults" "$(pager_stat faults)" 1000
pager_set limit 0 # what follows is about bytes, not about pressure
guest_verify 150
guest_quit
