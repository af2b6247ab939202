"""Dies at every named place, once early and once late, and goes on from there.

A place that is not reached is a failure: a test that does not crash proves nothing. That needs a build
with crash points (preset dev)."""

import collections
import os
import subprocess

import pytest

from crash_kit import SMALL, assert_equal, assert_tidy, crash_points, merged
from harness import Workload, until
from steps import cannot_run

POINTS = crash_points()

# Visits besides the first. What happens once in a run has none.
LATER = {
    "applier.after_commit_before_report": 40,
    "applier.after_commit_sent": 40,
    "applier.before_commit": 40,
    "copy.after_chunk_commit": 7,
    "copy.before_chunk_commit": 7,
    "schema.between_indexes": 5,
    "spool.after_segment_create": 4,
    "spool.after_sync_before_confirm": 40,
    "spool.after_write_before_sync": 40,
    "spool.before_release": 3,
    "spool.before_write": 40,
}

CASES = [(name, visit) for name in POINTS for visit in (1, LATER.get(name)) if visit]


@pytest.fixture(scope="session")
def can_crash():
    """Skips where the binary has no crash points, unless everything must run."""
    teal = os.environ.get("TEAL_BIN")
    if teal and b"TEAL_CRASH_POINT" not in open(teal, "rb").read():
        cannot_run(f"{teal} was built without crash points")


@pytest.fixture
def traffic(databases):
    """A pair of databases, with rows that need several chunks, and a workload that is running."""
    blue, green = databases(15, 15)
    workload = Workload(blue, seed=11, bulk_rows=500, pause=0.05).create()
    blue.execute("INSERT INTO bulk SELECT -n, repeat('large', 20) FROM generate_series(1, 30000) n")
    workload.start()
    yield blue, green, workload
    if not workload.stopping.is_set():
        workload.stop()


SLOW_DISK = r"""
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int fd)
{
    usleep(500000);
    return (int)syscall(SYS_fdatasync, fd);
}
"""


@pytest.fixture
def slow_disk(tmp_path):
    """The environment in which every fdatasync() takes half a second."""
    source, library = tmp_path / "slow.c", tmp_path / "slow.so"
    source.write_text(SLOW_DISK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library), "ASAN_OPTIONS": "verify_asan_link_order=0"}


def crash(teal, point, visit, env=None):
    teal.start(env={"TEAL_CRASH_POINT": f"{point}:{visit}", **(env or {})})
    try:
        until(lambda: not teal.running() or "source.lost" in teal.stderr(), 120)
    except TimeoutError:
        pytest.fail(f"{point} was not reached {visit} times:\n{teal.stderr()[-4000:]}")
    assert not teal.running(), f"{point}: the position is lost:\n{teal.stderr()[-4000:]}"
    code = teal.ended()
    assert code == -9, f"{point}: exit {code}:\n{teal.stderr()[-4000:]}"


def converge(teal, blue, green, workload):
    before = workload.transactions()
    teal.start()
    until(lambda: workload.transactions() > before + 20 or workload.failures, 60)
    teal.wait("caught-up", 300)
    workload.stop()
    teal.wait("caught-up", 300)
    assert_equal(blue, green)
    assert_tidy(teal, blue, green)


def test_names_are_unique_and_known():
    assert POINTS
    assert [name for name, times in collections.Counter(POINTS).items() if times > 1] == []
    assert set(LATER) <= set(POINTS)


@pytest.mark.usefixtures("can_crash")
@pytest.mark.parametrize("point, visit", CASES)
def test_dies_and_goes_on(point, visit, traffic, teal):
    blue, green, workload = traffic
    engine = teal(blue, green, SMALL)
    crash(engine, point, visit)
    converge(engine, blue, green, workload)


@pytest.mark.usefixtures("can_crash")
def test_dies_after_every_chunk(traffic, teal):
    """Tables of many moments: each crash leaves one more chunk than the one before."""
    blue, green, workload = traffic
    engine = teal(blue, green, merged(SMALL, {"copy": {"jobs": 1}}))
    done = 0
    for _ in range(6):
        crash(engine, "copy.after_chunk_commit", 1)
        before, done = done, green.value("SELECT count(rows) FROM teal.copy_chunk")
        assert done == before + 1
    converge(engine, blue, green, workload)


@pytest.mark.usefixtures("can_crash")
@pytest.mark.parametrize("point", ["applier.after_commit_sent", "applier.after_commit_before_report"])
def test_dies_with_nothing_on_disk(point, traffic, teal):
    """ack = target: what the spool held is asked of the source again."""
    blue, green, workload = traffic
    engine = teal(blue, green, merged(SMALL, {"spool": {"ack": "target"}}))
    for visit in (1, 40):
        crash(engine, point, visit)
    converge(engine, blue, green, workload)


@pytest.mark.usefixtures("can_crash")
def test_what_was_confirmed_is_on_disk(traffic, teal, slow_disk):
    """Dies with much in memory that is not written yet; had it been confirmed, blue would not send it again."""
    blue, green, workload = traffic
    engine = teal(blue, green, SMALL)
    for visit in (3, 6):
        crash(engine, "spool.before_write", visit, slow_disk)
    converge(engine, blue, green, workload)
