"""Columns and tables of every shape: identities, generated columns, partitions, types by text."""

import contextlib

import pytest

from harness import until
from steps import arrived, frozen, ready, settled, tables_in, transactions


@pytest.fixture
def migrate(databases, teal):
    """migrate(blue SQL, green SQL, config, versions): a migration that follows. With SQL for green
    the schema is taken as it is."""
    def run(on_blue, on_green=None, config=None, versions=(15, 15)):
        blue, green = databases(*versions)
        blue.execute(on_blue)
        config = dict(config or {})
        if on_green is not None:
            green.execute(on_green)
            config["schema"] = {"mode": "existing"}
        return blue, green, ready(teal(blue, green, config))
    return run


def played(migration, scripts, tables=None, mapping=None):
    """Each script by itself, then all of them again, met at once: equal both times. Scripts must be
    such that they may run twice."""
    blue, green, engine = migration
    for script in scripts:
        blue.execute(script)
        arrived(engine, blue, green, tables or tables_in(blue, "public"), mapping)
    with frozen(engine):
        transactions(blue, "public", scripts)
    settled(engine, blue, green, tables, mapping)


# ---- identity columns ----

ALWAYS_APART = "CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, a text, big text);"

ALWAYS = {
    "in the key": (
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text); INSERT INTO t (a) VALUES ('x'), ('y')",
        ["INSERT INTO t (a) VALUES ('z'), ('w')", "UPDATE t SET a = a || '!' WHERE id % 2 = 1",
         "UPDATE t SET id = DEFAULT WHERE id = (SELECT min(id) FROM t)", "DELETE FROM t WHERE id = (SELECT min(id) FROM t)",
         "INSERT INTO t OVERRIDING SYSTEM VALUE SELECT max(id) + 500, 'set' FROM t",
         "UPDATE t SET id = DEFAULT; UPDATE t SET a = a || '?'"]),
    "outside the key": (
        ALWAYS_APART + "INSERT INTO t SELECT n, DEFAULT, 'x' FROM generate_series(1, 9) n".replace("n, DEFAULT, 'x'", "n")
        .replace("INTO t", "INTO t (id)"),
        ["UPDATE t SET a = 'y' WHERE id < 4", "UPDATE t SET n = DEFAULT WHERE id = 2", "UPDATE t SET n = DEFAULT, a = NULL WHERE id IN (3, 4)",
         "DELETE FROM t WHERE id = 5; INSERT INTO t (id, a) VALUES (5, 'anew')",
         "DELETE FROM t WHERE id = 6; INSERT INTO t (id, a) VALUES (6, 'anew'); UPDATE t SET a = 'changed' WHERE id = 6",
         "UPDATE t SET id = id + 1000 WHERE id = 7; UPDATE t SET id = id - 1000, n = DEFAULT WHERE id > 1000"]),
    "outside the key, unique": (
        ALWAYS_APART.replace("IDENTITY,", "IDENTITY UNIQUE,") + "INSERT INTO t (id) SELECT n FROM generate_series(1, 9) n",
        ["UPDATE t SET a = 'y'", "UPDATE t SET n = DEFAULT", "DELETE FROM t WHERE id = 5; INSERT INTO t (id) VALUES (5)",
         "DELETE FROM t WHERE id < 3; INSERT INTO t (id, n) OVERRIDING SYSTEM VALUE SELECT 1 + i, min(n) - 1 - i FROM t, generate_series(0, 1) i GROUP BY i"]),
    "with TOAST left alone": (
        ALWAYS_APART + "ALTER TABLE t ALTER big SET STORAGE EXTERNAL;"
        "INSERT INTO t (id, big) SELECT n, repeat('x' || n, 4000) FROM generate_series(1, 5) n",
        ["UPDATE t SET n = DEFAULT WHERE id < 4", "UPDATE t SET n = DEFAULT, id = -id WHERE id = 4; UPDATE t SET id = -id WHERE id < 0"]),
    "identity FULL": (
        "CREATE TABLE t (n int GENERATED ALWAYS AS IDENTITY, a text); ALTER TABLE t REPLICA IDENTITY FULL;"
        "INSERT INTO t (a) SELECT 'x' FROM generate_series(1, 5)",
        ["UPDATE t SET a = 'y' WHERE n % 2 = 0", "UPDATE t SET n = DEFAULT WHERE a = 'y'", "UPDATE t SET n = DEFAULT, a = NULL WHERE a = 'x'",
         "DELETE FROM t WHERE n = (SELECT min(n) FROM t); INSERT INTO t (a) VALUES ('x'), ('y')"]),
    "identity FULL beside a key": (
        ALWAYS_APART + "ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t (id) SELECT n FROM generate_series(1, 9) n",
        ["UPDATE t SET a = 'y' WHERE id < 4", "UPDATE t SET n = DEFAULT WHERE id < 6",
         "DELETE FROM t WHERE id = 5; INSERT INTO t (id, a) VALUES (5, 'anew')"]),
}


@pytest.mark.parametrize("name", ALWAYS)
def test_identity_always(migrate, name):
    played(migrate(ALWAYS[name][0]), ALWAYS[name][1])


def test_identity_always_on_green_alone_with_columns_of_its_own(migrate):
    """What only green has stays with the row, although the row is made anew."""
    blue, green, engine = migrate(
        "CREATE TABLE t (id int PRIMARY KEY, n int, a text); INSERT INTO t SELECT i, i, 'x' FROM generate_series(1, 5) i",
        "CREATE TABLE t (own text DEFAULT 'none', id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, a text,"
        " calculated text GENERATED ALWAYS AS (a || '!') STORED)")
    mapping = {"public.t": {"columns": {"id": "id", "n": "n", "a": "a"}}}
    green.execute("UPDATE t SET own = 'kept' WHERE id = 2")
    played((blue, green, engine), ["UPDATE t SET n = n * 3 WHERE id = 2", "UPDATE t SET n = -n"], ["public.t"], mapping)
    assert green.execute("SELECT id FROM t WHERE own = 'kept'") == [(2,)]
    assert green.value("SELECT count(*) FROM t WHERE calculated = a || '!'") == 5


# ---- generated columns ----

def test_generated_columns_are_computed_on_green(migrate):
    played(migrate(
        "CREATE TABLE t (id int PRIMARY KEY, a int, double int GENERATED ALWAYS AS (a * 2) STORED, b text,"
        " key text GENERATED ALWAYS AS ('k' || b) STORED UNIQUE); INSERT INTO t (id, a, b) SELECT n, n, n FROM generate_series(1, 5) n;"
        "CREATE TABLE f (a int, double int GENERATED ALWAYS AS (a * 2) STORED); ALTER TABLE f REPLICA IDENTITY FULL;"
        "INSERT INTO f VALUES (1), (1), (NULL)"),
        ["UPDATE t SET a = a + 1", "UPDATE t SET b = 'm' || b", "DELETE FROM t WHERE id = 3; INSERT INTO t (id, a, b) VALUES (3, 3, 'x')",
         "INSERT INTO f VALUES (2); UPDATE f SET a = 3 WHERE a IS NULL",
         "DELETE FROM f WHERE ctid = (SELECT min(ctid) FROM f); INSERT INTO f VALUES (NULL)"])


def test_virtual_generated_columns(migrate):
    played(migrate("CREATE TABLE t (id int PRIMARY KEY, a int, v int GENERATED ALWAYS AS (a + 1) VIRTUAL);"
                   "INSERT INTO t VALUES (1, 1)", versions=(18, 18)), ["UPDATE t SET a = a + 1", "DELETE FROM t; INSERT INTO t VALUES (1, 5)"])


# ---- partitions ----

PARTED = """
    CREATE TABLE t (id int, region text, a text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE t_eu PARTITION OF t FOR VALUES IN ('eu');
    CREATE TABLE t_us (a text, dropped int, region text NOT NULL, id int NOT NULL);
    ALTER TABLE t_us DROP dropped; ALTER TABLE t ATTACH PARTITION t_us FOR VALUES IN ('us');
    CREATE TABLE t_rest PARTITION OF t DEFAULT PARTITION BY HASH (id);
    CREATE TABLE t_rest_0 PARTITION OF t_rest FOR VALUES WITH (modulus 2, remainder 0);
    CREATE TABLE t_rest_1 PARTITION OF t_rest FOR VALUES WITH (modulus 2, remainder 1);
    INSERT INTO t SELECT n, (array['eu', 'us', 'mars'])[n % 3 + 1], 'x' FROM generate_series(1, 30) n"""

PARTED_TXNS = [
    "UPDATE t SET a = 'y' WHERE id % 2 = 0", "UPDATE t SET region = 'us' WHERE id = 3", "UPDATE t SET region = 'moon' WHERE region = 'eu'",
    "UPDATE t SET region = 'eu' WHERE id % 5 = 0; UPDATE t SET a = 'z' WHERE region = 'eu'; DELETE FROM t WHERE id = 5",
    "INSERT INTO t VALUES (5, 'eu', 'anew') ON CONFLICT DO NOTHING; UPDATE t SET id = id + 100 WHERE id < 10; UPDATE t SET id = id - 100 WHERE id > 100"]


@pytest.mark.parametrize("pair", [(15, 15), (13, 18)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_partitions_as_leaves_and_rows_that_move_between_them(migrate, pair):
    blue, green, engine = migrate(PARTED, versions=pair)
    played((blue, green, engine), PARTED_TXNS + ["TRUNCATE t_us; INSERT INTO t VALUES (500, 'us', 'one')", "DELETE FROM t WHERE id = 500"])
    blue.execute("TRUNCATE t; INSERT INTO t VALUES (1, 'eu', 'after')")
    settled(engine, blue, green)


FLAT_OR_OTHERWISE = {
    "partitioned otherwise": "CREATE TABLE t (region text, id int, a text, PRIMARY KEY (id, region)) PARTITION BY HASH (id);"
                             "CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (modulus 2, remainder 0);"
                             "CREATE TABLE t_1 PARTITION OF t FOR VALUES WITH (modulus 2, remainder 1)",
    "not partitioned": "CREATE TABLE t (id int, region text, a text, PRIMARY KEY (id, region))",
}


@pytest.mark.parametrize("made", FLAT_OR_OTHERWISE.values(), ids=FLAT_OR_OTHERWISE.keys())
def test_green_holds_the_root_in_another_way(migrate, made):
    blue, green, engine = migrate(PARTED, made)
    rows = "SELECT id, region, a FROM t ORDER BY 1, 2"
    assert blue.execute(rows) == green.execute(rows)
    for script in PARTED_TXNS:
        blue.execute(script)
        engine.wait("caught-up")
        assert blue.execute(rows) == green.execute(rows), script
    with frozen(engine):
        transactions(blue, "public", PARTED_TXNS)
    engine.wait("caught-up")
    assert blue.execute(rows) == green.execute(rows)


@pytest.mark.parametrize("made", FLAT_OR_OTHERWISE.values(), ids=FLAT_OR_OTHERWISE.keys())
def test_partitions_that_green_holds_otherwise_may_be_truncated(migrate, made):
    blue, green, engine = migrate(PARTED, made)
    rows = "SELECT id, region, a FROM t ORDER BY 1, 2"
    for script in ("TRUNCATE t_us; INSERT INTO t VALUES (500, 'us', 'after')",
                   "TRUNCATE t; INSERT INTO t VALUES (7, 'eu', 'after'), (8, 'us', 'after'), (9, 'moon', 'after')",
                   "TRUNCATE t_us, t_eu; INSERT INTO t VALUES (7, 'eu', 'again')"):
        blue.execute(script)
        engine.wait("caught-up")
        assert blue.execute(rows) == green.execute(rows), script


def test_the_rows_of_a_hash_partition_that_green_has_not_cannot_be_told(migrate):
    blue, _, engine = migrate(PARTED, FLAT_OR_OTHERWISE["not partitioned"])
    blue.execute("TRUNCATE t_rest_0")
    until(lambda: engine.status()["phase"] == "halted")
    assert "partition t_rest_0 was truncated" in engine.status()["error"]["text"]


def test_a_partition_attached_later_is_followed(migrate):
    blue, green, engine = migrate(PARTED.replace("t_rest PARTITION OF t DEFAULT", "t_rest PARTITION OF t FOR VALUES IN ('mars')"))
    for side in green, blue:
        side.execute("CREATE TABLE t_new PARTITION OF t FOR VALUES IN ('new')")
    blue.execute("INSERT INTO t VALUES (900, 'new', 'x')")
    blue.execute("UPDATE t SET a = 'y' WHERE id = 900; UPDATE t SET region = 'new' WHERE region = 'mars'")
    settled(engine, blue, green)


def test_inherited_tables_are_each_their_own(migrate):
    played(migrate("CREATE TABLE base (id int PRIMARY KEY, a text); CREATE TABLE child (b int, PRIMARY KEY (id)) INHERITS (base);"
                   "INSERT INTO base VALUES (1, 'x'), (2, 'y'); INSERT INTO child VALUES (1, 'child', 1), (3, 'z', 2)"),
           ["UPDATE base SET a = a || '!'", "DELETE FROM ONLY base WHERE id = 1; INSERT INTO base VALUES (1, 'back')",
            "TRUNCATE ONLY base; INSERT INTO base VALUES (1, 'x'), (2, 'y')"])


# ---- types ----

TYPES = """
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION cube; CREATE EXTENSION intarray;
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s, {"\\}'); CREATE TYPE inner_t AS (a int, b text[]);
    CREATE TYPE outer_t AS (x inner_t, y mood, z inner_t[]); CREATE DOMAIN positive AS int CHECK (value > 0);
    CREATE DOMAIN deep AS positive NOT NULL DEFAULT 1; CREATE DOMAIN words AS text[]; CREATE DOMAIN pair AS inner_t;
    CREATE TYPE floats AS RANGE (subtype = float8);
    CREATE SCHEMA "Odd ""one"; CREATE TYPE "Odd ""one"."T ype" AS ENUM ('a b', 'c');
    CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE t (
        id int PRIMARY KEY, h hstore, hs hstore[], c citext, cs citext[], l ltree, cu cube, m mood, ms mood[], i inner_t, "is" inner_t[],
        o outer_t, p positive, d deep, ps positive[], w words, pr pair, f floats, fs floats[], odd "Odd ""one"."T ype",
        odds "Odd ""one"."T ype"[], nc text COLLATE nocase, x xml, j json, js json[], jb jsonb, bx box, bxs box[], pg polygon, ls line,
        ts tsvector, tq tsquery, mo money, n name, ch "char", bits bit(3)[], mac macaddr8, reg regclass, iv interval[], by bytea[],
        tz timestamptz[], ar int[][], big int8range[], u uuid[], vc varchar(3)[], nu numeric(10,3)[], b bool[], e text, pt point[],
        snap txid_snapshot, lsn pg_lsn, tid tid, xi xid, v int2vector, ov oidvector, jp jsonpath);
    CREATE TABLE f AS SELECT * FROM t; ALTER TABLE f REPLICA IDENTITY FULL;
    CREATE TABLE k (c citext, m mood, d positive, n text COLLATE nocase, i inner_t, r floats, h hstore, b bytea, PRIMARY KEY (c, m, d, n, i, r, b));
    CREATE TABLE one_of_each (a mood[] PRIMARY KEY, b text)"""

ROW = """
    $n$, '"a b"=>"c\\"d", e=>NULL, ""=>""', array['a=>1', NULL]::hstore[], 'MiXed', '{A,b,NULL}', 'Top.Mid', '(1,2),(3,4)', 'it''s, {"\\}',
    array['sad', NULL, 'it''s, {"\\}']::mood[], row(1, array['x', NULL, 'y"\\,'])::inner_t, array[row(1, '{}'), NULL, row(NULL, NULL)]::inner_t[],
    row(row(2, '{q}'), 'ok', array[row(3, '{"}"}')]::inner_t[])::outer_t, 5, 6, array[1, NULL]::positive[], '{w,"NULL",NULL}',
    row(1, '{a}')::pair, '[0.1,Infinity)', array['empty', '(,)']::floats[], 'a b', array['c', NULL]::"Odd ""one"."T ype"[], 'Straße', '<a>&lt;</a>',
    '{"a" :1,"a":2}', array['{"x":[1, 2]}', '"q\\""', NULL]::json[], '{"k": 1.10}', '((1,2),(0,0))', array['((1,2),(0,0))', '((3,4),(0,0))']::box[],
    '((0,0),(1,1),(1,0))', '{1,2,3}', '''a'':1A ''b c'':2', '''a'' & !''b''', '$1,234.56', 'na me', 'z', array['101', '010']::bit(3)[],
    '08:00:2b:01:02:03:04:05', 'pg_class', array['1 mon -1 day', '00:00:00.000001']::interval[], array['\\x00ff', '\\x', NULL]::bytea[],
    array['infinity', '2024-01-01 00:00:00+00']::timestamptz[], '[2:3][0:1]={{1,2},{NULL,4}}', array['[1,2)', 'empty']::int8range[],
    array['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']::uuid[], '{abc,"",NULL}', '{1.000,NaN,NULL}', '{t,f,NULL}', '', array['(1,2)', '(NaN,-0)']::point[],
    '10:20:10,14,15', '16/B374D848', '(3,4)', '42', '1 2 3', '5 6', '$.a[*] ? (@ > 1)'"""


@pytest.mark.parametrize("pair", [(15, 15), (13, 18)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_types_of_all_kinds_travel_as_text(migrate, pair):
    row = ROW.replace("$n$", "%s")
    nulls = "id = 1"
    migration = migrate(
        TYPES + f"; INSERT INTO t VALUES ({ROW.replace('$n$', '1')}); INSERT INTO t (id, d) VALUES (2, 1); INSERT INTO f SELECT * FROM t;"
        "INSERT INTO k VALUES ('Key', 'ok', 1, 'Ä', row(1, '{x}'), '[1,2]', 'a=>1', '\\x00'); INSERT INTO one_of_each VALUES ('{sad,ok}', 'x')",
        versions=pair)
    blue = migration[0]
    columns = [name for name, in blue.execute("SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 't'::regclass"
                                              " AND attnum > 1 AND NOT attisdropped ORDER BY attnum")]
    listed = ", ".join(columns)
    from_full = f"({listed}) = (SELECT {listed} FROM t WHERE {nulls})"
    blank = ", ".join(f"{c} = NULL" for c in columns if c != "d")
    played(migration, [
        f"INSERT INTO t VALUES ({row % 10}), ({row % 11}); INSERT INTO t VALUES ({row % 12}); DELETE FROM t WHERE id = 12",
        f"UPDATE t SET {blank} WHERE id = 11", f"UPDATE t SET {from_full} WHERE id = 2",
        "DELETE FROM t WHERE id IN (10, 11)", f"UPDATE t SET {blank} WHERE id = 2",
        "INSERT INTO f SELECT * FROM t; INSERT INTO f SELECT * FROM t WHERE id = 1",
        "UPDATE f SET e = 'mark' WHERE ctid = (SELECT max(ctid) FROM f WHERE id = 1)",
        "DELETE FROM f WHERE ctid = (SELECT min(ctid) FROM f WHERE id = 1); DELETE FROM f WHERE e = 'mark'",
        "UPDATE f SET h = NULL WHERE id = 2",
        "UPDATE k SET h = h || 'b=>2' WHERE c = 'key'", "UPDATE k SET c = 'KEY' WHERE c = 'key'; UPDATE k SET n = 'ä'; UPDATE k SET r = '(1,2]'",
        "UPDATE k SET c = 'Key', n = 'Ä', r = '[1,2]'; DELETE FROM k; INSERT INTO k VALUES ('Key', 'ok', 1, 'Ä', row(1, '{x}'), '[1,2]', 'a=>1', '\\x00')",
        "UPDATE one_of_each SET a = '{}' WHERE a = '{sad,ok}'; UPDATE one_of_each SET b = b || 'y'; UPDATE one_of_each SET a = '{sad,ok}'",
    ])


def test_settings_of_roles_and_databases_do_not_change_what_arrives(databases, teal):
    blue, green = databases()
    for side in blue, green:
        for setting in ("datestyle = 'SQL, DMY'", "intervalstyle = 'sql_standard'", "timezone = 'Asia/Kolkata'", "bytea_output = 'escape'",
                        "extra_float_digits = 0", "standard_conforming_strings = off", "lc_monetary = 'C'", "search_path = 'nowhere'",
                        "default_transaction_isolation = 'serializable'", "xmloption = document", "default_transaction_read_only = off",
                        "statement_timeout = '0'", "quote_all_identifiers = on", "transform_null_equals = on"):
            side.execute(f"ALTER DATABASE {side.name} SET {setting}")
    with contextlib.closing(blue.connect()) as connection:
        connection.execute("SET search_path = public; CREATE TABLE t (id int PRIMARY KEY, d date, i interval, z timestamptz, b bytea, f float8, x xml)")
        connection.execute("SET datestyle = 'ISO'; SET xmloption = content")
        insert = """INSERT INTO t SELECT %s::int + n, '2024-02-03', '-1 year 2 days 03:04:05.678', '2024-02-03 04:05:06.789+00', E'\\\\x5c00ff27', 0.1::float8 + 0.2, 'not a <b/> document'
            FROM generate_series(1, 3) n"""
        connection.execute(insert, [0])
        engine = ready(teal(blue, green))
        connection.execute(insert, [10])
    settled(engine, blue, green, ["public.t"])


@pytest.mark.parametrize("encodings", [("LATIN1", "UTF8"), ("UTF8", "LATIN1")])
def test_encodings_are_converted(pool, teal, encodings):
    sides = []
    with contextlib.ExitStack() as made:
        for role, encoding in zip(("blue", "green"), encodings):
            side = pool.database(15, role)
            server, name = side.server, side.name + "_" + encoding.lower()
            side.drop()
            server.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
            side.name = name
            made.callback(side.drop)
            sides.append(side)
        blue, green = sides
        blue.execute("SET client_encoding = 'UTF8'; CREATE TABLE \"größe\" (id int PRIMARY KEY, \"naïve\" text); INSERT INTO \"größe\" VALUES (1, 'é')")
        engine = ready(made.enter_context(teal_of(teal, blue, green)))
        blue.execute("SET client_encoding = 'UTF8'; INSERT INTO \"größe\" VALUES (2, 'ÿ'); UPDATE \"größe\" SET \"naïve\" = 'ß' WHERE id = 1")
        engine.wait("caught-up")
        rows = "SELECT id, \"naïve\" FROM \"größe\" ORDER BY 1"
        for side in sides:
            with contextlib.closing(side.connect(client_encoding="utf8")) as connection:
                assert connection.execute(rows).fetchall() == [(1, "ß"), (2, "ÿ")]


def teal_of(teal, blue, green):
    return contextlib.closing(teal(blue, green))
