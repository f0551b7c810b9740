# What being watched costs a vCPU: its first write to each page after a pass of a tracker, beside
# the same where the kernel tracks writes in its own way (soft-dirty bits); and what DAMON costs a
# vCPU that goes on writing. Counted are the instructions that the emulated machine executes in
# all meanwhile, the guest's exits, KVM's work and the pager's threads among them; of that, other
# work on the machine outside changes little. What is counted besides, for it takes some to ask
# and to answer, is there in a walk that finds nothing armed, too, and is taken off. The times of
# exits from a guest within an emulated machine would say nothing.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=1500 LAB_COUNT=yes
: "${GUEST_MEMORY=256M}"
: "${ROUNDS=9}"
: "${WALKED=25}"              # per cent of what is filled
: "${DAMON_WALKS=400}"        # through it, for DAMON to see
: "${MEMORIES=private private-huge shared}"
PAGER=
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh
# shellcheck source=Tests/Lab/lib-damon.sh
. /lab/lib-damon.sh
# shellcheck source=Tests/Lab/lib-report.sh
. /lab/lib-report.sh

readonly figures=/run/figures

# walk WHAT [ROUNDS]: notes the instructions and nanoseconds of a touch.
walk() {
    local work
    work=$(emulator_instructions)
    guest_ask "walk ${2-1} 0 $WALKED" '^walked ' 120
    work=$(($(emulator_instructions) - work))
    awk "BEGIN { t = $(guest_field touches); printf \"%.3f %.3f\n\", $work / t, $(guest_field nanoseconds) / t }" \
        >>"$figures/$1"
}

# figure WHAT COLUMN: its median.
figure() { cut -d ' ' -f "$2" "$figures/$1" | median; }

passes_are_more_than() { [ "$(pager_stat passes)" -gt "$1" ]; }

# The kernel at hand has all that the guest has touched looked at, and armed again.
look() {
    local passes
    case $tracker in
    soft-dirty) echo 4 >"/proc/$guest_pid/clear_refs" ;;
    *)
        passes=$(pager_stat passes)
        pager_set mode observe # which has it look at once
        wait_until 30 "a pass" passes_are_more_than "$passes"
        ;;
    esac
}

# start TRACKER MEMORY
start() {
    tracker=$1
    GUEST_BACKEND=ram
    [ "$2" != shared ] || GUEST_BACKEND=memfd
    PAGER=
    case $1 in
    # Of its own accord it looks every seven minutes.
    rwp | wp | zap) PAGER=tracker=$1,store=compressed,mode=observe,limit=0,idle-age=3600 ;;
    esac
    case $2 in
    *-huge) echo always ;;
    *) echo never ;;
    esac >/sys/kernel/mm/transparent_hugepage/enabled
    mkdir -p "$figures"
    rm -f "$figures"/*
    use_guest "$(echo "$1-$2" | tr -- - _)"
    # shellcheck disable=SC2119
    guest_start
    guest_ask 'fill 50 huge' '^filled ' 120
    walk warm
}

finish_guest() {
    guest_verify 120
    guest_quit
}

# The quartiles of what a write of a walk after a look takes more than one of the next, which finds
# nothing armed.
extra() {
    paste -d ' ' "$figures/first" "$figures/again" | awk '{ print $1 - $3 }' | sort -g | awk '
        { value[NR] = $1 }
        END { print value[int((NR + 3) / 4)], value[int((NR + 1) / 2)], value[int((3 * NR + 3) / 4)] }'
}

measure_tracker() { # TRACKER MEMORY
    local round=0 name=tracking/$1/$2/vcpu-first-touch floor=
    start "$1" "$2"
    while [ "$round" -lt "$ROUNDS" ]; do
        look
        walk first
        walk again
        round=$((round + 1))
    done
    finish_guest
    [ "$1" = soft-dirty ] || floor=$soft_dirty
    # shellcheck disable=SC2046 # one word each
    set -- "$1" $(extra)
    [ "$1" != soft-dirty ] || soft_dirty=$3
    result "$name" "$3" instructions "$floor" \
        "the same where the kernel tracks writes by soft-dirty bits: what a vCPU's first write to a page since the last look takes more than another (quartiles of $ROUNDS walks: $2, $4)"
}

measure_damon() { # MEMORY
    local round=0 watched alone touches
    start damon "$1"
    while [ "$round" -lt "$ROUNDS" ]; do
        damon_start
        walk watched "$DAMON_WALKS"
        damon_stop
        walk alone "$DAMON_WALKS"
        round=$((round + 1))
    done
    touches=$(guest_field touches)
    finish_guest
    watched=$(figure watched 1) alone=$(figure alone 1)
    result "tracking/damon/$1/vcpu-second" \
        "$(awk "BEGIN { print ($watched - $alone) / $(figure watched 2) * 1000 }")" "million instructions" "" \
        "what a second of watching costs, beside a vCPU that writes to $((touches / DAMON_WALKS)) pages over and over, at $watched instructions for a write, $alone without being watched"
}

soft_dirty=
for memory in $MEMORIES; do
    measure_tracker soft-dirty "$memory"
    measure_tracker rwp "$memory"
    if [ "$memory" = shared ]; then measure_tracker zap shared; else measure_tracker wp "$memory"; fi
    measure_damon "$memory"
done
write_report "a vCPU walks $WALKED % of half of $GUEST_MEMORY; DAMON: $DAMON"
