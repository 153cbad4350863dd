# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Tiers on servers and encrypted tiers, and stores that fail, hang, go away and come back."""
import os
import signal
import socket
import subprocess
import sys
import time

from failure import answer, check_pages, hold, message_names, tier_file, under
from harness import MIB, Skipped, case, wait_until


class Server:
    """An nbdkit of our own, gone with the block."""

    def __init__(self, t, *args, tcp=False):
        self.t = t
        self.args = args
        self.proc = None
        self.sock = t.path("nbd-sock")
        self.uri = f"nbd+unix:///?socket={self.sock}"
        self.where = ["-U", self.sock]
        if tcp:
            with socket.socket() as s:
                s.bind(("127.0.0.1", 0))
                port = s.getsockname()[1]
            self.uri = f"nbd://127.0.0.1:{port}/"
            self.where = ["-i", "127.0.0.1", "-p", str(port)]

    def start(self):
        ready = self.t.path("nbd-ready")
        for path in (ready, self.sock):
            if os.path.exists(path):
                os.unlink(path)
        self.proc = subprocess.Popen(
            ["nbdkit", "-f", "--exit-with-parent", "-P", ready, *self.where, *self.args],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.t.check(wait_until(lambda: os.path.exists(ready), 10), "nbdkit does not start")

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.t.finish()
        self.kill()


def disk(t, size):
    """An export that keeps its contents when its server dies."""
    path = t.path("nbd-disk")
    with open(path, "wb") as f:
        f.truncate(size)
    return "file", path


def messages(live, *words):
    return sum(line.startswith("vswap:") and all(w in line for w in words)
               for line in live.err().decode().splitlines())


@case("tiers/nbd", sanitized=["address"])
def nbd(t):
    """Four times the memory, the rest of it on a server."""
    with Server(t, "memory", "1G", tcp=True) as server:
        run, stats = t.paged(t.vmtest("rw", t.size(4), "--hard"), options=("--tier", server.uri))
        t.check(b"vswap:" not in run.err, "a message from vswap", run)
        t.check(stats["pswpin"] > 0 and stats["pswpout"] > 0, f"not used: {stats['tiers']}", run)
        t.check(stats["tiers"][0]["name"] == server.uri, f"tiers: {stats['tiers']}")


@case("tiers/nbd-restarted", timeout=90, waits=True)
def nbd_restarted(t):
    """The server is killed and started again in the middle: time, nothing else."""
    t.need_userfaultfd()
    with Server(t, *disk(t, 1024 * MIB)) as server:
        live = t.spawn(under(t, "rw", t.size(4), "--tier", server.uri, passes=3))
        time.sleep(1)
        for away in (0.1, 1.5, 0.1):
            t.check(live.proc.poll() is None, f"ended early: {live.err()}")
            server.kill()
            time.sleep(away)
            server.start()
            time.sleep(0.5)
        run = live.finish()
        t.check(run.status == 0 and run.out == b"ok rw\n", "failed", run)
        gone, back = messages(live, "wait for the server"), messages(live, "server is back")
        t.check(1 <= back <= gone <= 3, f"{gone} times gone, {back} times back", run)


@case("tiers/nbd-away", timeout=90, waits=True)
def nbd_away(t):
    """While a server is away new pages go to another tier, and only its own wait for it."""
    with Server(t, *disk(t, 1024 * MIB)) as server:
        other = tier_file(t, 2 * t.size(4) // MIB)
        live, _ = hold(t, t.size(4), "--tier", f"{server.uri},prio=9", "--tier", f"{other},prio=1")
        server.kill()
        # Frees the server's pages as well: nobody waits for that.
        t.check(answer(t, live, f"grow {t.size(4)}", 30) == "grown", "did not grow")
        t.check(check_pages(t, live)["sigbus"] == 0, "pages were lost")
        t.check(messages(live, "wait for the server") == 1, f"messages: {live.err()}")
        t.check(messages(live, "write error") == 0, f"given up: {live.err()}")
        server.start()
        t.check(wait_until(lambda: messages(live, "is back"), 10), f"not back: {live.err()}")
        t.check(answer(t, live, "write") == "written", "not written")
        t.check(check_pages(t, live)["sigbus"] == 0, "pages were lost")
        run = live.finish()
        t.check(run.status == 0, "failed", run)


@case("tiers/nbd-hangs", timeout=90, waits=True)
def nbd_hangs(t):
    """A server that stops answering: waited for, then errors at its pages alone."""
    with Server(t, *disk(t, 1024 * MIB)) as server:
        other = tier_file(t, 2 * t.size(4) // MIB)
        live, _ = hold(t, t.size(4), "--tier", f"{server.uri},prio=9,timeout=6",
                       "--tier", f"{other},prio=1")
        # Shorter than the limit: nothing but time.
        server.proc.send_signal(signal.SIGSTOP)
        live.say("check")
        time.sleep(0.7)
        server.proc.send_signal(signal.SIGCONT)
        line = live.line(30)
        t.check(line and line.endswith("sigbus 0 wrong 0"), f"answer {line!r}")
        t.check(live.err() == b"", "a message from vswap")
        # Longer: what it has is lost.
        server.proc.send_signal(signal.SIGSTOP)
        found = check_pages(t, live)
        t.check(found["sigbus"] > 0 and found["good"] > 0, f"found {found}")
        message_names(t, live, server.uri, "no server for 6 s")
        message_names(t, live, server.uri, "slot")
        # The run goes on with the other.
        t.check(answer(t, live, f"grow {t.size(4)}") == "grown", "did not grow")
        t.check(check_pages(t, live)["sigbus"] == 0, "pages were lost")
        run = live.finish()
        t.check(run.status == 0, "failed", run)


@case("tiers/nbd-write-error", timeout=90)
def nbd_write_error(t):
    """A server that cannot write is not used any more; another tier is."""
    bad = t.path("bad")
    with Server(t, "--filter=error", "memory", "1G", "error-pwrite=EIO", "error-pwrite-rate=1",
                f"error-pwrite-file={bad}") as server:
        other = tier_file(t, 2 * t.size(4) // MIB)
        live, _ = hold(t, t.size(4), "--tier", f"{server.uri},prio=9", "--tier", f"{other},prio=1")
        with open(bad, "w"):
            pass
        t.check(answer(t, live, "write") == "written", "not written")
        found = check_pages(t, live)
        t.check(found["sigbus"] == 0, f"pages were lost: {found}")
        message_names(t, live, server.uri, "write error")
        run = live.finish()
        t.check(run.status == 0, "failed", run)


@case("tiers/nbd-read-error", timeout=90)
def nbd_read_error(t):
    """A server that cannot read: SIGBUS at those pages only."""
    bad = t.path("bad")
    with Server(t, "--filter=error", "memory", "1G", "error-pread=EIO", "error-pread-rate=1",
                f"error-pread-file={bad}") as server:
        live, _ = hold(t, t.size(2), "--tier", server.uri)
        with open(bad, "w"):
            pass
        lost = check_pages(t, live)
        t.check(lost["sigbus"] > 0 and lost["good"] > 0, f"found {lost}")
        message_names(t, live, server.uri, "slot")
        os.unlink(bad)
        again = check_pages(t, live)
        t.check(again["sigbus"] == lost["sigbus"], f"lost {lost}, then {again}: {live.err()}")
        t.check(answer(t, live, f"grow {t.size(4)}") == "grown", "did not grow")
        t.check(check_pages(t, live)["sigbus"] == 0, "new pages are lost")
        run = live.finish()
        t.check(run.status == 0, "failed", run)


class Device:
    """The export of a server as a block device, to make one do what a server can be told to."""

    def __init__(self, t, server):
        t.need_root()
        if not os.path.exists("/dev/fuse"):
            raise Skipped("needs FUSE")
        self.t = t
        self.server = server
        self.file = t.path("mounted")
        with open(self.file, "w"):
            pass

    def __enter__(self):
        self.fuse = subprocess.Popen(["nbdfuse", self.file, self.server.uri],
                                     stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.t.check(wait_until(lambda: os.path.getsize(self.file) > 0, 10), "nbdfuse fails")
        # Otherwise the page cache would answer instead of the server.
        run = self.t.run(["losetup", "--find", "--show", "--direct-io=on", self.file])
        self.t.check(run.status == 0, "losetup", run)
        self.path = run.out.decode().strip()
        return self.path

    def __exit__(self, *exc):
        self.server.proc.send_signal(signal.SIGCONT)
        self.t.finish()
        subprocess.run(["losetup", "--detach", self.path], check=False)
        subprocess.run(["umount", "--lazy", self.file], check=False)
        self.fuse.kill()
        self.fuse.wait()


@case("tiers/device-fails", timeout=90, waits=True)
def device_fails(t):
    """A block device that hangs for a while, then cannot be written, then not be read."""
    t.need_userfaultfd()
    bad_write, bad_read = t.path("bad-write"), t.path("bad-read")
    with Server(t, "--filter=error", "memory", "512M", "error-pwrite=EIO", "error-pwrite-rate=1",
                f"error-pwrite-file={bad_write}", "error-pread=EIO", "error-pread-rate=1",
                f"error-pread-file={bad_read}") as server, Device(t, server) as path:
        other = tier_file(t, 2 * t.size(4) // MIB)
        live, _ = hold(t, t.size(4), "--tier", f"{path},prio=9", "--tier", f"{other},prio=1")
        server.proc.send_signal(signal.SIGSTOP)
        live.say("check")
        time.sleep(1)
        server.proc.send_signal(signal.SIGCONT)
        line = live.line(30)
        t.check(line and line.endswith("sigbus 0 wrong 0"), f"answer {line!r}")
        with open(bad_write, "w"):
            pass
        t.check(answer(t, live, f"grow {t.size(4)}") == "grown", "did not grow")
        t.check(check_pages(t, live)["sigbus"] == 0, "pages were lost")
        message_names(t, live, path, "write error")
        os.unlink(bad_write)
        run = live.finish()
        t.check(run.status == 0, "failed", run)

        live, _ = hold(t, t.size(2), "--tier", path)
        with open(bad_read, "w"):
            pass
        lost = check_pages(t, live)
        t.check(lost["sigbus"] > 0 and lost["good"] > 0, f"found {lost}")
        message_names(t, live, path, "slot")
        os.unlink(bad_read)
        run = live.finish()
        t.check(run.status == 0, "failed", run)


# ---- encryption -------------------------------------------------------------

# Pages of noise, so that they leave memory, each with a text in it.
SECRET = b"the secret that shall not be found"
PROGRAM = f"""
import os, random, sys
def page(i):
    return random.Random(i).randbytes(3968) + b"the secret " + b"that shall not be found" + bytes(94)
pages = [page(i) for i in range({48 * MIB // 4096})]
print("ready", flush=True)
sys.stdin.readline()
print("good" if all(p == page(i) for i, p in enumerate(pages)) else "WRONG", flush=True)
os._exit(0)
"""


def secrets_found(t, *options):
    path = tier_file(t, 512)
    live = t.spawn(t.vswap_run("--ram", str(t.ram), "--tier", path, *options, "--",
                               sys.executable, "-c", PROGRAM))
    t.check(live.line(40) == "ready", f"not ready: {live.err()}")
    with open(path, "rb") as f:
        found = sum(f.read(64 * MIB).count(SECRET) for _ in range(8))
    live.say("")
    line = live.line(40)
    t.check(line == "good", f"answer {line!r}: {live.err()}")
    run = live.finish()
    t.check(run.status == 0 and run.err == b"", "failed", run)
    return found


@case("tiers/encrypt")
def encrypt(t):
    """What lies on an encrypted tier cannot be read there."""
    t.need_userfaultfd()
    plain, hidden = secrets_found(t), secrets_found(t, "--encrypt")
    t.check(plain > 1000, f"found only {plain} times in the open")
    t.check(hidden == 0, f"found {hidden} times though encrypted")


@case("tiers/encrypt-nbd", timeout=90)
def encrypt_nbd(t):
    """Encrypted, on a server that is restarted."""
    t.need_userfaultfd()
    with Server(t, *disk(t, 1024 * MIB)) as server:
        live = t.spawn(under(t, "threads", t.size(4), "--tier", server.uri, "--encrypt"))
        time.sleep(2)
        server.kill()
        server.start()
        run = live.finish()
        t.check(run.status == 0, "failed", run)


@case("tiers/encrypt-corrupted", timeout=90)
def encrypt_corrupted(t):
    """What was changed on an encrypted tier is noticed as on any other."""
    path = tier_file(t, 2 * t.size(4) // MIB)
    live, _ = hold(t, t.size(4), "--tier", path, "--encrypt")
    t.check(check_pages(t, live)["sigbus"] == 0, "pages are lost")
    with open(path, "r+b") as f:
        for at in range(MIB, os.path.getsize(path), 4096):
            f.seek(at + at // 4096 % 4096)
            f.write(b"x")
    after = check_pages(t, live)
    t.check(after["sigbus"] > 0, f"nothing was lost: {after}")
    message_names(t, live, path, "checksum")
    run = live.finish()
    t.check(run.status == 0, "failed", run)


# ---- refused ------------------------------------------------------------------

@case("tiers/refused")
def refused(t):
    """Addresses that lead nowhere, exports that cannot be used: one line, and nothing is run."""
    def refuse(*words, options):
        run = t.run(t.vswap_run(*options, "--", "touch", t.path("ran")))
        lines = run.err.decode().splitlines()
        t.check(run.status == 125, f"status {run.status}, not 125", run)
        t.check(len(lines) == 1 and lines[0].startswith("vswap: ")
                and all(w in lines[0] for w in words), f"not one line with {words}", run)
        t.check(not os.path.exists(t.path("ran")), "it was run all the same", run)

    nowhere = f"nbd+unix:///?socket={t.path('nowhere')}"
    refuse("tier", nowhere, "No such file", options=("--tier", nowhere))
    refuse("refused", options=("--tier", "nbd://127.0.0.1:1/x"))
    refuse("unknown kind of address", options=("--tier", "ftp://host/x"))
    refuse("timeout=0", options=("--tier", "nbd://host/x,timeout=0"))
    refuse("timeout=x", options=("--tier", "nbd://host/x,timeout=x"))
    refuse("no server", options=("--tier", f"{tier_file(t, 64)},timeout=5"))
    with Server(t, "-r", "memory", "64M") as server:
        refuse(server.uri, "read-only", options=("--tier", server.uri))
    with Server(t, "memory", "1M") as server:
        refuse(server.uri, "too small", options=("--tier", server.uri))
    with Server(t, "memory", "64M") as server:
        refuse("has only 64 MiB", options=("--tier", f"{server.uri},size=65M"))
    path = t.path("data")
    with open(path, "wb") as f:
        f.write(os.urandom(64 * MIB))
    with Server(t, "file", path) as server:
        refuse("holds data", options=("--tier", server.uri))
