"""The story that tools/demo tells. It fails, loudly, where the story is not true."""

import contextlib
import json
import logging
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "servers"))
# pylint: disable=wrong-import-position
from harness import Database, Server, available, compare, folder, servers, until  # noqa: E402

import psycopg  # noqa: E402

TEAL = str(ROOT / "build" / "release" / "teal")
CUSTOMERS, PRODUCTS, ORDERS, CLIENTS = 40_000, 2_000, 150_000, 3
BEGIN = time.monotonic()

SCHEMA = """
    CREATE TYPE state AS ENUM ('placed', 'paid', 'shipped', 'cancelled');
    CREATE TABLE customers (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text NOT NULL, email text NOT NULL UNIQUE, since timestamptz NOT NULL DEFAULT now());
    CREATE TABLE products (
        id int PRIMARY KEY, title text NOT NULL, price numeric(10,2) NOT NULL,
        stock int NOT NULL, tags text[] NOT NULL, details jsonb);
    CREATE TABLE orders (
        id bigserial PRIMARY KEY, customer bigint NOT NULL REFERENCES customers,
        state state NOT NULL DEFAULT 'placed', placed timestamptz NOT NULL DEFAULT now(), note text);
    CREATE INDEX ON orders (customer);
    CREATE TABLE order_lines (
        order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE, line int NOT NULL,
        product int NOT NULL REFERENCES products, quantity int NOT NULL, price numeric(10,2) NOT NULL,
        PRIMARY KEY (order_id, line));
    CREATE TABLE events (at timestamptz NOT NULL, order_id bigint NOT NULL, what text NOT NULL)
        PARTITION BY RANGE (at);
    CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
    CREATE TABLE events_new PARTITION OF events FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
    ALTER TABLE events_old REPLICA IDENTITY FULL;
    ALTER TABLE events_new REPLICA IDENTITY FULL;
    CREATE FUNCTION note_state() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO events VALUES (now(), new.id, new.state); RETURN new; END $$;
    CREATE TRIGGER note_state AFTER INSERT OR UPDATE OF state ON orders
        FOR EACH ROW EXECUTE FUNCTION note_state();
"""

ROWS = f"""
    INSERT INTO customers (name, email)
        SELECT 'Customer ' || n, 'c' || n || '@example.net' FROM generate_series(1, {CUSTOMERS}) n;
    INSERT INTO products
        SELECT n, 'Product ' || n, (n % 200) + 0.99, 1000000, ARRAY['new', 'tag ' || n % 7],
               jsonb_build_object('weight', n % 90) FROM generate_series(1, {PRODUCTS}) n;
    ALTER TABLE orders DISABLE TRIGGER note_state;
    INSERT INTO orders (customer, placed)
        SELECT 1 + n % {CUSTOMERS}, '2025-01-01'::timestamptz + n * interval '1 minute'
        FROM generate_series(1, {ORDERS}) n;
    ALTER TABLE orders ENABLE TRIGGER note_state;
    INSERT INTO order_lines
        SELECT n, line, 1 + (n * line) % {PRODUCTS}, line, 9.99
        FROM generate_series(1, {ORDERS}) n, generate_series(1, 2) line;
    INSERT INTO events SELECT placed, id, 'placed' FROM orders;
    ANALYZE;
"""

# The same statements that README asks for.
BLUE_ROLE = """
    CREATE ROLE teal LOGIN REPLICATION;
    GRANT CREATE ON DATABASE shop TO teal;
    GRANT shop_owner TO teal;
"""
GREEN_ROLE = """
    CREATE ROLE teal LOGIN;
    GRANT CREATE ON DATABASE shop TO teal;
    GRANT shop_owner TO teal;
    GRANT SET ON PARAMETER session_replication_role TO teal;
"""


class Failed(Exception):
    """Something is not as it should be."""


# ---- narration ----

COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def painted(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def chapter(title, why):
    print(f"\n{painted('1;36', f'== {title}')}{painted('2', f'  [{time.monotonic() - BEGIN:.0f} s]')}")
    tell(why)


def tell(text):
    print(textwrap.fill(" ".join(text.split()), 96), flush=True)


def good(text):
    print(painted("32", "ok  ") + text, flush=True)


def require(condition, text):
    if not condition:
        raise Failed(text)


def quote(text):
    for line in text.rstrip().splitlines():
        print("  | " + line)
    sys.stdout.flush()


def count(number):
    return "unknown" if number is None else f"{number:,}"


# ---- the shop's customers ----

class Traffic:
    """Transactions without pause, each of which keeps a book of its own in the database."""

    def __init__(self, database):
        self.database = database
        self.done = [0] * CLIENTS
        self.failure = None
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._work, args=[n], daemon=True) for n in range(CLIENTS)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            if thread.ident is not None:
                thread.join()

    @property
    def transactions(self):
        return sum(self.done)

    def _work(self, number):
        choice = random.Random(number)
        try:
            with self.database.connect(user="shop_owner", autocommit=False) as connection:
                while not self.stopping.wait(0.005):
                    self._transaction(connection, choice)
                    self.done[number] += 1
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def _transaction(self, connection, choice):
        run, dice = connection.execute, choice.random()
        if dice < 0.5:
            placed = run("INSERT INTO orders (customer, note) VALUES (%s, %s) RETURNING id", [
                choice.randint(1, CUSTOMERS), choice.choice([None, "", "leave at the door", "übergeben"])]).fetchone()[0]
            for line, product in enumerate(sorted(choice.sample(range(1, PRODUCTS + 1), 2))):
                run("INSERT INTO order_lines VALUES (%s, %s, %s, 1, 9.99)", [placed, line, product])
                run("UPDATE products SET stock = stock - 1 WHERE id = %s", [product])
        elif dice < 0.9:
            run("UPDATE orders SET state = %s WHERE id = %s", [
                choice.choice(["paid", "shipped", "cancelled"]), choice.randint(1, ORDERS)])
        else:  # Takes its lines along; on green they must not go twice.
            run("DELETE FROM orders WHERE id = %s", [choice.randint(1, ORDERS)])
        connection.commit()


# ---- teal ----

class Engine:
    """`teal` as one would type it. `shown` is how the demo writes the command."""

    def __init__(self, home):
        self.home = home
        self.log = home / "teal.log"
        self.process = None

    def command(self, *args, show=True, expect=0):
        if show:
            print(painted("1", "$ teal " + " ".join(map(str, args))), flush=True)
        done = subprocess.run([TEAL, *map(str, args)], cwd=self.home, text=True, capture_output=True,
                              timeout=90, check=False)
        require(done.returncode == expect, f"teal {args[0]}: exit {done.returncode}, not {expect}\n"
                f"{done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        print(painted("1", "$ teal run 2>>teal.log &"), flush=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([TEAL, "run"], cwd=self.home, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)

    def kill9(self):
        print(painted("1", f"$ kill -9 {self.process.pid}"), flush=True)
        self.process.kill()
        self.process.wait()

    def status(self):
        require(self.process.poll() is None, f"teal run ended with {self.process.returncode}")
        return json.loads(self.command("status", "--json", show=False))

    def seen(self, *events):
        """The latest line of the log for each of these events."""
        lines = self.log.read_text(errors="replace").splitlines()
        found = [[line for line in lines if f" {event} " in line] for event in events]
        quote("\n".join(sorted(lines[-1] for lines in found if lines)))

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def watch_copy(teal, share):
    """One line a second until this share of the rows is there, or the copy is done."""
    shown = 0

    def look():
        nonlocal shown
        status = teal.status()
        copy = status["copy"]
        if time.monotonic() > shown + 1 and copy["rows_done"] is not None:
            shown = time.monotonic()
            bar = "#" * int(30 * min(1, copy["rows_done"] / max(1, copy["rows"] or 1)))
            print(f"  [{bar:-<30}] {copy['tables_done']} of {copy['tables']} tables, "
                  f"{count(copy['rows_done'])} of {count(copy['rows'])} rows", flush=True)
        if status["phase"] not in ("new", "copying", "stopped"):
            return status
        return status if copy["rows"] and copy["rows_done"] >= share * copy["rows"] else None

    return until(look, 60)


def watch_lag(teal, traffic, seconds):
    for _ in range(seconds):
        time.sleep(1)
        status = teal.status()
        lag = status["lag"]["seconds"]
        print(f"  {status['phase']}: lag {'unknown' if lag is None else f'{lag * 1000:.0f} ms'}, "
              f"{count(status['apply']['transactions'])} transactions applied since this start; "
              f"the shop has made {count(traffic.transactions)}", flush=True)


# ---- the story ----

def versions():
    """Blue's and green's: the newest one needs a pg_dump of its own."""
    require(available(15), "PostgreSQL 15 is not in the cache; see what tools/setup says above")
    newest = available(18) and os.access(pathlib.Path(servers("pgdump")) / "pg_dump", os.X_OK)
    return 15, 18 if newest else 15


def make_servers(stack):
    old, new = versions()
    chapter(f"Two servers: blue (PostgreSQL {old}) and green (PostgreSQL {new})", f"""
        Blue is a shop's database with some {count(CUSTOMERS + PRODUCTS + ORDERS * 4)} rows: foreign keys,
        triggers that write, an enum, partitions, tables without a key. Green is empty. teal gets a role
        without superuser on both.""")
    blue = Server(old)
    stack.callback(blue.remove)
    green = Server(new)
    stack.callback(green.remove)
    for server, role in ((blue, BLUE_ROLE), (green, GREEN_ROLE)):
        server.start()
        server.execute("CREATE ROLE shop_owner LOGIN")
        server.execute("CREATE DATABASE shop OWNER shop_owner")
        with server.connect("shop") as connection:
            connection.execute(role)
    with blue.connect("shop", user="shop_owner") as connection:
        connection.execute(SCHEMA)
        connection.execute(ROWS)
    good("blue has its rows, and green has nothing")
    return Database(blue, "shop"), Database(green, "shop")


def configure(teal, blue, green):
    chapter("The configuration", "teal init writes it with every key explained; three lines have to be there.")
    teal.command("init", "--name", "shop", "--blue", blue.uri("teal"), "--green", green.uri("teal"), "-o", "teal.ini")
    ini = teal.home / "teal.ini"
    quote("\n".join(line for line in ini.read_text().splitlines() if line.startswith(("name", "uri"))))
    tell("""The demo adds: state in a folder of its own, the pg_dump of the newest version, and small
         chunks, so that there is something to resume in so small a copy.""")
    text = ini.read_text()
    for key, value in (("state", teal.home / "state"), ("pg-dump", dump_program()), ("chunk-size", "1MiB")):
        start = text.index(f"\n;{key} = ")
        end = text.index("\n", start + 1)
        text = f"{text[:start]}\n{key} = {value}{text[end:]}"
    ini.write_text(text)
    tell("teal check looks for everything that would break the migration, before anything is touched.")
    quote(teal.command("check"))


def dump_program():
    newest = pathlib.Path(servers("pgdump"))
    return newest if os.access(newest / "pg_dump", os.X_OK) else "/usr/lib/postgresql/15/bin"


def copy(teal, traffic):
    chapter("The copy, and a first kill -9", f"""
        {CLIENTS} clients place, change and delete orders all the while. Green gets blue's schema, then its
        rows by COPY; meanwhile blue's changes go to the spool on disk. In the middle we kill teal.""")
    teal.start()
    before = watch_copy(teal, 0.4)
    teal.kill9()
    quote(teal.command("status"))
    tell("The same command again. What is on green is told by green itself, chunk by chunk.")
    teal.start()
    status = until(lambda: known(teal.status()), 30)
    done = status["copy"]["rows_done"]
    require(done > 0 or before["phase"] != "copying", "the copy started from nothing")
    good(f"resumed with {count(done)} rows already there")
    watch_copy(teal, 1)
    teal.command("wait", "ready", "--timeout", "60s")
    require(traffic.failure is None, f"blue's clients were disturbed: {traffic.failure}")
    good("all rows are there, indexes are built, and green is near enough for a cutover to begin")


def known(status):
    return status if status["copy"]["rows_done"] is not None else None


def follow(teal, traffic):
    chapter("Following, and a second kill -9", """
        From now on every transaction of blue is committed on green, together with teal's own position.
        So it does not matter when teal dies.""")
    watch_lag(teal, traffic, 3)
    teal.kill9()
    before = traffic.transactions
    time.sleep(1.5)
    tell(f"While teal was dead the shop made {count(traffic.transactions - before)} more transactions.")
    teal.start()
    until(lambda: os.path.exists(teal.home / "state" / "teal.sock"), 10)
    teal.command("wait", "caught-up", "--timeout", "60s")
    teal.seen("engine.claimed", "source.connected")
    good("caught up: a barrier committed on blue has been seen on green")


def lose_green(teal, traffic, blue, green):
    chapter("kill -9 of green", """
        Green's server dies. Blue must not notice: teal goes on receiving into its spool, so that blue
        can forget its log.""")
    confirmed = "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = 'teal_shop'"
    green.server.kill9()
    before, sold = blue.value(confirmed), traffic.transactions
    time.sleep(4)
    quote(teal.command("status"))
    moved = until(lambda: blue.value(confirmed) - before, 10)
    require(traffic.failure is None, f"blue's clients were disturbed: {traffic.failure}")
    good(f"without green: {count(traffic.transactions - sold)} transactions on blue, and its slot moved on "
         f"by {count(int(moved))} bytes")
    green.server.start()
    teal.command("wait", "caught-up", "--timeout", "60s")
    good("green is back, and caught up")
    watch_lag(teal, traffic, 2)


def prove(teal, traffic, blue, green):
    chapter("The proof", """
        The shop closes, and everything is compared, row by row and digit by digit, by a program that
        shares no code with teal.""")
    traffic.stop()
    require(traffic.failure is None, f"blue's clients were disturbed: {traffic.failure}")
    teal.command("wait", "caught-up", "--timeout", "60s")
    quote(teal.command("status"))
    status = teal.status()
    require(status["apply"]["conflicts"] == 0, "there were conflicts")
    require(status["error"] is None and status["lag"]["seconds"] == 0, f"not at rest: {status}")
    until(lambda: same_sequences(blue, green), 20)
    differences = compare(blue, green)
    require(not differences, "the databases differ:\n" + "\n".join(differences))
    rows = sum(green.value(f"SELECT count(*) FROM {table}") for table in
               ("customers", "products", "orders", "order_lines", "events"))
    good(f"{count(rows)} rows and every sequence are the same on both sides, after "
         f"{count(traffic.transactions)} transactions, two deaths of teal and one of green")
    with green.connect() as connection:
        connection.execute("UPDATE products SET stock = stock + 1 WHERE id = 17")
        require(compare(blue, green, tables=["public.products"]), "the comparison is blind")
        connection.execute("UPDATE products SET stock = stock - 1 WHERE id = 17")
    good("and the comparison does see a single changed number: tried")


def same_sequences(blue, green):
    names = ["customers_id_seq", "orders_id_seq"]
    return all(blue.execute(f"SELECT last_value, is_called FROM {name}") ==
               green.execute(f"SELECT last_value, is_called FROM {name}") for name in names)


def finish(teal, blue, green):
    chapter("The end", "teal finish removes everything teal made on both sides, except the rows.")
    teal.command("finish", "--confirm", "shop")
    require(teal.process.wait(30) == 0, f"teal run ended with {teal.process.returncode}")
    left = [name for side in (blue, green) for name, in side.execute("""
        SELECT slot_name::text FROM pg_replication_slots UNION ALL SELECT pubname FROM pg_publication
        UNION ALL SELECT nspname FROM pg_namespace WHERE nspname = 'teal'""")]
    require(not left, f"teal left behind {left}")
    good("no slot, publication or schema of teal is left on either side")


def story(stack):
    home = folder("teal-demo-")
    stack.callback(lambda: subprocess.run(["rm", "-rf", home], check=False))
    blue, green = make_servers(stack)
    teal = Engine(home)
    stack.callback(teal.close)
    traffic = Traffic(blue)
    stack.callback(traffic.stop)
    traffic.start()
    try:
        configure(teal, blue, green)
        copy(teal, traffic)
        follow(teal, traffic)
        lose_green(teal, traffic, blue, green)
        prove(teal, traffic, blue, green)
        finish(teal, blue, green)
    except Exception:
        if teal.log.exists():
            print("The last lines of teal.log:", file=sys.stderr)
            print("\n".join(teal.log.read_text(errors="replace").splitlines()[-20:]), file=sys.stderr)
        raise


def interrupted(number, _frame):
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # Nothing stops the cleaning up.
    print("\ndemo: interrupted; cleaning up", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def main():
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # What is cut off is cut off on purpose.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupted)
    try:
        with contextlib.ExitStack() as stack:
            story(stack)
    except (Failed, AssertionError, TimeoutError, RuntimeError, psycopg.Error, subprocess.TimeoutExpired) as failure:
        print(painted("31", "FAILED: ") + str(failure), file=sys.stderr)
        return 1
    print(f"\n{painted('1;32', 'All of it came out as it should')}, in {time.monotonic() - BEGIN:.0f} s. "
          "The servers and their data are gone.")
    print("Next: README.md, \"Your own two databases\".")
    return 0


if __name__ == "__main__":
    sys.exit(main())
