# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The soak: programs, sizes and limits at random, one after the other, for a set time.

Each step is of a number of its own, which is printed: --seed N --steps 1 does it again.
"""
import os
import random
import shlex
import time

import memory
from harness import MIB, Case

# Whether the memory bound holds.  Not among them: what mostly is memory that is not paged, and
# needs a limit to fit; and what registers its own, which it cannot where memory is short by then.
PROGRAMS = {name: bound for name, (_, bound) in memory.TESTS.items()} | \
    dict.fromkeys(memory.RULES, True) | dict.fromkeys(memory.AGENTLESS, False)
for name in ("mlock", "shared", "sysv", "mlockall", "ownuffd"):
    del PROGRAMS[name]


def one_step(seed):
    """A case, and what it does."""
    rng = random.Random(seed)
    ram = rng.choice((16, 24, 32, 48, 64, 96)) * MIB
    tier, together = rng.random() < 0.5, rng.choice((1, 1, 2, 3))
    names = rng.choices(sorted(PROGRAMS), k=together)
    commands = []
    for name in names:
        size = max(8 * MIB, int(rng.uniform(0.4, 4) * ram / together))
        commands.append([name, size, "--passes", str(rng.randint(1, 3)), "--threads",
                         str(rng.randint(1, 8)), "--seed", str(rng.getrandbits(32)),
                         *(["--hard"] if tier and rng.random() < 0.5 else [])])
    options = [] if tier else ["--no-tier"]
    if rng.random() < 0.2:
        options += ["--compressor", "zstd"]
    # A direct read into a page that is copied just then is lost, as README has it.
    copied = rng.random() < 0.2 and "direct" not in names

    def run(t):
        argv = [t.vmtest(*command) for command in commands]
        script = " ".join(f"{shlex.join(a)} & p{i}=$!;" for i, a in enumerate(argv))
        script += " " + " && ".join(f"wait $p{i}" for i in range(together))
        what = {"argv": argv[0] if together == 1 else ["sh", "-c", script], "ram": ram,
                "options": options, "env": dict(os.environ, TMPDIR=t.tmp),
                "bound": all(PROGRAMS[name] for name in names)}
        ran, stats = t.copied(**what) if copied else t.paged(paged_out=False, **what)
        if not stats:
            return "ended, as it may be where pages are copied: memory was mapped anew"
        t.check(sorted(ran.out.split(b"\n")[:-1]) == sorted(b"ok " + n.encode() for n in names),
                "wrong output", ran)
        t.check(b"vswap:" not in ran.err, "a message from vswap", ran)
        return None

    text = (f"--ram {ram // MIB}M {' '.join(options)}{' copied' if copied else ''}: " +
            ", ".join(f"{n} {size / MIB:.0f}M {' '.join(o)}" for n, size, *o in commands))
    return Case(text, run, 180)


def soak(one, cases, minutes, seed, steps):
    """Steps at random by one(case, label), every fifth one of the cases as they are."""
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    end, n = time.monotonic() + minutes * 60, 0
    while time.monotonic() < end and n != steps:
        rng = random.Random(f"case {seed}")
        one(rng.choice(cases) if cases and rng.random() < 0.2 else one_step(seed),
            f"seed {seed}: ")
        seed, n = seed + 1, n + 1
