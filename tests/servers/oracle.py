"""Says whether two databases hold the same rows, without any of teal's code.

Each side is read in one snapshot. A table is its rows as COPY writes them, in an order that follows
from the rows alone, so duplicates count and every digit shows. Nothing is tolerated: 1.0 is not 1.00.
"""

import collections
import hashlib

from psycopg import sql

SHOWN = 3  # Rows of a difference that are quoted.

SETTINGS = """
    SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres';
    SET bytea_output = 'hex'; SET extra_float_digits = 3; SET search_path = pg_catalog;
"""

NAMES = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = %s AND c.relpersistence = 'p'
      AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'teal')
    ORDER BY 1, 2
"""

COLUMNS = """
    SELECT attname FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


FLOATS = """
    SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND atttypid IN ('float4'::regtype, 'float8'::regtype)
"""

SENT = {"real": "float4send", "double precision": "float8send"}


class Side:
    """One database in one snapshot."""

    def __init__(self, database):
        self.connection = database.connect(autocommit=False)
        self.connection.execute(SETTINGS)
        self.connection.commit()
        self.connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def names(self, kind):
        return [".".join(row) for row in self.connection.execute(NAMES, [kind])]

    def columns(self, name):
        quoted = identifier(name).as_string(self.connection)
        return [row[0] for row in self.connection.execute(COLUMNS, [quoted])]

    def shown(self, name, columns):
        """The columns; floats as their bits, since versions write the same number differently."""
        floats = dict(self.connection.execute(FLOATS, [identifier(name).as_string(self.connection)]))
        return sql.SQL(", ").join(
            sql.SQL("{}({})").format(sql.Identifier(SENT[floats[column]]), sql.Identifier(column))
            if column in floats else sql.Identifier(column) for column in columns)

    def rows(self, name, columns):
        """Yields the rows as lines, sorted."""
        listed = self.shown(name, columns)
        query = sql.SQL('COPY (SELECT {} FROM {} ORDER BY ROW({})::text COLLATE "C") TO STDOUT').format(
            listed, identifier(name), listed)
        pending = b""
        with self.connection.cursor() as cursor, cursor.copy(query) as copy:
            for block in copy:
                *whole, pending = (pending + bytes(block)).split(b"\n")
                yield from whole

    def digest(self, name, columns):
        total, count = hashlib.blake2b(), 0
        for row in self.rows(name, columns):
            total.update(row + b"\n")
            count += 1
        return count, total.hexdigest()

    def sequence(self, name):
        query = sql.SQL("SELECT last_value, is_called FROM {}").format(identifier(name))
        return self.connection.execute(query).fetchone()


def identifier(name):
    """Names are schema.table; a schema has no dot."""
    return sql.Identifier(*name.split(".", 1))


def target_of(name, mapping):
    """mapping: {"public.a": "public.b"} or {"public.a": {"to": "public.b", "columns": {"x": "y"}}}."""
    entry = (mapping or {}).get(name, name)
    if isinstance(entry, str):
        return entry, None
    return entry.get("to", name), entry.get("columns")


def compare(blue, green, tables=None, mapping=None, sequences=True):
    """The differences, as text; an empty list means equal. `tables` limits it to these of blue's.
    With mapped columns only those named are compared."""
    differences = []
    with Side(blue) as left, Side(green) as right:
        there = right.names("r") + right.names("p")
        wanted = list(tables) if tables is not None else left.names("r")
        for name in wanted:
            target, columns = target_of(name, mapping)
            if target not in there:
                differences.append(f"{name}: there is no {target} on green")
                continue
            differences += compare_table(left, right, name, target, columns)
        if tables is None:
            known = {target_of(name, mapping)[0] for name in wanted}
            differences += [f"{name}: only on green" for name in right.names("r") if name not in known]
            if sequences:
                differences += compare_sequences(left, right)
    return differences


def compare_table(left, right, name, target, columns):
    on_blue = list(columns) if columns else left.columns(name)
    on_green = list(columns.values()) if columns else on_blue
    if missing := set(on_green) - set(right.columns(target)):
        return [f"{target}: no column {', '.join(sorted(missing))} on green"]
    if columns is None and (extra := set(right.columns(target)) - set(on_green)):
        return [f"{target}: column {', '.join(sorted(extra))} only on green"]
    if left.digest(name, on_blue) == right.digest(target, on_green):
        return []
    rows_left = collections.Counter(left.rows(name, on_blue))
    rows_right = collections.Counter(right.rows(target, on_green))
    only_left, only_right = rows_left - rows_right, rows_right - rows_left
    return [f"{name}: {only_left.total()} rows only on blue {quote(only_left)}, "
            f"{only_right.total()} only on green {quote(only_right)}"]


def quote(rows):
    return [row.decode("utf-8", "replace")[:200] for row in sorted(rows)[:SHOWN]]


def compare_sequences(left, right):
    differences = []
    there = set(right.names("S"))
    for name in left.names("S"):
        if name not in there:
            differences.append(f"{name}: this sequence is not on green")
        elif left.sequence(name) != right.sequence(name):
            differences.append(
                f"{name}: sequence {left.sequence(name)} on blue, {right.sequence(name)} on green")
    return differences
