# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Tables: in the terminal as they come, and docs/performance.md."""
import os
import shlex
import subprocess

from compare import measure

MIB = 1 << 20
HEAD = ("", "memory", "speed", "slowdown", "p50", "p99", "p99.9", "wall", "CPU program",
        "CPU vswap", "faults", "written", "peak", "above", "ratio", "meta", "free")
NARROW = HEAD[:6]       # a terminal has room for

INTRO = """\
# Performance

Written by `{command}`; nothing here is by hand. All figures, of every run: `{json}`.

{machine}

Every workload ran some rounds, each under all of what the machine has in turns: run by run, not one after
all of the other. Figures are medians, with the least and the most in brackets. A ratio is the median of the
ratios of each round. One round says little.

*Equal memory*: the kernel has a limit of a memory cgroup, and on top what zram or zswap took at their
peak, for which the group is not charged (of zswap under cgroup v2 it is). vswap has `--ram` of that sum as it
was in the same round (1.6 times the limit where that failed), and all that vswap needs counts: with the pool
alone that of the smaller zram, with pool and disk zswap's, then the swap file's, for which it is just the limit;
with the disk alone that too.
"""

COLUMNS = """\
*memory*: that sum. *speed*: {speed}. *slowdown*: to the same without a limit. *p50, p99, p99.9* of an
access as the program sees it, those that do not fault among them. *wall*: of the whole process, making its
data included. *CPU*: user and system, of the program and of the vswap beside it; the kernel's own threads
are nobody's. *faults*: major faults, or what came back from anywhere under vswap. *written*: to the disk. *peak*:
of the group, which the kernel keeps at its limit, with no store that it is not charged for, or of all, by vswap's
own count; *above* the budget. *ratio*: bytes of pages kept
compressed in memory to all that the store takes for them, its free room included, when there was most of
them. *meta*: what vswap's tables and clusters, and those of its tiers, for all of their size, take in memory
for each page that is swapped out, when there was most of those; the headers in its pool are in *ratio*. *free*:
to unmap it all.
"""


def first_line(*argv):
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=False)
    except FileNotFoundError:
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()


def field(path, name):
    try:
        with open(path) as f:
            return next((line.split(":", 1)[1].strip() for line in f if line.startswith(name)), "")
    except OSError:
        return ""


def version(tree, vswap):
    """Of our source tree, else of the command."""
    if tree:
        return "this tree: " + first_line("git", "-C", tree, "-c", f"safe.directory={tree}",
                                          "describe", "--always", "--dirty")
    return first_line(vswap, "--version")


def machine(tree, vswap, directory):
    """What the figures are of."""
    uname = os.uname()
    return {
        "processor": field("/proc/cpuinfo", "model name"),
        "processors": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in field("/proc/cpuinfo", "flags").split(),
        "memory_bytes": int(field("/proc/meminfo", "MemTotal").split()[0]) << 10,
        "kernel": f"{uname.sysname} {uname.release} {uname.machine}",
        "huge_pages": huge_pages(),
        "file_system": first_line("stat", "-f", "-c", "%T", directory),
        "disk": disk(directory),
        "programs": [line for line in (first_line("sort", "--version"),
                                       first_line("python3", "--version"),
                                       first_line("redis-server", "--version"),
                                       first_line("gcc", "--version")) if line],
        "version": version(tree, vswap),
    }


def huge_pages():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as f:
            return f.read().partition("[")[2].partition("]")[0]
    except OSError:
        return "not in the kernel"


def disk(directory):
    number = os.stat(directory).st_dev
    try:
        name = os.path.basename(os.path.realpath(
            f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"))
        return name if os.path.exists(f"/sys/class/block/{name}") else "of no block device"
    except OSError:
        return "of no block device"


def digits(number):
    """Three of them that matter."""
    if number == 0:
        return "0"
    if abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def count(number):
    for unit in ("", "k", "M"):
        if abs(number) < 10000:
            break
        number /= 1000
    return digits(number) + (f" {unit}" if unit else "")


def duration(ns):
    for unit in ("ns", "us", "ms"):
        if ns < 1000:
            return f"{digits(ns)} {unit}"
        ns /= 1000
    return f"{digits(ns)} s"


def mib(number):
    return f"{number / MIB:.0f} MiB"


def size(number):
    return f"{digits(number)} B"


def seconds(number):
    return f"{number:.2f} s"


def middle(result, backend, row, key, form):
    """Its median, or nothing."""
    numbers = measure.values(result, backend, row, key)
    return form(measure.spread(numbers)[0]) if numbers else ""


def around(numbers, form):
    if len(numbers) < 2:
        return form(numbers[0]) if numbers else ""
    return "{} ({} to {})".format(*map(form, measure.spread(numbers)))


def reasons(why):
    """Short enough for a table; all of it is in the JSON."""
    text = ", ".join(why)
    return text if len(text) <= 60 else text[:57] + "..."


def line(found, result, row, backend):
    failed, why = measure.why_failed(result, backend)
    cells = [found["backends"][backend], middle(result, backend, row, "memory_bytes", mib)]
    if failed == len(result["rounds"]):
        return cells + [f"FAILED: {reasons(why)}"] + [""] * (len(HEAD) - 3)
    speed = around(measure.values(result, backend, row, "speed"), count)
    if failed:
        speed += f"; {failed} of {len(result['rounds'])} FAILED: {reasons(why)}"
    slow = [1 / n for n in measure.ratios(result, row, backend, ["none"])]

    def cell(key, form):
        return middle(result, backend, row, key, form)

    above = cell("overshoot_bytes", mib)
    weighed = result.get("weighed", {}).get(backend, {})
    if "failed" in weighed:
        above += f", PSS FAILED: {reasons([weighed['failed']])}"
    elif weighed:
        above += f", PSS {mib(weighed['overshoot_bytes'])}"
    return cells + [speed, around(slow, digits), cell("p50_ns", duration),
                    cell("p99_ns", duration), cell("p999_ns", duration), cell("wall_s", seconds),
                    cell("cpu_program_s", seconds), cell("cpu_vswap_s", seconds),
                    cell("faults", count), cell("written_bytes", mib),
                    cell("peak_bytes", mib), above,
                    cell("pool_ratio", digits), cell("meta_bytes_per_page", size),
                    cell("free_ns", duration)]


def table(found, result, row, head=HEAD):
    """Head and lines, without columns nobody has a figure in."""
    names = [b for b in found["backends"] if any(b in runs for runs in result["rounds"])]
    lines = [line(found, result, row, backend) for backend in names]
    keep = [i for i in range(len(head)) if i == 0 or any(cells[i] for cells in lines)]
    return [[HEAD[i] for i in keep]] + [[cells[i] for i in keep] for cells in lines]


def against(found, result, row):
    """(ours, theirs, ratios of speed) for each pair that got the same memory."""
    pairs = []
    for ours, theirs in found["equals"].items():
        there = [t for t in theirs if t in found["backends"]]
        numbers = measure.ratios(result, row, ours, there) if there else []
        if numbers:
            pairs.append((found["backends"][ours],
                          " or ".join(found["backends"][t] for t in there), numbers))
    return pairs


def plain(lines, left=(0,)):
    """Columns for a terminal, those of numbers to the right."""
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) if i in left else c.rjust(w)
                               for i, (c, w) in enumerate(zip(cells, widths))).rstrip()
                     for cells in lines)


def markdown(lines):
    rows = [lines[0], ["---"] + ["---:"] * (len(lines[0]) - 1), *lines[1:]]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
                     for cells in rows)


def limit(result):
    """The kernel's, what was tried before, and how often it ran then."""
    rounds = len(result["rounds"])
    text = f"{rounds} round{'s' if rounds > 1 else ''}; limit {mib(result['limit_bytes'])}"
    for t in result["tried"]:
        text += f"; at {mib(t['limit_bytes'])} under {t['backend']}: {t['failed']}"
    return text


def block(found, result):
    """A workload, for the terminal."""
    text = []
    for row in measure.rows_of(result) or [result["title"]]:
        text.append(f"\n== {row} ({result['unit']}), {limit(result)}")
        text.append(plain(table(found, result, row, NARROW)))
        for ours, theirs, numbers in against(found, result, row):
            text.append(f"   {ours}: {around(numbers, digits)} times the speed of {theirs}")
    for backend, run in result.get("weighed", {}).items():
        if "failed" in run:
            text.append(f"   {found['backends'][backend]}: peak memory: FAILED: {run['failed']}")
    return "\n".join(text)


def figure(row):
    if row["value"] is None:
        return "-"
    text = digits(row["value"]) + (f" {row['unit']}" if row.get("unit") else "")
    if row.get("low") != row.get("high"):
        text += f" ({digits(row['low'])} to {digits(row['high'])})"
    return text


def target_lines(rows):
    return [["what", "target", "figure", "verdict"]] + \
        [[r["what"], r["target"], figure(r), r["verdict"]] for r in rows]


def tally(rows):
    first = [r["verdict"].split(":")[0] for r in rows]
    return f"{first.count('reached')} reached, {first.count('MISSED')} missed, " \
        f"{first.count('not measured')} not measured"


def target_table(rows):
    return f"\n== targets\n{plain(target_lines(rows), (0, 3))}\n{tally(rows)}"


def machine_text(about):
    virtual = "virtual " if about["virtual"] else ""
    return (f"{about['processors']} {virtual}processors {about['processor']}, "
            f"{about['memory_bytes'] / (1 << 30):.0f} GiB, {about['kernel']}, huge pages: "
            f"{about['huge_pages']}; disk {about['disk']}, {about['file_system']}. "
            f"{'; '.join(about['programs'])}; {about['version']}.")


def ratio_lines(found, form):
    """Ours beside theirs; form makes a cell of ratios."""
    lines = [["", *(f"{found['backends'][o]}" for o in found["equals"])]]
    for result in found["results"]:
        for row in measure.rows_of(result):
            pairs = {ours: (theirs, n) for ours, theirs, n in against(found, result, row)}
            if pairs:
                lines.append([row] + [form(pairs[t][1]) if t in pairs else "" for t in
                                      (found["backends"][o] for o in found["equals"])])
    beside = [""]
    for theirs in found["equals"].values():
        names = [found["backends"][t] for t in theirs if t in found["backends"]]
        beside.append("to the better of " + ", ".join(names) if len(names) > 1 else
                      "to " + (names + ["nothing"])[0])
    return [lines[0], beside, *lines[1:]]


KINDS = (("pattern", "Patterns", "Each on 256 MiB, half of which the limit has room for, of data "
          "that compresses 2:1. A pattern has as many accesses for all: sequential ones and phase "
          "change twice as many as there are pages, the strided one as many, zipf 150000, the others "
          "100000. Half of the pages have not been written out when it begins, and most of that is "
          "done meanwhile."),
         ("sweep", "Written and freed", "The region is written from one end to the other, in random "
          "order, or four times, then unmapped."),
         ("program", "Programs", "The limit is the first of a half, 2/3, 3/4 and 7/8 of what each "
          "takes without one at which it ends well under zram. Of redis only the server is "
          "limited; of the compilers two run at once, in 3/4, 7/8 or all of what one takes."),
         ("residency", "With more and less memory", "The same pattern with a limit of other parts "
          "of what is touched."),
         ("data", "Data that compresses differently", "The same pattern, half of it resident."),
         ("fits", "Memory enough", "Twice of what is touched, or an eighth more and 16 MiB."))


def summary(found):
    """For the terminal, at the end."""
    lines = ratio_lines(found, lambda numbers: digits(measure.spread(numbers)[0]))
    text = [f"left out: {name}: {why}" for name, why in found["skipped"].items()]
    if len(lines) > 2:
        text.append(f"\n== times the speed of, with the same memory\n{plain(lines)}")
    return "\n".join(text)


def document(found, drawn, json, pictures, tried):
    """The report, which names the file of all figures and the directory of the pictures."""
    command = shlex.join(found["command"])
    text = ["<!-- SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause -->",
            INTRO.format(command=command, json=json, machine=machine_text(found["machine"]))]
    if found["missing"]:
        text.append("Left out, for the machine does not have it, or not for us (without zram or zswap "
                    "to equal,\nvswap's pool got 1.6 times the limit):\n")
        text += [f"- {name}: {why}" for name, why in found["missing"].items()]
        text.append("")
    if found["skipped"]:
        text.append("Not run:\n")
        text += [f"- {name}: {why}" for name, why in found["skipped"].items()]
        text.append("")
    if "targets" in found:
        text += ["## Targets\n", markdown(target_lines(found["targets"])),
                 f"\n{tally(found['targets'])}.\n"]
    text += ["## Beside the kernel: speed, in turns and at equal memory\n",
             markdown(ratio_lines(found, lambda numbers: around(numbers, digits))), ""]
    for title, name in drawn:
        text.append(f"![{title}]({pictures}/{name})\n")
    if tried:
        text.append("## What was tried\n\n" + tried.partition("\n")[2])
    text += ["## All of it\n",
             COLUMNS.format(speed="pages, requests or runs a second, as it says")]
    for kind, title, about in KINDS:
        results = [r for r in found["results"] if r["kind"] == kind]
        if results:
            text.append(f"### {title}\n\n{about}\n")
        for result in results:
            for row in measure.rows_of(result) or [result["title"]]:
                text.append(f"**{row}**, {result['unit']}; {limit(result)}\n")
                text.append(markdown(table(found, result, row)) + "\n")
    text.append(f"It took {found['minutes']} minutes.")
    return "\n".join(text) + "\n"
