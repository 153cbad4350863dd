# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Programs people use, in a half and a quarter of the memory they take alone."""
import hashlib
import os
import random
import shutil
import sys

from harness import MIB, case

PYTHON = sys.executable

# Values of some length, for the table itself compresses badly: a quarter of the memory
# without a tier must be enough for all of it.
PYTHON_DICT = """
import hashlib
d = {i: str(i) * 60 for i in range(150000)}
for i in range(0, 150000, 3):
    d[i] = d[i][::-1]
for i in range(0, 150000, 5):
    del d[i]
for i in range(0, 150000, 5):
    d[i] = str(i) * 60
for k, v in d.items():
    assert v in (str(k) * 60, (str(k) * 60)[::-1]), k
print(hashlib.sha256("".join(d[i] for i in range(150000)).encode()).hexdigest())
"""

ISSUE_PYTHON = ("import hashlib; d={i: str(i)*20 for i in range(2500000)}; "
                "print(hashlib.sha256(''.join(d[i] for i in range(0,2500000,7)).encode())"
                ".hexdigest())")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(MIB):
            digest.update(data)
    return digest.hexdigest()


def text_file(t, mib, words):
    """Long lines in random order, @mib of them in MiB; few @words make them compress well."""
    path = os.path.join(t.shared, f"text-{mib}-{words}")
    if not os.path.exists(path):
        rng = random.Random(mib)
        vocabulary = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9)))
                      for _ in range(words)]
        made = 0
        with open(path + ".new", "w") as f:
            while made < mib * MIB:
                if words > 1:
                    rests = [" ".join(rng.choices(vocabulary, k=45)) for _ in range(500)]
                else:
                    rests = [" ".join(vocabulary * 45)] * 500
                lines = [f"{rng.getrandbits(32):08x} {rest}\n" for rest in rests]
                f.writelines(lines)
                made += sum(map(len, lines))
        os.rename(path + ".new", path)
    return path


plain_peaks = {}


def plain_peak(t, key, argv, **popen):
    """Peak bytes of a command run without vswap, measured once."""
    if key not in plain_peaks:
        run = t.sampled(argv, **popen)
        t.check(run.status == 0, "fails without vswap", run)
        plain_peaks[key] = run.peak, run.out
    return plain_peaks[key]


def add(name, timeout=90):
    """Register run(t, tier, under) for both factors, with pool only and with a tier."""
    def for_each(run):
        for factor in (2, 4):
            for tier in (False, True):
                def one(t, factor=factor, tier=tier):
                    def under(argv, **popen):
                        peak, out = plain_peak(t, (name, tier, *argv[:2]), argv, **popen)
                        ran, _ = t.paged(argv, ram=max(peak // factor, 16 * MIB),
                                         options=() if tier else ("--no-tier",), **popen)
                        t.check(ran.out == out, "another output than without vswap", ran)
                    run(t, tier, under)
                one.__module__ = __name__
                case(f"real/{name}/{factor}x-{'tier' if tier else 'pool'}", timeout)(one)
    return for_each


@add("sort")
def sort(t, tier, under):
    text = text_file(t, 40, 5000 if tier else 1)
    out = t.path("sorted")
    env = dict(os.environ, LC_ALL="C")
    under(["sort", "-S", "256M", "--parallel=2", "-o", out, text], env=env)
    again = t.run(["sort", "-c", out], env=env)
    t.check(again.status == 0, "not sorted", again)
    plain = t.path("plain")
    t.run(["sort", "-S", "256M", "-o", plain, text], env=env)
    t.check(sha256(out) == sha256(plain), "another result than without vswap")


@add("python")
def python(t, tier, under):
    under([PYTHON, "-c", PYTHON_DICT])


@add("xz")
def xz(t, tier, under):
    """What xz keeps while it compresses does not compress itself: not for a pool alone."""
    text = text_file(t, 96, 1)
    packed = os.path.join(t.shared, "text.xz")
    if not os.path.exists(packed):
        with open(packed + ".new", "wb") as out:
            t.run(["xz", "-c", "-T1", "--lzma2=preset=0,dict=96MiB", text], stdout=out)
        os.rename(packed + ".new", packed)
    back = t.path("back")
    under(["sh", "-c", f"exec xz -dc {packed} >{back}"])
    t.check(sha256(back) == sha256(text), "did not come back the same")
    if tier:
        copy = t.path("text")
        shutil.copy(text_file(t, 8, 1), copy)
        under(["xz", "-T1", "--lzma2=preset=1,dict=32MiB", "--keep", "--force", copy])
        run = t.run(["sh", "-c", f"xz -dc {copy}.xz | cmp - {copy}"])
        t.check(run.status == 0, "does not unpack to what it was", run)


@add("zstd")
def zstd(t, tier, under):
    text = text_file(t, 40, 5000 if tier else 1)
    packed, back = t.path("text.zst"), t.path("text")
    under(["zstd", "-q", "-f", "-T1", "-3", "--long=27", text, "-o", packed])
    under(["zstd", "-d", "-q", "-f", "--long=27", packed, "-o", back])
    t.check(sha256(back) == sha256(text), "did not come back the same")


@case("real/issue-python", timeout=180)
def issue_python(t):
    plain = t.run([PYTHON, "-c", ISSUE_PYTHON])
    run, _ = t.paged([PYTHON, "-c", ISSUE_PYTHON], ram=128 * MIB)
    t.check(run.out == plain.out, "another hash than without vswap", run)
