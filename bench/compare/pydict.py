# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A program in Python: a large dictionary is made, looked up at random, and scanned.

    pydict.py ENTRIES LOOKUPS [IMAGE]

Prints JSON: seconds of each part and percentiles of a lookup.  What it finds it checks.
To IMAGE go the pages of its heap.
"""
import json
import os
import random
import sys
import time


def value(i):
    return f"value {i * 2654435761 % (1 << 32)} of the entry with number {i}"


def write_heap(path):
    """What of its memory is no file's, but for what is all zeros."""
    zeros = bytes(4096)
    with open("/proc/self/maps") as f:
        maps = [line.split() for line in f]
    with open("/proc/self/mem", "rb", 0) as mem, open(path, "wb") as image:
        for where, mode, _, _, _, *name in maps:
            if mode != "rw-p" or name not in ([], ["[heap]"]):
                continue
            begin, end = (int(at, 16) for at in where.split("-"))
            for at in range(begin, end, 4096):
                page = os.pread(mem.fileno(), 4096, at)
                if page != zeros:
                    image.write(page)


def main():
    entries, lookups = int(sys.argv[1]), int(sys.argv[2])
    began = time.perf_counter()
    table = {f"key {i}": value(i) for i in range(entries)}
    built = time.perf_counter()
    rng, took = random.Random(1), []
    for _ in range(lookups):
        i = rng.randrange(entries)
        key = f"key {i}"
        start = time.perf_counter_ns()
        found = table[key]
        took.append(time.perf_counter_ns() - start)
        if found != value(i):
            sys.exit(f"pydict: {key}: WRONG")
    looked = time.perf_counter()
    if sum(map(len, table.values())) != sum(len(value(i)) for i in range(entries)):
        sys.exit("pydict: the scan came out WRONG")
    done = time.perf_counter()
    if len(sys.argv) > 3:
        write_heap(sys.argv[3])
    took.sort()
    print(json.dumps({
        "build_s": built - began, "lookups_s": looked - built, "scan_s": done - looked,
        "p50_ns": took[lookups // 2], "p99_ns": took[lookups * 99 // 100],
        "p999_ns": took[lookups * 999 // 1000], "max_ns": took[-1]}))


if __name__ == "__main__":
    main()
