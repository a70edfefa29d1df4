#!/usr/bin/env python3
"""Draws the log.jsonl of runs as an SVG: one panel a field, one line a run.

    tools/curves/curves.py --out docs/loss-health.svg \
        --fields loss,proxy_acc,pos_sim,neg_sim,spread healthy=runs/a "lr 3=runs/b"
    tools/curves/curves.py --by epoch --fields knn_top1,uniformity --out a.svg --table a.md \
        MoCo=runs/moco-1,runs/moco-2,runs/moco-3 MoCHi=runs/mochi-1,runs/mochi-2,runs/mochi-3

Values are means over --smooth steps; a field with --by epoch comes from the
events "knn" and "geometry" instead of the steps. Of several runs behind one
label (other seeds) the line is the mean and the band the range; --table writes
mean and standard deviation as Markdown. Needs nothing but Python.
"""
import argparse
import glob
import html
import json
import math
import os
import statistics

WIDTH, HEIGHT, LEFT, TOP, GAP = 250, 150, 46, 24, 34
COLOURS = ["#1b6ca8", "#c8553d", "#4f8a3c", "#8e5ea2", "#b8860b", "#555555"]


def points(run, field, smooth, by):
    """The (x, y) of a field: by step, or by epoch of the evaluations."""
    out = []
    # A long run has segments, which come before the file.
    for name in sorted(glob.glob(os.path.join(glob.escape(run), "log.*.jsonl"))) + [os.path.join(run, "log.jsonl")]:
        with open(name) as log:
            lines = [json.loads(text) for text in log]
        for line in lines:
            if field in line and ("event" in line) == (by == "epoch"):
                out.append((line[by], line[field]))
    if by == "epoch":
        return out
    means = []
    for i in range(0, len(out), smooth):
        part = out[i:i + smooth]
        means.append((part[-1][0], sum(y for _, y in part) / len(part)))
    return means


def together(runs, field, smooth, by):
    """The (x, values of all runs) where all runs have one."""
    each = [dict(points(run, field, smooth, by)) for run in runs.split(",")]
    return [(x, [e[x] for e in each]) for x in sorted(each[0]) if all(x in e for e in each)]


def ticks(low, high, count=4):
    """Round values between low and high."""
    if high <= low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / count))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= count:
            step *= factor
            break
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def panel(x0, y0, field, lines, by):
    """One field as SVG, its upper left corner at (x0, y0)."""
    xs = [x for _, l in lines for x, _ in l]
    ys = [y for _, l in lines for _, values in l for y in values if math.isfinite(y)]
    if not ys:
        return []
    x_low, x_high, low, high = min(xs), max(xs), min(ys + [0] * (by == "step")), max(ys)
    if high == low:
        high = low + 1

    def at(x, y):
        return (x0 + (x - x_low) / max(x_high - x_low, 1e-9) * WIDTH,
                y0 + HEIGHT - (y - low) / (high - low) * HEIGHT)

    svg = [f'<text x="{x0}" y="{y0 - 8}" class="title">{html.escape(field)}</text>']
    for y in ticks(low, high):
        _, py = at(x_low, y)
        svg.append(f'<line x1="{x0}" y1="{py:.1f}" x2="{x0 + WIDTH}" y2="{py:.1f}" class="grid"/>'
                   f'<text x="{x0 - 5}" y="{py + 3:.1f}" class="y">{y:g}</text>')
    for x in ticks(x_low, x_high):
        px, _ = at(x, low)
        svg.append(f'<text x="{px:.1f}" y="{y0 + HEIGHT + 13}" class="x">{x:g}</text>')
    for colour, line in lines:
        def path(points):
            return " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(x, y) for x, y in points if math.isfinite(y)))

        if line and len(line[0][1]) > 1:
            border = [(x, max(v)) for x, v in line] + [(x, min(v)) for x, v in reversed(line)]
            svg.append(f'<polygon points="{path(border)}" fill="{colour}" opacity="0.13"/>')
        svg.append(f'<polyline points="{path([(x, statistics.mean(v)) for x, v in line])}" stroke="{colour}" class="run"/>')
    return svg


def table(fields, runs, smooth, by):
    """Every field as a Markdown table: a row an x, a column a label."""
    for field in fields:
        columns = [dict(together(run, field, smooth, by)) for _, run in runs]
        yield f"| {field}, {by} | " + " | ".join(label for label, _ in runs) + " |"
        yield "|---" * (1 + len(runs)) + "|"
        for x in sorted(set().union(*columns)):
            cells = []
            for column in columns:
                values = column.get(x, [])
                cell = f"{statistics.mean(values):.4f}" if values else ""
                cells.append(cell + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""))
            yield f"| {x:g} | " + " | ".join(cells) + " |"
        yield ""


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out", required=True)
    args.add_argument("--fields", default="loss,proxy_acc,pos_sim,neg_sim,spread")
    args.add_argument("--by", choices=["step", "epoch"], default="step")
    args.add_argument("--smooth", type=int, default=10)
    args.add_argument("--columns", type=int, default=3)
    args.add_argument("runs", nargs="+", metavar="LABEL=RUN[,RUN…]")
    args.add_argument("--table", metavar="FILE", help="the values as Markdown tables too")
    a = args.parse_args()
    runs = [r.partition("=")[::2] for r in a.runs]
    fields = a.fields.split(",")
    rows = math.ceil(len(fields) / a.columns)
    width = a.columns * (LEFT + WIDTH) + 20
    height = rows * (TOP + HEIGHT + GAP) + 24 + 16 * len(runs)
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
           "<style>text{font:11px sans-serif;fill:#333}.title{font-weight:bold}.y{text-anchor:end}.x{text-anchor:middle}"
           ".grid{stroke:#ddd}.run{fill:none;stroke-width:1.5}</style>",
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for i, field in enumerate(fields):
        lines = [(COLOURS[r % len(COLOURS)], together(run, field, a.smooth, a.by)) for r, (_, run) in enumerate(runs)]
        svg += panel(LEFT + i % a.columns * (LEFT + WIDTH), TOP + i // a.columns * (TOP + HEIGHT + GAP), field, lines, a.by)
    for r, (label, _) in enumerate(runs):
        y = height - 16 * (len(runs) - r)
        svg.append(f'<line x1="{LEFT}" y1="{y - 4}" x2="{LEFT + 24}" y2="{y - 4}" stroke="{COLOURS[r % len(COLOURS)]}" class="run"/>'
                   f'<text x="{LEFT + 32}" y="{y}">{html.escape(label)}</text>')
    svg.append("</svg>\n")
    with open(a.out, "w") as out:
        out.write("\n".join(svg))
    if a.table:
        with open(a.table, "w") as out:
            out.write("\n".join(table(fields, runs, a.smooth, a.by)))


if __name__ == "__main__":
    main()
