"""Following: how fast what was committed meanwhile is made up for, and how far behind a steady load.

The followers share one database of blue and each its traffic. They are stopped, or disabled, while
a backlog is made, and then have their turn one by one. All are caught up with when the same mark,
committed last on blue, can be read on their green.
"""

import contextlib
import os
import statistics
import subprocess
import threading
import time

from harness import until
from measure import Meter, cpu
from peers import WAIT, Native, Receiver, TealPeer

TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history", "large")
SCALE = 10
LARGE = 100_000
BEAT = 0.005
WARM_UP = 2


class Following:
    def __init__(self, bench):
        self.bench = bench
        self.blue = bench.blue.create_database("follow")
        self.marks = 0
        self.large_rows = 0
        self.peers = []
        self.receiver = None

    def __enter__(self):
        self.pgbench("-i", "-q", "-s", SCALE)
        for statement in (
                "ALTER TABLE pgbench_history ADD id bigserial PRIMARY KEY",
                "CREATE TABLE large (id bigint PRIMARY KEY, number int, label text)",
                "CREATE TABLE mark (n int PRIMARY KEY)", "CREATE TABLE beat (n int PRIMARY KEY)",
                "ANALYZE"):
            self.blue.execute(statement)
        self.receiver = Receiver(self.blue)
        self.peers = [TealPeer(self.blue, self.bench.green), Native(self.blue, self.bench.green),
                      Native(self.blue, self.bench.green, "native-streaming", streaming=True)]
        for peer in self.peers:
            peer.create()
            until(peer.is_copied, WAIT)
            peer.database.execute("ANALYZE")
            peer.stop()
        return self

    def __exit__(self, *_):
        for peer in self.peers:
            peer.close()
        if self.receiver is not None:
            self.receiver.close()
        self.blue.drop()

    def pgbench(self, *args):
        """It commits without waiting for the disk: what is decoded is the same."""
        subprocess.run(["pgbench", *map(str, args), self.blue.uri()], check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env={**os.environ, "PGOPTIONS": "-c synchronous_commit=off"})

    def mark(self):
        """The position before it."""
        self.marks += 1
        before = self.blue.value("SELECT pg_current_wal_insert_lsn()::text")
        self.blue.execute("INSERT INTO mark VALUES (%s)", [self.marks])
        return before

    def wait_mark(self, connection):
        query = "SELECT 1 FROM mark WHERE n = %s"
        until(lambda: connection.execute(query, [self.marks]).fetchone(), WAIT, every=0.01)

    def verify(self, case, peer):
        for table in TABLES:
            query = f"SELECT count(*), sum(hashtext(t::text)) FROM {table} t"
            self.bench.verify(f"{case}: {peer.name}: {table}", self.blue.execute(query),
                              peer.database.execute(query))

    # ---- backlogs ----

    def receive(self, end, changes):
        with Meter(self.bench.servers) as meter:
            self.receiver.receive(end)
            meter.stop()
        self.receiver.finish()
        return meter.cost(units=changes)

    def catch_up(self, peer, changes):
        with contextlib.closing(peer.database.connect()) as watcher:
            with Meter(self.bench.servers, ignore=[watcher.info.backend_pid]) as meter:
                peer.start()
                self.wait_mark(watcher)
                meter.stop()
            cost = meter.cost(peer.pid, changes)
        peer.stop()
        return cost

    def backlog(self, case, make):
        """make() commits the backlog and returns how many changes it has."""
        for turn in range(self.bench.turns):
            self.receiver.prepare()
            changes = make()
            end = self.mark()
            for peer in self.bench.rotated([self.receiver, *self.peers], turn):
                self.bench.checkpoint()
                if peer is self.receiver:
                    yield peer.name, self.receive(end, changes)
                else:
                    yield peer.name, self.catch_up(peer, changes)
                    self.verify(case, peer)

    def single_rows(self):
        each = 2_000 if self.bench.quick else 25_000
        self.pgbench("-n", "-N", "-c", 4, "-j", 2, "-t", each)
        return 4 * each * 2

    def hot_rows(self):
        each = 2_000 if self.bench.quick else 25_000
        self.pgbench("-n", "-b", "tpcb-like", "-c", 4, "-j", 2, "-t", each)
        return 4 * each * 4

    def large(self):
        """Inserts one transaction, and updates its rows in the next."""
        pairs = 1 if self.bench.quick else 5
        for _ in range(pairs):
            first, self.large_rows = self.large_rows, self.large_rows + LARGE
            self.blue.execute(
                f"INSERT INTO large SELECT i, i % 1000, repeat(md5(i::text), 4) "
                f"FROM generate_series({first + 1}, {self.large_rows}) i")
            self.blue.execute(f"UPDATE large SET number = number + 1 WHERE id > {first}")
        return 2 * pairs * LARGE

    # ---- a steady load ----

    def steady(self, case):
        for turn in range(self.bench.turns):
            for peer in self.bench.rotated(self.peers, turn):
                peer.start()
                self.mark()
                with contextlib.closing(peer.database.connect()) as watcher:
                    self.wait_mark(watcher)
                    self.bench.checkpoint()
                    yield peer.name, self.steady_turn(peer, watcher)
                self.mark()
                with contextlib.closing(peer.database.connect()) as watcher:
                    self.wait_mark(watcher)
                self.verify(case, peer)
                peer.stop()

    def steady_turn(self, peer, watcher):
        rate, seconds = 500, 4 if self.bench.quick else 15
        before = cpu(f"/proc/{peer.pid}/stat") if peer.pid else 0
        with Meter(self.bench.servers, ignore=[watcher.info.backend_pid]) as meter:
            load = subprocess.Popen(
                ["pgbench", "-n", "-N", "-c", "4", "-R", str(rate), "-T", str(seconds), self.blue.uri()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            lags = Heart(self.blue, watcher).beat(load, WARM_UP)
            load.wait()
            meter.stop()
        cost = meter.cost(peer.pid, rate * seconds * 2)
        cost["cpu_seconds"]["program"] -= before
        cost["cpu_seconds_per_million"] -= before / (rate * seconds * 2) * 1e6
        lags.sort()
        return {**cost, "lag_p50": statistics.median(lags), "lag_p99": lags[len(lags) * 99 // 100],
                "lag_samples": len(lags)}


class Heart:
    """A row committed on blue every few milliseconds; when each can first be read on green."""

    def __init__(self, blue, watcher):
        self.blue = blue
        self.watcher = watcher
        self.committed = {}

    def write(self, load):
        with contextlib.closing(self.blue.connect()) as connection:
            n = connection.execute("SELECT coalesce(max(n), 0) FROM beat").fetchone()[0]
            while load.poll() is None:
                n += 1
                connection.execute("INSERT INTO beat VALUES (%s)", [n])
                self.committed[n] = time.monotonic()
                time.sleep(BEAT)

    def beat(self, load, warm_up):
        """Seconds from commit to sight, of every beat after `warm_up` seconds of `load`."""
        query = "SELECT max(n) FROM beat"
        start = time.monotonic()
        seen = self.watcher.execute(query).fetchone()[0] or 0
        writer = threading.Thread(target=self.write, args=[load])
        writer.start()
        sight = {}
        while writer.is_alive() or (self.committed and seen < max(self.committed)):
            now_seen = self.watcher.execute(query).fetchone()[0] or 0
            now = time.monotonic()
            sight.update((n, now) for n in range(seen + 1, now_seen + 1))
            seen = now_seen
            if now - start > WAIT:
                raise TimeoutError(f"beat {seen} is the last seen on green")
            time.sleep(0.001)
        writer.join()
        return [max(0, sight[n] - at) for n, at in self.committed.items() if at - start > warm_up]
