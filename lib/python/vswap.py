# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Memory larger than memory: regions of libvswap as buffers, for numpy above all.

    import vswap

    with vswap.Space() as space:
        space.add_tier("/var/tmp/swap", size=8 << 30)
        region = space.map(16 << 30, ram=1 << 30)
        a = region.numpy("f8")          # or numpy.frombuffer(region.buffer, "f8")
        a[:] = 1
        print(a.sum(), region.stat()["evicted"])
        del a
        region.close()

What vswap.h says of regions is so here, too.  A region stays until it is closed, or
neither it nor any array over it is used any more; while there are arrays close() is
refused with BufferError.  After os.fork() the parent has it all, as before: whatever the
child closes or leaves behind is not ended by that, and it must use none of it.  Whatever
the library refuses is a vswap.Error, an OSError whose text says why and what to do.
"""
import ctypes
import os
import weakref

SIGBUS = 1
WILLNEED, COLD, DONTNEED = range(3)
PAGE_SIZE = 4096


class Error(OSError):
    """What the library refused, with its number of errno and its own words."""


class _Conf(ctypes.Structure):
    _fields_ = [("compressor", ctypes.c_char_p), ("pool_limit", ctypes.c_uint64)]


class _RegionConf(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("size", "ram", "flags")]


class _Stat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "pages", "pages_peak", "pages_fill", "pages_pool", "pages_tier", "pages_lost",
        "pool_bytes", "pool_data_bytes", "meta_bytes", "tier_pages_read", "tier_pages_written",
        "read_errors", "write_errors")]


class _RegionStat(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in (
        "size", "ram", "pages_present", "pages_staged", "pages_stored", "pages_lost",
        "pages_pinned", "faults", "faults_first", "faults_stored", "faults_staged",
        "refaults_soon", "readahead", "evicted", "direct", "over", "syscalls")]


def _load():
    """The library; VSWAP_LIBRARY names another than the system's."""
    lib = ctypes.CDLL(os.environ.get("VSWAP_LIBRARY", "libvswap.so.0"), use_errno=True)
    pointer, size, u64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
    for name, result, *arguments in (
            ("create", pointer, pointer, size),
            ("destroy", None, pointer),
            ("message", size, pointer, ctypes.c_char_p, size),
            ("stat", None, pointer, pointer, size),
            ("tier_add", pointer, pointer, ctypes.c_char_p, u64, ctypes.c_int, pointer, size),
            ("tier_remove", ctypes.c_int, pointer, pointer),
            ("map", ctypes.c_int, pointer, pointer, size, pointer),
            ("unmap", None, pointer),
            ("addr", pointer, pointer),
            ("advise", ctypes.c_int, pointer, pointer, size, ctypes.c_int),
            ("pin", ctypes.c_int, pointer, pointer, size),
            ("unpin", ctypes.c_int, pointer, pointer, size),
            ("set_ram", ctypes.c_int, pointer, u64),
            ("region_stat", None, pointer, pointer, size)):
        function = getattr(lib, "vswap_" + name)
        function.restype, function.argtypes = result, arguments
    return lib


_lib = _load()


def _stat(function, handle, kind):
    st = kind()
    function(handle, ctypes.byref(st), ctypes.sizeof(st))
    return {name: getattr(st, name) for name, _ in kind._fields_}


class _Handle:
    """What has a handle of the library, until somebody takes it, to end it."""
    _handle = _process = None

    def _give(self, handle):
        self._process = os.getpid()
        self._handle = handle

    def _is_ours(self):
        # A child's is a copy: to end that would free what its parent has in files.
        return self._process == os.getpid()

    def _take(self):
        # One step: of threads, or the collector in the middle of it, one has it.
        return vars(self).pop("_handle", None) if self._is_ours() else None


class Space(_Handle):
    """A store of pages: compressed in memory up to pool_limit bytes, and on tiers."""

    def __init__(self, compressor=None, pool_limit=0):
        conf = _Conf(compressor.encode() if compressor else None, pool_limit)
        self._regions = weakref.WeakSet()
        self._mapped, self._unwanted = set(), False
        self._give(_lib.vswap_create(ctypes.byref(conf), ctypes.sizeof(conf)))
        if not self._handle:
            number = ctypes.get_errno()
            raise Error(number, f"no space with compressor {compressor}: {os.strerror(number)}")

    def _open(self):
        if self._unwanted or not self._handle:
            raise ValueError("the space is closed")
        return self._handle

    def _says(self):
        line = ctypes.create_string_buffer(256)
        _lib.vswap_message(self._handle, line, len(line))
        return line.value.decode(errors="replace")

    def _check(self, result):
        if result:
            raise Error(-result, self._says())

    def add_tier(self, path=None, size=0, prio=0):
        """A file, block device or nbd:// export; see vswap_tier_add().  For remove_tier()."""
        tier = _lib.vswap_tier_add(self._open(), os.fsencode(path) if path else None, size, prio,
                                   None, 0)
        if not tier:
            raise Error(ctypes.get_errno(), self._says())
        return tier

    def remove_tier(self, tier):
        self._check(_lib.vswap_tier_remove(self._open(), tier))

    def map(self, size, ram, sigbus=False):
        """A region of size bytes, ram of which may be in memory."""
        return Region(self, size, ram, SIGBUS if sigbus else 0)

    def stat(self):
        return _stat(_lib.vswap_stat, self._open(), _Stat)

    def close(self):
        """With all its regions; BufferError if one is in use."""
        if not self._is_ours():
            return
        for region in list(self._regions):
            region.close()
        self._end()

    def _end(self):
        self._unwanted = True
        self._destroy()

    def _destroy(self):
        """Once it is not wanted, and nobody is at a region of it."""
        if self._unwanted and not self._mapped:
            handle = self._take()
            if handle:
                _lib.vswap_destroy(handle)

    def _unmapped(self, token):
        self._mapped.discard(token)
        self._destroy()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        # Its regions hold it, but garbage with cycles in it goes in any order.
        if self._handle:
            self._end()


class Region(_Handle):
    """Memory, part of it in a space.  Made by Space.map()."""

    def __init__(self, space, size, ram, flags):
        conf = _RegionConf(size, ram, flags)
        handle = ctypes.c_void_p()
        self._space, self._token = space, object()
        space._mapped.add(self._token)
        try:
            space._check(_lib.vswap_map(space._open(), ctypes.byref(conf), ctypes.sizeof(conf),
                                        ctypes.byref(handle)))
        except BaseException:
            space._unmapped(self._token)
            raise
        self._give(handle)
        self.size = size
        self.address = _lib.vswap_addr(handle)
        # A type of its own has room for a reference: who uses the memory keeps the region.
        memory = type("memory", (ctypes.c_ubyte * size,), {}).from_address(self.address)
        memory.region = self
        self._memory = weakref.ref(memory)
        self._view = memoryview(memory)
        space._regions.add(self)

    @property
    def buffer(self):
        """A memoryview of all of it."""
        self._open()
        return self._view.cast("B")

    def __buffer__(self, flags):
        # From Python 3.12 on the region itself is a buffer, too.
        return memoryview(self.buffer)

    def numpy(self, dtype="u1", shape=None):
        """All of it, or as much as the shape needs, as an array."""
        import numpy
        dtype = numpy.dtype(dtype)
        count = self.size // dtype.itemsize if shape is None else \
            int(numpy.prod(shape, dtype=numpy.int64))
        array = numpy.frombuffer(self.buffer, dtype, count)
        return array if shape is None else array.reshape(shape)

    def _open(self):
        if not self._handle:
            raise ValueError("the region is closed")
        return self._handle

    def _call(self, function, offset, length, *more):
        if length is None:
            length = self.size - offset
        self._space._check(function(self._open(), self.address + offset, length, *more))

    def advise(self, advice, offset=0, length=None):
        """WILLNEED, COLD or DONTNEED; see vswap_advise()."""
        self._call(_lib.vswap_advise, offset, length, advice)

    def pin(self, offset=0, length=None):
        self._call(_lib.vswap_pin, offset, length)

    def unpin(self, offset=0, length=None):
        self._call(_lib.vswap_unpin, offset, length)

    def set_ram(self, ram):
        self._space._check(_lib.vswap_set_ram(self._open(), ram))

    def stat(self):
        return _stat(_lib.vswap_region_stat, self._open(), _RegionStat)

    def __len__(self):
        return self.size

    def close(self):
        """The end of it, and of what is in it.  BufferError while an array is over it."""
        if self._handle and self._is_ours():
            self._view.release()
            memory = self._memory()
            # Others than this view hold it: arrays, and views of their own.
            if memory is not None:
                self._view = memoryview(memory)
                raise BufferError("the region is in use: there are arrays over it")
            self._end()

    def _end(self):
        handle = self._take()
        if handle:
            _lib.vswap_unmap(handle)
            self._space._unmapped(self._token)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        # Whoever had an array over it had it, too: there is none.
        self._end()
