"""A crash of green may undo what it had committed, since teal does not wait for green's disk."""

import pytest

from harness import compare, until


@pytest.mark.parametrize("ack", ["spool", "target"])
def test_commits_that_green_lost_in_a_crash_are_applied_again(databases, own_server, teal, ack):
    blue, _ = databases()
    slow_to_flush = own_server(settings={"wal_writer_delay": "10s"})
    green = slow_to_flush.create_database("green")
    blue.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)")
    migration = teal(blue, green, {"spool": {"ack": ack}})
    migration.start().wait("ready")
    for n in range(100):
        blue.execute("INSERT INTO t VALUES (%s, 0)", [n])
    until(lambda: green.value("SELECT count(*) FROM t") == 100)
    slow_to_flush.kill9()
    slow_to_flush.start()
    migration.wait("caught-up")
    assert compare(blue, green) == []
    assert "engine.starting_again" in migration.stderr(), "green lost nothing, so nothing is proven"
