# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""vswap bench: it measures, says what it cannot, and leaves the machine as it found it."""
import glob
import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

from command import one_line, refused
from harness import MIB, Skipped, case, wait_until

OURS = ("vswap-pool", "vswap-both", "vswap-both-file", "vswap-disk")
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench")
KERNELS = ("zram-lzo", "zram-lz4", "file", "zswap")
# Also where the tests themselves are run by nohup(1).
HEEDS_HANGUP = ["env", "--default-signal=HUP"]


def need_alone():
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind("\0vswap-bench")
        except OSError:
            raise Skipped("another vswap bench is running") from None


def bench(t, *options, only="^sweep$", vswap=None):
    """The smallest of its workloads, once, with its files in a directory of the test's."""
    need_alone()
    return [vswap or t.vswap, "bench", "--only", only, "--rounds", "1", "--dir", t.tmp,
            "--output", t.path("out"), *options]


def figures(t, run):
    """What it found, after a look at what it printed."""
    t.check(run.status == 0, "bench failed", run)
    t.check(b"the machine is as it was found" in run.err, "it does not say that all is put back",
            run)
    t.check(os.path.getsize(t.path("out/report.md")) > 1000, "no report", run)
    with open(t.path("out/compare.json")) as f:
        return json.load(f)


def check_sweep(t, run, backends):
    """Each of the backends, and all of vswap's, ran the sweep well."""
    found = figures(t, run)
    t.check([r["name"] for r in found["results"]] == ["sweep"], f"skipped {found['skipped']}", run)
    runs = found["results"][0]["rounds"]
    t.check(len(runs) == 1, "not one round", run)
    for name in (*backends, *OURS):
        told = runs[0].get(name, {})
        t.check("failed" not in told, f"{name} failed: {told}", run)
        t.check(told and told["rows"][0]["speed"] > 0, f"no speed under {name}", run)
    return found


def swaps():
    with open("/proc/swaps") as f:
        return [line.split()[0] for line in f.readlines()[1:]]


def cgroups():
    return glob.glob("/sys/fs/cgroup/memory/vswap-*") + glob.glob("/sys/fs/cgroup/vswap-*")


def state():
    """All that bench may change."""
    found = {"swaps": swaps(), "cgroups": cgroups(),
             "zram": os.path.exists("/sys/class/zram-control")}
    for path in glob.glob("/sys/module/zswap/parameters/*") + glob.glob("/sys/block/zram*"):
        found[path] = None
        if os.path.isfile(path):
            with open(path) as f:
                found[path] = f.read()
    return found


@case("bench/run", timeout=120, alone=True)
def run_all(t):
    """Beside the kernel where that is allowed, and it is as before then."""
    t.need_userfaultfd()
    before = state()
    run = t.run(bench(t))
    found = check_sweep(t, run, ["none"])
    missing = [name for name in KERNELS if name not in found["backends"]]
    t.check(all(found["missing"].get(name) for name in missing), "not said what is missing", run)
    t.check(all(name.encode() + b" is left out: " in run.out for name in missing),
            "what is missing is not printed", run)
    t.check(state() == before, f"was {before}, is {state()}", run)
    left = set(os.listdir(t.tmp)) - {"out"}
    t.check(not [name for name in left if name.startswith("vswap-")], f"left {left}", run)


@case("bench/relative-dir", timeout=120, alone=True)
def relative_dir(t):
    """A directory that /proc/swaps names otherwise: swap is switched off there, too."""
    t.need_userfaultfd()
    where = "by a link"
    os.mkdir(t.path("with a blank"))
    os.symlink("with a blank", t.path(where))
    before = state()
    run = t.run(bench(t, "--dir", where))
    try:
        found = check_sweep(t, run, ["none"])
        check_sweep(t, run, [name for name in KERNELS if name in found["backends"]])
        t.check(state() == before, f"was {before}, is {state()}", run)
        t.check(not os.listdir(t.path("with a blank")), "something is left", run)
    finally:
        # Swap that stayed on would spoil all that follows.
        for name in set(swaps()) - set(before["swaps"]):
            t.run(["swapoff", name.replace("\\040", " ")])


@case("bench/no-rights", timeout=120, alone=True)
def no_rights(t):
    """Where nothing may be swapped to, vswap is measured alone, and that is said."""
    t.need_userfaultfd()
    t.need_root()
    run = t.run(["setpriv", "--bounding-set=-sys_admin", "--", *bench(t)])
    found = check_sweep(t, run, ["none"])
    t.check(not set(KERNELS) & set(found["backends"]), "the kernel's without the right", run)
    t.check(set(KERNELS) <= set(found["missing"]), f"missing is {found['missing']}", run)


@case("bench/installed", timeout=120, alone=True)
def installed(t):
    """An installed tree runs from where it was put."""
    t.need_userfaultfd()
    build = os.path.dirname(os.path.dirname(t.vswap))
    run = t.run(["meson", "install", "-C", build, "--no-rebuild", "--destdir", t.path("root")])
    t.check(run.status == 0, "cannot be installed", run)
    at = glob.glob(t.path("root/**/bin/vswap"), recursive=True)
    t.check(len(at) == 1, f"vswap is at {at}", run)
    libexec = os.path.join(os.path.dirname(os.path.dirname(at[0])), "libexec/vswap")
    run = t.run(bench(t, vswap=at[0]))
    check_sweep(t, run, ["none"])
    t.check(not glob.glob(f"{libexec}/**/__pycache__", recursive=True), "it writes there", run)
    shutil.rmtree(libexec)
    refused(t, 125, bench(t, vswap=at[0]), "bench", "install")


@case("bench/interrupted", timeout=120, alone=True)
def interrupted(t):
    """Ctrl-C and its like while the kernel swaps: all is put back."""
    t.need_userfaultfd()
    t.need_root()
    if swaps():
        raise Skipped("there is swap already")
    for sig in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP):
        before = state()
        live = t.spawn([*HEEDS_HANGUP, *bench(t, only="^uniform$")])
        # Both are there in a run alone.
        if not wait_until(lambda: swaps() and cgroups(), 20):
            live.finish()
            raise Skipped("the kernel has no swap or no memory cgroups for it")
        time.sleep(0.3)
        os.kill(live.pid, sig)
        run = live.finish()
        t.check(run.status == 128 + sig, f"status {run.status}", run)
        t.check(b"the machine is as it was found" in run.err, "not put back, it says", run)
        t.check(state() == before, f"was {before}, is {state()}", run)
        left = [name for name in os.listdir(t.tmp) if name.startswith(("vswap-", "out"))]
        t.check(not left, f"left {left}", run)


def of_bench(directory):
    """Numbers of the processes that have this as TMPDIR, or a directory in it."""
    found = []
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            with open(path, "rb") as f:
                if f"TMPDIR={directory}".encode() in f.read():
                    found.append(path.split("/")[2])
        except OSError:
            pass
    return found


@case("bench/others-interrupted", timeout=120, alone=True)
def others_interrupted(t):
    """The benches that run programs leave neither those nor a file."""
    t.need_userfaultfd()
    build = os.path.dirname(os.path.dirname(t.vswap))
    where = t.path("dir")
    os.mkdir(where)
    env = {**os.environ, "TMPDIR": where, "PYTHONDONTWRITEBYTECODE": "1"}
    for name, options in (("fork", ["--dir", where]), ("live", ["--dir", where]), ("share", []),
                          ("threads", [])):
        for sig in (signal.SIGTERM, signal.SIGHUP):
            live = t.spawn([*HEEDS_HANGUP, os.path.join(SOURCE, f"bench-{name}"), "--build",
                            build, *options], env=env)
            t.check(wait_until(lambda: len(of_bench(where)) > 1, 20), f"{name} runs nothing")
            time.sleep(0.5)
            os.kill(live.pid, sig)
            run = live.finish()
            t.check(run.status == 128 + sig, f"status {run.status}", run)
            left = of_bench(where), os.listdir(where)
            t.check(left == ([], []), f"left {left}", run)


@case("bench/hangup", alone=True)
def hangup(t):
    """What was told to ignore a terminal that goes does, and without that it ends."""
    from_build(t)
    script = "import os, signal; from compare.machine import Signals; Signals.catch(); " \
        "os.kill(os.getpid(), signal.SIGHUP)"
    env = {**os.environ, "PYTHONPATH": sys.path[0]}
    for argv, status in ((HEEDS_HANGUP, 128 + signal.SIGHUP), (["nohup"], 0)):
        run = t.run([*argv, sys.executable, "-c", script], env=env)
        t.check(run.status == status, f"status {run.status}", run)


@case("bench/options", alone=True)
def options(t):
    """Bad options, and a machine without Python, are told in a line."""
    t.need_userfaultfd()
    need_alone()
    out = t.path("out")
    for args, *words in (
            (["--unknown"], "--unknown"),
            (["--ful"], "--ful"),
            (["surplus"], "surplus"),
            (["--rounds"], "rounds"),
            (["--rounds", "0"], "rounds"),
            (["--rounds", "many"], "many"),
            (["--minutes", "soon"], "soon"),
            (["--minutes", "0"], "minutes"),
            (["--only", "("], "only"),
            (["--only", "no-such-workload"], "no-such-workload", "--list"),
            (["--dir", "/nowhere"], "/nowhere"),
            (["--output", "/proc/out"], "/proc/out"),
            (["--dir", "/no\nwhere"], "/no?where"),
            (["--tree", t.tmp], "--output"),
            (["--output", t.vswap], t.vswap)):
        refused(t, 125, [t.vswap, "bench", "--output", out, *args], "bench: ", *words)
    t.check(not os.path.exists(out), "a directory for nothing")
    refused(t, 125, [t.vswap, "bench"], "python3", "install", env={"PATH": "/nowhere"})
    with socket.socket(socket.AF_UNIX) as name:
        name.bind("\0vswap-bench")
        refused(t, 125, [t.vswap, "bench", "--output", out], "another", "wait")
    run = t.run([t.vswap, "bench", "--list"])
    t.check(run.status == 0 and {b"seq", b"sweep", b"compile"} <= set(run.out.split()),
            "no list", run)
    run = t.run(["sh", "-c", 'exec "$0" bench --list >/dev/full', t.vswap],
                env=dict(os.environ, PYTHONUNBUFFERED=""))
    t.check(run.status == 125 and one_line(run) and b"disk full" in run.err,
            "a list that cannot be printed", run)


def from_build(t):
    """Its modules can be imported then."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(t.vswap)), "bench"))


@case("bench/undo", alone=True)
def undone(t):
    """What cannot be put back is told, and keeps nothing else from it."""
    from_build(t)
    from compare import machine
    done = []
    with machine.Undo() as undo:
        undo.callback(done.append, "first")
        undo.callback(machine.tool, "false")
        undo.callback(os.rmdir, t.path("nowhere"))
        undo.callback(done.append, "last")
    t.check(done == ["last", "first"] and len(undo.failed) == 2, f"{done}, {undo.failed}")


@case("bench/failed-runs", alone=True)
def failed_runs(t):
    """What did not end well gives no figure, equals nobody's memory, and is not passed over."""
    from_build(t)
    from compare import backends, measure, report, targets, workloads
    died = {"failed": "killed for want of memory", "memory_bytes": 50 * MIB, "output": ""}

    def good(memory, speed):
        return {"memory_bytes": memory * MIB, "overshoot_bytes": 0,
                "rows": [{"name": "x", "speed": speed}]}

    class Refused(backends.Backend):
        def job(self, argv, env):
            raise subprocess.SubprocessError("not entered")

    run = measure.once(workloads.Python(), Refused(), 0, {})
    t.check(run["failed"] == "not entered", f"{run}")
    ours = backends.vswaps("vswap", t.tmp)[0]
    for before, ram in (({"zram-lzo": good(100, 1), "zram-lz4": died}, 100),
                        ({"zram-lzo": good(100, 1), "zram-lz4": good(90, 1)}, 90),
                        ({"zram-lzo": died}, 64), ({}, 64)):
        ours.begin(40 * MIB, before)
        t.check(ours.ram == ram * MIB, f"{ours.ram / MIB} MiB, not {ram}, after {before}")
    result = {"name": "x", "title": "x", "unit": "pages/s", "limit_bytes": 0, "tried": [],
              "rounds": [{"vswap-pool": good(100, 2), "zram-lzo": good(100, 1), "zram-lz4": died},
                         {"vswap-pool": died, "zram-lzo": good(100, 1), "zram-lz4": died}]}
    t.check(measure.values(result, "vswap-pool", "x", "memory_bytes") == [100 * MIB], "memory")
    t.check(not measure.values(result, "zram-lz4", "x", "memory_bytes"), "memory of failed runs")
    t.check(measure.ratios(result, "x", "vswap-pool", ["zram-lzo", "zram-lz4"]) == [2], "ratios")
    for rounds, value, verdict in (
            (result["rounds"], 2, "MISSED: 1 of 2 failed: killed"),
            # Without a figure, too; but not where nothing did better.
            (result["rounds"][1:], None, "MISSED: 1 of 1 failed: killed"),
            ([{"vswap-pool": died, "zram-lzo": died}], None, "not measured: vswap, pool: killed"),
            (result["rounds"][:1], 2, "reached")):
        told = targets.compared({"results": [dict(result, rounds=rounds)],
                                 "backends": {"vswap-pool": "vswap, pool", "zram-lzo": "lzo"}},
                                "speed", "x", "vswap-pool", ["zram-lzo", "zram-lz4"], least=1.0)
        t.check(told["value"] == value and told["verdict"].startswith(verdict), f"{told}")
    told = targets.overshoot({"results": [result]})
    t.check(told["verdict"].startswith("MISSED: failed: x: killed"), f"{told}")
    del result["rounds"][1]
    t.check(targets.overshoot({"results": [result]})["verdict"] == "reached", "not reached")
    result["weighed"] = {"vswap-pool": died}
    told = targets.overshoot({"results": [result]})
    t.check(told["verdict"].startswith("MISSED: failed: x: killed"), f"{told}")
    titles = {"vswap-pool": "vswap, pool", "zram-lzo": "lzo", "zram-lz4": "lz4"}
    text = report.plain(report.table({"backends": titles}, result, "x"))
    t.check("PSS FAILED: killed for want" in text, text)
    text = report.block({"backends": titles, "equals": {}}, result)
    t.check("vswap, pool: peak memory: FAILED: killed for want" in text, text)
    del result["rounds"][0]["vswap-pool"], result["rounds"][0]["zram-lzo"]
    report.target_table([told, targets.overshoot({"results": [result]})])


@case("bench/ratio")
def ratio(t):
    """Of the moment with most pages, not of that with least of them in most memory."""
    from_build(t)
    from compare import backends

    class Store:
        def __init__(self):
            self.told = [(10, 5), (40, 20), (8, 21)]

        def store(self):
            return self.told.pop(0)

    kernel = backends.Kernel("x", "x", None, Store())
    for _ in range(3):
        kernel.sample(0)
    t.check(kernel.best == (40, 20), f"{kernel.best}")


@case("bench/targets", alone=True)
def judged(t):
    """Programs by their wall time; of the peaks the one nearest to what is allowed."""
    from_build(t)
    from compare import targets

    def run(speed, wall, memory=100, above=0):
        return {"rows": [{"name": "x", "speed": speed}], "wall_s": wall,
                "memory_bytes": memory * MIB, "overshoot_bytes": above * MIB}

    def found(name, ours, theirs):
        return {"results": [{"name": name, "title": "x", "rounds": [{**ours, **theirs}]}],
                "backends": {}, "missing": {}, "skipped": {}, "others": {}}

    told = targets.programs(found("python3", {"vswap-pool": run(2, 1.5)}, {"zram-lzo": run(1, 1)}))
    t.check(told[1]["value"] == 1.5 and told[1]["verdict"] == "MISSED", f"{told}")
    told = targets.rows(found("fits", {"vswap-both-file": run(1, 2.02)}, {"none": run(2, 2)}))
    t.check(told[0]["value"] == 1.01 and told[0]["verdict"] == "reached", f"{told}")
    told = targets.overshoot(found("x", {"vswap-pool": run(1, 1, 100, 10)},
                                   {"vswap-both": run(1, 1, 1000, 1)}))
    t.check(round(told["value"], 3) == 0.476 and "10 MiB above 100" in told["what"], f"{told}")
    told = targets.overshoot(found("x", {"vswap-pool": run(1, 1, 100, 22)}, {}))
    t.check(told["verdict"] == "MISSED", f"{told}")


def bench_compare():
    """The program as a module, after from_build()."""
    script = os.path.join(sys.path[0], "bench-compare")
    loader = importlib.machinery.SourceFileLoader("bench_compare", script)
    loaded = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(loaded)
    return loaded


@case("bench/fewer-rounds")
def fewer_rounds(t):
    """What no target is about is run less often where time is short, but run."""
    from_build(t)
    fewer = bench_compare().fewer

    class Clock:
        def __init__(self, left):
            self.left = left

        def fits(self, seconds):
            return seconds <= self.left

    def cost(work, rounds):
        return len(work) * (1 + min(rounds, 3))

    for left, rounds in ((40, 5), (39, 2), (30, 2), (29, 1), (0, 1)):
        told = fewer(Clock(left), range(10), cost, 5)
        t.check(told == rounds, f"{told} rounds in {left} seconds, not {rounds}")


@case("bench/complete", alone=True)
def complete(t):
    """Our own report is replaced only by one that has everything."""
    from_build(t)
    loaded = bench_compare()
    args = loaded.arguments(["--full", "--tree", t.tmp])

    def found(skipped=(), missing=(), other=None, rounds=5, beside=5):
        return {"skipped": skipped, "missing": missing,
                "others": {"core": other or {"results": []}, "live": []},
                "results": [{"beside": False, "rounds": [{}] * rounds},
                            {"beside": True, "rounds": [{}] * beside}]}

    for told, where in ((found(), "docs"), (found(beside=2), "docs"),
                        (found(missing=["region"]), "docs"),
                        (found(skipped=["zipf"]), "build/compare"),
                        (found(missing=["zswap"]), "build/compare"),
                        (found(other={"missing": "out of time"}), "build/compare"),
                        (found(rounds=4), "build/compare"), (found(beside=1), "build/compare")):
        path = loaded.report_path(args, told)
        t.check(path == t.path(f"{where}/performance.md"), f"{path}, not in {where}: {told}")


@case("bench/links", timeout=120, alone=True)
def links(t):
    """As root it writes where others may, and not to what they lay out for it."""
    t.need_userfaultfd()
    os.mkdir(t.path("dir"), 0o777)
    os.chmod(t.path("dir"), 0o1777)
    with open(t.path("precious"), "w") as f:
        f.write("as it was")
    # vswap bench becomes python3 by exec: its number is known before it starts.
    script = """for what in stats stats-pss swap text; do
            ln -s "$PWD/precious" "dir/vswap-compare-$$-$what"
        done
        exec "$@" """
    run = t.run(["sh", "-c", script, "sh", *bench(t, "--dir", t.path("dir"))])
    with open(t.path("precious")) as f:
        t.check(f.read() == "as it was", "written to by a link", run)
    check_sweep(t, run, ["none"])
    t.check(len(os.listdir(t.path("dir"))) == 4, f"left {os.listdir(t.path('dir'))}", run)


@case("bench/out-of-time", alone=True)
def out_of_time(t):
    """What does not fit is left out and named."""
    t.need_userfaultfd()
    run = t.run(bench(t, "--minutes", "0.001"))
    found = figures(t, run)
    t.check(list(found["skipped"]) == ["sweep"] and not found["results"], "it ran", run)
    t.check(b"sweep: out of time" in run.out, "not said", run)
