"""Those that are measured. Each keeps a database of its own on green a copy of blue's."""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess

from harness import Teal, until

WAIT = 600


def pipe(*commands):
    """Runs them as a pipeline; every one must succeed."""
    script = " | ".join(commands)
    subprocess.run(["bash", "-o", "pipefail", "-c", script], check=True, stdin=subprocess.DEVNULL)


def psql(database, command=""):
    return f"psql -X -q -v ON_ERROR_STOP=1 -o /dev/null -d '{database.uri()}' {command}"


def copy_schema(blue, green):
    pipe(f"pg_dump -s -n public -d '{blue.uri()}' | grep -v '^CREATE SCHEMA public'", psql(green))


class Follower:
    """Stopped it does nothing, but its slot holds what it has yet to do."""

    def __init__(self, blue, green_server, name):
        self.blue = blue
        self.name = name
        self.database = green_server.create_database(f"{blue.name}_{name.replace('-', '_')}")

    pid = None

    def close(self):
        self.database.drop()


class TealPeer(Follower):
    def __init__(self, blue, green_server, name="teal"):
        super().__init__(blue, green_server, name)
        self.teal = Teal(blue, self.database, name=f"bench_{blue.name}")

    @property
    def pid(self):
        return self.teal.process.pid

    def create(self):
        self.teal.start()

    def phase(self):
        """Asked of the socket, for a process each time would disturb what is measured."""
        connection = http.client.HTTPConnection("teal")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.sock.connect(str(self.teal.home / "socket"))
            connection.request("GET", "/status")
            return json.load(connection.getresponse())["phase"]
        return None

    def is_copied(self):
        if not self.teal.running():
            raise RuntimeError(f"teal {self.teal.describe()}: {self.teal.stderr()[-4000:]}")
        return self.phase() == "following"

    def start(self):
        self.teal.start()

    def stop(self):
        code = self.teal.terminate()
        if code != 0:
            raise RuntimeError(f"teal ended with {code}: {self.teal.stderr()[-4000:]}")

    def close(self):
        if self.teal.running():
            self.teal.terminate()
        done = self.teal.run("finish", "--confirm", f"bench_{self.blue.name}")
        if done.returncode != 0:
            raise RuntimeError(f"teal finish: {done.stderr}")
        self.teal.close()
        super().close()


class Native(Follower):
    """A subscription; streaming: of transactions in progress."""

    def __init__(self, blue, green_server, name="native", streaming=False):
        super().__init__(blue, green_server, name)
        self.streaming = streaming
        self.subscription = self.database.name

    def create(self):
        copy_schema(self.blue, self.database)
        self.blue.execute(f"CREATE PUBLICATION {self.subscription} FOR TABLES IN SCHEMA public")
        self.database.execute(
            f"CREATE SUBSCRIPTION {self.subscription} CONNECTION '{self.blue.uri()}' "
            f"PUBLICATION {self.subscription} WITH (streaming = {self.streaming})")

    def is_copied(self):
        return self.database.value(
            "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel")

    def start(self):
        self.database.execute(f"ALTER SUBSCRIPTION {self.subscription} ENABLE")

    def stop(self):
        self.database.execute(f"ALTER SUBSCRIPTION {self.subscription} DISABLE")
        until(lambda: not self.blue.value(
            "SELECT active FROM pg_replication_slots WHERE slot_name = %s", [self.subscription]))

    def close(self):
        self.database.execute(f"DROP SUBSCRIPTION {self.subscription}")
        self.blue.execute(f"DROP PUBLICATION {self.subscription}")
        super().close()


class Pgcopydb(Follower):
    """Copies and ends: it needs not follow to count as done, which is in its favour."""

    def __init__(self, blue, green_server, name="pgcopydb"):
        super().__init__(blue, green_server, name)
        self.folder = f"/tmp/{self.database.name}"

    @staticmethod
    def is_there():
        return shutil.which("pgcopydb") is not None

    def create(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        done = subprocess.run(
            ["pgcopydb", "clone", "--source", self.blue.uri(), "--target", self.database.uri(),
             "--dir", self.folder, "--table-jobs", "4", "--index-jobs", "4",
             "--split-tables-larger-than", "64MB", "--no-owner", "--no-acl"],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RuntimeError(f"pgcopydb: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def is_copied(self):
        return True

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        super().close()


class CopyToCopy(Follower):
    """The ceiling of one connection: psql to psql, and then the indexes."""

    def __init__(self, blue, green_server, table, indexes):
        super().__init__(blue, green_server, "copy-to-copy")
        self.table = table
        self.indexes = indexes

    def create(self):
        pipe(f"pg_dump --section=pre-data -t {self.table} -d '{self.blue.uri()}'", psql(self.database))
        pipe(f"psql -X -q -d '{self.blue.uri()}' -c 'COPY {self.table} TO STDOUT (FORMAT binary)'",
             psql(self.database, f"-c 'COPY {self.table} FROM STDIN (FORMAT binary)'"))
        for index in self.indexes:
            self.database.execute(index)

    def is_copied(self):
        return True


class Receiver:
    """The ceiling of decoding: what blue can send at all, to nowhere."""

    name = "pg_recvlogical"
    pid = None

    def __init__(self, blue):
        self.blue = blue
        self.slot = f"{blue.name}_receiver"
        self.blue.execute(f"CREATE PUBLICATION {self.slot} FOR TABLES IN SCHEMA public")

    def prepare(self):
        self.blue.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])

    def receive(self, end):
        """To the first change at or after position `end`."""
        subprocess.run(
            ["pg_recvlogical", "-d", self.blue.uri(), "--slot", self.slot, "--start",
             "-o", "proto_version=2", "-o", "streaming=on", "-o", f"publication_names={self.slot}",
             "--endpos", end, "-f", "/dev/null"],
            check=True, timeout=WAIT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def finish(self):
        self.blue.execute("SELECT pg_drop_replication_slot(%s)", [self.slot])

    def close(self):
        self.blue.execute(f"DROP PUBLICATION {self.slot}")
