# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A program that is run and watched: its time, its processors', its page faults."""
import contextlib
import os
import signal
import subprocess
import threading
import time

from compare.machine import Missing, read

SAID = 20000        # bytes of a failed program's output that are kept
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """The program did not do what it should; the text says how it ended."""


# What breaks a run off, and not all that is measured.
BROKEN = (Failed, Missing, OSError, ValueError, subprocess.SubprocessError)


def spent(pid):
    """Seconds of a processor: (of a process that has ended, of the children it had)."""
    words = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    own, children = int(words[11]) + int(words[12]), int(words[13]) + int(words[14])
    return own / TICK, children / TICK


class Job:
    """It is in a session of its own, so that it ends with us, not before."""

    def __init__(self, argv, env, enter=None, sample=None):
        self.argv = argv
        self.gone = threading.Event()
        self.late = False
        self.wall = None
        self.began = time.monotonic()
        with open(os.devnull) as nothing:
            self.proc = subprocess.Popen(argv, stdin=nothing, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE, preexec_fn=enter, env=env,
                                         start_new_session=True)
        self.err = self.rest = b""
        self.threads = [threading.Thread(target=self.read_errors, daemon=True)]
        if sample:
            self.threads.append(threading.Thread(target=self.watch, args=(sample,), daemon=True))
        for thread in self.threads:
            thread.start()
        self.timer = None

    def limit(self, seconds):
        """It may not take more."""
        self.timer = threading.Timer(seconds, self.give_up)
        self.timer.daemon = True
        self.timer.start()

    def read_errors(self):
        self.err = self.proc.stderr.read()

    def watch(self, sample):
        while not self.gone.wait(0.02):
            sample(self.proc.pid)

    def give_up(self):
        self.late = True
        self.signal(signal.SIGKILL)

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.proc.pid, number)

    def ends(self):
        """Its status, as soon as it has; how long it took is noted then."""
        status = os.waitid(os.P_PID, self.proc.pid, os.WEXITED | os.WNOWAIT).si_status
        if self.wall is None:
            self.wall = time.monotonic() - self.began
        return status

    def wait(self):
        """What it took; Failed if it did not end well."""
        self.ends()
        # Of one that has ended and was not waited for, the kernel still tells.
        own, children = spent(self.proc.pid)
        _, status, usage = os.wait4(self.proc.pid, 0)
        self.proc.returncode = os.waitstatus_to_exitcode(status)
        self.end()
        if self.proc.returncode:
            raise Failed(self.why())
        return {"wall_s": self.wall, "cpu_s": usage.ru_utime + usage.ru_stime, "cpu_own_s": own,
                "cpu_children_s": children, "max_rss_bytes": usage.ru_maxrss << 10,
                "major_faults": usage.ru_majflt}

    def ended(self):
        """How it ended by itself, if it did and not well."""
        if self.proc.returncode is None and self.proc.poll() is not None and self.proc.returncode:
            return self.why()
        return None

    def why(self):
        if self.late:
            return "took too long"
        if self.proc.returncode < 0:
            return f"killed by {signal.Signals(-self.proc.returncode).name}"
        lines = self.err.decode(errors="replace").strip().splitlines()
        return f"status {self.proc.returncode}" + (f": {lines[-1]}" if lines else "")

    def end(self):
        """Nothing of it is left after this.  Returns what it said last, if nobody read that."""
        if self.proc.returncode is None:
            self.signal(signal.SIGKILL)
            self.proc.wait()
        self.gone.set()
        if self.timer:
            self.timer.cancel()
        for thread in self.threads:
            thread.join()
        if not self.proc.stdout.closed:
            self.rest = self.proc.stdout.read() + self.err
            self.proc.stdout.close()
            self.proc.stderr.close()
        return self.rest[-SAID:]
