"""Blue as old as logical replication: 10 to 12, where publications know fewer kinds of tables and
changes, and the catalogue fewer columns."""

import json

import pytest

from harness import until
from steps import ready, settled

TABLES = """
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE DOMAIN price AS numeric CHECK (value >= 0);
    CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, m mood, tags text[]);
    CREATE TABLE orders (id serial PRIMARY KEY, customer bigint REFERENCES customers ON DELETE CASCADE, p price,
        at timestamptz DEFAULT now());
    CREATE TABLE events (id int, region text) PARTITION BY LIST (region);
    CREATE TABLE events_eu PARTITION OF events (PRIMARY KEY (id)) FOR VALUES IN ('eu');
    CREATE TABLE events_us PARTITION OF events (PRIMARY KEY (id)) FOR VALUES IN ('us');
    CREATE TABLE parents (id int PRIMARY KEY, a text); CREATE TABLE children (b int, PRIMARY KEY (id)) INHERITS (parents);
    CREATE TABLE readings (sensor int, value float8); ALTER TABLE readings REPLICA IDENTITY FULL;
    CREATE TABLE documents (id int PRIMARY KEY, n int, body text); ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;
    CREATE VIEW sums AS SELECT customer, sum(p) AS total FROM orders GROUP BY 1;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM orders;
    CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2'; CREATE INDEX ON orders (twice(id));
    INSERT INTO customers (name, m, tags) SELECT 'c' || n, 'ok', ARRAY['a', NULL, '"' || n] FROM generate_series(1, 500) n;
    INSERT INTO orders (customer, p) SELECT n, n * 1.10 FROM generate_series(1, 500) n;
    INSERT INTO documents SELECT n, 0, repeat('text' || n, 2000) FROM generate_series(1, 20) n;
    INSERT INTO readings SELECT n % 3, n / 7.0 FROM generate_series(1, 60) n;
    INSERT INTO children VALUES (1, 'x', 2); INSERT INTO parents VALUES (2, 'y')"""

# Of one round `n`.
ROUND = """
    INSERT INTO customers (name, m) VALUES ('new {n}', 'sad');
    UPDATE customers SET tags = tags || 'more {n}'::text WHERE id % 50 = {n} % 50; DELETE FROM customers WHERE id = {n};
    INSERT INTO orders (customer, p) SELECT id, 3.00 FROM customers WHERE id % 40 = {n} % 40;
    INSERT INTO events VALUES ({n}, 'eu'), ({n}, 'us'); DELETE FROM events WHERE id = {n} - 3;
    UPDATE documents SET n = {n} WHERE id = {n} % 20; UPDATE documents SET body = 'short {n}' WHERE id = {n} % 7;
    INSERT INTO readings VALUES ({n}, 'NaN'), ({n}, 0.1); DELETE FROM readings WHERE sensor = {n} - 4;
    UPDATE children SET b = {n}; UPDATE parents SET a = 'round {n}'"""


@pytest.mark.parametrize("pair", [(10, 18), (11, 15), (12, 12)], ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_an_old_source_is_copied_followed_and_resumed(databases, teal, pair):
    blue, green = databases(*pair)
    blue.execute(TABLES)
    engine = ready(teal(blue, green))
    for n in range(1, 40):
        blue.execute(ROUND.format(n=n))
        if n == 15:
            until(lambda: engine.status()["apply"]["transactions"] > 5)
            engine.kill9()
        if n == 25:
            engine.start()
    settled(engine, blue, green)
    assert green.value("SELECT count(*) FROM events") > 0
    assert engine.terminate() == 0


@pytest.mark.parametrize("version", [10, 11, 12])
def test_check_of_an_old_source_finds_nothing_that_stops_it(databases, teal, version):
    blue, green = databases(version, 18)
    blue.execute(TABLES)
    done = teal(blue, green).run("check", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [f for f in json.loads(done.stdout)["findings"] if f["severity"] == "error"] == []
