# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Pictures of what was found, drawn by gnuplot."""
import collections
import os
import subprocess

from compare import measure, workloads

# Ours warm, the kernel's cold, so that they are told apart at once.
COLOURS = {"none": "#888888", "zram-lzo": "#9ecae1", "zram-lz4": "#3182bd", "zswap": "#31a354",
           "file": "#756bb1", "vswap-pool": "#d62728", "vswap-both": "#ff7f0e",
           "vswap-both-file": "#e7ba52", "vswap-disk": "#8c564b", "region": "#e377c2"}
HEAD = """set terminal svg size {size} font "sans-serif,13" background "white"
set output "{path}"
set encoding utf8
set grid ytics lc rgb "#dddddd"
set key below maxrows 3
set border 3
set tics nomirror
set title "{title}"
"""


class NoPlots(Exception):
    """gnuplot is not there, or does not understand."""


def gnuplot(script):
    try:
        done = subprocess.run(["gnuplot"], input=script, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False)
    except FileNotFoundError:
        raise NoPlots("there is no gnuplot (package gnuplot-nox)") from None
    if done.returncode:
        raise NoPlots((done.stderr.strip().splitlines() or ["gnuplot failed"])[-1])


def blocks(series):
    """Named data for gnuplot: {name: [[cell]]}."""
    return "".join(f"$d{i} << EOD\n" + "".join(" ".join(map(str, row)) + "\n" for row in rows) +
                   "EOD\n" for i, rows in enumerate(series.values()))


def head(path, title, size="900,480"):
    return HEAD.format(path=path, title=title, size=size)


def residency(found, path):
    series = collections.defaultdict(list)
    for percent in workloads.RESIDENCY:
        name = "uniform" if percent == 50 else f"uniform-{percent}"
        result = next((r for r in found["results"] if r["name"] == name), None)
        for backend in found["backends"] if result else ():
            slow = measure.spread([1 / n for n in measure.ratios(
                result, result["title"], backend, ["none"])])
            if slow and backend != "none":
                series[backend].append([percent, *slow])
    if not any(len(rows) > 1 for rows in series.values()):
        return None
    title = "Uniform reads: slowdown against memory"
    plot = ", ".join(
        f"$d{i} using 1:2:3:4 with yerrorlines lw 2 pt 7 ps 0.5 lc rgb \"{COLOURS[b]}\" "
        f"title \"{found['backends'][b]}\"" for i, b in enumerate(series))
    gnuplot(head(path, title) + blocks(series) + "set logscale y\n"
            "set xrange [105:5] reverse\nset xtics (100, 75, 50, 25, 12.5)\n"
            "set xlabel \"limit, % of what is touched\"\n"
            "set ylabel \"times slower than without a limit\"\n"
            f"plot {plot}\n")
    return title


def latency(found, path):
    result = next((r for r in found["results"] if r["name"] == "uniform"), None)
    series = {}
    for backend in found["backends"] if result else ():
        merged = collections.Counter()
        for hist in measure.values(result, backend, result["title"], "hist"):
            merged.update(dict(map(tuple, hist)))
        left = total = sum(merged.values())
        for ns in sorted(merged):
            series.setdefault(backend, []).append([ns / 1000, left / total])
            left -= merged[ns]
    if not series:
        return None
    title = "Uniform reads, half of it resident: how many accesses take longer"
    plot = ", ".join(f"$d{i} using 1:2 with steps lw 2 lc rgb \"{COLOURS[b]}\" "
                     f"title \"{found['backends'][b]}\"" for i, b in enumerate(series))
    gnuplot(head(path, title) + blocks(series) + "set logscale xy\nset format y \"10^{%L}\"\n"
            "set xlabel \"us\"\nset ylabel \"part of all accesses\"\nset yrange [1e-5:1]\n"
            f"plot {plot}\n")
    return title


def bars(found, path, title, rows, label, value):
    """Groups of bars: rows are (result, row name); value gives the height of one's bar."""
    backends = [b for b in found["backends"] if any(value(r, n, b) for r, n in rows)]
    if not backends:
        return None
    data = {0: [[f'"{n}"', *(value(r, n, b) or '"?"' for b in backends)] for r, n in rows]}
    plot = ", ".join(f"$d0 using {i + 2}{':xtic(1)' if i == 0 else ''} "
                     f"title \"{found['backends'][b]}\" lc rgb \"{COLOURS[b]}\""
                     for i, b in enumerate(backends))
    gnuplot(head(path, title, "1100,480") + blocks(data) + "set style data histogram\n"
            "set style histogram clustered gap 1.5\nset style fill solid border -1\n"
            "set datafile missing \"?\"\nset logscale y\nset xtics rotate by -20\n"
            f"set ylabel \"{label}\"\nplot {plot}\n")
    return title


def throughput(found, path):
    rows = [(r, r["title"]) for r in found["results"] if r["kind"] in ("pattern", "sweep")]

    def value(result, row, backend):
        numbers = measure.values(result, backend, row, "speed")
        return measure.spread(numbers)[0] / 1000 if numbers else None

    return bars(found, path, "Patterns, half resident: thousand pages a second", rows,
                "thousand pages/s", value)


def programs(found, path):
    rows = [(r, n) for r in found["results"] if r["kind"] == "program"
            for n in measure.rows_of(r)]

    def value(result, row, backend):
        numbers = measure.ratios(result, row, backend, ["none"])
        return 1 / measure.spread(numbers)[0] if numbers and backend != "none" else None

    return bars(found, path, "Programs in a part of their memory: slowdown", rows,
                "times slower than without a limit", value)


def draw(found, directory):
    """[(title, file name)] of those there are figures for."""
    drawn = []
    for name, plot in (("residency", residency), ("latency", latency),
                       ("throughput", throughput), ("programs", programs)):
        title = plot(found, os.path.join(directory, f"{name}.svg"))
        if title:
            drawn.append((title, f"{name}.svg"))
    return drawn
