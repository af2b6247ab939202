"""The initial copy in parts: while writes go on, through kills, over several snapshots.

Where a test needs the copy to stand still it kills the engine at a crash point, so that what is written
then falls between the snapshots of two rounds, on every machine.
"""

import contextlib

import pytest

from harness import Workload, ledger, until
from steps import chunks, done_chunks, following, frozen, pause, ready, settled

SMALL = {"copy": {"chunk-size": "1MiB", "jobs": 2}}
KILLED = -9


def killed_in_copy(engine, parts):
    """Runs it until so many parts of the copy are committed; what is done then."""
    engine.start(env={"TEAL_CRASH_POINT": f"copy.after_chunk_commit:{parts}"})
    assert engine.ended(60) == KILLED, engine.stderr()


BIG = "INSERT INTO {} SELECT n, n, repeat('x', 200) FROM generate_series(1, {}) n"


def written(green):
    """The transaction that brought each part."""
    return {(oid, part): xid for oid, part, xid in green.execute(
        "SELECT oid, part, xmin::text FROM teal.copy_chunk WHERE rows IS NOT NULL")}


@pytest.mark.parametrize("version", [13, 15])
def test_a_large_table_is_copied_in_ranges_and_a_kill_repeats_none_of_them(databases, teal, version):
    blue, green = databases(version, 15)
    blue.execute("CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, a text); CREATE TABLE little (id int PRIMARY KEY);"
                 "INSERT INTO little VALUES (1);" + BIG.format("t", 20000))
    engine = teal(blue, green, SMALL)
    killed_in_copy(engine, 3)
    before = done_chunks(green)
    all_parts = [c for c in chunks(green) if c[0] == "public.t"]
    assert len(all_parts) >= 4 and 2 <= len(before) < len(all_parts)
    stamps = written(green)
    ready(engine)
    assert len(done_chunks(green)) == len(chunks(green)) >= len(all_parts)
    assert {c[:2] for c in all_parts} <= set(done_chunks(green))
    for key, stamp in stamps.items():
        assert written(green)[key] == stamp, "copied twice"
    assert sum(rows for name, _, rows in chunks(green) if name == "public.t") == 20000
    settled(engine, blue, green)


def moves(k=0):
    """Transactions that move rows between blocks and unique values between rows; k: the how many'th time."""
    return [
        f"UPDATE t SET a = 'moved' || id WHERE id % 50 = {1 + k}",
        f"UPDATE t SET u = u + 1000000 WHERE id > 3000 AND id % 100 = {12 + 20 * k}; DELETE FROM t WHERE id % 100 = {13 + 20 * k};"
        "UPDATE t SET u = u - 999999 WHERE u > 1000000",
        f"DELETE FROM t WHERE id % 40 = {3 + k}",
        "INSERT INTO t SELECT n, n, 'again' FROM generate_series(1, 20000, 80) n"
        " WHERE NOT EXISTS (SELECT 1 FROM t WHERE t.id = n OR t.u = n)",
        f"UPDATE t SET u = -u WHERE u BETWEEN {100 + 1000 * k} AND {200 + 1000 * k}; UPDATE t SET u = {300 + 2000 * k} + u WHERE u < 0",
        f"UPDATE t SET u = -5 WHERE id = {8005 + 100 * k}; UPDATE t SET u = {8005 + 100 * k} WHERE id = {19995 - 100 * k};"
        f"UPDATE t SET u = {19995 - 100 * k} WHERE id = {8005 + 100 * k}",
        f"UPDATE t SET id = id + {100000 * (k + 1)} WHERE id % 90 = {4 + k} AND id < 90000; DELETE FROM t WHERE id = {100094 + 100001 * k}",
    ]


TABLES = {
    "keyed": "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, a text)",
    "unique index identifies": "CREATE TABLE t (id int NOT NULL, u int UNIQUE, a text); CREATE UNIQUE INDEX tid ON t (id); ALTER TABLE t REPLICA IDENTITY USING INDEX tid",
    "keyless": "CREATE TABLE t (id int, u int, a text); ALTER TABLE t REPLICA IDENTITY FULL",
    "FULL beside a key": "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, a text); ALTER TABLE t REPLICA IDENTITY FULL",
    "TOAST": "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, a text, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL",
    "partial and expression indexes": "CREATE TABLE t (id int PRIMARY KEY, u int, a text); CREATE UNIQUE INDEX tu ON t (u) WHERE a IS NOT NULL;"
                                      "CREATE UNIQUE INDEX te ON t ((u * 2), (id / 1000000))",
    "exclusion constraint": "CREATE TABLE t (id int PRIMARY KEY, u int, a text, EXCLUDE USING gist (int4range(u, u + 1) WITH &&))",
    "partition": "CREATE TABLE t (id int PRIMARY KEY, u int, a text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (minvalue) TO (10000);"
                 "CREATE TABLE t2 PARTITION OF t DEFAULT",
}


@pytest.mark.parametrize("mode", ["copy", "existing"])
@pytest.mark.parametrize("name", TABLES)
def test_writes_between_snapshots_end_equal(databases, teal, name, mode):
    """A round for each kill; what moved between their snapshots is there once, as it is now."""
    blue, green = databases()
    blue.execute(TABLES[name] + ";" + BIG.format("t (id, u, a)", 20000))
    if name == "TOAST":
        blue.execute("UPDATE t SET big = repeat('y' || id, 500) WHERE id % 200 = 1")
    if mode == "existing":
        green.execute(TABLES[name])
    engine = teal(blue, green, {**SMALL, "schema": {"mode": mode}})
    killed_in_copy(engine, 1)
    for script in moves()[:4]:
        blue.execute(script)
    killed_in_copy(engine, 1)
    for script in moves()[4:]:
        blue.execute(script)
    ready(engine, 90)
    settled(engine, blue, green)
    assert blue.value("SELECT count(*) FROM t") == green.value("SELECT count(*) FROM t")


@pytest.mark.parametrize("key", ["PRIMARY KEY", "NOT NULL"])
def test_mapped_columns_over_several_snapshots(databases, teal, key):
    """Only where green has no unique index to tell duplicates by are the parts repeated."""
    blue, green = databases()
    blue.execute(TABLES["keyed"] + ";" + BIG.format("t", 20000))
    green.execute(f"CREATE TABLE other (number int {key}, label text)")
    engine = teal(blue, green, {**SMALL, "table public.t": {"to": "public.other", "columns": ["id -> number", "a -> label"]}})
    killed_in_copy(engine, 2)
    for script in moves():
        blue.execute(script)
    ready(engine, 90)
    mapping = {"public.t": {"to": "public.other", "columns": {"id": "number", "a": "label"}}}
    settled(engine, blue, green, ["public.t"], mapping)
    assert ("copy.table_again" in engine.stderr()) == (key == "NOT NULL")


@pytest.mark.parametrize("name", ["keyed", "keyless"])
@pytest.mark.parametrize("rewrite", ["TRUNCATE t", "TRUNCATE t; INSERT INTO t VALUES (1, 1, 'anew')", "ALTER TABLE t ALTER a TYPE varchar"])
def test_a_table_that_is_emptied_or_rewritten_during_its_copy(databases, teal, name, rewrite):
    blue, green = databases()
    blue.execute(TABLES[name] + ";" + BIG.format("t", 20000))
    green.execute(TABLES[name])
    engine = teal(blue, green, {**SMALL, "schema": {"mode": "existing"}})
    killed_in_copy(engine, 2)
    blue.execute(rewrite)
    blue.execute("INSERT INTO t VALUES (-1, -1, 'after')")
    ready(engine, 90)
    settled(engine, blue, green)


def test_no_snapshot_is_held_longer_than_allowed(databases, teal):
    """The engine is frozen in the middle of the copy for longer than that; writes go on."""
    blue, green = databases()
    blue.execute(TABLES["keyed"] + "; CREATE TABLE keyless (id int, u int, a text); ALTER TABLE keyless REPLICA IDENTITY FULL;" +
                 BIG.format("t", 60000) + ";" + BIG.format("keyless", 20000))
    engine = teal(blue, green, {"copy": {"chunk-size": "1MiB", "jobs": 1, "snapshot-max": "1s"}}).start()
    for k, wanted in enumerate((2, 5, 9)):
        until(lambda: len(done_chunks(green)) >= wanted or engine.status()["phase"] not in ("new", "copying"), 60, 0.01)
        with frozen(engine):
            for script in moves(k):
                blue.execute(script)
            blue.execute("UPDATE keyless SET a = 'x' WHERE id % 100 = 0; DELETE FROM keyless WHERE id % 101 = 0")
            pause(1.2)
    engine.wait("ready", 90)
    rounds = green.value("SELECT count(DISTINCT x) FROM teal.copy_table, unnest(array[first, last]) x")
    assert rounds > 1, "only one snapshot was used"
    settled(engine, blue, green)


def test_a_keyless_table_larger_than_a_snapshot_lasts_is_copied_all_the_same(databases, teal):
    """Its parts take longer than a snapshot may be held, and every snapshot sees something new."""
    blue, green = databases()
    blue.execute(TABLES["keyless"] + "; CREATE TABLE clock (id serial PRIMARY KEY);" + BIG.format("t", 20000))
    green.execute(TABLES["keyless"] + """; CREATE TABLE clock (id serial PRIMARY KEY);
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.6); RETURN NULL; END $$;
        CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION slow(); ALTER TABLE t ENABLE ALWAYS TRIGGER slow""")
    engine = teal(blue, green, {"copy": {"chunk-size": "1MiB", "jobs": 1, "snapshot-max": "1s"}, "schema": {"mode": "existing"}}).start()
    copied = lambda: (status := engine.status())["copy"]["tables_done"] == 2 and status["phase"] != "copying"  # noqa: E731
    until(lambda: blue.execute("INSERT INTO clock DEFAULT VALUES") or copied(), 60)
    green.execute("DROP TRIGGER slow ON t")
    settled(engine, blue, green)


@pytest.mark.parametrize("pair", [(15, 15), (13, 18)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_the_adversarial_workload_while_the_copy_is_killed_again_and_again(databases, teal, pair):
    blue, green = databases(*pair)
    work = Workload(blue, seed=7, version=min(pair), pause=0.01).create()
    blue.execute("INSERT INTO bulk SELECT -n, repeat('y', 200) FROM generate_series(1, 20000) n")
    engine = teal(blue, green, {"copy": {"chunk-size": "1MiB", "jobs": 2, "snapshot-max": "1s"}})
    with contextlib.ExitStack() as stack:
        work.start()
        stack.callback(work.stop)
        for parts in 2, 8, 12:
            killed_in_copy(engine, parts)
        following(engine)
        done = work.transactions()
        until(lambda: work.transactions() > done + 100, 60)
    engine.wait("ready", 120)
    settled(engine, blue, green, timeout=120)
    assert ledger(green) == []


def test_progress_is_told(databases, teal):
    blue, green = databases()
    blue.execute(TABLES["keyed"] + ";" + BIG.format("t", 20000) + "; ANALYZE")
    engine = teal(blue, green, SMALL)
    killed_in_copy(engine, 2)
    ready(engine)
    status = engine.status()
    assert status["copy"]["rows_done"] == status["copy"]["rows"] == 20000 and status["copy"]["eta_seconds"] == 0
    assert status["copy"]["bytes_done"] > 0 and status["tables"][0]["rows_copied"] == 20000
    lines = [line for line in engine.stderr().splitlines() if "copy.progress" in line]
    assert lines and not any("\r" in line or "\033" in line for line in lines)
