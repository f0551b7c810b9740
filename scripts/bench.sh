#!/usr/bin/env bash
# Builds and runs the benchmarks: .build/bench/report.json and the same as a table.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .build/bench
swift build -c release --product frostline-bench >.build/bench/build.log 2>&1 || {
    tail -n 20 .build/bench/build.log >&2
    exit 1
}
.build/release/frostline-bench
