"""Steps that the tests of copying and following share."""

import contextlib
import os
import signal
import time

import psycopg
import pytest

from harness import compare, until


def cannot_run(why):
    """Ends the test: skipped, or failed where CI is set and nothing may be skipped."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(why)


TABLES = """
    SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname = %s ORDER BY 1
"""


def sequences_soon(blue, green, mapping=None):
    """teal looks at sequences now and then."""
    with contextlib.suppress(TimeoutError):
        until(lambda: compare(blue, green, mapping=mapping) == [], 15, 0.3)


def same(blue, green, tables=None, mapping=None):
    """Fails with the differences. Rows must be equal now, sequences soon: teal looks at them now
    and then."""
    differences = compare(blue, green, tables, mapping, sequences=False)
    assert differences == [], "\n".join(differences)
    if tables is not None:
        return
    sequences_soon(blue, green, mapping)
    differences = compare(blue, green, mapping=mapping)
    assert differences == [], "\n".join(differences)


def ready(engine, timeout=60):
    """Starts it if it does not run, and waits for the copy; the engine."""
    if not engine.running():
        engine.start()
    engine.wait("ready", timeout)
    return engine


def following(engine, timeout=60):
    """Starts it, and waits until it applies changes; whatever else it does fails with what it said."""
    engine.start()
    try:
        engine.wait_phase("catching-up", "following", timeout=timeout)
    except (TimeoutError, RuntimeError) as failure:
        raise AssertionError(f"{failure}; engine: {engine.describe()}\n{engine.stderr()[-8000:]}") from failure
    return engine


def arrived(engine, blue, green, tables, mapping=None, timeout=60):
    """What is committed on blue is on green."""
    engine.wait("caught-up", timeout)
    same(blue, green, tables, mapping)


def settled(engine, blue, green, tables=None, mapping=None, timeout=60):
    """So it is, and without a conflict; the status."""
    arrived(engine, blue, green, tables, mapping, timeout)
    status = engine.status()
    assert status["apply"]["conflicts"] == 0 and status["error"] is None, status
    return status


@contextlib.contextmanager
def frozen(engine):
    """The engine stands still: what is committed meanwhile is met at once, in one group."""
    engine.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        engine.process.send_signal(signal.SIGCONT)


def tables_in(database, schema):
    return [name for name, in database.execute(TABLES, [schema])]


def transactions(database, schema, scripts):
    """Each script in a transaction of its own, one after another."""
    with contextlib.closing(database.connect()) as connection:
        connection.execute(f"SET search_path = {schema}, public")
        for script in scripts:
            with connection.transaction():
                connection.execute(script)


def chunks(green):
    """[(table, part, rows or None)] of the copy, in order; [] before it begins."""
    try:
        return green.execute("""
            SELECT t.name, c.part, c.rows FROM teal.copy_chunk c JOIN teal.copy_table t USING (migration, oid)
            ORDER BY 1, 2""")
    except psycopg.errors.UndefinedTable:
        return []


def done_chunks(green):
    return [(name, part) for name, part, rows in chunks(green) if rows is not None]


def pause(seconds):
    """For time to pass that something in the program measures."""
    time.sleep(seconds)
