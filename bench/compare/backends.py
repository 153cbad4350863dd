# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What a program can be run under, each with begin(), run() and end().

Both sides get the same memory.  The kernel's get a limit and, on top, what zram or zswap
hold at their peak, for nobody is charged for that (but of zswap under cgroup v2, where the
group is).  vswap gets --ram of that sum, as it was in the same round.
"""
import contextlib
import json
import os
import socket

from compare import swap
from compare.job import Failed, Job
from compare.machine import Cgroup, Missing, PREFIX, read, said

PAGE = 4096


def allowed(ram):
    """Bytes that the peak may be above what was given."""
    return ram / 20 + (16 << 20)


class Backend:
    """No limit at all."""
    name = "none"
    title = "no limit"
    equals = ()         # names of those whose memory it gets, the least of them

    def runs(self, work):
        return True

    def begin(self, limit, before):
        """before: the runs of this round so far, by name of the backend."""

    def job(self, argv, env):
        return Job(argv, {**os.environ, **env})

    def finish(self, usage):
        """What is to be known of a run that went well, by what the system told of it."""
        return {"cpu_program_s": usage["cpu_s"], "cpu_vswap_s": 0.0,
                "faults": usage["major_faults"], "peak_bytes": usage["max_rss_bytes"]}

    def why(self):
        """The system's reason, if it was that which ended the run."""

    def memory(self):
        """Bytes the program and all that was kept of it could have."""

    def end(self):
        """After every run, also one that did not go well."""


class Kernel(Backend):
    """The kernel swaps, under a memory cgroup's limit."""

    def __init__(self, name, title, group, store):
        self.name, self.title = name, title
        self.group, self.swap = group, store
        self.limit = 0
        self.best = (0, 0)
        self.written = 0

    def begin(self, limit, before):
        self.limit = limit
        self.best = (0, 0)
        self.written = swap.pages_written()
        self.swap.on()
        self.group.begin(limit)

    def job(self, argv, env):
        return Job(argv, {**os.environ, **env}, enter=self.group.enter, sample=self.sample)

    def sample(self, _):
        pages, store = self.swap.store()
        # Not where it takes the most: that is while it is freed, by what is left of it.
        if pages > self.best[0]:
            self.best = (pages, store)

    def memory(self):
        charged = self.group.version == 2 and isinstance(self.swap, swap.Zswap)
        return self.limit + (0 if charged else self.swap.peak())

    def finish(self, usage):
        return {"cpu_program_s": usage["cpu_s"], "cpu_vswap_s": 0.0,
                "faults": usage["major_faults"], "peak_bytes": self.group.peak(),
                "store_bytes": self.swap.peak(), "memory_bytes": self.memory(),
                "written_bytes": (swap.pages_written() - self.written) * PAGE
                if self.swap.disk else 0,
                "pool_ratio": self.best[0] / self.best[1] if self.best[1] else None}

    def why(self):
        return "killed for want of memory" if self.group.kills() else None

    def end(self):
        try:
            self.group.end()
        finally:
            # Else what comes next would swap, too.
            self.swap.off()


def control_dir():
    """Where the sockets of running spaces are (docs/control.md)."""
    if os.geteuid() == 0:
        return "/run/vswap"
    if os.environ.get("XDG_RUNTIME_DIR", "").startswith("/"):
        return os.path.join(os.environ["XDG_RUNTIME_DIR"], "vswap")
    return f"/tmp/vswap-{os.geteuid()}"


def ask_stat(pid):
    """What a running vswap has counted, or None if it is not there (yet, or any more)."""
    with contextlib.suppress(OSError, ValueError, KeyError), socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1)
        s.connect(os.path.join(control_dir(), str(pid)))
        with s.makefile("rwb") as f:
            f.write(b'{"op":"stat"}\n')
            f.flush()
            return json.loads(f.readline())["stat"]
    return None


class Ours(Backend):
    """It gets the memory that the kernel's had in the same round."""
    ram = 0

    def begin(self, limit, before):
        # Where the kernel's is not there, or failed half way, which is not what the work
        # takes: about what zram takes of data that compresses 2:1.
        alone = limit if self.equals == ["file"] else limit * 8 // 5
        self.ram = min((before[name]["memory_bytes"] for name in self.equals
                        if "failed" not in before.get(name, {"failed": "not run"})), default=alone)

    def memory(self):
        return self.ram


class Region(Ours):
    """bench-touch on a region of libvswap, where the thread that faults gets the page itself."""
    name = "region"
    title = "libvswap, SIGBUS"
    equals = swap.ZRAM

    def __init__(self, program):
        self.program = program

    def runs(self, work):
        return work.name == "uniform"

    def job(self, argv, env):
        # The budget is for all the process has.
        return Job([self.program, "total-sigbus", str(self.ram), *argv[1:]],
                   {**os.environ, **env})

    def finish(self, usage):
        # Not "overshoot": the budget is bench-region's own, not that of vswap run.  With
        # more than that it is not beside others at equal memory.
        peak = usage["max_rss_bytes"]
        if peak > self.ram + allowed(self.ram):
            raise Failed(f"it took {peak >> 20} MiB, not {self.ram >> 20}")
        return {"cpu_program_s": usage["cpu_s"], "cpu_vswap_s": 0.0,
                "peak_bytes": peak, "memory_bytes": self.ram}


class Vswap(Ours):
    def __init__(self, name, title, vswap, directory, options, equals):
        self.name, self.title = name, title
        self.vswap, self.options, self.equals = vswap, options, equals
        self.directory = directory
        self.stats = os.path.join(directory, f"{PREFIX}{os.getpid()}-stats")
        self.wrapper = []
        self.ticks = 0
        self.best = self.meta = (0, 0)

    def begin(self, limit, before):
        super().begin(limit, before)
        self.ticks = 0
        self.best = self.meta = (0, 0)

    def command(self, argv):
        return [*self.wrapper, self.vswap, "run", "--ram", str(self.ram), "--stats", self.stats,
                *self.options, "--", *argv]

    def job(self, argv, env):
        return Job(self.command(argv), {**os.environ, "TMPDIR": self.directory, **env},
                   sample=self.sample)

    def sample(self, pid):
        # Less often than others are looked at: it takes a little of its time.
        self.ticks += 1
        stat = ask_stat(pid) if self.ticks % 10 == 0 else None
        if not stat:
            return
        if stat["pool_objects"] * PAGE > self.best[0]:
            self.best = (stat["pool_objects"] * PAGE, stat["pool_bytes"])
        # Of what is in the cache the page itself is in memory.
        pages = sum(stat["slots"][kind] for kind in ("fill", "pool", "tier"))
        if pages > self.meta[0]:
            self.meta = (pages, sum(stat[f"{what}_bytes"]
                                    for what in ("table", "cluster", "tier_meta")))

    def finish(self, usage):
        try:
            stats = json.loads(read(self.stats))
        except (OSError, ValueError):
            raise Failed(f"no statistics in {self.directory} (is the disk full?)") from None
        if stats["pages_lost"]:
            raise Failed(f"{stats['pages_lost']} pages lost")
        faults = stats["faults"]
        peak = stats["ram_bytes_peak"]
        return {"cpu_program_s": usage["cpu_children_s"], "cpu_vswap_s": usage["cpu_own_s"],
                "faults": sum(faults[kind] for kind in ("cache", "fill", "pool", "tier")),
                "peak_bytes": peak, "memory_bytes": self.ram,
                "overshoot_bytes": max(0, peak - self.ram),
                "service_p50_ns": stats["fault_latency_ns"]["p50"],
                "service_p99_ns": stats["fault_latency_ns"]["p99"],
                "service_p999_ns": stats["fault_latency_ns"]["p99_9"],
                "written_bytes": sum(t["bytes_written"] for t in stats["tiers"]),
                "read_bytes": sum(t["bytes_read"] for t in stats["tiers"]),
                "meta_bytes_per_page": self.meta[1] / self.meta[0] if self.meta[0] else None,
                "pool_ratio": self.best[0] / self.best[1] if self.best[1] else None}

    def end(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.stats)


def kernels(undo, directory, size):
    """(those the machine has, {name: why not} for the others)."""
    there, missing = [], {}
    titles = {"zram-lzo": "zram lzo-rle", "zram-lz4": "zram lz4", "zswap": "zswap",
              "file": "swap file"}
    try:
        if os.geteuid():
            raise Missing("needs root")
        if swap.swaps():
            raise Missing(f"there is swap already, {' '.join(swap.swaps())} (swapoff -a first)")
        group = Cgroup(undo)
        swap.zswap_off(undo)
    except (Missing, OSError) as e:
        return [], {name: said(e) for name in titles}
    file = None

    def have(name, make):
        try:
            there.append(Kernel(name, titles[name], group, make()))
        except (Missing, OSError) as e:
            missing[name] = said(e)
            return None
        return there[-1].swap

    have("zram-lzo", lambda: swap.Zram(undo, "lzo-rle", size))
    have("zram-lz4", lambda: swap.Zram(undo, "lz4", size))
    file = have("file", lambda: swap.File(undo, directory, size))
    if file:
        zswap = have("zswap", lambda: swap.Zswap(undo, file))
        if zswap:
            there[-1].title = f"zswap {zswap.compressor}"
    else:
        missing["zswap"] = f"no swap file: {missing['file']}"
    return there, missing


def vswaps(vswap, directory):
    """The ways vswap is run, and whose memory each gets."""
    return [
        Vswap("vswap-pool", "vswap, pool", vswap, directory, ["--no-tier"],
              swap.ZRAM),
        Vswap("vswap-both", "vswap, pool + disk", vswap, directory, [], ["zswap"]),
        Vswap("vswap-both-file", "vswap, pool + disk (file's RAM)", vswap, directory, [],
              ["file"]),
        Vswap("vswap-disk", "vswap, disk", vswap, directory, ["--compressor", "none"], ["file"]),
    ]
