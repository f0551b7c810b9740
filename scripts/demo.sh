#!/usr/bin/env bash
# The demonstration: demo.sh [compressed|file]. Leaves .build/demo/report.json and
# timeline.svg, and all that was said and measured in .build/lab/demo.
set -euo pipefail
cd "$(dirname "$0")/.."

store=${1:-compressed}
case $store in
    compressed) settings=() ;;
    file) settings=(LAB_DISK=1G "PAGER=tracker=rwp,store=file,path=/disk/store,size=768M,limit=0,idle-age=0") ;;
    *)
        echo "STORE=$store is unknown; there are compressed and file" >&2
        exit 1
        ;;
esac

rm -rf .build/demo
status=0
Tests/Lab/run -v demo "${settings[@]}" || status=$?
# Also of a run that failed: that is when a picture helps.
if [ -f .build/lab/demo/report.json ]; then python3 Tests/Lab/report.py; fi
exit "$status"
