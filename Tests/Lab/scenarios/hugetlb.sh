# Memory in huge pages of hugetlbfs leaves and comes back 2 MiB at a time: no write is lost, the
# host's pool gets back what is evicted, and a touch that finds the pool empty waits.
# shellcheck shell=dash
#lab: LAB_PROGRAM=.build/release/frostlinePackageTests.xctest LAB_TIMEOUT=600 LAB_DISK=512M
: "${GUEST_MEMORY=256M}" "${GUEST_CPUS=2}" "${GUEST_CPU=qemu64,+kvm-asyncpf-int}"
: "${GUEST_BACKEND=memfd,hugetlb=on,hugetlbsize=2M}"
: "${PAGER=tracker=rwp,guard=minor,store=compressed,limit=0,idle-age=0}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

huge_page=$((2 << 20))
all=$(($(lab size "$GUEST_MEMORY") / huge_page))

# pool NAME: HugePages_NAME of the host.
pool() { awk -v name="HugePages_$1:" '$1 == name { print $2 }' /proc/meminfo; }
# What is free and has not been promised to anybody.
available() { echo $(($(pool Free) - $(pool Rsvd))); }
pool_set() { echo "$1" >/proc/sys/vm/nr_hugepages; }
# Takes away what is free. What was on its way out meanwhile is free a moment later.
pool_emptied() {
    pool_set 1
    [ "$(available)" = 0 ]
}
all_free() { [ "$(pool Free)" = "$all" ]; }
enough_out() { [ "$(pager_stat evicted-bytes)" -gt $((filled * 2 / 3)) ]; }
# The guest may have begun to use a few others meanwhile.
got_back() {
    [ $(($(pool Free) + 4 - full)) -ge $((($(pager_stat evicted-bytes) - out) / huge_page)) ]
}
everything_back() { [ "$(pager_stat evicted-bytes)" = 0 ]; }
nothing_waits() { [ "$(pager_stat waiting-pages)" = 0 ]; }
evict() {
    pager_set idle-age 3
    # The guest's kernel keeps the rest warm: one touched page in 512 is enough.
    wait_until 90 "two thirds of what was filled are evicted" enough_out
    pager_set idle-age 0
}

pool_set "$all"
expect_eq "huge pages in the pool" "$(pool Free)" "$all"

note "three threads on the lab host's own huge pages"
# On the disk, since the file store takes no file in RAM.
(
    cd /disk
    FROSTLINE_STRESS_DIVISOR="${FROSTLINE_STRESS_DIVISOR:-8}" \
        exec /lab/program --testing-library swift-testing --filter 'HugetlbTests|hugePages|transfersHugePages'
) >/out/tests.log 2>&1 || {
    grep -E '✘|↳|error' /out/tests.log || tail -n 20 /out/tests.log
    fail "the native test failed"
}
grep '^forced eviction' /out/tests.log
expect_eq "runs without a mismatch" "$(grep -c '^forced eviction.* 0 mismatches' /out/tests.log)" 2
grep 'what was read arrived' /out/tests.log
expect_eq "reads into a page that was to leave, told of" "$(grep -c 'told: true; .* arrived: true' /out/tests.log)" 1
expect_eq "reads that were lost without" "$(grep -c 'told: false; .* arrived: false' /out/tests.log)" 1
# The kernel lets go of what was pinned from a work queue of its own.
wait_until 30 "all huge pages are in the pool" all_free

note "what these pages do not have is refused"
asked=$PAGER
for wish in tracker=rwp,guard=move tracker=rwp,guard=freeze tracker=wp,guard=write-protect \
    tracker=wp tracker=zap; do
    PAGER=$wish,store=compressed
    expect_refusal 'made of huge pages \(hugetlbfs\), which (leave by guard minor only|only tracker rwp tracks)'
done
PAGER=$asked
wait_until 10 "all huge pages are in the pool again" all_free

note "a guest under stress"
guest_start
pager_set limit $((144 << 20))
stress_guest rwp minor 25000
expect_ge "fetches" "$(pager_stat fetches)" 20000
pager_set limit 0 # what follows is about bytes, not about pressure
guest_verify 150

note "the pool gets back what is evicted"
filled=$(guest_field verified)
full=$(pool Free) out=$(pager_stat evicted-bytes)
evict
wait_until 10 "the pool has what was evicted" got_back
note "free huge pages: $full of $all, now $(pool Free); $(mebibytes "$(pager_stat evicted-bytes)") MiB are out"
expect_ge "huge pages that were evicted" $((($(pager_stat evicted-bytes) - out) / huge_page)) 8

note "somebody else takes them: a touch waits, and the guest goes on when they are back"
wait_until 10 "no huge page is to be had" pool_emptied
guest_send verify
event_wait STOP 60
expect_eq "run state" "$(run_state)" io-error
expect_ge "pages that are waited for" "$(pager_stat waiting-pages)" 1
pool_set "$all"
wait_until 60 "no page is waited for" nothing_waits
event_wait RESUME 30
guest_wait '^verified ' 150
expect_eq "mismatches in $(guest_field verified) bytes" "$(guest_field mismatches)" 0

note "mode drain brings everything back"
evict
pager_set mode drain
wait_until 90 "everything is back" everything_back
guest_verify 120

note "some of it out, and quit"
pager_set mode active
evict
qmp '{"execute":"quit"}' >/dev/null
guest_ended 10
expect_eq "huge pages in the pool" "$(pool Free)" "$all"
