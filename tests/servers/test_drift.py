"""A table changes its shape on blue in mid-stream: halted at the commit before, mended, resumed."""

import pytest

from harness import compare, until

SCHEMA = """
    CREATE TABLE item (id int PRIMARY KEY, label text, n int);
    CREATE TABLE other (id int PRIMARY KEY);
    INSERT INTO item SELECT i, 'row ' || i, i FROM generate_series(1, 5) i;
"""


@pytest.fixture
def follow(databases, teal):
    def make(policy="halt", schema=SCHEMA, versions=(15, 15), config=None):
        blue, green = databases(*versions)
        blue.execute(schema)
        migration = teal(blue, green, {"ddl": {"policy": policy}, **(config or {})}).start()
        migration.wait("ready")
        return blue, green, migration
    return make


def events(teal, name):
    return [line for line in teal.stderr().splitlines() if f" {name} " in line + " "]


def resumed(teal, blue, green):
    teal.wait_phase("following")
    teal.wait("caught-up")
    assert compare(blue, green) == []
    assert len(events(teal, "engine.resumed")) == len(events(teal, "engine.halted")) == 1, teal.stderr()
    assert teal.status()["error"] is None and teal.run("status").returncode == 0


ADDED = {
    "plain": ("extra numeric(10,2)", "numeric(10,2)"),
    "odd name": ('"Select from" text', '"Select from"'),
    "default": ("extra int DEFAULT 7", "integer"),
    "not null with default": ("extra text NOT NULL DEFAULT 'it''s'", "text"),
    "array": ("extra varchar(9)[]", "character varying(9)[]"),
    "computed once": ("extra timestamptz NOT NULL DEFAULT '2024-01-01 00:00:00+00'", "timestamp"),
}


@pytest.mark.parametrize("column, shown", ADDED.values(), ids=lambda v: v if isinstance(v, str) else None)
def test_an_added_column_halts_and_the_hint_mends_it(follow, column, shown):
    blue, green, teal = follow()
    blue.execute("INSERT INTO item VALUES (6, 'before', 6)")
    blue.execute(f"ALTER TABLE item ADD {column}")
    with blue.connect() as connection, connection.transaction():
        connection.execute("INSERT INTO other VALUES (1)")
        connection.execute("INSERT INTO item VALUES (7, 'after', 7)")
    blue.execute("UPDATE item SET n = n + 1 WHERE id IN (1, 6)")
    blue.execute("INSERT INTO other VALUES (2)")

    status = teal.wait_phase("halted")
    error = status["error"]
    assert error["kind"] == "schema" and "public.item" in error["text"], error
    assert error["hint"].startswith("ALTER TABLE") and shown in error["hint"], error
    assert teal.run("status").returncode == 8
    done = teal.run("wait", "caught-up", "--timeout", "20s")
    assert done.returncode == 8
    # At the commit before: neither a part of the transaction nor anything later.
    assert green.value("SELECT max(id) FROM item") == 6 and green.execute("SELECT * FROM other") == []
    # Blue may forget what came meanwhile.
    end = blue.value("SELECT pg_current_wal_insert_lsn()")
    until(lambda: blue.value("SELECT confirmed_flush_lsn >= %s FROM pg_replication_slots "
                             "WHERE slot_name = 'teal_test'", [end]))
    green.execute(error["hint"])
    resumed(teal, blue, green)


def test_a_column_that_green_has_already_is_no_drift(follow):
    blue, green, teal = follow()
    green.execute("ALTER TABLE item ADD extra text")
    blue.execute("INSERT INTO item VALUES (6, 'between', 6)")
    blue.execute("ALTER TABLE item ADD extra text")
    blue.execute("UPDATE item SET extra = 'x'")
    blue.execute("INSERT INTO item VALUES (7, 'after', 7, 'y')")
    teal.wait("caught-up")
    assert compare(blue, green) == []
    assert events(teal, "engine.halted") == []


def test_a_column_added_within_the_transaction_that_fills_it(follow):
    blue, green, teal = follow()
    with blue.connect() as connection, connection.transaction():
        connection.execute("INSERT INTO item VALUES (6, 'before', 6)")
        connection.execute("ALTER TABLE item ADD extra text")
        connection.execute("INSERT INTO item VALUES (7, 'after', 7, 'filled')")
    teal.wait_phase("halted")
    assert green.value("SELECT max(id) FROM item") == 5
    green.execute("ALTER TABLE item ADD extra text")
    resumed(teal, blue, green)


def test_a_dropped_column_that_green_may_leave_empty_is_no_drift(follow):
    blue, green, teal = follow()
    blue.execute("ALTER TABLE item DROP label")
    blue.execute("INSERT INTO item VALUES (6, 6)")
    teal.wait("caught-up")
    assert green.execute("SELECT label, n FROM item WHERE id = 6") == [(None, 6)]
    assert events(teal, "engine.halted") == []
    green.execute("ALTER TABLE item DROP label")
    blue.execute("UPDATE item SET n = 0")
    teal.wait("caught-up")
    assert compare(blue, green) == []


def test_a_dropped_column_that_green_must_have_halts(follow):
    blue, green, teal = follow(schema="CREATE TABLE item (id int PRIMARY KEY, label text NOT NULL, n int)")
    blue.execute("ALTER TABLE item DROP label")
    blue.execute("INSERT INTO item VALUES (6, 6)")
    error = teal.wait_phase("halted")["error"]
    assert error["kind"] == "schema" and "label" in error["text"] and "public.item" in error["text"]
    assert "DROP NOT NULL" in error["hint"]
    green.execute("ALTER TABLE item DROP label")
    resumed(teal, blue, green)


def test_the_hint_for_a_renamed_column_loses_nothing(follow):
    blue, green, teal = follow()
    blue.execute("ALTER TABLE item RENAME label TO title")
    blue.execute("INSERT INTO item VALUES (6, 'after', 6)")
    hint = teal.wait_phase("halted")["error"]["hint"]
    green.execute(hint)
    teal.wait_phase("following")
    teal.wait("caught-up")
    columns = "SELECT id, title, n FROM item ORDER BY id"
    assert green.execute(columns) == blue.execute(columns)


def test_forward_does_not_take_a_rename_for_an_addition(follow):
    blue, green, teal = follow("forward")
    blue.execute("ALTER TABLE item RENAME label TO title")
    blue.execute("INSERT INTO item VALUES (6, 'after', 6)")
    until(lambda: teal.status()["phase"] == "halted" or green.value("SELECT max(id) FROM item") == 6)
    if teal.status()["phase"] == "following":
        columns = "SELECT id, title, n FROM item ORDER BY id"
        assert green.execute(columns) == blue.execute(columns)


def test_a_renamed_column_halts_until_green_has_the_name(follow):
    blue, green, teal = follow()
    blue.execute("ALTER TABLE item RENAME label TO title")
    blue.execute("INSERT INTO item VALUES (6, 'after', 6)")
    blue.execute("UPDATE item SET title = 'changed' WHERE id = 1")
    error = teal.wait_phase("halted")["error"]
    assert "public.item" in error["text"] and "title" in error["text"]
    green.execute("ALTER TABLE item RENAME label TO title")
    resumed(teal, blue, green)


def test_a_renamed_table_halts_until_green_has_the_name(follow):
    blue, green, teal = follow()
    blue.execute("ALTER TABLE item RENAME TO thing")
    blue.execute("INSERT INTO thing VALUES (6, 'after', 6)")
    error = teal.wait_phase("halted")["error"]
    assert error["kind"] == "schema" and "public.thing" in error["text"] and error["hint"]
    green.execute("ALTER TABLE item RENAME TO thing")
    resumed(teal, blue, green)


TYPES = {
    "wider": ("TYPE bigint", "bigint", "9000000000"),
    "to text": ("TYPE text", "text", "'word'"),
    "to numeric": ("TYPE numeric(9,2)", "numeric(9,2)", "1.50"),
}


@pytest.mark.parametrize("change, shown, value", TYPES.values(), ids=TYPES.keys())
def test_a_changed_type_halts_and_the_hint_mends_it(follow, change, shown, value):
    blue, green, teal = follow()
    blue.execute(f"ALTER TABLE item ALTER n {change}")
    blue.execute(f"INSERT INTO item VALUES (6, 'after', {value})")
    error = teal.wait_phase("halted")["error"]
    assert error["kind"] == "schema" and "public.item" in error["text"] and "integer" in error["text"], error
    assert error["hint"] == f'ALTER TABLE "public"."item" ALTER COLUMN "n" TYPE {shown};'
    green.execute(error["hint"])
    resumed(teal, blue, green)


def test_a_wider_type_on_green_is_no_drift(follow):
    blue, green, teal = follow()
    green.execute("ALTER TABLE item ALTER n TYPE bigint")
    blue.execute("UPDATE item SET n = n + 1")
    teal.wait("caught-up")
    assert green.execute("SELECT sum(n) FROM item") == blue.execute("SELECT sum(n) FROM item")
    assert events(teal, "engine.halted") == []


def test_a_table_dropped_on_green_halts_until_it_is_there_again(follow):
    blue, green, teal = follow()
    green.execute("ALTER TABLE item RENAME TO hidden")
    blue.execute("INSERT INTO item VALUES (6, 'after', 6)")
    error = teal.wait_phase("halted")["error"]
    assert error["kind"] == "schema" and "public.item" in error["text"]
    green.execute("ALTER TABLE hidden RENAME TO item")
    resumed(teal, blue, green)


def test_a_column_dropped_on_green_while_it_runs_halts(follow):
    """The shape is known and statements are prepared; they fail."""
    blue, green, teal = follow()
    blue.execute("INSERT INTO item VALUES (6, 'before', 6)")
    teal.wait("caught-up")
    green.execute("ALTER TABLE item DROP n")
    blue.execute("INSERT INTO item VALUES (7, 'after', 7)")
    error = teal.wait_phase("halted")["error"]
    assert error["kind"] == "schema" and "public.item" in error["text"], error
    green.execute("ALTER TABLE item ADD n int; UPDATE item SET n = id")
    resumed(teal, blue, green)


def test_ignore_leaves_new_columns_out_and_goes_on(follow):
    blue, green, teal = follow("ignore")
    blue.execute("ALTER TABLE item ADD extra text DEFAULT 'x'")
    blue.execute("INSERT INTO item VALUES (6, 'after', 6, 'y')")
    blue.execute("UPDATE item SET n = n + 1")
    teal.wait("caught-up")
    columns = "SELECT id, label, n FROM item ORDER BY id"
    assert green.execute(columns) == blue.execute(columns)
    assert green.execute("SELECT * FROM item WHERE id = 6") == [(6, "after", 7)]
    assert events(teal, "engine.halted") == []


def test_forward_loses_nothing_while_it_cannot_carry_a_change(follow):
    """What is not carried over must halt like any drift."""
    blue, green, teal = follow("forward")
    blue.execute("ALTER TABLE item ADD extra text")
    blue.execute("INSERT INTO item VALUES (6, 'after', 6, 'y')")
    status = teal.wait_phase("halted", "following")
    until(lambda: teal.status()["phase"] == "halted" or compare(blue, green) == [])
    if (status := teal.status())["phase"] == "halted":
        green.execute(status["error"]["hint"])
    teal.wait_phase("following")
    teal.wait("caught-up")
    assert compare(blue, green) == []


def test_drift_during_the_copy_is_mended_too(databases, teal):
    """The table was copied in its old shape, the stream brings the new one."""
    blue, green = databases()
    blue.execute(SCHEMA + "CREATE TABLE big (id int PRIMARY KEY, label text);"
                 "INSERT INTO big SELECT n, repeat('x', 100) FROM generate_series(1, 200000) n")
    migration = teal(blue, green, {"copy": {"jobs": 1}}).start()
    until(lambda: green.execute("SELECT 1 FROM pg_class WHERE relname = 'big'"))
    blue.execute("ALTER TABLE other ADD extra int DEFAULT 5")
    blue.execute("INSERT INTO other VALUES (1, 1), (2, 2)")
    status = migration.wait_phase("halted", "following")
    if status["phase"] == "halted":
        assert "public.other" in status["error"]["text"], status["error"]
        green.execute("ALTER TABLE other ADD extra int DEFAULT 5")
        migration.wait_phase("following")
    migration.wait("caught-up")
    assert compare(blue, green) == []


def test_columns_left_out_by_the_configuration_may_come_and_go(follow):
    blue, green, teal = follow(config={"table public.item": {"columns": "id, label"}})
    blue.execute("ALTER TABLE item ADD extra text; ALTER TABLE item DROP n")
    blue.execute("INSERT INTO item VALUES (6, 'after', 'x')")
    teal.wait("caught-up")
    assert green.execute("SELECT id, label FROM item WHERE id = 6") == [(6, "after")]
    assert events(teal, "engine.halted") == []
