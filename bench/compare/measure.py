# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Workloads under backends, run by run in turns.

A result is {"name", "title", "kind", "limit_bytes", "rounds": [{backend: run}]}; a run has
what the program told in "rows", or says why it "failed".
"""
import contextlib
import os
import signal
import statistics
import subprocess

from compare.job import BROKEN, Failed
from compare.machine import read, said, uninterrupted
from compare.swap import ZRAM


def once(work, backend, limit, before, seconds=120):
    job, run, output = None, {}, b""
    work.start()
    try:
        backend.begin(limit, before)
        # Who started it and does not have it could not end it.
        with uninterrupted():
            job = backend.job(work.argv, work.env)
        job.limit(seconds)
        rows = work.read(job)
        run = job.wait()
        if not rows:
            raise Failed("it did not say how fast it was")
        run["rows"] = rows
        run.update(backend.finish(run))
    except BROKEN as e:
        # If the program ended, what asked it has only seen that it did.
        why = backend.why() or (job.ended() if job else None) or said(e)
        run = {"failed": why, "memory_bytes": backend.memory()}
    finally:
        if job:
            output = job.end()
        backend.end()
    if "failed" in run:
        run["output"] = output.decode(errors="replace")
    return run


def choose_limit(work, backends):
    """A part of what the program takes alone: the first at which it ends under zram.

    The kernel kills some programs that swap much with most of the swap still free, or they
    do hardly anything else, and then there is nothing to compare with.  Returns what was
    tried in vain.
    """
    alone = once(work, backends[0], 0, {})
    if "failed" in alone:
        raise Failed(f"without a limit: {alone['failed']}")
    tried = []
    for part in work.parts:
        work.limit = int(alone["max_rss_bytes"] * part) >> 20 << 20
        # Twice, for it does not do so each time.
        for backend in 2 * [b for b in backends if b.name in ZRAM]:
            run = once(work, backend, work.limit, {}, max(10, 5 * alone["wall_s"]))
            if "failed" in run:
                tried.append({"limit_bytes": work.limit, "backend": backend.title,
                              "failed": run["failed"]})
                break
        else:
            return tried
    return tried


def among(work, backends):
    """Those of the backends it is run under."""
    return [b for b in backends if b.runs(work) and (work.only is None or b.name in work.only)]


def cost(work, backends, rounds):
    """Seconds that compare() is reckoned to take."""
    return work.once_s + work.run_s * len(among(work, backends)) * rounds


def compare(work, backends, rounds, say):
    backends = among(work, backends)
    tried = []
    if work.limit is None:
        say(f"{work.title}: what it takes")
        tried = choose_limit(work, backends)
    result = {"name": work.name, "title": work.title, "kind": work.kind, "unit": work.unit,
              "beside": work.beside, "limit_bytes": work.limit, "tried": tried, "rounds": []}
    for number in range(rounds):
        result["rounds"].append({})
        for backend in backends:
            say(f"{work.title}: round {number + 1} of {rounds}, {backend.title}")
            result["rounds"][-1][backend.name] = once(work, backend, work.limit,
                                                      result["rounds"][-1])
    return result


def weigh(work, backend, result, pss):
    """Once more and not timed: the most memory all of its processes had, by what they share."""
    before = result["rounds"][-1]
    report = backend.stats + "-pss"
    backend.wrapper = [pss, "-o", report]
    try:
        run = once(work, backend, work.limit, before)
        if "failed" in run:
            return run
        peak = int(read(report).partition(" ")[0])
        return {"memory_bytes": backend.ram, "pss_peak_bytes": peak,
                "overshoot_bytes": max(0, peak - backend.ram)}
    except BROKEN as e:
        return {"failed": f"pss: {said(e)}"}
    finally:
        backend.wrapper = []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(report)


def rows_of(result):
    """Names of what it measured: most workloads one, redis two."""
    names = []
    for runs in result["rounds"]:
        for run in runs.values():
            names += [row["name"] for row in run.get("rows", ()) if row["name"] not in names]
    return names


def value(run, row, key):
    """A figure of a row, or of the run; None of one that failed."""
    if "failed" in run:
        return None
    for told in run.get("rows", ()):
        if told["name"] == row and key in told:
            return told[key]
    return run.get(key)


def values(result, backend, row, key):
    """Over all rounds that went well."""
    found = (value(runs.get(backend, {}), row, key) for runs in result["rounds"])
    return [v for v in found if v is not None]


def spread(numbers):
    """(median, least, most), or None."""
    return (statistics.median(numbers), min(numbers), max(numbers)) if numbers else None


def ratios(result, row, ours, theirs, key="speed", best=max):
    """Ours to the best of theirs, of each round in which ours and one of theirs ended well."""
    found = []
    for runs in result["rounds"]:
        our = value(runs.get(ours, {}), row, key)
        others = [v for v in (value(runs.get(t, {}), row, key) for t in theirs) if v is not None]
        if our is not None and others and best(others):
            found.append(our / best(others))
    return found


def why_failed(result, backend):
    """How many rounds did not go well, and why not."""
    why = [runs[backend]["failed"] for runs in result["rounds"]
           if "failed" in runs.get(backend, {})]
    return len(why), sorted(set(why))


def stop(proc):
    """It is asked first, so that it removes its files."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if proc.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(proc.pid, number)
                proc.wait(timeout=10)


@contextlib.contextmanager
def started(argv, **popen):
    """A program, in a process group of its own, that ends with what is done meanwhile.

    Not in a session of its own, which would have its own share of the processors.
    """
    proc = None
    try:
        # Who started it and does not have it could not end it.
        with uninterrupted():
            proc = subprocess.Popen(argv, preexec_fn=os.setpgrp, **popen)
        yield proc
    finally:
        if proc:
            stop(proc)


def other(argv, path, timeout):
    """The JSON of another bench, that is run for it."""
    with open(path + ".log", "w") as log, \
         started([*argv, "--json", path], stdout=log, stderr=log) as proc:
        try:
            status = proc.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failed("took too long") from None
    if status:
        raise Failed(f"status {status}")
