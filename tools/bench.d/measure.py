"""What a measured interval cost: seconds, processor time of every process, resident memory.

The processor time of a server is its main process's, of those it has reaped, and of those alive;
that of other programs is taken from /proc while they live, else from what this process reaped.
"""

import collections
import os
import pathlib
import re
import resource
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")
EVERY = 0.1
KINDS = (("walsender", "walsender"), ("logical replication worker", "apply worker"),
         ("logical replication launcher", None), ("autovacuum", "autovacuum"),
         ("checkpointer", "writers"), ("background writer", "writers"), ("walwriter", "writers"),
         ("parallel worker", "parallel worker"))


def read(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""


def cpu(path, reaped=True):
    """Seconds of user and system time of one process or thread, with those it has reaped."""
    fields = read(path).rpartition(")")[2].split()
    return sum(map(int, fields[11:15 if reaped else 13])) / TICKS if fields else 0


def memory(pid, name):
    found = re.search(rf"^{name}:\s+(\d+) kB", read(f"/proc/{pid}/status"), re.M)
    return int(found[1]) * 1024 if found else 0


def children(pid):
    return [int(child) for child in read(f"/proc/{pid}/task/{pid}/children").split()]


def server_pid(server):
    return int((server.data / "postmaster.pid").read_text().split()[0])


def server_cpu(server):
    main = server_pid(server)
    return sum(cpu(f"/proc/{pid}/stat") for pid in [main, *children(main)])


def reaped_cpu():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def kind_of(title):
    for sign, kind in KINDS:
        if sign in title:
            return kind
    return "backend" if title.startswith("postgres:") else None


class Meter:
    """with Meter({"blue": server, "green": server}) as meter: ...; meter.cost(program's pid)"""

    def __init__(self, servers, ignore=()):
        self.servers = servers
        self.ignore = set(ignore)
        self.alive = True
        self.first = {}                              # Of a process: when first seen.
        self.spent = {}                              # Of a process: (side, kind), until last seen.
        self.anonymous = collections.Counter()       # Of a side: most at one time.
        self.sampler = threading.Thread(target=self.sample, daemon=True)

    def sample(self):
        while self.alive:
            self.look()
            time.sleep(EVERY)

    def look(self, opening=False):
        for side, server in self.servers.items():
            held = 0
            for pid in children(server_pid(server)):
                held += memory(pid, "RssAnon")
                kind = kind_of(read(f"/proc/{pid}/cmdline"))
                if kind is None or pid in self.ignore:
                    continue
                now = cpu(f"/proc/{pid}/stat")
                self.first.setdefault(pid, now if opening else 0)
                self.spent[pid] = (side, kind, now - self.first[pid])
            self.anonymous[side] = max(self.anonymous[side], held)

    def __enter__(self):
        self.look(opening=True)
        self.cpu_before = {side: server_cpu(server) for side, server in self.servers.items()}
        self.reaped_before = reaped_cpu()
        self.sampler.start()
        self.began = time.monotonic()
        return self

    def stop(self):
        """The end of what is measured; later calls change nothing."""
        if self.alive:
            self.alive = False
            self.seconds = time.monotonic() - self.began
            self.look()
            self.cpu = {side: server_cpu(server) - self.cpu_before[side]
                        for side, server in self.servers.items()}
            self.cpu["program"] = reaped_cpu() - self.reaped_before

    def __exit__(self, *_):
        self.stop()
        self.sampler.join()

    def busy(self):
        """Share of the interval in which the busiest process of a kind was on a processor."""
        busy = collections.defaultdict(float)
        for side, kind, spent in self.spent.values():
            share = round(spent / self.seconds, 2)
            busy[f"{side} {kind}"] = max(busy[f"{side} {kind}"], share)
        return {kind: share for kind, share in busy.items() if share >= 0.05}

    def cost(self, pid=None, units=1):
        """Of a program that still runs, if a pid is given; `units`: rows or changes."""
        busy = self.busy()
        if pid is not None:
            self.cpu["program"] += cpu(f"/proc/{pid}/stat")
            for thread in os.listdir(f"/proc/{pid}/task"):
                spent = cpu(f"/proc/{pid}/task/{thread}/stat", reaped=False) / self.seconds
                name = "program " + read(f"/proc/{pid}/task/{thread}/comm").strip()
                busy[name] = max(busy.get(name, 0), round(spent, 2))
        return {
            "seconds": self.seconds,
            "units": units,
            "cpu_seconds": dict(self.cpu),
            "cpu_seconds_per_million": sum(self.cpu.values()) / units * 1e6,
            "memory_program": memory(pid, "VmHWM") if pid else None,
            "memory_servers": dict(self.anonymous),
            "busy": busy,
        }
