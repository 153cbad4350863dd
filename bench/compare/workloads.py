# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What is run: patterns of page accesses, and real programs.

Each has argv, read(job), which sees the program through and returns what it told: a list
of rows with their name, speed (a second, more is better), and latencies if it has them;
and limit, the kernel's, in bytes.  Of a program that is a part of what it takes alone.
"""
import glob
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time

from compare.job import Failed, Job
from compare.machine import PREFIX, uninterrupted

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
SIZE = 256              # MiB that patterns touch
PAGES = SIZE * 256
DATA = {"random": 32, "2:1": 15, "4:1": 6, "zero": 0}
HEAP = "a heap's"       # python3's, of dict and strings
# The same number for all, not as many as each does in some time: a half of the pages is still
# dirty from being made, so what comes first is more work than what comes later.
PATTERNS = {            # pattern: title, pages touched
    "seq": ("sequential read", 2 * PAGES),
    "seqw": ("sequential write", 2 * PAGES),
    "stride": ("strided read", PAGES),
    "uniform": ("uniform read", 100000),
    "zipf": ("zipf 0.99 read", 150000),
    "rw": ("uniform, half writes", 100000),
    "phase": ("phase change", 2 * PAGES),           # two of the quarters, see touch.c
}
RESIDENCY = (100, 75, 50, 25, 12.5)     # % of the region the kernel's limit is; 50 for patterns
# As large as time allows: of little memory, what vswap takes itself and keeps free is much.
SORT_BYTES = 96 * MIB
DICT = (300000, 60000)                  # entries, lookups
REDIS = (120000, 40000)                 # keys of 1000 bytes, requests
SOURCES = "/usr/src/binutils/binutils-*.tar.xz"
# Of its files some of the largest: the compiler takes 80 to 100 MB and 1 to 2 s for each.
OBJECTS = ("i386-dis.o", "aarch64-dis-2.o")
CONFIGURE = """exec >/dev/null
cd "$0"
tar -xf "$1" --strip-components=1
mkdir build build/bfd build/opcodes
cd build/bfd
../../bfd/configure --disable-nls --disable-werror
make bfd.h
cd ../opcodes
../../opcodes/configure --disable-nls --disable-werror
"""


def told_by(job):
    """The JSON that a program prints, or None: how it failed is told by wait()."""
    text = job.proc.stdout.read()
    try:
        return json.loads(text)
    except ValueError:
        return None


def need(*tools):
    for name in tools:
        if not shutil.which(name):
            raise Failed(f"there is no {name} (install it)")


class Workload:
    kind = "pattern"
    weighed = True      # run once more for its peak memory
    beside = False      # no target is about it: fewer rounds where time is short
    only = None         # names of backends, if not all
    env = {}            # more of it
    limit = None        # bytes; None: the first of parts of what it takes that zram can do
    parts = (1 / 2, 2 / 3, 3 / 4, 7 / 8)
    unit = "pages/s"
    run_s = 1.8         # what a run is reckoned to take, on average over all backends
    once_s = 3.5        # and what is done once

    def prepare(self, undo):
        """Before its first run."""

    def start(self):
        """Before each."""


class Touch(Workload):
    """One run of bench-touch."""

    def __init__(self, touch, name, title, pattern, ops, data="2:1", threads=1, residency=50):
        self.name, self.title, self.pattern = name, title, pattern
        self.data, self.residency = data, residency
        # All of it is resident only if the program itself has room beside it.
        self.limit = int(SIZE * residency / 100 * MIB) + (16 * MIB if residency == 100 else 0)
        self.argv = [touch, pattern, str(SIZE), str(ops), str(DATA.get(data, data)), str(threads)]

    def read(self, job):
        told = told_by(job)
        if not told:
            return []
        told["speed"] = told.pop("ops_per_s")
        return [dict(told, name=self.title)]


class Fits(Touch):
    """Memory enough, by far or just so: what does it cost to be under vswap?"""
    kind = "fits"
    weighed = False
    only = ("none", "vswap-both-file")      # which gets the limit, no more
    run_s, once_s = 6.0, 0.0

    def __init__(self, touch, name, title, limit):
        super().__init__(touch, name, title, "uniform", 7000000)
        self.limit = limit * MIB


class Program(Workload):
    kind = "program"
    unit = "runs/s"


class Result(Program):
    """One that makes something, which must be the same each time."""
    digest = None

    def made(self, job, digest):
        """The row of a run that has said all, if it ended well."""
        # Before wait(), which tells how it failed: that it was not right shall not hide that.
        if job.ends() or job.late:
            return []
        digest = digest()
        if self.digest and self.digest != digest:
            raise Failed("the result is WRONG")
        self.digest = digest
        return [{"name": self.title, "speed": 1 / job.wall}]


class Sort(Result):
    """GNU sort of text, all of it in memory."""
    name = title = "sort"
    env = {"LC_ALL": "C"}
    run_s, once_s = 2.6, 21.0

    def __init__(self, directory):
        self.text = os.path.join(directory, f"{PREFIX}{os.getpid()}-text")
        self.argv = ["sort", "-S", "1G", "-T", directory, self.text]

    def prepare(self, undo):
        rng, size = random.Random(1), 0
        words = ["".join(rng.choices("etaoinshrdlcumwfgypbvk", k=rng.randint(2, 10)))
                 for _ in range(20000)]
        with uninterrupted():
            f = open(self.text, "x")
            undo.callback(os.unlink, self.text)
        with f:
            while size < SORT_BYTES:
                size += f.write(" ".join(rng.choices(words, k=10)) + "\n")

    def read(self, job):
        digest = hashlib.sha256()
        while data := job.proc.stdout.read(MIB):
            digest.update(data)
        return self.made(job, digest.digest)


class Compile(Result):
    """make -j2 of files of a C project, as Debian has it."""
    name, title = "compile", "compilers"
    parts = (3 / 4, 7 / 8, 1)       # of what one of the two takes
    run_s, once_s = 4.0, 60.0

    def __init__(self, directory):
        self.path = os.path.join(directory, f"{PREFIX}{os.getpid()}-binutils")
        self.build = os.path.join(self.path, "build/opcodes")
        self.argv = ["make", "-C", self.build, "-j2", *OBJECTS]
        # The compiler's own files go with the rest, also when it is killed.
        self.env = {"TMPDIR": self.build, "MAKEFLAGS": ""}

    def prepare(self, undo):
        need("gcc", "make", "tar", "xz")
        archive = glob.glob(SOURCES)
        if not archive:
            raise Failed(f"no {SOURCES} (install Debian's binutils-source)")
        with uninterrupted():
            os.mkdir(self.path)
            undo.callback(shutil.rmtree, self.path)
        job = None
        try:
            with uninterrupted():
                job = Job(["sh", "-ec", CONFIGURE, self.path, archive[0]],
                          {**os.environ, "MAKEFLAGS": ""})
            job.wait()
        finally:
            if job:
                job.end()

    def start(self):
        for name in os.listdir(self.build):
            if name.endswith((".o", ".s")):
                os.unlink(os.path.join(self.build, name))

    def sum(self):
        digest = hashlib.sha256()
        for name in OBJECTS:
            with open(os.path.join(self.build, name), "rb") as f:
                digest.update(f.read())
        return digest.digest()

    def read(self, job):
        job.proc.stdout.read()
        return self.made(job, self.sum)


class Python(Program):
    name = title = "python3"
    run_s, once_s = 3.2, 15.0
    argv = [sys.executable, "-B", os.path.join(HERE, "pydict.py"), *map(str, DICT)]

    def read(self, job):
        told = told_by(job)
        if not told:
            return []
        seconds = told["build_s"] + told["lookups_s"] + told["scan_s"]
        return [dict(told, name=self.title, speed=1 / seconds)]


class Redis(Program):
    """A server that is loaded, then asked by redis-benchmark; only the server is limited."""
    name = title = "redis"
    unit = "requests/s"
    run_s, once_s = 4.6, 20.0

    def __init__(self, directory):
        self.socket = os.path.join(directory, f"{PREFIX}{os.getpid()}-redis")
        self.argv = ["redis-server", "--port", "0", "--unixsocket", self.socket, "--dir",
                     directory, "--save", "", "--appendonly", "no", "--daemonize", "no"]

    def prepare(self, undo):
        need("redis-server", "redis-benchmark", "redis-cli")
        undo.callback(self.start)

    def start(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)

    def client(self, *argv):
        try:
            done = subprocess.run([argv[0], "-s", self.socket, *argv[1:]], text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                                  timeout=100, start_new_session=True)
        except subprocess.TimeoutExpired:
            raise Failed(f"{argv[0]} took too long") from None
        if done.returncode:
            text = (done.stderr or done.stdout).strip().splitlines() or ["failed"]
            raise Failed(f"{argv[0]}: {text[-1]}")
        return done.stdout.replace("\r", "\n")

    def bench(self, command, requests, *options):
        text = self.client("redis-benchmark", "-t", command, "-n", str(requests), "-r",
                           str(REDIS[0]), "-d", "1000", "--precision", "3", *options)
        curve = [(float(part), float(ms)) for part, ms in
                 re.findall(r"^([0-9.]+)% <= ([0-9.]+) milliseconds \(cum", text, re.M)]
        speed = re.search(r"throughput summary: ([0-9.]+)", text)
        if not speed or not curve:
            raise Failed(f"redis-benchmark {command}: did not say how fast it was")

        def at(percent):
            return round(next((ms for part, ms in curve if part >= percent), curve[-1][1]) * 1e6)

        return {"name": f"redis {command.upper()}", "speed": float(speed[1]), "p50_ns": at(50),
                "p99_ns": at(99), "p999_ns": at(99.9), "max_ns": at(100)}

    def read(self, job):
        for _ in range(200):
            if os.path.exists(self.socket) or job.gone.is_set():
                break
            time.sleep(0.05)
        # Twice as many as there are keys, so that most of them are there.
        self.bench("set", 2 * REDIS[0], "-c", "4", "-P", "16")
        rows = [self.bench("get", REDIS[1], "-c", "16"), self.bench("set", REDIS[1], "-c", "16")]
        # It closes the connection instead of an answer.
        self.client("redis-cli", "shutdown", "nosave")
        return rows


class Heap(Touch):
    """Pages of a real heap: what others are like is made up."""

    def __init__(self, touch, directory):
        title, ops = PATTERNS["uniform"]
        self.image = os.path.join(directory, f"{PREFIX}{os.getpid()}-heap")
        super().__init__(touch, "uniform-heap", f"{title}, {HEAP} data", "uniform", ops, self.image)

    def prepare(self, undo):
        with uninterrupted():
            open(self.image, "x").close()
            undo.callback(os.unlink, self.image)
        done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "pydict.py"),
                               *map(str, DICT), self.image], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise Failed((done.stderr.strip().splitlines() or ["no image of a heap"])[-1])


def beside(kind, work, *only):
    """One that no target is about, and the backends that tell most of it."""
    work.kind, work.beside, work.weighed, work.run_s, work.once_s = kind, True, False, 1.5, 0.0
    work.only = only or None
    return work


def all_of(touch, directory):
    """In the order they are run in: what the targets need first."""
    # The latter is watched, with what vswap takes itself, but nothing has to go.
    work = [Fits(touch, "fits", "program fits", 2 * SIZE),
            Fits(touch, "fits-just", "program just fits", SIZE * 9 // 8 + 16)]
    work += [Touch(touch, name, title, name, ops) for name, (title, ops) in PATTERNS.items()]
    title, ops = PATTERNS["uniform"]
    work.append(Touch(touch, "2thr", "two threads, uniform", "uniform", ops, threads=2))
    work += [Sort(directory), Python(), Redis(directory), Compile(directory)]
    few = ("none", "zram-lzo", "file", "vswap-pool", "vswap-both-file")
    work.append(beside("sweep", Touch(touch, "sweep", "sweep once and free", "fill", 1)))
    work.append(beside("sweep", Touch(touch, "sweep-random", "sweep in random order and free",
                                      "rfill", 1), *few))
    work.append(beside("sweep", Touch(touch, "hog", "sweep four times and free", "fill", 4), *few))
    for percent in RESIDENCY:
        if percent != 50:
            work.append(beside("residency", Touch(
                touch, f"uniform-{percent}", f"{title}, {percent} % resident", "uniform", ops,
                residency=percent), *few))
    for data in DATA:
        if data != "2:1":
            work.append(beside("data", Touch(touch, f"uniform-{data}", f"{title}, {data} data",
                                            "uniform", ops, data=data),
                               "none", "zram-lzo", "vswap-pool"))
    work.append(beside("data", Heap(touch, directory), "none", "zram-lzo", "vswap-pool"))
    return work
