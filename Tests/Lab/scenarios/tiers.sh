# Cold memory runs down a cascade of tiers, which come, go and fail while the guest works: a
# little compressed memory, a small disk and its mirror, a file. Under stress a file is added,
# the first is emptied and goes, the disk dies for a while, so that the tier below has its pages
# and the mirror what it had, and the compressed memory goes and comes back. A lost write, a
# stale page or a torn one would show as a mismatch.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=400 LAB_DISK=256M
cascade() {
    printf '%s' '"tracker":"rwp","limit":67108864,"idle-age":0,"mode":"off","tiers":[' \
        '{"type":"compressed","max-bytes":16777216,"seal":true},' \
        '{"type":"file","path":"/dev/dm-0","size":8388608,' \
        '"mirror":{"type":"file","path":"/disk/mirror","size":8388608}},' \
        '{"type":"file","path":"/disk/first","size":67108864}]'
}
: "${GUEST_MEMORY=128M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${PAGER=$(cascade)}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-tiers.sh
. /lab/lib-tiers.sh

break_disk() { lab dm load disk "0 $sectors error"; }

# A store's file has no name any more; QEMU's descriptor of it is all that is left.
is_open() {
    local descriptor
    for descriptor in "/proc/$guest_pid/fd"/*; do
        case $(readlink "$descriptor") in
        "/disk/$1 "*) return 0 ;;
        esac
    done
    return 1
}

make_disk 8 # the second tier's
guest_start
pager_set mode active # off while the guest booted, to be quicker
guest_ask 'fill 36' '^filled ' 150
work &
worker=$!

for index in 0 1 2; do
    wait_until 60 "tier $index holds pages" holds_pages "$index"
    note_tier "$index"
    expect_le "cost of tier $index" "$(tier "$index" cost)" "$(tier "$index" max-bytes)"
done

[ "$(tier 0 seal)" != none ] || fail "the compressed memory is not sealed"

note "a file is added, the other goes"
is_open first || fail "the first file is not open: is_open sees nothing"
add_tier 3 '{"type":"file","path":"/disk/second","size":67108864}'
remove_tier 2
wait_until 60 "the second file holds pages" holds_pages 3

note "meanwhile the disk dies"
break_disk
event_wait MEMORY_PAGER_ERROR 60 '"operation": "write"' # reads fail, too, and the mirror is asked
note "$event_line"
expect_eq "failed operation, what was done, and where" "$(event_fields operation action tier)" "write keep 1"
expect_eq "state of the disk's tier" "$(tier 1 state)" failing
taken=$(tier 3 writes)
wait_until 60 "the tier below has what the disk refuses" took_more_than 3 $((taken + 200))
wait_until 60 "the mirror has what the disk had" refused_reads 1 10
expect_eq "run state" "$(run_state)" running
repair_disk
press 8
event_wait MEMORY_PAGER_RECOVERED 60
expect_eq "recovered operation, and where" "$(event_fields operation tier)" "write 1"
taken=$(tier 1 writes)
wait_until 60 "the disk takes pages again" took_more_than 1 "$taken"
expect_ge "write errors of the disk's tier" "$(tier 1 write-errors)" 1

wait_until 90 "the first file is empty and gone" is_gone 2
is_open first && fail "the first file is still open"
for index in 0 1; do
    wait_until 60 "the oldest pages of tier $index move on" moved_on "$index"
done

note "the compressed memory goes, and comes back"
remove_tier 0
wait_until 90 "the compressed memory is empty and gone" is_gone 0
add_tier 0 '{"type":"compressed","max-bytes":16777216}'
press 4 # the old one's memory has become the guest's
wait_until 60 "the new compressed memory holds pages" holds_pages 0

touch "$run/enough"
wait "$worker" || fail "the guest's work"
note "evictions, faults, rescues: $(pager_stat evictions faults rescues)"
for index in 0 1 3; do note_tier "$index"; done
expect_eq "read errors" "$(pager_stat read-errors)" 0
expect_ge "evictions" "$(pager_stat evictions)" 10000
expect_ge "faults" "$(pager_stat faults)" 2000
pager_set limit 0 # what follows is about bytes, not about pressure
guest_verify 150
guest_quit
