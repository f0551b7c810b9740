#!/usr/bin/env bash
# Builds and runs the benchmarks: .build/bench/report.json and the same as a table. Those
# that need a kernel with RWP run in the lab first, and their results are taken over. With
# FROSTLINE_BENCH_GUESTS=1 so do those that need a guest, for more than an hour.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .build/bench
swift build -c release --product frostline-bench >.build/bench/build.log 2>&1 || {
    tail -n 20 .build/bench/build.log >&2
    exit 1
}

merge=
# in_the_lab SCENARIO: has its report taken over.
in_the_lab() {
    if { scripts/fetch-kernel.sh && Tests/Lab/run "$1"; } >".build/bench/lab$1.log" 2>&1; then
        merge=${merge:+$merge,}.build/lab/$1/report.json
    else
        echo "without figures of $1: $(tail -n 1 ".build/bench/lab$1.log")"
    fi
}

if [ -z "${FROSTLINE_BENCH_ONLY-}" ]; then
    echo "the lab host first, about ten minutes"
    in_the_lab _bench
    if [ "${FROSTLINE_BENCH_GUESTS-}" = 1 ]; then
        { scripts/build-library.sh && scripts/build-qemu.sh; } >.build/bench/qemu.log 2>&1 || tail -n 1 .build/bench/qemu.log
        echo "what a vCPU notices, in the lab, half an hour"
        in_the_lab _slowdown
        in_the_lab _stalls
        echo "redis in the lab, 40 minutes"
        in_the_lab _service
    fi
    export FROSTLINE_BENCH_MERGE=$merge
fi
.build/release/frostline-bench
