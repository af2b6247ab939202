"""A row on green that is not as blue says: named, counted once, and treated as the operator chose."""

import time

import pytest

from harness import compare, until

SCHEMA = """
    CREATE TABLE item (id int PRIMARY KEY, code text UNIQUE, label text);
    CREATE TABLE other (id int PRIMARY KEY, label text);
    INSERT INTO item SELECT n, 'c' || n, 'old' FROM generate_series(1, 9) n;
"""


def events(teal, name):
    """The lines of the log that report this event."""
    return [line for line in teal.stderr().splitlines() if f" {name} " in line + " "]


def gist(status):
    return status["error"]["kind"], status["error"]["text"]


@pytest.fixture
def follow(databases, teal):
    """follow(policy): blue, green and a migration that follows."""
    def make(policy="halt", schema=SCHEMA, config=None, versions=(15, 15)):
        blue, green = databases(*versions)
        blue.execute(schema)
        migration = teal(blue, green, {"apply": {"on-conflict": policy}, **(config or {})}).start()
        migration.wait("ready")
        return blue, green, migration
    return make


# What was done to green beforehand, the change on blue, what green must be mended with, its kind.
CASES = {
    "update missing": ("DELETE FROM item WHERE id = 3",
                       "UPDATE item SET label = 'new' WHERE id = 3",
                       "INSERT INTO item VALUES (3, 'c3', 'old')", "update missing"),
    "delete missing": ("DELETE FROM item WHERE id = 3",
                       "DELETE FROM item WHERE id = 3",
                       "INSERT INTO item VALUES (3, 'c3', 'old')", "delete missing"),
    "insert exists": ("INSERT INTO item VALUES (33, 'mine', 'green was here')",
                      "INSERT INTO item VALUES (33, 'c33', 'new')",
                      "DELETE FROM item WHERE id = 33", "insert exists"),
    "insert takes another's unique value": ("UPDATE item SET code = 'c33' WHERE id = 3",
                                            "INSERT INTO item VALUES (33, 'c33', 'new')",
                                            "UPDATE item SET code = 'c3' WHERE id = 3", "insert exists"),
    "update takes another's unique value": ("UPDATE item SET code = 'c33' WHERE id = 4",
                                            "UPDATE item SET code = 'c33' WHERE id = 3",
                                            "UPDATE item SET code = 'c4' WHERE id = 4", "update exists"),
}
KEYS = {"insert exists": "id=33", "insert takes another's unique value": "id=33"}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    return (*CASES[request.param], KEYS.get(request.param, "id=3"))


def test_halt_names_the_row_goes_on_receiving_and_resumes_by_itself(follow, case):
    spoil, change, mend, kind, key = case
    blue, green, teal = follow()
    green.execute(spoil)
    spoiled = green.execute("SELECT * FROM item ORDER BY id")
    with blue.connect() as connection, connection.transaction():
        connection.execute("UPDATE item SET label = 'same transaction' WHERE id = 9")
        connection.execute(change)
    blue.execute("INSERT INTO other VALUES (1, 'after')")

    status = teal.wait_phase("halted")
    assert gist(status)[0] == "conflict"
    for word in "public.item", key, kind:
        assert word in status["error"]["text"], status["error"]
    assert status["error"]["hint"]
    assert not status["ready"]["cutover"] and any(kind in r for r in status["ready"]["reasons"])
    assert teal.run("status").returncode == 8 and "public.item" in teal.run("status").stdout
    for state in "ready", "caught-up":
        done = teal.run("wait", state, "--timeout", "20s")
        assert done.returncode == 8 and "halted" in done.stderr

    # Nothing of that transaction or of later ones is there, all of it is in the spool.
    assert green.execute("SELECT * FROM item ORDER BY id") == spoiled
    assert green.execute("SELECT * FROM other") == []
    end = blue.value("SELECT pg_current_wal_insert_lsn()")
    until(lambda: blue.value("SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots "
                             "WHERE slot_name = 'teal_test'", [end]))
    until(lambda: teal.status()["position"]["durable"] != teal.status()["position"]["applied"])

    if kind == "update missing":
        time.sleep(5)  # It is tried again meanwhile, and said and counted once.
    assert len(events(teal, "engine.halted")) == 1
    assert teal.status()["apply"]["conflicts"] == 1
    green.execute(mend)
    teal.wait_phase("following")
    teal.wait("caught-up")
    assert compare(blue, green) == []
    status = teal.status()
    assert status["phase"] == "following" and status["error"] is None
    assert teal.run("status").returncode == 0
    assert len(events(teal, "engine.resumed")) == 1 and len(events(teal, "engine.halted")) == 1


def one_conflict(teal, key, kind, action):
    """It was counted and logged once, with table and key."""
    status = teal.status()
    assert status["apply"]["conflicts"] == 1
    counted = {t["name"]: t["conflicts"] for t in status["tables"]}
    assert counted["public.item"] == 1 and not counted["public.other"]
    line, = events(teal, "apply.conflict")
    for word in "table=public.item", key, f'kind="{kind}"', f"action={action}":
        assert word in line
    assert status["phase"] == "following" and status["error"] is None


def test_overwrite_makes_the_row_as_blue_has_it_and_counts(follow, case):
    spoil, change, _mend, kind, key = case
    blue, green, teal = follow("overwrite")
    green.execute(spoil)
    blue.execute(change)
    blue.execute("INSERT INTO other VALUES (1, 'after')")
    teal.wait("caught-up")
    assert green.execute("SELECT * FROM other") == [(1, "after")]
    number = 33 if key == "id=33" else 3
    row = [d.execute("SELECT * FROM item WHERE id = %s", [number]) for d in (blue, green)]
    assert row[0] == row[1]
    one_conflict(teal, key, kind, "overwritten")


def test_skip_leaves_green_alone_and_counts(follow, case):
    spoil, change, _mend, kind, key = case
    blue, green, teal = follow("skip")
    green.execute(spoil)
    spoiled = green.execute("SELECT * FROM item ORDER BY id")
    blue.execute(change)
    blue.execute("INSERT INTO other VALUES (1, 'after')")
    teal.wait("caught-up")
    assert green.execute("SELECT * FROM other") == [(1, "after")]
    assert green.execute("SELECT * FROM item ORDER BY id") == spoiled
    one_conflict(teal, key, kind, "skipped")


FULL = """
    CREATE TABLE item (id int, label text); ALTER TABLE item REPLICA IDENTITY FULL;
    CREATE TABLE other (id int PRIMARY KEY, label text);
    INSERT INTO item VALUES (1, 'one'), (2, 'two'), (2, 'two');
"""


def test_a_row_that_differs_under_a_full_identity_halts(follow):
    blue, green, teal = follow(schema=FULL)
    green.execute("UPDATE item SET label = 'another' WHERE id = 1")
    blue.execute("UPDATE item SET label = 'new' WHERE id = 1")
    status = teal.wait_phase("halted")
    assert gist(status)[0] == "conflict" and "public.item" in status["error"]["text"]
    green.execute("UPDATE item SET label = 'one' WHERE id = 1")
    teal.wait_phase("following")
    teal.wait("caught-up")
    assert compare(blue, green) == []


def test_without_a_key_one_of_several_equal_rows_is_changed(follow):
    blue, green, teal = follow(schema=FULL)
    blue.execute("DELETE FROM item WHERE ctid = (SELECT min(ctid) FROM item WHERE id = 2)")
    teal.wait("caught-up")
    assert compare(blue, green) == [] and teal.status()["apply"]["conflicts"] == 0


TOASTED = """
    CREATE TABLE item (id int PRIMARY KEY, n int, body text);
    ALTER TABLE item ALTER body SET STORAGE EXTERNAL;
    INSERT INTO item SELECT n, 0, repeat(n::text, 20000) FROM generate_series(1, 3) n;
"""


def test_overwrite_completes_a_missing_row_whose_long_value_was_not_sent(follow):
    blue, green, teal = follow("overwrite", schema=TOASTED)
    green.execute("DELETE FROM item WHERE id = 2")
    blue.execute("UPDATE item SET n = 1 WHERE id = 2")
    teal.wait("caught-up")
    assert compare(blue, green) == []
    assert teal.status()["apply"]["conflicts"] == 1


def test_several_conflicts_of_one_transaction_are_each_counted_once(follow):
    blue, green, teal = follow("overwrite")
    green.execute("DELETE FROM item WHERE id <= 4")
    blue.execute("UPDATE item SET label = 'new'")
    teal.wait("caught-up")
    assert compare(blue, green) == []
    assert teal.status()["apply"]["conflicts"] == 4
    assert sorted(line.split("key=")[1].split(" ")[0] for line in events(teal, "apply.conflict")) == [
        '"id=1"', '"id=2"', '"id=3"', '"id=4"']


def test_a_value_that_green_cannot_hold_halts_and_resumes_once_it_can(follow):
    schema = "CREATE TABLE item (id int PRIMARY KEY, label varchar(40))"
    blue, green, teal = follow(schema=schema)
    green.execute("ALTER TABLE item ALTER label TYPE varchar(4)")
    blue.execute("INSERT INTO item VALUES (1, 'short')")
    error = teal.wait_phase("halted")["error"]
    for word in "public.item", "id=1", "character varying(4)":
        assert word in error["text"], error
    assert error["hint"]
    green.execute("ALTER TABLE item ALTER label TYPE varchar(40)")
    teal.wait_phase("following")
    teal.wait("caught-up")
    assert compare(blue, green) == []


def test_a_new_label_of_an_enum_halts_until_green_has_it(follow):
    blue, green, teal = follow(schema="CREATE TYPE mood AS ENUM ('ok'); "
                                      "CREATE TABLE item (id int PRIMARY KEY, m mood)")
    blue.execute("ALTER TYPE mood ADD VALUE 'new'")
    blue.execute("INSERT INTO item VALUES (1, 'ok'), (2, 'new')")
    error = teal.wait_phase("halted")["error"]
    for word in "public.item", "id=2", "mood":
        assert word in error["text"], error
    assert error["hint"]
    green.execute("ALTER TYPE mood ADD VALUE 'new'")
    teal.wait_phase("following")
    teal.wait("caught-up")
    assert compare(blue, green) == []


def test_a_refused_value_is_not_printed(follow):
    blue, green, teal = follow(schema="CREATE TABLE item (id int PRIMARY KEY, label text)")
    green.execute("CREATE DOMAIN number AS int; ALTER TABLE item ALTER label TYPE number USING label::int")
    blue.execute("INSERT INTO item VALUES (1, 'my secret')")
    error = teal.wait_phase("halted")["error"]
    assert "public.item" in error["text"] and "integer" in error["text"], error
    assert "secret" not in teal.stderr() + str(teal.status())


@pytest.mark.parametrize("policy", ["overwrite", "skip"])
def test_what_green_cannot_hold_at_all_halts_under_every_policy(follow, policy):
    """A policy is about rows that differ; to drop a value silently is no policy."""
    blue, green, teal = follow(policy, schema="CREATE TABLE item (id int PRIMARY KEY, label varchar(40))")
    green.execute("ALTER TABLE item ALTER label TYPE varchar(4)")
    blue.execute("INSERT INTO item VALUES (1, 'short')")
    assert "public.item" in teal.wait_phase("halted")["error"]["text"]
    green.execute("ALTER TABLE item ALTER label TYPE varchar(40)")
    teal.wait_phase("following")
    teal.wait("caught-up")
    assert compare(blue, green) == []


def test_exit_on_halt_ends_with_8_and_goes_on_from_there(follow):
    blue, green, teal = follow()
    assert teal.terminate() == 0
    green.execute("DELETE FROM item WHERE id = 3")
    blue.execute("UPDATE item SET label = 'new'")
    teal.start("--exit-on-halt")
    assert teal.ended() == 8
    assert "id=3" in teal.stderr()
    green.execute("INSERT INTO item VALUES (3, 'c3', 'old')")
    teal.start("--exit-on-halt").wait("ready")
    teal.wait("caught-up")
    assert compare(blue, green) == []


def test_a_halt_survives_a_restart_and_a_stop_while_halted_is_clean(follow):
    blue, green, teal = follow()
    green.execute("DELETE FROM item WHERE id = 3")
    blue.execute("DELETE FROM item WHERE id = 3")
    teal.wait_phase("halted")
    assert teal.terminate() == 0
    assert teal.status()["phase"] == "stopped"
    teal.start()
    teal.wait_phase("halted")
    green.execute("INSERT INTO item VALUES (3)")
    teal.wait_phase("following")
    teal.wait("caught-up")
    assert compare(blue, green) == []
