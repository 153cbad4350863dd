# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Things that go wrong under a running program: it may die or wait, but sees no wrong byte."""
import errno
import os
import random
import re
import shutil
import signal
import time

from harness import MIB, Failed, Skipped, case, is_alive, wait_until


def under(t, test, size, *options, passes=2):
    return t.vswap_run("--ram", str(t.ram), *options, "--",
                       *t.vmtest(test, size, "--hard", "--passes", str(passes)))


def hold(t, size, *options, **popen):
    """A program holding @size bytes; returns it and the program's pid."""
    t.need_userfaultfd()
    live = t.spawn(under(t, "hold", size, *options), **popen)
    line = live.line(40)
    t.check(line and line.startswith("ready "), f"not ready: {line!r}, stderr: {live.err()}")
    return live, int(line.split()[1])


def answer(t, live, command, seconds=60):
    live.say(command)
    line = live.line(seconds)
    if line is None:
        raise Failed(f"no answer to '{command}': {live.describe()}, stderr: {live.err().decode()}")
    return line


def check_pages(t, live, command="check"):
    """What became of the pages: {"good": n, "sigbus": n, "wrong": 0}."""
    line = answer(t, live, command)
    found = {name: int(n) for name, n in re.findall(r"(\w+) (\d+)", line)}
    t.check(set(found) == {"good", "sigbus", "wrong"}, f"answer {line!r}")
    t.check(found["wrong"] == 0, f"WRONG BYTES: {line}\n{live.err().decode()}")
    return found


def open_files(pid):
    """(path, stat) of all it has open, but for what it closes meanwhile."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = f"/proc/{pid}/fd/{fd}"
            found.append((os.readlink(link), os.stat(link)))
        except FileNotFoundError:
            pass
    return found


def tier_file(t, mib, name="tier"):
    path = t.path(name)
    with open(path, "wb") as f:
        os.chmod(path, 0o600)
        f.truncate(mib * MIB)
    return path


# ---- full ---------------------------------------------------------------------

@case("failure/grown-alone", timeout=60, waits=True)
def grown_alone(t):
    """Where none is left of whom anything could be taken, that is said as well."""
    ran = t.run(under(t, "grownalone", 3 * t.ram, passes=1))
    t.check(b"vswap: out of memory, all is full" in ran.err and b"vmtest:" not in ran.err,
            "no message, or another", ran)


# ---- killed -------------------------------------------------------------------

@case("failure/supervisor-killed", sanitized=True)
def supervisor_killed(t):
    """The program dies with a message within a second, idle or busy."""
    live, pid = hold(t, t.size(3))
    os.kill(live.pid, signal.SIGKILL)
    t.check(wait_until(lambda: not is_alive(pid), 1), f"idle program lives on: {live.describe()}")
    t.check(wait_until(lambda: not live.members(), 1), f"left behind: {live.describe()}")
    t.check(b"vswap:" in live.err(), f"no message: {live.err()}")


@case("failure/supervisor-killed-children")
def supervisor_killed_children(t):
    """Nor does what came of the program by clone(2) live on, where it would read zeros."""
    t.need_userfaultfd()
    live = t.spawn(under(t, "begets", t.size(2)))
    t.check(live.line(40) == "ready", f"not ready: {live.err()}")
    t.check(len(live.members()) == 4, f"processes: {live.describe()}")
    os.kill(live.pid, signal.SIGKILL)
    t.check(wait_until(lambda: not live.members(), 3), f"left behind: {live.describe()}")
    t.check(b"WRONG" not in live.err(), f"{live.err()}")


@case("failure/supervisor-killed-busy", timeout=90, sanitized=["address"])
def supervisor_killed_busy(t):
    t.need_userfaultfd()
    rng = random.Random(1)
    for test in ("rw", "threads", "dontneed-race", "malloc", "rw", "threads"):
        live = t.spawn(under(t, test, t.size(3), passes=1000))
        time.sleep(rng.uniform(0.5, 1.5) * (2 if t.sanitized else 1))
        t.check(live.proc.poll() is None, f"{test} ended early: {live.err()}")
        os.kill(live.pid, signal.SIGKILL)
        t.check(wait_until(lambda: not live.members(), 1), f"{test} lives on: {live.describe()}")
        t.check(b"vmtest:" not in live.err(), f"{test}: {live.err()}")
        t.check(b"vswap:" in live.err(), f"{test}: no message")


@case("failure/program-killed", sanitized=True, alone=True)
def program_killed(t):
    """vswap tells the shell, and its temporary tier is gone: others would write meanwhile, too."""
    where = t.path("tmpdir")
    os.mkdir(where)
    free = lambda: os.statvfs(where).f_bavail * os.statvfs(where).f_frsize
    before = free()
    live, pid = hold(t, t.size(4), env=dict(os.environ, TMPDIR=where))
    t.check(os.listdir(where) == [], f"the tier has a name: {os.listdir(where)}")
    files = [path for path, _ in open_files(live.pid)]
    t.check(any(path.startswith(where) for path in files), f"no tier under TMPDIR: {files}")
    os.kill(pid, signal.SIGKILL)
    run = live.finish()
    t.check(run.status == 137, f"status {run.status}, not 137", run)
    t.check(os.listdir(where) == [], "something is left in TMPDIR", run)
    t.check(free() > before - t.ram, "the tier's space is still taken", run)


@case("failure/program-crashes")
def program_crashes(t):
    """A crash in the middle of paging is the program's own status."""
    live, pid = hold(t, t.size(3))
    os.kill(pid, signal.SIGSEGV)
    run = live.finish()
    t.check(run.status == 139, f"status {run.status}, not 139", run)


@case("failure/sandbox-all")
def sandbox_all(t):
    """A program that forbids all of its threads what the agent needs is told apart and ended."""
    t.need_userfaultfd()
    run = t.run(under(t, "sandbox-all", t.size(3)))
    t.check(run.status == 137, f"status {run.status}, not 137", run)
    t.check(b"vswap: " in run.err and b"seccomp" in run.err, "no message", run)
    t.check(b"WRONG" not in run.err, "wrong bytes", run)


def many(t, words, *limits):
    """It is told, and all of it killed; no child reads a zero for what it was born with."""
    t.need_userfaultfd()
    live = t.spawn([*limits, *t.vswap_run("--ram", "96M", "--", *t.vmtest("forkmany", 160 * MIB))])
    run = live.finish()
    t.check(run.status == 137, f"status {run.status}, not 137", run)
    t.check(b"WRONG" not in run.err and b"vmtest" not in run.err, "a child lived on", run)
    for word in words:
        t.check(word in run.err, f"no '{word.decode()}' in the message", run)


@case("failure/too-many-processes")
def too_many_processes(t):
    many(t, (b"1024",))


@case("failure/out-of-descriptors")
def out_of_descriptors(t):
    # For the child's userfaultfd, and for what it needs besides.
    for files in (100, 101):
        many(t, (b"limit",), "prlimit", f"--nofile={files}")


@case("failure/program-stopped")
def program_stopped(t):
    """A program stopped for a while finds its memory as it left it."""
    live, pid = hold(t, t.size(3))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(pid, signal.SIGCONT)
    t.check(check_pages(t, live)["sigbus"] == 0, "pages were lost")
    run = live.finish()
    t.check(run.status == 0, "failed", run)


@case("failure/agent-killed")
def agent_killed(t):
    """The part inside the program dies: the program does too, or goes on; never wrong."""
    live, pid = hold(t, t.size(3))
    others = [p for p in live.members() if p not in (live.pid, pid)]
    if not others:
        # The agent is a thread: what kills it kills the program, which is another case.
        run = live.finish()
        t.check(run.status == 0, "failed", run)
        return
    for p in others:
        os.kill(p, signal.SIGKILL)
    try:
        live.say("check")
    except BrokenPipeError:
        pass
    line = live.line(10)
    if line is not None:
        t.check(re.fullmatch(r"good \d+ sigbus \d+ wrong 0", line),
                f"WRONG BYTES: {line}\n{live.err().decode()}")
        run = live.finish()
    else:
        t.check(wait_until(lambda: not live.members(), 1), f"it hangs: {live.describe()}")
        t.check(b"vswap:" in live.err(), "no message")


@case("failure/miscounted", timeout=120, sanitized=["address"])
def miscounted(t):
    """A kernel that has moved pages and says it has not: none of them is lost."""
    t.need_root()
    live, pid = hold(t, t.size(4))
    liar = t.spawn([t.prog("miscount"), str(pid), "3"])
    while liar.proc.poll() is None:
        check_pages(t, live)
        t.check(answer(t, live, "write") == "written", "not written")
    told = liar.finish()
    t.check(told.status == 0 and int(told.out) > 20, "too few moves", told)
    found = check_pages(t, live)
    t.check(found["sigbus"] == 0, f"pages were lost: {found}")
    run = live.finish()
    t.check(run.status == 0, "failed", run)


COMPACT = "/proc/sys/vm/compact_memory"


@case("failure/compacted", timeout=120)
def compacted(t):
    """The kernel moves the program's pages elsewhere in memory while they are moved out."""
    t.need_root()
    t.need_userfaultfd()
    if not os.path.exists(COMPACT):
        raise Skipped("the kernel compacts no memory")
    for test in ("rw", "dontneed-race", "threads"):
        live = t.spawn(under(t, test, t.size(3), passes=3))
        while live.proc.poll() is None:
            with open(COMPACT, "w") as f:
                f.write("1")
            time.sleep(0.01)
        run = live.finish()
        t.check(run.status == 0, f"{test} failed", run)


# ---- tiers ----------------------------------------------------------------------

def message_names(t, live, *words):
    err = live.err().decode()
    t.check(any(line.startswith("vswap:") and all(w in line for w in words)
                for line in err.splitlines()), f"no message with {words}: {err[:2000]!r}")


def fill_with_noise(path):
    with open(path, "r+b") as f:
        for _ in range(os.path.getsize(path) // MIB):
            f.write(os.urandom(MIB))
        f.flush()
        os.fsync(f.fileno())


@case("failure/lost-stays-lost", timeout=120)
def lost_stays_lost(t):
    """First touches that run into lost pages do not bring zeros there."""
    path = tier_file(t, 2 * t.size(4) // MIB)
    live, _ = hold(t, MIB, "--tier", path)
    t.check(answer(t, live, f"gaps {t.size(4)}") == "grown", "did not grow")
    fill_with_noise(path)
    lost = check_pages(t, live, "peek")["sigbus"]
    t.check(lost > 0, "nothing was lost")
    again = check_pages(t, live)
    t.check(again["sigbus"] >= lost, f"{lost} pages were lost, then {again}")
    run = live.finish()
    t.check(run.status == 0, "failed", run)


@case("failure/tier-corrupted", timeout=120, sanitized=["address"])
def tier_corrupted(t):
    """Garbage on the tier is SIGBUS at those pages and a message naming tier and slot."""
    path = tier_file(t, 2 * t.size(4) // MIB)
    live, _ = hold(t, t.size(4), "--tier", path)
    before = check_pages(t, live)
    t.check(before["sigbus"] == 0, f"before: {before}")
    fill_with_noise(path)
    after = check_pages(t, live)
    t.check(after["sigbus"] > 0, f"nothing was lost: {after}")
    message_names(t, live, path, "slot")
    # The program can have new memory, paged as before.
    t.check(answer(t, live, f"grow {t.size(4)}") == "grown", "no new memory")
    again = check_pages(t, live)
    t.check(again["sigbus"] == 0, f"new pages are lost: {again}")
    run = live.finish()
    t.check(run.status == 0, "failed", run)


@case("failure/tier-old-bytes", timeout=120)
def tier_old_bytes(t):
    """A tier that brings back an older state of itself is noticed as well."""
    path, copy = tier_file(t, 2 * t.size(4) // MIB), t.path("copy")
    live, _ = hold(t, t.size(4), "--tier", path)
    shutil.copy(path, copy)
    t.check(answer(t, live, "write") == "written", "not written")
    with open(copy, "rb") as old, open(path, "r+b") as f:
        shutil.copyfileobj(old, f, MIB)
        f.flush()
        # EIO where vswap writes past the cache just then; then it is the newer that is there.
        try:
            os.fsync(f.fileno())
        except OSError as e:
            t.check(e.errno == errno.EIO, f"fsync: {e}")
    check_pages(t, live)
    run = live.finish()
    t.check(run.status == 0, "failed", run)


@case("failure/tier-truncated", timeout=120)
def tier_truncated(t):
    """A tier whose file was cut short from outside: reads fail, and say so."""
    path = tier_file(t, 2 * t.size(4) // MIB)
    live, _ = hold(t, t.size(4), "--tier", path)
    os.truncate(path, 0)
    after = check_pages(t, live)
    t.check(after["sigbus"] > 0, f"nothing was lost: {after}")
    message_names(t, live, path, "slot")
    run = live.finish()
    t.check(run.status == 0, "failed", run)


def ends_or_waits(t, live, seconds):
    """Let it run so long; it may end, wait for room or be killed, with a message."""
    end = time.monotonic() + seconds
    while live.proc.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    err = live.err().decode()
    t.check("WRONG" not in err and "vmtest:" not in err, f"wrong bytes: {err[:2000]}")
    if live.proc.poll() is None or live.proc.poll() != 0:
        message_names(t, live, "full")
    live.kill()


@case("failure/tier-full", waits=True)
def tier_full(t):
    """More than all there is: slowed or ended with a message, not corrupted."""
    t.need_userfaultfd()
    path = tier_file(t, 32)
    live = t.spawn(under(t, "rw", 3 * t.ram + 32 * MIB, "--tier", path))
    ends_or_waits(t, live, 15)


@case("failure/pool-full", waits=True)
def pool_full(t):
    """The same without any tier."""
    t.need_userfaultfd()
    live = t.spawn(under(t, "rw", t.size(4), "--no-tier"))
    ends_or_waits(t, live, 15)


@case("failure/tier-full-then-room", timeout=120)
def tier_full_then_room(t):
    """A full first tier: the run goes on with the second."""
    small, large = tier_file(t, 16, "small"), tier_file(t, 2 * t.size(4) // MIB, "large")
    t.paged(t.vmtest("rw", t.size(4), "--hard"),
            options=("--tier", f"{small},prio=9", "--tier", f"{large},prio=1"))


class SmallFilesystem:
    """A tmpfs of so many MiB, gone at the end."""

    def __init__(self, t, mib):
        t.need_root()
        self.t = t
        self.path = t.path("small-fs")
        os.mkdir(self.path)
        run = t.run(["mount", "-t", "tmpfs", "-o", f"size={mib}M", "vswap-test", self.path])
        t.check(run.status == 0, "mount", run)

    def __enter__(self):
        return self.path

    def __exit__(self, *exc):
        self.t.finish()
        run = self.t.run(["umount", self.path])
        self.t.check(run.status == 0, "umount", run)


@case("failure/tier-enospc", timeout=120)
def tier_enospc(t):
    """The file system under a sparse tier runs full: writes fail, another tier takes over."""
    t.need_userfaultfd()
    large = tier_file(t, 2 * t.size(4) // MIB, "large")
    with SmallFilesystem(t, 64) as where:
        sparse, filler = os.path.join(where, "sparse"), os.path.join(where, "filler")
        with open(sparse, "wb") as f:
            os.chmod(sparse, 0o600)
            f.truncate(48 * MIB)
        live, _ = hold(t, MIB, "--tier", f"{sparse},prio=9", "--tier", f"{large},prio=1")
        try:
            with open(filler, "wb") as f:
                while f.write(bytes(MIB)):
                    f.flush()
        except OSError:
            pass
        t.check(answer(t, live, f"grow {t.size(4)}") == "grown", "did not grow")
        check_pages(t, live)
        t.check(answer(t, live, "write") == "written", "not written")
        found = check_pages(t, live)
        t.check(found["sigbus"] == 0, f"pages were lost: {found}")
        message_names(t, live, sparse)
        run = live.finish()
        t.check(run.status == 0, "failed", run)


@case("failure/tier-on-tmpfs", timeout=120)
def tier_on_tmpfs(t):
    """A temporary tier that is memory itself is not used while there is another, nor silently."""
    t.need_userfaultfd()
    with SmallFilesystem(t, 512) as where:
        env = dict(os.environ, TMPDIR=where)
        live, _ = hold(t, t.size(4), env=env)
        files = [path for path, _ in open_files(live.pid)]
        t.check(not any(path.startswith(where) for path in files), f"a tier in memory: {files}")
        t.check(any(path.startswith("/var/tmp/") for path in files), f"no tier: {files}")
        run = live.finish()
        t.check(run.status == 0, "failed", run)
        # Where everything is memory, it says so and goes on.
        cover = 'mount -t tmpfs -o size=512M vswap-test /var/tmp && exec "$@"'
        run = t.run(["unshare", "--mount", "sh", "-c", cover, "sh",
                     *under(t, "rw", t.size(4))], env=env)
        t.check(run.status == 0, "failed", run)
        t.check(b"vswap:" in run.err and b"tmpfs" in run.err, "no word of tmpfs", run)


@case("failure/tier-mode")
def tier_mode(t):
    """The temporary tier is nobody else's to read."""
    live, _ = hold(t, t.size(4), env=dict(os.environ, TMPDIR=t.tmp))
    st = [s for path, s in open_files(live.pid) if path.startswith(t.tmp) and s.st_nlink == 0]
    t.check(st, "no unlinked file")
    t.check(all(s.st_mode & 0o777 == 0o600 for s in st), f"modes {[oct(s.st_mode) for s in st]}")
    run = live.finish()
    t.check(run.status == 0, "failed", run)
