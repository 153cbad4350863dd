# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Several programs in one space: each sees its own bytes, and keeps what is its share."""
import json
import os
import signal
import socket
import struct
import sys
import time

from failure import answer, check_pages, tier_file
from harness import MIB, case, is_alive, processes, wait_until
from real import abort, dumping


class Space:
    """A vswap serve with a name of its own."""

    def __init__(self, t, ram=None, *options):
        t.need_userfaultfd()
        self.t = t
        self.ram = ram or 2 * t.ram
        self.name = f"test-{os.getpid()}-{t.number}-{len(t.live)}"
        self.live = t.spawn([t.vswap, "serve", "--name", self.name, "--ram", str(self.ram),
                             *options])
        self.pid = self.live.pid
        line = self.live.line(20)
        t.check(line == f"serving {self.name}, pid {self.pid}",
                f"not serving: {line!r}, {self.live.err()}")

    def argv(self, group, *argv):
        return self.t.vswap_run("--space", self.name, *(["--group", group] if group else []),
                                "--", *argv)

    def command(self, *words):
        return self.t.run([self.t.vswap, "group", *words])

    def set(self, group, *keys):
        run = self.command("set", self.name, group, *keys)
        self.t.check(run.status == 0, f"group set {group}", run)

    def groups(self):
        run = self.command("ls", "--json", self.name)
        self.t.check(run.status == 0, "group ls", run)
        return {g["group"]: g for g in json.loads(run.out)}

    def hold(self, group, size):
        """A program holding @size bytes; returns it and the program's pid."""
        live = self.t.spawn(self.argv(group, *self.t.vmtest("hold", size, "--hard")))
        line = live.line(60)
        self.t.check(line and line.startswith("ready "),
                     f"not ready: {line!r}, stderr: {live.err()}")
        return live, int(line.split()[1])

    def end(self):
        os.kill(self.pid, signal.SIGTERM)
        run = self.live.finish()
        self.t.check(run.status == 0, "serve ended badly", run)
        return run


def is_good(t, live):
    found = check_pages(t, live)
    t.check(found["sigbus"] == 0, f"pages were lost: {found}")


# ---- programs in it ------------------------------------------------------------

@case("groups/two-runs", timeout=120, sanitized=True)
def two_runs(t):
    """Two programs of twice what there is for each; all of it within the budget."""
    t.need_userfaultfd()
    ram = 2 * t.ram
    name = f"test-{os.getpid()}-{t.number}"
    each = 4 * t.ram if not t.sanitized else t.ram
    script = """
        vswap=$1 name=$2 ram=$3 prog=$4 size=$5
        "$vswap" serve --name "$name" --ram "$ram" >serve.out & serve=$!
        until [ -s serve.out ]; do sleep 0.02; done
        "$vswap" group set "$name" a/b ram=$((ram / 2))
        "$vswap" run --space "$name" -- "$prog" rw --size "$size" --hard --seed 1 & one=$!
        "$vswap" run --space "$name" --group a/b -- "$prog" threads --size "$size" & two=$!
        wait $one && wait $two && kill $serve && wait $serve
    """
    run = t.sampled(["sh", "-c", script, "sh", t.vswap, name, str(ram), t.prog("vmtest"),
                     f"{each // MIB}M"])
    t.check(run.status == 0 and run.out.split() == [b"ok", b"rw", b"ok", b"threads"]
            or run.out.split() == [b"ok", b"threads", b"ok", b"rw"], "failed", run)
    # The two waiting vswap run are not in the budget.
    limit = ram * 1.05 + 16 * MIB + 2 * 3 * MIB
    t.check(t.sanitized or run.peak <= limit,
            f"peak memory {run.peak / MIB:.1f} MiB, bound is {limit / MIB:.1f} MiB", run)


@case("groups/as-run")
def as_run(t):
    """What vswap run gives its caller, a joined one gives as well."""
    space = Space(t)
    run = t.run(space.argv(None, "sh", "-c", "cat; exit 7"), stdin=b"in and out")
    t.check(run.status == 7 and run.out == b"in and out" and not run.err, "status", run)
    run = t.run(space.argv(None, "sh", "-c", "kill -SEGV $$"))
    t.check(run.status == 128 + signal.SIGSEGV, "signal", run)
    run = t.run(space.argv(None, t.path("nothing")))
    t.check(run.status == 127, "no such program", run)
    # What it starts is paged as well, and waited for.
    run = t.run(space.argv(None, "sh", "-c", "sh -c 'sleep 0.5; echo late' & sleep 0.2; "
                           "echo early"))
    t.check(run.status == 0 and run.out == b"early\nlate\n", "background", run)
    live = t.spawn(space.argv(None, "sh", "-c", "trap 'exit 9' TERM; echo up; "
                              "while :; do sleep 0.05; done"))
    t.check(live.line(20) == "up", f"not up: {live.err()}")
    os.kill(live.pid, signal.SIGTERM)
    run = live.finish()
    t.check(run.status == 9, "SIGTERM is not passed on", run)
    space.end()


@case("groups/run-killed", sanitized=["address"])
def run_killed(t):
    """A run that is killed takes its program along, and nobody else."""
    space = Space(t)
    one, pid = space.hold(None, t.size(2))
    two, _ = space.hold(None, t.size(2))
    os.kill(one.pid, signal.SIGKILL)
    t.check(wait_until(lambda: not is_alive(pid), 2), f"lives on: {one.describe()}")
    is_good(t, two)
    # A program that is killed is its run's end.
    three, pid = space.hold(None, t.size(1))
    os.kill(pid, signal.SIGKILL)
    run = three.finish()
    t.check(run.status == 137, "status", run)
    t.check(answer(t, two, "write") == "written", "not written")
    is_good(t, two)
    t.check(two.finish().status == 0, "failed")
    t.check(wait_until(lambda: space.groups()["/"]["programs"] == 0, 5), "programs are left")
    space.end()


@case("groups/core-dump")
def core_dump(t):
    """Who joined is told what its dump lacks by the space, which alone knows."""
    space = Space(t)
    abort(t, t.spawn(space.argv(None, *dumping(t.vmtest("hold", 2 * space.ram)))))
    space.end()


@case("groups/serve-killed", sanitized=["address"])
def serve_killed(t):
    """Without its space a program dies with a message, and so does the run."""
    space = Space(t)
    live, pid = space.hold(None, t.size(3))
    os.kill(space.pid, signal.SIGKILL)
    t.check(wait_until(lambda: not is_alive(pid), 2), f"lives on: {live.describe()}")
    run = live.finish()
    t.check(run.status == 137, "status", run)
    # Its agent says so, too, in the same place.
    t.check(b"vswap:" in run.err and b"died" in run.err or space.name.encode() in run.err,
            "no message", run)


@case("groups/serve-ends")
def serve_ends(t):
    """The first signal waits for programs, letting nobody in; the second does not."""
    space = Space(t)
    live, _ = space.hold(None, t.size(2))
    os.kill(space.pid, signal.SIGTERM)
    t.check(wait_until(lambda: b"1 program" in space.live.err(), 5), "no word of the program")
    run = t.run(space.argv(None, "true"))
    t.check(run.status == 125 and b"about to end" in run.err, "still joined", run)
    is_good(t, live)
    t.check(live.finish().status == 0, "failed")
    t.check(space.live.finish().status == 0, "serve failed")

    space = Space(t)
    live, _ = space.hold(None, t.size(2))
    for number in (signal.SIGHUP, signal.SIGQUIT):
        os.kill(space.pid, number)
        time.sleep(0.3)
    run = live.finish()
    t.check(run.status == 137 and b"space was ended" in run.err, "not killed", run)
    t.check(space.live.finish().status == 0, "serve failed")


# ---- limits --------------------------------------------------------------------

@case("groups/limits", timeout=90)
def limits(t):
    """A limit set while the program runs holds, in its parent as well, and can be lifted."""
    space = Space(t, 8 * t.ram)
    space.set("batch")
    space.set("batch/nightly", "ram=max")
    live, _ = space.hold("batch/nightly", 3 * t.ram)
    t.check(wait_until(lambda: space.groups()["batch"]["ram_bytes"] >= 3 * t.ram, 5),
            f"not all of it is counted: {space.groups()}")
    t.check(space.groups()["batch/nightly"]["pgsteal"] == 0, "evicted without need")

    def below(limit):
        g = space.groups()
        return max(g["batch"]["ram_bytes"], g["batch/nightly"]["ram_bytes"]) <= limit

    space.set("batch/nightly", f"ram={t.ram}")
    t.check(wait_until(lambda: below(t.ram), 10), f"its limit does not hold: {space.groups()}")
    t.check(answer(t, live, "write") == "written", "not written")
    is_good(t, live)
    t.check(below(t.ram * 1.05 + MIB), f"its limit does not hold: {space.groups()}")
    space.set("batch", f"ram={t.ram * 3 // 4}")
    t.check(wait_until(lambda: below(t.ram * 3 // 4), 10),
            f"the parent's limit does not hold: {space.groups()}")
    is_good(t, live)
    space.set("batch", "ram=max")
    space.set("batch/nightly", "ram=max")
    is_good(t, live)
    t.check(wait_until(lambda: space.groups()["batch"]["ram_bytes"] >= 2.5 * t.ram, 5),
            f"did not come back: {space.groups()}")
    g = space.groups()
    t.check(g["batch/nightly"]["ram_events"] > 0, f"no limit event: {g}")
    t.check(live.finish().status == 0, "failed")
    space.end()


@case("groups/share", timeout=120)
def share(t):
    """One thrashing at 8x does not take the pages of one that keeps to its share."""
    space = Space(t, 4 * t.ram)
    space.set("noisy")
    space.set("quiet", f"ram={2 * t.ram}")
    quiet, _ = space.hold("quiet", t.ram)
    noisy = t.spawn(space.argv("noisy", *t.vmtest("rw", 8 * 2 * t.ram, "--passes", "1000")))
    t.check(wait_until(lambda: space.groups()["noisy"]["pgsteal"] > 8 * t.ram // 4096, 60),
            f"it does not thrash: {space.groups()}")
    before = space.groups()["quiet"]
    for _ in range(5):
        is_good(t, quiet)
        time.sleep(0.5)
    after = space.groups()["quiet"]
    t.check(after["pgsteal"] == 0, f"the quiet one was evicted: {before} {after}")
    t.check(after["refaults"] == 0 and after["faults"] - before["faults"] < 64,
            f"the quiet one faults: {before} {after}")
    # It may grow to its share, too, while the other one thrashes.
    t.check(answer(t, quiet, f"grow {2 * t.ram - 8 * MIB}") == "grown", "did not grow")
    is_good(t, quiet)
    after = space.groups()["quiet"]
    t.check(after["pgsteal"] < 64, f"the quiet one was evicted as it grew: {after}")
    t.check(noisy.proc.poll() is None, f"the noisy one ended: {noisy.err()}")
    noisy.kill()
    t.check(quiet.finish().status == 0, "failed")
    space.end()


def child_of(pid):
    return next((p for p, parent, _, _ in processes() if parent == pid), None)


@case("groups/stopped", timeout=120)
def stopped(t):
    """One that is stopped in the middle of it all does not hold up the others."""
    space = Space(t, 3 * t.ram)
    # It keeps what it has while it is stopped; that is to be no more than this.
    space.set("stopped", f"ram={t.ram}")
    for test in ("rw", "munmap"):
        before = space.groups()["/"]["pgsteal"]
        one = t.spawn(space.argv("stopped", *t.vmtest(test, 3 * t.ram, "--passes", "5")))
        t.check(wait_until(lambda: space.groups()["/"]["pgsteal"] > before + 2048, 30),
                "nothing evicted")
        pid = child_of(one.pid)
        t.check(pid, f"{test} ended early: {one.err()}")
        # Stopped also while the other begins, or it could end before the other is where it
        # is to be; then both run for a moment, and it is stopped with faults under way.
        os.kill(pid, signal.SIGSTOP)
        # One that has faults under way by then, and one that begins later.
        argv = space.argv(None, *t.vmtest("rw", 2 * t.ram, "--hard", "--passes", "1"))
        beside = t.spawn(argv)
        t.check(wait_until(lambda: space.groups()["/"]["pgsteal"] > before + 4096, 30),
                "nothing evicted of the other")
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.1)
        for two in (t.run(argv), beside.finish()):
            t.check(two.status == 0, f"failed beside a stopped {test}", two)
            t.check(two.seconds < 15, f"held up by a stopped {test}", two)
        os.kill(pid, signal.SIGCONT)
        run = one.finish()
        t.check(run.status == 0, "did not go on", run)
    space.end()


@case("groups/no-answer")
def no_answer(t):
    """A space whose vswap is stopped is there all the same, and said not to answer."""
    space = Space(t)
    watcher = t.spawn([t.vswap, "stat", "--json", "--watch", space.name])
    t.check((watcher.line(10) or "").startswith("{"), f"not watched: {watcher.err()}")
    os.kill(space.pid, signal.SIGSTOP)
    try:
        for args in (["tier", "rm", space.name, "tier"], ["stat", space.name],
                     ["stat", "--openmetrics", str(space.pid)],
                     ["migrate", "--from", "a", "--to", "b", str(space.pid)]):
            refused(t, t.run([t.vswap, *args]), f"vswap {space.pid}", "does not answer")
        run = t.run([t.vswap, "ls"])
        t.check(run.status == 0 and any(line.split()[:2] == [str(space.pid), "?"]
                                        for line in run.out.decode().splitlines()),
                "not listed", run)
        run = t.run([t.vswap, "ls", "--json"])
        t.check(run.status == 0 and all(one["pid"] != space.pid for one in json.loads(run.out)),
                "in the JSON", run)
        refused(t, watcher.finish(), f"vswap {space.pid}", "does not answer")
    finally:
        os.kill(space.pid, signal.SIGCONT)
    run = t.run([t.vswap, "stat", "--once", space.name])
    t.check(run.status == 0, "does not answer again", run)
    space.end()


@case("groups/stores", timeout=90)
def stores(t):
    """Limits on pool, slots and tiers hold; direct mode and back, at any time."""
    one, two = tier_file(t, 256, "one"), tier_file(t, 256, "two")
    space = Space(t, 4 * t.ram, "--tier", f"{one},prio=2", "--tier", f"{two},prio=1")
    space.set("g", f"ram={t.ram}", "pool=4M")
    live, _ = space.hold("g", 3 * t.ram)

    def group():
        return space.groups()["g"]

    def written():
        stat = json.loads(t.run([t.vswap, "stat", "--json", str(space.pid)]).out)
        return {tier["name"]: tier["bytes_written"] for tier in stat["tiers"]}

    is_good(t, live)
    g = group()
    t.check(0 < g["pool_bytes"] <= 4.5 * MIB and g["swap_bytes"] > 0, f"pool limit: {g}")
    t.check(written()[two] == 0, f"not by priority: {written()}")
    space.set("g", f"tiers={two}", "pool=max")
    before = written()[one]
    t.check(answer(t, live, "write") == "written", "not written")
    is_good(t, live)
    t.check(written()[one] == before and written()[two] > 0, f"tiers mask: {written()}")
    space.set("g", "tiers=all", "mode=direct")
    t.check(answer(t, live, "write") == "written", "not written")
    g = group()
    t.check(g["mode"] == "direct" and g["pool_bytes"] < MIB, f"not direct: {g}")
    t.check(g["swap_bytes"] > 1.5 * t.ram, f"not direct: {g}")
    is_good(t, live)
    space.set("g", "mode=virtual")
    is_good(t, live)
    t.check(answer(t, live, "write") == "written", "not written")
    is_good(t, live)
    g = group()
    t.check(g["pool_bytes"] > 2 * MIB, f"not virtual: {g}")
    space.set("g", "swap=0", "ram=max")
    is_good(t, live)
    t.check(answer(t, live, "write") == "written", "not written")
    g = group()
    # Of what it has beside that a page may be out still.
    t.check(g["swap_bytes"] <= 16 * 4096, f"swap limit: {g}")
    t.check(live.finish().status == 0, "failed")
    for word in ("tiers=", "tiers=nowhere", f"tiers={one},", "mode=fast", "pool=-1", "swap=lots"):
        refused(t, space.command("set", space.name, "g", word), "g")
    space.end()


# ---- nonsense ------------------------------------------------------------------

def refused(t, run, *words):
    t.check(run.status == 125, f"status {run.status}, not 125", run)
    lines = run.err.decode().splitlines()
    t.check(len(lines) == 1 and lines[0].startswith("vswap: ") and lines[0].endswith(")"),
            "not one line that says what to do", run)
    t.check(all(word in lines[0] for word in words), f"no word of {words}", run)


@case("groups/tier-gone")
def tier_gone(t):
    """The tiers a group may use are those that were named, not what comes after them."""
    first, second, third = (t.path(name) for name in ("first", "second", "third"))
    space = Space(t, None, "--tier", f"{first},size=64M")

    def tier(command, *args):
        return t.run([t.vswap, "tier", command, space.name, *args])

    def well(command, *args):
        run = tier(command, *args)
        t.check(run.status == 0, f"tier {command} {args}", run)

    def refused(run, *words):
        t.check(run.status == 125 and len(run.err.splitlines()) == 1, "not refused", run)
        for word in words:
            t.check(word.encode() in run.err, f"no {word}", run)

    space.set("a", f"tiers={first}")
    space.set("b", f"tiers={first}", "ram=64M")
    well("add", f"{second},size=64M")
    well("rm", first)
    well("add", f"{third},size=64M")
    space.set("b/c", "tiers=all")
    groups = space.groups()
    t.check(groups["a"]["tiers"] == [] and groups["b"]["tiers"] == [], f"{groups}")
    t.check(groups["b"]["ram"] == 64 * MIB and "tiers" not in groups["b/c"], f"{groups}")

    # Who goes past the pool needs one.
    refused(space.command("set", space.name, "a", "mode=direct"), "a", "no tier for it")
    t.check(space.groups()["a"]["mode"] == "virtual", "set nevertheless")
    refused(space.command("set", space.name, "new", f"tiers={first}", "mode=direct"), first)
    t.check("new" not in space.groups(), "made nevertheless")
    space.set("a", f"tiers={second}", "mode=direct")
    refused(tier("rm", second), second, "group a ", "mode=virtual")
    space.set("a", f"tiers={second},{third}")
    well("rm", second)
    t.check(space.groups()["a"]["tiers"] == [third], f"{space.groups()}")
    refused(tier("rm", third), third, "group a ")
    space.set("a", "mode=virtual")
    space.set("d", "mode=direct")
    space.set("d/e", "tiers=all")
    refused(tier("rm", third), third, "group d")
    space.set("d", "mode=virtual")
    well("rm", third)
    refused(space.command("set", space.name, "d", "mode=direct"), "no tier for it")
    space.end()


@case("groups/bad-input")
def bad_input(t):
    space = Space(t)
    for name in ("..", "a/../b", "/a", "a/", "a//b", ".a", "a b", "a\n", "x" * 128, "ä", "\udcff",
                 "/".join("abcdefghi")):
        refused(t, space.command("set", space.name, name, "ram=64M"), "group")
        refused(t, t.run(space.argv(name, "true")), "group")
        refused(t, space.command("rm", space.name, name), "group")
    refused(t, space.command("set", space.name, ""), "string")
    for word in ("ram=1M", "ram=0", "ram=-1", "ram=lots", "ram=", "ram", "pace=1"):
        refused(t, space.command("set", space.name, "g", word))
    refused(t, space.command("set", space.name, "g", "ram=64M", "ram=1M"))
    refused(t, space.command("set", "no-such-space", "g"), "no such space")
    refused(t, space.command("set"), "GROUP")
    refused(t, space.command("rm", space.name, "g"), "there is none")
    refused(t, space.command("paint"), "paint", "no such command")
    refused(t, space.command(), "ls, set or rm?")
    refused(t, space.command("set", "--json", space.name, "g"), "--json", "only with ls")
    refused(t, space.command("rm", "--json", space.name, "g"), "--json", "only with ls")
    t.check(list(space.groups()) == ["/"], f"something was made: {space.groups()}")
    refused(t, t.run(space.argv("g", "true")), "there is none")
    refused(t, t.run(t.vswap_run("--space", "no-such-space", "--", "true")), "no such space")
    refused(t, t.run(t.vswap_run("--group", "g", "--", "true")), "--space")
    refused(t, t.run(t.vswap_run("--space", space.name, "--ram", "1G", "--", "true")), "--ram")
    for name in ("", "12", ".a", "-a", "a/b", "x" * 64, space.name):
        refused(t, t.run([t.vswap, "serve", "--name", name, "--ram", "64M"]), "--name")
    refused(t, t.run([t.vswap, "serve", "true"]), "serve")
    # A group with a program or a group in it stays.
    space.set("g/h")
    live, _ = space.hold("g/h", MIB)
    refused(t, space.command("rm", space.name, "g/h"), "programs run in it")
    refused(t, space.command("rm", space.name, "g"), "groups in it")
    t.check(live.finish().status == 0, "failed")
    t.check(wait_until(lambda: space.groups()["g/h"]["programs"] == 0, 5), "still there")
    for name in ("g/h", "g"):
        t.check(space.command("rm", space.name, name).status == 0, f"{name} cannot be removed")
    # Many, one after the other, and too many at once.
    for i in range(200):
        reply, sock = control(space, b'{"op":"group-set","group":"n%d"}' % i)
        sock.close()
        if not reply["ok"]:
            break
    t.check(100 < i < 200, f"{i} groups")
    refused(t, space.command("set", space.name, "one-more"), "too many")
    # A space of one program has no others.
    live = t.spawn(t.vswap_run("--ram", str(t.ram), "--", "sh", "-c", "echo up; cat"))
    t.check(live.line(20) == "up", f"not up: {live.err()}")
    refused(t, t.run(t.vswap_run("--space", str(live.pid), "--", "true")), "one program's own")
    live.finish()
    space.end()


def control(space, line):
    """One request; its answer and the connection."""
    path = "/run/vswap" if os.geteuid() == 0 else \
        os.environ.get("XDG_RUNTIME_DIR", "") + "/vswap"
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(f"{path}/{space.pid}")
    sock.sendall(line + b"\n")
    data = b""
    while not data.endswith(b"\n"):
        more = sock.recv(65536)
        if not more:
            break
        data += more
    return json.loads(data), sock


def join(space):
    """Ask to join, as vswap run does; returns the connection that stands for the run."""
    reply, sock = control(space, b'{"op":"join"}')
    space.t.check(reply["ok"], f"join: {reply}")
    sock.close()
    run = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Behind another colon mostly a path, for who does not see the name.
    name, key = reply["socket"].split(":")[:2]
    run.connect("\0" + name)
    run.send(struct.pack("I900s", 6, key.encode()))
    return run, "\0" + name


@case("groups/stalls", timeout=90, waits=True)
def stalls(t):
    """Those who join and say nothing, nonsense, or leave, hold up nobody."""
    space = Space(t)
    live, _ = space.hold(None, t.size(2))
    for request in (b'{"op":"join","group":7}', b'{"op":"join","group":"../x"}',
                    b'{"op":"group-set"}', b'{"op":"group-set","group":"a","ram":"1G"}',
                    b'{"op":"group-set","group":"a","ram":1}', b'{"op":"group-rm","group":"/"}',
                    b'{"op":"group-set","group":"a","speed":1}'):
        reply, sock = control(space, request)
        t.check(not reply["ok"] and reply["error"], f"{request}: {reply}")
        sock.close()
    silent = [join(space)[0] for _ in range(3)]         # no program ever comes
    never, sock = control(space, b'{"op":"join"}')      # nor a run
    agents = []
    for _ in range(3):
        run, name = join(space)
        agents.append(run)
        mute = ("import socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
                f"s.connect({name!r}); time.sleep(60)")
        t.spawn([sys.executable, "-c", mute])           # an agent that does not greet
    run, name = join(space)
    run.send(b"nonsense" * 200)
    run.close()
    start = time.monotonic()
    one = t.run(space.argv(None, "true"))
    t.check(one.status == 0, "held up", one)
    is_good(t, live)
    t.check(answer(t, live, "write") == "written", "not written")
    t.check(time.monotonic() - start < 8, "held up")
    for sock in silent + agents:
        sock.close()
    t.check(live.finish().status == 0, "failed")
    # The one that never came is forgotten, too.
    t.check(wait_until(lambda: space.groups()["/"]["programs"] == 0, 25),
            f"not forgotten: {space.groups()}")
    space.end()
