#!/usr/bin/env bash
# The demonstration: demo.sh [compressed|file]. Leaves .build/demo/report.json,
# timeline.csv and timeline.svg.
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
mkdir -p .build/demo
status=0
Tests/Lab/run -v demo "${settings[@]}" || status=$?
for name in report.json timeline.csv; do
    if [ -f ".build/lab/demo/out/$name" ]; then cp ".build/lab/demo/out/$name" .build/demo/; fi
done
if [ -f .build/demo/report.json ]; then python3 Tests/Lab/report.py .build/demo; fi
exit "$status"
