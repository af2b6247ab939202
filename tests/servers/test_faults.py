"""Everything around teal fails: servers, connections, slots, disks, and teal's own place on them."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import psycopg
import pytest

from harness import Workload, compare, ledger, until
from steps import cannot_run

KEYED = """
    CREATE TABLE item (id int PRIMARY KEY, label text);
    CREATE TABLE other (id int PRIMARY KEY);
    INSERT INTO item SELECT n, 'row ' || n FROM generate_series(1, 100) n;
"""
SLOT = "SELECT {} FROM pg_replication_slots WHERE slot_name = 'teal_test'"


def events(teal, name):
    return [line for line in teal.stderr().splitlines() if f" {name} " in line + " "]


def post(teal, path):
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(70)
        door.connect(str(teal.home / "socket"))
        door.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        assert b" 200 " in door.recv(65536).split(b"\r\n")[0]


def confirmed(blue, end=None):
    """Waits until blue's slot has moved past its end of now."""
    end = end or blue.value("SELECT pg_current_wal_insert_lsn()")
    until(lambda: blue.value(SLOT.format("confirmed_flush_lsn >= %s"), [end]), 60)


def equal(teal, blue, green):
    teal.wait_phase("following")
    teal.wait("caught-up")
    assert compare(blue, green) == []


@pytest.fixture
def pair(databases, teal):
    """pair(): shared servers; the migration follows."""
    def make(config=None, on_blue=KEYED, versions=(15, 15)):
        blue, green = databases(*versions)
        blue.execute(on_blue)
        migration = teal(blue, green, config).start()
        migration.wait("ready")
        return blue, green, migration
    return make


@pytest.fixture
def own_pair(own_server, teal):
    """own_pair(): servers that may be stopped and killed."""
    def make(config=None, versions=(15, 15), **options):
        blue = own_server(versions[0], **options).create_database("shop")
        green = own_server(versions[1]).create_database("shop")
        return blue, green, teal(blue, green, config)
    return make


# ---- two engines ----

def test_a_second_engine_of_the_same_state_is_refused(pair):
    blue, green, teal = pair()
    done = teal.run("run", timeout=60)
    assert done.returncode == 5 and "another engine" in done.stderr
    blue.execute("INSERT INTO other VALUES (1)")
    equal(teal, blue, green)
    assert teal.running()


def test_another_state_folder_goes_on_after_a_clean_stop(databases, teal):
    """Without a spool: blue was told of nothing that green does not hold."""
    blue, green = databases()
    blue.execute(KEYED)
    config = {"spool": {"ack": "target"}}
    first = teal(blue, green, config).start()
    first.wait("ready")
    assert first.terminate() == 0
    second = teal(blue, green, config).start()
    blue.execute("INSERT INTO other VALUES (1)")
    second.wait("ready")
    equal(second, blue, green)


def test_a_second_engine_with_a_state_of_its_own_leaves_the_first_alone(databases, teal):
    blue, green = databases()
    load = Workload(blue, seed=11, threads=2, pause=0.005).create()
    first, second = teal(blue, green), teal(blue, green)
    first.start().wait("ready")
    load.start()
    done = second.run("run", timeout=60)
    assert done.returncode == 5 and "another engine" in done.stderr and "teal_test" in done.stderr
    assert first.running()
    load.stop()
    first.wait("ready")
    first.wait("caught-up")
    assert compare(blue, green, sequences=False) == ledger(green) == []


# ---- the slot ----

def test_a_slot_dropped_while_stopped_is_a_lost_position(pair):
    blue, green, teal = pair()
    assert teal.terminate() == 0
    blue.execute("SELECT pg_drop_replication_slot('teal_test')")
    blue.execute("INSERT INTO other VALUES (1)")
    done = teal.run("run", timeout=60)
    assert done.returncode == 9 and "teal_test" in done.stderr and "finish" in done.stderr
    assert green.execute("SELECT * FROM other") == []
    assert teal.run("finish", "--confirm", "test").returncode == 0


def test_a_slot_dropped_while_running_ends_it_with_9(pair):
    blue, green, teal = pair()
    waiter = subprocess.Popen([teal.binary, "wait", "-c", str(teal.ini), "reversed", "--timeout", "5s"])
    with blue.connect() as connection:
        while blue.value(SLOT.format("count(*)")):
            connection.execute(SLOT.format("pg_terminate_backend(active_pid)") + " AND active")
            try:
                connection.execute("SELECT pg_drop_replication_slot('teal_test')")
            except psycopg.errors.ObjectInUse:
                pass
    blue.execute("INSERT INTO other VALUES (1)")
    assert teal.ended() == 9
    assert "teal_test" in teal.stderr() and "finish" in teal.stderr()
    assert waiter.wait(60) == 1
    assert teal.run("status", "--json").returncode in (0, 9)
    assert teal.run("wait", "ready", "--timeout", "1s").returncode in (1, 9)
    assert teal.run("run", timeout=60).returncode == 9


def test_an_invalidated_slot_is_a_lost_position(own_pair):
    blue, _, teal = own_pair(settings={"max_slot_wal_keep_size": "1MB", "wal_keep_size": 0, "max_wal_size": "48MB",
                                       "min_wal_size": "32MB"})
    blue.execute(KEYED)
    teal.start().wait("ready")
    assert teal.terminate() == 0

    def invalidated():
        blue.execute("CREATE TABLE IF NOT EXISTS ballast (t text)")
        blue.execute("INSERT INTO ballast SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        blue.execute("SELECT pg_switch_wal()")
        blue.execute("CHECKPOINT")
        return blue.value(SLOT.format("wal_status = 'lost'"))
    until(invalidated, 60)
    done = teal.run("run", timeout=60)
    assert done.returncode == 9 and "teal_test" in done.stderr and "max_slot_wal_keep_size" in done.stderr, done


def test_a_promoted_standby_without_the_slot_is_a_lost_position(own_pair):
    blue, _, teal = own_pair()
    blue.execute(KEYED)
    teal.start().wait("ready")
    server = blue.server
    server.stop()
    for slot in (server.data / "pg_replslot").iterdir():
        shutil.rmtree(slot)
    (server.data / "standby.signal").touch()
    server.start()
    server.execute("SELECT pg_promote()")
    assert server.execute("SELECT timeline_id FROM pg_control_checkpoint()") and teal.ended(60) == 9
    assert "teal_test" in teal.stderr() and "gone" in teal.stderr() and "finish" in teal.stderr()


# ---- the spool ----

def backlog(blue, teal, rows=2000):
    """What green does not have lies in the spool, and blue has forgotten it; the engine is gone."""
    post(teal, "/hold")
    blue.execute("INSERT INTO other SELECT generate_series(1, %s::int)", [rows])
    for number in range(50):
        blue.execute("INSERT INTO item SELECT n, md5(n::text) "
                     f"FROM generate_series({1000 + number * 100}, {1099 + number * 100}) n")
    confirmed(blue)
    teal.kill9()


def segments(teal):
    return sorted((teal.home / "state" / "spool").iterdir())


def test_a_spool_deleted_with_what_green_lacks_is_a_lost_position(pair):
    blue, green, teal = pair()
    backlog(blue, teal)
    for file in segments(teal):
        file.unlink()
    done = teal.run("run", timeout=60)
    assert done.returncode == 9 and "finish" in done.stderr, done
    assert green.execute("SELECT 1 FROM other") == []


def test_a_spool_deleted_when_green_has_all_is_begun_anew(pair):
    blue, green, teal = pair()
    blue.execute("INSERT INTO other VALUES (1)")
    teal.wait("caught-up")
    assert teal.terminate() == 0
    for file in segments(teal):
        file.unlink()
    blue.execute("INSERT INTO other VALUES (2)")
    teal.start()
    equal(teal, blue, green)


def test_a_foreign_spool_is_refused(pair):
    blue, green, teal = pair()
    backlog(blue, teal)
    other_blue, _, other = pair({"migration": {"name": "other"}})
    other_blue.execute("INSERT INTO other VALUES (77)")
    other.wait("caught-up")
    assert other.terminate() == 0
    kept = teal.home / "kept"
    (teal.home / "state" / "spool").rename(kept)
    shutil.copytree(other.home / "state" / "spool", teal.home / "state" / "spool")
    done = teal.run("run", timeout=60)
    assert done.returncode == 9, done
    assert green.execute("SELECT 1 FROM other") == []
    shutil.rmtree(teal.home / "state" / "spool")
    kept.rename(teal.home / "state" / "spool")  # Put back, nothing is lost.
    teal.start()
    equal(teal, blue, green)


def test_a_missing_segment_is_refused(pair):
    blue, green, teal = pair({"spool": {"segment-size": "64KiB"}})
    post(teal, "/hold")
    for number in range(30):
        blue.execute("INSERT INTO item SELECT n, md5(n::text) || md5((-n)::text) || md5(n::text || 'x') "
                     f"FROM generate_series({1000 + number * 400}, {1399 + number * 400}) n")
    confirmed(blue)
    teal.kill9()
    files = segments(teal)
    assert len(files) >= 3
    moved = teal.home / "moved"
    files[1].rename(moved)
    done = teal.run("run", timeout=60)
    assert done.returncode == 9 and "missing" in done.stderr, done
    moved.rename(files[1])
    teal.start()
    equal(teal, blue, green)


def test_a_damaged_block_is_refused_or_halts_and_no_garbage_is_applied(pair):
    blue, green, teal = pair()
    backlog(blue, teal)
    file = max(segments(teal), key=lambda f: f.stat().st_size)
    whole = file.read_bytes()
    damaged = bytearray(whole)
    for at in range(len(whole) // 3, len(whole) // 3 + 8):
        damaged[at] ^= 0x5A
    file.write_bytes(damaged)
    teal.start()
    until(lambda: not teal.running() or teal.status()["phase"] == "halted")
    if teal.running():
        error = teal.status()["error"]
        assert file.name in error["text"], error
        teal.kill9()
    else:
        assert teal.ended() in (8, 9) and file.name in teal.stderr(), teal.stderr()
    on_blue = set(blue.execute("SELECT * FROM item"))
    assert set(green.execute("SELECT * FROM item")) <= on_blue
    file.write_bytes(whole)  # From a backup, say.
    teal.start()
    equal(teal, blue, green)


def test_a_full_disk_halts_and_nothing_is_lost_once_there_is_room(databases, teal):
    if os.geteuid() != 0:
        cannot_run("needs root to mount")
    blue, green = databases()
    blue.execute(KEYED)
    migration = teal(blue, green)
    disk = migration.home / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode:
        cannot_run("cannot mount")
    try:
        ballast = disk / "ballast"
        migration.configure({"spool": {"path": disk / "spool"}})
        migration.start().wait("ready")
        post(migration, "/hold")
        file = os.open(ballast, os.O_WRONLY | os.O_CREAT)
        try:
            while os.write(file, b"x" * 4096):
                pass
        except OSError:
            os.close(file)
        blue.execute("INSERT INTO item SELECT n, md5(n::text) FROM generate_series(1000, 9000) n")
        status = migration.wait_phase("halted")
        assert status["error"]["kind"] == "disk" and "No space" in status["error"]["text"], status["error"]
        assert migration.run("status").returncode == 8
        end = blue.value("SELECT pg_current_wal_insert_lsn()")
        assert not blue.value(SLOT.format("confirmed_flush_lsn >= %s"), [end])
        time.sleep(4)
        assert len(events(migration, "spool.disk_failed")) <= 2
        ballast.unlink()
        post(migration, "/resume")
        equal(migration, blue, green)
        confirmed(blue, end)
        assert migration.terminate() == 0
    finally:
        if migration.running():
            migration.kill9()
        subprocess.run(["umount", str(disk)], check=True)


def test_at_its_bound_the_spool_stops_receiving_says_so_and_goes_on(pair):
    blue, green, teal = pair({"spool": {"disk-max": "64KiB"}})
    post(teal, "/hold")
    for number in range(40):
        blue.execute("INSERT INTO item SELECT n, md5(n::text) || md5((-n)::text) "
                     f"FROM generate_series({1000 + number * 100}, {1099 + number * 100}) n")
    until(lambda: events(teal, "spool.full"))
    status = teal.status()
    assert status["error"] and status["spool"]["disk_bytes"] <= 2 * 64 * 1024, status
    assert not blue.value(SLOT.format("confirmed_flush_lsn >= pg_current_wal_insert_lsn()"))
    post(teal, "/resume")
    equal(teal, blue, green)
    assert teal.status()["error"] is None and events(teal, "spool.has_room")


def test_with_ack_target_blue_forgets_only_what_green_has(pair):
    blue, green, teal = pair({"spool": {"ack": "target"}})
    blue.execute("INSERT INTO other VALUES (1)")
    teal.wait("caught-up")
    confirmed(blue)
    post(teal, "/hold")
    before = blue.value("SELECT pg_current_wal_insert_lsn()")
    blue.execute("INSERT INTO other VALUES (2)")
    end = blue.value("SELECT pg_current_wal_insert_lsn()")
    until(lambda: blue.value("SELECT %s::pg_lsn >= %s", [teal.status()["position"]["received"], end]))
    time.sleep(1)
    assert not blue.value(SLOT.format("confirmed_flush_lsn >= %s"), [end]), before
    teal.kill9()
    shutil.rmtree(teal.home / "state" / "spool", ignore_errors=True)
    teal.start()
    equal(teal, blue, green)
    confirmed(blue, end)


# ---- blue is idle ----

def test_blues_log_is_not_held_by_traffic_that_teal_does_not_take(pair, databases):
    blue, _, teal = pair({"tables": {"exclude": "public.unseen"}}, KEYED + "CREATE TABLE unseen (n int)")
    elsewhere, _ = databases()
    elsewhere.execute("CREATE TABLE t (n int)")
    elsewhere.execute("INSERT INTO t SELECT generate_series(1, 20000)")
    confirmed(blue)
    blue.execute("INSERT INTO unseen SELECT generate_series(1, 20000)")
    confirmed(blue)
    blue.execute("BEGIN; INSERT INTO item VALUES (-1, 'rolled back'); ROLLBACK")
    confirmed(blue)
    until(lambda: teal.status()["lag"]["seconds"] == 0)
    assert teal.status()["ready"]["cutover"]


# ---- servers and connections ----

def survived(teal, load, blue, green):
    load.stop()
    teal.wait_phase("following", timeout=120)
    teal.wait("caught-up")
    assert ledger(blue) == ledger(green) == []
    assert compare(blue, green, sequences=False) == []
    until(lambda: compare(blue, green) == [])  # Sequences are mirrored every few seconds.


@pytest.mark.parametrize("side", ["blue", "green"])
def test_restarts_of_a_server_under_load_lose_and_double_nothing(own_pair, side):
    blue, green, teal = own_pair()
    load = Workload(blue, seed=5, threads=2, pause=0.005).create()
    teal.start().wait("ready")
    load.start()
    server = (blue if side == "blue" else green).server
    for mode in "fast", "immediate", "kill":
        time.sleep(1)
        server.stop(mode)
        time.sleep(0.5)
        server.start()
        until(lambda: teal.status()["lag"]["seconds"] is not None, 60)
    time.sleep(1)
    assert teal.running()
    survived(teal, load, blue, green)


def test_connections_cut_again_and_again_lose_and_double_nothing(databases, teal):
    blue, green = databases()
    load = Workload(blue, seed=9, threads=2, pause=0.002).create()
    migration = teal(blue, green).start()
    migration.wait("ready")
    load.start()
    cut = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'teal%%' AND pid <> pg_backend_pid()
          AND (query ~* %s OR %s = '')"""
    with green.connect() as on_green, blue.connect() as on_blue:
        for number in range(60):
            connection = on_blue if number % 6 == 5 else on_green
            wanted = "" if number % 3 else "commit"
            connection.execute(cut, [wanted, wanted])
            time.sleep(0.05)
    assert migration.running()
    survived(migration, load, blue, green)


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_while_green_is_down_blue_moves_on_the_spool_grows_and_the_log_is_quiet(own_pair):
    blue, green, teal = own_pair()
    load = Workload(blue, seed=6, threads=2, pause=0.005).create()
    teal.start().wait("ready")
    load.start()
    green.server.stop("fast")
    until(lambda: teal.status()["error"] is not None)
    lines, before, spent = len(teal.stderr().splitlines()), teal.status(), cpu_seconds(teal.process.pid)
    start = time.monotonic()
    while time.monotonic() < start + 10:
        time.sleep(0.5)
    assert len(teal.stderr().splitlines()) - lines <= 8, teal.stderr()
    assert cpu_seconds(teal.process.pid) - spent < 8
    status = teal.status()
    assert status["spool"]["disk_bytes"] > before["spool"]["disk_bytes"]
    assert status["position"]["applied"] == before["position"]["applied"]
    assert status["lag"]["seconds"] > 5 and status["phase"] != "halted"
    assert "connect" in status["error"]["text"]
    confirmed(blue)
    green.server.start()
    survived(teal, load, blue, green)
    assert teal.status()["error"] is None


ROLE_SETTINGS = """
    ALTER ROLE {r} SET statement_timeout = '5ms'; ALTER ROLE {r} SET lock_timeout = '5ms';
    ALTER ROLE {r} SET idle_in_transaction_session_timeout = '5ms';
    ALTER ROLE {r} SET datestyle = 'German, DMY'; ALTER ROLE {r} SET bytea_output = 'escape';
    ALTER ROLE {r} SET intervalstyle = 'sql_standard'; ALTER ROLE {r} SET timezone = 'Asia/Kathmandu';
    ALTER ROLE {r} SET extra_float_digits = -10; ALTER ROLE {r} SET client_encoding = 'LATIN1';
    ALTER ROLE {r} SET default_transaction_read_only = on; ALTER ROLE {r} SET search_path = nowhere;
    ALTER ROLE {r} SET default_transaction_isolation = 'serializable'; ALTER ROLE {r} SET xmloption = document;
    ALTER ROLE {r} SET standard_conforming_strings = off; ALTER ROLE {r} SET lc_monetary = 'C';
    ALTER ROLE {r} SET wal_sender_timeout = '100ms';
"""


@pytest.mark.parametrize("versions", [(15, 15), (17, 18)], ids=str)
def test_settings_of_the_roles_do_no_harm(own_pair, versions):
    blue, green, teal = own_pair(versions=versions)
    load = Workload(blue, seed=4, threads=2, pause=0.05).create()
    for side, version in (blue, versions[0]), (green, versions[1]):
        side.server.execute("CREATE ROLE mover SUPERUSER LOGIN REPLICATION")
        side.server.execute(ROLE_SETTINGS.format(r="mover"))
        if version >= 14:
            side.server.execute("ALTER ROLE mover SET idle_session_timeout = '50ms'")
        if version >= 17:
            side.server.execute("ALTER ROLE mover SET transaction_timeout = '50ms'")
    teal.configure({"blue": {"uri": blue.uri("mover")}, "green": {"uri": green.uri("mover")}})
    teal.start()
    load.start()
    teal.wait("ready")
    time.sleep(3)
    survived(teal, load, blue, green)
    assert len(events(teal, "target.disconnected")) == len(events(teal, "source.disconnected")) == 0, teal.stderr()


# ---- signals ----

BIG = "CREATE TABLE big (id int PRIMARY KEY, t text); INSERT INTO big SELECT n, repeat('x', 300) FROM " \
      "generate_series(1, 500000) n"


def test_sigterm_ends_cleanly_in_every_phase(own_pair):
    blue, green, teal = own_pair()
    blue.execute(KEYED + BIG)
    with blue.connect(autocommit=False) as writer:  # The slot waits for it.
        writer.execute("INSERT INTO other VALUES (1)")
        teal.start()
        until(lambda: blue.value(SLOT.format("count(*)")) == 1)
        time.sleep(0.5)
        assert teal.terminate(15) == 0
        writer.rollback()
    teal.start()
    teal.wait_phase("copying")
    until(lambda: (teal.status()["copy"]["rows_done"] or 0) > 0)
    assert teal.terminate(15) == 0
    teal.start().wait("ready")
    assert teal.terminate(15) == 0
    teal.start().wait("ready")
    green.server.stop()
    until(lambda: teal.status()["error"] is not None)
    assert teal.terminate(15) == 0
    green.server.start()
    teal.start().wait("ready")
    blue.server.stop()
    until(lambda: teal.status()["error"] is not None)
    assert teal.terminate(15) == 0
    teal.start("--wait")
    time.sleep(1)
    assert teal.terminate(15) == 0  # While it waits for blue.
    blue.server.start()
    teal.start()
    equal(teal, blue, green)
    teal.process.send_signal(signal.SIGINT)
    assert teal.ended(15) == 0


def test_a_closed_stderr_does_not_end_it(databases, teal):
    blue, green = databases()
    blue.execute(KEYED)
    migration = teal(blue, green)
    reader, writer = os.pipe()
    migration.process = subprocess.Popen([migration.binary, "run", "-c", str(migration.ini)], stderr=writer,
                                         stdout=writer, stdin=subprocess.DEVNULL)
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    migration.wait("ready")
    blue.execute("INSERT INTO other VALUES (1)")
    equal(migration, blue, green)
    assert migration.terminate() == 0


def test_a_client_that_goes_away_in_the_middle_does_no_harm(pair):
    blue, green, teal = pair()
    for _ in range(30):
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(str(teal.home / "socket"))
            door.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\nGET /metr")
    blue.execute("INSERT INTO other VALUES (1)")
    equal(teal, blue, green)


FAKETIME = next(iter(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


@pytest.mark.parametrize("offset", ["-3d", "+3d"])
def test_a_clock_that_is_wrong_does_no_harm(databases, teal, offset):
    if FAKETIME is None:
        cannot_run("libfaketime is not there")
    blue, green = databases()
    blue.execute(KEYED)
    migration = teal(blue, green)
    migration.start(env={"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset, "ASAN_OPTIONS": "verify_asan_link_order=0"})
    migration.wait("ready")
    blue.execute("INSERT INTO other VALUES (1)")
    equal(migration, blue, green)
    assert migration.status()["lag"]["seconds"] < 60
