# A report as the benchmarks write it, in /out/report.json, which `make bench` takes over.
# Sourced after lib.sh.
#
# Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=dash

readonly results=/run/results

# result NAME VALUE UNIT FLOOR WORDS: the floor may be "", where nothing compares.
result() {
    awk -v name="$1" -v value="$2" -v unit="$3" -v floor="$4" -v words="$5" 'BEGIN {
        printf "{\"name\": \"%s\", \"value\": %.4f, \"unit\": \"%s\", ", name, value, unit
        if (floor == "" || floor == 0) printf "\"floor\": null, \"ratio\": null, "
        else printf "\"floor\": %.4f, \"ratio\": %.4f, ", floor, value / floor
        printf "\"floor_of\": \"%s\"}\n", words
    }' >>"$results"
    note "$1: $2 $3${4:+, beside $4}"
}

# write_report NOTES
write_report() {
    printf '{"machine": "lab host: 1 CPU, emulated (TCG), Linux %s", "commit": "", "notes": ["%s"],\n"results": [\n' \
        "$LAB_KERNEL" "$1"
    sed '$!s/$/,/' "$results"
    printf ']}\n'
} >/out/report.json

# median: of the numbers that come, one a line.
median() {
    sort -g | awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int((NR + 2) / 2)]) / 2 }'
}
