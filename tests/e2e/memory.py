# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Programs that check every byte they hold, in a quarter of the memory they use."""
import json
import os
import shlex
import sys

from failure import check_pages
from harness import MIB, Skipped, case, wait_until

# name: sanitizers' builds to run it on as well, whether the memory bound holds
# (shared and locked memory is not vswap's to page).
# TSan is for what several threads of vswap do at once, at ten times the time.
ASAN = ("address",)
BOTH = ("address", "thread")
TESTS = {
    "seq": (ASAN, True),
    "random": (ASAN, True),
    "zipf": ((), True),
    "rw": (BOTH, True),
    "thp": ((), True),
    "threads": (BOTH, True),
    "threadend": (ASAN, True),
    "mainend": (ASAN, True),
    "realloc": (ASAN, True),
    "stacks": (ASAN, True),
    "recursion": ((), True),
    "malloc": (ASAN, True),
    "brk": (ASAN, True),
    "dontneed": (ASAN, True),
    "dontneed-race": (BOTH, True),
    "free": (ASAN, True),
    "mremap": (BOTH, True),
    "mprotect": (ASAN, True),
    "munmap": (ASAN, True),
    "holes": (ASAN, True),
    "churn": (ASAN, True),
    "manymaps": (ASAN, True),
    "mlock": ((), False),
    "shared": ((), False),
    "forkexec": ((), True),
    "forkread": (ASAN, True),
    "forkwrite": (ASAN, True),
    "forkgrow": (ASAN, True),
    "forkthreads": (BOTH, True),
    # What a fork shares cannot be write-protected while the map changes, as here it mostly does.
    "forkmoves": (ASAN, False),
    "spawn": ((), True),
    "clone": ((), True),
    "orphan": ((), True),
    "shell": (ASAN, True),
    "syscalls": (ASAN, True),
    "closefds": (ASAN, True),
    "signals": (ASAN, True),
}


def check_output(t, ran, name):
    t.check(ran.out == b"ok " + name.encode() + b"\n", "wrong output", ran)
    t.check(b"vswap:" not in ran.err, "a message from vswap", ran)


def add(name, factor, tier, sanitized, bound):
    @case(f"memory/{name}/{factor}x-{'tier' if tier else 'pool'}", timeout=60,
          sanitized=sanitized if tier else ASAN if "thread" in sanitized else ())
    def run(t):
        size = t.size(factor)
        # Else all would have room once what compresses is out.
        if name == "malloc" and tier and t.sanitized:
            size += 32 * MIB
        # With one pass, threads is over before a slow vswap has looked.
        argv = t.vmtest(name, size, *(["--hard"] if tier else []),
                        *(["--passes", "4" if name == "threads" else "1"]
                          if t.sanitized or tier else []))
        ran, stats = t.paged(argv, options=() if tier else ("--no-tier",), bound=bound)
        check_output(t, ran, name)
        if tier:
            t.check(stats["pswpout"] > 0, "nothing went to the tier", ran)
        else:
            t.check(stats["zswpout"] > 0, "nothing went to the pool", ran)
            t.check(stats["pswpout"] == 0 and not stats["tiers"], "there is a tier", ran)


# Less than four times the memory is what the soak asks for as well.
for name, (sanitized, bound) in TESTS.items():
    for tier in (False, True):
        # It takes half of the budget: a pool cannot hold four times it in the rest.
        add(name, 2 if name == "shared" and not tier else 4, tier, sanitized, bound)


def add_rule(name):
    @case(f"memory/{name}", timeout=60)
    def run(t):
        """What Linux says of such memory holds for what is swapped out."""
        ran, stats = t.paged(t.vmtest(name, 3 * t.ram), env=dict(os.environ, TMPDIR=t.tmp))
        check_output(t, ran, name)
        if name == "mlockall":
            # The agent's own memory is locked by it as well, and must not stay so.
            moved, copied = stats["evictions"]["move"], stats["evictions"]["copy"]
            t.check(moved > copied, f"{moved} pages moved, {copied} copied", ran)


RULES = ("mapkinds", "sysv", "mlockall", "advices", "direct", "ownuffd", "sandbox", "rlimits",
         "barrier", "splits")
for rule in RULES:
    add_rule(rule)


def add_agentless(name):
    @case(f"memory/{name}", timeout=60)
    def run(t):
        """A child without an agent gives nothing back of what it came with: no bound on that."""
        ran, _ = t.paged(t.vmtest(name, 3 * t.ram), bound=False)
        check_output(t, ran, name)


AGENTLESS = ("clonefork", "low")
for agentless in AGENTLESS:
    add_agentless(agentless)


@case("memory/spared", sanitized=["address"])
def spared(t):
    """Half of it is noise, and the other would do: a tier gets little of what is in use."""
    ran, stats = t.paged(t.vmtest("rw", t.ram * 5 // 4, "--hard", "--passes", "3"))
    check_output(t, ran, "rw")
    put, spare = stats["pages_out"], stats["evictions"]["spared"]
    t.check(spare > 0, "nothing was spared", ran)
    t.check(put["tier"] < put["pool"], f"{put['tier']} pages went to the tier, "
            f"{put['pool']} to the pool", ran)


@case("memory/dropbehind")
def drop_behind(t):
    """What is gone over in sequence and comes from a tier goes back there, not by the pool."""
    def parts(*test):
        """Of the pages that went to the tier: those that were in the pool, and the others."""
        ran, stats = t.paged(t.vmtest(*test))
        check_output(t, ran, test[0])
        return stats["zswpwb"], stats["pages_out"]["tier"] - stats["zswpwb"]

    pooled, other = parts("seq", 10 * t.ram, "--passes", "1")
    t.check(other > pooled / 2, f"only {other} pages passed the pool by, {pooled} did not")
    pooled, other = parts("random", 8 * t.ram, "--passes", "1")
    t.check(pooled and other < pooled / 10, f"{other} pages in no order passed the pool by, {pooled} "
            "did not")


@case("memory/again")
def again(t):
    """Gone over in sequence again and again: a part stays, and is not fetched in each round."""
    passes, pages = 8, 2 * t.ram // 4096
    ran, stats = t.paged(t.vmtest("seq", 2 * t.ram, "--passes", str(passes)),
                         options=["--no-tier"])
    check_output(t, ran, "seq")
    faults = stats["faults"]
    came = sum(faults.values()) - faults["first_touch"] + stats["readahead"]["pages"]
    # Nothing stays where the oldest goes first; there are two rounds more, to check.
    t.check(came < 0.97 * (passes + 2) * pages, f"{came} pages came, there are {pages}", ran)


@case("memory/arguments")
def arguments(t):
    """ps(1) and others read them from where they lie, and the kernel waits for no page there."""
    live = t.paged_begin(["env", "TOLD=" + 3000 * "x", *t.vmtest("hold", 4 * t.ram, "--hard")])
    line = live.line(40)
    t.check(line and line.startswith("ready "), f"not ready: {line!r}, stderr: {live.err()}")
    for _ in range(2):
        check_pages(t, live)
    for name, word in (("cmdline", b"hold"), ("environ", b"TOLD=" + 3000 * b"x")):
        with open(f"/proc/{line.split()[1]}/{name}", "rb") as f:
            t.check(word in f.read().split(b"\0"), f"no {word} in {name}")
    t.paged_end(live)


@case("memory/pidns", timeout=60)
def pidns(t):
    """Agents whose threads have the same number, each in a namespace of its own."""
    t.need_root()
    ran, _ = t.paged(t.vmtest("pidns", 2 * t.ram), bound=False)
    check_output(t, ran, "pidns")


@case("memory/netns", timeout=60)
def netns(t):
    """Programs in a network namespace of their own have no names in common with vswap."""
    t.need_root()
    for how in ([], ["--fork"]):
        ran, _ = t.paged(["unshare", "--net", *how, *t.vmtest("rw", 2 * t.ram)])
        check_output(t, ran, "rw")


@case("memory/vforkleft", timeout=60)
def vforkleft(t):
    """The memory is the child's as well until it execs, and is served for as long."""
    killed = 0
    for seed in range(4):
        # For a moment the two are there, and each is said to have all of it.
        ran, _ = t.paged(t.vmtest("vforkleft", 3 * t.ram, "--seed", str(seed)), status=137,
                         bound=False)
        # Where the agent died in the midst of a batch, nobody knows where its pages are.
        if b"vswap: a process was killed while its memory was evicted" in ran.err:
            killed += 1
        else:
            check_output(t, ran, "vforkleft")
        t.check(b"vmtest:" not in ran.err, "wrong bytes", ran)
    t.check(killed < 4, "killed each time", ran)


@case("memory/parentexec", timeout=60)
def parentexec(t):
    """What a parent leaves by exec stays its child's; the two are one tree."""
    ran, _ = t.paged(t.vmtest("parentexec", 3 * t.ram))
    t.check(sorted(ran.out.splitlines()) == [b"ok parentexec", b"ok rw"], "wrong output", ran)


@case("memory/forkshare", timeout=60)
def forkshare(t):
    """What is out is shared by count: no page is read back for a fork, and none goes twice."""
    pages, children, forks = 3 * t.ram // 4096, 8, 100
    most = pages * 17 // 16
    live = t.paged_begin(t.vmtest("hold", 3 * t.ram, "--hard"))
    pid = live.line(40).split()[1]

    def counts():
        stats = json.loads(t.run([t.vswap, "stat", "--json", pid]).out)
        return stats["slots_used"], sum(stats["faults"][kind] for kind in
                                        ("cache", "fill", "pool", "tier"))

    def check(what, n, since):
        slots, read = counts()
        # What is resident at a fork may go once for each that has it.
        t.check(slots < 2 * pages, f"{what}: {slots} slots of {pages} pages")
        # Their stacks and libc's pages.
        t.check(read - since < 16 * n, f"{what}: {read - since} pages read back")

    slots, read = counts()
    t.check(slots > pages // 2, f"{slots} slots of {pages} pages")
    live.say(f"fork {children}")
    t.check(live.line(30) == "forked", "not forked")
    check(f"{children} children", 2 * children, read)
    live.say("end")
    t.check(live.line(30) == "ended", "wrong bytes in a child")
    # They wrote as much as there is, and give it back at once.
    t.check(wait_until(lambda: counts()[0] < most, 1), f"{counts()[0]} slots after them")
    read = counts()[1]
    live.say(f"forks {forks}")
    t.check(live.line(30) == "forked", "not forked")
    check(f"{forks} forks", forks, read)
    check_pages(t, live)
    t.paged_end(live)


@case("memory/leftbehind", timeout=60)
def leftbehind(t):
    """One whose parent has ended counts with what that left it, or others grow beside it."""
    ram = 64 * MIB
    stays = t.vmtest("leftbehind", ram * 5 // 8, "--passes", "3")
    grows = t.vmtest("seq", 3 * ram)
    ran, _ = t.paged(["sh", "-c", f"{shlex.join(stays)} & sleep 0.3; {shlex.join(grows)}; wait"],
                     ram=ram)
    t.check(sorted(ran.out.splitlines()) == [b"ok leftbehind", b"ok seq"], "wrong output", ran)


@case("memory/mapped", timeout=60)
def mapped(t):
    """Where nothing else is left, mapped files leave: they are there to be read again."""
    _, stats = t.paged(t.vmtest("mapped", 4 * t.ram, "--passes", "8"), options=("--no-tier",),
                       env=dict(os.environ, TMPDIR=t.tmp))
    t.check(stats["pgsteal_file"] > 0, "no page of the file was dropped")


def add_copied(name, size=64):
    @case(f"memory/copied/{name}", timeout=60)
    def run(t):
        for _ in range(3):
            run, stats = t.copied(t.vmtest(name, size * MIB, "--hard"))
            if stats:
                break
        t.check(stats, "ended each time", run)
        t.check(stats["evictions"]["copy"] > 0, "nothing was copied")
        t.check(stats["evictions"]["move"] == 0, "pages were moved")


for name in ("rw", "threads", "mremap", "munmap", "churn", "mprotect", "dontneed", "forkread",
             "forkgrow"):
    add_copied(name)
# As much as it takes for holes to be met.
add_copied("holes", 86)


@case("memory/copied/remapped", timeout=120)
def remapped(t):
    """What is moved to where memory is being dropped is not dropped with it unnoticed."""
    three = [t.vmtest("mremap", size * MIB, "--passes", "2") for size in (64, 19, 28)]
    script = " ".join(f"{shlex.join(argv)} & p{i}=$!;" for i, argv in enumerate(three))
    for _ in range(5):
        run, stats = t.copied(["sh", "-c", script + " wait $p0 && wait $p1 && wait $p2"],
                              ram=64 * MIB, options=("--no-tier",))
        t.check(not stats or run.out == 3 * b"ok mremap\n", "wrong output", run)


@case("memory/compressor-zstd")
def compressor_zstd(t):
    t.paged(t.vmtest("rw", 128 * MIB), options=("--no-tier", "--compressor", "zstd"))


@case("memory/compressor-none")
def compressor_none(t):
    _, stats = t.paged(t.vmtest("rw", 128 * MIB), options=("--compressor", "none"))
    t.check(stats["zswpout"] == 0, "pages went to the pool")
    t.check(stats["pswpout"] > 0, "no page went to the tier")


@case("memory/tier-file")
def tier_file(t):
    """A named file, and two of them by priority."""
    first, second = t.path("first"), t.path("second")
    for path in (first, second):
        with open(path, "wb") as f:
            os.chmod(path, 0o600)
            f.truncate(256 * MIB)
    _, stats = t.paged(t.vmtest("rw", 128 * MIB, "--hard"),
                       options=("--tier", f"{first},size=24M,prio=5", "--tier", f"{second},prio=1"))
    tiers = {tier["name"].split("/")[-1]: tier for tier in stats["tiers"]}
    t.check(set(tiers) == {"first", "second"}, f"tiers are {sorted(tiers)}")
    t.check(tiers["first"]["bytes_written"] > 0, "nothing was written to the first tier")
    t.check(tiers["second"]["bytes_written"] > 0, "the first was full, and the second not used")
    t.check(tiers["first"]["size_bytes"] <= 24 * MIB, "size= was not kept")


@case("memory/fits")
def fits(t):
    """Less than its budget: no page is taken away, and it runs as it does alone."""
    t.need_userfaultfd()
    stats_path = t.path("stats.json")
    run = t.run(t.vswap_run("--ram", "512M", "--stats", stats_path, "--",
                            *t.vmtest("rw", 64 * MIB)))
    t.check(run.status == 0, "failed", run)
    with open(stats_path) as f:
        stats = json.load(f)
    t.check(stats["pgsteal"] == 0, f"{stats['pgsteal']} pages were taken away", run)
    t.check(sum(stats["faults"].values()) == 0, f"faults: {stats['faults']}", run)


HUGE = """import mmap, re
m = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(mmap.MADV_HUGEPAGE)
for at in range(0, len(m), 4096):
    m[at] = 1
print(re.search(r"AnonHugePages: *([0-9]+)", open("/proc/self/smaps_rollup").read())[1])
"""


@case("memory/fits-huge")
def fits_huge(t):
    """Less than its budget: it has as many huge pages as alone."""
    t.need_userfaultfd()
    argv = [sys.executable, "-c", HUGE]
    alone = t.run(argv)
    if int(alone.out) < 48 << 10:
        raise Skipped(f"there are few huge pages here: {int(alone.out)} KiB")
    run = t.run(t.vswap_run("--ram", "512M", "--", *argv))
    t.check(run.status == 0 and int(run.out) >= int(alone.out) - 4096,
            f"{int(alone.out)} KiB of huge pages alone", run)
