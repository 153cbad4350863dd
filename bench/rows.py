# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the benches that run whole programs share: options, figures with targets, their JSON."""
import argparse
import contextlib
import json
import os
import subprocess
import tempfile

from compare.machine import uninterrupted
from compare.measure import started

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def arguments(doc, disk=False):
    """disk: it says where its tiers are to be."""
    parser = argparse.ArgumentParser(description=doc.split("\n", maxsplit=1)[0])
    parser.add_argument("--build", default=os.path.join(TOP, "build"))
    if disk:
        parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--json")
    args = parser.parse_args()
    args.vswap = os.path.join(args.build, "cli/vswap")
    args.touch = os.path.join(args.build, "bench/bench-touch")
    return args


@contextlib.contextmanager
def temporary(where):
    """A directory that is removed in the end, also after a signal."""
    with contextlib.ExitStack() as undo:
        with uninterrupted():
            path = undo.enter_context(tempfile.TemporaryDirectory(dir=where))
        yield path


def output(argv):
    """What a program prints that ends well."""
    with started(argv, stdout=subprocess.PIPE) as proc:
        out = proc.communicate()[0]
    if proc.returncode:
        raise subprocess.CalledProcessError(proc.returncode, argv)
    return out


def row(name, value, digits, relation, target, note="", **more):
    return {"name": name, "value": round(value, digits), "target": f"{relation} {target}{note}",
            "reached": value <= target if relation == "<=" else value >= target, **more}


def tell(rows, path):
    """Print those that have a target, and write all to path, if any."""
    for told in rows:
        if "target" in told:
            print(f"{told['name']}: {told['value']}  target {told['target']}  "
                  f"{'reached' if told['reached'] else 'MISSED'}")
    if path:
        with open(path, "w") as f:
            json.dump(rows, f, indent=1)
