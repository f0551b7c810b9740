#!/bin/bash
# Runs a quick, useful part of QEMU's own tests against the patched QEMU.
#
#   scripts/check-qemu.sh [TEST...]
#
# The tests are QEMU's qtests by name, without "-test" or with; by default those that a
# change to memory backends, QAPI or devices would break. Ends with "N passed, N failed".
# Output goes to .build/check-qemu.log. The emulator runs without KVM.
set -euo pipefail

readonly default_tests=(
    memory-pager-test qom-test qmp-cmd-test qmp-test test-hmp device-introspect-test
    virtio-balloon-test numa-test ivshmem-test drive_del-test device-plug-test cpu-plug-test
)
readonly seconds_max=120 # for one test

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root
readonly build=${XDG_CACHE_HOME:-$HOME/.cache}/frostline/qemu/tree/build
readonly log=$root/.build/check-qemu.log

passed=0
failed=0

# Runs one test program. It speaks TAP: a line for each case, and a plan.
run() {
    local name=$1 program=$build/tests/qtest/$1 output ok bad planned status=0
    if [[ ! -x $program ]]; then
        printf 'FAIL %-24s no such test\n' "$name"
        failed=$((failed + 1))
        return
    fi
    output=$(cd "$build" && timeout $seconds_max "$program" --tap -k 2>&1 </dev/null) || status=$?
    printf '== %s: exit status %d\n%s\n' "$name" "$status" "$output" >>"$log"
    ok=$(grep -c '^ok ' <<<"$output" || true)
    bad=$(grep -c '^not ok ' <<<"$output" || true)
    planned=$(sed -n 's/^1\.\.\([0-9]*\)$/\1/p' <<<"$output" | head -n1)
    # A test that crashed or hung leaves cases without a line.
    if ((status != 0 || ok + bad != ${planned:-0} || ok + bad == 0)); then
        bad=$((bad > 0 ? bad : 1))
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    if ((bad == 0)); then
        printf 'ok   %-24s %3d\n' "$name" "$ok"
    else
        printf 'FAIL %-24s %3d of %s, exit status %d\n' "$name" "$ok" "${planned:-?}" "$status"
        grep -v -e '^ok ' -e '^# ' <<<"$output" | uniq | tail -n 5 | cut -c1-300 | sed 's/^/     | /' || true
    fi
}

main() {
    local test tests=("$@")
    ((${#tests[@]} > 0)) || tests=("${default_tests[@]}")

    "$root/scripts/build-qemu.sh" --tests
    : >"$log"
    export QTEST_QEMU_BINARY=./qemu-system-x86_64 QTEST_QEMU_IMG=./qemu-img
    export FROSTLINE_MOCK=$build/tests/qtest/libfrostline-mock.so
    unset QTEST_LOG V
    for test in "${tests[@]}"; do
        [[ -e $build/tests/qtest/$test || $test == *-test ]] || test=$test-test
        run "$test"
    done
    ((failed == 0)) || printf 'see %s\n' "${log#"$root"/}"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0))
}

main "$@"
