# A stall budget finds a working set: a guest fills most of its memory, goes on using a little of
# it, and a table shows what leaves and what is waited meanwhile.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=600
: "${GUEST_MEMORY=256M}"
: "${PAGER=tracker=rwp,store=compressed,limit=0,idle-age=0}"
: "${BUDGET=5000}"
# Of the guest's memory.
: "${FILL_PERCENT=60}" "${HOT_PERCENT=6}"
: "${LINES=12}" "${PAUSE=10}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

line() { # SECONDS
    # shellcheck disable=SC2046 # one word each
    set -- "$1" $(pager_stat evicted-bytes fetches fault-time.total held-up-time stall-share eviction-pace)
    note "| $1 | $(mebibytes "$(guest_ram_rss)") | $(mebibytes "$2") | $3 | $((($4 + $5) / 1000000)) | $6 | $7 |"
}

# shellcheck disable=SC2119
guest_start
guest_ask "fill $FILL_PERCENT" '^filled ' 120
guest_ask "hot $HOT_PERCENT" '^hot ' 60
pager_set stall-budget "$BUDGET"
began=$(uptime_seconds)
note "| seconds | in RAM, MiB | evicted, MiB | fetches | waited, ms | stall-share | eviction-pace |"
for _ in $(seq 0 "$LINES"); do
    line "$(($(uptime_seconds | cut -d. -f1) - ${began%.*}))"
    sleep "$PAUSE"
done
expect_ge "evicted, of what is not in use" "$(pager_stat evicted-bytes)" \
    $(($(lab size "$GUEST_MEMORY") * (FILL_PERCENT - HOT_PERCENT) / 100 / 2))
guest_verify 300
guest_quit
