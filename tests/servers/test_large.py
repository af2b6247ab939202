"""Transactions that are larger than the memory they may take, on blue and in teal."""

import os
import pathlib

import pytest

from harness import ROOT
from steps import cannot_run, ready, settled

STREAMED = {"logical_decoding_work_mem": "64kB"}


@pytest.mark.parametrize("pair", [(13, 18), (15, 15), (17, 15)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_large_transactions_interleaved_with_parts_rolled_back(pool, own_server, teal, pair):
    """Sent while they run, where the server can: pieces of one between pieces of others."""
    blue = own_server(pair[0], settings=STREAMED).create_database("large")
    green = pool.database(pair[1], "green")
    blue.execute("CREATE TABLE t (id int PRIMARY KEY, who int, a text); CREATE TABLE u (id int PRIMARY KEY, a text);"
                 "INSERT INTO t SELECT n, 0, 'old' FROM generate_series(1, 5000) n")
    engine = ready(teal(blue, green))
    connections = [blue.connect(autocommit=False) for _ in range(4)]
    fill = "INSERT INTO t SELECT n, %s, repeat('x', 50) FROM generate_series(%s::int, %s::int) n"
    for step in range(5):
        for who, connection in enumerate(connections):
            start = 100000 * (who + 1) + step * 10000
            connection.execute("SAVEPOINT kept")
            connection.execute(fill, [who, start, start + 800])
            connection.execute("SAVEPOINT gone")
            connection.execute(fill, [who, start + 1000, start + 1800])
            connection.execute("UPDATE t SET a = 'gone' WHERE who = %s", [who])
            connection.execute("SAVEPOINT deep")
            connection.execute("DELETE FROM t WHERE who = %s", [who])
            connection.execute("ROLLBACK TO gone" if (step + who) % 2 else "ROLLBACK TO deep")
            connection.execute("UPDATE t SET a = a || '+' WHERE who = %s AND id %% 3 = 0", [who])
        blue.execute("INSERT INTO u VALUES (%s, 'between')", [step])
    connections[0].execute("TRUNCATE u")
    connections[0].execute("INSERT INTO u VALUES (-1, 'after')")
    connections[1].rollback()
    for connection in (connections[2], connections[0], connections[3]):
        connection.commit()
    for connection in connections:
        connection.close()
    settled(engine, blue, green)
    if pair[0] >= 14:
        assert blue.value("SELECT sum(stream_txns) FROM pg_stat_replication_slots") > 0
    engine.close()
    green.drop()


def release_build():
    """Memory of a program with sanitizers says nothing."""
    path = pathlib.Path(os.environ.get("TEAL_RELEASE_BIN") or ROOT / "build" / "release" / "teal")
    if not path.exists():
        cannot_run(f"no release build at {path}")
    return path


def resident_bytes(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


@pytest.mark.parametrize("version", [13, 17])
def test_memory_stays_bounded_over_a_large_transaction(databases, teal, monkeypatch, version):
    monkeypatch.setenv("TEAL_BIN", str(release_build()))
    blue, green = databases(version, 15)
    blue.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text)")
    engine = ready(teal(blue, green, {"spool": {"memory-max": "32MiB"}}))
    blue.execute("INSERT INTO t SELECT n, repeat('x', 200), md5(n::text) FROM generate_series(1, 300000) n")
    settled(engine, blue, green, timeout=120)
    assert resident_bytes(engine.process) < (32 + 64) << 20
