# The kernel's own monitor of what is touched, beside which trackers are put. Sourced after lib.sh.
#
# Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash
# shellcheck disable=SC2034,SC2154 # what scenarios use, and what lib.sh sets

: "${DAMON=5000 100000 10 1000}" # microseconds to sample and aggregate, least and most regions
readonly kdamond=/sys/kernel/mm/damon/admin/kdamonds/0

damon_write() { echo "$2" >"$kdamond/$1" || fail "DAMON does not take $2 for $1"; }

# DAMON watches guest RAM by the access bits of QEMU's page tables, those of KVM included, and
# reports all regions that it has made of it.
damon_start() {
    local start length
    # The kernel's own statistics would exclude others.
    echo N >/sys/module/damon_stat/parameters/enabled 2>/dev/null || true
    # shellcheck disable=SC2086 # one word each
    set -- $DAMON $guest_ranges
    start=$5 length=$6
    echo 1 >"${kdamond%/0}/nr_kdamonds"
    damon_write contexts/nr_contexts 1
    damon_write contexts/0/operations fvaddr
    damon_write contexts/0/targets/nr_targets 1
    damon_write contexts/0/targets/0/pid_target "$guest_pid"
    damon_write contexts/0/targets/0/regions/nr_regions 1
    damon_write contexts/0/targets/0/regions/0/start "$((start))"
    damon_write contexts/0/targets/0/regions/0/end "$((start + length))"
    damon_write contexts/0/monitoring_attrs/intervals/sample_us "$1"
    damon_write contexts/0/monitoring_attrs/intervals/aggr_us "$2"
    damon_write contexts/0/monitoring_attrs/nr_regions/max "$4"
    damon_write contexts/0/monitoring_attrs/nr_regions/min "$3"
    damon_write contexts/0/schemes/nr_schemes 1
    damon_write contexts/0/schemes/0/action stat
    for range in sz nr_accesses age; do
        damon_write "contexts/0/schemes/0/access_pattern/$range/min" 0
        damon_write "contexts/0/schemes/0/access_pattern/$range/max" 4294967295
    done
    damon_write state on
    damon_start_address=$start
}

damon_aggregations() {
    damon_write state update_schemes_stats
    cat $kdamond/contexts/0/schemes/0/stats/nr_snapshots
}

# DAMON's ages count aggregations, which take longer than they were asked to where there is
# no CPU for it: how long they took on average since a time with so many of them before.
damon_interval() {
    local now count
    count=$(damon_aggregations)
    now=$(uptime_seconds)
    [ "$count" -gt "$2" ] || fail "DAMON has not aggregated since $1"
    awk "BEGIN { print ($now - $1) / ($count - $2) }"
}

damon_stop() { damon_write state off; }

# CPU time of its thread so far, in nanoseconds.
damon_cpu() {
    local spent
    read -r spent _ <"/proc/$(pgrep 'kdamond\.0')/schedstat"
    echo "$spent"
}
