#!/usr/bin/env bash
# Builds the library, release: .build/release/libfrostline.so
set -euo pipefail
cd "$(dirname "$0")/.."

command -v swift >/dev/null || {
    echo "swift is missing: install the Swift toolchain, 6.3 or later, and put it on the PATH" >&2
    exit 1
}
mkdir -p .build
log=.build/library.log
echo "library: building"
swift build -c release --product frostline >"$log" 2>&1 || {
    grep -E 'error:' "$log" | sort -u | head -n 20 >&2
    echo "library: build failed; see $log" >&2
    exit 1
}
