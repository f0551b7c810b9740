#!/usr/bin/env python3
"""Turns what the demo left behind into a table and a picture.

    Tests/Lab/report.py [LAB_OUTPUT [DEMO_OUTPUT]]

Reads LAB_OUTPUT/report.json and timeline.csv (.build/lab/demo), prints the table, and
leaves report.json and timeline.svg in DEMO_OUTPUT (.build/demo).

Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
"""

import csv
import json
import shutil
import sys
from pathlib import Path

MIB = 1 << 20
MARGIN = 32 * MIB  # what the claim allows beside the hot bytes and a tenth of them

# The picture, in its own units.
WIDTH, LEFT, RIGHT = 860, 64, 20
TOP, MEMORY_HEIGHT, GAP, ACTIVITY_HEIGHT, BOTTOM = 64, 240, 54, 80, 48
WINDOW = 2  # samples on either side that an activity bar averages over
HEIGHT = TOP + MEMORY_HEIGHT + GAP + ACTIVITY_HEIGHT + BOTTOM

STYLE = """
  svg { color-scheme: light dark; }
  .ground { fill: #ffffff; } .ink { fill: #24292f; } .faint { fill: #57606a; }
  .grid { stroke: #d0d7de; } .band { fill: #eaeef2; }
  .resident { stroke: #0969da; fill: none; stroke-width: 2.2; }
  .under { fill: #0969da; fill-opacity: .12; }
  .process { stroke: #9a6700; fill: none; stroke-width: 1.4; stroke-dasharray: 5 3; }
  .hot { stroke: #cf222e; stroke-dasharray: 2 3; } .activity { fill: #1a7f37; }
  text { font: 12px system-ui, sans-serif; } .title { font-size: 15px; font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } .ink { fill: #e6edf3; } .faint { fill: #8b949e; }
    .grid { stroke: #30363d; } .band { fill: #161b22; }
    .resident { stroke: #58a6ff; } .under { fill: #58a6ff; } .process { stroke: #d29922; }
    .hot { stroke: #ff7b72; } .activity { fill: #3fb950; }
  }
"""


def read_timeline(path):
    """The samples, times counted from the first one."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    samples = [
        {name: value if name == "phase" else float(value) for name, value in row.items()}
        for row in rows
        if None not in row.values()  # the last line may be cut short
    ]
    if len(samples) < 2:
        sys.exit(f"report: {path} has fewer than two samples")
    return samples


def table(report):
    """The rows that `make demo` prints."""
    ceiling = report["hot_bytes"] * 1.1 + MARGIN
    holds = "holds" if report["rss_evicted"] <= ceiling else "FAILS"
    size = lambda name: f"{report[name] / MIB:8.1f} MiB"
    count = lambda name: f"{report[name]:8,}"
    return [
        ("kernel", report["kernel"]),
        ("QEMU", f"{report['qemu']}, {report['accel']}, emulated machine"),
        ("tracker, guard", f"{report['tracker']}, {report['guard']}"),
        None,
        ("guest RAM", size("guest_bytes")),
        ("  filled by the guest", size("filled_bytes")),
        ("  of it kept in use", size("hot_bytes")),
        ("resident before", size("rss_before")),
        ("resident with the cold part evicted", size("rss_evicted")),
        (f"  claim: at most {ceiling / MIB:.1f} MiB", f"   {holds}"),
        ("resident after reading all back", size("rss_after")),
        ("QEMU process before", size("process_rss_before")),
        ("QEMU process, evicted (store included)", size("process_rss_evicted")),
        None,
        ("pages evicted", count("evictions")),
        ("  touched on the way out, put back", count("rescues")),
        ("faults served", count("faults")),
        ("  half of them within", f"{report['fault_us_p50']:8.1f} µs (emulated CPU)"),
        ("  99 of 100 within", f"{report['fault_us_p99']:8.1f} µs (emulated CPU)"),
        None,
        ("bytes read back and compared", f"{report['bytes_verified']:,}"),
        ("mismatches", f"{report['mismatches']}"),
    ]


def print_table(rows):
    width = max(len(row[0]) for row in rows if row)
    for row in rows:
        print(f"  {row[0]:<{width}}  {row[1]}" if row else "")


def tick_step(top):
    """A round step that gives four to eight ticks."""
    step = 1
    for factor in (2, 2.5, 2) * 12:
        if top / step <= 6:
            return step
        step *= factor
    return step


def phases_of(samples):
    """[(phase, begin, end)], each ending where the next begins."""
    runs = []
    for sample in samples:
        if not runs or runs[-1][0] != sample["phase"]:
            if runs:
                runs[-1][2] = sample["seconds"]
            runs.append([sample["phase"], sample["seconds"], sample["seconds"]])
        runs[-1][2] = sample["seconds"]
    return runs


class Picture:
    """One SVG: two panels over the same time axis."""

    def __init__(self, samples, report):
        self.samples, self.report = samples, report
        self.begin, self.end = samples[0]["seconds"], samples[-1]["seconds"]
        most = max(report["guest_bytes"], *(s["process_rss"] for s in samples))
        self.top_mib = most / MIB * 1.04
        self.lines = []

    def x(self, seconds):
        return LEFT + (seconds - self.begin) / (self.end - self.begin) * (WIDTH - LEFT - RIGHT)

    def y(self, size):
        return TOP + MEMORY_HEIGHT * (1 - size / MIB / self.top_mib)

    def add(self, line):
        self.lines.append(line)

    def text(self, x, y, words, kind="faint", anchor="start"):
        self.add(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>')

    def horizontal(self, y, kind="grid"):
        self.add(f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')

    def path(self, kind, name):
        points = " L".join(f"{self.x(s['seconds']):.1f} {self.y(s[name]):.1f}" for s in self.samples)
        self.add(f'<path class="{kind}" d="M{points}"/>')
        return points

    def draw_phases(self):
        floor = TOP + MEMORY_HEIGHT + GAP + ACTIVITY_HEIGHT
        for index, (phase, begin, end) in enumerate(phases_of(self.samples)):
            left, width = self.x(begin), self.x(end) - self.x(begin)
            if index % 2:
                self.add(f'<rect class="band" x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{floor - TOP}"/>')
            if width > 7 * len(phase):
                self.text(left + width / 2, TOP + MEMORY_HEIGHT + 18, phase, anchor="middle")

    def draw_memory(self):
        step = tick_step(self.top_mib)
        for tick in range(int(self.top_mib / step) + 1):
            y = self.y(tick * step * MIB)
            self.horizontal(y)
            self.text(LEFT - 8, y + 4, f"{tick * step:.0f}", anchor="end")
        self.text(LEFT, TOP - 10, "MiB resident, by the kernel's account (smaps)")
        points = self.path("process", "process_rss")
        points = self.path("resident", "ram_rss")
        floor = self.y(0)
        self.add(f'<path class="under" d="M{self.x(self.begin):.1f} {floor} L{points} L{self.x(self.end):.1f} {floor} Z"/>')
        hot = self.y(self.report["hot_bytes"])
        self.horizontal(hot, "hot")
        self.text(WIDTH - RIGHT - 4, hot - 5, "what the guest keeps in use", anchor="end")

    def draw_legend(self):
        y = TOP - 14
        for x, kind, words in ((470, "resident", "guest RAM"), (590, "process", "whole QEMU, store included")):
            self.add(f'<line class="{kind}" x1="{x}" x2="{x + 28}" y1="{y}" y2="{y}"/>')
            self.text(x + 36, y + 4, words)

    def rate(self, index):
        """Rounds per second around a sample; the guest reports only twice a second."""
        before = self.samples[max(0, index - WINDOW)]
        after = self.samples[min(len(self.samples) - 1, index + 1 + WINDOW)]
        seconds = max(0.01, after["seconds"] - before["seconds"])
        return max(0, after["rounds"] - before["rounds"]) / seconds

    def draw_activity(self):
        """Rounds over the hot memory per second, as the guest itself counts them."""
        floor = TOP + MEMORY_HEIGHT + GAP + ACTIVITY_HEIGHT
        pairs = list(zip(self.samples, self.samples[1:]))
        rates = [self.rate(index) for index in range(len(pairs))]
        most = max(rates) or 1
        for (a, b), rate in zip(pairs, rates):
            left, height = self.x(a["seconds"]), rate / most * ACTIVITY_HEIGHT
            width = max(0.8, self.x(b["seconds"]) - left - 0.6)
            self.add(f'<rect class="activity" x="{left:.1f}" y="{floor - height:.1f}" width="{width:.1f}" height="{height:.1f}"/>')
        self.horizontal(floor)
        top = floor - ACTIVITY_HEIGHT
        self.text(LEFT - 8, top + 4, f"{most:.0f}", anchor="end")
        self.text(LEFT - 8, floor + 4, "0", anchor="end")
        self.text(LEFT, top - 8, "rounds per second over the memory in use, counted by the guest")

    def draw_time(self):
        y = HEIGHT - BOTTOM + 18
        step = tick_step(self.end - self.begin)
        for tick in range(int((self.end - self.begin) / step) + 1):
            self.text(self.x(self.begin + tick * step), y, f"{tick * step:.0f}", anchor="middle")
        self.text(WIDTH / 2, y + 20, "seconds", anchor="middle")

    def render(self):
        guest = self.report["guest_bytes"] / MIB
        evicted = self.report["rss_evicted"] / MIB
        self.add(f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>')
        self.draw_phases()
        self.text(LEFT, 26, f"A guest of {guest:.0f} MiB, paged down to {evicted:.0f} MiB and back", "ink title")
        self.draw_legend()
        self.draw_memory()
        self.draw_activity()
        self.draw_time()
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
                "<title>Resident guest memory over time, and what the guest does meanwhile</title>",
                f"<style>{STYLE}</style>",
                *self.lines,
                "</svg>\n",
            ]
        )


def main():
    root = Path(__file__).resolve().parents[2]
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else root / ".build/lab/demo"
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else root / ".build/demo"
    for name in ("report.json", "timeline.csv"):
        if not (source / name).exists():
            sys.exit(f"report: no {source / name}: run the demo first (Tests/Lab/run -v demo)")
    report = json.loads((source / "report.json").read_text(encoding="utf-8"))
    samples = read_timeline(source / "timeline.csv")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "report.json", target / "report.json")
    (target / "timeline.svg").write_text(Picture(samples, report).render(), encoding="utf-8")
    print_table(table(report))
    picture = (target / "timeline.svg").resolve()
    shown = picture.relative_to(root) if picture.is_relative_to(root) else picture
    print(f"\n  picture: {shown}")


if __name__ == "__main__":
    main()
