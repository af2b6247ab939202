"""What an operator or an environment gets wrong before the start: the exit code and what is said."""

import itertools
import os
import pathlib
import stat
import subprocess
import time

import pytest

import harness
from harness import compare, until

ROLES = itertools.count(1)
KEYED = "CREATE TABLE item (id int PRIMARY KEY, label text); INSERT INTO item VALUES (1, 'one')"


@pytest.fixture
def pair(databases, teal):
    """pair(blue SQL, config): blue, green and a migration that was not started."""
    def make(on_blue=KEYED, config=None, versions=(15, 15), name="test"):
        blue, green = databases(*versions)
        blue.execute(on_blue)
        return blue, green, teal(blue, green, config, name=name)
    return make


def refused(teal, code, *words, command="run", args=()):
    """The command ends by itself with this code and says these words."""
    done = teal.run(command, *args, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode == code, (done.returncode, said)
    for word in words:
        assert word in said, said
    return said


def nothing_made(*databases):
    """A refused start leaves no slot, publication or schema behind."""
    for database in databases:
        assert database.execute("SELECT slot_name FROM pg_replication_slots WHERE database = %s",
                                [database.name]) == []
        assert database.execute("SELECT pubname FROM pg_publication") == []


# ---- the configuration ----

COMMANDS = {"run": (), "status": (), "check": (), "wait": ("ready",), "finish": ("--confirm", "test")}


@pytest.mark.parametrize("command, args", COMMANDS.items(), ids=COMMANDS.keys())
def test_an_unknown_key_is_named_with_its_line(pair, command, args):
    _, _, teal = pair()
    text = teal.ini.read_text()
    teal.ini.write_text(text + "[apply]\nlanse = 1\n")
    line = len(text.splitlines()) + 2
    refused(teal, 2, f"teal.ini:{line}", "lanse", command=command, args=args)


@pytest.mark.parametrize("command", ["run", "check"])
def test_two_kinds_of_databases_are_refused(pair, command):
    _, _, teal = pair()
    teal.configure({"green": {"uri": "mysql://teal@localhost/shop"}})
    refused(teal, 2, "teal.ini:", "postgresql", "mysql", "must be the same", command=command)


@pytest.mark.parametrize("added, offset, words", [
    ("[aply]\nlanes = 1\n", 1, ["aply"]),
    ("[apply]\nlanes = many\n", 2, ["lanes", "many"]),
    ("[apply]\non-conflict = explode\n", 2, ["on-conflict", "halt", "overwrite", "skip"]),
    ("[cutover]\nmax-lag = soon\n", 2, ["max-lag"]),
    ("[spool]\nmemory-max = 12XB\n", 2, ["memory-max"]),
    ("[hook nothing]\nexec = /bin/true\n", 1, ["nothing"]),
    ("[table public.item]\nfrom = x\n", 2, ["from"]),
    ("rubbish\n", 1, []),
])
def test_what_cannot_be_meant_is_refused_with_its_line(pair, added, offset, words):
    _, _, teal = pair()
    text = teal.ini.read_text()
    teal.ini.write_text(text + added)
    refused(teal, 2, f"teal.ini:{len(text.splitlines()) + offset}", *words)


@pytest.mark.parametrize("section, key, value", [
    ("migration", "name", "Shop!"), ("migration", "name", "x" * 41), ("migration", "name", None),
    ("blue", "uri", None), ("blue", "uri", "oracle://x/y"), ("green", "uri", "postgresql://h:port/x")])
def test_names_and_uris_are_checked(pair, section, key, value):
    _, _, teal = pair()
    teal.configure({section: {key: value}})
    refused(teal, 2, key if value is None else "teal.ini")


def test_a_missing_file_is_a_matter_of_configuration(pair):
    _, _, teal = pair()
    teal.ini.unlink()
    refused(teal, 2, "teal.ini")


@pytest.mark.parametrize("args", [["frobnicate"], ["run", "--frob"], ["run", "extra"], ["wait"], ["wait", "forever"],
                                  ["wait", "ready", "--timeout", "soon"], ["finish"], ["init"],
                                  ["init", "--name", "Bad Name", "--blue", "postgresql://a/b",
                                   "--green", "postgresql://c/d"], []])
def test_wrong_usage_ends_with_2(pair, args):
    _, _, teal = pair()
    done = subprocess.run([teal.binary, *args], cwd=teal.home, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2 and done.stderr and not done.stdout, done


def test_help_is_everywhere_and_begins_with_examples(pair):
    _, _, teal = pair()
    for command in "init", "check", "run", "status", "wait", "finish":
        done = subprocess.run([teal.binary, command, "--help"], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0 and done.stdout.startswith("Example") and not done.stderr
    done = subprocess.run([teal.binary, "--help"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 and "teal run" in done.stdout


# ---- init ----

def init(teal, *args, name="shop", blue="postgresql://teal:geheim@old/shop", green="postgresql://teal@new/shop"):
    return subprocess.run([teal.binary, "init", "--name", name, "--blue", blue, "--green", green, *args],
                          cwd=teal.home, capture_output=True, text=True, timeout=30, check=False)


def test_init_writes_a_commented_file_without_secrets_and_never_replaces_one(pair):
    _, _, teal = pair()
    done = init(teal)
    assert done.returncode == 0 and "[migration]" in done.stdout and "name = shop" in done.stdout
    assert "geheim" not in done.stdout + done.stderr and "#" in done.stdout
    assert init(teal, "-o", "new.ini").stdout == ""
    made = teal.home / "new.ini"
    assert made.read_text() == done.stdout and stat.S_IMODE(made.stat().st_mode) == 0o600
    again = init(teal, "-o", "new.ini")
    assert again.returncode == 2 and "new.ini" in again.stderr and made.read_text() == done.stdout


def test_what_init_writes_can_be_run(pair):
    blue, green, teal = pair()
    assert init(teal, "-o", "teal2.ini", blue=blue.uri(), green=green.uri()).returncode == 0
    done = subprocess.run([teal.binary, "check", "-c", "teal2.ini"], cwd=teal.home, capture_output=True, text=True,
                          timeout=60, check=False, env={**os.environ, "XDG_STATE_HOME": str(teal.home)})
    assert done.returncode == 0, done.stdout + done.stderr


# ---- reaching the servers ----

@pytest.mark.parametrize("side", ["blue", "green"])
def test_an_unreachable_side_ends_a_start_with_4_after_ten_seconds(pair, side):
    _, _, teal = pair()
    teal.configure({side: {"uri": f"postgresql://postgres@127.0.0.1:{harness.free_port()}/x"}})
    start = time.monotonic()
    said = refused(teal, 4, side, "refused")
    assert 8 < time.monotonic() - start < 40
    assert len(said.splitlines()) < 20


def test_with_wait_a_start_goes_on_until_the_side_is_there(own_server, databases, teal):
    server = own_server()
    blue = server.create_database("late")
    blue.execute(KEYED)
    _, green = databases()
    migration = teal(blue, green)
    server.stop()
    migration.start("--wait")
    time.sleep(13)
    assert migration.running()
    server.start()
    migration.wait("ready")
    assert compare(blue, green) == []


@pytest.mark.parametrize("side", ["blue", "green"])
def test_a_wrong_database_and_a_wrong_user_are_clear_at_once(pair, side):
    blue, green, teal = pair()
    server = (blue if side == "blue" else green).server
    start = time.monotonic()
    teal.configure({side: {"uri": server.uri("nosuchdb")}})
    refused(teal, 4, side, "nosuchdb")
    teal.configure({side: {"uri": server.uri("postgres", user="nosuchuser")}})
    refused(teal, 4, side, "nosuchuser")
    assert time.monotonic() - start < 20


def test_a_wrong_password_is_clear_and_never_shown(own_server, databases, teal):
    server = own_server(auth="scram")
    blue = server.create_database("locked")
    _, green = databases()
    migration = teal(blue, green)
    for password in "geheimnis", None:
        migration.configure({"blue": {"uri": blue.uri(password=password)}})
        for command in "run", "check", "status":
            said = refused(migration, 4, "password", command=command)
            assert "geheimnis" not in said
    file = migration.home / "password"
    file.write_text("secret\n")
    file.chmod(0o600)
    migration.configure({"blue": {"password-file": file}})
    blue.execute(KEYED)
    migration.start().wait("ready")
    file.chmod(0o644)
    refused(migration, 2, "password", command="status")


def test_a_password_command_is_used_and_its_failure_said(own_server, databases, teal):
    server = own_server(auth="scram")
    blue = server.create_database("locked")
    blue.execute(KEYED)
    _, green = databases()
    migration = teal(blue, green, {"blue": {"password-command": "echo secret"}})
    migration.start().wait("ready")
    assert migration.terminate() == 0
    migration.configure({"blue": {"password-command": "false"}})
    refused(migration, 2, "password-command")


def test_tls_that_is_demanded_and_absent_is_clear_at_once(pair):
    blue, _, teal = pair()
    teal.configure({"blue": {"uri": blue.uri() + "?sslmode=require"}})
    start = time.monotonic()
    refused(teal, 4, "blue", "SSL")
    assert time.monotonic() - start < 8


def test_a_blue_without_logical_log_is_named_with_the_setting(own_server, databases, teal):
    server = own_server(settings={"wal_level": "replica"})
    blue = server.create_database("shop")
    blue.execute(KEYED)
    _, green = databases()
    migration = teal(blue, green)
    refused(migration, 2, "wal_level", "logical")
    assert blue.execute("SELECT 1 FROM pg_replication_slots") == []
    assert migration.run("finish", "--confirm", "test").returncode == 0
    nothing_made(blue)


def test_no_free_slot_and_no_free_sender_are_named(own_server, databases, teal):
    server = own_server(settings={"max_replication_slots": 1, "max_wal_senders": 1})
    blue = server.create_database("shop")
    blue.execute(KEYED)
    _, green = databases()
    migration = teal(blue, green)
    blue.execute("SELECT pg_create_logical_replication_slot('taken', 'pgoutput')")
    refused(migration, 2, "max_replication_slots")
    blue.execute("SELECT pg_drop_replication_slot('taken')")
    sender = server.connect("shop", replication="database")
    try:
        said = migration.run("run", timeout=60)
        assert said.returncode in (2, 4) and "max_wal_senders" in said.stderr, said
    finally:
        sender.close()
    migration.start().wait("ready")  # Both are mended: what was left behind is no hindrance.
    assert compare(blue, green) == []


# ---- privileges ----

@pytest.fixture
def role(pool):
    made = []

    def make(*servers, options="LOGIN"):
        name = f"bad_{os.getpid()}_{next(ROLES)}"
        for server in servers:
            server.execute(f"CREATE ROLE {name} {options}")
            made.append((server, name))
        return name

    yield make
    for server, name in made:
        for database, in server.execute("SELECT datname FROM pg_database WHERE datallowconn"):
            harness.Database(server, database).execute(
                f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}")
        server.execute(f"DROP ROLE {name}")


def test_each_missing_privilege_on_blue_is_named_with_its_grant(pair, role):
    blue, green, teal = pair()
    name = role(blue.server, green.server)
    teal.configure({"blue": {"uri": blue.uri(name)}})
    refused(teal, 2, f"GRANT CREATE ON DATABASE {blue.name} TO {name}")
    blue.execute(f"GRANT CREATE ON DATABASE {blue.name} TO {name}")
    refused(teal, 2, "item", f"TO {name}")
    blue.execute(f"ALTER TABLE item OWNER TO {name}")
    refused(teal, 2, f"ALTER ROLE {name} REPLICATION")
    blue.server.execute(f"ALTER ROLE {name} REPLICATION")
    teal.start().wait("ready")
    assert compare(blue, green) == []


def test_each_missing_privilege_on_green_is_named_with_its_grant(pair, role):
    blue, green, teal = pair(config={"schema": {"mode": "existing"}})
    green.execute("CREATE TABLE item (id int PRIMARY KEY, label text)")
    name = role(green.server)
    teal.configure({"green": {"uri": green.uri(name)}})
    refused(teal, 2, "session_replication_role", f"GRANT SET ON PARAMETER session_replication_role TO {name}")
    green.server.execute(f"GRANT SET ON PARAMETER session_replication_role TO {name}")
    refused(teal, 2, f"GRANT CREATE ON DATABASE {green.name} TO {name}")
    green.execute(f"GRANT CREATE ON DATABASE {green.name} TO {name}")
    done = teal.run("run", "--exit-on-halt", timeout=60)
    assert done.returncode in (2, 8) and "item" in done.stderr and "GRANT" in done.stderr, done
    green.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON item TO {name}; ALTER TABLE item OWNER TO {name}")
    teal.start().wait("ready")
    assert compare(blue, green) == []


# ---- what stands there already ----

@pytest.mark.parametrize("made", ["CREATE TABLE loose (a int)",
                                  "CREATE TABLE loose (a int NOT NULL UNIQUE)"])
def test_a_table_without_identity_is_refused_at_the_start_with_the_choices(pair, made):
    blue, green, teal = pair(on_blue=KEYED + ";" + made)
    refused(teal, 2, "public.loose", "REPLICA IDENTITY", "set-identity-full", "exclude")
    refused(teal, 3, "public.loose", command="check")
    nothing_made(blue, green)
    teal.configure({"tables": {"set-identity-full": "public.loose"}})
    teal.start().wait("ready")
    blue.execute("INSERT INTO loose VALUES (1), (2)")
    blue.execute("UPDATE loose SET a = 3 WHERE a = 1")
    teal.wait("caught-up")
    assert compare(blue, green) == []


def test_a_foreign_slot_and_a_foreign_publication_are_left_alone(pair):
    blue, _, teal = pair(name="clash")
    blue.execute("SELECT pg_create_logical_replication_slot('teal_clash', 'pgoutput')")
    refused(teal, 2, "replication slot teal_clash", "name")
    refused(teal, 3, "teal_clash", command="check")
    assert blue.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'teal_clash'") == 1
    blue.execute("SELECT pg_drop_replication_slot('teal_clash')")
    blue.execute("CREATE PUBLICATION teal_clash FOR TABLE item")
    refused(teal, 2, "publication teal_clash", "name")
    assert blue.value("SELECT count(*) FROM pg_publication WHERE pubname = 'teal_clash'") == 1
    blue.execute("DROP PUBLICATION teal_clash")
    teal.start().wait("ready")


def test_a_slot_of_the_name_in_another_database_of_blue_is_foreign(pair, databases):
    blue, _, teal = pair(name="elsewhere")
    other, _ = databases()
    other.execute("SELECT pg_create_logical_replication_slot('teal_elsewhere', 'pgoutput')")
    refused(teal, 2, "teal_elsewhere")


def test_two_migrations_to_one_green_and_from_one_blue_do_not_meet(databases, teal):
    blue, green = databases()
    other, _ = databases()
    blue.execute(KEYED)
    other.execute("CREATE TABLE more (id int PRIMARY KEY)")
    first, second = teal(blue, green, name="first"), teal(other, green, name="second")
    first.start()
    second.start()
    first.wait("ready")
    second.wait("ready")
    blue.execute("INSERT INTO item VALUES (2)")
    other.execute("INSERT INTO more VALUES (2)")
    first.wait("caught-up")
    second.wait("caught-up")
    assert second.run("finish", "--confirm", "second").returncode == 0
    blue.execute("INSERT INTO item VALUES (3)")
    first.wait("caught-up")
    assert compare(blue, green, tables=["public.item"]) == compare(other, green, tables=["public.more"]) == []


def test_a_copy_into_a_table_that_holds_rows_is_refused_and_harms_none(pair):
    blue, green, teal = pair(config={"schema": {"mode": "existing"}})
    green.execute("CREATE TABLE item (id int PRIMARY KEY, label text); INSERT INTO item VALUES (9, 'mine')")
    done = teal.run("run", "--exit-on-halt", timeout=60)
    assert done.returncode in (2, 8) and "public.item" in done.stderr, done
    assert green.execute("SELECT * FROM item") == [(9, "mine")]


def test_a_target_with_a_checkpoint_but_a_blue_without_one_is_refused(pair, pool):
    blue, green, teal = pair()
    teal.start().wait("ready")
    assert teal.terminate() == 0
    other = pool.database(15, "another blue")
    other.execute(KEYED)
    teal.configure({"blue": {"uri": other.uri()}})
    refused(teal, 9, "checkpoint", "finish")
    nothing_made(other)
    other.drop()


# ---- places on this machine ----

def test_a_state_folder_that_cannot_be_made_is_clear(pair):
    _, _, teal = pair(config={"migration": {"state": "/proc/nowhere/teal"}, "control": {"socket": None}})
    done = teal.run("run")
    assert done.returncode in (2, 8) and "/proc/nowhere" in done.stderr, done


def test_a_socket_whose_path_is_too_long_or_taken_is_clear(pair):
    _, _, teal = pair()
    teal.configure({"control": {"socket": teal.home / ("x" * 120)}})
    refused(teal, 2, "socket", "longer than")
    (teal.home / "file").write_text("mine")
    teal.configure({"control": {"socket": teal.home / "file"}})
    refused(teal, 2, "not a socket")
    assert (teal.home / "file").read_text() == "mine"


def test_a_missing_pg_dump_is_named(pair):
    blue, green, teal = pair(config={"schema": {"pg-dump": "/nowhere/pg_dump"}})
    done = teal.run("run", "--exit-on-halt", timeout=60)
    assert done.returncode in (2, 8) and "pg_dump" in done.stderr and "/nowhere" in done.stderr, done
    teal.configure({"schema": {"pg-dump": harness.servers("pgdump")}})
    teal.start().wait("ready")
    assert compare(blue, green) == []


def test_folders_are_made_with_mode_0700(pair):
    _, _, teal = pair()
    teal.configure({"migration": {"state": teal.home / "a" / "b"}, "spool": {"path": teal.home / "c" / "d"}})
    teal.start().wait("ready")
    for made in "a/b", "c/d":
        assert stat.S_IMODE((teal.home / made).stat().st_mode) == 0o700
    assert list((teal.home / "c" / "d").iterdir())


def test_without_a_state_folder_the_xdg_one_is_used(pair):
    _, _, teal = pair()
    teal.configure({"migration": {"state": None}, "control": {"socket": None}})
    teal.start(env={"XDG_STATE_HOME": str(teal.home / "xdg")})
    until(lambda: (teal.home / "xdg" / "teal" / "test" / "teal.sock").is_socket())
    assert pathlib.Path(teal.home / "xdg" / "teal" / "test").stat().st_mode & 0o777 == 0o700
