# Guest RAM in two blocks, as on a two-node machine: both shrink, and both come back whole.
# A pager that mixes up two blocks' offsets passes every test with one block.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=240
: "${GUEST_MEMORY=320M}" "${GUEST_BACKENDS=2}"
: "${PAGER=tracker=rwp,store=compressed,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

guest_start
guest_ask 'fill 60' '^filled ' 120
before=$(all_rss)

# Both blocks below half of what they were.
both_fell() {
    # shellcheck disable=SC2046,SC2086 # one word each
    set -- $before $(all_rss)
    [ "$5" -lt $(($2 / 2)) ] && [ "$6" -lt $(($3 / 2)) ]
}
pager_set idle-age 3
wait_until 90 "both blocks shrink" both_fell
note "process and blocks: before $before, now $(all_rss)"
expect_ge "evictions" "$(pager_stat evictions)" 10000

pager_set idle-age 3600
guest_verify 180
guest_quit
