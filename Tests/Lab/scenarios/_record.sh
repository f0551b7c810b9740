# Records which pages a guest touches: what the tests of the policy replay. redis serves requests
# by Zipf's law, one after the other; then all keys are read in order, as a backup would; then it
# serves again. Nothing leaves meanwhile.
# shellcheck shell=dash
#lab: LAB_TIMEOUT=1800 LAB_SERVICE=yes
: "${GUEST_MEMORY=160M}"
: "${GUEST_INITRD=/run/guest.cpio}"
# In mode observe, passes for an idle age come twice a minute: none but those that are asked for.
: "${PAGER=tracker=rwp,store=compressed,mode=observe,limit=0,idle-age=3600}"
: "${DATA_MIB=48}"
# As in _service; here all keys are asked for, some of them hardly ever.
: "${POPULAR=scattered}" "${EXPONENT=120}"
# Thousands of requests before, and seconds of them before and after all keys are read.
: "${WARM=20}" "${BEFORE=180}" "${AFTER=20}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

# Of the trace, from here on: 0 serving, 1 reading everything, 2 serving again.
phase() { echo "$1" >/run/phase.new && mv /run/phase.new /run/phase; }

right() { [ "$(guest_field mismatches)" = 0 ] || fail "wrong values: $guest_line"; }

cat /lab/guest.cpio /lab/service.cpio >/run/guest.cpio
# A touch of a huge page would say nothing about its pages.
echo never >/sys/kernel/mm/transparent_hugepage/enabled
# shellcheck disable=SC2119
guest_start
guest_ask "serve $DATA_MIB $POPULAR 100" '^(serving|error) ' 600
keys=$(guest_field serving)
note "$keys keys at $(uptime_seconds)"
guest_ask "warm $WARM $EXPONENT" '^warmed ' 600
right

note "$guest_line"
phase 0
lab record /out/trace "$sampler_socket" pager0 /run/hotness /run/phase &
recorder=$!
guest_ask "request $BEFORE $EXPONENT" '^requested ' $((BEFORE + 120))
right
note "$guest_line"
phase 1
# Two lie in a page.
guest_ask "recall $((keys / 2))" '^recalled ' 600
right
phase 2
guest_ask "request $AFTER $EXPONENT" '^requested ' $((AFTER + 120))
right
kill "$recorder"
wait "$recorder"
note "$(stat -c %s /out/trace) bytes, $(pager_stat passes) passes"
guest_quit
