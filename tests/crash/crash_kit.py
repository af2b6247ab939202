"""What both crash tests ask at the end: the same rows, every change applied once, nothing left over."""

import pathlib
import re

import harness
from harness import compare, ledger, until

CRASH_POINT = re.compile(r'\bcrash_point\("([a-z0-9_.]+)"\)')
PLACES = ("appliers", "checkpoint", "decoders", "engine", "tools")

# As small as they may be, so that transactions spill and segments turn and go often.
SMALL = {"spool": {"memory-max": "32MiB", "segment-size": "64KiB"}, "copy": {"chunk-size": "1MiB"}}


def crash_points():
    """Every name in the source. Those of a comment do not count, nor does their own file."""
    names = []
    for place in PLACES:
        for path in sorted((harness.ROOT / place).rglob("*.c")):
            if path.name != "crash.c":
                names += CRASH_POINT.findall(path.read_text())
    return names


def merged(*configs):
    """Laid over one another, section by section."""
    out = {}
    for config in configs:
        for section, keys in config.items():
            out.setdefault(section, {}).update(keys)
    return out


def assert_equal(blue, green):
    """Call it when caught up and at rest. Sequences are mirrored at intervals, so they may come later."""
    assert compare(blue, green, sequences=False) == []
    assert ledger(blue) == []
    assert ledger(green) == []
    try:
        until(lambda: compare(blue, green) == [], 30, 0.5)
    except TimeoutError:
        assert compare(blue, green) == []


def files(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def assert_tidy(teal, blue, green):
    """One slot, one checkpoint that agrees with the engine, no file that could be gone. Ends the engine."""
    state = pathlib.Path(teal.config["migration"]["state"])
    slots = blue.execute("SELECT slot_name, confirmed_flush_lsn::text FROM pg_replication_slots "
                         "WHERE database = current_database()")
    assert [name for name, _ in slots] == ["teal_test"], slots
    until(lambda: len(files(state / "spool")) <= 1, 60)  # The one that is appended to.
    assert files(state / "spill") == []
    said = teal.status()
    assert said["error"] is None and said["apply"]["conflicts"] == 0, said
    assert teal.terminate(120) == 0, teal.stderr()[-4000:]
    checkpoint, = green.execute("SELECT pos::pg_lsn, seq, identity FROM teal.checkpoint")
    confirmed, = blue.execute("SELECT confirmed_flush_lsn FROM pg_replication_slots "
                              "WHERE slot_name = 'teal_test'")
    end = blue.value("SELECT pg_current_wal_flush_lsn()")
    behind = "SELECT %s::pg_lsn <= %s::pg_lsn"
    assert green.value(behind, [confirmed[0], end]), (confirmed, end)
    assert green.value(behind, [checkpoint[0], end]), (checkpoint, end)
    assert checkpoint[1] > 0
    assert checkpoint[2] == blue.value("SELECT identity FROM teal.migration")
