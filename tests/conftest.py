"""Servers that live as long as the session, with databases that live as long as a test."""

import contextlib
import itertools
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "servers"))

import harness  # noqa: E402
from steps import cannot_run  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--teal-bin", help="the teal to test (default: TEAL_BIN or build/dev/teal)")


def pytest_configure(config):
    if chosen := config.getoption("--teal-bin"):
        os.environ["TEAL_BIN"] = os.path.abspath(chosen)


def require(version):
    if not harness.available(version):
        cannot_run(f"PostgreSQL {version} is not there: run tools/setup")


class Pool:
    """One server for each version and role, started when first asked for."""

    def __init__(self):
        self.servers = {}
        self.numbers = itertools.count(1)

    def server(self, version, role="blue"):
        require(version)
        key = version, role
        if key not in self.servers:
            self.servers[key] = harness.Server(version).start()
        return self.servers[key]

    def database(self, version, role="blue"):
        return self.server(version, role).create_database(f"test_{next(self.numbers)}")

    def remove(self):
        for server in self.servers.values():
            server.remove()


@pytest.fixture(scope="session")
def pool():
    servers = Pool()
    yield servers
    servers.remove()


@pytest.fixture
def databases(pool):
    """databases(15, 17): a fresh database on a blue and one on a green server."""
    made = []

    def make(blue=15, green=15):
        pair = pool.database(blue, "blue"), pool.database(green, "green")
        made.extend(pair)
        return pair

    yield make
    for database in made:
        database.drop()


@pytest.fixture
def own_server():
    """own_server(15, settings={...}): one for this test alone, to be stopped and killed."""
    made = []

    def make(version=15, **options):
        require(version)
        made.append(harness.Server(version, **options))
        return made[-1].start()

    yield make
    for server in made:
        server.remove()


@pytest.fixture
def teal(databases, own_server):  # After these, so that the engine ends before its databases do.
    """teal(blue, green, config): a migration that ends with the test."""
    with contextlib.ExitStack() as made:
        yield lambda *args, **options: made.enter_context(harness.Teal(*args, **options))
