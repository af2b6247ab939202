"""Real servers, the real program, and an oracle of our own: what tests, demo and benchmark stand on.

    server = Server(17).start()
    blue, green = server.create_database("a"), Server(18).start().create_database("b")
    teal = Teal(blue, green).start()
    teal.wait("caught-up")
    assert compare(blue, green) == []
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

import psycopg
from psycopg import sql

from oracle import compare
from workload import Workload, ledger

__all__ = ["ROOT", "VERSIONS", "Server", "Database", "Teal", "Workload", "compare", "ledger",
           "available", "until"]

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVERS = str(ROOT / "tools" / "servers")
VERSIONS = (10, 11, 12, 13, 14, 15, 16, 17, 18)


def servers(*args):
    """tools/servers with these arguments; its output."""
    done = subprocess.run([SERVERS, *map(str, args)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"tools/servers {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout.strip()


def available(version):
    return os.access(pathlib.Path(servers("bin", "-v", version)) / "postgres", os.X_OK)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def folder(prefix):
    """A new one that other users may enter: servers do not run as root."""
    path = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
    path.chmod(0o755)
    return path


def until(condition, timeout=30, every=0.05):
    """Returns the first true value of condition(); TimeoutError if there is none in time."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {timeout} s: {condition}")
        time.sleep(every)
    return value


class Server:
    """A server of its own. It keeps its port and its data over every stop, kill and start."""

    def __init__(self, version, port=None, settings=None, auth="trust", durable=False):
        self.version = version
        self.port = port or free_port()
        self.settings = settings or {}
        self.auth = auth
        self.durable = durable
        self.home = folder("teal-pg-")
        self.data = self.home / "data"

    def start(self):
        if (self.data / "PG_VERSION").exists():
            servers("start", "-d", self.data)
            return self
        args = ["start", "-v", self.version, "-p", self.port, "-d", self.data, "--auth", self.auth]
        args += ["--durable"] if self.durable else []
        for name, value in self.settings.items():
            args += ["-c", f"{name}={value}"]
        servers(*args)
        return self

    def stop(self, mode="fast"):
        servers("stop", "-d", self.data, "-m", mode)

    def restart(self, mode="fast"):
        self.stop(mode)
        self.start()

    def kill9(self):
        self.stop("kill")

    def remove(self):
        if (self.data / "PG_VERSION").exists():
            servers("rm", "-d", self.data)
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.remove()

    @property
    def log(self):
        return (self.data / "server.log").read_text(errors="replace")

    def uri(self, database="postgres", user="postgres", password=None):
        login = urllib.parse.quote(user) + (f":{urllib.parse.quote(password)}" if password else "")
        return f"postgresql://{login}@127.0.0.1:{self.port}/{urllib.parse.quote(database)}"

    def connect(self, database="postgres", user="postgres", autocommit=True, **options):
        if self.auth == "scram":
            options.setdefault("password", "secret")
        return psycopg.connect(self.uri(database, user), autocommit=autocommit, connect_timeout=5,
                               **options)

    def execute(self, query, args=None):
        return Database(self, "postgres").execute(query, args)

    def create_database(self, name):
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return Database(self, name)


class Database:
    def __init__(self, server, name):
        self.server = server
        self.name = name

    def uri(self, user="postgres", password=None):
        return self.server.uri(self.name, user, password)

    def connect(self, **options):
        return self.server.connect(self.name, **options)

    def execute(self, query, args=None):
        """One statement; its rows, if it has any."""
        with contextlib.closing(self.connect()) as connection:
            cursor = connection.execute(query, args)
            return cursor.fetchall() if cursor.description else []

    def value(self, query, args=None):
        return self.execute(query, args)[0][0]

    def drop(self):
        """With the slots in it, whoever made them."""
        self.server.execute("""
            SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
            WHERE database = %s AND active_pid IS NOT NULL""", [self.name])
        for slot, in self.server.execute(
                "SELECT slot_name FROM pg_replication_slots WHERE database = %s", [self.name]):
            until(lambda: not self.server.execute(
                "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", [slot]))
            self.server.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        if self.server.version < 13:
            self.server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                                [self.name])
        force = " WITH (FORCE)" if self.server.version >= 13 else ""
        self.server.execute(sql.SQL("DROP DATABASE IF EXISTS {}" + force).format(sql.Identifier(self.name)))


class Teal:
    """One migration: its configuration, its state, and at most one running engine.

    `config` is {section: {key: value}}, laid over what a test always needs; a value of None leaves
    the key out, a list is written with commas, a bool as yes or no.
    """

    def __init__(self, blue, green, config=None, name="test"):
        self.home = folder("teal-")
        self.ini = self.home / "teal.ini"
        self.log = self.home / "stderr"
        self.process = None
        self.config = {
            "migration": {"name": name, "state": self.home / "state"},
            "blue": {"uri": blue.uri()},
            "green": {"uri": green.uri()},
            "schema": {"pg-dump": servers("pgdump")},
            "control": {"socket": self.home / "socket"},
        }
        self.configure(config or {})

    @property
    def binary(self):
        path = os.environ.get("TEAL_BIN") or ROOT / "build" / "dev" / "teal"
        return str(pathlib.Path(path).resolve())

    def configure(self, config):
        """Adds to the configuration and writes it."""
        for section, keys in config.items():
            self.config.setdefault(section, {}).update(keys)
        lines = []
        for section, keys in self.config.items():
            lines += [f"[{section}]"]
            lines += [f"{key} = {written(value)}" for key, value in keys.items() if value is not None]
        self.ini.write_text("\n".join(lines) + "\n")

    def run(self, command, *args, timeout=120, env=None):
        """A command to its end, with -c; CompletedProcess with texts."""
        return subprocess.run([self.binary, command, "-c", str(self.ini), *map(str, args)], text=True,
                              capture_output=True, timeout=timeout, check=False, cwd=self.home,
                              env={**os.environ, **(env or {})})

    def start(self, *args, env=None):
        """`teal run` in the background, its stderr added to what stderr() gives."""
        assert not self.running(), "one engine at a time"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "run", "-c", str(self.ini), *map(str, args)], cwd=self.home,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})})
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def status(self):
        """Parsed `teal status --json`; exit 8 (halted) has one too."""
        done = self.run("status", "--json")
        if done.returncode not in (0, 8):
            raise RuntimeError(f"teal status: exit {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def wait(self, state, timeout=150):
        """`teal wait`; fails with all that the engine said. An engine that ended is not waited for."""
        waiter = subprocess.Popen(
            [self.binary, "wait", "-c", str(self.ini), state, "--timeout", f"{timeout}s"], text=True,
            cwd=self.home, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            until(lambda: waiter.poll() is not None or not self.running(), timeout + 10)
            with contextlib.suppress(subprocess.TimeoutExpired):
                waiter.wait(5)
        finally:
            waiter.kill()
            said = waiter.communicate()[1]
        if waiter.returncode != 0:
            raise AssertionError(f"teal wait {state}: exit {waiter.returncode}: {said}\n"
                                 f"engine: {self.describe()}\n{self.stderr()[-8000:]}")

    def wait_phase(self, *phases, timeout=150):
        """Polls status until the phase is one of these; the status."""
        def look():
            status = self.status()
            return status if status["phase"] in phases else None
        return until(look, timeout)

    def describe(self):
        if self.process is None:
            return "never started"
        code = self.process.poll()
        return "running" if code is None else f"ended with {code}"

    def kill9(self):
        self.process.kill()
        return self.process.wait()

    def terminate(self, timeout=30):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended(timeout)

    def ended(self, timeout=60):
        """Waits for the engine to end by itself; the exit code."""
        return self.process.wait(timeout)

    def stderr(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def close(self):
        """Ends it. Prints what it said, which pytest shows when the test failed; raises if a
        sanitizer had something to say."""
        state = self.describe()
        if self.running():
            self.kill9()
        said = self.stderr()
        print(f"engine: {state}\n{said[-8000:]}")
        shutil.rmtree(self.home, ignore_errors=True)
        for sign in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:",
                     "WARNING: ThreadSanitizer"):
            if sign in said:
                raise AssertionError(said[said.index(sign):][:8000])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def written(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
