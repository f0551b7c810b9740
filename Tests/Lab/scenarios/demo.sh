# Frostline's claim, end to end: a guest fills three quarters of its memory and keeps using
# one tenth of that; the host then holds little more than the tenth, the guest goes on
# undisturbed, and afterwards every byte is right. The figures are the kernel's (smaps).
# shellcheck shell=dash
#lab: LAB_TIMEOUT=900
: "${GUEST_MEMORY=512M}" "${GUEST_CPUS=1}"
: "${PAGER=tracker=rwp,store=compressed,limit=0,idle-age=0}"
# Seconds. To look once at all of the hot tenth costs the emulated guest 2 to 3; an idle age
# near to that, on a busy machine, would take the hot pages for cold ones.
: "${IDLE_AGE=12}"
# shellcheck source=Tests/Lab/lib.sh
. /lab/lib.sh

readonly margin=$((32 << 20)) # for the guest's kernel, and for pages between two looks
readonly phase_file=/run/phase

phase() {
    echo "$1" >"$phase_file"
    note "$1"
}

# Returns when resident RAM is under the limit and has not fallen further for five looks.
# A pager that never gets there fails below, after the report is written.
wait_for_low() {
    local look rss lowest=$rss_before steady=0
    for look in $(seq 300); do
        rss=$(guest_ram_rss)
        steady=$((steady + 1))
        if [ "$rss" -lt "$lowest" ]; then
            lowest=$rss steady=0
        fi
        if [ "$rss" -le "$limit" ] && [ "$steady" -ge 5 ]; then
            return
        fi
        sleep 0.5
    done
    note "after $look looks guest RAM is still at $(mebibytes "$rss") MiB"
}

# The counters that the report ends with, taken while the pager can still be asked.
take_counters() {
    # shellcheck disable=SC2046 # one word each
    set -- $(pager_stat tracker guard evictions rescues faults fault-time.p50 fault-time.p99)
    tracker=$1 guard=$2 evictions=$3 rescues=$4 faults=$5 p50=$6 p99=$7
    qemu=$(qmp query-version | lab json qemu.major qemu.minor qemu.micro | tr ' ' .)
    if [ "$(qmp query-kvm | lab json enabled)" = true ]; then accel=kvm; else accel=tcg; fi
}

microseconds() { printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)); }

write_report() {
    cat >/out/report.json <<REPORT
{
  "kernel": "$(uname -r)",
  "qemu": "$qemu",
  "tracker": "$tracker",
  "guard": "$guard",
  "accel": "$accel",
  "guest_bytes": $(lab size "$GUEST_MEMORY"),
  "filled_bytes": $filled,
  "hot_bytes": $hot,
  "rss_before": $rss_before,
  "rss_evicted": $rss_evicted,
  "rss_after": $rss_after,
  "process_rss_before": $process_rss_before,
  "process_rss_evicted": $process_rss_evicted,
  "evictions": $evictions,
  "rescues": $rescues,
  "faults": $faults,
  "fault_us_p50": $(microseconds "$p50"),
  "fault_us_p99": $(microseconds "$p99"),
  "bytes_verified": $verified,
  "mismatches": $mismatches
}
REPORT
}

phase booting
guest_start
# shellcheck disable=SC2086 # one word each
lab sample /out/timeline.csv "$sampler_socket" "$guest_pid" "$guest_log" "$phase_file" \
    $guest_ranges &
sampler=$!

phase filling
guest_ask 'fill 75' '^filled ' 120
filled=$(guest_field filled)
guest_ask 'hot 10' '^hot ' 60
hot=$(guest_field hot)
guest_wait '^rounds ' 60
rss_before=$(guest_ram_rss)
process_rss_before=$(process_rss)

phase evicting
limit=$((hot + hot / 10 + margin))
pager_set idle-age "$IDLE_AGE"
wait_for_low
rss_evicted=$(guest_ram_rss)
cp "/proc/$guest_pid/smaps" /out/smaps-evicted # who doubts the sum can add it up
process_rss_evicted=$(process_rss)

phase resting
guest_ask status '^status ' 60
rounds_before=$(guest_field rounds)
five_rounds_later() {
    guest_ask status '^status ' 60
    [ "$(guest_field rounds)" -ge $((rounds_before + 5)) ]
}
sleep 5
wait_until 60 "the hot tenth is gone through five times while the rest is out" five_rounds_later
note "resident after that: $(mebibytes "$(guest_ram_rss)") MiB"

phase 'reading back'
pager_set idle-age 3600 # nothing more leaves, and looking for cold pages becomes rare
guest_ask verify '^verified ' 600
verified=$(guest_field verified)
mismatches=$(guest_field mismatches)
rss_after=$(guest_ram_rss)
take_counters

phase finished
sleep 1
kill "$sampler"
write_report
guest_quit

expect_eq "tracker" "$tracker" rwp
expect_le "resident guest RAM with the rest evicted" "$rss_evicted" "$limit"
expect_eq "mismatches in $verified bytes" "$mismatches" 0
