# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A program in Python: a large dictionary is made, looked up at random, and scanned.

    pydict.py ENTRIES LOOKUPS

Prints JSON: seconds of each part and percentiles of a lookup.  What it finds it checks.
"""
import json
import random
import sys
import time


def value(i):
    return f"value {i * 2654435761 % (1 << 32)} of the entry with number {i}"


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
    took.sort()
    print(json.dumps({
        "build_s": built - began, "lookups_s": looked - built, "scan_s": done - looked,
        "p50_ns": took[lookups // 2], "p99_ns": took[lookups * 99 // 100],
        "p999_ns": took[lookups * 999 // 1000], "max_ns": took[-1]}))


if __name__ == "__main__":
    main()
