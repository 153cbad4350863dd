# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Programs people use, in a half and a quarter of the memory they take alone."""
import ctypes
import errno
import glob
import hashlib
import os
import random
import re
import shutil
import signal
import struct
import sys

from harness import MIB, Skipped, case

PYTHON = sys.executable

# Values of some length, for the table itself compresses badly: a quarter of the memory
# without a tier must be enough for all of it.
PYTHON_DICT = """
import hashlib
d = {i: str(i) * 60 for i in range(150000)}
for i in range(0, 150000, 3):
    d[i] = d[i][::-1]
for i in range(0, 150000, 5):
    del d[i]
for i in range(0, 150000, 5):
    d[i] = str(i) * 60
for k, v in d.items():
    assert v in (str(k) * 60, (str(k) * 60)[::-1]), k
print(hashlib.sha256("".join(d[i] for i in range(150000)).encode()).hexdigest())
"""

ISSUE_PYTHON = ("import hashlib; d={i: str(i)*20 for i in range(2500000)}; "
                "print(hashlib.sha256(''.join(d[i] for i in range(0,2500000,7)).encode())"
                ".hexdigest())")


# Workers are forked, and none has anything in common with the others.
POOL = """
import hashlib, multiprocessing, random, sys
rows, times, tasks = map(int, sys.argv[1:])
def work(seed):
    rng = random.Random(seed)
    table = {rng.getrandbits(40): str(i) * times for i in range(rows)}
    order = sorted(table)
    return hashlib.sha256("".join(table[k] for k in order).encode()).hexdigest()
if __name__ == "__main__":
    kept = [str(i) * 30 for i in range(40000)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for digest in pool.map(work, range(tasks), chunksize=1):
            print(digest)
    print(hashlib.sha256("".join(kept).encode()).hexdigest())
"""

NUMPY = """
import hashlib, numpy, sys
rows, columns = map(int, sys.argv[1:])
rng = numpy.random.default_rng(1)
a = rng.integers(0, 1000, rows * columns)
b = numpy.sort(a.reshape(rows, columns), axis=0)
c = numpy.cumsum(b, axis=1) % 4096
d = (b.T[:200] @ c[:, :200]).astype(numpy.int64)
assert (numpy.bincount(b.ravel()) == numpy.bincount(a)).all()
for x in a, b, c, d:
    print(hashlib.sha256(x.tobytes()).hexdigest())
"""


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(MIB):
            digest.update(data)
    return digest.hexdigest()


def text_file(t, mib, words):
    """Long lines in random order, @mib of them in MiB; few @words make them compress well."""
    def make(path):
        rng = random.Random(mib)
        vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9)))
                      for _ in range(words)]
        made = 0
        with open(path, "w") as f:
            while made < mib * MIB:
                if words > 1:
                    rests = [" ".join(rng.choices(vocabulary, k=45)) for _ in range(500)]
                else:
                    rests = [" ".join(vocabulary * 45)] * 500
                lines = [f"{rng.getrandbits(32):08x} {rest}\n" for rest in rests]
                f.writelines(lines)
                made += sum(map(len, lines))

    return t.made(f"text-{mib}-{words}", make)


plain_peaks = {}


def plain_peak(t, key, argv, **popen):
    """Peak bytes of a command run without vswap, measured once."""
    if key not in plain_peaks:
        run = t.sampled(argv, **popen)
        t.check(run.status == 0, "fails without vswap", run)
        plain_peaks[key] = run.peak, run.out
    return plain_peaks[key]


def add(name, timeout=90):
    """Register run(t, tier, under) for both factors, with pool only; with a tier for the larger."""
    def for_each(run):
        for factor, tier in ((2, False), (4, False), (4, True)):
            def one(t, factor=factor, tier=tier):
                def under(argv, **popen):
                    peak, out = plain_peak(t, (name, tier, *argv[:2]), argv, **popen)
                    ran, _ = t.paged(argv, ram=max(peak // factor, 16 * MIB),
                                     options=() if tier else ("--no-tier",), **popen)
                    t.check(ran.out == out, "another output than without vswap", ran)
                run(t, tier, under)
            one.__module__ = __name__
            case(f"real/{name}/{factor}x-{'tier' if tier else 'pool'}", timeout)(one)
    return for_each


@add("sort")
def sort(t, tier, under):
    text = text_file(t, 28, 5000 if tier else 1)
    out = t.path("sorted")
    env = dict(os.environ, LC_ALL="C")
    under(["sort", "-S", "256M", "--parallel=2", "-o", out, text], env=env)
    again = t.run(["sort", "-c", out], env=env)
    t.check(again.status == 0, "not sorted", again)
    plain = t.path("plain")
    t.run(["sort", "-S", "256M", "-o", plain, text], env=env)
    t.check(sha256(out) == sha256(plain), "another result than without vswap")


@add("python")
def python(t, tier, under):
    under([PYTHON, "-c", PYTHON_DICT])


@add("xz")
def xz(t, tier, under):
    """What xz keeps while it compresses does not compress itself: not for a pool alone."""
    text = text_file(t, 96, 1)

    def make(path):
        with open(path, "wb") as out:
            t.run(["xz", "-c", "-T1", "--lzma2=preset=0,dict=96MiB", text], stdout=out)

    packed, back = t.made("text.xz", make), t.path("back")
    under(["sh", "-c", f"exec xz -dc {packed} >{back}"])
    t.check(sha256(back) == sha256(text), "did not come back the same")
    if tier:
        copy = t.path("text")
        shutil.copy(text_file(t, 4, 1), copy)
        under(["xz", "-T1", "--lzma2=preset=1,dict=32MiB", "--keep", "--force", copy])
        run = t.run(["sh", "-c", f"xz -dc {copy}.xz | cmp - {copy}"])
        t.check(run.status == 0, "does not unpack to what it was", run)


@add("zstd")
def zstd(t, tier, under):
    text = text_file(t, 28, 5000 if tier else 1)
    packed, back = t.path("text.zst"), t.path("text")
    under(["zstd", "-q", "-f", "-T1", "-3", "--long=27", text, "-o", packed])
    under(["zstd", "-d", "-q", "-f", "--long=27", packed, "-o", back])
    t.check(sha256(back) == sha256(text), "did not come back the same")


def add_sized(name, factor, argv, *sizes):
    """Not for a pool alone; sizes for the larger factor are such that it does not take long."""
    @case(f"real/{name}/{factor}x", timeout=120)
    def run(t):
        sized = [*argv, *map(str, sizes)]
        peak, out = plain_peak(t, (name, factor), sized)
        ran, _ = t.paged(sized, ram=max(peak // factor, 16 * MIB))
        t.check(ran.out == out, "another output than without vswap", ran)


add_sized("multiprocessing", 2, [PYTHON, "-c", POOL], 80000, 20, 4)
# Few and long rows: each is read at random, and waited for.
add_sized("multiprocessing", 4, [PYTHON, "-c", POOL], 10000, 200, 2)
# Over columns again and again: of few rows, for all of a column's pages must be there at once.
add_sized("numpy", 2, ["/usr/bin/python3", "-c", NUMPY], 1000, 1000)
add_sized("numpy", 4, ["/usr/bin/python3", "-c", NUMPY], 300, 5000)


def unpack(t, path, *names):
    """Those of the sources of a C project of Debian's, or all."""
    archive = glob.glob("/usr/src/binutils/binutils-*.tar.xz")
    t.check(archive, "no sources of binutils (install binutils-source)")
    os.mkdir(path)
    run = t.run(["tar", "-xf", archive[0], "-C", path, "--strip-components=1", "--wildcards",
                 *(f"*/{name}" for name in names)])
    t.check(run.status == 0, "the sources do not unpack", run)
    os.mkdir(os.path.join(path, "build"))


def sources(t):
    """A C project of Debian's, configured."""
    def make(path):
        unpack(t, path, "libiberty", "include", "config", "config.guess", "config.sub",
               "config-ml.in", "install-sh", "mkinstalldirs", "move-if-change")
        run = t.run(["sh", "-c", f"cd {path}/build && ../libiberty/configure"])
        t.check(run.status == 0, "the sources cannot be configured", run)

    return t.made("binutils", make)


def objects(path):
    """The sums of all objects under @path, by name."""
    return {os.path.relpath(os.path.join(where, name), path): sha256(os.path.join(where, name))
            for where, _, names in os.walk(path) for name in names if name.endswith((".o", ".a"))}


@case("real/make", timeout=120)
def make(t):
    """Many short processes, two at a time; the same objects as without vswap."""
    build = os.path.join(sources(t), "build")
    t.run(["make", "-C", build, "clean"])
    run = t.run(["make", "-C", build, "-j2", "CFLAGS=-O2"])
    t.check(run.status == 0, "fails without vswap", run)
    plain = objects(build)
    t.check(len(plain) > 40, f"{len(plain)} objects", run)
    t.run(["make", "-C", build, "clean"])
    t.paged(["make", "-C", build, "-j2", "CFLAGS=-O2"], ram=64 * MIB)
    t.check(objects(build) == plain, "other objects than without vswap")


def add_stress(stressor, ops, *options, ballast=0, kind="", **paged):
    """Beside so many MiB of other memory, for those that have little that can be paged."""
    @case(f"real/stress-ng-{stressor}{kind}", timeout=120)
    def run(t):
        argv = ["stress-ng", "--verbose", "--metrics-brief", "--temp-path", t.tmp, "--verify",
                f"--{stressor}", "1", f"--{stressor}-ops", str(ops), *options]
        if ballast:
            argv = ["env", "LD_PRELOAD=" + t.prog("libballast.so"), f"BALLAST={ballast}", *argv]
        ran, _ = t.paged(argv, ram=24 * MIB, **paged)
        # What it cannot do here it skips, and what was killed it begins again: neither is an error.
        said = ran.out + ran.err
        done = re.search(rf"\] {stressor} +(\d+) ".encode(), said)
        t.check(done and int(done[1]) >= ops, f"not {ops} operations", ran)
        t.check(not re.search(rb"skipp(ed(?!: 0)|ing)|restarts: [1-9]", said), "skipped or killed",
                ran)


# Where one forks and fills at once, or shares the ballast, vswap's own count of what is shared is
# too high for a moment; those of mmap and madvise use shared memory too, which is not paged.
add_stress("vm", 2000, "--vm-bytes", "64M", own_bound=False)
# A child's child that fills it at once, in huge pages.
add_stress("vm", 300, "--vm-bytes", "64M", "--vm-method", "zero-one", "--vm-madvise", "hugepage",
           kind="-huge")
add_stress("brk", 30000, ballast=48, own_bound=False)
add_stress("mmap", 10, "--mmap-bytes", "8M", ballast=48, bound=False)
add_stress("mremap", 20, "--mremap-bytes", "16M", ballast=16)
add_stress("madvise", 20, ballast=48, bound=False)
add_stress("fork", 100, ballast=48, own_bound=False)
add_stress("vfork", 500, ballast=48, own_bound=False)


def process_vm_readv(pid, start, length):
    class Iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
    data = ctypes.create_string_buffer(length)
    here, there = Iovec(ctypes.addressof(data), length), Iovec(start, length)
    got = ctypes.CDLL(None, use_errno=True).process_vm_readv(
        pid, ctypes.byref(here), ctypes.c_ulong(1), ctypes.byref(there), ctypes.c_ulong(1),
        ctypes.c_ulong(0))
    return data.raw if got == length else f"{got}: {os.strerror(ctypes.get_errno())}"


@case("real/inspect")
def inspect(t):
    """Others read its memory: the right bytes, or an error where the kernel cannot wait."""
    live = t.paged_begin(t.vmtest("hold", 2 * t.ram))
    pid = int(live.line(30).split()[1])
    live.say("where")
    _, start, length = live.line(10).split()
    start, length = int(start), int(length)
    by_proc, out = {}, []
    with open(f"/proc/{pid}/mem", "rb", 0) as f:
        for at in range(0, length, 4096):
            try:
                by_proc[at] = os.pread(f.fileno(), 4096, start + at)
            except OSError as e:
                t.check(e.errno == errno.EIO, f"/proc/PID/mem: {e}")
                out.append(at)
    t.check(by_proc and out, f"{len(by_proc)} pages by /proc/PID/mem, {len(out)} errors")
    peeks = [max(by_proc), out[-1]]
    by_gdb = t.run(["gdb", "-nx", "-batch", "-p", str(pid),
                    *[word for at in peeks for word in ("-ex", f"x/gx {start + at}")],
                    "-ex", "info threads", "-ex", "detach"])
    by_vm = process_vm_readv(pid, start, length)
    dump = t.path("dump")
    live.say(f"dump {dump}")
    t.check(live.line(30) == "dumped", "the program itself cannot read it")
    with open(dump, "rb") as f:
        data = f.read()
    t.check(by_vm == data, "process_vm_readv() gave other bytes" if len(by_vm) == length else by_vm)
    for at, page in by_proc.items():
        t.check(page == data[at:at + 4096], f"/proc/PID/mem gave other bytes at {at:#x}")
    t.check(by_gdb.status == 0 and b"vswap-agent" in by_gdb.out, "gdb cannot attach", by_gdb)
    for at in peeks:
        said = re.search(rf"^{start + at:#x}:\s+(\w+)$", by_gdb.out.decode(), re.M)
        refused = f"Cannot access memory at address {start + at:#x}".encode() in by_gdb.err
        right, = struct.unpack_from("<Q", data, at)
        t.check(int(said[1], 16) == right if said else refused and at in out,
                f"gdb at {start + at:#x}, which has {right:#x}", by_gdb)
    live.say("check")
    t.check(live.line(30).endswith(" sigbus 0 wrong 0"), "wrong bytes after that")
    t.paged_end(live)


def dumping(argv):
    """That program, to leave a core dump when it is aborted."""
    return ["sh", "-c", 'ulimit -c unlimited; exec "$0" "$@"', *argv]


def core_memory(path, start, length):
    """What of that memory is in a core dump; zeros where it has nothing."""
    memory = bytearray(length)
    with open(path, "rb") as f:
        header = f.read(64)
        offset, = struct.unpack_from("<Q", header, 32)
        size, number = struct.unpack_from("<HH", header, 54)
        for i in range(number):
            f.seek(offset + i * size)
            kind, _, at, address, _, there = struct.unpack_from("<IIQQQQ", f.read(size))
            begin, end = max(address, start), min(address + there, start + length)
            if kind == 1 and begin < end:
                f.seek(at + begin - address)
                memory[begin - start:end - start] = f.read(end - begin)
    return memory


def abort(t, live):
    """Abort a program that holds memory: its dump has the right bytes, but for those said."""
    with open("/proc/sys/kernel/core_pattern") as f:
        if f.read(1) in "|/":
            raise Skipped("core dumps go elsewhere here (sysctl kernel.core_pattern)")
    pid = int(live.line(60).split()[1])
    live.say("where")
    start, length = map(int, live.line(10).split()[1:])
    dump = t.path("dump")
    live.say(f"dump {dump}")
    t.check(live.line(60) == "dumped", "the program itself cannot read it")
    os.kill(pid, signal.SIGABRT)
    run = live.finish()
    t.check(run.status == 128 + signal.SIGABRT, f"status {run.status}", run)
    said = re.search(r"^vswap: core dump: lacks at least (\d+) KiB, .*: ([-0-9a-f, ]+?)( and \d+ more)? \(",
                     run.err.decode(), re.M)
    t.check(said, "not a word on what the dump lacks", run)
    rows = [[int(x, 16) for x in row.split("-")] for row in said[2].split(", ")]
    have = core_memory((glob.glob(t.path("core")) + glob.glob(t.path(f"core.{pid}")))[0], start,
                       length)
    with open(dump, "rb") as f:
        want = f.read()
    lacking = unsaid = 0
    for at in range(0, length, 4096):
        told = any(row[0] <= start + at < row[1] for row in rows)
        page, right = have[at:at + 4096], want[at:at + 4096]
        t.check(page == right or not any(page), f"{start + at:#x}: wrong bytes", run)
        t.check(not told or not any(page), f"{start + at:#x} is not lacking", run)
        lacking += page != right
        unsaid += page != right and not told and not said[3]
    # Those it was taking out at that moment.
    t.check(unsaid <= 64, f"{unsaid} pages are lacking, which is not said", run)
    t.check(0 < lacking * 4 <= int(said[1]) + 256, f"{lacking} pages are lacking", run)


@case("real/core-dump")
def core_dump(t):
    """The bytes of what is there, and a word on what is not."""
    abort(t, t.spawn(t.vswap_run("--ram", str(t.ram), "--",
                                 *dumping(t.vmtest("hold", 2 * t.ram)))))


@case("real/issue-python", timeout=180)
def issue_python(t):
    plain = t.run([PYTHON, "-c", ISSUE_PYTHON])
    run, _ = t.paged([PYTHON, "-c", ISSUE_PYTHON], ram=128 * MIB)
    t.check(run.out == plain.out, "another hash than without vswap", run)
