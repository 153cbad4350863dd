# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Servers that hold data in memory, under load, and every value they hold compared."""
import hashlib
import os
import random
import socket
import threading

from harness import Failed, MIB, case, wait_until


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
    """Change and compare while one is taken: a fork that shares all there is."""
    state, result = SNAPSHOTS[command]
    redis.call([command])
    while redis.info(state) != "0":
        redis.set(rng.sample(range(len(versions)), 50), versions)
        redis.check(rng.sample(range(len(versions)), 50), versions)
    if redis.info(result) != "ok":
        raise Failed(f"redis: {command.decode()} failed")


def redis_reload(t, sock, aof, versions, seconds):
    """What it has saved holds every value, as a server without vswap reads it."""
    live = t.spawn(redis_argv(t, sock, aof))
    server = connect(Redis, sock, live)
    t.check(wait_until(lambda: server.info("loading") == "0", seconds), "still loading")
    server.in_batches(server.check, versions)
    server.send(b"SHUTDOWN NOSAVE\r\n")
    live.finish()


# A snapshot under way has pages of its own for what is evicted: a pool alone would not do.
@case("servers/redis", timeout=120)
def redis(t):
    rng = random.Random(1)
    versions = [0] * (2 * t.ram // 900)
    sock = t.path("sock")
    live = t.paged_begin(redis_argv(t, sock, True))
    server = connect(Redis, sock, live)
    server.in_batches(server.set, versions)
    bench = t.spawn(["redis-benchmark", "-s", sock, "-q", "-t", "set,get", "-n", "20000",
                     "-r", "1000", "-c", "8", "-d", "100"])
    for command in SNAPSHOTS:
        redis_snapshot(server, command, versions, rng)
    ran = bench.finish()
    t.check(ran.status == 0, "redis-benchmark failed", ran)
    server.in_batches(server.check, versions)
    server.call([b"SAVE"])
    server.send(b"SHUTDOWN NOSAVE\r\n")
    t.paged_end(live)
    for aof in (True, False):
        redis_reload(t, sock, aof, versions, 30)


class Memcached(Connection):
    def set(self, key, data):
        self.send(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(data), data))
        if self.line() != b"STORED":
            raise Failed(f"memcached: {key} was not stored")

    def get(self, key):
        self.send(b"get %s\r\n" % key)
        line = self.line()
        if line == b"END":
            return None
        data = self.block(int(line.split()[3]))
        self.line()
        return data


def memcached_load(path, first, nr, seed, failed):
    try:
        server, rng, version = Memcached(path), random.Random(seed), [0] * nr

        def check(i):
            have, want = server.get(b"k%d" % (first + i)), value(first + i, version[i])
            if have != want:
                raise Failed(f"memcached: key {first + i} is {have!r}, not {want!r}")

        for i in range(nr):
            server.set(b"k%d" % (first + i), value(first + i, 0))
        for _ in range(nr):
            i = rng.randrange(nr)
            check(i)
            if rng.random() < 0.3:
                version[i] += 1
                server.set(b"k%d" % (first + i), value(first + i, version[i]))
        for i in range(nr):
            check(i)
    except (Failed, OSError) as e:
        failed.append(str(e))


@case("servers/memcached", timeout=120)
def memcached(t):
    sock, failed = t.path("sock"), []
    nr = t.ram // 700
    live = t.paged_begin(["memcached", "-A", "-u", "root", "-t", "2", "-m", "1024", "-s", sock])
    control = connect(Memcached, sock, live)
    threads = [threading.Thread(target=memcached_load, args=(sock, i * nr, nr, i, failed))
               for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    t.check(not failed, "; ".join(failed))
    control.send(b"shutdown graceful\r\n")
    t.paged_end(live)
