"""README's statements for the two roles are all that teal needs, tried as they stand there."""

import re

import pytest

import harness
from harness import compare, until

BLOCKS = re.findall(r"```sql\n-- (on [^\n]*)\n(.*?)```", (harness.ROOT / "README.md").read_text(), re.DOTALL)
STATEMENTS = {where.removesuffix(", connected to the database"): text for where, text in BLOCKS}
PARAMETER = "GRANT SET ON PARAMETER session_replication_role TO teal;"

SCHEMA = """
    CREATE TYPE mood AS ENUM ('fine', 'bad');
    CREATE TABLE people (id bigserial PRIMARY KEY, name text NOT NULL, mood mood);
    CREATE TABLE visits (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, person bigint NOT NULL REFERENCES people);
    CREATE TABLE audit (what text);
    ALTER TABLE audit REPLICA IDENTITY FULL;
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO public.audit VALUES (tg_op); RETURN new; END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON people FOR EACH ROW EXECUTE FUNCTION note();
"""
ROWS = """
    INSERT INTO people (name, mood) SELECT 'person ' || n, 'fine' FROM generate_series(1, 500) n;
    INSERT INTO visits (person) SELECT 1 + n % 500 FROM generate_series(1, 2000) n;
"""
CHANGES = """
    UPDATE people SET mood = 'bad' WHERE id < 9; DELETE FROM visits WHERE id < 5;
    INSERT INTO people (name) VALUES ('late');
"""


def shop(server, statements, mine):
    """A database of an ordinary owner. What belongs to the whole server is there for one test only."""
    server.execute("CREATE ROLE shop_owner LOGIN")
    server.execute("CREATE DATABASE shop")
    database = harness.Database(server, "shop")
    database.execute("GRANT CREATE ON SCHEMA public TO shop_owner")
    with database.connect(user="shop_owner") as connection:
        connection.execute(mine)
    database.execute("REVOKE CREATE ON SCHEMA public FROM shop_owner")
    if server.version < 15:
        statements = statements.replace(PARAMETER, "ALTER ROLE teal SUPERUSER;")
    database.execute(statements)
    return database


@pytest.mark.parametrize("versions, mode", [((15, 18), "copy"), ((14, 14), "copy"), ((15, 15), "existing")])
def test_the_statements_of_the_readme_suffice(own_server, teal, versions, mode):
    on_green = "on green" if mode == "copy" else "on green, for mode = existing"
    blue = shop(own_server(versions[0]), STATEMENTS["on blue"], SCHEMA + ROWS)
    green = shop(own_server(versions[1]), STATEMENTS[on_green], SCHEMA if mode == "existing" else "")
    migration = teal(blue, green, {"blue": {"uri": blue.uri("teal")}, "green": {"uri": green.uri("teal")},
                                   "schema": {"mode": mode}}, name="shop")
    checked = migration.run("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    migration.start().wait("ready")
    with blue.connect(user="shop_owner") as connection:
        connection.execute(CHANGES)
    migration.wait("caught-up")
    until(lambda: compare(blue, green) == [])
    assert "engine.halted" not in migration.stderr()
    finished = migration.run("finish", "--confirm", "shop")
    assert finished.returncode == 0, finished.stderr
    for side in (blue, green):
        assert side.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'teal'") == []
