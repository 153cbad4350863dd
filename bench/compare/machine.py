# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the comparison changes on the machine, and that all of it is put back.

Whatever is made is registered on a stack in the same moment, with signals held back, and
undone from there, however the command ends.  What the machine looked like is written
down before and compared after.
"""
import contextlib
import glob
import os
import re
import signal
import subprocess
import sys
import time

PREFIX = "vswap-compare-"        # of every file and cgroup made here
# Under nohup it goes on when the terminal has gone.
SIGNALS = [sig for sig in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
           if sig != signal.SIGHUP or signal.getsignal(sig) != signal.SIG_IGN]
V1 = "/sys/fs/cgroup/memory"
V2 = "/sys/fs/cgroup"
ZSWAP = "/sys/module/zswap/parameters"


class Missing(Exception):
    """The machine does not have something; the text says what."""


def said(e):
    """What an exception says, as vswap's own messages do."""
    if isinstance(e, OSError) and e.strerror:
        return f"{e.filename}: {e.strerror}" if e.filename else e.strerror
    return str(e)


def read(path):
    with open(path) as f:
        return f.read()


def write(path, text):
    with open(path, "w") as f:
        f.write(str(text))


def tool(*argv):
    """Run one of the system's tools; Missing if it is not there or says no."""
    try:
        done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              text=True, check=False, start_new_session=True)
    except FileNotFoundError:
        raise Missing(f"there is no {argv[0]}") from None
    if done.returncode:
        text = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise Missing(text if text.startswith(argv[0]) else f"{argv[0]}: {text}")


def patiently(action):
    """What the kernel says EBUSY to for a moment after the last user has gone."""
    for _ in range(100):
        try:
            action()
            return
        except (OSError, Missing):
            time.sleep(0.1)
    action()


class Signals:
    """A signal ends the command by an exception, so that all is put back."""
    held = 0       # how many uninterrupted() are under way
    came = None

    @classmethod
    def catch(cls):
        for sig in SIGNALS:
            signal.signal(sig, cls.handle)

    @classmethod
    def ignore(cls):
        for sig in SIGNALS:
            signal.signal(sig, signal.SIG_IGN)

    @classmethod
    def handle(cls, number, _):
        if cls.held:
            cls.came = number
            return
        # From here on it is being put back.
        cls.ignore()
        sys.exit(128 + number)


@contextlib.contextmanager
def uninterrupted():
    """A signal that comes meanwhile is taken at the end."""
    Signals.held += 1
    try:
        yield
    finally:
        Signals.held -= 1
        if Signals.came and not Signals.held:
            number, Signals.came = Signals.came, None
            Signals.handle(number, None)


class Undo(contextlib.ExitStack):
    """How to put back what was changed: all of it is tried, and what fails is kept."""

    def __init__(self):
        super().__init__()
        self.failed = []

    def callback(self, callback, /, *args, **kwds):
        return super().callback(self.attempt, callback, *args, **kwds)

    def attempt(self, action, *args, **kwds):
        try:
            action(*args, **kwds)
        except (Missing, OSError) as e:
            self.failed.append(said(e))


def swaps():
    """Names of what is swapped to; the kernel writes blanks and the like in octal."""
    # One that cannot swap has no such file.
    return [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[0])
            for line in (text_of("/proc/swaps") or "").splitlines()[1:]]


def controller():
    """(version, where) of the memory cgroup controller."""
    if os.path.exists(f"{V1}/memory.limit_in_bytes"):
        return 1, V1
    try:
        if "memory" in read(f"{V2}/cgroup.controllers").split():
            return 2, V2
    except OSError:
        pass
    raise Missing("no memory cgroup controller, v1 or v2, is mounted under /sys/fs/cgroup")


def text_of(path):
    """What a file says that may not be there, or not be for us."""
    try:
        return read(path).strip()
    except OSError:
        return None


def snapshot(directory):
    """All that may be found changed afterwards."""
    found = {"swap": swaps(), "zram devices": sorted(glob.glob("/sys/block/zram*")),
             "zram module": os.path.exists("/sys/class/zram-control"),
             "cgroups": sorted(glob.glob(f"{V1}/{PREFIX}*") + glob.glob(f"{V2}/{PREFIX}*")),
             "cgroup controllers": text_of(f"{V2}/cgroup.subtree_control"),
             "files": sorted(glob.glob(f"{directory}/{PREFIX}*"))}
    for path in sorted(glob.glob(f"{ZSWAP}/*")):
        found[f"zswap {os.path.basename(path)}"] = text_of(path)
    for path in glob.glob("/sys/block/zram*/disksize"):
        found[f"size of {path.split('/')[3]}"] = text_of(path)
    return found


def differences(before, after):
    return [f"{key}: was {before.get(key)}, is {after.get(key)}"
            for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]


class Cgroup:
    """A memory limit for one run."""

    def __init__(self, undo):
        self.version, self.root = controller()
        self.path = None
        if self.version == 2:
            control = f"{V2}/cgroup.subtree_control"
            try:
                with uninterrupted():
                    if "memory" not in read(control).split():
                        write(control, "+memory")
                        undo.callback(write, control, "-memory")
            except OSError as e:
                raise Missing(f"{control}: {e.strerror}") from None
        undo.callback(self.end)
        # Is it for us?
        try:
            self.begin(1 << 30)
            subprocess.run(["true"], check=True, preexec_fn=self.enter)
            self.end()
        except OSError as e:
            raise Missing(f"no cgroup can be made in {self.root}: {e.strerror}") from None
        except subprocess.SubprocessError:
            raise Missing(f"no cgroup in {self.root} can be entered") from None

    def begin(self, limit):
        with uninterrupted():
            path = f"{self.root}/{PREFIX}{os.getpid()}"
            os.mkdir(path)
            self.path = path
        write(f"{self.path}/memory.{'limit_in_bytes' if self.version == 1 else 'max'}", limit)

    def enter(self):
        write(f"{self.path}/cgroup.procs", os.getpid())

    def peak(self):
        """Bytes, or None (v2 before Linux 5.19)."""
        name = "max_usage_in_bytes" if self.version == 1 else "peak"
        text = text_of(f"{self.path}/memory.{name}")
        return None if text is None else int(text)

    def kills(self):
        """How many processes the kernel has killed in it for want of memory."""
        if not self.path:
            return 0
        text = text_of(f"{self.path}/memory.{'oom_control' if self.version == 1 else 'events'}")
        return next((int(line.split()[1]) for line in (text or "").splitlines()
                     if line.split()[0] == "oom_kill"), 0)

    def end(self):
        if self.path is None:
            return
        with uninterrupted():
            for pid in (text_of(f"{self.path}/cgroup.procs") or "").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if self.version == 1:
                # Page cache it was charged for, which else holds the dead group.
                with contextlib.suppress(OSError):
                    write(f"{self.path}/memory.force_empty", 0)
            patiently(lambda: os.rmdir(self.path))
            self.path = None
