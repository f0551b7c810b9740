# No write is lost with any guard of a kernel with RWP: three threads write, check and discard
# pages of the lab host's own memory, which leave as fast as they can be made to. What is read from
# a device into a page that leaves meanwhile is lost, unless the kernel notices or the pager is
# told. And huge pages are split where it pays, stay where they cannot be, and are made again of
# small ones.
# shellcheck shell=dash
#lab: LAB_PROGRAM=.build/release/frostlinePackageTests.xctest LAB_TIMEOUT=240
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

# Emulated, everything takes much longer.
export FROSTLINE_STRESS_DIVISOR="${FROSTLINE_STRESS_DIVISOR:-40}"
/lab/program --testing-library swift-testing \
    --filter '[rR]eadWriteProtected|holdHugePages|HugePageReturn' >/out/tests.log 2>&1 || {
    grep -E '✘|↳|error' /out/tests.log || tail -n 20 /out/tests.log
    fail "the native tests failed"
}
grep '^forced eviction' /out/tests.log
expect_eq "guards without a mismatch" "$(grep -c '^forced eviction.* 0 mismatches' /out/tests.log)" 4
grep 'what was read arrived' /out/tests.log
expect_eq "reads that arrived, told of or noticed" "$(grep -c 'arrived: true' /out/tests.log)" 6
expect_eq "reads that were lost" "$(grep -c 'arrived: false' /out/tests.log)" 2
grep '^held in a huge page' /out/tests.log || fail "no huge page was held"
grep 'huge pages are whole again' /out/tests.log
expect_eq "guards whose huge pages came back whole" "$(grep -c 'of 6 huge pages are whole again' /out/tests.log)" 4
