# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What is to be reached, and what was.

Every row has its figure and a verdict: reached, MISSED, or not measured and why.  Where
the kernel has more than one zram, each round is compared with the better of them.
"""
from compare import backends, measure, workloads
from compare.swap import ZRAM

MIB = 1 << 20


def row(what, target, value, reached, unit="", low=None, high=None):
    return {"what": what, "target": target, "value": value, "low": low, "high": high,
            "unit": unit, "verdict": "reached" if reached else "MISSED"}


def failed(result, ours, theirs, told):
    """Speed is nothing where a program did not end well under vswap, and one of theirs did."""
    why = [runs[ours]["failed"] for runs in result["rounds"] if "failed" in runs.get(ours, {}) and
           any(t in runs and "failed" not in runs[t] for t in theirs)]
    if why:
        told["verdict"] = f"MISSED: {len(why)} of {len(result['rounds'])} failed: " \
            f"{', '.join(sorted(set(why)))}"
    return told


def not_measured(what, target, why):
    return {"what": what, "target": target, "value": None,
            "verdict": f"not measured: {why}"}


def result_of(found, name):
    return next((r for r in found["results"] if r["name"] == name), None)


def why_not(found, name, ours, theirs, told):
    """Why there is no figure of that."""
    result = result_of(found, name)
    if not result:
        return found["skipped"].get(name, "not asked for")
    for names in ([ours], theirs):
        if not any(name in found["backends"] for name in names):
            return "; ".join(f"{name}: {found['missing'].get(name, 'not there')}"
                             for name in names)
    for backend in (ours, *theirs):
        count, why = measure.why_failed(result, backend)
        if count and count == len(result["rounds"]):
            return f"{found['backends'][backend]}: {', '.join(why)}"
    return f"no round in which both ended well and told {told}"


def compared(found, what, name, ours, theirs, least=None, most=None, key="speed", title=None):
    """A ratio of ours to the best of theirs, as median of the rounds."""
    target = f">= {least}" if least else f"<= {most}"
    result = result_of(found, name)
    best = max if least else min
    numbers = measure.ratios(result, title or result["title"], ours, theirs, key, best) \
        if result else []
    if numbers:
        middle, low, high = measure.spread(numbers)
        reached = middle >= least if least else middle <= most
        told = row(what, target, middle, reached, "times", low, high)
    else:
        told = not_measured(what, target, why_not(found, name, ours, theirs, key))
    return failed(result, ours, theirs, told) if result else told


def patterns(found):
    rows = []
    for name, least in (("seq", 3.0), ("seqw", 1.5), ("uniform", 1.2), ("rw", 1.2), ("zipf", 1.0)):
        title = workloads.PATTERNS[name][0]
        rows.append(compared(found, f"{title}, pool: speed against zram", name, "vswap-pool",
                             ZRAM, least=least))
    rows.append(compared(found, "libvswap regions in SIGBUS mode, uniform read: against zram",
                         "uniform", "region", ZRAM, least=1.5))
    rows.append(compared(found, "uniform read, pool: p99 of an access, to zram's", "uniform",
                         "vswap-pool", ZRAM, most=0.1, key="p99_ns"))
    names = [(name, title) for name, (title, _) in workloads.PATTERNS.items()]
    names.append(("2thr", "two threads, uniform"))
    for name, title in names:
        rows.append(compared(found, f"{title}, pool + disk: speed against the swap file", name,
                             "vswap-both-file", ["file"], least=1.5))
    for name, title in names:
        rows.append(compared(found, f"{title}, pool + disk: speed against zswap", name,
                             "vswap-both", ["zswap"], least=1.0))
    return rows


def programs(found):
    rows = []
    for name, title in (("sort", "sort"), ("python3", "python3"), ("redis", "redis"),
                        ("compile", "compilers")):
        rows.append(compared(found, f"{title}, pool: wall time, to zram's", name, "vswap-pool",
                             ZRAM, most=1.0, key="wall_s"))
    for title in ("redis GET", "redis SET"):
        rows.append(compared(found, f"{title}, pool: speed against zram", "redis", "vswap-pool",
                             ZRAM, least=1.0, title=title))
    return rows


CORE = (
    ("metadata, swapped page in the pool", "metadata a page in the pool", "<=", 18.5, "bytes"),
    ("metadata, swapped page on a tier, compressed", "metadata a page on a tier, compressed",
     "<=", 8.5, "bytes"),
    ("metadata, swapped page on a tier, raw", "metadata a page on a tier, raw", "<=", 8.5,
     "bytes"),
    ("metadata, swapped page of one repeated word", "metadata a page of one repeated word", "<=",
     8.5, "bytes"),
    ("an empty space of any size, counted", "empty space: counted", "<", 1024, "KiB"),
    ("an empty space of any size, resident", "empty space: resident memory grew by", "<", 1024,
     "KiB"),
    ("slot allocate + free, one core", "slots: one by one, freed one by one, 1 thread", ">=", 20,
     "M pairs/s"),
    ("slot allocate + free, two cores to one", "slots: one by one, freed one by one, 2 against 1",
     ">=", 1.8, "times"),
)


def core(found):
    told = found["others"].get("core", {"missing": "not asked for"})
    rows = []
    for what, name, relation, target, unit in CORE:
        text = f"{relation} {target}"
        value = next((r["value"] for r in told.get("results", ()) if r["name"] == name), None)
        if value is None:
            why = told.get("missing", "bench-core has no such row (are there two processors?)")
            rows.append(not_measured(what, text, why))
        else:
            reached = {"<": value < target, "<=": value <= target, ">=": value >= target}
            rows.append(row(what, text, value, reached[relation], unit))
    return rows


def others(found, name, whats):
    """Rows of a bench that writes a list, with targets and verdicts of its own."""
    told = found["others"].get(name, {"missing": "not asked for"})
    if isinstance(told, dict):
        return [not_measured(what, target, told["missing"]) for what, target in whats]
    return [row(r["name"], r["target"], r["value"], r["reached"]) for r in told]


def overshoot(found):
    """The worst of all runs, by what vswap says and by what a sampler has seen of it."""
    what, target = "peak of program + vswap above --ram, to 5 % and 16 MiB", "<= 1"
    worst, where, why = None, None, []
    for result in found["results"]:
        named = [item for runs in result["rounds"] for item in runs.items()]
        for backend, run in [*named, *result.get("weighed", {}).items()]:
            # A run that broke off had not come to its peak.
            if "failed" in run and backend.startswith("vswap-"):
                why.append(f"{result['title']}: {run['failed']}")
            if "failed" in run or run.get("overshoot_bytes") is None:
                continue
            part = run["overshoot_bytes"] / backends.allowed(run["memory_bytes"])
            if worst is None or part > worst:
                worst, where = part, f"{result['title']}, {run['overshoot_bytes'] / MIB:.0f} MiB" \
                    f" above {run['memory_bytes'] / MIB:.0f}"
    if worst is None and not why:
        return not_measured(what, target, "no run under vswap")
    if where:
        what += f" (worst: {where})"
    told = row(what, target, worst, worst is not None and worst <= 1, "times")
    if why:
        told["verdict"] = f"MISSED: failed: {', '.join(sorted(set(why)))}"
    return told


def rows(found):
    return [
        *(compared(found, f"{title}: wall time, to that without vswap", name, "vswap-both-file",
                   ["none"], most=1.02, key="wall_s")
          for name, title in (("fits", "program fits"), ("fits-just", "program just fits"))),
        *patterns(found), *programs(found), *core(found),
        *others(found, "live", [
            ("tier rm: speed against fio's sequential read, ratio", ">= 0.7"),
            ("tiers and memory changed under a program: its longest pause, ms", "<= 100")]),
        overshoot(found),
        *others(found, "fork", [
            ("fork with 1 GiB swapped out, ratio to resident", "<= 2"),
            ("pages read back for a fork", "<= 8, its stack and libc's")]),
    ]
