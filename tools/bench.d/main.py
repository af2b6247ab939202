"""The two servers, the cases in turn, and what comes of them. See tools/bench."""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "servers"))

from harness import Server, available  # noqa: E402

import copy_cases  # noqa: E402
import follow_cases  # noqa: E402
import report  # noqa: E402

VERSION = 15
CASES = ("copy-narrow", "copy-wide", "single-rows", "hot-rows", "large", "steady")
# Durable as in production; no vacuum and no checkpoint comes in between by itself. The interval is
# what a subscription that was just disabled waits for, five seconds by default: not its fault.
SETTINGS = {
    "shared_buffers": "1GB", "maintenance_work_mem": "256MB", "max_wal_size": "16GB",
    "checkpoint_timeout": "1h", "autovacuum": "off", "max_wal_senders": "20",
    "max_replication_slots": "20", "fsync": "on", "full_page_writes": "on",
    "synchronous_commit": "on", "wal_retrieve_retry_interval": "50ms",
}


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, quick):
        self.quick = quick
        self.turns = 1 if quick else 3
        self.blue = Server(VERSION, settings=SETTINGS, durable=True)
        self.green = Server(VERSION, settings=SETTINGS, durable=True)
        self.servers = {"blue": self.blue, "green": self.green}
        self.wrong = []

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for server in self.servers.values():
                stack.callback(server.remove)
                server.start()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()

    @staticmethod
    def rotated(peers, turn):
        """Nobody always goes first."""
        turn %= len(peers)
        return peers[turn:] + peers[:turn]

    def checkpoint(self):
        """So that nobody pays for what another left dirty, and all begin with full page images."""
        for server in self.servers.values():
            server.execute("CHECKPOINT")

    def verify(self, what, wanted, found):
        if wanted != found:
            self.wrong.append(what)
            say(f"WRONG RESULT: {what}: {found} instead of {wanted}")


def runs_of(bench, case, follow):
    """An iterator of (peer, cost)."""
    if case.startswith("copy"):
        table = (copy_cases.narrow if case == "copy-narrow" else copy_cases.wide)(bench.quick)
        return copy_cases.run(bench, case, table)
    following = follow()
    if case == "steady":
        return following.steady(case)
    return following.backlog(case, {"single-rows": following.single_rows,
                                    "hot-rows": following.hot_rows, "large": following.large}[case])


def run_case(bench, case, follow):
    costs = collections.defaultdict(list)
    for name, cost in runs_of(bench, case, follow):
        say(f"{case}: {name}: {cost['seconds']:.2f} s")
        costs[name].append(cost)
    peers = {name: report.summarise(runs) for name, runs in sorted(costs.items())}
    ratios = report.judge(case, peers)
    report.show(case, peers, ratios)
    sys.stdout.flush()
    return {"peers": peers, "ratios": ratios}


def run_cases(bench, cases):
    done = {}
    with contextlib.ExitStack() as stack:
        made = []

        def follow():
            if not made:
                made.append(stack.enter_context(follow_cases.Following(bench)))
            return made[0]

        for case in cases:
            done[case] = run_case(bench, case, follow)
    return done


def environment():
    package = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "pgcopydb"], text=True,
                             capture_output=True, check=False).stdout or None
    return {"processors": os.cpu_count(), "system": platform.platform(), "postgresql": VERSION,
            "pgcopydb": package, "settings": SETTINGS, "began": time.strftime("%FT%TZ", time.gmtime())}


def main():
    parser = argparse.ArgumentParser(prog="tools/bench postgres")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--json")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not available(VERSION):
        sys.exit(f"bench: PostgreSQL {VERSION} is not there: tools/servers fetch {VERSION}")
    around = environment()
    print(f"PostgreSQL {VERSION} twice, {around['processors']} processors, pgcopydb "
          f"{around['pgcopydb'] or 'not installed'}, {'once' if args.quick else 'medians of 3'}")
    print("both servers: " + ", ".join(f"{name}={value}" for name, value in SETTINGS.items()))
    began = time.monotonic()
    with Bench(args.quick) as bench:
        cases = run_cases(bench, [case for case in CASES if case in (args.case or CASES)])
        wrong = bench.wrong
    print(f"\n{time.monotonic() - began:.0f} s in all")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(
            {**around, "quick": args.quick, "cases": cases, "wrong": wrong}, indent=1) + "\n")
    sys.exit(1 if wrong else 0)


main()
