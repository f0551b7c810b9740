# The words scenarios are written in. Sourced inside the lab host, under busybox sh.
#
# Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
# shellcheck disable=SC2034 # some variables are for the scenarios

# ---- what a scenario, or the command line, may set before this is sourced ------------

: "${GUEST_MEMORY:=256M}"   # of all backends together
: "${GUEST_BACKENDS:=1}"    # two and more: one NUMA node each
: "${GUEST_BACKEND:=ram}"   # or "memfd", "ram,share=on", "ram,merge=on": what their memory is
: "${GUEST_CPUS:=1}"
# +kvm-asyncpf-int lets the guest run something else while a fault is served.
: "${GUEST_CPU:=qemu64}" # "host" brings CPU features that the emulator gets wrong
: "${GUEST_APPEND:=}"       # more kernel arguments
: "${GUEST_INITRD:=/lab/guest.cpio}"
: "${PAGER:=}"              # options of the pager, "store=compressed,limit=64M"; empty: none
                            # or members of its JSON object, '"limit":67108864,"tiers":[…]'
: "${PAGER_LIBRARY:=/lab/libfrostline.so}"
: "${SECONDS_OF_STRESS:=15}" # at a time

# A guest line that ends any wait at once. A scenario that wants to see one clears it.
GUEST_FATAL='Kernel panic|Oops: |BUG: (unable|kernel|Bad)|general protection fault'

guest_name=guest            # see use_guest
guest_pid=
guest_ranges=               # see find_ram
guest_line=                 # the line that the last guest_wait matched
guest_mark=0                # where in the log the next guest_wait starts
event_line=
event_mark=0

# name_files [NAME]: of the guest of that name; the first one's have no folder of their own.
name_files() {
    mkdir -p "/out/${1-}" "/run/${1-}"
    logs=/out${1:+/$1}
    run=/run${1:+/$1}
    guest_log=$logs/guest.log
    qemu_log=$logs/qemu.log
    qmp_log=$logs/qmp.log
    events_log=$logs/events.log
    qmp_socket=$run/qmp.sock
    sampler_socket=$run/sampler.sock # one more monitor: each serves one client at a time
}
name_files

# ---- saying how it goes --------------------------------------------------------------

# An interactive shell goes on after a failure; a scenario ends.
case $- in
*i*) LAB_INTERACTIVE=yes ;;
*) LAB_INTERACTIVE='' && set -eu ;;
esac

note() { echo "$*"; }

# A line that the next one replaces, where the reader has a terminal.
progress() { echo "~ $*"; }

fail() {
    echo "FAIL: $*" >&2 # past any command substitution that it happens in
    [ -n "$LAB_INTERACTIVE" ] || exit 1
    return 1
}

# A time or an amount is not what it should be. Other work on the machine outside may be the
# cause, so a status of its own (EX_TEMPFAIL) says so; make check then has the scenario run by
# itself.
fall_short() {
    echo "FAIL: $*" >&2
    [ -n "$LAB_INTERACTIVE" ] || exit 75
    return 1
}

# expect_eq WHAT ACTUAL EXPECTED
expect_eq() {
    [ "$2" = "$3" ] || fail "$1: $2, expected $3"
    echo "ok: $1: $2"
}

# expect_le WHAT ACTUAL LIMIT
expect_le() {
    [ $(($2 <= $3)) = 1 ] || fall_short "$1: $2, expected at most $3"
    echo "ok: $1: $2 (at most $3)"
}

# expect_ge WHAT ACTUAL LIMIT
expect_ge() {
    [ $(($2 >= $3)) = 1 ] || fall_short "$1: $2, expected at least $3"
    echo "ok: $1: $2 (at least $3)"
}

mebibytes() { echo $(($1 >> 20)); }

# Seconds since the lab host booted, with two decimals.
uptime_seconds() {
    local up
    read -r up _ </proc/uptime
    echo "$up"
}

# CPU time that the emulator has used, in milliseconds: a clock that stands still while other
# work on the machine outside has the CPU.
emulator_cpu() { emulator_clock | cut -d ' ' -f 1; }

# Instructions that the lab host and its guests have executed, with LAB_COUNT: what is done by
# the clock, such as ticks, included.
emulator_instructions() { emulator_clock | cut -d ' ' -f 2; }

emulator_clock() {
    local answer
    {
        echo >&9
        read -r answer <&9
    } 9<>"$LAB_CLOCK"
    echo "$answer"
}

# wait_until SECONDS WHAT COMMAND…: until the command succeeds.
wait_until() {
    local deadline what=$2
    deadline=$(($(cut -d. -f1 /proc/uptime) + $1))
    shift 2
    until "$@"; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt "$deadline" ] || fall_short "$what: not in time"
        sleep 0.5
    done
}

# ---- the guest -----------------------------------------------------------------------

# use_guest NAME: all functions are about that guest from here on. The first is "guest".
use_guest() {
    eval "pid_of_$guest_name='$guest_pid' ranges_of_$guest_name='$guest_ranges'" \
        "marks_of_$guest_name='$guest_mark $event_mark'"
    guest_name=$1
    if [ "$1" = guest ]; then name_files; else name_files "$1"; fi
    eval "guest_pid=\${pid_of_$1-} guest_ranges=\${ranges_of_$1-}; set -- \${marks_of_$1-0 0}"
    guest_mark=$1
    event_mark=$2
}

# The pager, as QEMU's option wants it.
pager_object() {
    case $PAGER in
    '"'*)
        echo "{\"qom-type\":\"memory-pager-frostline\",\"id\":\"pager0\",\"library\":\"$PAGER_LIBRARY\",$PAGER}"
        ;;
    *) echo "memory-pager-frostline,id=pager0,library=$PAGER_LIBRARY,$PAGER" ;;
    esac
}

# Becomes QEMU: the standard machine, and whatever arguments are added.
run_qemu() {
    local backend=0 each pager_property='' layout=''
    each=$(($(lab size "$GUEST_MEMORY") / GUEST_BACKENDS))
    if [ -n "$PAGER" ]; then
        set -- "$@" -object "$(pager_object)"
        pager_property=,pager=pager0
    fi
    while [ "$backend" -lt "$GUEST_BACKENDS" ]; do
        set -- "$@" -object \
            "memory-backend-$GUEST_BACKEND,id=ram$backend,size=$each$pager_property"
        if [ "$GUEST_BACKENDS" -gt 1 ]; then
            set -- "$@" -numa "node,memdev=ram$backend"
        else
            layout=,memory-backend=ram0
        fi
        backend=$((backend + 1))
    done
    exec /lab/qemu-system-x86_64 -nodefaults -no-user-config -display none -L /lab/share \
        -machine "q35$layout" -accel kvm -cpu "$GUEST_CPU" -smp "$GUEST_CPUS" \
        -m "$((each * GUEST_BACKENDS >> 20))M" \
        -kernel /lab/vmlinuz -initrd "$GUEST_INITRD" \
        -append "console=ttyS0 quiet mitigations=off panic=-1 oops=panic $GUEST_APPEND" \
        -chardev "pipe,id=serial,path=$run/serial" -serial chardev:serial \
        -chardev "socket,id=qmp,path=$qmp_socket,server=on,wait=off" -mon chardev=qmp,mode=control \
        -chardev "socket,id=sampler,path=$sampler_socket,server=on,wait=off" \
        -mon chardev=sampler,mode=control \
        -chardev "pipe,id=events,path=$run/events" -mon chardev=events,mode=control "$@"
}

prepare_pipes() {
    rm -f "$run"/serial.* "$run"/events.* "$qmp_socket" "$sampler_socket"
    mkfifo "$run/serial.in" "$run/serial.out" "$run/events.in" "$run/events.out"
    touch "$guest_log" "$qemu_log" "$qmp_log" "$events_log"
}

# guest_launch [QEMU ARGUMENT…]: starts QEMU, and returns when it answers.
guest_launch() {
    prepare_pipes
    cat "$run/serial.out" >>"$guest_log" &
    cat "$run/events.out" >>"$events_log" &
    run_qemu "$@" >>"$qemu_log" 2>&1 &
    guest_pid=$!
    wait_until 30 "QEMU opens its monitor" qemu_is_up
    echo '{"execute":"qmp_capabilities"}' >"$run/events.in"
    guest_ranges=$(find_ram)
}

# guest_start [QEMU ARGUMENT…]: starts QEMU, and returns when the guest is ready for commands.
# shellcheck disable=SC2120 # scenarios pass them
guest_start() {
    guest_launch "$@"
    guest_wait '^ready ' 120
}

qemu_is_up() {
    guest_runs || fail "QEMU ended: $(tail -n 3 "$qemu_log")"
    [ -S "$qmp_socket" ]
}

guest_runs() { [ -d "/proc/$guest_pid" ] && ! grep -q '^State:.Z' "/proc/$guest_pid/status"; }

# guest_wait REGEX SECONDS: until the guest says a line like that, after the last one that
# was waited for. The line is in $guest_line.
guest_wait() {
    local answer status=0
    answer=$(lab wait "$guest_log" "$guest_mark" "$2" "$guest_pid" "$1" "$GUEST_FATAL") || status=$?
    guest_mark=${answer%% *}
    guest_line=${answer#* }
    case $status in
    0) return 0 ;;
    3)
        note_breakdown
        fail "the guest broke down: $guest_line"
        ;;
    4)
        note_where_guest_is
        fall_short "the guest did not say '$1' within $2 s; last: $(tail -n 1 "$guest_log")"
        ;;
    5) fail "QEMU ended while '$1' was expected: $(tail -n 2 "$qemu_log")" ;;
    *) fail "cannot wait for '$1'" ;;
    esac
}

# What the guest's kernel says of its end, from the line on that told of it. It takes a while
# to say that, and says it to its console only.
note_breakdown() {
    sleep 3
    grep -F -A 40 -- "$guest_line" "$guest_log" | head -n 41 | sed 's/^/guest: /' >&2
}

# Where the guest's CPUs are, their stacks and what interrupts they have, where QEMU's threads are,
# and what the pager has counted, to tell a guest that waits from one that is slow: two looks.
note_where_guest_is() {
    local look what thread cpu
    for look in 1 2; do
        for what in 'info registers -a' 'info lapic' 'info pic'; do
            hmp "$what" | sed 's/\\r\\n/\n/g'
        done
        for cpu in $(seq 0 $((GUEST_CPUS - 1))); do
            # shellcheck disable=SC2016 # the monitor's own name of the register
            hmp 'x /96xg $esp' "$cpu" | sed 's/\\r\\n/\n/g'
        done
        [ -z "$PAGER" ] || qmp query-memory-pager
        for thread in "/proc/$guest_pid/task"/*; do
            echo "$(cat "$thread/comm"): $(cut -d ' ' -f 3,14,15 "$thread/stat")"
            cat "$thread/stack"
        done
        [ "$look" = 2 ] || sleep 2
    done >"$logs/where.log" 2>&1 || true
}

# guest_field NAME: the word after NAME in $guest_line.
guest_field() {
    local line
    line=" $guest_line "
    line=${line#* "$1" }
    echo "${line%% *}"
}

# guest_send COMMAND: a line for the payload.
guest_send() {
    guest_runs || fail "QEMU ended before '$1' could be sent: $(tail -n 2 "$qemu_log")"
    echo "$1" >"$run/serial.in"
}

# guest_ask COMMAND REGEX SECONDS: sends, and waits for the answer.
guest_ask() {
    guest_send "$1"
    guest_wait "$2" "$3"
}

# guest_verify SECONDS: every byte of the filled memory is what the guest wrote.
guest_verify() {
    guest_ask verify '^verified ' "$1"
    expect_eq "mismatches in $(guest_field verified) bytes" "$(guest_field mismatches)" 0
}

# The guest powers off; QEMU must end by itself and be content.
guest_quit() {
    guest_send poweroff
    guest_ended 60
}

# guest_ended SECONDS: QEMU ends within that time, with status 0.
guest_ended() {
    local status=0
    wait_until "$1" "QEMU ends" guest_gone
    wait "$guest_pid" || status=$?
    guest_pid=
    [ "$status" = 0 ] || fail "QEMU ended with status $status: $(tail -n 3 "$qemu_log")"
}

guest_gone() { ! guest_runs; }

# expect_refusal REGEX [QEMU ARGUMENT…]: QEMU must not start, end with 1 and say why.
expect_refusal() {
    local pattern=$1 pid status=0
    shift
    prepare_pipes
    (run_qemu "$@") >/out/refusal.log 2>&1 &
    pid=$!
    guest_pid=$pid
    wait_until 30 "QEMU refuses" guest_gone
    wait "$pid" || status=$?
    guest_pid=
    cat /out/refusal.log >>/out/refusals.log
    expect_eq "status of the refused start" "$status" 1
    grep -qE "$pattern" /out/refusal.log || fail "no '$pattern' in: $(cat /out/refusal.log)"
    echo "ok: refused: $(tail -n 1 /out/refusal.log)"
}

# ---- QEMU's monitor ------------------------------------------------------------------

# qmp COMMAND: a name, or a whole JSON object. Prints what it returns.
qmp() {
    local command=$1 answer status=0
    case $command in
    '{'*) ;;
    *) command="{\"execute\":\"$command\"}" ;;
    esac
    answer=$(lab qmp "$qmp_socket" 30 "$command" 2>&1) || status=$?
    echo "$(uptime_seconds) $command => $answer" >>"$qmp_log"
    echo "$answer"
    return "$status"
}

# hmp COMMAND [CPU]
hmp() {
    qmp "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"$1\",\"cpu-index\":${2-0}}}"
}

# run_state: "running", "io-error", …
run_state() { qmp query-status | lab json status; }

# event_wait NAME SECONDS [REGEX]: a QMP event of that name whose data match; the whole of it
# is in $event_line.
event_wait() {
    local answer status=0
    answer=$(lab wait "$events_log" "$event_mark" "$2" 0 "\"event\": *\"$1\".*${3-}") || status=$?
    event_mark=${answer%% *}
    event_line=${answer#* }
    [ "$status" = 0 ] || fall_short "no event $1 within $2 s"
}

# event_fields NAME…: members of the data of the event that was waited for.
event_fields() {
    local field paths=''
    for field in "$@"; do
        paths="$paths data.$field"
    done
    # shellcheck disable=SC2086 # one word each
    echo "$event_line" | lab json $paths
}

# ---- the pager and the memory --------------------------------------------------------

# pager_stat NAME…: fields of query-memory-pager, such as evicted-bytes or fault-time.p50.
pager_stat() {
    local answer field paths=''
    answer=$(qmp query-memory-pager) || fail "query-memory-pager: $answer"
    for field in "$@"; do
        paths="$paths 0.$field"
    done
    # shellcheck disable=SC2086 # one word each
    echo "$answer" | lab json $paths
}

# working_set NAME…: fields of the first block's working set, such as resident-bytes, or
# idle.3.bytes and idle.3.returns-per-1000s for what has been idle for 2^3 seconds.
working_set() {
    local answer field paths=''
    answer=$(qmp query-memory-pager-working-set) || fail "query-memory-pager-working-set: $answer"
    for field in "$@"; do
        paths="$paths 0.blocks.0.$field"
    done
    # shellcheck disable=SC2086 # one word each
    echo "$answer" | lab json $paths
}

# pager_set NAME VALUE: limit (bytes), idle-age (seconds), stall-budget (millionths) or mode,
# while the guest runs.
pager_set() {
    local value=$2
    case $value in
    *[!0-9]*) value="\"$value\"" ;;
    esac
    qmp "{\"execute\":\"qom-set\",\"arguments\":{\"path\":\"/objects/pager0\",\"property\":\"$1\",\"value\":$value}}" \
        >/dev/null || fail "cannot set $1 to $2: $(tail -n 1 "$qmp_log")"
}

# Start and length of each block of guest RAM in QEMU's address space. Guests here stay
# below 2 GiB, so the blocks follow one another from guest address 0 on.
find_ram() {
    local backend=0 each host
    each=$(($(lab size "$GUEST_MEMORY") / GUEST_BACKENDS))
    while [ "$backend" -lt "$GUEST_BACKENDS" ]; do
        host=$(hmp "gpa2hva $((backend * each))" | sed -n 's/.* is \(0x[0-9a-f]*\).*/\1/p')
        [ -n "$host" ] || fail "QEMU does not say where guest RAM is"
        echo "$host $each"
        backend=$((backend + 1))
    done
}

# Resident bytes, by the kernel's own account: the whole process, then each block of RAM.
# shellcheck disable=SC2086 # one word each
all_rss() { lab rss "$guest_pid" $guest_ranges; }

process_rss() { all_rss | cut -d ' ' -f 1; }

# Bytes of guest RAM in the host's. Pages of shared memory are there as long as they are in
# their file, mapped or not.
guest_ram_rss() {
    local block sum=0 all
    case $GUEST_BACKEND in
    memfd* | *share=on*) memfd_bytes && return ;;
    esac
    all=$(all_rss)
    for block in ${all#* }; do
        sum=$((sum + block))
    done
    echo "$sum"
}

# ---- the host beside the pager ---------------------------------------------------------

# swap_on SIZE [ALGORITHM]: compressed swap in RAM, of that many bytes before compression.
swap_on() {
    echo "${2:-lz4}" >/sys/block/zram0/comp_algorithm
    echo "$1" >/sys/block/zram0/disksize
    mkswap /dev/zram0 >/dev/null
    swapon /dev/zram0
}

# make_disk MEBIBYTES: /dev/dm-0 on a loop device on a file. A scenario breaks it by another table
# for `disk`, of $sectors sectors, and repair_disk mends it.
make_disk() {
    readonly sectors=$(($1 << 11))
    truncate -s "$1M" /disk/backing
    losetup /dev/loop0 /disk/backing
    lab dm create disk "0 $sectors linear /dev/loop0 0"
    wait_until 10 "the disk appears" test -b /dev/dm-0
}
repair_disk() { lab dm load disk "0 $sectors linear /dev/loop0 0"; }

# cgroup_enter NAME CONTROLLER: what is started from here on is in a cgroup of that name,
# until cgroup_leave. Its folder is in $vm_cgroup.
cgroup_enter() {
    [ -e /sys/fs/cgroup/cgroup.procs ] || mount -t cgroup2 cgroup /sys/fs/cgroup
    echo "+$2" >/sys/fs/cgroup/cgroup.subtree_control
    vm_cgroup=/sys/fs/cgroup/$1
    mkdir -p "$vm_cgroup"
    echo $$ >"$vm_cgroup/cgroup.procs"
}
cgroup_leave() { echo $$ >/sys/fs/cgroup/cgroup.procs; }

# Bytes that QEMU's files without a name hold.
memfd_bytes() {
    local file sum=0
    for file in "/proc/$guest_pid/fd"/*; do
        case $(readlink "$file") in
        /memfd:*) sum=$((sum + $(stat -L -c %b "$file") * 512)) ;;
        esac
    done
    echo "$sum"
}

# ---- stress --------------------------------------------------------------------------

# stress_guest TRACKER GUARD EVICTIONS: all vCPUs read and write at random under a pager that
# works in this way, every write is remembered, and pages leave and come back all the time.
# A lost write, a stale page or a torn one would show as a mismatch. It goes on until so many
# pages have left, however slow the machine, and within reason.
stress_guest() {
    local tries=0
    expect_eq "tracker and guard" "$(pager_stat tracker guard)" "$1 $2"
    pager_set mode active # it may have been off while the guest booted, to be quicker
    guest_ask 'fill 50' '^filled ' 120
    while [ "$tries" = 0 ] || { [ "$(pager_stat evictions)" -lt "$3" ] && [ "$tries" -lt 10 ]; }; do
        guest_ask "stress $SECONDS_OF_STRESS $GUEST_CPUS" '^stress ' $((SECONDS_OF_STRESS + 60))
        note "$guest_line"
        note "evictions, faults, rescues: $(pager_stat evictions faults rescues)"
        expect_eq "mismatches under stress" "$(guest_field mismatches)" 0
        tries=$((tries + 1))
    done
    expect_ge "evictions" "$(pager_stat evictions)" "$3"
}

# stress_and_verify TRACKER GUARD EVICTIONS: a guest from its boot to its end, under such stress.
stress_and_verify() {
    guest_start
    stress_guest "$1" "$2" "$3"
    pager_set limit 0 # what follows is about bytes, not about pressure
    guest_verify 150
    guest_quit
}

# ---- the end -------------------------------------------------------------------------

# Whatever the scenario found, a guest that broke down is a failure.
finish() {
    local status=$? broken
    trap - EXIT
    if [ -n "$guest_pid" ] && guest_runs; then
        kill "$guest_pid"
    fi
    broken=$(cat /out/guest.log /out/*/guest.log 2>/dev/null | grep -m 1 -E "$GUEST_FATAL") || true
    if [ -n "$GUEST_FATAL" ] && [ -n "$broken" ]; then
        echo "FAIL: the guest broke down: $broken"
        status=1
    fi
    exit "$status"
}
[ -n "$LAB_INTERACTIVE" ] || trap finish EXIT
