"""What happens on the servers from which the files in tests/golden/postgres are captured.

A scenario is the tables it begins with and, once the slots stand, steps: (session, statements).
Each session is a connection of its own, in autocommit. {many} is a number of rows that is large
enough for the server to stream the transaction that writes them."""

ROWS = ("""
CREATE TABLE plain (id int PRIMARY KEY, name text, note text);
CREATE TABLE pair (a int, b text, v int, PRIMARY KEY (b, a));
CREATE TABLE everything (id int, v text, big text);
ALTER TABLE everything REPLICA IDENTITY FULL;
ALTER TABLE everything ALTER big SET STORAGE EXTERNAL;
CREATE TABLE chosen (id int PRIMARY KEY, code text NOT NULL, v text);
CREATE UNIQUE INDEX chosen_code ON chosen (code);
ALTER TABLE chosen REPLICA IDENTITY USING INDEX chosen_code;
CREATE TABLE nothing (id int PRIMARY KEY, v text);
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE keyless (v text);
CREATE TABLE toasted (id int PRIMARY KEY, big text, v int);
ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL;
CREATE TABLE long_key (key text PRIMARY KEY, v int);
ALTER TABLE long_key ALTER key SET STORAGE EXTERNAL;
""", [
    ("a", "INSERT INTO plain VALUES (1, 'one', NULL), (2, 'two', ''), (3, NULL, 'x')"),
    ("a", "UPDATE plain SET name = 'ONE' WHERE id = 1"),
    ("a", "UPDATE plain SET id = 20, note = NULL WHERE id = 2"),
    ("a", "DELETE FROM plain WHERE id = 3"),
    ("a", "INSERT INTO pair VALUES (1, 'x', 10), (2, 'y', 20)"),
    ("a", "UPDATE pair SET v = 11 WHERE a = 1; UPDATE pair SET b = 'z' WHERE a = 2"),
    ("a", "DELETE FROM pair"),
    ("a", "INSERT INTO everything VALUES (1, NULL, repeat('t', 2100)), (NULL, 'v', NULL)"),
    ("a", "UPDATE everything SET v = 'w' WHERE id = 1; UPDATE everything SET id = 7 WHERE id IS NULL"),
    ("a", "DELETE FROM everything"),
    ("a", "INSERT INTO chosen VALUES (1, 'c', 'v')"),
    ("a", "UPDATE chosen SET v = 'w', id = 2; UPDATE chosen SET code = 'd'"),
    ("a", "DELETE FROM chosen"),
    ("a", "INSERT INTO nothing VALUES (1, 'v'); INSERT INTO keyless VALUES ('v')"),
    ("a", "INSERT INTO toasted VALUES (1, repeat('b', 2100), 1)"),
    ("a", "UPDATE toasted SET v = 2; UPDATE toasted SET big = repeat('c', 2100)"),
    ("a", "UPDATE toasted SET id = 2"),
    ("a", "DELETE FROM toasted"),
    ("a", "INSERT INTO long_key VALUES (repeat('k', 2100), 1)"),
    ("a", "UPDATE long_key SET v = 2"),
])

TYPES = ("""
CREATE TYPE mood AS ENUM ('sad', 'a b');
CREATE TYPE complex AS (re float8, "im ag" text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE numbers (id smallserial PRIMARY KEY, i4 int, i8 bigint, f4 real, f8 float8, n numeric,
  nn numeric(12, 3), m money, b bool, o oid, bits bit(5), vb varbit(9));
CREATE TABLE times (id int PRIMARY KEY, d date, t time(3), tz timetz, ts timestamp, tstz timestamptz,
  i interval);
CREATE TABLE texts (id uuid PRIMARY KEY, c char(5), v varchar(20), t text, n name, ch "char",
  by bytea, j json, jb jsonb, tv tsvector, tq tsquery);
CREATE TABLE others (id int PRIMARY KEY, e mood, x complex, d positive, a int[], aa text[], r int4range,
  nr numrange, inet inet, cidr cidr, mac macaddr, mac8 macaddr8, lsn pg_lsn,
  p point, bx box, ln line, pa path, po polygon, ci circle,
  g int GENERATED ALWAYS AS (id * 2) STORED, ident int GENERATED ALWAYS AS IDENTITY);
""", [
    ("a", """INSERT INTO numbers VALUES
       (-32768, -2147483648, -9223372036854775808, 1.17549435e-38, 5e-324, 'NaN', -0.001, -12.34,
        false, 4294967295, B'10101', B''),
       (1, 2147483647, 9223372036854775807, 'Infinity', '-Infinity', 1e40, 123456789.125, 0, true, 0,
        B'00000', B'101')"""),
    ("a", "INSERT INTO numbers VALUES (2, 0, 0, -0.0, 0.1, 0.000000000000000000000000000001)"),
    ("a", """INSERT INTO times VALUES
       (1, '4713-01-01 BC', '23:59:59.999', '00:00:00+15:59', 'infinity', '-infinity', '-1 mon 2 days'),
       (2, '5874897-12-31', '24:00:00', '12:34:56.789012-08', '2024-02-29 12:34:56.789012',
        '2024-02-29 12:34:56.789012+14', '178000000 years')"""),
    ("a", """INSERT INTO texts VALUES
       ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'ab', '', E'line\\nnext\\t''quoted'' \\\\', 'n', 'c',
        '\\x00ff27', '{"a":  1}', '{"b": [1, null]}', 'fat:2 cat:1', 'a & !b')"""),
    ("a", "INSERT INTO texts VALUES ('00000000-0000-0000-0000-000000000000')"),
    ("a", """INSERT INTO others VALUES
       (1, 'a b', '(1.5,"a ""b"", c")', 7, '{{1,NULL},{3,4}}', '{"",NULL,"a,b","\\"q\\""}', '[1,5)',
        '(,2.5]', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
        '16/B374D848', '(1,2)', '(3,4),(1,2)', '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))',
        '<(1,2),3>')"""),
    ("a", "INSERT INTO others VALUES (2)"),
    ("a", "UPDATE others SET a = NULL, g = DEFAULT WHERE id = 1"),
])

SHAPES = ("""
CREATE TABLE parent (id serial PRIMARY KEY);
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent);
CREATE TABLE lone (id int PRIMARY KEY);
CREATE TABLE moving (id int PRIMARY KEY, v text);
CREATE TABLE temporary_shape (id int PRIMARY KEY);
CREATE SCHEMA "Sch.ema ""q"" s";
CREATE TABLE "Sch.ema ""q"" s".".Ta'b\\le " ("Sp ace" int, "a'b\\" text, "Key" int PRIMARY KEY);
CREATE TABLE "täble_表" ("ключ" text PRIMARY KEY, "значение" text);
CREATE TABLE no_columns ();
""", [
    ("a", "INSERT INTO parent DEFAULT VALUES; INSERT INTO child VALUES (5, 1); INSERT INTO lone VALUES (1)"),
    ("a", "TRUNCATE parent, child RESTART IDENTITY"),
    ("a", "TRUNCATE lone"),
    ("a", """BEGIN; INSERT INTO moving VALUES (1, 'before');
       ALTER TABLE moving ADD extra int DEFAULT 5; INSERT INTO moving VALUES (2, 'between', 6);
       ALTER TABLE moving DROP v; ALTER TABLE moving RENAME extra TO more;
       UPDATE moving SET more = 7 WHERE id = 1; COMMIT"""),
    ("a", "DELETE FROM moving WHERE id = 2"),
    ("a", "ALTER TABLE moving ALTER more TYPE numeric(8, 2); INSERT INTO moving VALUES (3, 1.5)"),
    ("a", "ALTER TABLE moving REPLICA IDENTITY FULL; UPDATE moving SET more = 2 WHERE id = 3"),
    ("a", """BEGIN; INSERT INTO lone VALUES (1); SAVEPOINT s; INSERT INTO lone VALUES (2);
       ROLLBACK TO s; INSERT INTO lone VALUES (3); SAVEPOINT t; INSERT INTO lone VALUES (4);
       RELEASE t; COMMIT"""),
    ("a", "BEGIN; INSERT INTO lone VALUES (9); ROLLBACK"),
    ("a", "BEGIN; CREATE TABLE later (id int PRIMARY KEY); COMMIT"),
    ("a", "BEGIN; SAVEPOINT s; ALTER TABLE lone ADD w int; ROLLBACK TO s; COMMIT"),
    ("a", "INSERT INTO later VALUES (1)"),
    ("a", """INSERT INTO "Sch.ema ""q"" s".".Ta'b\\le " VALUES (1, 'x', 2)"""),
    ("a", """UPDATE "Sch.ema ""q"" s".".Ta'b\\le " SET "Key" = 3"""),
    ("a", """INSERT INTO "täble_表" VALUES ('ключ 🔑', 'naïve 日本語')"""),
    ("a", """UPDATE "täble_表" SET "значение" = U&'\\0065\\0301'"""),
    ("a", "INSERT INTO no_columns DEFAULT VALUES"),
    ("a", """BEGIN; CREATE TABLE temporary_too (id int); INSERT INTO temporary_too VALUES (1);
       DROP TABLE temporary_too; COMMIT"""),
])

# Not published, but counted by the server when it decides what to stream: few rows suffice.
PAD = "pad text GENERATED ALWAYS AS (repeat('x', 1500)) STORED"

STREAMS = ("""
CREATE TABLE load (id int PRIMARY KEY, v int, {pad});
CREATE TABLE other (id int PRIMARY KEY, v int, {pad});
CREATE TABLE torn (id int PRIMARY KEY, v int, {pad});
""".replace("{pad}", PAD), [
    ("a", "BEGIN; INSERT INTO load SELECT n, 1 FROM generate_series(1, {many}) n"),
    ("b", "BEGIN; INSERT INTO other SELECT n, 2 FROM generate_series(1, {many}) n"),
    ("c", "INSERT INTO load VALUES (-1, 3)"),
    ("a", "SAVEPOINT s; INSERT INTO load SELECT n, 4 FROM generate_series(10001, 10000 + {many}) n"),
    ("a", "ROLLBACK TO s; INSERT INTO load VALUES (-2, 5)"),
    ("b", "SAVEPOINT s; UPDATE other SET v = 6 WHERE id < {many} / 2; RELEASE s"),
    ("c", "INSERT INTO other VALUES (-3, 7)"),
    ("b", "COMMIT"),
    ("c", "INSERT INTO other VALUES (-4, 8)"),
    ("a", "INSERT INTO load SELECT n, 9 FROM generate_series(20001, 20000 + {many}) n; COMMIT"),
    # All of it rolled back, while another goes on.
    ("a", "BEGIN; INSERT INTO load SELECT n, 10 FROM generate_series(30001, 30000 + {many}) n"),
    ("b", "BEGIN; DELETE FROM other WHERE id > 0"),
    ("a", "ROLLBACK"),
    ("b", "COMMIT"),
    # Its shape changes under way, and is seen by the others only then.
    ("a", """BEGIN; ALTER TABLE other ADD w int;
       INSERT INTO other (id, v, w) SELECT n, 11, 12 FROM generate_series(1, {many}) n"""),
    ("c", "INSERT INTO load VALUES (-5, 13)"),
    ("a", "COMMIT"),
    ("c", "INSERT INTO other (id, v, w) VALUES (-6, 14, 15)"),
    # A part of it told of a shape that others have changed by the time it commits.
    ("a", """BEGIN; SAVEPOINT s; INSERT INTO torn SELECT n, 16 FROM generate_series(1, {many}) n;
       ROLLBACK TO s; INSERT INTO load VALUES (-7, 17)"""),
    ("b", "ALTER TABLE torn ADD w int; INSERT INTO torn (id, v, w) VALUES (1, 18, 19)"),
    ("a", "COMMIT"),
    ("b", "INSERT INTO torn (id, v, w) VALUES (2, 20, 21)"),
    # The same, but it was its own change, and was undone with the part.
    ("a", """BEGIN; SAVEPOINT s; ALTER TABLE torn ADD x int;
       INSERT INTO torn (id, v, w, x) SELECT n, 22, 23, 24 FROM generate_series(101, 100 + {many}) n;
       ROLLBACK TO s; INSERT INTO load VALUES (-8, 25)"""),
    ("b", "INSERT INTO torn (id, v, w) VALUES (3, 26, 27)"),
    ("a", "COMMIT"),
    ("b", "INSERT INTO torn (id, v, w) VALUES (4, 28, 29)"),
    ("b", "TRUNCATE load, other"),
])

SCENARIOS = {"rows": ROWS, "types": TYPES, "shapes": SHAPES, "streams": STREAMS}
