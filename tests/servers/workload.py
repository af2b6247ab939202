"""Traffic that is hard to replicate: every operation is here because some replicator gets it wrong.

Each transaction also counts itself twice: it adds 1 to its thread's counter and writes a line into a
journal without a key. Whatever a crash does to commits, in every consistent copy the two agree and no
line is there twice (`ledger`), so a lost or doubled transaction shows without looking at blue.
"""

import collections
import pathlib
import random
import threading
import time

import psycopg

SCHEMA = pathlib.Path(__file__).with_name("workload.sql")

TEXTS = ["", " ", "plain", "it's", 'say "hi"', "back\\slash \\n", "tab\tline\nreturn\r", "\\N", "\\.",
         "NULL", "{a,b}", "ünïcödé", "日本語", "\U0001f418", "\u202eright", "\x01\x7f", "%s $1 :x", "--", "/*"]

# Column of `kinds` -> literals. A value of None is NULL; every column may be that too.
KINDS = {
    "a_bool": ["t", "f"],
    "a_int2": ["-32768", "0", "32767"],
    "a_int4": ["-2147483648", "0", "2147483647"],
    "a_int8": ["-9223372036854775808", "0", "9223372036854775807", "9007199254740993"],
    "a_numeric": ["NaN", "0", "0.000", "-0.10", "1", "1.0", "1.00", "1e-30", "1e300",
                  "12345678901234567890.123456789012345678901234567890"],
    "a_price": ["0", "19.99", "NaN", None],
    "a_float4": ["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1"],
    "a_float8": ["NaN", "Infinity", "-Infinity", "-0", "0", "5e-324", "1.7976931348623157e308",
                 "0.1", "0.30000000000000004"],
    "a_text": TEXTS,
    "a_varchar": ["", "short", "trailing   "],
    "a_char": ["", "a", "abcdefgh"],
    "a_bytea": ["\\x", "\\x00", "\\x00ff5c5c27220a0d", "\\x" + "ab" * 3000],
    "a_date": ["infinity", "-infinity", "0044-03-15 BC", "2024-02-29", "5874897-12-31"],
    "a_time": ["00:00:00", "24:00:00", "12:34:56.789012"],
    "a_timetz": ["00:00:00+15:59", "23:59:59.999999-12"],
    "a_timestamp": ["infinity", "-infinity", "0001-01-01 00:00:00 BC", "2024-02-29 23:59:59.999999"],
    "a_timestamptz": ["infinity", "-infinity", "2024-10-27 02:30:00+02", "294276-12-31 23:59:59+00"],
    "a_interval": ["0", "1 mon -1 day 00:00:00.000001", "-178000000 years", "1 year 13 mons"],
    "a_uuid": ["00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "a_inet": ["127.0.0.1", "10.1.2.3/8", "::1", "2001:db8::/32"],
    "a_cidr": ["10.0.0.0/8", "2001:db8::/32"],
    "a_macaddr": ["08:00:2b:01:02:03"],
    "a_json": ['{"b": 1,  "a": [1, 2],"b":2}', "null", '"\\u00e9"', "  1.0 "],
    "a_jsonb": ['{"b": 1, "a": [1.0, 1.00, null]}', "null", '"é"', "1e400", '{"k": "it\'s \\"q\\" \\\\"}'],
    "a_ints": ["{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[0:2]={7,8,9}"],
    "a_texts": ["{}", '{NULL,"NULL","",a\\"b,"c,d","{}","\\\\"}', '{"it\'s","new\nline"}'],
    "a_mood": ["sad", "ok", "it's"],
    "a_moods": ["{sad,NULL,ok}", "{}"],
    "a_address": ['("","",)', '("Main ""St"", 1\\\\2",12345,"{1,NULL}")', "(,,)"],
    "a_addresses": ['{"(a,b,{})",NULL,"(\\"x \\"\\"y\\"\\"\\",,)"}'],
    "a_range": ["empty", "[1,5)", "(,7)", "[3,)"],
    "a_tstzrange": ['["2024-01-01 00:00:00+00",infinity)', "(,)"],
    "a_bit": ["00000", "10101"],
    "a_varbit": ["", "1", "0101010101010"],
    "a_tsvector": ["'it''s':1A 'fat':2B,4C"],
    "a_point": ["(0,-0)", "(1e-300,NaN)"],
    "a_box": ["(1,1),(0,0)"],
    "a_oid": ["0", "4294967295"],
}
KINDS_14 = {"a_numeric": ["Infinity", "-Infinity"], "a_multirange": ["{}", "{[1,3),[5,)}"]}

# What a transaction among others may run into; it is rolled back and counts for nothing.
EXPECTED = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure,
            psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation,
            psycopg.errors.LockNotAvailable)

PLACES = 40
DOCUMENTS = 12
ORDERS_MAX = 400
KINDS_MAX = 300


class Workload:
    """`version` is the oldest server the rows must fit on. `without` names operations to leave out;
    `pause` is slept between the transactions of a thread. `journal` is its replica identity."""

    def __init__(self, database, seed=1, threads=3, version=None, without=(), pause=0.0,
                 bulk_rows=5000, journal="nothing"):
        self.database = database
        self.seed = seed
        self.version = min(version or database.server.version, database.server.version)
        self.pause = pause
        self.bulk_rows = bulk_rows
        self.journal = journal
        self.operations = [(name, weight) for name, weight in OPERATIONS.items() if name not in without]
        self.threads = [threading.Thread(target=self._work, args=[n], daemon=True) for n in range(threads)]
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.done = collections.Counter()
        self.failures = []

    def create(self):
        """The tables with their first rows."""
        script = SCHEMA.read_text()
        with self.database.connect() as connection:
            connection.execute(script)
            connection.execute(f"ALTER TABLE journal REPLICA IDENTITY {self.journal}")
            if self.version >= 14:
                connection.execute("ALTER TABLE kinds ADD a_multirange int4multirange")
            connection.execute("INSERT INTO counters SELECT n, 0 FROM generate_series(0, %s) n",
                               [len(self.threads) - 1])
        return self

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        """Returns when the last transaction has ended; raises what went wrong in any."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
        return self.done

    def run(self, seconds):
        self.start()
        time.sleep(seconds)
        return self.stop()

    def transactions(self):
        with self.lock:
            return self.done.total()

    def _work(self, number):
        choice = random.Random(f"{self.seed}/{number}")
        names, weights = zip(*self.operations)
        connection, counted = None, 0
        while not self.stopping.is_set():
            try:
                connection = connection or self.database.connect(autocommit=False)
                name = choice.choices(names, weights)[0]
                counted += 1
                self._transaction(connection, choice, number, counted, name)
                with self.lock:
                    self.done[name] += 1
            except EXPECTED:
                connection.rollback()
            except psycopg.OperationalError:  # The server is gone; whether it committed is unknown.
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.1)
            except Exception as failure:  # pylint: disable=broad-except
                with self.lock:
                    self.failures.append(failure)
                break
            if self.pause:
                time.sleep(self.pause)
        if connection is not None:
            connection.close()

    def _transaction(self, connection, choice, number, counted, name):
        run = connection.execute
        run("SET LOCAL lock_timeout = '5s'")
        OPERATION[name](self, connection, choice)
        run("UPDATE counters SET value = value + 1 WHERE id = %s", [number])
        run("INSERT INTO journal (thread, number, what) VALUES (%s, %s, %s)", [number, counted, name])
        connection.commit()

    def kind_values(self, choice):
        values = {}
        for column, literals in KINDS.items():
            if choice.random() < 0.85:
                values[column] = choice.choice(literals)
        if self.version >= 14:
            for column, literals in KINDS_14.items():
                if choice.random() < 0.3:
                    values[column] = choice.choice(literals)
        return values


def ledger(database):
    """What is wrong with the counts in this database, as text; empty if nothing is."""
    problems = [f"journal: thread {thread} number {number} is there {times} times"
                for thread, number, times in database.execute("""
                    SELECT thread, number, count(*) FROM journal GROUP BY 1, 2 HAVING count(*) > 1""")]
    problems += [f"thread {thread}: {value} transactions counted, {lines} in the journal"
                 for thread, value, lines in database.execute("""
                    SELECT c.id, c.value, (SELECT count(*) FROM journal WHERE thread = c.id)
                    FROM counters c WHERE c.value <> (SELECT count(*) FROM journal WHERE thread = c.id)""")]
    return problems


OPERATIONS, OPERATION = {}, {}


def operation(weight):
    def register(function):
        OPERATIONS[function.__name__] = weight
        OPERATION[function.__name__] = function
        return function
    return register


def some_id(connection, table, column="id"):
    """One at random, or None."""
    row = connection.execute(f"SELECT {column} FROM {table} ORDER BY random() LIMIT 1").fetchone()
    return row and row[0]


@operation(10)
def order(_workload, connection, choice):
    run = connection.execute
    customer = run("INSERT INTO customers (name, email, tags) VALUES (%s, %s, %s) RETURNING id", [
        choice.choice(TEXTS), f"{choice.getrandbits(60)}@example.net", [choice.choice(TEXTS), None]]).fetchone()[0]
    for _ in range(choice.randint(1, 3)):
        made = run("INSERT INTO orders (customer, total, note) VALUES (%s, %s, %s) RETURNING id", [
            customer, choice.choice(["10", "10.0", "NaN", "0.001"]), choice.choice(TEXTS)]).fetchone()[0]
        for line in range(choice.randint(0, 4)):
            run("INSERT INTO items VALUES (%s, %s, %s, %s, %s)", [
                made, line, choice.choice(TEXTS), choice.randint(1, 9), "2.50"])


@operation(10)
def change_order(_workload, connection, choice):
    chosen = some_id(connection, "orders")
    connection.execute("UPDATE orders SET note = %s, placed = now() WHERE id = %s", [choice.choice(TEXTS), chosen])
    connection.execute("UPDATE items SET quantity = quantity + 1 WHERE order_id = %s", [chosen])


@operation(4)
def forget_customers(_workload, connection, _choice):
    """Deletes that cascade: the target must not cascade a second time."""
    connection.execute("""
        DELETE FROM customers WHERE id IN (
            SELECT customer FROM orders GROUP BY 1 ORDER BY 1
            LIMIT (SELECT greatest(1, (count(*) - %s) / 2) FROM orders))""", [ORDERS_MAX])


@operation(6)
def revise(_workload, connection, choice):
    """The large text stays where it is, so it is not in the WAL."""
    connection.execute("UPDATE documents SET revision = revision + 1 WHERE id = %s", [choice.randint(1, DOCUMENTS)])


@operation(3)
def rewrite(_workload, connection, choice):
    body = choice.choice(["", "x" * 100, "é" * 5000, "".join(choice.choices("abcdef\\'\n", k=20000))])
    chosen = choice.randint(1, DOCUMENTS)
    connection.execute("UPDATE documents SET body = %s WHERE id = %s", [body, chosen])
    connection.execute("UPDATE documents SET revision = revision + 1 WHERE id = %s", [chosen])
    connection.execute("UPDATE documents SET extra = %s WHERE id = %s", [choice.randbytes(4000), chosen])


@operation(2)
def renumber(_workload, connection, choice):
    """A new key for a row whose large text does not change."""
    chosen = choice.randint(1, DOCUMENTS)
    connection.execute("UPDATE documents SET id = -id WHERE id = %s", [chosen])
    connection.execute("UPDATE documents SET id = -id WHERE id = %s", [-chosen])


@operation(8)
def read_sensor(_workload, connection, choice):
    """No key, all columns identify, and there are equal rows: one of them changes, no other."""
    row = [choice.randint(1, 3), choice.choice(["0.5", "NaN", None]), choice.choice(["one", None])]
    for _ in range(choice.randint(1, 3)):
        connection.execute("INSERT INTO readings VALUES (%s, %s, %s)", row)
    one = "(SELECT ctid FROM readings ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED)"
    connection.execute(f"UPDATE readings SET label = %s WHERE ctid = {one}", [choice.choice(["two", None])])
    if choice.random() < 0.6:
        connection.execute(f"DELETE FROM readings WHERE ctid IN {one.replace('LIMIT 1', 'LIMIT 2')}")


@operation(3)
def lookalikes(_workload, connection, choice):
    """Rows that are equal for = and different as text."""
    row = [choice.choice(["0", "-0"]), choice.choice(["1", "1.0", "1.00"])]
    connection.execute("INSERT INTO alike VALUES (%s, %s)", row)
    if choice.random() < 0.7:
        connection.execute("DELETE FROM alike WHERE ctid = (SELECT ctid FROM alike ORDER BY random() LIMIT 1)")


@operation(5)
def rename(_workload, connection, choice):
    """A unique index identifies, and its columns change."""
    run = connection.execute
    run("INSERT INTO places (code, land, label) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", [
        choice.randint(1, 50), choice.choice(TEXTS), choice.choice(TEXTS)])
    run("UPDATE places SET code = code + 1000, label = %s WHERE code = %s", [
        choice.choice(TEXTS), choice.randint(1, 50)])
    run("DELETE FROM places WHERE code > 1000 AND code %% 3 = %s", [choice.randint(0, 2)])


@operation(6)
def move_event(_workload, connection, choice):
    """From one partition to another: a delete here, an insert there."""
    run = connection.execute
    run("INSERT INTO events (region, payload) VALUES (%s, %s)", [choice.choice(["eu", "us", "mars"]), choice.choice(TEXTS)])
    run("UPDATE events SET region = %s WHERE id = %s", [choice.choice(["eu", "us", "moon"]), some_id(connection, "events")])
    if choice.random() < 0.5:
        run("DELETE FROM events WHERE id = %s", [some_id(connection, "events")])


@operation(5)
def swap_seats(_workload, connection, choice):
    """Unique values change places in one statement; the constraint looks only at the end."""
    a, b = choice.sample(range(1, PLACES + 1), 2)
    connection.execute("""
        UPDATE seats s SET place = o.place FROM seats o
        WHERE (s.id, o.id) IN ((%(a)s, %(b)s), (%(b)s, %(a)s))""", {"a": a, "b": b})


@operation(5)
def swap_ranks(_workload, connection, choice):
    """The same by way of a third value, since this constraint looks at once."""
    run = connection.execute
    a, b = choice.sample(range(1, PLACES + 1), 2)
    held = dict(run("SELECT id, place FROM ranks WHERE id IN (%s, %s) ORDER BY id FOR UPDATE", [a, b]).fetchall())
    if len(held) < 2:  # Another thread is replacing one.
        return
    run("UPDATE ranks SET place = -place WHERE id = %s", [a])
    run("UPDATE ranks SET place = %s WHERE id = %s", [held[a], b])
    run("UPDATE ranks SET place = %s WHERE id = %s", [held[b], a])


@operation(3)
def replace_rank(_workload, connection, choice):
    """Delete and insert of one key in one transaction."""
    gone = connection.execute("DELETE FROM ranks WHERE id = %s RETURNING id, place", [
        choice.randint(1, PLACES)]).fetchone()
    if gone:
        connection.execute("INSERT INTO ranks VALUES (%s, %s, %s)", [*gone, choice.choice(TEXTS)])


@operation(4)
def change_mind(_workload, connection, choice):
    """Savepoints, some of them rolled back, one inside another."""
    run = connection.execute
    key = choice.getrandbits(30)
    run("INSERT INTO notes VALUES (%s, 'kept')", [key])
    run("SAVEPOINT a")
    run("INSERT INTO notes VALUES (%s, 'gone')", [key + (1 << 31)])
    run("SAVEPOINT b")
    run("UPDATE notes SET label = 'gone too' WHERE id = %s", [key])
    run("ROLLBACK TO a")
    run("SAVEPOINT c")
    run("UPDATE notes SET label = %s WHERE id = %s", [choice.choice(TEXTS), key])
    run("RELEASE c")
    if choice.random() < 0.3:
        run("DELETE FROM notes WHERE id < %s", [choice.getrandbits(29)])


@operation(1)
def bulk(workload, connection, choice):
    """One large transaction."""
    start = choice.getrandbits(20) * 100000
    connection.execute("""
        INSERT INTO bulk SELECT %(start)s + n, repeat(chr(97 + n %% 26), 40)
        FROM generate_series(1, %(rows)s) n ON CONFLICT DO NOTHING""", {"start": start, "rows": workload.bulk_rows})
    connection.execute("UPDATE bulk SET label = label || '!' WHERE id %% 2 = 0 AND id > %s", [start])
    connection.execute("DELETE FROM bulk WHERE id %% 5 > 0 OR id < %s", [start])


@operation(1)
def empty(_workload, connection, choice):
    """TRUNCATE between rows, of two tables that refer to each other, with their sequence."""
    run = connection.execute
    run("INSERT INTO batches (label) VALUES ('before')")
    run("TRUNCATE batches, batch_lines RESTART IDENTITY")
    for _ in range(choice.randint(0, 5)):
        made = run("INSERT INTO batches (label) VALUES (%s) RETURNING id", [choice.choice(TEXTS)]).fetchone()[0]
        run("INSERT INTO batch_lines VALUES (%s, 1), (%s, 2)", [made, made])


@operation(3)
def draw(_workload, connection, _choice):
    connection.execute("SELECT nextval('tickets')")
    connection.execute("INSERT INTO batches (label) VALUES ('drawn')")


@operation(8)
def all_kinds(workload, connection, choice):
    values = workload.kind_values(choice)
    columns, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    if values:
        connection.execute(f"INSERT INTO kinds ({columns}) VALUES ({marks})", list(values.values()))
    chosen, values = some_id(connection, "kinds"), workload.kind_values(choice)
    if values and chosen:
        changes = ", ".join(f"{column} = %s" for column in values)
        connection.execute(f"UPDATE kinds SET {changes} WHERE id = %s", [*values.values(), chosen])
    connection.execute("""
        DELETE FROM kinds WHERE id <= (SELECT id FROM kinds ORDER BY id DESC OFFSET %s LIMIT 1)""", [KINDS_MAX])


@operation(3)
def odd_names(_workload, connection, choice):
    connection.execute('''
        INSERT INTO "Odd ""Schema"""."Select ""from""" VALUES (%s, %s)
        ON CONFLICT ("where") DO UPDATE SET "col umn" = excluded."col umn"
        ''', [choice.choice(TEXTS), choice.choice(TEXTS)])


@operation(2)
def nothing(_workload, connection, choice):
    """Writes that leave no row behind, and a rollback of everything."""
    connection.execute("INSERT INTO notes VALUES (%s, 'short-lived')", [-choice.getrandbits(30)])
    connection.execute("DELETE FROM notes WHERE id <= 0")
    if choice.random() < 0.5:
        connection.rollback()
