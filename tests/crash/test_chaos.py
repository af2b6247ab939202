"""Kills the engine and both servers at random while they work, then looks whether anything was lost.

    TEAL_CHAOS_SECONDS=300 TEAL_CHAOS_SEED=7 pytest tests/crash/test_chaos.py

The seed decides what is done when; the processes decide what that meets, so a failure may need more
than one run of its seed to show again. The seed is printed, and is in every failure."""

import os
import random
import threading
import time

import psycopg
import pytest

from crash_kit import SMALL, assert_equal, assert_tidy, files, merged
from harness import Workload, until

SECONDS = float(os.environ.get("TEAL_CHAOS_SECONDS", "25"))
SEED = int(os.environ.get("TEAL_CHAOS_SEED", random.randrange(1 << 30)))

# Green's log reaches its disk late, so that its death takes commits back that it has reported.
LATE = {"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
PAIRS = [(13, 18, "spool"), (15, 15, "spool"), (18, 18, "spool"), (18, 15, "target")]


def settings(version):
    """Transactions are streamed where the server can, however small."""
    return {"logical_decoding_work_mem": "64kB"} if version >= 14 else {}


class Slow:
    """Transactions that stay open for seconds and are streamed meanwhile, so that many a cut meets one."""

    def __init__(self, database, seed):
        self.database, self.choice = database, random.Random(seed)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        database.execute("CREATE TABLE slow (number int, row int, label text, PRIMARY KEY (number, row))")

    def work(self):
        number, connection = 0, None
        while not self.stopping.is_set():
            number += 1
            try:
                connection = connection or self.database.connect(autocommit=False)
                self.transaction(connection.execute, number)
                self.choice.choice([connection.commit] * 4 + [connection.rollback])()
            except psycopg.OperationalError:
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.1)
        if connection is not None:
            connection.close()

    def transaction(self, run, number):
        for piece in range(self.choice.randint(5, 20)):
            run("SAVEPOINT piece")
            run("INSERT INTO slow SELECT %s, %s + n, repeat('slow', 100) FROM generate_series(0, 199) n",
                [number, piece * 200])
            if self.choice.random() < 0.2:
                run("ROLLBACK TO piece")
            run("DELETE FROM slow WHERE number < %s AND row %% 20 > 0", [number - 2])
            time.sleep(0.05)

    def stop(self):
        self.stopping.set()
        self.thread.join()


class Chaos:
    def __init__(self, seed, engine, blue, green):
        self.choice = random.Random(seed)
        self.engine, self.blue, self.green = engine, blue.server, green.server
        self.done = []

    def start_engine(self):
        if not self.engine.running():
            self.engine.start("--wait")

    def strike(self):
        """One of the three, or two of them at once; a moment later all are there again."""
        victims = self.choice.choice([["teal"]] * 3 + [["blue"]] * 2 + [["green"]] * 3 + [
            ["teal", "blue"], ["teal", "green"], ["green", "teal"], ["blue", "green"]])
        self.done.append("+".join(victims))
        for victim in victims:
            if victim == "teal":
                assert self.engine.running(), f"it ended by itself: {self.engine.describe()}"
                self.engine.kill9()
            else:
                self.choice.choice([self.stop, self.kill9])(getattr(self, victim))
        time.sleep(self.choice.choice([0, 0, 0.2, 1]))
        for victim in self.choice.sample(victims, len(victims)):
            if victim == "teal":
                self.start_engine()
            else:
                getattr(self, victim).start()

    @staticmethod
    def stop(server):
        server.stop("immediate")

    @staticmethod
    def kill9(server):
        server.kill9()

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self.choice.choice([0.05, 0.3, 1, 2, 3]))
            self.strike()
            assert self.engine.running(), f"it ended by itself: {self.engine.describe()}"


@pytest.mark.parametrize("old, new, ack", PAIRS)
def test_nothing_is_lost_and_nothing_is_applied_twice(old, new, ack, own_server, teal):
    seed = f"{SEED}/{old}/{new}/{ack}"
    print(f"\nTEAL_CHAOS_SEED={SEED}: {seed}, {SECONDS:g} s")
    blue = own_server(old, durable=True, settings=settings(old)).create_database("shop")
    green = own_server(new, durable=True, settings=LATE).create_database("shop")
    workload = Workload(blue, seed=seed, version=new, bulk_rows=500, pause=0.03).create()
    engine = teal(blue, green, merged(SMALL, {"spool": {"ack": ack}}))
    chaos, slow = Chaos(seed, engine, blue, green), Slow(blue, seed)
    engine.start()
    workload.start()
    slow.thread.start()
    try:
        chaos.run(SECONDS)
        before = workload.transactions()
        until(lambda: workload.transactions() > before + 50 or workload.failures, 60)
        engine.wait("caught-up", 300)
        slow.stop()
        done = workload.stop()
        engine.wait("caught-up", 300)
        assert_equal(blue, green)
        assert_tidy(engine, blue, green)
    except BaseException:
        print(f"struck: {' '.join(chaos.done)}\n{engine.stderr()[-12000:]}")
        raise
    finally:
        slow.stop()
        if not workload.stopping.is_set():
            workload.stop()
    print(f"{done.total()} transactions, struck: {' '.join(chaos.done)}")
    assert files(engine.home / "state" / "spill") == []
