# The benchmarks that need RWP, in the lab host: `make bench` takes over what they report.
# shellcheck shell=dash
#lab: LAB_PROGRAM=.build/release/frostline-bench LAB_TIMEOUT=1500 LAB_MEMORY=2560M
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

export FROSTLINE_BENCH_QUICK=1 FROSTLINE_BENCH_REPORT=/out/report.json
export FROSTLINE_BENCH_ONLY="${FROSTLINE_BENCH_ONLY:-guard,tracking}"
export FROSTLINE_BENCH_MACHINE="lab host: 1 CPU, emulated (TCG), Linux $LAB_KERNEL"
# The kernel's own statistics would keep DAMON to themselves.
echo N >/sys/module/damon_stat/parameters/enabled
# Huge pages of hugetlbfs are measured where enough of them have been set aside.
echo 420 >/proc/sys/vm/nr_hugepages
cd /tmp
/lab/program
