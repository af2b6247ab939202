"""Initial copy: from the start until all rows and indexes are there and it follows."""

import dataclasses

from harness import Database, until
from measure import Meter
from peers import WAIT, CopyToCopy, Native, Pgcopydb, TealPeer


@dataclasses.dataclass
class Table:
    rows: int
    definition: str
    columns: str   # Of generate_series(...) i.
    second: str    # What the secondary index is on.


def narrow(quick):
    return Table(300_000 if quick else 2_000_000, "id int, number int, label text",
                 "i, (i * 7919::bigint % 1000003)::int, 'row ' || i % 1000", "number")


def wide(quick):
    return Table(
        30_000 if quick else 200_000, "id int, number int, body text, document jsonb",
        "i, (i * 7919::bigint % 1000003)::int, "
        "(SELECT string_agg(md5(i::text || part), '') FROM generate_series(1, 32) part), "
        "jsonb_build_object('id', i, 'name', md5(i::text), 'tags', jsonb_build_array('a', i, true), "
        "'more', repeat('x', 100))", "number")


def fill(server, name, table):
    blue = server.create_database(name)
    blue.execute(f"CREATE TABLE rows ({table.definition})")
    blue.execute(f"INSERT INTO rows SELECT {table.columns} FROM generate_series(1, {table.rows}) i")
    for index in indexes(table):
        blue.execute(index)
    with blue.connect() as connection:
        connection.execute("VACUUM ANALYZE")
    return blue


def indexes(table):
    return ["ALTER TABLE rows ADD PRIMARY KEY (id)", f"CREATE INDEX rows_second ON rows ({table.second})"]


def makers(table):
    yield lambda blue, green: TealPeer(blue, green)
    yield lambda blue, green: Native(blue, green)
    if Pgcopydb.is_there():
        yield lambda blue, green: Pgcopydb(blue, green)
    yield lambda blue, green: CopyToCopy(blue, green, "rows", indexes(table))


def digest(database):
    return database.execute(
        "SELECT count(*), sum(hashtext(r::text)) FROM rows r") + database.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'rows' ORDER BY 1")


def run(bench, name, table):
    """Yields (peer's name, cost) for every peer and repetition."""
    blue = fill(bench.blue, name.replace("-", "_"), table)
    wanted = digest(blue)
    for turn in range(bench.turns):
        for make in bench.rotated(list(makers(table)), turn):
            peer = make(blue, bench.green)
            try:
                bench.checkpoint()
                with Meter(bench.servers) as meter:
                    peer.create()
                    until(peer.is_copied, WAIT, every=0.02)
                    meter.stop()
                yield peer.name, meter.cost(peer.pid, table.rows)
                bench.verify(f"{name}: {peer.name}", wanted, digest(peer.database))
            finally:
                peer.close()
    Database(bench.blue, blue.name).drop()
