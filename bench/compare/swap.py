# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The kernel's ways to swap: zram, a file, zswap over that file.

Each is made once and on only while a run needs it, since they take turns.  store() is
(pages' bytes in it, memory they take), of what is kept compressed in memory.
"""
import glob
import os

from compare.machine import (Missing, PREFIX, ZSWAP, patiently, read, swaps, text_of, tool,
                             uninterrupted, write)

ZRAM = ("zram-lzo", "zram-lz4")     # names of the backends that are that


def pages_written():
    """To any swap, since the machine runs; what zswap keeps is not."""
    return next(int(line.split()[1]) for line in read("/proc/vmstat").splitlines()
                if line.startswith("pswpout "))


class Swap:
    """A device or file that can be swapped to."""
    path = None
    disk = True         # what is written there is not in memory

    def on(self):
        with uninterrupted():
            tool("swapon", self.path)

    def off(self):
        with uninterrupted():
            if self.path in swaps():
                patiently(lambda: tool("swapoff", self.path))

    def store(self):
        return 0, 0

    def peak(self):
        """The most memory it took since it is on."""
        return 0


def load_zram(undo):
    """The module, if it is not in the kernel already."""
    if os.path.exists("/sys/class/zram-control"):
        return
    with uninterrupted():
        tool("modprobe", "zram", "num_devices=0")
        undo.callback(tool, "modprobe", "-r", "zram")


class Zram(Swap):
    disk = False

    def __init__(self, undo, algorithm, size):
        load_zram(undo)
        try:
            with uninterrupted():
                self.number = int(read("/sys/class/zram-control/hot_add"))
                undo.callback(self.remove)
        except OSError as e:
            raise Missing(f"no zram device: {e.strerror}") from None
        self.path = f"/dev/zram{self.number}"
        self.sys = f"/sys/block/zram{self.number}"
        try:
            write(f"{self.sys}/comp_algorithm", algorithm)
        except OSError:
            raise Missing(f"the kernel's zram has no {algorithm}") from None
        write(f"{self.sys}/disksize", size)
        tool("mkswap", self.path)
        # Not everybody who may make one may swap to it.
        self.on()
        self.off()

    def remove(self):
        self.off()
        patiently(lambda: write("/sys/class/zram-control/hot_remove", self.number))

    def on(self):
        super().on()
        write(f"{self.sys}/mem_used_max", 0)

    def store(self):
        words = read(f"{self.sys}/mm_stat").split()
        return int(words[0]), int(words[2])

    def peak(self):
        return int(read(f"{self.sys}/mm_stat").split()[4])


class File(Swap):
    def __init__(self, undo, directory, size):
        path = os.path.join(directory, f"{PREFIX}{os.getpid()}-swap")
        with uninterrupted():
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            self.path = path
            undo.callback(self.remove)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as e:
            raise Missing(f"swap file in {directory}: {e.strerror}") from None
        finally:
            os.close(fd)
        tool("mkswap", path)
        # Not every file system will have one.
        self.on()
        self.off()

    def remove(self):
        self.off()
        os.unlink(self.path)


def zswap_off(undo):
    """While the comparison lasts zswap is on where it is measured, and nowhere else."""
    was = text_of(f"{ZSWAP}/enabled")
    if was == "Y":
        with uninterrupted():
            undo.callback(write, f"{ZSWAP}/enabled", was)
            write(f"{ZSWAP}/enabled", "N")


class Zswap(Swap):
    """Keeps compressed what would go to the swap file, as long as it has room."""

    def __init__(self, undo, file):
        if not glob.glob(f"{ZSWAP}/enabled"):
            raise Missing("the kernel has no zswap")
        if "Zswap:" not in read("/proc/meminfo"):
            raise Missing("/proc/meminfo does not tell what zswap holds (Linux before 5.19)")
        self.file = file
        self.path = file.path
        self.highest = 0
        undo.callback(self.off)
        compressor = read(f"{ZSWAP}/compressor").strip()
        undo.callback(write, f"{ZSWAP}/compressor", compressor)
        self.compressor = self.choose()

    def choose(self):
        """lz4 as elsewhere, if the kernel has it for zswap.  It says so only where it is on."""
        for name in ("lz4", "lzo-rle", "lzo"):
            try:
                write(f"{ZSWAP}/enabled", "Y")
                write(f"{ZSWAP}/compressor", name)
            except OSError:
                continue
            finally:
                write(f"{ZSWAP}/enabled", "N")
            if read(f"{ZSWAP}/compressor").strip() == name:
                return name
        raise Missing("zswap has none of the compressors lz4, lzo-rle, lzo")

    def on(self):
        write(f"{ZSWAP}/enabled", "Y")
        self.highest = 0
        super().on()

    def off(self):
        super().off()
        write(f"{ZSWAP}/enabled", "N")

    def store(self):
        info = dict(line.split(":") for line in read("/proc/meminfo").splitlines())
        pages, store = (int(info[key].split()[0]) << 10 for key in ("Zswapped", "Zswap"))
        self.highest = max(self.highest, store)
        return pages, store

    def peak(self):
        """What was seen; the kernel keeps none."""
        return self.highest
