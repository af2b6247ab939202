"""Every kind of change arrives as it was made: once, in order, on the right row.

A scenario is tables and transactions. It runs in a schema of its own, once with each transaction
applied before the next is made and once with all of them met at once, as a backlog is.
"""

import collections
import contextlib

import pytest

from harness import Teal, Workload, ledger, until
from steps import arrived, following, frozen, ready, same, settled, tables_in, transactions

PAIRS = [(15, 15), (13, 18)]

Scenario = collections.namedtuple("Scenario", "tables transactions")

SCENARIOS = {
    "insert, update, delete": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b int);"
        "INSERT INTO t SELECT n, 'first', n FROM generate_series(1, 20) n",
        ["INSERT INTO t VALUES (101, 'new', NULL), (102, NULL, 2)",
         "UPDATE t SET a = 'changed', b = NULL WHERE id <= 5",
         "DELETE FROM t WHERE id BETWEEN 6 AND 9",
         "INSERT INTO t VALUES (6, 'again', 6)",
         "UPDATE t SET b = b WHERE id = 10"]),
    "all of one row in one transaction": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')",
        ["INSERT INTO t VALUES (4, 'x'); UPDATE t SET a = 'y' WHERE id = 4; DELETE FROM t WHERE id = 4",
         "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'anew'); UPDATE t SET a = a || '!' WHERE id = 1",
         "UPDATE t SET a = 'gone' WHERE id = 2; DELETE FROM t WHERE id = 2",
         "DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (3, 'a'); DELETE FROM t WHERE id = 3",
         "INSERT INTO t VALUES (5, 'x'); DELETE FROM t WHERE id = 5; INSERT INTO t VALUES (5, 'y')"]),
    "the key changes": Scenario(
        "CREATE TABLE t (a int, b text, c text, PRIMARY KEY (a, b));"
        "INSERT INTO t SELECT n, 'k' || n, 'v' FROM generate_series(1, 10) n",
        ["UPDATE t SET a = a + 100 WHERE a = 1",
         "UPDATE t SET b = 'other' WHERE a = 2; UPDATE t SET c = 'w' WHERE a = 2; DELETE FROM t WHERE a = 3",
         "UPDATE t SET a = 3, b = 'k3' WHERE a = 4; UPDATE t SET a = 4, b = 'k4' WHERE a = 5",
         "UPDATE t SET a = -a; UPDATE t SET a = -a",
         "UPDATE t SET a = 900 WHERE a = 6; INSERT INTO t VALUES (6, 'k6', 'new'); DELETE FROM t WHERE a = 900"]),
    "keys that are equal and look different": Scenario(
        "CREATE TABLE t (k numeric PRIMARY KEY, a text); INSERT INTO t VALUES (1.0, 'a'), (2, 'b'), ('NaN', 'c')",
        ["UPDATE t SET k = 1.00 WHERE k = 1", "UPDATE t SET a = 'x' WHERE k = 1",
         "UPDATE t SET k = 1.000 WHERE k = 1; UPDATE t SET a = 'y' WHERE k = 1; DELETE FROM t WHERE k = 2;"
         "INSERT INTO t VALUES (2.00, 'z')", "UPDATE t SET a = 'd' WHERE k = 'NaN'"]),
    "identity FULL, equal rows, nulls": Scenario(
        "CREATE TABLE t (a int, b text, c numeric, d float8); ALTER TABLE t REPLICA IDENTITY FULL;"
        "INSERT INTO t SELECT 1, NULL, 1.0, '-0' FROM generate_series(1, 4);"
        "INSERT INTO t SELECT 1, NULL, 1.00, '0' FROM generate_series(1, 3);"
        "INSERT INTO t SELECT NULL, NULL, NULL, NULL FROM generate_series(1, 3)",
        ["DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE c::text = '1.0')",
         "UPDATE t SET b = 'x' WHERE ctid = (SELECT min(ctid) FROM t WHERE c::text = '1.00')",
         "DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t WHERE a IS NULL)",
         "UPDATE t SET a = 2 WHERE ctid IN (SELECT ctid FROM t WHERE a IS NULL LIMIT 1)",
         "INSERT INTO t VALUES (1, NULL, 1.0, '-0'), (1, NULL, 1.0, '-0')",
         "UPDATE t SET c = 2.50, b = '' WHERE d::text = '-0' AND ctid IN (SELECT ctid FROM t LIMIT 5)",
         "DELETE FROM t WHERE b = ''"]),
    "identity FULL beside a primary key": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b json); ALTER TABLE t REPLICA IDENTITY FULL;"
        "INSERT INTO t SELECT n, 'same', '{\"a\":  1}' FROM generate_series(1, 9) n",
        ["UPDATE t SET a = NULL WHERE id < 4", "UPDATE t SET id = id + 50 WHERE id = 5",
         "UPDATE t SET id = 5 WHERE id = 6; UPDATE t SET id = 6 WHERE id = 55", "DELETE FROM t WHERE id = 1"]),
    "identity USING INDEX": Scenario(
        "CREATE TABLE t (dropped int, id int PRIMARY KEY, code text NOT NULL, land text NOT NULL, n int);"
        "ALTER TABLE t DROP dropped; CREATE UNIQUE INDEX t_identity ON t (land, code);"
        "ALTER TABLE t REPLICA IDENTITY USING INDEX t_identity;"
        "INSERT INTO t SELECT n, 'c' || n, 'de', 0 FROM generate_series(1, 9) n",
        ["UPDATE t SET n = 1 WHERE code = 'c1'", "UPDATE t SET id = 100 + id WHERE code = 'c2'",
         "UPDATE t SET code = 'new', n = 7 WHERE id = 3; UPDATE t SET n = 8 WHERE id = 3",
         "DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (44, 'c4', 'de', 4)",
         "UPDATE t SET id = -1 WHERE id = 5; UPDATE t SET id = 5 WHERE id = 6; UPDATE t SET id = 6 WHERE id = -1"]),
    "identity NOTHING takes inserts": Scenario(
        "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY NOTHING; INSERT INTO t VALUES (1, 'x')",
        ["INSERT INTO t VALUES (1, 'x'), (1, 'x'), (NULL, NULL)", "INSERT INTO t SELECT n FROM generate_series(1, 9) n",
         "TRUNCATE t; INSERT INTO t VALUES (2, 'y')"]),
    "a unique value moves between rows": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE, v text UNIQUE);"
        "INSERT INTO t SELECT n, n, 'v' || n FROM generate_series(1, 12) n",
        ["UPDATE t SET u = NULL WHERE id = 1; UPDATE t SET u = 1 WHERE id = 2; UPDATE t SET u = 2 WHERE id = 1",
         "DELETE FROM t WHERE id = 3; UPDATE t SET u = 3, v = 'v3' WHERE id = 4",
         "UPDATE t SET u = 50 WHERE id = 5", "UPDATE t SET u = 5 WHERE id = 6", "UPDATE t SET u = 6 WHERE id = 5",
         "UPDATE t SET v = 'tmp' WHERE id = 7", "INSERT INTO t VALUES (70, 70, 'v7')",
         "DELETE FROM t WHERE id = 70; UPDATE t SET v = 'v7' WHERE id = 8; INSERT INTO t VALUES (70, 8888, 'v8')",
         "DELETE FROM t WHERE id IN (9, 10); INSERT INTO t VALUES (10, 9, 'v9'), (9, 10, 'v10')"]),
    "deferrable constraints": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, p int UNIQUE DEFERRABLE INITIALLY DEFERRED, q int UNIQUE DEFERRABLE);"
        "INSERT INTO t SELECT n, n, n FROM generate_series(1, 10) n",
        ["UPDATE t SET p = 11 - p", "UPDATE t SET q = q + 1", "SET CONSTRAINTS ALL DEFERRED; UPDATE t SET q = 2 WHERE id = 2;"
         "UPDATE t SET q = 3 WHERE id = 1; UPDATE t SET q = q + 100",
         "UPDATE t SET p = 1 WHERE id = 1; UPDATE t SET p = 10 WHERE id = 10; INSERT INTO t VALUES (99, 5, 0);"
         "DELETE FROM t WHERE p = 5 AND id <> 99"]),
    "exclusion constraint": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&));"
        "INSERT INTO t SELECT n, int4range(n * 10, n * 10 + 10) FROM generate_series(1, 9) n",
        ["UPDATE t SET r = 'empty' WHERE id = 1; UPDATE t SET r = '[5,25)' WHERE id = 2; UPDATE t SET r = '[25,30)' WHERE id = 1",
         "UPDATE t SET r = int4range(1000, 1001) WHERE id = 3", "UPDATE t SET r = '[30,50)' WHERE id = 4",
         "DELETE FROM t WHERE id = 5", "INSERT INTO t VALUES (50, '[51,58)')"]),
    "TRUNCATE of several tables": Scenario(
        "CREATE TABLE a (id serial PRIMARY KEY, x text); CREATE TABLE b (id int REFERENCES a, PRIMARY KEY (id));"
        "CREATE TABLE c (id int); ALTER TABLE c REPLICA IDENTITY FULL;"
        "INSERT INTO a (x) VALUES ('1'), ('2'); INSERT INTO b VALUES (1), (2); INSERT INTO c VALUES (1), (1)",
        ["INSERT INTO a (x) VALUES ('3')", "TRUNCATE a, b RESTART IDENTITY; INSERT INTO a (x) VALUES ('anew')",
         "INSERT INTO b VALUES (1); INSERT INTO c VALUES (2)", "INSERT INTO c VALUES (3); TRUNCATE c; INSERT INTO c VALUES (4)",
         "INSERT INTO a (x) VALUES ('a'); TRUNCATE a CASCADE", "INSERT INTO a (x) VALUES ('b'); INSERT INTO b SELECT id FROM a"]),
    "savepoints": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, a text)",
        ["INSERT INTO t VALUES (1, 'kept'); SAVEPOINT a; INSERT INTO t VALUES (2, 'gone'); SAVEPOINT b;"
         "UPDATE t SET a = 'gone' WHERE id = 1; ROLLBACK TO a; INSERT INTO t VALUES (2, 'kept'); RELEASE a",
         "SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; SAVEPOINT b; UPDATE t SET a = a || '!'; RELEASE b"]),
    "a table without columns": Scenario(
        "CREATE TABLE t (); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t DEFAULT VALUES",
        ["INSERT INTO t DEFAULT VALUES", "INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES",
         "DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)"]),
    "unchanged TOAST": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, n int, big text, big2 text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL,"
        "ALTER big2 SET STORAGE EXTERNAL;"
        "INSERT INTO t SELECT n, 0, repeat('x' || n, 5000), repeat('y' || n, 5000) FROM generate_series(1, 8) n",
        ["UPDATE t SET n = 1 WHERE id = 1", "UPDATE t SET n = 2, big = 'small' WHERE id = 2",
         "UPDATE t SET id = 33 WHERE id = 3; UPDATE t SET n = 3 WHERE id = 33",
         "UPDATE t SET n = 4 WHERE id = 4; UPDATE t SET big2 = repeat('z', 9000) WHERE id = 4; UPDATE t SET n = 5 WHERE id = 4",
         "INSERT INTO t VALUES (9, 0, repeat('n', 9000), NULL); UPDATE t SET n = 9 WHERE id = 9",
         "UPDATE t SET big = NULL WHERE id = 5; UPDATE t SET n = n + 1",
         "UPDATE t SET n = n + 1 WHERE id > 4; DELETE FROM t WHERE id = 8"]),
    "TOAST with identity FULL": Scenario(
        "CREATE TABLE t (n int, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL; ALTER TABLE t REPLICA IDENTITY FULL;"
        "INSERT INTO t SELECT n, repeat('x', 9000) FROM generate_series(1, 6) n; INSERT INTO t VALUES (1, repeat('x', 9000))",
        ["UPDATE t SET n = 10 WHERE n = 2", "UPDATE t SET n = 11 WHERE ctid = (SELECT min(ctid) FROM t WHERE n = 1)",
         "UPDATE t SET big = NULL WHERE n = 3", "DELETE FROM t WHERE n = 4", "UPDATE t SET n = n + 1"]),
    "TOAST in the key": Scenario(
        "CREATE TABLE t (k text PRIMARY KEY, n int, big text); ALTER TABLE t ALTER k SET STORAGE EXTERNAL,"
        "ALTER big SET STORAGE EXTERNAL; INSERT INTO t SELECT repeat('k' || n, 900), 0, repeat('x', 4000) FROM generate_series(1, 4) n",
        ["UPDATE t SET n = 1 WHERE k LIKE 'k1%'", "UPDATE t SET k = 'new' WHERE k LIKE 'k2%'", "DELETE FROM t WHERE k LIKE 'k3%'"]),
    "foreign keys and triggers act once": Scenario(
        "CREATE TABLE p (id int PRIMARY KEY, n int); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE"
        " ON UPDATE CASCADE); CREATE TABLE log (id serial PRIMARY KEY, what text);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        "  INSERT INTO log (what) VALUES (tg_op || coalesce(new.id, old.id)); RETURN coalesce(new, old); END $$;"
        "CREATE TRIGGER note BEFORE INSERT OR UPDATE OR DELETE ON p FOR EACH ROW EXECUTE FUNCTION note();"
        "INSERT INTO p SELECT n, 0 FROM generate_series(1, 6) n; INSERT INTO c SELECT n, n FROM generate_series(1, 6) n",
        ["INSERT INTO p VALUES (7, 0)", "UPDATE p SET id = 100 WHERE id = 1", "DELETE FROM p WHERE id = 2",
         "INSERT INTO c VALUES (8, 7); UPDATE p SET n = n + 1"]),
    "many tables, one transaction": Scenario(
        "".join(f"CREATE TABLE t{i} (id int PRIMARY KEY, a text);" for i in range(12)),
        ["".join(f"INSERT INTO t{i} VALUES (1, 'x'); " for i in range(12)) +
         "".join(f"UPDATE t{i} SET a = 'y'; INSERT INTO t{i} VALUES (2, 'z');" for i in range(12))]),
    "a table that changes its shape and stays fitting": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text); INSERT INTO t VALUES (1, 'a', 'b')",
        ["INSERT INTO t VALUES (2, 'c', 'd')", "INSERT INTO t VALUES (3, 'e', 'f'); ALTER TABLE t REPLICA IDENTITY FULL;"
         "UPDATE t SET a = 'x' WHERE id = 1; DELETE FROM t WHERE id = 2",
         "ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET b = 'y' WHERE id = 3"]),
    "several thousand rows at once": Scenario(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b int)",
        ["INSERT INTO t SELECT n, 'x' || n, n FROM generate_series(1, 9000) n",
         "UPDATE t SET b = b + 1 WHERE id % 2 = 0; UPDATE t SET a = NULL WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0",
         "UPDATE t SET id = id + 100000 WHERE id % 11 = 0"]),
}


class Follower:
    """One migration for all scenarios; a new one after a scenario that broke it."""

    def __init__(self, pool, pair):
        self.pool, self.pair = pool, pair
        self.made = contextlib.ExitStack()
        self.engine = None

    def open(self):
        if self.engine is not None and self.engine.running() and self.engine.status()["error"] is None:
            return self
        self.close()
        self.blue = self.pool.database(self.pair[0], "blue")
        self.made.callback(self.blue.drop)
        self.green = self.pool.database(self.pair[1], "green")
        self.made.callback(self.green.drop)
        for number, scenario in enumerate(SCENARIOS.values()):
            for schema in f"a{number}", f"b{number}":
                self.blue.execute(f"CREATE SCHEMA {schema}")
                transactions(self.blue, schema, [scenario.tables])
        self.engine = self.made.enter_context(Teal(self.blue, self.green))
        ready(self.engine)
        return self

    def close(self):
        self.made.close()


@pytest.fixture(scope="module")
def follower(pool, request):
    made = Follower(pool, request.param)
    yield made
    made.close()


def each(pairs):
    return pytest.mark.parametrize("follower", pairs, indirect=True, scope="module", ids=lambda pair: f"{pair[0]}-{pair[1]}")


@each(PAIRS[:1])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_change_arrives_as_it_was_made(follower, name):
    f, number = follower.open(), list(SCENARIOS).index(name)
    for script in SCENARIOS[name].transactions:
        transactions(f.blue, f"a{number}", [script])
        arrived(f.engine, f.blue, f.green, tables_in(f.blue, f"a{number}"))
    assert f.engine.status()["apply"]["conflicts"] == 0


@each(PAIRS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_changes_arrive_as_they_were_made_when_met_at_once(follower, name):
    f, number = follower.open(), list(SCENARIOS).index(name)
    with frozen(f.engine):
        transactions(f.blue, f"b{number}", SCENARIOS[name].transactions)
    settled(f.engine, f.blue, f.green, tables_in(f.blue, f"b{number}"))


@each(PAIRS)
def test_the_whole_is_equal_at_the_end_and_so_are_the_sequences(follower):
    f = follower.open()
    f.engine.wait("caught-up")
    same(f.blue, f.green)


# ---- what green has of its own does not act ----

def test_triggers_and_foreign_keys_of_green_do_not_act_on_what_is_applied(databases, teal):
    blue, green = databases()
    blue.execute("CREATE TABLE t (id int PRIMARY KEY, p int); INSERT INTO t VALUES (1, 1)")
    green.execute("""
        CREATE TABLE parents (id int PRIMARY KEY);
        CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES parents);
        CREATE TABLE children (t int REFERENCES t ON DELETE CASCADE);
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it fired'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION refuse();
        CREATE TRIGGER refuse_all BEFORE TRUNCATE ON t EXECUTE FUNCTION refuse()""")
    green.execute("""
        SET session_replication_role = replica; INSERT INTO children VALUES (1)""")
    engine = ready(teal(blue, green, {"schema": {"mode": "existing"}}, name="existing"))
    blue.execute("INSERT INTO t VALUES (2, 77)")
    blue.execute("UPDATE t SET p = 88 WHERE id = 2")
    blue.execute("DELETE FROM t WHERE id = 1")
    settled(engine, blue, green, ["public.t"])
    assert green.value("SELECT count(*) FROM children") == 1


# ---- what stands in the way ----

CLASHES = {
    "partial index": (
        "CREATE TABLE t (id int PRIMARY KEY, u int, active bool); CREATE UNIQUE INDEX t_u ON t (u) WHERE active",
        "INSERT INTO t VALUES (90, 7, true), (91, 7, false), (92, 7, NULL)", "INSERT INTO t VALUES (1, 7, true)", [1, 91, 92]),
    "expression": (
        "CREATE TABLE t (id int PRIMARY KEY, tenant int, mail text); CREATE UNIQUE INDEX t_mail ON t (tenant, lower(mail))",
        "INSERT INTO t VALUES (90, 1, 'a@X'), (91, 1, 'b@x'), (92, 2, 'A@x')", "INSERT INTO t VALUES (1, 1, 'A@x')", [1, 91, 92]),
    "exclusion constraint": (
        "CREATE TABLE t (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&))",
        "INSERT INTO t VALUES (90, '[1,5)'), (91, '[5,9)'), (92, '[9,12)')", "INSERT INTO t VALUES (1, '[3,7)')", [1, 92]),
    "generated column": (
        "CREATE TABLE t (id int PRIMARY KEY, mail text, small text GENERATED ALWAYS AS (lower(mail)) STORED UNIQUE)",
        "INSERT INTO t VALUES (90, 'A'), (91, 'b')", "INSERT INTO t VALUES (1, 'a')", [1, 91]),
    "update": (
        "CREATE TABLE t (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&)); INSERT INTO t VALUES (1, '[1,5)')",
        "INSERT INTO t VALUES (90, '[5,9)'), (91, '[9,12)')", "UPDATE t SET r = '[4,6)'", [1, 91]),
    "nulls that are not distinct": (
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int, UNIQUE NULLS NOT DISTINCT (a, b))",
        "INSERT INTO t VALUES (90, 1, NULL), (91, NULL, NULL), (92, 1, 1)", "INSERT INTO t VALUES (1, 1, NULL)", [1, 91, 92]),
    "order of an unusual collation": (
        "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        "CREATE TABLE t (id int PRIMARY KEY, a text COLLATE nocase UNIQUE)",
        "INSERT INTO t VALUES (90, 'Key'), (91, 'other')", "INSERT INTO t VALUES (1, 'kEY')", [1, 91]),
    "partition": (
        "CREATE TABLE t (id int PRIMARY KEY, a int) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT; CREATE UNIQUE INDEX ON t1 (a)",
        "INSERT INTO t VALUES (90, 5), (91, 6)", "INSERT INTO t VALUES (1, 5)", [1, 91]),
}


@pytest.mark.parametrize("name", CLASHES)
def test_overwriting_takes_away_only_what_stands_in_the_way(databases, teal, name):
    made, strays, change, left = CLASHES[name]
    blue, green = databases()
    blue.execute(made)
    engine = ready(teal(blue, green, {"apply": {"on-conflict": "overwrite"}, "cutover": {"guard-green": False}}, name="overwrite"))
    green.execute(strays)
    blue.execute(change)
    engine.wait("caught-up")
    assert [row[0] for row in green.execute("SELECT id FROM t ORDER BY 1")] == left
    assert engine.status()["apply"]["conflicts"] == 1


# ---- everything at once ----

@pytest.mark.parametrize("pair", [(15, 15), (13, 18), (18, 18)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_the_adversarial_workload_ends_equal(databases, teal, pair):
    blue, green = databases(*pair)
    work = Workload(blue, seed=pair[0] + pair[1], version=min(pair), pause=0.005).create()
    with contextlib.ExitStack() as stack:
        work.start()
        stack.callback(work.stop)
        engine = following(teal(blue, green, name="equal"))  # The follower of a pair may be running.
        done = work.transactions()
        until(lambda: work.transactions() > done + 600 or work.failures, 60)
    engine.wait("ready", 120)
    settled(engine, blue, green, timeout=120)
    assert ledger(green) == []
