#!/usr/bin/env bash
# Every test, cheapest first. Each step's output is kept in .build/check; the last
# line counts the steps.
set -uo pipefail
cd "$(dirname "$0")/.."

logs=.build/check
rm -rf "$logs"
mkdir -p "$logs"
passed=0
failed=0
readonly most_again=5 # more than these are no accident

report() { # NAME STATUS SECONDS
    if [ "$2" = 0 ]; then
        passed=$((passed + 1))
        printf 'ok      %-32s %4d s  %s\n' "$1" "$3" "$(summary "$1")"
    else
        failed=$((failed + 1))
        printf 'FAILED  %-32s %4d s  see %s\n' "$1" "$3" "$logs/$1.log"
        tail -n 60 "$logs/$1.log" | sed 's/^/        | /'
    fi
}

# The line of a step's output that says what it did.
summary() {
    grep -aE '[0-9]+ (tests?|passed|evictions)|mismatches|Test run with' "$logs/$1.log" | tail -n 1 | cut -c1-150
}

step() { # NAME COMMAND…
    local name=$1 began=$SECONDS status=0
    shift
    "$@" >"$logs/$name.log" 2>&1 </dev/null || status=$?
    report "$name" "$status" $((SECONDS - began))
}

# Steps that wait for an emulated machine most of the time run two at once. What a busy machine
# may be the cause of is decided by a run with nothing beside it: see `disturbed`.
lab() { # SCENARIO…
    local -a running=() names=() starts=() again=()
    local name
    for name in "$@"; do
        Tests/Lab/run "$name" >"$logs/lab-$name.log" 2>&1 </dev/null &
        running+=($!) names+=("lab-$name") starts+=("$SECONDS")
        if [ ${#running[@]} -ge 2 ]; then collect; fi
    done
    while [ ${#running[@]} -gt 0 ]; do collect; done
    for name in "${again[@]}"; do
        step "lab-$name" Tests/Lab/run "$name"
    done
}

# Waits for the oldest of `running`, and reports it or notes that it runs again.
collect() {
    local status=0 name=${names[0]}
    wait "${running[0]}" || status=$?
    if disturbed "$status" && [ ${#again[@]} -lt "$most_again" ]; then
        again+=("${name#lab-}")
        cp "$logs/$name.log" "$logs/$name.first.log"
        printf 'again   %-32s %4d s  runs by itself later; see %s\n' "$name" $((SECONDS - starts[0])) "$logs/$name.first.log"
        tail -n 20 "$logs/$name.log" | sed 's/^/        | /'
        keep_where "$name"
    else
        report "$name" "$status" $((SECONDS - starts[0]))
    fi
    running=("${running[@]:1}") names=("${names[@]:1}") starts=("${starts[@]:1}")
}

# What the run that is gone tells of where it stood.
keep_where() {
    local log
    for log in hang where guest; do
        cp ".build/lab/${1#lab-}/$log.log" "$logs/$1.$log.log" 2>/dev/null
    done
}

# Whether a scenario fell short of a time or an amount (75), or did not end, the emulated host
# maybe hanging (124). A wrong byte, a breakdown or a wrong answer is never excused.
disturbed() { [ "$1" = 75 ] || [ "$1" = 124 ]; }

finish() {
    printf '%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" = 0 ]
    exit
}

step packages scripts/packages.sh
[ "$failed" = 0 ] || finish
step format swift format lint --strict --recursive Package.swift Sources Tests Benchmarks
step library scripts/build-library.sh
step build-tests swift build -c release --build-tests
[ "$failed" = 0 ] || finish
step abi Tests/ABI/run
step tests swift test -c release --skip-build
step thread-sanitizer Tests/thread-sanitizer
step kernel scripts/fetch-kernel.sh
step qemu scripts/build-qemu.sh --tests
[ "$failed" = 0 ] || finish
step refusals Tests/QEMU/refusals
step qemu-own-tests scripts/check-qemu.sh
lab boot # which builds what the others share
step lab-selftest Tests/Lab/selftest
[ "$failed" = 0 ] || finish
mapfile -t scenarios < <(Tests/Lab/run --list | awk '$1 != "boot" {print $1}')
lab "${scenarios[@]}"
finish
