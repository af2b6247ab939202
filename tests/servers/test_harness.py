"""The tools of the other tests are tested first: an oracle that sees nothing proves nothing."""

import os
import stat
import subprocess
import time

import psycopg
import pytest

import harness
from harness import Database, Workload, compare, ledger, until


def restored(database, name):
    """A copy made by pg_dump and psql on the same server."""
    copy = database.server.create_database(name)
    dump = subprocess.run([f"{harness.servers('pgdump')}/pg_dump", "-d", database.uri()],
                          capture_output=True, text=True, check=True).stdout
    wanted = "".join(line for line in dump.splitlines(keepends=True)
                     if not line.startswith(("SET transaction_timeout", "\\restrict", "\\unrestrict")))
    subprocess.run(["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", copy.uri()], input=wanted,
                   stdout=subprocess.DEVNULL, text=True, check=True)
    return copy


@pytest.fixture
def filled(databases):
    """A database after some traffic and a copy of it."""
    blue, _ = databases(15, 15)
    Workload(blue, seed=7).create().run(1)
    copy = restored(blue, blue.name + "_copy")
    yield blue, copy
    copy.drop()


@pytest.mark.parametrize("version", harness.VERSIONS)
def test_a_server_of_every_version_decodes(pool, version):
    database = pool.database(version)
    assert database.value("SHOW server_version").startswith(f"{version}.")
    assert database.value("SHOW wal_level") == "logical"
    database.execute("SELECT pg_create_logical_replication_slot('probe', 'pgoutput')")
    database.drop()


def test_servers_of_one_version_have_identities_of_their_own(pool):
    identity = "SELECT system_identifier FROM pg_control_system()"
    assert (pool.server(15, "blue").execute(identity) != pool.server(15, "green").execute(identity))


@pytest.mark.parametrize("version", [13, 15, 18])
def test_workload_does_everything_and_a_restored_copy_is_equal(databases, version):
    blue, _ = databases(version, version)
    workload = Workload(blue, seed=version).create()
    done = workload.run(5)
    assert {name for name, _ in workload.operations} <= set(done), done
    copy = restored(blue, blue.name + "_copy")
    try:
        assert compare(blue, copy) == []
        assert ledger(blue) == ledger(copy) == []
    finally:
        copy.drop()


@pytest.mark.parametrize("damage, seen", [
    ("UPDATE documents SET body = overlay(body placing 'X' from 9000) WHERE id = "
     "(SELECT id FROM documents WHERE length(body) > 9000 LIMIT 1)", "public.documents: 1 rows only on blue"),
    ("UPDATE ranks SET who = NULL WHERE id = 3", "public.ranks: 1 rows only on blue"),
    ("DELETE FROM seats WHERE id = 3", "public.seats: 1 rows only on blue"),
    ("INSERT INTO journal SELECT * FROM journal LIMIT 1", "1 only on green"),
    ("INSERT INTO alike VALUES ('-0', 1)", "public.alike: 0 rows only on blue"),
    ("SELECT nextval('tickets')", "public.tickets: sequence"),
    ("DROP TABLE alike", "public.alike: there is no public.alike on green"),
    ("CREATE TABLE extra ()", "public.extra: only on green"),
    ("ALTER TABLE notes DROP label", "public.notes: no column label on green"),
    ("ALTER TABLE notes ADD extra int", "public.notes: column extra only on green"),
])
def test_compare_notices(filled, damage, seen):
    blue, copy = filled
    assert compare(blue, copy) == []
    copy.execute(damage)
    differences = compare(blue, copy)
    assert len(differences) == 1 and seen in differences[0], differences


def test_compare_tells_apart_what_sql_calls_equal(databases):
    blue, green = databases()
    for database, number, real in (blue, "1.0", "0"), (green, "1.00", "-0"):
        database.execute("CREATE TABLE t (n numeric, f float8)")
        database.execute("INSERT INTO t VALUES (%s, 0)", [number])
        database.execute("INSERT INTO t VALUES (1, %s)", [real])
    assert "2 rows only on blue" in compare(blue, green)[0]


def test_compare_follows_a_mapping(databases):
    blue, green = databases()
    blue.execute("CREATE TABLE a (x int, y int, z int)")
    blue.execute("INSERT INTO a VALUES (1, 2, 3)")
    green.execute("CREATE TABLE b (w int, x int)")
    green.execute("INSERT INTO b VALUES (2, 1)")
    mapping = {"public.a": {"to": "public.b", "columns": {"x": "x", "y": "w"}}}
    assert compare(blue, green, mapping=mapping) == []
    green.execute("UPDATE b SET w = 3")
    assert len(compare(blue, green, mapping=mapping)) == 1


def test_ledger_notices_a_doubled_and_a_lost_transaction(filled):
    _, copy = filled
    assert ledger(copy) == []
    copy.execute("INSERT INTO journal SELECT * FROM journal WHERE number = (SELECT min(number) FROM journal "
                 "WHERE thread = 0) AND thread = 0")
    assert any("2 times" in problem for problem in ledger(copy))
    copy.execute("DELETE FROM journal WHERE thread = 0")
    copy.execute("UPDATE counters SET value = 1 WHERE id = 0")
    assert ledger(copy) == ["thread 0: 1 transactions counted, 0 in the journal"]


def test_workload_survives_a_killed_server_and_the_ledger_too(own_server):
    server = own_server(15)
    database = server.create_database("shop")
    workload = Workload(database, seed=3, bulk_rows=500).create().start()
    for _ in range(2):
        before = workload.transactions()
        until(lambda: workload.transactions() > before + 20)
        server.kill9()
        with pytest.raises(psycopg.OperationalError):
            server.connect()
        server.start()
    before = workload.transactions()
    until(lambda: workload.transactions() > before + 20)
    workload.stop()
    assert ledger(database) == []


def test_a_workload_that_goes_wrong_says_so(databases):
    blue, _ = databases()
    workload = Workload(blue).create()
    blue.execute("DROP TABLE journal")
    with pytest.raises(psycopg.errors.UndefinedTable):
        workload.run(0.5)


def test_scram_wants_the_password(own_server):
    server = own_server(13, auth="scram")
    assert server.execute("SELECT 1") == [(1,)]
    with pytest.raises(psycopg.OperationalError, match="password"):
        server.connect(password="wrong")


FAKE = """#!/bin/sh
echo "$@" >&2
case $1 in
run) [ "$4" = ill ] && { echo 'file.c:1: runtime error: overflow' >&2; exit 1; }; exec sleep 60 ;;
status) echo '{"phase": "following"}' ;;
wait) [ "$4" = caught-up ] || exit 1 ;;
esac
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    path = tmp_path / "teal"
    path.write_text(FAKE)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("TEAL_BIN", os.fspath(path))
    server = harness.Server.__new__(harness.Server)
    server.port = 5432
    return Database(server, "blue"), Database(server, "green")


def test_teal_writes_its_configuration(fake):
    with harness.Teal(*fake, {"tables": {"include": ["a.*", "b.c"]}, "apply": {"lanes": 2},
                              "schema": {"pg-dump": None}, "cutover": {"guard-green": False}}) as teal:
        text = teal.ini.read_text()
    assert "[blue]\nuri = postgresql://postgres@127.0.0.1:5432/blue\n" in text
    assert "[tables]\ninclude = a.*, b.c\n" in text
    assert "guard-green = no\n" in text and "pg-dump" not in text


def test_teal_runs_waits_and_ends(fake):
    with harness.Teal(*fake) as teal:
        teal.start()
        assert teal.status()["phase"] == "following"
        teal.wait("caught-up")
        with pytest.raises(AssertionError, match="teal wait ready: exit 1"):
            teal.wait("ready", timeout=1)
        assert teal.running()
        assert teal.terminate() == -15
        teal.start()
        until(lambda: teal.stderr().count("run -c") == 2)
        assert teal.kill9() == -9


def test_teal_does_not_wait_for_an_engine_that_ended(fake):
    with harness.Teal(*fake) as teal:
        teal.start()
        teal.kill9()
        started = time.monotonic()
        with pytest.raises(AssertionError, match="ended with -9"):
            teal.wait("ready", timeout=60)
        assert time.monotonic() - started < 30


def test_teal_reports_what_a_sanitizer_said(fake):
    teal = harness.Teal(*fake).start("ill")
    teal.ended()
    with pytest.raises(AssertionError, match="runtime error: overflow"):
        teal.close()
