# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A space changed while its program runs, through the commands and the socket itself."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import termios
import threading
import time
import xml.etree.ElementTree

import pyte
from prometheus_client.openmetrics import parser as openmetrics

from failure import open_files
from harness import MIB, case, wait_until
from tiers import Server

PAGE = 4096


def nameless_files(pid):
    """How many of a filesystem it has open."""
    return sum(stat.S_ISREG(st.st_mode) and not st.st_nlink and not path.startswith("/memfd:")
               for path, st in open_files(pid))


class Space:
    """A program in a space of its own, and who to ask."""

    def __init__(self, t, program, *options):
        t.need_userfaultfd()
        self.t = t
        self.live = t.spawn(t.vswap_run(*options, "--", *program))
        ready = self.live.line(30)
        t.check(ready and ready.startswith("ready "), f"not ready: {ready} {self.live.err()}")
        self.pid = str(self.live.pid)
        t.check(wait_until(lambda: os.path.exists(self.path()), 5), "no control socket")

    def path(self):
        return f"/run/vswap/{self.pid}"

    def vswap(self, command, *args, **popen):
        """vswap COMMAND SPACE ARGS."""
        return self.t.run([self.t.vswap, *command.split(), self.pid, *args], **popen)

    def well(self, command, *args):
        run = self.vswap(command, *args)
        self.t.check(run.status == 0 and not run.err,
                     f"{command} failed; the run it was about said: {self.live.err().decode()}",
                     run)
        return run.out.decode()

    def refused(self, command, *args, words=()):
        run = self.vswap(command, *args)
        lines = run.err.decode().splitlines()
        self.t.check(run.status == 125 and len(lines) == 1 and lines[0].startswith("vswap: ")
                     and not run.out, f"{command} {args}: not refused in one line", run)
        for word in words:
            self.t.check(word.lower() in lines[0].lower(), f"no '{word}' in the message", run)

    def stat(self):
        return json.loads(self.well("stat --json"))

    def tiers(self):
        return {tier["name"]: tier for tier in self.stat()["tiers"]}

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(self.path())
        return sock

    def ask(self, request):
        """The answer to one line, its progress left out."""
        with self.connect() as sock, sock.makefile() as answers:
            sock.sendall(request if isinstance(request, bytes)
                         else json.dumps(request).encode() + b"\n")
            for line in answers:
                answer = json.loads(line)
                if "progress" not in answer:
                    return answer
        return None

    def said(self, command, expected):
        self.live.say(command)
        line = self.live.line(60)
        self.t.check(line and re.fullmatch(expected, line), f"{command}: {line} "
                     f"{self.live.err().decode()}")
        return line

    def end(self, out):
        run = self.live.finish()
        self.t.check(run.status == 0 and run.out == out, "went wrong", run)


def live(t, size, *options):
    return Space(t, t.vmtest("live", size, "--hard"), "--ram", str(t.ram), *options)


@case("control/live", sanitized=True)
def changed_under_it(t):
    """A tier comes, the first one goes, memory is halved and grows back: every byte is right."""
    slow, fast = t.path("slow"), t.path("fast")
    space = live(t, t.size(4), "--tier", f"{slow},size=2G")
    space.said("report", "longest .*")
    space.well("tier add", f"{fast},size=2G,prio=5")
    t.check(list(space.tiers()) == [fast, slow], "tiers not in order")
    time.sleep(0.3)
    space.well("tier rm", slow)
    t.check(list(space.tiers()) == [fast], "tier still there")
    half = t.ram // 2 if not t.sanitized else t.ram - 16 * MIB
    space.well("set", f"ram={half}")
    stat = space.stat()
    t.check(stat["ram_limit_bytes"] == half, "limit not set")
    t.check(t.sanitized or stat["ram_bytes"] <= half * 1.05 + MIB, f"limit not kept: {stat}")
    time.sleep(0.3)
    space.well("set", f"ram={t.ram}")
    time.sleep(0.3)
    t.check(space.stat()["ram_limit_bytes"] == t.ram, "limit not set")
    longest = int(space.said("report", "longest .*").split()[1])
    t.check(t.sanitized or longest < 1000000, f"stopped for {longest} us")
    space.end(b"ok live\n")


@case("control/tier-rm")
def tier_rm(t):
    """What is removed is empty and gone; what is interrupted or refused stays whole."""
    size = 256 * MIB
    first, second = t.path("first"), t.path("second")
    space = Space(t, t.vmtest("hold", size, "--hard"), "--ram", "48M",
                  "--tier", f"{first},size=1G")
    good = f"good {size // PAGE} sigbus 0 wrong 0"
    space.refused("tier rm", first, words=(first, "room"))
    space.refused("tier rm", t.path("third"), words=("third", "no such tier"))
    space.refused("tier add", f"{first},size=1G", words=(first, "already"))
    space.refused("tier add", "/nowhere/x,size=1G", words=("/nowhere/x",))
    space.refused("tier add", t.path("none"), words=("none", "size"))
    space.refused("tier add", f"{second},size=1K", words=("small",))
    space.refused("tier add", f"{second},size=1G,prio=x", words=("prio",))
    space.refused("tier add", "/dev/null", words=("/dev/null",))
    space.refused("tier add", t.path("\udcff,size=1G"), words=("UTF-8",))
    os.mkdir(t.path("\udcff"))
    run = t.run(["sh", "-c", 'cd "$0" && exec "$@"', t.path("\udcff"), t.vswap, "tier", "add",
                 space.pid, "x,size=1G"])
    t.check(run.status == 125 and b"UTF-8" in run.err, "a directory that is no text", run)
    answer = space.ask({"op": "tier-add", "path": t.path("a\nb"), "size": 1 << 30})
    t.check(not answer["ok"] and "characters" in answer["error"], f"{answer}")
    t.check(list(space.tiers()) == [first], "a refusal changed something")
    space.well("tier add", f"{second},size=1G")
    tiers = space.tiers()
    t.check(list(tiers) == [first, second] and tiers[second]["prio"] < tiers[first]["prio"],
            f"not the last one: {tiers}")

    # A client that leaves: the tier stays, with what is left on it.
    for _ in range(3):
        with space.connect() as sock:
            sock.sendall(json.dumps({"op": "tier-rm", "tier": first}).encode() + b"\n")
            time.sleep(0.005)
    t.check(space.ask({"op": "reclaim", "bytes": 1})["ok"], "not over")
    t.check(first in space.tiers(), "removed for nobody")
    space.said("check", good)

    # Ctrl-C does the same, with a bar and a word.
    for ms in (5, 10, 20, 30, 50, 80):
        remover = t.spawn([t.vswap, "tier", "rm", space.pid, first])
        time.sleep(ms / 1000)
        remover.proc.send_signal(signal.SIGINT)
        run = remover.finish()
        # None when it came before anybody listened to it.
        t.check(run.status == 0 or run.status == 130 and
                (not run.err or b"interrupted" in run.err and b"stays" in run.err), "Ctrl-C", run)
        if run.status == 0 or run.err:
            break
    if run.status:
        t.check(space.ask({"op": "reclaim", "bytes": 1})["ok"], "not over")
        t.check(first in space.tiers(), "removed nevertheless")
        space.well("tier rm", "first")
    tiers = space.tiers()
    t.check(list(tiers) == [second] and tiers[second]["used_bytes"] > 0, f"tiers {tiers}")
    space.said("check", good)
    # The same name once more, at once, and again; each time the old file's room is given back.
    t.check(wait_until(lambda: nameless_files(space.pid) == 1, 20), "the file is still open")
    for _ in range(2):
        space.well("tier add", f"{first},size=1G,prio=9")
        space.well("reclaim", "8M")
        t.check(space.tiers()[first]["used_bytes"] > 0, f"nothing went there: {space.tiers()}")
        space.well("tier rm", first)
    t.check(wait_until(lambda: nameless_files(space.pid) == 1, 20), "the file is still open")
    space.said("check", good)
    space.end(b"ok hold\n")


@case("control/tier-add-left")
def tier_add_left(t):
    """A tier whose server answers when nobody waits for it any more does not come."""
    space = live(t, t.size(2))
    before = list(space.tiers())
    with Server(t, "memory", "64M") as server:
        os.kill(server.proc.pid, signal.SIGSTOP)
        with space.connect() as sock:
            sock.sendall(json.dumps({"op": "tier-add", "path": server.uri}).encode() + b"\n")
            time.sleep(0.3)
        time.sleep(0.3)
        os.kill(server.proc.pid, signal.SIGCONT)
        t.check(space.ask({"op": "reclaim", "bytes": 1})["ok"], "not over")
        t.check(list(space.tiers()) == before, f"came for nobody: {space.tiers()}")
        space.well("tier add", server.uri)
        t.check(server.uri in space.tiers(), "not added when it is waited for")
        space.end(b"ok live\n")


@case("control/migrate")
def migrate(t):
    size = 128 * MIB
    good = f"good {size // PAGE} sigbus 0 wrong 0"
    a, b = t.path("a"), t.path("b")
    space = Space(t, t.vmtest("hold", size, "--hard"), "--ram", "48M",
                  "--tier", f"{a},size=1G,prio=2", "--tier", f"{b},size=1G,prio=1")
    for args, word in ((["--from", a], "--to"), (["--from", a, "--to", a], "itself"),
                       (["--from", a, "--to", "c"], "c"), (["--from", "c", "--to", a], "c"),
                       (["--from", a, "--to", b, "0"], "0"), (["--from", a, "--to", b, "x"], "x")):
        space.refused("migrate", *args, words=(word,))
    before = space.tiers()
    t.check(before[b]["used_bytes"] == 0, "already there")
    t.check(space.well("migrate", "--from", a, "--to", b, "8M") == "8M moved\n", "not 8M")
    tiers = space.tiers()
    t.check(tiers[b]["used_bytes"] >= 7 * MIB, f"{tiers}")
    out = space.well("migrate", "--from", "pool", "--to", b)
    t.check(re.fullmatch(r"[1-9].* moved\n", out), f"pool: {out}")
    out = space.well("migrate", "--from", "b", "--to", "pool", "1G")
    t.check("moved" in out, out)
    space.said("check", good)
    space.well("migrate", "--from", "a", "--to", "b")
    space.said("check", good)
    space.end(b"ok hold\n")


@case("control/memory")
def memory(t):
    size = 128 * MIB
    good = f"good {size // PAGE} sigbus 0 wrong 0"
    space = Space(t, t.vmtest("hold", size), "--ram", "64M", "--tier", t.path("tier") + ",size=1G")
    before = space.stat()["ram_bytes"]
    out = space.well("reclaim", "16M")
    t.check(re.fullmatch(r"1[67]\S*M reclaimed\n", out), f"reclaim said {out}")
    t.check(space.stat()["ram_bytes"] < before - 12 * MIB, "nothing reclaimed")
    t.check(space.stat()["ram_limit_bytes"] == 64 * MIB, "the limit changed")
    space.refused("reclaim", "0", words=("0",))
    space.refused("reclaim", "lots", words=("lots",))
    for text, word in (("ram=15M", "16M"), ("ram=lots", "lots"), ("ram=", "size"),
                       ("color=red", "color"), ("ram=0", "16M"),
                       ("compressor=zip", "zip"), ("compressor=", "compressor")):
        space.refused("set", text, words=(word,))
    t.check(space.stat()["ram_limit_bytes"] == 64 * MIB, "a refusal changed something")
    space.well("set", "ram=16M")
    st = space.stat()
    t.check(st["ram_bytes"] <= 17 * MIB, f"above 16M: {st['ram_bytes']}")
    space.said("check", good)
    space.well("set", "ram=64M", "compressor=zstd")
    space.said("check", good)
    space.said("write", "written")
    for name in ("none", "lz4"):
        space.well("set", "compressor=" + name)
        space.said("check", good)
        space.said("write", "written")
    space.said("check", good)
    t.check(space.stat()["ram_bytes"] > 32 * MIB, "does not grow back")
    space.end(b"ok hold\n")

    # Without a tier it cannot be put elsewhere: said, and nothing changed.
    space = Space(t, t.vmtest("hold", size, "--hard"), "--ram", "128M", "--no-tier")
    space.refused("set", "ram=16M", words=("hold", "tier"))
    t.check(space.stat()["ram_limit_bytes"] == 128 * MIB, "a refusal changed something")
    space.said("check", good)
    space.end(b"ok hold\n")


@case("control/requests", sanitized=("address",))
def requests(t):
    """What is no request is refused in words, and nothing comes of it."""
    space = Space(t, t.vmtest("hold", t.size(2)), "--ram", str(t.ram))
    before = space.stat()
    for line, word in (
            (b"\n", "JSON"),
            (b"fly\n", "JSON"),
            (b"{\n", "JSON"),
            (b"[]\n", "object"),
            (b"\xff\xfe\n", "JSON"),
            (b"\0\n", "JSON"),
            (b'{"op":"fly"}\n', "fly"),
            (b'{"op":["stat"]}\n', "op"),
            (b'{"op":"stat","color":"red"}\n', "color"),
            (b'{"op":"set"}\n', "nothing"),
            (b'{"op":"set","ram":"64M"}\n', "ram"),
            (b'{"op":"set","ram":-1}\n', "ram"),
            (b'{"op":"set","ram":1}\n', "small"),
            (b'{"op":"set","ram":1e9}\n', "ram"),
            (b'{"op":"reclaim"}\n', "bytes"),
            (b'{"op":"reclaim","bytes":0}\n', "0"),
            (b'{"op":"tier-add"}\n', "path"),
            (b'{"op":"tier-add","path":""}\n', "path"),
            (b'{"op":"tier-add","path":"/nowhere/x","size":0}\n', "size"),
            (b'{"op":"tier-add","path":"/nowhere/x","prio":99999}\n', "prio"),
            (b'{"op":"tier-rm","tier":"x"}\n', "no such tier"),
            (b'{"op":"tier-rm","tier":7}\n', "tier"),
            (b" " * 70000 + b"\n", "64 KiB"),
            (b'{"op":"stat","x":"' + b"y" * 100000 + b'"}\n', "64 KiB"),
            (b'{"op":"stat","x":' + b"[" * 1000 + b"]" * 1000 + b"}\n", "JSON")):
        answer = space.ask(line)
        t.check(answer and not answer["ok"] and word in answer["error"],
                f"{line[:60]}: {answer}")
        t.check("\n" not in answer["error"], "not one line")
    after = space.stat()
    t.check(before["ram_limit_bytes"] == after["ram_limit_bytes"], "the limit changed")
    t.check([x["name"] for x in before["tiers"]] == [x["name"] for x in after["tiers"]], "tiers")

    # Who stalls: half a line, no reading, nothing at all.
    stalled = [space.connect() for _ in range(30)]
    for i, sock in enumerate(stalled):
        if i % 3:
            sock.sendall(b'{"op":"st' if i % 3 == 1 else b'{"op":"stat"}\n' * 500)
    begin = time.monotonic()
    t.check(space.ask({"op": "stat"})["ok"], "not served beside those who stall")
    t.check(time.monotonic() - begin < 5, "served late")
    for sock in stalled:
        sock.close()

    # Another user, even one who may enter the directory.
    if os.geteuid() == 0:
        mode = os.stat("/run/vswap").st_mode & 0o777
        t.check(mode == 0o700 and os.stat(space.path()).st_mode & 0o777 == 0o600, "modes")
        text = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "/usr/bin/python3", "-c",
             "import socket,sys\ns=socket.socket(socket.AF_UNIX)\n"
             f"try:\n s.connect('{space.path()}')\n print('in')\n"
             "except PermissionError:\n print('out')"], stdout=subprocess.PIPE, check=True).stdout
        t.check(text == b"out\n", "another user gets in")
    space.said("check", f"good {t.size(2) // PAGE} sigbus 0 wrong 0")
    space.end(b"ok hold\n")


@case("control/many")
def many(t):
    """Several at once change and ask and leave, and the program does not notice."""
    space = live(t, t.size(3), "--tier", t.path("tier") + ",size=1G")
    wrong = []

    def client(requests):
        for request in requests:
            try:
                answer = space.ask(request)
                if answer is None or not answer["ok"]:
                    wrong.append((request, answer))
            except OSError as e:
                wrong.append((request, e))

    tier = t.path("other")
    work = [[{"op": "stat"}] * 50,
            [{"op": "set", "ram": t.ram // 2}, {"op": "set", "ram": t.ram}] * 4,
            [{"op": "reclaim", "bytes": 4 * MIB}] * 4,
            [{"op": "tier-add", "path": tier, "size": 1 << 30, "prio": 3},
             {"op": "tier-rm", "tier": tier}] * 4]
    threads = [threading.Thread(target=client, args=(w,)) for w in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    t.check(not wrong, f"{wrong}")
    space.end(b"ok live\n")


@case("control/which")
def which(t):
    """A space need not be named when it is the only one; here none but ours is."""
    script = """mount -t tmpfs none /run && mkdir -m 700 /run/vswap || exit 99
        "$1" ls; "$1" set ram=64M 2>&1
        "$1" run --ram 64M -- sleep 20 & a=$!
        while [ ! -S /run/vswap/$a ]; do sleep 0.01; done
        "$1" ls; "$1" tier ls; "$1" set ram=48M && "$1" stat --json
        "$1" run --ram 64M -- sleep 20 & b=$!
        while [ ! -S /run/vswap/$b ]; do sleep 0.01; done
        "$1" tier ls 2>&1; "$1" tier ls $b; "$1" tier ls 999999 2>&1
        kill $a $b; wait $a $b"""
    t.need_root()
    t.need_userfaultfd()
    run = t.run(["unshare", "--mount", "sh", "-c", script, "sh", t.vswap])
    text = run.out.decode()
    for part in ("no space is running", "vswap: no space is running (", '"ram_limit_bytes": 50331648',
                 "which space? 2 are running", "vswap: 999999: no such space"):
        t.check(part in text, f"no '{part}'", run)
    t.check(text.count("/var/tmp") + text.count("/tmp") >= 2, "tiers not listed", run)


@case("control/openmetrics")
def exposition(t):
    """A real parser takes it, and the numbers are those of the JSON."""
    tier = t.path('a "quoted" tier')
    space = live(t, t.size(3), "--tier", tier + ",size=1G")
    time.sleep(0.5)
    before = space.stat()
    text = t.run([t.vswap, "stat", "--openmetrics", space.pid])
    after = space.stat()
    t.check(text.status == 0 and text.out.endswith(b"\n# EOF\n"), "no end", text)
    families = {f.name: f for f in openmetrics.text_string_to_metric_families(text.out.decode())}

    def value(family, **labels):
        found = [s for s in families[family].samples
                 if all(s.labels.get(k) == v for k, v in labels.items())]
        t.check(len(found) == 1, f"{family} {labels}: {len(found)} samples", text)
        t.check(found[0].labels["space"] == space.pid and found[0].labels["program"] == "vmtest",
                f"labels {found[0].labels}")
        return found[0].value

    t.check(value("vswap_ram_limit_bytes") == t.ram, "limit", text)
    t.check(value("vswap_tier_size_bytes", tier=tier) == 1 << 30, "tier's size", text)
    for kind in ("pool", "tier"):
        n = value("vswap_faults", kind=kind)
        t.check(before["faults"][kind] <= n <= after["faults"][kind], f"faults {kind}: {n}", text)
    buckets = [s for s in families["vswap_fault_latency_seconds"].samples
               if s.name.endswith("_bucket")]
    counts = [s.value for s in buckets]
    t.check(counts == sorted(counts) and buckets[-1].labels["le"] == "+Inf" and
            before["fault_latency_ns"]["count"] * 0.99 <= counts[-1] <=
            after["fault_latency_ns"]["count"] * 1.01, f"buckets {counts}", text)
    run = t.run([t.vswap, "stat", "--openmetrics"])
    t.check(run.status == 0 and list(openmetrics.text_string_to_metric_families(run.out.decode())),
            "of all", run)
    run = t.run([t.vswap, "stat", "--openmetrics", "--json"])
    t.check(run.status == 125 and run.err.count(b"\n") == 1, "two formats", run)
    space.end(b"ok live\n")


class Screen:
    """A command on a terminal of so many columns and lines, and what is to be seen there."""

    def __init__(self, t, argv, columns, lines, term="xterm-256color"):
        self.t = t
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                # Until the size is right.
                os.read(0, 1)
                os.environ["TERM"] = term
                os.execv(argv[0], argv)
            finally:
                os._exit(127)
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.resize(columns, lines)
        os.write(self.fd, b"\n")

    def resize(self, columns, lines):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def read(self, seconds):
        """False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.stream.feed(data)
        return bool(data)

    def expect(self, pattern, seconds=10):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text()):
            if time.monotonic() > end or not self.read(0.1):
                self.close()
                self.t.check(False, f"no '{pattern}' on the screen:\n{self.text()}")

    def close(self):
        """The exit status."""
        end = time.monotonic() + 5
        while time.monotonic() < end and self.read(0.1):
            pass
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@case("control/top")
def top(t):
    tier = t.path("tier")
    space = live(t, t.size(4), "--tier", tier + ",size=1G")
    term = Screen(t, [t.vswap, "top", space.pid], 80, 24)
    term.expect(r"vswap \S+: vmtest \(pid \d+\)")
    term.expect(r"ram +\[#+\.*\] +[\d.]+M of 32M")
    term.expect(r"pool +\[#*\.*\] .*\d\.\d:1")
    term.expect(r"faults( +\d+){4} +[1-9]\d* +\d+\n")
    term.expect(r"latency +p50 [\d.]+ (us|ms), p99")
    term.expect(r"\[#*\.*\] .* 1G .*[KM]  .*/tier\n")
    term.expect("q quits")
    for columns, lines in ((200, 60), (40, 10), (7, 3), (1, 1)):
        term.resize(columns, lines)
        term.read(1.2)
        t.check(term.read(0), "did not survive its new size")
    term.screen.reset()
    term.resize(90, 30)
    term.expect(r"ram +\[#+\.*\]")
    os.write(term.fd, b"q")
    t.check(term.close() == 0, "q did not quit")

    # The space ends, the terminal is unknown, or there is none.
    term = Screen(t, [t.vswap, "top", space.pid], 80, 24)
    term.expect("q quits")
    space.end(b"ok live\n")
    term.expect("has ended")
    t.check(term.close() == 0, "an end is an error")
    run = t.run([t.vswap, "top"])
    t.check(run.status == 125 and run.err.startswith(b"vswap: top: not on a terminal"), "no terminal",
            run)


@case("control/top-stopped")
def top_stopped(t):
    """While the one that is watched is stopped, keys and a new size do what they always do."""
    space = live(t, t.size(2))
    term = Screen(t, [t.vswap, "top", space.pid], 80, 24)
    term.expect("q quits")
    os.kill(int(space.pid), signal.SIGSTOP)
    try:
        term.expect("no answer", 5)
        for columns in range(60, 90, 3):
            term.resize(columns, 24)
            t.check(term.read(0.1), f"ended with a new size:\n{term.text()}")
        # Only a new size has it draw all of it again.
        term.screen.reset()
        term.resize(80, 20)
        term.expect("no answer +q quits", 10)
    finally:
        os.kill(int(space.pid), signal.SIGCONT)
    end = time.monotonic() + 5
    while "no answer" in term.text():
        t.check(time.monotonic() < end and term.read(0.1), f"still no answer:\n{term.text()}")
    term.expect(r"ram +\[#+\.*\]")
    os.kill(int(space.pid), signal.SIGSTOP)
    try:
        term.expect("no answer", 5)
        os.write(term.fd, b"q")
        begin = time.monotonic()
        t.check(term.close() == 0, "q did not quit")
        t.check(time.monotonic() - begin < 3, "q quit late")
    finally:
        os.kill(int(space.pid), signal.SIGCONT)
    for stop in (False, True):
        term = Screen(t, [t.vswap, "top", space.pid], 80, 24)
        term.expect("q quits")
        if stop:
            os.kill(int(space.pid), signal.SIGSTOP)
            term.expect("no answer", 5)
        os.write(term.fd, b"\x03")
        status = term.close()
        os.kill(int(space.pid), signal.SIGCONT)
        t.check(status == 130, f"Ctrl-C became status {status}")
    space.end(b"ok live\n")


@case("control/watch")
def watch(t):
    """What is repeated is written over, also where it is wider and longer than the terminal."""
    space = live(t, t.size(2))
    for columns, lines in ((80, 24), (30, 24), (80, 6), (20, 3)):
        term = Screen(t, [t.vswap, "stat", space.pid], columns, lines)
        # Twice the same, seconds apart.
        for _ in range(2):
            term.expect(r"vmtest  pid")
            end = time.monotonic() + 1.3
            while time.monotonic() < end:
                term.read(0.1)
        text = term.text()
        t.check(text.count("vmtest") == 1 and text.count("  memory") == (lines > 2),
                f"{columns}x{lines}: debris:\n{text}")
        t.check(lines < 10 or "out/s" in text, f"{columns}x{lines}: not all:\n{text}")
        t.check(not term.screen.buffer[lines - 1][0].data.strip(), f"no room left:\n{text}")
        os.write(term.fd, b"\x03")
        term.close()
        # DECAWM: as it was found.
        t.check(7 << 5 in term.screen.mode, "does not wrap any more")
    # Once is all of it.
    term = Screen(t, [t.vswap, "stat", "--once", space.pid], 80, 6)
    term.expect("out +")
    t.check(term.close() == 0, "failed")
    space.end(b"ok live\n")


@case("control/bar")
def bar(t):
    """tier rm on a terminal says how far it is."""
    first = t.path("first")
    space = Space(t, t.vmtest("hold", 256 * MIB, "--hard"), "--ram", "48M",
                  "--tier", f"{first},size=1G", "--tier", t.path("second") + ",size=1G")
    term = Screen(t, [t.vswap, "tier", "rm", space.pid, "first"], 80, 24)
    term.expect(r"tier rm first \[#* *\] +\d+% [\d.]+[KMB] of [\d.]+M")
    t.check(term.close() == 0, "failed")
    space.said("check", f"good {256 * MIB // PAGE} sigbus 0 wrong 0")
    space.end(b"ok hold\n")


@case("control/map")
def picture(t):
    """The map tells of as much memory as the program has, and where the statistics say it is."""
    size, tier = 128 * MIB, t.path("tier")
    space = Space(t, t.vmtest("hold", size, "--hard"), "--ram", "48M", "--tier", f"{tier},size=1G")
    stat = space.stat()
    answer = json.loads(space.well("map --json"))
    found = {}
    for client in answer["clients"]:
        for area in client["ranges"]:
            for place, warmth, cells in area["runs"]:
                t.check(0 <= warmth <= 15 and cells > 0, f"run {place} {warmth} {cells}")
                name = answer["places"][place]
                found[name] = found.get(name, 0) + cells * answer["cell_bytes"]
    t.check(size <= sum(found.values()) <= size + 16 * MIB, f"{found} is not all")
    for name, bytes_there in (("pool", stat["slots"]["pool"] * PAGE), (tier, stat["tier_bytes"])):
        t.check(abs(found.get(name, 0) - bytes_there) < 24 * MIB, f"{name}: {found}, {bytes_there}")
    t.check(found["resident"] > 4 * MIB, f"{found}")
    path = t.path("map.svg")
    t.check(space.well("map -o " + path) == "", "said something")
    with open(path) as f:
        root = xml.etree.ElementTree.parse(f).getroot()
    t.check(root.tag == "{http://www.w3.org/2000/svg}svg" and len(root) > 50, "no picture")
    for args, word in ((["-o", t.path("map.png")], "SVG"), (["-o", "/nowhere/m.svg"], "/nowhere"),
                       ([], "-o"), (["-o", path, "--json"], "two")):
        space.refused("map", *args, words=(word,))
    t.check(not space.ask({"op": "map", "cells": 0})["ok"], "no cells at all")
    space.said("check", f"good {size // PAGE} sigbus 0 wrong 0")
    space.end(b"ok hold\n")
