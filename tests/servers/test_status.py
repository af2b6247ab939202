"""What teal says of itself: status, wait, finish, the control socket and the HTTP reads."""

import http.client
import json
import os
import pathlib
import socket
import stat
import subprocess
import threading
import time

import pytest

import harness
from harness import compare, until

KEYED = """
    CREATE TABLE item (id int PRIMARY KEY, label text);
    CREATE TABLE other (id int PRIMARY KEY);
    INSERT INTO item SELECT n, 'row ' || n FROM generate_series(1, 1000) n;
"""
BIG = """
    CREATE TABLE big (id int PRIMARY KEY, label text);
    INSERT INTO big SELECT n, repeat('x', 200) FROM generate_series(1, 400000) n;
"""
SHAPE = {
    "lag": {"seconds", "bytes", "transactions"},
    "position": {"source", "received", "durable", "applied", "confirmed"},
    "copy": {"tables", "tables_done", "rows", "rows_done", "bytes_done", "eta_seconds"},
    "apply": {"transactions", "changes", "conflicts", "stray_writes"},
    "spool": {"memory_bytes", "disk_bytes", "disk_max_bytes"},
    "ready": {"cutover", "rollback", "reasons"},
}
PHASES = "new copying catching-up following fenced reversed finished halted stopped".split()


def well_formed(status):
    """Has every key of the contract, with a value of its type or null."""
    assert {"teal", "migration", "phase", "direction", "tables", "error", *SHAPE} <= set(status), status
    assert status["phase"] in PHASES and status["direction"] == "blue-to-green"
    for group, keys in SHAPE.items():
        assert keys <= set(status[group]), (group, status[group])
    numbers = [v for g in ("lag", "copy", "apply", "spool") for v in status[g].values()]
    assert all(v is None or isinstance(v, (int, float)) and v >= 0 for v in numbers), status
    assert all(v is None or "/" in v for v in status["position"].values())
    assert isinstance(status["ready"]["cutover"], bool) and isinstance(status["ready"]["rollback"], bool)
    assert status["ready"]["cutover"] or status["ready"]["reasons"]
    for table in status["tables"]:
        assert {"name", "phase", "rows_copied", "changes"} <= set(table) and table["phase"] in PHASES
    assert status["error"] is None or set(status["error"]) == {"kind", "text", "hint"}
    return status


def call(teal, path, method="GET", address=None):
    """One request over the socket, or to an address; code and text."""
    connection = http.client.HTTPConnection(*(address or ("localhost",)), timeout=30)
    if address is None:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(str(teal.home / "socket"))
    connection.request(method, path)
    answer = connection.getresponse()
    with connection:
        return answer.status, answer.read().decode()


# http.client's connection has no context manager of its own.
http.client.HTTPConnection.__enter__ = lambda self: self
http.client.HTTPConnection.__exit__ = lambda self, *_: self.close()


@pytest.fixture
def pair(databases, teal):
    def make(on_blue=KEYED, config=None, versions=(15, 15)):
        blue, green = databases(*versions)
        blue.execute(on_blue)
        return blue, green, teal(blue, green, config)
    return make


def test_every_key_is_there_in_every_phase(pair):
    blue, green, teal = pair(KEYED + BIG)
    before = well_formed(teal.status())
    assert before["phase"] == "stopped" and before["lag"]["seconds"] is None and before["tables"] == []
    teal.start()
    seen = set()

    def look():
        status = teal.status()
        seen.add(well_formed(status)["phase"])
        if status["phase"] == "copying":
            assert not status["ready"]["cutover"]
        return status["phase"] == "following"

    until(look, 60)
    assert "copying" in seen
    teal.wait("ready")
    status = well_formed(teal.status())
    copy = status["copy"]
    assert copy["tables"] == copy["tables_done"] == 3 and copy["rows"] == copy["rows_done"] == 401000
    assert copy["eta_seconds"] == 0 and status["ready"] == {"cutover": True, "rollback": False, "reasons": []}
    assert {t["name"]: t["rows_copied"] for t in status["tables"]} == {
        "public.item": 1000, "public.other": 0, "public.big": 400000}

    green.execute("DELETE FROM item WHERE id = 1")
    blue.execute("UPDATE item SET label = 'x' WHERE id = 1")
    assert well_formed(teal.wait_phase("halted"))["error"]["kind"] == "conflict"
    assert teal.terminate() == 0
    status = well_formed(teal.status())
    assert status["phase"] == "stopped" and status["position"]["applied"] and status["position"]["source"]
    assert status["lag"]["seconds"] is None and status["position"]["received"] is None


def test_counts_are_exact(pair):
    blue, green, teal = pair()
    teal.start().wait("ready")
    for number in range(20):
        blue.execute("INSERT INTO item VALUES (%s, 'a'), (%s, 'b')", [2000 + number, 3000 + number])
    blue.execute("UPDATE item SET label = 'c' WHERE id >= 3000")
    blue.execute("DELETE FROM item WHERE id >= 3010")
    teal.wait("caught-up")
    status = teal.status()
    table = next(t for t in status["tables"] if t["name"] == "public.item")
    assert table["changes"] == status["apply"]["changes"] == 70
    assert status["apply"]["transactions"] == 22 and status["apply"]["conflicts"] == 0
    assert compare(blue, green) == []


def test_lag_is_zero_only_when_all_is_there_and_grows_while_it_is_not(pair):
    blue, green, teal = pair()
    teal.start().wait("ready")
    until(lambda: teal.status()["lag"]["seconds"] == 0)
    assert call(teal, "/hold", "POST")[0] == 200
    blue.execute("INSERT INTO other VALUES (1)")
    until(lambda: (teal.status()["lag"]["seconds"] or 0) > 2)
    status = teal.status()
    assert status["lag"]["bytes"] > 0 and status["lag"]["transactions"] >= 1
    assert not status["ready"]["cutover"] and any("hold" in r for r in status["ready"]["reasons"])
    assert green.execute("SELECT * FROM other") == []
    assert call(teal, "/resume", "POST")[0] == 200
    until(lambda: teal.status()["lag"]["seconds"] == 0)
    assert green.execute("SELECT * FROM other") == [(1,)]


def test_lag_never_claims_zero_while_a_commit_is_missing(pair):
    blue, green, teal = pair()
    teal.start().wait("ready")
    for number in range(1, 60):
        blue.execute("INSERT INTO other VALUES (%s)", [number])
        time.sleep(0.01)
        asked = teal.status()
        # Had it been zero, the probe it speaks of lay after some commit of ours, or before all of them.
        if asked["lag"]["seconds"] == 0:
            end = asked["position"]["source"]
            applied = asked["position"]["applied"]
            assert blue.value("SELECT %s::pg_lsn >= %s::pg_lsn", [applied, end])


def test_with_blue_gone_the_lag_is_unknown_and_nothing_is_ready(own_server, databases, teal):
    server = own_server()
    blue = server.create_database("shop")
    blue.execute(KEYED)
    _, green = databases()
    migration = teal(blue, green).start()
    migration.wait("ready")
    server.stop()
    until(lambda: migration.status()["lag"]["seconds"] is None, 30)
    status = well_formed(migration.status())
    assert not status["ready"]["cutover"] and status["error"]["kind"] == "retry"
    metrics = call(migration, "/metrics")[1]
    assert "teal_lag_seconds" not in [line.split(" ")[0].split("{")[0] for line in metrics.splitlines()]
    assert migration.run("wait", "caught-up", "--timeout", "1s").returncode == 1
    assert migration.run("status").returncode == 0
    server.start()
    migration.wait("ready")
    assert migration.terminate() == 0
    server.stop()
    done = migration.run("status", "--json")
    assert done.returncode == 4 and well_formed(json.loads(done.stdout))["error"]["text"]


def test_a_barrier_proves_what_was_committed_before_it(pair):
    blue, green, teal = pair()
    teal.start().wait("ready")
    for number in range(1, 30):
        blue.execute("INSERT INTO other VALUES (%s)", [number])
        code, text = call(teal, "/barrier", "POST")
        answer = json.loads(text)
        assert code == 200 and answer["ok"]
        assert green.value("SELECT count(*) FROM other") == number
        assert blue.value("SELECT %s::pg_lsn <= pg_current_wal_insert_lsn()", [answer["position"]])


def test_wait_returns_when_the_state_holds_and_1_when_it_does_not_in_time(pair):
    blue, _, teal = pair(KEYED + BIG)
    assert teal.run("wait", "ready", "--timeout", "1s").returncode == 1
    assert teal.run("wait", "caught-up", "--timeout", "1s").returncode == 1
    assert teal.run("wait", "finished", "--timeout", "5s").returncode == 0  # Nothing is left on either side.
    waiter = subprocess.Popen([teal.binary, "wait", "-c", str(teal.ini), "ready", "--timeout", "60s"])
    teal.start()
    assert teal.run("wait", "ready", "--timeout", "50ms").returncode == 1
    assert waiter.wait(60) == 0
    assert teal.run("wait", "reversed", "--timeout", "1s").returncode == 1
    assert teal.run("wait", "finished", "--timeout", "1s").returncode == 1
    assert call(teal, "/hold", "POST")[0] == 200
    blue.execute("INSERT INTO other VALUES (1)")
    start = time.monotonic()
    assert teal.run("wait", "caught-up", "--timeout", "2s").returncode == 1
    assert time.monotonic() - start < 15
    assert call(teal, "/resume", "POST")[0] == 200
    teal.wait("caught-up")


def test_unbuilt_commands_are_not_pretended(pair):
    _, _, teal = pair()
    for command in "verify", "cutover", "rollback":
        done = teal.run(command)
        assert done.returncode == 2 and command in done.stderr


def test_finish_removes_all_but_the_rows_and_a_wrong_name_removes_nothing(pair):
    blue, green, teal = pair()
    teal.start().wait("ready")
    done = teal.run("finish", "--confirm", "another")
    assert done.returncode == 2 and "test" in done.stderr and teal.running()
    waiter = subprocess.Popen([teal.binary, "wait", "-c", str(teal.ini), "finished", "--timeout", "60s"])
    done = teal.run("finish", "--confirm", "test")
    assert done.returncode == 0, done.stderr
    assert teal.ended() == 0 and waiter.wait(60) == 0
    assert blue.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name ~ '^teal'") == []
    for database in blue, green:
        assert database.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'teal'") == []
        assert database.execute("SELECT 1 FROM pg_publication") == []
        assert database.execute("SELECT 1 FROM pg_trigger WHERE tgname ~ '^teal'") == []
        database.execute("INSERT INTO item VALUES (5000, 'written afterwards')")
    assert compare(blue, green) == []
    left = [p for p in pathlib.Path(teal.home).rglob("*") if p.is_file()]
    assert not [p for p in left if "spool" in p.name or p.name in ("lock", "socket")], left
    assert teal.run("finish", "--confirm", "test").returncode == 0  # Again: nothing is left to do.


def test_finish_without_an_engine_and_with_a_halted_one(pair):
    blue, green, teal = pair()
    teal.start().wait("ready")
    green.execute("DELETE FROM item WHERE id = 1")
    blue.execute("DELETE FROM item WHERE id = 1")
    teal.wait_phase("halted")
    assert teal.terminate() == 0
    assert teal.run("finish", "--confirm", "test").returncode == 0
    assert blue.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name ~ '^teal'") == []
    teal.configure({"migration": {"name": "again"}})
    green.execute("TRUNCATE item, other")
    teal.start().wait("ready")
    green.execute("DELETE FROM item WHERE id = 2")
    blue.execute("DELETE FROM item WHERE id = 2")
    teal.wait_phase("halted")
    assert teal.run("finish", "--confirm", "again").returncode == 0
    assert teal.ended() == 0


def test_the_socket_is_for_its_owner_and_the_address_only_reads(pair):
    port = harness.free_port()
    _, _, teal = pair(config={"control": {"listen": f"127.0.0.1:{port}"}})
    teal.start().wait("ready")
    assert stat.S_IMODE((teal.home / "socket").stat().st_mode) == 0o600
    address = "127.0.0.1", port
    for path, words in {"/livez": "ok", "/readyz": "ok", "/status": '"migration":"test"', "/": "<html",
                        "/metrics": "teal_", "/cutover-ready": '"ready":true'}.items():
        code, text = call(teal, path, address=address)
        assert code == 200 and words in text, (path, code, text[:300])
        assert call(teal, path)[0] == 200
    assert call(teal, "/readyz?lag=250ms", address=address)[0] in (200, 503)
    assert call(teal, "/rollback-ready")[0] == 503
    for path in "/barrier", "/hold", "/resume", "/arm-reverse", "/reverse", "/stop":
        assert call(teal, path, "POST", address)[0] in (403, 404, 405)
        assert call(teal, path, address=address)[0] in (403, 404, 405)
    assert call(teal, "/nothing")[0] == 404
    well_formed(json.loads(call(teal, "/status", address=address)[1]))
    assert call(teal, "/stop", "POST")[0] == 200
    assert teal.ended() == 0 and not (teal.home / "socket").exists()


def test_events_stream_status_and_log(pair):
    blue, _, teal = pair()
    teal.start().wait("ready")
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(30)
        stream.connect(str(teal.home / "socket"))
        stream.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        heard = b""
        while heard.count(b"event: status") < 2:
            blue.execute("INSERT INTO other SELECT coalesce(max(id), 0) + 1 FROM other")
            heard += stream.recv(65536)
        assert b"text/event-stream" in heard


def test_metrics_are_prometheus_and_agree_with_status(pair):
    blue, _, teal = pair()
    teal.start().wait("ready")
    blue.execute("INSERT INTO other VALUES (1), (2)")
    teal.wait("caught-up")
    until(lambda: teal.status()["lag"]["seconds"] == 0)
    _, text = call(teal, "/metrics")
    values = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert line.split()[1] in ("HELP", "TYPE") and line.split()[2].startswith("teal_")
            continue
        name, value = line.rsplit(" ", 1)
        assert name.startswith("teal_")
        values[name.split("{")[0]] = float(value)
    assert values["teal_lag_seconds"] < 10
    assert any("changes" in n and n.endswith("_total") and v == 2 for n, v in values.items()), values


def test_status_for_people_and_watch(pair):
    _, _, teal = pair()
    assert "stopped" in teal.run("status").stdout
    teal.start().wait("ready")
    shown = teal.run("status").stdout
    assert "following" in shown and "\x1b" not in shown
    watch = subprocess.Popen([teal.binary, "status", "-c", str(teal.ini), "--json", "--watch"],
                             stdout=subprocess.PIPE, text=True)
    lines = [json.loads(watch.stdout.readline()) for _ in range(3)]
    watch.terminate()
    watch.wait(10)
    watch.stdout.close()
    assert all(well_formed(line)["phase"] == "following" for line in lines)


def commands_of(pid):
    """The command lines of a process and of all below it, whichever thread started them."""
    said = [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            said += commands_of(int(child))
    return said


def test_no_password_shows_anywhere(own_server, teal):
    """In a URI, so that it is in the argument of nothing but libpq: not in log, status, ps, nor children."""
    server = own_server(auth="scram")
    server.execute("ALTER USER postgres PASSWORD 'geh3im'")
    connect = server.connect
    server.connect = lambda database="postgres", user="postgres", **options: connect(
        database, user, password="geh3im", **options)
    blue, green = server.create_database("blue"), server.create_database("green")
    blue.execute(KEYED)
    migration = teal(blue, green, {"blue": {"uri": blue.uri(password="geh3im")},
                                   "green": {"uri": green.uri(password="geh3im")}})
    heard, stop = [], threading.Event()

    def spy():
        while not stop.is_set():
            try:
                heard.extend(commands_of(migration.process.pid))
            except (OSError, AttributeError):
                pass
            time.sleep(0.002)

    spying = threading.Thread(target=spy)
    spying.start()
    try:
        migration.start("--verbose").wait("ready")
    finally:
        stop.set()
        spying.join()
    assert any(b"pg_dump" in line for line in heard), "the spy saw no child"
    assert not any(b"geh3im" in line for line in heard)
    shown = migration.stderr() + migration.run("status", "--json").stdout + migration.run("status").stdout
    shown += migration.run("check").stdout + call(migration, "/metrics")[1] + call(migration, "/status")[1]
    migration.configure({"green": {"uri": green.uri(password="geh3im", user="nobody")}})
    done = migration.run("check")
    assert "geh3im" not in shown + done.stdout + done.stderr
    for made in pathlib.Path(migration.home / "state").rglob("*"):
        assert not made.is_file() or b"geh3im" not in made.read_bytes()


def test_rows_are_not_in_the_log(pair):
    blue, green, teal = pair()
    teal.start("--verbose").wait("ready")
    blue.execute("INSERT INTO item VALUES (7000, 'a very private label')")
    green.execute("INSERT INTO item VALUES (7001, 'mine')")
    blue.execute("INSERT INTO item VALUES (7001, 'a very private label')")
    teal.wait_phase("halted")
    assert "private" not in teal.stderr() + str(teal.status())


def test_data_goes_to_stdout_and_messages_to_stderr(pair):
    _, _, teal = pair()
    with open(teal.home / "out", "wb") as out, open(teal.home / "err", "wb") as err:
        process = subprocess.Popen([teal.binary, "run", "-c", str(teal.ini)], stdout=out, stderr=err,
                                   env={**os.environ, "NO_COLOR": "1"})
        try:
            teal.process = process
            teal.wait("ready")
        finally:
            process.terminate()
            assert process.wait(30) == 0
    assert (teal.home / "out").read_bytes() == b"" and b"\x1b" not in (teal.home / "err").read_bytes()
