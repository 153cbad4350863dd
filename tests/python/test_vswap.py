# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The Python binding, with arrays four times the memory they may have."""
import errno
import gc
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import numpy

import vswap

MIB = 1 << 20
SIZE, RAM = 16 * MIB, 4 * MIB

# What a child does that a program with a region has forked.  Nothing compresses, so the
# pages are on the tier, where a child that frees them would make holes in the file.
FORK = """
import gc, os, signal, sys, numpy, vswap

path, sigbus, end = sys.argv[1], sys.argv[2] == "True", sys.argv[3]
size = 16 << 20
space = vswap.Space(pool_limit=1 << 20)
tier = space.add_tier(path, size=64 << 20)
region = space.map(size, 1 << 20, sigbus)
plain = numpy.random.default_rng(1).integers(0, 1 << 62, size // 8)
array = region.numpy("i8")
array[:] = plain
region.advise(vswap.COLD)
child = os.fork()
if not child:
    signal.alarm(60)
    if end == "close":
        region.close()
        space.close()
    elif end == "collect":
        del region, array, space
        gc.collect()
    sys.exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert space.stat()["pages_tier"] > 1000
assert (array == plain).all()
array += 1
assert (array == plain + 1).all()
del array
region.close()
assert space.stat()["pages"] == 0
space.close()
"""


class Regions(unittest.TestCase):
    def setUp(self):
        self.space = vswap.Space(pool_limit=4 * MIB)
        self.space.add_tier(size=64 * MIB)

    def tearDown(self):
        self.space.close()

    def test_sort_and_sum(self):
        for sigbus in (False, True):
            plain = numpy.random.default_rng(1).integers(0, 1 << 40, SIZE // 8)
            with self.space.map(SIZE, RAM, sigbus) as region:
                array = region.numpy("i8")
                self.assertFalse(array.any())
                array[:] = plain
                self.assertEqual(int(array.sum()), int(plain.sum()))
                self.assertTrue((array == plain).all())
                array.sort()
                plain.sort()
                self.assertTrue((array == plain).all())
                stat = region.stat()
                self.assertGreater(stat["evicted"], SIZE // vswap.PAGE_SIZE)
                self.assertLessEqual(stat["pages_present"], RAM // vswap.PAGE_SIZE)
                self.assertGreater(self.space.stat()["pages_tier"], 0)
                del array
        self.assertEqual(self.space.stat()["pages"], 0)

    def test_buffer(self):
        region = self.space.map(SIZE, RAM)
        self.assertEqual(len(region.buffer), SIZE)
        self.assertEqual(len(region), SIZE)
        region.buffer[5:10] = b"hello"
        array = numpy.frombuffer(region.buffer, "S5", 1, offset=5)
        self.assertEqual(array[0], b"hello")
        matrix = region.numpy("f4", (1000, 1000))
        matrix[:] = numpy.arange(1000, dtype="f4")
        self.assertEqual(matrix[:, 999].sum(), 999000)
        # Nothing is pulled from under an array.
        self.assertRaises(BufferError, region.close)
        self.assertEqual(matrix[500, 5], 5)
        self.assertRaises(BufferError, self.space.close)
        del array, matrix
        region.close()
        region.close()
        with self.assertRaises(ValueError):
            region.buffer
        self.assertRaises(ValueError, region.stat)

    def test_life(self):
        """An array keeps its region, and that its space."""
        array = self.space.map(SIZE, RAM).numpy("i8")
        gc.collect()
        array[:] = 7
        self.assertEqual(int(array.sum()), 7 * (SIZE // 8))
        self.assertGreater(self.space.stat()["pages"], 0)
        del array
        gc.collect()
        self.assertEqual(self.space.stat()["pages"], 0)

        # Together, and at the end of the program.
        space = vswap.Space(pool_limit=4 * MIB)
        array = space.map(SIZE, RAM).numpy("i8")
        array[:5] = 7
        del array, space
        gc.collect()
        code = "import vswap; s = vswap.Space(); r = s.map(1 << 24, 1 << 21); " \
            "a = r.numpy('f8'); a[::2] = 1.5; print(a.mean())"
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, "0.75\n"))

    def test_fork(self):
        """Whatever a child ends or leaves is its parent's, who still has all of it."""
        for sigbus in (False, True):
            for end in ("exit", "close", "collect"):
                with self.subTest(sigbus=sigbus, end=end), \
                        tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
                    done = subprocess.run(
                        [sys.executable, "-c", FORK, file.name, str(sigbus), end],
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                        check=False)
                    self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_ends_once(self):
        """Whoever ends what at the same time: each is ended once, regions before their space."""
        ends = []

        def slowly(name, function):
            def end(handle):
                if name == "unmap":
                    began.set()
                    time.sleep(0.1)
                ends.append(name)
                function(handle)
            return end

        def drop(holder):
            del holder[0]
            gc.collect()

        began = threading.Event()
        functions = {name: getattr(vswap._lib, "vswap_" + name) for name in ("unmap", "destroy")}
        try:
            for name, function in functions.items():
                setattr(vswap._lib, "vswap_" + name, slowly(name, function))
            # The collector, in another thread, is at the region when the space is closed.
            space = vswap.Space(pool_limit=4 * MIB)
            holder = [space.map(SIZE, RAM)]
            thread = threading.Thread(target=drop, args=(holder,))
            thread.start()
            began.wait()
            space.close()
            self.assertRaises(ValueError, space.stat)
            thread.join()
            self.assertEqual(ends, ["unmap", "destroy"])

            ends.clear()
            space = vswap.Space(pool_limit=4 * MIB)
            region = space.map(SIZE, RAM)
            threads = [threading.Thread(target=end) for end in
                       (region.close, region.close, space.close, space.close)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(ends, ["unmap", "destroy"])
        finally:
            for name, function in functions.items():
                setattr(vswap._lib, "vswap_" + name, function)

    def test_advise_and_pin(self):
        region = self.space.map(SIZE, RAM)
        array = region.numpy("u8")
        array[:] = numpy.arange(len(array))
        region.advise(vswap.COLD)
        self.assertEqual(region.stat()["pages_present"], 0)
        region.advise(vswap.WILLNEED, 0, MIB)
        self.assertEqual(region.stat()["pages_present"], MIB // vswap.PAGE_SIZE)
        region.pin(MIB, MIB)
        self.assertEqual(region.stat()["pages_pinned"], MIB // vswap.PAGE_SIZE)
        with self.assertRaises(vswap.Error) as caught:
            region.pin()
        self.assertEqual(caught.exception.errno, errno.ENOMEM)
        self.assertIn("raise the region's ram", str(caught.exception))
        region.unpin()
        region.advise(vswap.DONTNEED, 0, 2 * MIB)
        self.assertFalse(array[:2 * MIB // 8].any())
        self.assertTrue((array[2 * MIB // 8:] == numpy.arange(2 * MIB // 8, len(array))).all())
        region.set_ram(2 * MIB)
        self.assertLessEqual(region.stat()["pages_present"], 2 * MIB // vswap.PAGE_SIZE)

    def test_errors(self):
        with self.assertRaises(vswap.Error) as caught:
            vswap.Space(compressor="rot13")
        self.assertEqual(caught.exception.errno, errno.EINVAL)
        with self.assertRaises(vswap.Error) as caught:
            self.space.add_tier("/no/such/file", size=MIB)
        self.assertIn("/no/such/file", str(caught.exception))
        self.assertEqual(caught.exception.errno, errno.ENOENT)
        tier = self.space.add_tier(size=8 * MIB)
        self.space.remove_tier(tier)
        for gone in (tier, None):
            with self.assertRaises(vswap.Error) as caught:
                self.space.remove_tier(gone)
            self.assertEqual(caught.exception.errno, errno.EINVAL)
        with self.assertRaises(vswap.Error) as caught:
            self.space.map(SIZE, 5)
        self.assertEqual(caught.exception.errno, errno.EINVAL)
        region = self.space.map(SIZE, RAM)
        self.assertRaises(vswap.Error, region.advise, vswap.COLD, SIZE, 1)
        self.assertRaises(vswap.Error, region.advise, 99)
        self.space.close()
        self.assertRaises(ValueError, self.space.stat)
        self.assertRaises(ValueError, self.space.map, SIZE, RAM)


if __name__ == "__main__":
    unittest.main()
