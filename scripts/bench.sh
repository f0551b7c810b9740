#!/usr/bin/env bash
# Builds and runs the benchmarks: .build/bench/report.json and the same as a table. Those
# that need a kernel with RWP run in the lab first, and their results are taken over.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .build/bench
swift build -c release --product frostline-bench >.build/bench/build.log 2>&1 || {
    tail -n 20 .build/bench/build.log >&2
    exit 1
}

in_the_lab() { scripts/fetch-kernel.sh && Tests/Lab/run _bench; }

if [ -z "${FROSTLINE_BENCH_ONLY-}" ]; then
    echo "the lab host first, about ten minutes"
    if in_the_lab >.build/bench/lab.log 2>&1; then
        export FROSTLINE_BENCH_MERGE=.build/lab/_bench/report.json
    else
        echo "without figures of a kernel with RWP: $(tail -n 1 .build/bench/lab.log)"
    fi
fi
.build/release/frostline-bench
