# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What takes minutes, or much to be unpacked: large programs, and the kernel's own tests."""
import glob
import os
import random
import shlex
import signal
import time

from harness import MIB, case
from real import objects, unpack
from servers import Redis, connect, redis_argv, redis_reload, redis_snapshot

REDIS_BYTES, REDIS_SECONDS = 512 * MIB, 60
# Of the kernel's those that are about plain memory, and need nothing set up: name, MiB beside it.
# One locks all that there is.
SELFTESTS = (("madv_populate", 24), ("map_fixed_noreplace", 24), ("map_populate", 24),
             ("mlock-random-test", 24), ("mlock2-tests", 0), ("mremap_dontunmap", 24),
             ("mremap_test", 24), ("on-fault-limit", 24), ("virtual_address_range", 24))


def build_gas(t, wrap):
    """The assembler of binutils and the libraries it needs; the sums of its objects."""
    build = t.path("binutils/build")
    run = t.run(["sh", "-c", f"rm -rf {build} && mkdir {build} && cd {build} && exec ../configure "
                 "--disable-gdb --disable-gprofng --disable-nls --disable-werror MAKEINFO=true"])
    t.check(run.status == 0, "cannot be configured", run)
    wrap(["make", "-C", build, "-j2", "MAKEINFO=true", "all-gas"])
    return objects(build)


@case("long/make", timeout=900)
def make(t):
    """make -j2 of a real project: the same objects, under the bound."""
    unpack(t, t.path("binutils"))

    def plain(argv):
        run = t.run(argv)
        t.check(run.status == 0, "fails without vswap", run)

    want = build_gas(t, plain)
    t.check(len(want) > 150, f"{len(want)} objects")
    have = build_gas(t, lambda argv: t.paged(argv, ram=96 * MIB))
    t.check(have == want, "other objects than without vswap")


@case("long/redis", timeout=900)
def redis(t):
    """Snapshot after snapshot under load; every key is equal, there and in the last of them."""
    rng = random.Random(1)
    versions = [0] * (REDIS_BYTES // 600)
    sock = t.path("sock")
    live = t.paged_begin(redis_argv(t, sock, False), ram=192 * MIB)
    server = connect(Redis, sock, live)
    server.sock.settimeout(300)
    server.in_batches(server.set, versions)
    end, snapshots = time.monotonic() + REDIS_SECONDS, 0
    while time.monotonic() < end:
        saved = redis_snapshot(server, b"BGSAVE", versions, rng)
        snapshots += 1
    print(f"        {snapshots} snapshots", flush=True)
    server.in_batches(server.check, versions)
    server.send(b"SHUTDOWN NOSAVE\r\n")
    t.paged_end(live)
    redis_reload(t, sock, False, saved, 60)


@case("long/selftests", timeout=300)
def selftests(t):
    """The kernel's own tests of memory pass, beside other memory that leaves no room for theirs."""
    archive = glob.glob("/usr/src/linux-source-*.tar.xz")
    t.check(archive, "no sources of the kernel (install linux-source)")
    run = t.run(["tar", "-xf", archive[0], "-C", t.tmp, "--strip-components=4", "--wildcards",
                 "*/tools/testing/selftests/[vm]m", "*/tools/testing/selftests/kselftest*.h"])
    t.check(run.status == 0, "the sources do not unpack", run)
    path = glob.glob(t.path("[vm]m"))[0]
    for name, ballast in SELFTESTS:
        run = t.run(["gcc", "-w", "-O2", "-D_GNU_SOURCE", "-o", t.path(name),
                     os.path.join(path, name + ".c"), os.path.join(path, "vm_util.c"), "-lcap",
                     "-lpthread"])
        t.check(run.status == 0, f"{name} cannot be built", run)
        # Who may lock all memory has no limit to test.
        argv = ["setpriv", "--bounding-set=-ipc_lock", t.path(name)]
        run = t.run(argv)
        t.check(run.status == 0, f"{name} fails without vswap", run)
        run, stats = t.paged(["env", "LD_PRELOAD=" + t.prog("libballast.so"), *argv],
                             ram=16 * MIB, paged_out=ballast > 0,
                             env=dict(os.environ, BALLAST=str(ballast)))
        print(f"        {name}: {stats['pgsteal']} pages went", flush=True)


@case("long/busy", timeout=400)
def busy(t):
    """Forks beside busy loops: what a child shares is long on its way to be counted for it."""
    for _ in range(2):
        t.spawn(["sh", "-c", "while :; do :; done"])
    commands = [shlex.join(t.vmtest("forkwrite", size * MIB, "--passes", "3", "--threads", "3"))
                for size in (107, 37)]
    for _ in range(20):
        run, _ = t.paged(["sh", "-c", f"{commands[0]} & {commands[1]} && wait $!"], ram=96 * MIB,
                         options=["--no-tier"])
        t.check(run.out == b"ok forkwrite\n" * 2, "wrong output", run)


@case("long/paused", timeout=120)
def paused(t):
    """Ctrl-Z while memory is short, for longer than it waits for a way out."""
    t.need_userfaultfd()
    for seed in "123":
        live = t.spawn(t.vswap_run("--ram", "64M", "--no-tier", "--", *t.vmtest(
            "syscalls", 138 * MIB, "--passes", "40", "--threads", "6", "--seed", seed)))
        time.sleep(2.5)
        os.killpg(live.pid, signal.SIGSTOP)
        time.sleep(11)
        os.killpg(live.pid, signal.SIGCONT)
        time.sleep(3)
        t.check(live.proc.poll() is None, f"ended: {live.err()}")
        live.kill()
