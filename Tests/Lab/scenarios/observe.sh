# Looking before leaping: in mode observe nothing leaves, and the working set says what would.
# Then it does leave, as foretold; mode off stops that at once, and drain brings all back, huge pages
# as such.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=240
: "${GUEST_MEMORY=256M}"
: "${PAGER=tracker=rwp,store=compressed,mode=observe,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

# 2^3 seconds: several times what the emulated guest needs to look at its hot tenth once.
readonly power=3

# expect_about WHAT ACTUAL EXPECTED: within a tenth.
expect_about() {
    [ $(($2 >= $3 - $3 / 10 && $2 <= $3 + $3 / 10)) = 1 ] ||
        fail "$1: $2, expected $3 within a tenth"
    echo "ok: $1: $(mebibytes "$2") MiB (expected $(mebibytes "$3") MiB, within a tenth)"
}

idle_bytes() { working_set "idle.$power.bytes"; }
# What is idle for half of the time is so for all of it: nothing is on its way any more.
idle_is_settled() {
    # shellcheck disable=SC2046 # one word each
    set -- $(working_set "idle.$((power - 1)).bytes" "idle.$power.bytes")
    [ "$2" -ge $(($1 - $1 / 50)) ] && [ "$2" -ge $((cold * 9 / 10)) ]
}
a_quarter_is_out() { [ "$(pager_stat evicted-bytes)" -ge $((predicted / 4)) ]; }
most_is_out() { [ "$(pager_stat evicted-bytes)" -ge $((predicted - predicted / 10)) ]; }
all_is_back() { [ "$(pager_stat evicted-bytes)" = 0 ]; }
huge_pages_are_whole() { [ "$(pager_stat huge-page-returns)" -ge $((departures * 9 / 10)) ]; }

guest_start
sleep $(((1 << power) + 5))
own=$(idle_bytes) # some of it will be filled
note "before the fill, the guest's own: $(mebibytes "$own") MiB idle for $((1 << power)) s"

guest_ask 'fill 60' '^filled ' 90
filled=$(guest_field filled)
guest_ask 'hot 10' '^hot ' 60
cold=$((filled - $(guest_field hot)))
sleep $((1 << power))
wait_until 60 "the fill is idle for $((1 << power)) s, too" idle_is_settled
predicted=$(idle_bytes)
note "with $(mebibytes $cold) MiB left cold: $(mebibytes "$predicted") MiB idle for $((1 << power)) s, $(working_set "idle.$power.returns-per-1000s") returns in 1000 s"
expect_ge "idle memory, at least what is left cold" "$predicted" $((cold - cold / 10))
expect_le "idle memory, at most that and the guest's own" "$predicted" $(((cold + own) * 11 / 10))
expect_eq "evictions while observing" "$(pager_stat evictions)" 0

pager_set idle-age $((1 << power))
pager_set mode active
wait_until 60 "a quarter of it leaves" a_quarter_is_out
pager_set mode off
sleep 1
stopped=$(pager_stat evictions)
sleep 4
expect_eq "evictions four seconds after eviction was switched off" "$(pager_stat evictions)" "$stopped"
note "$(mebibytes "$(pager_stat evicted-bytes)") MiB are out, $(mebibytes "$(pager_stat resident-bytes)") MiB in RAM"

pager_set mode active
wait_until 60 "the rest leaves" most_is_out
sleep 4
expect_about "evicted memory" "$(pager_stat evicted-bytes)" "$predicted"

pager_set mode drain
wait_until 60 "all comes back" all_is_back
expect_ge "resident guest RAM" "$(guest_ram_rss)" "$filled"
departures=$(pager_stat huge-page-departures)
expect_ge "huge pages that left whole" "$departures" 10
wait_until 60 "nine of ten of those are whole again" huge_pages_are_whole
note "$(pager_stat huge-page-returns) of $departures huge pages came back whole"
guest_verify 120
expect_eq "evicted bytes after all" "$(pager_stat evicted-bytes)" 0
guest_quit
