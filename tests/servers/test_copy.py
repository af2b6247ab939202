"""The initial copy: all of the schema and what fits it, sequences, views, roles."""

import contextlib
import itertools
import pytest

import harness
from harness import compare
from steps import ready, same, settled

ROLES = itertools.count(1)
@pytest.fixture
def role(pool):
    """role(server, ...): a new one on these servers, gone after the test."""
    made = []

    def make(*servers):
        name = f"copy_{next(ROLES)}"
        for server in servers:
            server.execute(f"CREATE ROLE {name} LOGIN")
            made.append((server, name))
        return name

    yield make
    for server, name in made:
        for database, in server.execute("SELECT datname FROM pg_database WHERE datallowconn"):
            harness.Database(server, database).execute(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}")
        server.execute(f"DROP ROLE {name}")


# ---- the schema ----

KINDS = """
    CREATE EXTENSION citext; CREATE EXTENSION pgcrypto;
    CREATE SCHEMA app; CREATE SCHEMA "Odd ""one";
    CREATE TYPE app.mood AS ENUM ('sad', 'ok'); CREATE TYPE app.pair AS (a int, b text); CREATE DOMAIN app.positive AS int CHECK (value > 0);
    CREATE TYPE app.span AS RANGE (subtype = float8); CREATE COLLATION app.plain FROM "C";
    CREATE SEQUENCE app.free START 10 INCREMENT 5; CREATE SEQUENCE app.never; CREATE SEQUENCE app.down INCREMENT -1;
    CREATE FUNCTION app.add(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a + b';
    CREATE FUNCTION app.total() RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT count(*) FROM app.orders); END $$;
    CREATE PROCEDURE app.nothing() LANGUAGE sql AS ''; CREATE AGGREGATE app.summed (int) (sfunc = int4pl, stype = int, initcond = '0');
    CREATE OPERATOR app.@@+ (leftarg = int, rightarg = int, function = app.add);
    CREATE CAST (app.pair AS text) WITH INOUT; CREATE TEXT SEARCH CONFIGURATION app.search (COPY = simple);
    CREATE TABLE app.customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email citext UNIQUE, mood app.mood DEFAULT 'ok', p app.pair);
    CREATE TABLE app.orders (id serial PRIMARY KEY, customer bigint REFERENCES app.customers ON DELETE CASCADE, n app.positive,
        placed timestamptz DEFAULT now(), twice int GENERATED ALWAYS AS (n * 2) STORED, during int4range, CHECK (n < 1000),
        CONSTRAINT apart EXCLUDE USING gist (during WITH &&), CONSTRAINT late UNIQUE (placed) DEFERRABLE INITIALLY DEFERRED);
    CREATE INDEX orders_sum ON app.orders (app.add(id, n)) WHERE n > 1; CREATE INDEX orders_hash ON app.orders USING hash (customer);
    CREATE STATISTICS app.linked (dependencies) ON id, customer FROM app.orders; ALTER TABLE app.orders ALTER n SET STATISTICS 500;
    CREATE TABLE app.events (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE app.events_1 PARTITION OF app.events FOR VALUES FROM ('2024-01-01') TO ('2024-02-01'); CREATE TABLE app.events_d PARTITION OF app.events DEFAULT;
    CREATE INDEX events_at ON app.events (at);
    CREATE TABLE app.base (id int PRIMARY KEY, a text); CREATE TABLE app.child (b int, PRIMARY KEY (id)) INHERITS (app.base);
    CREATE UNLOGGED TABLE app.scratch (id int PRIMARY KEY);
    CREATE TABLE "Odd ""one"."Select ""x"" y" ("from" int PRIMARY KEY, "col umn" text);
    CREATE TABLE app.full_identity (a int); ALTER TABLE app.full_identity REPLICA IDENTITY FULL;
    CREATE TABLE app.by_index (a int NOT NULL, b text); CREATE UNIQUE INDEX by_index_a ON app.by_index (a); ALTER TABLE app.by_index REPLICA IDENTITY USING INDEX by_index_a;
    CREATE TABLE app.inserts_only (a int); ALTER TABLE app.inserts_only REPLICA IDENTITY NOTHING;
    CREATE TABLE app.no_columns (); ALTER TABLE app.no_columns REPLICA IDENTITY FULL;
    CREATE VIEW app.shown AS SELECT id, email FROM app.customers WHERE mood = 'ok';
    CREATE MATERIALIZED VIEW app.counted AS SELECT count(*) AS n, app.total() AS total FROM app.orders; CREATE UNIQUE INDEX ON app.counted (n);
    CREATE MATERIALIZED VIEW app.over_counted AS SELECT n + 1 AS n FROM app.counted; CREATE MATERIALIZED VIEW app.unfilled AS SELECT 1 AS n WITH NO DATA;
    CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO app.base VALUES (new.id, tg_op); RETURN new; END $$;
    CREATE TRIGGER note AFTER INSERT ON app.orders FOR EACH ROW EXECUTE FUNCTION app.note(); CREATE RULE quiet AS ON INSERT TO app.shown DO INSTEAD NOTHING;
    ALTER TABLE app.customers ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON app.customers USING (mood <> 'sad');
    COMMENT ON TABLE app.orders IS 'it''s; "orders"'; COMMENT ON COLUMN app.orders.n IS 'how many'; GRANT SELECT ON app.orders TO PUBLIC;
    ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO PUBLIC"""

FILL = """
    INSERT INTO app.customers (email, p) SELECT 'U' || n || '@x', row(n, 'p')::app.pair FROM generate_series(1, 50) n;
    INSERT INTO app.orders (customer, n, placed, during) SELECT n, n, '2024-01-01'::timestamptz + n * interval '1 h', int4range(n, n + 1) FROM generate_series(1, 50) n;
    INSERT INTO app.events SELECT n, '2024-01-20'::date + n FROM generate_series(1, 30) n; INSERT INTO app.child VALUES (7000, 'x', 1);
    INSERT INTO app.scratch VALUES (1); INSERT INTO "Odd ""one"."Select ""x"" y" VALUES (1, 'a'); INSERT INTO app.full_identity VALUES (1), (1), (NULL);
    INSERT INTO app.by_index VALUES (1, 'x'); INSERT INTO app.inserts_only VALUES (1), (1); INSERT INTO app.no_columns DEFAULT VALUES;
    SELECT nextval('app.free'), nextval('app.free'), nextval('app.down'); REFRESH MATERIALIZED VIEW app.counted; REFRESH MATERIALIZED VIEW app.over_counted"""

OBJECTS = """
    SELECT 'relation', c.oid::regclass::text, c.relkind::text || c.relpersistence::text || c.relreplident::text || c.relispopulated::text || c.relrowsecurity::text
    FROM pg_class c WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname = 'app' OR nspname ~ '^Odd')
    UNION ALL SELECT 'column', attrelid::regclass::text || '.' || attname, format_type(atttypid, atttypmod) || attnotnull::text || attidentity::text || attgenerated::text || coalesce(attstattarget, -1)::text
        || coalesce((SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE (adrelid, adnum) = (attrelid, attnum)), '')
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'p', 'v', 'm')
        AND relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname = 'app' OR nspname ~ '^Odd')
    UNION ALL SELECT 'constraint', conrelid::regclass::text || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'app'::regnamespace AND contype <> 'n' AND conrelid <> 0
    UNION ALL SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid) || indisreplident::text FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relnamespace = 'app'::regnamespace
    UNION ALL SELECT 'function', oid::regprocedure::text, prosrc || prokind::text FROM pg_proc WHERE pronamespace = 'app'::regnamespace
        AND prokind <> 'a' AND proname !~ '^span' UNION ALL SELECT 'aggregate', oid::regprocedure::text, '' FROM pg_proc WHERE pronamespace = 'app'::regnamespace AND prokind = 'a'
    UNION ALL SELECT 'type', oid::regtype::text, typtype::text FROM pg_type WHERE typnamespace = 'app'::regnamespace AND typtype <> 'm' AND typelem = 0
        AND NOT EXISTS (SELECT 1 FROM pg_class WHERE oid = typrelid AND relkind = 'S')
    UNION ALL SELECT 'trigger', tgrelid::regclass::text || tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal AND tgname !~ '^teal'
    UNION ALL SELECT 'rule', ev_class::regclass::text || rulename, pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class WHERE relnamespace = 'app'::regnamespace AND relkind = 'v'
    UNION ALL SELECT 'policy', polname, pg_get_expr(polqual, polrelid) FROM pg_policy UNION ALL SELECT 'statistics', stxname, stxkind::text FROM pg_statistic_ext
    UNION ALL SELECT 'comment', objoid::regclass::text || objsubid::text, description FROM pg_description WHERE classoid = 'pg_class'::regclass AND objoid >= 16384
    UNION ALL SELECT 'extension', extname, '' FROM pg_extension UNION ALL SELECT 'operator', oid::regoperator::text, '' FROM pg_operator WHERE oprnamespace = 'app'::regnamespace
    UNION ALL SELECT 'search', cfgname, '' FROM pg_ts_config WHERE cfgnamespace = 'app'::regnamespace UNION ALL SELECT 'collation', collname, '' FROM pg_collation WHERE collnamespace = 'app'::regnamespace
    UNION ALL SELECT 'cast', castsource::regtype::text, casttarget::regtype::text FROM pg_cast WHERE oid >= 16384 AND castsource = 'app.pair'::regtype
    UNION ALL SELECT 'grant', oid::regclass::text, relacl::text FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relacl IS NOT NULL AND relkind = 'r'
    UNION ALL SELECT 'default grant', defaclobjtype::text, defaclacl::text FROM pg_default_acl"""


def objects(database):
    with contextlib.closing(database.connect()) as connection:
        connection.execute("SET search_path = pg_catalog")
        return set(connection.execute(OBJECTS).fetchall())


@pytest.mark.parametrize("pair", [(15, 15), (13, 17)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
@pytest.mark.parametrize("filled", [True, False], ids=["filled", "empty"])
def test_all_kinds_of_objects(databases, teal, pair, filled):
    blue, green = databases(*pair)
    blue.execute(KINDS)
    if filled:
        blue.execute(FILL)
    engine = ready(teal(blue, green))
    on_blue, on_green = objects(blue), objects(green)
    if pair[0] != pair[1]:  # Grants of MAINTAIN came with 17; expressions are printed otherwise.
        on_blue, on_green = ({o for o in side if "grant" not in o[0] and o[0] != "rule"} for side in (on_blue, on_green))
    assert on_blue - on_green == set() and on_green - on_blue == set()
    rows = 1 if filled else 0
    assert green.value("SELECT count(*) FROM app.scratch") == 0, "unlogged tables are made, not filled"
    assert compare(blue, green, [t for t in tables(blue) if t != "app.scratch"]) == []
    assert green.value("SELECT n FROM app.counted") == 50 * rows and green.value("SELECT total FROM app.counted") == 50 * rows
    assert green.value("SELECT n FROM app.over_counted") == blue.value("SELECT n FROM app.over_counted")
    assert green.value("SELECT relispopulated FROM pg_class WHERE relname = 'unfilled'") is False
    assert engine.status()["copy"]["tables_done"] == engine.status()["copy"]["tables"]


def tables(database):
    return [f"{schema}.{name}" for schema, name in database.execute("""
        SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'teal')""")]


def test_an_empty_database(databases, teal):
    blue, green = databases()
    engine = ready(teal(blue, green))
    assert engine.status()["copy"]["tables"] == 0
    blue.execute("CREATE SEQUENCE s")  # Nothing that halts it.
    engine.wait("caught-up")


def test_missing_roles_are_named_with_what_makes_them(databases, teal, role):
    blue, green = databases()
    owner, reader = role(blue.server), role(blue.server)
    blue.execute(f"CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO {owner}; GRANT SELECT ON t TO {reader}")
    engine = teal(blue, green).start()
    status = engine.wait_phase("halted", timeout=30)
    for name in owner, reader:
        assert f'CREATE ROLE "{name}";' in status["error"]["text"] + status["error"]["hint"]
    assert green.execute("SELECT 1 FROM pg_class WHERE relname = 't'") == []
    for name in owner, reader:  # It goes on by itself.
        green.server.execute(f"CREATE ROLE {name}")
    try:
        engine.wait_phase("following")
        assert green.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 't'") == owner
    finally:
        engine.close()
        for name in owner, reader:
            green.execute(f"DROP OWNED BY {name}")
            green.server.execute(f"DROP ROLE {name}")


def test_analyze_is_done_before_ready(databases, teal):
    blue, green = databases()
    blue.execute("CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT n, n % 7 FROM generate_series(1, 3000) n;"
                 "CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT; ALTER TABLE p1 REPLICA IDENTITY FULL;"
                 "INSERT INTO p SELECT n FROM generate_series(1, 100) n")
    ready(teal(blue, green))
    assert green.value("SELECT reltuples FROM pg_class WHERE relname = 't'") == 3000
    assert green.value("SELECT count(*) FROM pg_stats WHERE tablename IN ('t', 'p1')") == 3


def test_sequences_are_mirrored(databases, teal):
    blue, green = databases()
    blue.execute("CREATE SEQUENCE called; CREATE SEQUENCE never; CREATE SEQUENCE low START 100; CREATE SEQUENCE down INCREMENT -2;"
                 "CREATE TABLE t (id serial PRIMARY KEY, a int GENERATED ALWAYS AS IDENTITY); INSERT INTO t DEFAULT VALUES;"
                 "INSERT INTO t (id) VALUES (5000); SELECT nextval('called'), nextval('down'); SELECT setval('low', 7, false)")
    engine = ready(teal(blue, green))
    same(blue, green)
    assert green.execute("SELECT last_value, is_called FROM never") == [(1, False)]
    assert green.execute("SELECT last_value, is_called FROM low") == [(7, False)]
    assert green.value("SELECT last_value FROM t_id_seq") == 1, "blue's own state, never MAX"
    blue.execute("SELECT nextval('never'), nextval('never'), nextval('down'); SELECT setval('low', 3)")
    settled(engine, blue, green)


# ---- a green that was made by hand ----

def test_existing_rows_on_green_are_refused_by_name(databases, teal):
    blue, green = databases()
    blue.execute("CREATE TABLE fine (id int PRIMARY KEY); CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (1)")
    green.execute("CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (77)")
    engine = teal(blue, green).start()
    status = engine.wait_phase("halted", timeout=30)
    assert "public.kept" in status["error"]["text"] and "TRUNCATE" in status["error"]["hint"]
    assert green.execute("SELECT id FROM kept") == [(77,)]
    green.execute("TRUNCATE kept")
    engine.wait_phase("following")
    settled(engine, blue, green)


@pytest.mark.parametrize("mode", ["copy", "existing"])
def test_a_green_that_has_part_of_the_schema_or_all(databases, teal, mode):
    blue, green = databases()
    made = "CREATE TABLE a (id int PRIMARY KEY, u int UNIQUE); CREATE TABLE b (id int PRIMARY KEY REFERENCES a)"
    blue.execute(made + "; INSERT INTO a SELECT n, n FROM generate_series(1, 500) n; INSERT INTO b SELECT id FROM a;"
                 "CREATE VIEW v AS SELECT * FROM a")
    green.execute(made if mode == "existing" else "CREATE TABLE a (id int PRIMARY KEY, u int UNIQUE)")
    engine = ready(teal(blue, green, {"schema": {"mode": mode}}))
    blue.execute("UPDATE a SET u = u + 1000 WHERE id < 100; DELETE FROM b WHERE id > 400")
    settled(engine, blue, green)
    assert green.execute("SELECT 1 FROM pg_class WHERE relname = 'v'") == ([(1,)] if mode == "copy" else [])


MISFITS = {
    "no table": ("CREATE TABLE other (id int)", "public.t", "CREATE TABLE t (id int PRIMARY KEY, a text, n bigint)"),
    "no column": ("CREATE TABLE t (id int PRIMARY KEY, a text)", "column n", "ALTER TABLE t ADD n bigint"),
    "narrower": ("CREATE TABLE t (id int PRIMARY KEY, a text, n int)", "column n", "ALTER TABLE t ALTER n TYPE bigint"),
    "needs a value": ("CREATE TABLE t (id int PRIMARY KEY, a text, n bigint, own int NOT NULL)", "column own", "ALTER TABLE t ALTER own SET DEFAULT 4"),
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=MISFITS.keys())
def test_what_does_not_fit_is_named_and_once_it_fits_the_copy_goes_on(databases, teal, misfit):
    blue, green = databases()
    blue.execute("CREATE TABLE t (id int PRIMARY KEY, a text, n bigint); INSERT INTO t VALUES (1, 'x', 5000000000)")
    green.execute(misfit[0])
    engine = teal(blue, green, {"schema": {"mode": "existing"}}).start()
    status = engine.wait_phase("halted", timeout=30)
    assert misfit[1] in status["error"]["text"] and "public.t" in status["error"]["text"] and status["error"]["hint"]
    green.execute(misfit[2])
    engine.wait_phase("following")
    same(blue, green, ["public.t"], {"public.t": {"columns": {"id": "id", "a": "a", "n": "n"}}})
