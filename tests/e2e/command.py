# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The vswap command: the program behaves as if it were not there, and bad input is refused."""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time

from harness import MIB, Failed, Skipped, case, is_alive, wait_until

SH = "/bin/sh"
MANUAL = os.path.join(os.path.dirname(__file__), "../../man/vswap.1")
LIBM = [os.path.join(d, "libm.so.6") for d in ("/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64")]


def under(t, *argv, ram="64M"):
    return t.vswap_run("--ram", ram, "--", *argv)


# ---- the program as if alone ------------------------------------------------

@case("command/status", sanitized=True)
def exit_status(t):
    t.need_userfaultfd()
    for status in (0, 1, 3, 125, 126, 127, 255):
        run = t.run(under(t, SH, "-c", f"exit {status}"))
        t.check(run.status == status, f"exit {status} became {run.status}", run)
        t.check(run.out + run.err == b"", "vswap said something", run)


@case("command/signal-status", sanitized=True)
def signal_status(t):
    t.need_userfaultfd()
    for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGPIPE):
        run = t.run(under(t, SH, "-c", f"ulimit -c 0; kill -{int(sig)} $$"))
        t.check(run.status == 128 + sig, f"{sig.name} became status {run.status}", run)


@case("command/streams")
def streams(t):
    t.need_userfaultfd()
    data = os.urandom(8 * MIB)
    run = t.run(under(t, "cat"), stdin=data)
    t.check(run.status == 0 and run.out == data and run.err == b"", "cat is no copy")
    run = t.run(under(t, SH, "-c", "echo out; echo err >&2"))
    t.check((run.out, run.err) == (b"out\n", b"err\n"), "streams are mixed up", run)


@case("command/sigpipe")
def sigpipe(t):
    t.need_userfaultfd()
    vswap = " ".join(under(t, "yes"))
    run = t.run(["bash", "-c", f"{vswap} | head -1; echo ${{PIPESTATUS[0]}}"])
    t.check(run.out == b"y\n141\n", "yes should die by SIGPIPE", run)


CALLS = r"""
import os, socket, time
ours = f"@vswap-{os.getppid()}-"
names = {line.split()[-1][1:] for line in open("/proc/net/unix") if ours in line}
for name in names:
    for _ in range(20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect("\0" + name)
time.sleep(0.3)
print(len(names))
"""
EXECS = r"""
import os, time
ended = set()
for i in range(100):
    child = os.fork()
    if not child:
        until = time.perf_counter() + 0.009 + i * 2e-5
        while time.perf_counter() < until:
            pass
        os.execv("/bin/true", ["true"])
    ended.add(os.waitpid(child, 0)[1])
print(*ended)
"""


@case("command/exec-late")
def exec_late(t):
    """A child that execs as its agent has called, and said nothing, is not killed for that."""
    t.need_userfaultfd()
    for script, want in ((CALLS, b"1\n"), (EXECS, b"0\n")):
        run = t.run(under(t, "python3", "-c", script))
        t.check(run.status == 0 and run.out == want and not run.err, "not as without vswap", run)


BACKGROUND = (
    (SH, "-c", "(sleep 0.2; exec sh -c 'sleep 0.1; echo done') & exit 0"),
    (SH, "-c", "sh -c 'sleep 0.1; echo done' & exit 0"),
    ("python3", "-c", "import os\nos.posix_spawn('/bin/sh', ['sh', '-c', 'sleep 0.1; echo done'],"
                      " os.environ)\nos._exit(0)"),
)


@case("command/background", timeout=120)
def background(t):
    """What execs when the program has ended is waited for, too."""
    t.need_userfaultfd()
    for argv in BACKGROUND:
        for _ in range(4):
            run = t.run(under(t, *argv))
            t.check(run.status == 0 and run.out == b"done\n" and not run.err, "was lost", run)


STRANGER = r"""
import array, ctypes, os, socket, struct, sys, time
ours = f"@vswap-{sys.argv[1]}-"
name, = {line.split()[-1][1:] for line in open("/proc/net/unix") if ours in line}
memfds = 0
for kind in (1, 2):
    for key in (b"", b"0" * 32):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect("\0" + name)
        fds = array.array("i", [ctypes.CDLL(None).syscall(323, os.O_CLOEXEC | 1)])
        s.sendmsg([struct.pack("QIIQIIQ32sQ64x", 0x70617773760006, kind, 0, 0, 0, 0, 0, key, 2)],
                  [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        s.settimeout(5)
        data, more, _, _ = s.recvmsg(4096, 4096)
        memfds += len(more)
mute = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(40)]
for s in mute:
    s.connect("\0" + name)
print(memfds, flush=True)
time.sleep(60)
"""


@case("command/stranger")
def stranger(t):
    """Who knows no more than the socket's public name gets nothing, and hurts nobody."""
    t.need_userfaultfd()
    live = t.spawn(under(t, *t.vmtest("hold", 96 * MIB)))
    t.check((live.line(20) or "").startswith("ready "), "not ready")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    other = t.spawn((nobody if os.geteuid() == 0 else []) +
                    ["/usr/bin/python3", "-c", STRANGER, str(live.pid)])
    line = other.line(20)
    t.check(line == "0", f"got something: {line}: {other.err()}")
    live.say("check")
    t.check(live.line(20) == f"good {96 * MIB // 4096} sigbus 0 wrong 0", "wrong bytes")
    run = live.finish()
    t.check(run.status == 0 and not run.err, "failed", run)
    other.kill()
    # Nor does it hold up who comes then.
    live = t.spawn(under(t, SH, "-c", "echo up; read x; exec sh -c 'echo done'"))
    t.check(live.line(20) == "up", "did not start")
    other = t.spawn(["/usr/bin/python3", "-c", STRANGER, str(live.pid)])
    t.check(other.line(20) == "0", f"got something: {other.err()}")
    live.say("")
    t.check(live.line(8) == "done", f"held up: {live.err()}")
    t.check(live.finish().status == 0, "failed")
    other.kill()


SEEN = {
    "environment": ["env", "-0"],
    "directory": ["pwd", "-P"],
    "arguments": ["printf", "%s|", "a b", "", "-c", "--", "--ram", "\u00e4"],
    "limits": ["bash", "-c", "ulimit -a; umask"],
    "signals": ["grep", "^Sig[BIC]", "/proc/self/status"],
    "descriptors": ["sh", "-c", "cd /proc/self/fd && echo *"],
    "identity": ["id"],
}


@case("command/as-if-alone", sanitized=True)
def as_if_alone(t):
    """What a program can easily see of where it runs is the same."""
    t.need_userfaultfd()
    env = dict(os.environ, VSWAP_TEST="1 2", LD_LIBRARY_PATH="/nowhere")
    with open(t.path("inherited"), "wb") as f:
        for what, argv in SEEN.items():
            popen = {"env": env, "pass_fds": (f.fileno(),)}
            alone, paged = t.run(argv, **popen), t.run(under(t, *argv), **popen)
            if what == "limits":
                few = ["prlimit", "--nofile=200:", "--"]
                alone, paged = t.run(few + argv, **popen), t.run(few + under(t, *argv), **popen)
            t.check((alone.status, alone.out) == (paged.status, paged.out),
                    f"another {what}:\n{alone}\nunder vswap:\n{paged}")


@case("command/own-preload")
def own_preload(t):
    """A program's own LD_PRELOAD is kept, and is all it sees."""
    t.need_userfaultfd()
    lib = next((path for path in LIBM if os.path.exists(path)), None)
    t.check(lib, "no library to preload")
    env = dict(os.environ, LD_PRELOAD=lib)
    run = t.run(under(t, "env"), env=env)
    t.check(f"LD_PRELOAD={lib}\n".encode() in run.out, "LD_PRELOAD is not what it was", run)
    run = t.run(under(t, "cat", "/proc/self/maps"), env=env)
    t.check(b"libm.so" in run.out, "the program's own library is not loaded", run)


@case("command/closed-streams")
def closed_streams(t):
    """No descriptor of vswap's lands on 0, 1 or 2."""
    t.need_userfaultfd()
    for close in ("<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"):
        out = t.path("out")
        script = f"ls -l /proc/self/fd > {out}"
        text = {}
        for name, argv in (("alone", [SH, "-c", script]), ("paged", under(t, SH, "-c", script))):
            quoted = " ".join(f"'{a}'" for a in argv)
            run = t.run(["bash", "-c", f"{quoted} {close}"])
            with open(out) as f:
                text[name] = [line.split()[8] for line in f if "->" in line]
        t.check(text["alone"] == text["paged"], f"{close}: descriptors {text}", run)


@case("command/script")
def script(t):
    t.need_userfaultfd()
    path = t.path("script")
    with open(path, "w") as f:
        f.write('#!/bin/sh\necho "$0 $1"\nexit 9\n')
    os.chmod(path, 0o755)
    run = t.run(under(t, path, "x"))
    t.check(run.status == 9 and run.out == f"{path} x\n".encode(), "script went wrong", run)
    run = t.run(under(t, "./script", "y"))
    t.check(run.status == 9 and run.out == b"./script y\n", "relative path", run)


@case("command/no-dashes")
def no_dashes(t):
    """Options end at the program's name."""
    t.need_userfaultfd()
    run = t.run([t.vswap, "run", "--ram", "64M", "echo", "--ram", "--help"])
    t.check(run.out == b"--ram --help\n", "the program's options were eaten", run)
    run = t.run([t.vswap, "run", "echo", "default"])
    t.check(run.out == b"default\n", "no --ram", run)
    run = t.run([t.vswap, "run", "--ram", "10%", "--", "echo", "percent"])
    t.check(run.out == b"percent\n", "--ram 10%", run)


# ---- signals and the terminal -----------------------------------------------

@case("command/sigterm", sanitized=True)
def sigterm(t):
    """SIGTERM to vswap reaches the program, which may take it as it likes."""
    t.need_userfaultfd()
    for body, status in (("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done", 7),
                         ("echo up; exec sleep 60", 143)):
        live = t.spawn(under(t, SH, "-c", body))
        t.check(live.line(10) == "up", "did not start")
        os.kill(live.pid, signal.SIGTERM)
        run = live.finish()
        t.check(run.status == status, f"status {run.status}, not {status}", run)


HEARS = """
import signal, sys
left = signal.valid_signals() - {signal.Signals[name] for name in sys.argv[1].split()}
def hear(number, frame):
    left.discard(number)
    print(number, flush=True)
for number in left:
    signal.signal(number, hear)
print("up", flush=True)
while left:
    signal.pause()
"""
# Those nobody can have, those of a fault, and that of vswap's child.
NOT_PASSED = "SIGKILL SIGSTOP SIGSEGV SIGBUS SIGFPE SIGILL SIGTRAP SIGSYS SIGCHLD"


@case("command/signals", timeout=120)
def signals(t):
    """Whatever is sent to vswap reaches the program, and does nothing to vswap."""
    t.need_userfaultfd()
    live = t.spawn(under(t, sys.executable, "-c", HEARS, NOT_PASSED))
    t.check(live.line(10) == "up", f"did not start: {live.err()}")
    left = signal.valid_signals() - {signal.Signals[name] for name in NOT_PASSED.split()}
    for number in sorted(left):
        os.kill(live.pid, number)
        line = live.line(5)
        t.check(line == str(int(number)), f"signal {number}: {line!r}; status {live.proc.poll()}")
    run = live.finish()
    t.check(run.status == 0 and not run.err, "went wrong", run)

    # An alarm() from before the exec is the program's, vswap's own processor time is not.
    run = t.run([sys.executable, "-c", "import os, signal, sys; signal.alarm(1)\n"
                 "os.execv(sys.argv[1], sys.argv[1:])", *under(t, "sleep", "5")])
    t.check(run.status == 128 + signal.SIGALRM, "no alarm", run)
    vmtest = " ".join(t.vmtest("rw", t.size(3), "--hard", "--passes", "1"))
    run = t.run(["sh", "-c", f"""ulimit -St 1; exec "$@" sh -c "trap '' XCPU; exec {vmtest}" """,
                 "sh", *under(t, ram="32M")])
    t.check(run.status == 0 and run.out == b"ok rw\n", "killed for vswap's own time", run)


@case("command/sigchld", timeout=20)
def sigchld(t):
    """Started with SIGCHLD ignored, vswap sees the end all the same, and the program its own."""
    t.need_userfaultfd()
    script = "trap '' CHLD; exec \"$@\""
    run = t.run(["bash", "-c", script, "bash", *under(t, SH, "-c", "exit 3")])
    t.check(run.status == 3, f"status {run.status}", run)
    argv = SEEN["signals"]
    alone = t.run(["bash", "-c", script, "bash", *argv])
    paged = t.run(["bash", "-c", script, "bash", *under(t, *argv)])
    t.check(alone.out == paged.out, f"{alone}\n{paged}")


@case("command/sigterm-late", timeout=30)
def sigterm_late(t):
    """After the program's end a signal goes to what it left behind, and to nobody else."""
    t.need_userfaultfd()
    live = t.spawn(under(t, SH, "-c", "sleep 20 >&- 2>&- & echo $$; exit 6"))
    pid = live.line(10)
    t.check(pid and wait_until(lambda: not is_alive(int(pid)), 5), "did not end")
    time.sleep(0.3)
    t.check(live.proc.poll() is None, "does not wait for the rest")
    begin = time.monotonic()
    os.kill(live.pid, signal.SIGTERM)
    run = live.finish()
    t.check(run.status == 6 and time.monotonic() - begin < 5, "did not end by SIGTERM", run)


class Terminal:
    """A bash with job control on a terminal of its own."""

    def __init__(self, t, script):
        self.t = t
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(t.tmp)
                os.execv("/bin/bash", ["bash", "--norc", "-c", script])
            finally:
                os._exit(127)

    def expect(self, text, seconds=10):
        end = time.monotonic() + seconds
        while text.encode() not in self.seen:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                self.close()
                raise Failed(f"terminal: no '{text}' in {self.seen!r}")
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                data = b""
            if not data:
                self.close()
                raise Failed(f"terminal: ended without '{text}': {self.seen!r}")
            self.seen += data
        self.seen = self.seen.partition(text.encode())[2]

    def press(self, key):
        os.write(self.fd, key)

    def close(self):
        os.close(self.fd)
        for sig in (signal.SIGHUP, signal.SIGKILL):
            try:
                os.kill(self.pid, sig)
            except ProcessLookupError:
                pass
        os.waitpid(self.pid, 0)


@case("command/ctrl-c")
def ctrl_c(t):
    """Ctrl-C goes to the program once, by the terminal, and vswap waits for what it does."""
    t.need_userfaultfd()
    vswap = " ".join(under(t))
    term = Terminal(t, f"""trap : INT
        {vswap} sh -c 'echo up1; exec sleep 60'; echo "first=$?"
        {vswap} {sys.executable} -c '
import signal, sys, time
n = 0
def hit(*a):
    global n
    n += 1
signal.signal(signal.SIGINT, hit)
print("up2", flush=True)
while not n:
    time.sleep(0.02)
time.sleep(0.3)
sys.exit(40 + n)'; echo "second=$?" """)
    term.expect("up1")
    term.press(b"\x03")
    term.expect("first=130")
    term.expect("up2")
    term.press(b"\x03")
    term.expect("second=41")
    term.close()


@case("command/ctrl-z")
def ctrl_z(t):
    """Ctrl-Z stops program and vswap, fg goes on with both."""
    t.need_userfaultfd()
    vswap = " ".join(under(t, *t.vmtest("hold", 96 * MIB)))
    term = Terminal(t, f"""set -m
        {vswap}; echo "stopped=$?"; fg; echo "ended=$?" """)
    term.expect("ready ")
    term.press(b"\x1a")
    term.expect(f"stopped={128 + signal.SIGTSTP}")
    time.sleep(0.2)
    term.press(b"check\n")
    term.expect("sigbus 0 wrong 0")
    term.press(b"\x04")
    term.expect("ended=0")
    term.close()


@case("command/terminal")
def terminal(t):
    t.need_userfaultfd()
    vswap = " ".join(under(t))
    term = Terminal(t, f"""{vswap} sh -c 'test -t 0 && test -t 1 && test -t 2 && exec 3</dev/tty &&
        stty size >/dev/null && echo is-a-terminal'; echo "status=$?" """)
    term.expect("is-a-terminal")
    term.expect("status=0")
    term.close()


# ---- reports ----------------------------------------------------------------

NAMES = """ram_bytes_peak ram_bytes ram_limit_bytes program_resident_bytes pool_bytes pool_objects
tier_bytes table_bytes cluster_bytes slots_used slots_peak faults pages_out readahead refaults
fault_latency_ns tiers pswpin pswpout zswpin zswpout elapsed_ns""".split()
MEMBERS = {
    "faults": "first_touch cache fill pool tier",
    "pages_out": "fill pool tier",
    "readahead": "hits misses",
    "evictions": "move copy busy spared",
    "fault_latency_ns": "p50 p99 p99_9 max",
}


@case("command/stats", sanitized=["address"])
def stats(t):
    _, st = t.paged(t.vmtest("rw", t.size(3), "--hard", "--passes", "1"))
    for name in NAMES:
        t.check(name in st, f"statistics have no {name}: {sorted(st)}")
    for name, members in MEMBERS.items():
        for member in members.split():
            t.check(isinstance(st[name].get(member), int), f"no number {name}.{member}: {st[name]}")
    lat = st["fault_latency_ns"]
    t.check(0 < lat["p50"] <= lat["p99"] <= lat["p99_9"] <= lat["max"], f"latencies {lat}")
    t.check(t.sanitized or 0 < st["ram_bytes_peak"] <= st["ram_limit_bytes"] * 1.05 + 16 * MIB,
            f"peak {st['ram_bytes_peak']} of {st['ram_limit_bytes']}")
    t.check(len(st["tiers"]) == 1 and st["tiers"][0]["bytes_written"] >= st["pswpout"] * 2048,
            f"tier {st['tiers']}, pswpout {st['pswpout']}")
    t.check(st["slots_peak"] >= st["slots_used"], "slots")
    with open(MANUAL) as f:
        told = f.read().partition(".Sh STATISTICS")[2].partition(".Sh ENVIRONMENT")[0]
    for name, value in st.items():
        members = value if isinstance(value, dict) else ()
        for word in (name, *members):
            t.check(re.search(rf"\b{word}\b", told), f"{name}: the manual does not have {word}")


@case("command/verbose")
def verbose(t):
    t.need_userfaultfd()
    run = t.run(t.vswap_run("--ram", "32M", "--verbose", "--", *t.vmtest("seq", 64 * MIB)))
    t.check(run.out == b"ok seq\n", "wrong output", run)
    for word in (b"memory", b"faults", b"pages out", b"pool"):
        t.check(word in run.err, f"no '{word.decode()}' in the summary", run)
    t.check(all(line.startswith(b"vswap:") for line in run.err.splitlines()),
            "a line without name", run)


@case("command/stat")
def stat(t):
    t.need_userfaultfd()
    live = t.spawn(under(t, *t.vmtest("hold", 128 * MIB)))
    ready = live.line(20)
    t.check(ready and ready.startswith("ready "), f"not ready: {ready} {live.err()}")
    pid = ready.split()[1]
    run = t.run([t.vswap, "stat"])
    t.check(run.status == 0 and pid in run.out.decode().split(), "not listed", run)
    run = t.run([t.vswap, "stat", pid])
    t.check(run.status == 0 and run.out, "not shown", run)
    run = t.run([t.vswap, "stat", "--json", pid])
    t.check(run.status == 0, "no JSON", run)
    st = json.loads(run.out)
    t.check(st["pid"] == int(pid) and st["slots_used"] > 0 and not st["finished"],
            "wrong numbers", run)
    run = t.run([t.vswap, "stat", "--json"])
    listed = json.loads(run.out)
    t.check(any(one["pid"] == int(pid) for one in listed), "not in the list as JSON", run)
    live.say("check")
    t.check(live.line(20) == f"good {128 * MIB // 4096} sigbus 0 wrong 0", "wrong bytes")
    ended = live.finish()
    t.check(ended.status == 0, "failed", ended)
    run = t.run([t.vswap, "stat"])
    t.check(run.status == 0 and pid not in run.out.decode().split(), "listed after its end", run)
    run = t.run([t.vswap, "stat", pid])
    t.check(run.status == 1 and one_line(run), "stat of what is not there", run)


@case("command/doctor", sanitized=True)
def doctor(t):
    t.need_userfaultfd()
    run = t.run([t.vswap, "doctor"])
    t.check(run.status == 0, "says that this machine cannot", run)
    for word in ("userfaultfd", "io_uring", "MOVE"):
        t.check(word in run.out.decode(), f"nothing about {word}", run)


@case("command/help")
def help_text(t):
    for args in (["--help"], ["run", "--help"], ["stat", "--help"], ["doctor", "--help"],
                 ["ls", "--help"], ["top", "--help"], ["map", "--help"], ["tier", "--help"],
                 ["set", "--help"], ["reclaim", "--help"], ["migrate", "--help"],
                 ["bench", "--help"], ["help", "bench"]):
        run = t.run([t.vswap, *args])
        t.check(run.status == 0 and b"sage" in run.out and not run.err, "no help", run)
    for option in ("--ram", "--tier", "--no-tier", "--compressor", "--stats", "--verbose"):
        run = t.run([t.vswap, "run", "--help"])
        t.check(option.encode() in run.out, f"no {option} in the help", run)
    run = t.run([t.vswap, "--version"])
    t.check(run.status == 0 and run.out.startswith(b"vswap 0."), "no version", run)


@case("command/file-capability")
def file_capability(t):
    """Of a vswap with cap_sys_ptrace a program has all of the environment, no capability."""
    t.need_root()
    top = os.path.dirname(os.path.dirname(t.vswap))
    os.chmod(t.tmp, 0o777)
    for name in ("cli", "agent"):
        os.mkdir(t.path(name))
    shutil.copy(t.vswap, t.path("cli/vswap"))
    shutil.copy(os.path.join(top, "agent/vswap-agent.so"), t.path("agent"))
    if t.run(["setcap", "cap_sys_ptrace+ep", t.path("cli/vswap")]).status:
        raise Skipped("no setcap, or a file system without capabilities")
    lib = next((path for path in LIBM if os.path.exists(path)), None)
    os.mkdir(t.path("temporary"), 0o777)
    os.chmod(t.path("temporary"), 0o777)
    env = {"PATH": os.environ["PATH"], "TMPDIR": t.path("temporary"), "LD_LIBRARY_PATH": "/nowhere",
           "LD_PRELOAD": lib, "TZDIR": "/nowhere", "OTHER": "", "XDG_RUNTIME_DIR": t.tmp}
    # A device that this user may use, and nobody sees but us.
    user = ["unshare", "--mount", "sh", "-c", """
        mknod uffd c $(stat -c '%Hr %Lr' /dev/userfaultfd) && chmod 666 uffd &&
        mount --bind uffd /dev/userfaultfd && exec "$@" """, "sh",
            "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    for argv in (["env", "-0"], ["grep", "^Cap", "/proc/self/status"]):
        alone = t.run([*user, *argv], env=env)
        os.unlink(t.path("uffd"))
        paged = t.run([*user, t.path("cli/vswap"), "run", "--ram", "32M", "--stats",
                       t.path("stats"), "--", *argv], env=env)
        os.unlink(t.path("uffd"))
        t.check(alone.status == 0 and alone.out == paged.out and not paged.err,
                f"{alone}\n{paged}")
        with open(t.path("stats")) as f:
            t.check(json.load(f)["tiers"][0]["name"] == t.path("temporary"), "no TMPDIR", paged)


@case("command/no-socket")
def no_socket(t):
    """Where no control socket can be made that is said, with what to do, and the program runs."""
    t.need_userfaultfd()
    t.need_root()
    for make, why, what in (
            ("mount -o ro,remount /run", "Read-only", "written"),
            ("install -d -m 700 -o 65534 /run/vswap", "Operation not permitted", "written"),
            ("mkdir -m 755 /run/vswap", "Operation not permitted", "chmod 700"),
            (": >/run/vswap", "Operation not permitted", "remove")):
        run = t.run(["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none /run && {make} && "
                     'exec "$@"', "sh", *under(t, SH, "-c", "echo out; exit 3")])
        t.check(run.status == 3 and run.out == b"out\n", f"{make}: it did not run", run)
        t.check(len(run.err.splitlines()) == 1 and run.err.startswith(b"vswap: "), make, run)
        for word in ("/run/vswap", why, what):
            t.check(word.encode() in run.err, f"{make}: no '{word}'", run)
    # The fallback of a user is another user's.
    mine = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    env = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    script = 'mount -t tmpfs none /tmp && mkdir -m 700 /tmp/vswap-65534 && exec "$@"'
    shutil.copy(t.vswap, t.path("vswap"))
    os.chmod(t.tmp, 0o755)
    for command in ("ls", "doctor"):
        run = t.run(["unshare", "--mount", "sh", "-c", script, "sh", *mine, t.path("vswap"),
                     command], env=env)
        t.check(b"set XDG_RUNTIME_DIR" in run.out + run.err, "no advice", run)


@case("command/tmpdir")
def tmpdir(t):
    """A TMPDIR that cannot be used is told in a line, one that can be is not."""
    t.need_userfaultfd()
    plain, closed, usable = t.path("plain"), t.path("closed"), t.path("usable")
    with open(plain, "w"):
        pass
    os.mkdir(closed, 0o555)
    os.mkdir(usable)
    # Root may write anywhere, unless it gives that up.
    drop = ["setpriv", "--bounding-set=-dac_override", "--"] if os.geteuid() == 0 else []
    for where, why in ((t.path("mistyped"), b"No such file"), (plain, b"Not a directory"),
                       (closed, b"Permission denied"), (usable, None), ("", None)):
        env = dict(os.environ, TMPDIR=where)
        run = t.run(drop + t.vswap_run("--ram", "32M", "--", "true"), env=env)
        t.check(run.status == 0, "failed", run)
        if why:
            t.check(len(run.err.splitlines()) == 1 and where.encode() in run.err
                    and why in run.err and b"/var/tmp" in run.err, "not told", run)
        else:
            t.check(not run.err, "told for nothing", run)
        run = t.run(drop + t.vswap_run("--ram", "32M", "--no-tier", "--", "true"), env=env)
        t.check(run.status == 0 and not run.err, "told where no file is made", run)


# ---- bad input ---------------------------------------------------------------

def one_line(run):
    lines = run.err.decode().splitlines()
    return len(lines) == 1 and lines[0].startswith("vswap: ") and not run.out


def refused(t, status, argv, *words, **popen):
    """argv ends with status and one line that has all words; its program is not started."""
    marker = t.path("started")
    run = t.run([marker if a is None else a for a in argv], **popen)
    t.check(run.status == status, f"status {run.status}, not {status}", run)
    t.check(one_line(run), "not one line", run)
    for word in words:
        t.check(word.lower() in run.err.decode().lower(), f"no '{word}' in the message", run)
    t.check(not os.path.exists(marker), "the program was started", run)


@case("bad/options", sanitized=True)
def bad_options(t):
    touch = ["touch", None]
    for args, *words in (
            (["--unknown"], "--unknown"),
            (["--ram"], "--ram"),
            (["--ram", "0"], "0", "16"),
            (["--ram", "1K"], "16"),
            (["--ram", "15M"], "16"),
            (["--ram", "-5"], "-5"),
            (["--ram", "lots"], "lots"),
            (["--ram", "64Q"], "64Q"),
            (["--ram", "64MM"], "64MM"),
            (["--ram", ""], "ram"),
            (["--ram", "0%"], "0%"),
            (["--ram", "101%"], "101%"),
            (["--ram", "99999999999999999999"], "ram"),
            (["--ram", "16777216T"], "ram"),
            (["--compressor", "zip"], "zip", "lz4"),
            (["--stats", "/nowhere/x"], "/nowhere/x"),
            (["--stats", t.tmp], t.tmp),
            (["--tier", ""], "tier"),
            (["--tier", "/nowhere/x"], "/nowhere/x"),
            (["--tier", t.tmp], t.tmp, "directory"),
            (["--tier", "/dev/null"], "/dev/null"),
            (["--tier", "/etc/passwd,size=lots"], "lots"),
            (["--tier", "/etc/passwd,color=red"], "color"),
            (["--tier", "/etc/passwd,prio=high"], "high"),
            (["--no-tier", "--tier", "/etc/passwd"], "tier")):
        if args == ["--ram"]:
            refused(t, 125, t.vswap_run(*args), *words)
        else:
            refused(t, 125, t.vswap_run(*args, "--", *touch), *words)
    refused(t, 125, [t.vswap, "run"], "program")
    refused(t, 125, [t.vswap, "run", "--ram", "64M", "--"], "program")
    refused(t, 125, [t.vswap], "vswap")
    refused(t, 125, [t.vswap, "fly"], "fly")
    refused(t, 125, [t.vswap, "--unknown"], "--unknown")


@case("bad/sockets")
def bad_sockets(t):
    """A directory of sockets that is not the user's alone is told once, and that is the end."""
    t.need_root()
    script = 'mount -t tmpfs none /run && mkdir -m 755 /run/vswap && exec "$@"'
    for args in (["ls"], ["set", "ram=64M"], ["serve", "--name", "jobs"],
                 ["migrate", "--from", "a", "--to", "b", "8G"],
                 ["migrate", "--from", "a", "--to", "b", "jobs"]):
        refused(t, 125, ["unshare", "--mount", "sh", "-c", script, "sh", t.vswap, *args],
                "/run/vswap", "chmod 700")


@case("bad/tier")
def bad_tier(t):
    t.need_userfaultfd()
    small, file = t.path("small"), t.path("file")
    with open(small, "wb") as f:
        f.truncate(4096)
    with open(file, "wb") as f:
        os.chmod(file, 0o600)
        f.truncate(64 * MIB)
    touch = ["--", "touch", None]
    refused(t, 125, t.vswap_run("--tier", small, *touch), small, "small")
    refused(t, 125, t.vswap_run("--tier", f"{file},size=9000T", *touch), file)
    refused(t, 125, t.vswap_run("--tier", file, "--tier", file, *touch), file)
    fifo = t.path("fifo")
    os.mkfifo(fifo)
    refused(t, 125, t.vswap_run("--tier", fifo, *touch), fifo)


@case("bad/tier-name")
def bad_tier_name(t):
    """A tier whose name cannot be shown, and so not be given again, is refused."""
    t.need_userfaultfd()
    for name in (b"\xff\xfe", b"cut off \xc3", b"two\nlines"):
        path = os.path.join(os.fsencode(t.tmp), name)
        refused(t, 125, t.vswap_run("--tier", os.fsdecode(path + b",size=64M"), "--", "touch",
                                    None), "--tier", "UTF-8")
    path = t.path("\u00e4\u20ac")
    run = t.run(t.vswap_run("--tier", f"{path},size=64M", "--", "true"))
    t.check(run.status == 0 and not run.err, "one in UTF-8 is refused", run)
    env = dict(os.environ, TMPDIR=t.path("\udcff"))
    os.mkdir(t.path("\udcff"))
    run = t.run([t.vswap, "doctor", "--json"], env=env)
    found = json.loads(run.out)["checks"]
    t.check(any("/?: " in check["detail"] for check in found), "not as text", run)


@case("bad/tier-read-only")
def bad_tier_read_only(t):
    t.need_userfaultfd()
    path = t.path("file")
    with open(path, "wb") as f:
        f.truncate(64 * MIB)
    os.chmod(path, 0o444)
    # Root may write anything, unless it gives that up.
    drop = ["setpriv", "--bounding-set=-dac_override", "--"] if os.geteuid() == 0 else []
    refused(t, 125, drop + t.vswap_run("--tier", path, "--", "touch", None), path)


@case("bad/program")
def bad_program(t):
    t.need_userfaultfd()
    plain = t.path("plain")
    with open(plain, "w") as f:
        f.write("#!/bin/sh\n")
    refused(t, 127, under(t, "no-such-program-anywhere"), "no-such-program-anywhere")
    refused(t, 127, under(t, "/nowhere/program"), "/nowhere/program")
    refused(t, 127, under(t, ""), "not found")
    refused(t, 126, under(t, plain), plain)
    refused(t, 126, under(t, t.tmp), t.tmp)
    os.chmod(plain, 0o755)
    with open(plain, "w") as f:
        f.write("#!/nowhere/interpreter\n")
    run = t.run(under(t, plain))
    t.check(run.status in (126, 127) and one_line(run), "missing interpreter", run)


@case("command/early")
def early(t):
    """A library that starts a thread and a shell before the agent is there."""
    t.need_userfaultfd()
    run = t.run(under(t, t.prog("late")))
    t.check(run.status == 0, f"status {run.status}", run)
    t.check(not run.err, "something on stderr", run)


@case("bad/static")
def bad_static(t):
    t.need_userfaultfd()
    refused(t, 126, under(t, t.prog("static-true")), "static")


@case("bad/agent", waits=True)
def bad_agent(t):
    """A program that turns out not to load the agent is ended: it cannot be run under vswap."""
    t.need_userfaultfd()
    os.mkdir(t.path("cli"))
    os.mkdir(t.path("agent"))
    shutil.copy(t.vswap, t.path("cli"))
    # The loader says so, and goes on without.
    with open(t.path("agent/vswap-agent.so"), "w"):
        os.chmod(t.path("agent/vswap-agent.so"), 0o755)
    run = t.run([t.path("cli/vswap"), "run", "--ram", "64M", "--", "sleep", "30"])
    t.check(run.status == 126 and run.seconds < 20, f"status {run.status}, not 126", run)
    t.check(run.err.splitlines()[-1].startswith(b"vswap: sleep: does not load the agent ("),
            "not told", run)


@case("bad/setuid")
def bad_setuid(t):
    t.need_userfaultfd()
    t.need_root()
    path = t.path("true")
    shutil.copy("/bin/true", path)
    os.chown(path, 65534, 65534)
    os.chmod(path, 0o4755)
    refused(t, 126, under(t, path), path, "setuid")
    os.chmod(path, 0o2755)
    refused(t, 126, under(t, path), path, "setgid")


@case("bad/stats-full")
def bad_stats_full(t):
    """Statistics that cannot be written at the end are told, and cost no exit status."""
    t.need_userfaultfd()
    run = t.run(t.vswap_run("--stats", "/dev/full", "--", SH, "-c", "exit 5"))
    t.check(run.status == 5 and one_line(run) and b"/dev/full" in run.err, "/dev/full", run)


@case("bad/permission")
def bad_permission(t):
    """A user who may not use userfaultfd is told so, by run and by doctor."""
    t.need_root()
    with open("/proc/sys/vm/unprivileged_userfaultfd") as f:
        t.check(f.read().strip() == "0", "every user may use userfaultfd here")
    # Where vswap is built may be closed to others: give them a copy, laid out the same.
    top = os.path.dirname(os.path.dirname(t.vswap))
    os.chmod(t.tmp, 0o755)
    os.mkdir(t.path("cli"))
    os.mkdir(t.path("agent"))
    shutil.copy(t.vswap, t.path("cli/vswap"))
    for name in os.listdir(os.path.join(top, "agent")):
        if name.endswith(".so"):
            shutil.copy(os.path.join(top, "agent", name), t.path("agent"))
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    vswap = t.path("cli/vswap")
    refused(t, 125, nobody + [vswap, "run", "--", "touch", None], "userfaultfd", "doctor")
    run = t.run(nobody + [vswap, "doctor"])
    t.check(run.status == 1, "doctor is content", run)
    t.check(b"unprivileged_userfaultfd" in run.out, "doctor does not say what to do", run)
