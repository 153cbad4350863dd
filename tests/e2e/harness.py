# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What a case has to work with: run a command, watch it, say what is wrong.

A case is a function of one Test.  It returns when all is well, raises Failed
through Test.check() and Skipped through Test.need_*().  Whatever a command
leaves running is a failure of the case that started it, and is killed.
"""
import ctypes
import itertools
import json
import os
import re
import select
import signal
import subprocess
import threading
import time

MIB = 1 << 20
CASES = []
NUMBERS = itertools.count()
MAKING = threading.Lock()


# What a vswap built with one needs to run at all, its shadow memory being counted as its own:
# bytes of --ram, and options that keep it small.
SANITIZERS = {
    "address": (96 * MIB, "ASAN_OPTIONS",
                "quarantine_size_mb=4:thread_local_quarantine_size_kb=64"),
    "thread": (320 * MIB, "TSAN_OPTIONS", "history_size=0"),
}


# A limit of copying: the program may be ended, with this, and has seen no wrong byte.
MAPPED_ANEW = b"vswap: memory was mapped anew while it was being evicted"


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


class Case:
    def __init__(self, name, func, timeout, sanitized=False, waits=False, alone=False):
        self.name = name
        self.func = func
        self.timeout = timeout
        # Most of its time it waits: it may run beside as many others as there are.
        self.waits = waits
        # It looks at, or changes, what is the machine's: nothing of ours may run beside it.
        self.alone = alone
        # The sanitizers' builds it is worth its time on, too: names, or True for all.
        self.sanitized = SANITIZERS.keys() if sanitized is True else sanitized or ()


def case(name, timeout=60, **what):
    def add(func):
        CASES.append(Case(name, func, timeout, **what))
        return func
    return add


def can_userfaultfd():
    """Whether a process of this user can page another's memory, kernel accesses included."""
    try:
        os.close(os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC))
        return True
    except OSError:
        pass
    fd = ctypes.CDLL(None, use_errno=True).syscall(323, os.O_CLOEXEC)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def processes():
    """(pid, parent, session, state) of all there are."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as f:
                fields = f.read().rpartition(b")")[2].split()
        except OSError:
            continue
        yield int(name), int(fields[1]), int(fields[3]), fields[0].decode()


def is_alive(pid):
    return any(p == pid and state not in "ZX" for p, _, _, state in processes())


def wait_until(what, seconds):
    """Call what() until it is true; whether it ever was."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Run:
    """A command that has ended."""

    def __init__(self, argv, status, out, err, seconds):
        self.argv = argv
        self.status = status            # as a shell shows it
        self.out = out
        self.err = err
        self.seconds = seconds
        self.peak = None                # bytes, where it was sampled

    def __str__(self):
        return (f"  command: {' '.join(self.argv)}\n"
                f"  status {self.status} after {self.seconds:.1f} s\n"
                f"  stdout: {clip(self.out)}\n  stderr: {clip(self.err)}")


def clip(data):
    text = data.decode(errors="replace")
    return text if len(text) < 3000 else text[:1500] + "\n  [...]\n" + text[-1500:]


class Live:
    """A command that is running, in a session of its own."""

    def __init__(self, test, argv, **popen):
        self.argv = argv
        self.start = time.monotonic()
        self.deadline = test.deadline
        self.err_path = test.path(f"stderr-{len(test.live)}")
        popen.setdefault("stdin", subprocess.PIPE)
        popen.setdefault("stdout", subprocess.PIPE)
        with open(self.err_path, "wb") as err:
            self.proc = subprocess.Popen(argv, stderr=err, start_new_session=True,
                                         cwd=test.tmp, **popen)
        self.pid = self.proc.pid
        self.buffer = b""

    def err(self):
        with open(self.err_path, "rb") as f:
            return f.read()

    def members(self):
        return [p for p, _, session, state in processes()
                if session == self.pid and state not in "ZX"]

    def say(self, line):
        self.proc.stdin.write(line.encode() + b"\n")
        self.proc.stdin.flush()

    def line(self, seconds=None):
        """The next line on stdout; None at its end or when no line came in time."""
        end = min(self.deadline, time.monotonic() + (seconds or 1e9))
        fd = self.proc.stdout.fileno()
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                return None
            data = os.read(fd, 65536)
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode(errors="replace")

    def finish(self, stdin=None):
        """Close stdin and wait for the end; nothing may be left behind."""
        try:
            out, _ = self.proc.communicate(stdin, timeout=max(1, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            where = self.describe()
            self.kill()
            raise Failed(f"did not end in time\n  command: {' '.join(self.argv)}\n"
                         f"  {where}\n  stderr: {clip(self.err())}") from None
        seconds = time.monotonic() - self.start
        status = self.proc.returncode
        run = Run(self.argv, status if status >= 0 else 128 - status,
                  self.buffer + (out or b""), self.err(), seconds)
        if not wait_until(lambda: not self.members(), 1):
            where = self.describe()
            self.kill()
            raise Failed(f"processes left behind: {where}\n{run}")
        return run

    def describe(self):
        text = []
        for pid in self.members():
            try:
                with open(f"/proc/{pid}/status") as f:
                    status = f.read()
                name = re.search(r"Name:\s*(.*)", status)[1]
                state = re.search(r"State:\s*(.*)", status)[1]
                text.append(f"pid {pid} {name} ({state})")
            except (OSError, TypeError):
                pass
        return "; ".join(text) or "nothing is running"

    def kill(self):
        for _ in range(3):
            for pid in self.members():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait()


class Test:
    """One case under way."""

    def __init__(self, vswap, progs, tmp, shared, timeout, sanitized):
        self.vswap = vswap
        self.progs = progs
        self.tmp = tmp                  # a directory of its own, removed afterwards
        self.shared = shared            # one for all cases, see made()
        self.number = next(NUMBERS)     # of its own, for names
        self.sanitized = sanitized
        self.deadline = time.monotonic() + timeout
        self.live = []
        self.ram = SANITIZERS[sanitized][0] if sanitized else 32 * MIB

    def path(self, name):
        return os.path.join(self.tmp, name)

    def made(self, name, make):
        """The path of what is costly to make and for all cases; make(path) does, once."""
        path = os.path.join(self.shared, name)
        with MAKING:
            if not os.path.exists(path):
                make(path + ".new")
                os.rename(path + ".new", path)
        return path

    def prog(self, name):
        return os.path.join(self.progs, name)

    def size(self, factor):
        """Bytes to use for that much overcommit; under sanitizers, for some."""
        return self.ram + 32 * MIB if self.sanitized else factor * self.ram

    def vmtest(self, name, size, *options):
        return [self.prog("vmtest"), name, "--size", f"{size // MIB}M", *options]

    def check(self, ok, message, run=None):
        if not ok:
            raise Failed(message + (f"\n{run}" if run else ""))

    def need_root(self):
        if os.geteuid() != 0:
            raise Skipped("needs root")

    def need_userfaultfd(self):
        if not can_userfaultfd():
            raise Skipped("needs permission for userfaultfd")

    def spawn(self, argv, **popen):
        live = Live(self, argv, **popen)
        self.live.append(live)
        return live

    def run(self, argv, stdin=b"", **popen):
        return self.spawn(argv, **popen).finish(stdin)

    def pss(self, argv):
        """The command for that with its summed PSS sampled every 50 ms, for peak()."""
        return [self.prog("pss"), "-o", self.path("pss"), *argv]

    def peak(self, run, bound):
        """What it had at most; where it is held to a bound, it was looked at often enough."""
        with open(self.path("pss")) as f:
            text = f.read().split()
        self.check(len(text) == 3, "no samples", run)
        peak, samples, elapsed_ms = map(int, text)
        # A quarter: one may take long, for many maps, or made again as processes end.
        self.check(not bound or self.sanitized or samples * 200 + 500 >= elapsed_ms,
                   f"only {samples} samples of its memory in {elapsed_ms} ms", run)
        return peak

    def sampled(self, argv, stdin=b"", **popen):
        """run(), with that in .peak."""
        run = self.run(self.pss(argv), stdin, **popen)
        run.peak = self.peak(run, True)
        return run

    def vswap_run(self, *args):
        return [self.vswap, "run", *args]

    def paged(self, argv, ram=None, options=(), status=0, bound=True, paged_out=True, stdin=b"",
              own_bound=True, **popen):
        """Run argv in ram bytes; returns the run and its statistics.

        What every such run must keep: the exit status, the memory bound, by
        its own count as well, a statistics file, and that the program was
        paged at all.
        """
        return self.paged_end(self.paged_begin(argv, ram, options, **popen), status, bound,
                              paged_out, stdin, own_bound)

    def paged_begin(self, argv, ram=None, options=(), **popen):
        """The same for a command that others talk to; paged_end() ends it."""
        self.need_userfaultfd()
        live = self.spawn(self.pss(self.vswap_run(
            "--ram", str(ram or self.ram), "--stats", self.path("stats.json"), *options,
            "--", *argv)), **popen)
        live.limit = (ram or self.ram) * 1.05 + 16 * MIB
        return live

    def paged_end(self, live, status=0, bound=True, paged_out=True, stdin=b"", own_bound=True):
        return self.paged_ended(live, live.finish(stdin), status, bound, paged_out, own_bound)

    def paged_ended(self, live, run, status, bound, paged_out, own_bound=True):
        self.check(run.status == status, f"status {run.status}, not {status}", run)
        try:
            with open(self.path("stats.json")) as f:
                stats = json.load(f)
        except (OSError, ValueError) as e:
            raise Failed(f"statistics: {e}\n{run}") from None
        run.peak = self.peak(run, bound)
        self.check(stats["pgsteal"] > 0 or not paged_out, "nothing was paged out", run)
        if bound and not self.sanitized:
            own = stats["ram_bytes_peak"]
            self.check(run.peak <= live.limit, f"peak memory {run.peak / MIB:.1f} MiB, bound is "
                       f"{live.limit / MIB:.1f} MiB ({own / MIB:.1f} MiB by its own count)", run)
            self.check(not own_bound or own <= live.limit, "ram_bytes_peak is above the bound",
                       run)
        return run, stats

    def copied(self, argv, ram=None, options=(), bound=True, env=None):
        """paged() as on a kernel without UFFDIO_MOVE; (run, None): ended by MAPPED_ANEW."""
        env = dict(env or os.environ, VSWAP_DEBUG="nomove")
        live = self.paged_begin(argv, ram, options, env=env)
        run = live.finish(b"")
        if run.status == 137 and MAPPED_ANEW in run.err:
            self.check(b"WRONG" not in run.err and b"vmtest:" not in run.err, "wrong bytes", run)
            return run, None
        return self.paged_ended(live, run, 0, bound, False)

    def finish(self):
        left = [live for live in self.live if live.proc.poll() is None or live.members()]
        for live in left:
            live.kill()
