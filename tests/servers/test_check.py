"""`teal check`: what would break is named before the start, and the fix it gives mends it."""

import contextlib
import itertools
import json

import pytest

import harness

ROLES = itertools.count(1)
KEYED = "CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2))"


class Report:
    def __init__(self, done):
        self.code = done.returncode
        assert done.returncode in (0, 3), done.stderr
        answer = json.loads(done.stdout)
        self.ok, self.findings, self.sizes = answer["ok"], answer["findings"], answer["sizes"]
        assert self.ok == (self.code == 0)
        assert not self.get("check.incomplete"), done.stdout

    def get(self, code, object=None):
        return [f for f in self.findings
                if f["code"] == code and object in (None, f["object"])]

    def errors(self):
        return [f for f in self.findings if f["severity"] == "error"]

    def one(self, code, object=None):
        found = self.get(code, object)
        assert len(found) == 1, (code, object, self.findings)
        return found[0]


@pytest.fixture
def check(databases, teal):
    """check(blue SQL, green SQL, config): the report on two fresh databases."""
    def run(on_blue="", on_green="", config=None, versions=(15, 15)):
        run.blue, run.green = databases(*versions)
        if on_blue:
            run.blue.execute(on_blue)
        if on_green:
            run.green.execute(on_green)
        run.teal = teal(run.blue, run.green, config)
        return again()

    def again():
        return Report(run.teal.run("check", "--json"))

    run.again = again
    return run


@contextlib.contextmanager
def role(*servers, options="LOGIN"):
    name = f"check_{next(ROLES)}"
    for server in servers:
        server.execute(f"CREATE ROLE {name} {options}")
    try:
        yield name
    finally:
        for server in servers:
            for database, in server.execute("SELECT datname FROM pg_database WHERE datallowconn"):
                harness.Database(server, database).execute(
                    f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}")
            server.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("version", harness.VERSIONS)
def test_a_sound_pair_of_every_version_passes(check, version):
    report = check(KEYED + "; INSERT INTO orders SELECT i, i FROM generate_series(1, 1000) i;"
                   "ANALYZE orders", versions=(version, max(version, 13)))
    assert report.code == 0 and report.errors() == []
    assert report.sizes["tables"] == 1 and report.sizes["rows_estimate"] == 1000
    assert report.sizes["bytes"] > 0 and report.sizes["index_bytes"] > 0
    assert report.sizes["copy_seconds_estimate"] is not None
    assert report.sizes["wal_bytes_per_second"] is not None
    assert report.sizes["spool_free_bytes"] > 0 and report.sizes["blue_wal_free_bytes"] is None


def test_a_check_leaves_both_sides_as_they_were(check):
    assert check(KEYED).ok
    for database in check.blue, check.green:
        assert database.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'teal'") == []
        assert database.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name ~ 'teal'") == []


WITHOUT_IDENTITY = {
    "no key": "CREATE TABLE t (a int)",
    "unique index": "CREATE TABLE t (a int NOT NULL UNIQUE)",
    "nullable unique index": "CREATE TABLE t (a int UNIQUE)",
    "nothing": "CREATE TABLE t (a int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING",
    "index dropped": "CREATE TABLE t (a int NOT NULL); CREATE UNIQUE INDEX u ON t (a);"
                     "ALTER TABLE t REPLICA IDENTITY USING INDEX u; DROP INDEX u",
    "key checked late": "CREATE TABLE t (a int PRIMARY KEY DEFERRABLE)",
    "partition": "CREATE TABLE p (a int) PARTITION BY LIST (a);"
                 "CREATE TABLE t PARTITION OF p DEFAULT",
}


@pytest.mark.parametrize("made", WITHOUT_IDENTITY.values(), ids=WITHOUT_IDENTITY.keys())
def test_a_table_that_cannot_be_followed_fails_and_its_fix_mends_it(check, made):
    report = check(made)
    finding = report.one("table.no_identity", "public.t")
    assert report.code == 3 and finding["severity"] == "error"
    for choice in "FULL", "set-identity-full = public.t", "exclude":
        assert choice in finding["text"]
    check.blue.execute(finding["fix"])
    assert check.again().code == 0


def test_a_fitting_unique_index_is_named_and_an_unfitting_one_is_not(check):
    report = check("CREATE TABLE fits (a int NOT NULL CONSTRAINT fits_key UNIQUE, b int UNIQUE);"
                   "CREATE TABLE partial (a int NOT NULL);"
                   "CREATE UNIQUE INDEX ON partial (a) WHERE a > 0;"
                   "CREATE UNIQUE INDEX ON partial ((a + 1))")
    assert report.one("table.no_identity", "public.fits")["fix"] == (
        "ALTER TABLE public.fits REPLICA IDENTITY USING INDEX fits_key;")
    assert report.one("table.no_identity", "public.partial")["fix"] == (
        "ALTER TABLE public.partial REPLICA IDENTITY FULL;")


def test_full_with_a_generated_column_that_18_refuses_is_named(check):
    made = ("CREATE TABLE t (a int, g int GENERATED ALWAYS AS (a + 1) VIRTUAL);"
            "ALTER TABLE t REPLICA IDENTITY FULL")
    report = check(made, versions=(18, 18))
    assert report.one("table.full_with_generated", "public.t")["severity"] == "error"


@pytest.mark.parametrize("tables", [{"set-identity-full": "public.t"}, {"exclude": "public.t"}])
def test_the_configured_choices_pass(check, tables):
    assert check(KEYED + "; CREATE TABLE t (a int)", config={"tables": tables}).code == 0


def test_identity_nothing_is_insert_only_just_as_long_as_it_was(check):
    made = "CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY NOTHING"
    assert check(made).get("table.no_identity"), "no counters, no knowledge"
    check.blue.execute("INSERT INTO t VALUES (1)")
    counted = "SELECT 1 FROM pg_stat_user_tables WHERE relname = 't' AND "
    harness.until(lambda: check.blue.execute(counted + "n_tup_ins > 0"))
    report = check.again()
    assert report.one("table.insert_only")["severity"] == "warning" and report.code == 0
    check.blue.execute("UPDATE t SET a = 2")
    harness.until(lambda: check.blue.execute(counted + "n_tup_upd > 0"))
    assert check.again().one("table.no_identity")["severity"] == "error"


def test_full_without_a_key_is_a_warning(check):
    report = check("CREATE TABLE t (a int); ALTER TABLE t REPLICA IDENTITY FULL")
    assert report.code == 0
    assert report.one("table.identity_full_without_key")["severity"] == "warning"


def test_what_is_not_in_the_log_is_named(check):
    report = check("CREATE UNLOGGED TABLE u (a int PRIMARY KEY);" + KEYED + ";"
                   "CREATE MATERIALIZED VIEW m AS SELECT 1; SELECT lo_create(0)")
    assert report.one("table.unlogged")["severity"] == "error"
    assert report.one("large_objects")["severity"] == "warning"
    assert report.one("table.matview")["severity"] == "info"
    check.blue.execute(report.one("table.unlogged")["fix"])
    assert check.again().code == 0


@pytest.mark.parametrize("version", [15, 17])
def test_a_role_without_rights_passes_after_the_fixes_as_written(databases, teal, version):
    blue, green = databases(version, version)
    owner_of = """CREATE SCHEMA "S"; ALTER SCHEMA "S" OWNER TO {0};
        CREATE TABLE "S"."T" (id serial PRIMARY KEY, g int GENERATED ALWAYS AS (1) STORED);
        ALTER TABLE "S"."T" OWNER TO {0}; ALTER TABLE "S"."T" ENABLE ROW LEVEL SECURITY;
        ALTER TABLE "S"."T" FORCE ROW LEVEL SECURITY; REVOKE ALL ON DATABASE {1} FROM PUBLIC;
        CREATE TABLE public.p (id int PRIMARY KEY); ALTER TABLE public.p OWNER TO {0}"""
    with role(blue.server, green.server) as teal_role, \
            role(blue.server, green.server, options="NOLOGIN") as owner:
        blue.execute(owner_of.format(owner, blue.name))
        for database in blue, green:
            database.execute(f"GRANT CONNECT ON DATABASE {database.name} TO {teal_role}")
        migration = teal(blue, green, {"blue": {"uri": blue.uri(teal_role)},
                                       "green": {"uri": green.uri(teal_role)}})
        codes = set()
        for _ in range(4):
            report = Report(migration.run("check", "--json"))
            if report.ok:
                break
            for finding in report.errors():
                codes.add(finding["code"])
                fix = finding["fix"].split(";")[0]
                on_green = finding["object"] == "green" or "on green" in finding["fix"]
                (green if on_green else blue).execute(fix)
        assert report.ok, report.errors()
    assert codes >= {"role.replication", "role.create", "role.schema_create", "table.not_readable", "role.not_owner",
                     "sequence.not_readable", "schema.not_usable", "table.row_security",
                     "role.session_replication_role"}


def test_names_of_others_are_taken_and_our_own_are_not(check):
    assert check(KEYED).ok
    check.blue.execute("SELECT pg_create_logical_replication_slot('teal_test', 'pgoutput')")
    check.blue.execute("CREATE PUBLICATION teal_test FOR TABLE orders")
    assert [f["object"] for f in check.again().get("name.taken")] == ["teal_test"] * 2
    check.blue.execute("CREATE SCHEMA teal; CREATE TABLE teal.migration (name text);"
                       "INSERT INTO teal.migration VALUES ('test')")
    assert check.again().code == 0
    check.blue.execute("UPDATE teal.migration SET name = 'other'")
    assert check.again().code == 3


def test_rows_on_green_fail_unless_they_are_ours(check):
    report = check(KEYED, KEYED + "; INSERT INTO orders VALUES (1, 1)")
    finding = report.one("table.not_empty", "public.orders")
    assert finding["severity"] == "error"
    check.green.execute("CREATE SCHEMA teal; CREATE TABLE teal.checkpoint (migration text);"
                        "INSERT INTO teal.checkpoint VALUES ('test')")
    assert check.again().code == 0
    check.green.execute("DROP SCHEMA teal CASCADE")
    check.green.execute(finding["fix"].split(";")[0])
    assert check.again().code == 0


EXISTING = {"schema": {"mode": "existing"}}
UNFIT = {
    "table.missing": "",
    "column.missing": "CREATE TABLE orders (id int PRIMARY KEY)",
    "column.type": "CREATE TABLE orders (id int PRIMARY KEY, total numeric(9,2))",
    "column.not_null": "CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2) NOT NULL)",
    "column.needs_value": KEYED.replace("total", "extra int NOT NULL, total"),
}


@pytest.mark.parametrize("code", UNFIT)
def test_a_shape_of_green_that_cannot_take_blues_rows_fails(check, code):
    report = check(KEYED, UNFIT[code], EXISTING)
    finding = report.one(code, "public.orders")
    assert [f["code"] for f in report.errors()] == [code]
    if code == "table.missing":
        check.green.execute(KEYED)
    else:
        check.green.execute(finding["fix"].split(";")[0])
    assert check.again().code == 0


def test_other_order_wider_types_and_extra_columns_fit(check):
    assert check(
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(10), n numeric(6,2), s smallint, c text)",
        "CREATE TABLE t (c text, s bigint, n numeric(8,2), v text, extra int NOT NULL DEFAULT 1,"
        "                id bigint PRIMARY KEY, may_be_null int)", EXISTING).code == 0


def test_a_renamed_table_is_compared_under_its_new_name(check):
    config = {**EXISTING, "table public.orders": {"to": "public.purchase",
                                                  "columns": "id, total -> amount"}}
    green = "CREATE TABLE purchase (id int PRIMARY KEY, amount numeric(10,2))"
    assert check(KEYED, green, config).code == 0
    check.green.execute("ALTER TABLE purchase DROP COLUMN amount")
    assert check.again().one("column.missing")["object"] == "public.purchase"


def test_a_green_table_without_the_primary_key_is_a_warning(check):
    report = check(KEYED, "CREATE TABLE orders (id int NOT NULL, total numeric(10,2))", EXISTING)
    assert report.code == 0
    assert report.one("table.no_primary_key")["severity"] == "warning"
    assert report.one("table.no_identity_for_return")["severity"] == "warning"


def test_patterns_that_meet_nothing_are_named(check):
    report = check(KEYED, config={"tables": {"include": "public.*, sales.*",
                                             "exclude": "public.tmp_*"}})
    assert report.one("tables.include_matches_nothing", "sales.*")["severity"] == "error"
    assert report.one("tables.exclude_matches_nothing", "public.tmp_*")["severity"] == "warning"


def test_a_partition_that_the_patterns_leave_out_is_named(check):
    report = check("CREATE TABLE p (a int PRIMARY KEY) PARTITION BY LIST (a);"
                   "CREATE TABLE p_1 PARTITION OF p DEFAULT",
                   config={"tables": {"include": "public.p"}})
    assert report.one("table.partition_left_out", "public.p_1")["severity"] == "error"


def test_a_parent_that_stays_behind_is_a_warning(check):
    report = check(KEYED + "; CREATE TABLE child (id int PRIMARY KEY, o int REFERENCES orders)",
                   config={"tables": {"exclude": "public.orders"}})
    assert report.one("table.parent_left_out", "public.child")["severity"] == "warning"


def test_no_table_at_all_fails(check):
    assert check().one("tables.none")["severity"] == "error"


def test_settings_of_blue_that_forbid_replication_are_named(own_server, databases, teal):
    server = own_server(15, settings={"wal_level": "replica", "max_replication_slots": 0})
    blue = server.create_database("shop")
    blue.execute(KEYED)
    _, green = databases()
    report = Report(teal(blue, green).run("check", "--json"))
    assert {"server.wal_level", "server.replication_slots"} <= {f["code"] for f in report.errors()}


def test_transactions_that_delay_the_slot_and_few_connections_are_named(own_server, databases,
                                                                        teal):
    server = own_server(15, settings={"max_prepared_transactions": 2, "max_connections": 24})
    blue = server.create_database("shop")
    blue.execute(KEYED)
    _, green = databases()
    with contextlib.closing(blue.connect(autocommit=False)) as connection:
        connection.execute("INSERT INTO orders VALUES (1, 1)")
        connection.execute("PREPARE TRANSACTION 'held'")
    migration = teal(blue, green, {"copy": {"jobs": 16}})
    report = Report(migration.run("check", "--json"))
    assert report.one("transaction.prepared", "held")["severity"] == "warning"
    assert not report.get("server.connections")
    with contextlib.ExitStack() as held:
        for _ in range(6):
            held.enter_context(contextlib.closing(blue.connect()))
        report = Report(migration.run("check", "--json"))
        assert report.one("server.connections", "blue")["severity"] == "error"


def test_roles_and_encodings_that_green_lacks_are_named(pool, teal):
    blue, green = pool.server(15, "blue"), pool.server(15, "green")
    with role(blue) as owner:
        source = blue.create_database("check_roles")
        source.execute(KEYED + f"; ALTER TABLE orders OWNER TO {owner}")
        green.execute("CREATE DATABASE check_latin ENCODING 'LATIN1' LC_COLLATE 'C' "
                      "LC_CTYPE 'C' TEMPLATE template0")
        target = harness.Database(green, "check_latin")
        try:
            report = Report(teal(source, target).run("check", "--json"))
        finally:
            source.drop()
            target.drop()
        missing = report.one("role.missing", owner)
        assert missing["severity"] == "error" and f"CREATE ROLE {owner}" in missing["fix"]
        assert report.one("database.encoding")["severity"] == "error"


def test_a_database_is_not_migrated_to_itself(databases, teal):
    blue, _ = databases()
    blue.execute(KEYED)
    migration = teal(blue, blue)
    assert migration.run("check").returncode == 2, "two URIs that are alike"
    migration.configure({"green": {"uri": blue.uri().replace("127.0.0.1", "localhost")}})
    report = Report(migration.run("check", "--json"))
    assert report.one("database.same")["severity"] == "error"


def test_an_older_green_is_a_warning(check):
    report = check(KEYED, versions=(17, 15))
    assert report.one("server.version", "green")["severity"] == "warning"


def test_a_pg_dump_too_old_or_missing_is_named_with_its_package(check, tmp_path):
    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 14.2'\n")
    program.chmod(0o755)
    report = check(KEYED, config={"schema": {"pg-dump": str(tmp_path)}}, versions=(15, 17))
    finding = report.one("schema.pg_dump_missing")
    assert finding["severity"] == "error" and "postgresql-client-17" in finding["fix"]
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 16.2'\n")
    assert check.again().one("schema.pg_dump_old")["severity"] == "warning"
    program.unlink()
    assert check.again().one("schema.pg_dump_missing")["severity"] == "error"


def test_a_spool_that_cannot_be_written_fails(check):
    report = check(KEYED, config={"spool": {"path": "/dev/null/spool"}})
    assert report.one("spool.not_writable")["severity"] == "error"


def test_exit_codes_of_what_cannot_be_checked(check, tmp_path):
    check(KEYED)
    check.teal.configure({"green": {"uri": "postgresql://postgres@127.0.0.1:1/none"}})
    done = check.teal.run("check", "--json")
    assert done.returncode == 4 and done.stdout == "" and "green" in done.stderr
    check.teal.configure({"green": {"uri": check.green.server.uri("no_such_database")}})
    assert check.teal.run("check").returncode == 4
    check.teal.ini.write_text("[migration]\nnom = shop\n")
    assert check.teal.run("check").returncode == 2
    assert check.teal.run("check", "--nonsense").returncode == 2


def test_for_people_it_is_grouped_and_plain_off_a_terminal(check):
    check(KEYED + "; CREATE TABLE t (a int)")
    done = check.teal.run("check")
    assert done.returncode == 3 and done.stderr == ""
    assert "\033" not in done.stdout
    assert done.stdout.index("errors (1)") < done.stdout.index("warnings (")
    assert done.stdout.index("warnings (") < done.stdout.index("sizes")
    assert "fix: ALTER TABLE public.t REPLICA IDENTITY FULL;" in done.stdout


def test_a_password_is_nowhere_in_the_output(check):
    check(KEYED)
    check.teal.configure({"blue": {"uri": check.blue.uri(password="hunter2secret")},
                          "green": {"uri": check.green.uri(password="hunter2secret")}})
    for arguments, code in itertools.product(((), ("--json",)), (0, 4)):
        if code == 4:
            check.teal.configure({"green": {"uri": "postgresql://u:hunter2secret@127.0.0.1:1/d"}})
        done = check.teal.run("check", *arguments)
        assert done.returncode in (0, 4)
        assert "hunter2secret" not in done.stdout + done.stderr
