# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Servers that hold data in memory, under load, and every value they hold compared."""
import hashlib
import os
import random
import socket
import threading

from harness import Failed, MIB, case, wait_until

SIZE = 64 * MIB


def value(key, version):
    """Some half of a KiB that differs everywhere, and packs to a quarter."""
    return hashlib.blake2b(f"{key}.{version}".encode()).hexdigest().encode() * 4


class Connection:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data)

    def line(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise Failed(f"the server hung up, after {line!r}")
        return line[:-2]

    def block(self, length):
        return self.file.read(length + 2)[:-2]


def connect(kind, path, live):
    found = []

    def there():
        if live.proc.poll() is not None:
            return True
        try:
            found.append(kind(path))
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        return found

    if not wait_until(there, 20):
        raise Failed("no socket of the server")
    if not found:
        raise Failed(f"the server ended\n{live.finish()}")
    return found[0]


class Redis(Connection):
    BATCH = 500

    def call(self, *commands):
        """The replies to commands of bytes, sent at once."""
        self.send(b"".join(b"*%d\r\n" % len(c) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in c)
                           for c in commands))
        return [self.reply() for _ in commands]

    def reply(self):
        line = self.line()
        if line[:1] == b"-":
            raise Failed(f"redis: {line[1:].decode()}")
        if line[:1] == b"$":
            return None if line == b"$-1" else self.block(int(line[1:]))
        return line[1:]

    def info(self, name):
        for line in self.call([b"INFO", b"persistence"])[0].decode().splitlines():
            if line.startswith(name + ":"):
                return line.split(":")[1]
        raise Failed(f"redis: INFO has no {name}")

    def in_batches(self, what, versions):
        """what(keys, versions) for all keys, some at a time."""
        for first in range(0, len(versions), self.BATCH):
            what(range(first, min(first + self.BATCH, len(versions))), versions)

    def set(self, keys, versions):
        for key in keys:
            versions[key] += 1
        self.call(*([b"SET", b"k%d" % key, value(key, versions[key])] for key in keys))

    def check(self, keys, versions):
        got = self.call(*([b"GET", b"k%d" % key] for key in keys))
        for key, have in zip(keys, got):
            if have != value(key, versions[key]):
                raise Failed(f"redis: key {key} is {have!r}")


def redis_argv(t, sock, aof):
    return ["redis-server", "--port", "0", "--unixsocket", sock, "--dir", t.tmp, "--save", "",
            "--appendonly", "yes" if aof else "no", "--logfile", t.path("log"),
            "--auto-aof-rewrite-percentage", "0"]


SNAPSHOTS = {
    b"BGSAVE": ("rdb_bgsave_in_progress", "rdb_last_bgsave_status"),
    b"BGREWRITEAOF": ("aof_rewrite_in_progress", "aof_last_bgrewrite_status"),
}


def redis_snapshot(redis, command, versions, rng):
    """Change and compare while one is taken: a fork that shares all there is.

    Returns what is in it, which is what there was at the fork.
    """
    state, result = SNAPSHOTS[command]
    saved = list(versions)
    redis.call([command])
    while redis.info(state) != "0":
        redis.set(rng.sample(range(len(versions)), 50), versions)
        redis.check(rng.sample(range(len(versions)), 50), versions)
    if redis.info(result) != "ok":
        raise Failed(f"redis: {command.decode()} failed")
    return saved


def redis_reload(t, sock, aof, versions, seconds):
    """What it has saved holds every value, as a server without vswap reads it."""
    live = t.spawn(redis_argv(t, sock, aof))
    server = connect(Redis, sock, live)
    t.check(wait_until(lambda: server.info("loading") == "0", seconds), "still loading")
    server.in_batches(server.check, versions)
    server.send(b"SHUTDOWN NOSAVE\r\n")
    live.finish()


def redis_filled(t, sock, factor, aof):
    """One that has so many times its memory."""
    versions = [0] * (SIZE // 900)
    live = t.paged_begin(redis_argv(t, sock, aof), ram=SIZE // factor)
    server = connect(Redis, sock, live)
    server.in_batches(server.set, versions)
    return live, server, versions


# A snapshot under way has pages of its own for what is evicted: a pool alone would not do.
@case("servers/redis/2x", timeout=120)
def redis(t):
    rng = random.Random(1)
    sock = t.path("sock")
    live, server, versions = redis_filled(t, sock, 2, True)
    bench = t.spawn(["redis-benchmark", "-s", sock, "-q", "-t", "set,get", "-n", "20000",
                     "-r", "1000", "-c", "8", "-d", "100"])
    saved, _ = [redis_snapshot(server, command, versions, rng) for command in SNAPSHOTS]
    ran = bench.finish()
    t.check(ran.status == 0, "redis-benchmark failed", ran)
    server.in_batches(server.check, versions)
    server.send(b"SHUTDOWN NOSAVE\r\n")
    t.paged_end(live)
    # The log has been written to since, the dump has not.
    redis_reload(t, sock, True, versions, 30)
    redis_reload(t, sock, False, saved, 30)


@case("servers/redis/4x", timeout=120)
def redis_quarter(t):
    """Without a snapshot, which goes through the keys in no order: that takes too long."""
    rng = random.Random(1)
    live, server, versions = redis_filled(t, t.path("sock"), 4, False)
    for _ in range(40):
        server.set(rng.sample(range(len(versions)), 50), versions)
        server.check(rng.sample(range(len(versions)), 50), versions)
    server.in_batches(server.check, versions)
    server.send(b"SHUTDOWN NOSAVE\r\n")
    t.paged_end(live)


class Memcached(Connection):
    BATCH = 50

    def set(self, items):
        """Pairs of a key and its value, sent at once."""
        self.send(b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(data), data)
                           for key, data in items))
        for key, _ in items:
            if self.line() != b"STORED":
                raise Failed(f"memcached: {key} was not stored")

    def get(self, keys):
        """The values of keys that are asked for at once."""
        self.send(b"".join(b"get %s\r\n" % key for key in keys))
        return [self.reply() for _ in keys]

    def reply(self):
        line = self.line()
        if line == b"END":
            return None
        data = self.block(int(line.split()[3]))
        self.line()
        return data


def memcached_load(path, first, nr, accesses, seed, failed):
    try:
        server, rng, version = Memcached(path), random.Random(seed), [0] * nr
        batches = [range(i, min(i + server.BATCH, nr)) for i in range(0, nr, server.BATCH)]

        def put(numbers):
            server.set([(b"k%d" % (first + i), value(first + i, version[i])) for i in numbers])

        def check(numbers):
            for i, have in zip(numbers, server.get([b"k%d" % (first + i) for i in numbers])):
                if have != value(first + i, version[i]):
                    raise Failed(f"memcached: key {first + i} is {have!r}, not of version "
                                 f"{version[i]}")

        for numbers in batches:
            put(numbers)
        for _ in range(accesses):
            i = rng.randrange(nr)
            check([i])
            if rng.random() < 0.3:
                version[i] += 1
                put([i])
        for numbers in batches:
            check(numbers)
    except (Failed, OSError) as e:
        failed.append(str(e))


def add_memcached(factor, accesses):
    @case(f"servers/memcached/{factor}x", timeout=120)
    def memcached(t):
        sock, failed, nr = t.path("sock"), [], SIZE // 1400
        live = t.paged_begin(["memcached", "-A", "-u", "root", "-t", "2", "-m", "1024", "-s", sock],
                             ram=SIZE // factor)
        control = connect(Memcached, sock, live)
        threads = [threading.Thread(target=memcached_load,
                                    args=(sock, i * nr, nr, accesses, i, failed)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        t.check(not failed, "; ".join(failed))
        control.send(b"shutdown graceful\r\n")
        t.paged_end(live)


add_memcached(2, 48000)
# Most of them wait for pages.
add_memcached(4, 12000)
