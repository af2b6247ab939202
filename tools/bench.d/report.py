"""From runs to medians, ratios and targets; as a table and as JSON."""

import statistics

MIB = 1 << 20
MEMORY_MAX = (256 + 64) * MIB
NATIVE = ("native", "native-streaming") # The better of them counts.
CEILING = ("pg_recvlogical",)
TARGETS = { # Case: (peers, at least so many times as fast).
    "copy-narrow": ((NATIVE, 1.5), (("pgcopydb",), 1.3)),
    "copy-wide": ((NATIVE, 1.5), (("pgcopydb",), 1.3)),
    "single-rows": ((NATIVE, 2.0), (CEILING, 0.9)),
    "hot-rows": ((NATIVE, 2.0),),
    "large": ((NATIVE, 1.3), (CEILING, 0.9)),
    "steady": ((NATIVE, 1.0),),
}
SHOWN = { # Case: further peers a ratio is of interest with.
    "copy-narrow": (("copy-to-copy",),), "copy-wide": (("copy-to-copy",),), "hot-rows": (CEILING,),
}


def summarise(costs):
    """One peer's runs: medians, and the highest of memory."""
    def median(pick):
        values = [pick(cost) for cost in costs]
        return None if None in values else statistics.median(values)
    of = {"units": costs[0]["units"],
          "seconds": median(lambda cost: cost["seconds"]),
          "cpu_seconds_per_million": median(lambda cost: cost["cpu_seconds_per_million"])}
    for name in ("lag_p50", "lag_p99"):
        if name in costs[0]:
            of[name] = median(lambda cost, name=name: cost[name])
    held = [cost["memory_program"] for cost in costs]
    of["memory_program"] = None if None in held else max(held)
    of["memory_servers"] = {side: max(cost["memory_servers"].get(side, 0) for cost in costs)
                            for side in ("blue", "green")}
    return {**of, "runs": costs}


def judge(case, peers):
    """Ratios of teal to others, above 1 where teal is better, with their targets."""
    measure = "lag_p99" if case == "steady" else "seconds"
    teal = peers.get("teal")
    if teal is None:
        return []
    ratios = []
    for others, target in (*TARGETS[case], *((names, None) for names in SHOWN.get(case, ()))):
        best = min((name for name in others if name in peers), default=None,
                   key=lambda name: peers[name][measure])
        if best is None:
            ratios.append({"beside": others[0], "ratio": None, "target": target, "reached": None})
            continue
        ratio = peers[best][measure] / max(teal[measure], 1e-6)
        ratios.append({"beside": best, "ratio": ratio, "target": target,
                       "reached": None if target is None else ratio >= target})
    ratios.append({"beside": "memory-max + 64 MiB", "ratio": MEMORY_MAX / teal["memory_program"],
                   "target": 1.0, "reached": teal["memory_program"] <= MEMORY_MAX})
    return ratios


def mib(value):
    return "-" if value is None else f"{value / MIB:.0f}"


def show(case, peers, ratios):
    lag = case == "steady"
    head = ("lag p50 ms", "lag p99 ms") if lag else ("seconds", "units/s")
    print(f"\n{case}\n  {'':18}{head[0]:>12}{head[1]:>12}{'CPU-s/M':>10}{'MiB':>7}{'MiB servers':>13}"
          "  busiest")
    for name, peer in peers.items():
        run = sorted(peer["runs"], key=lambda cost: cost["seconds"])[len(peer["runs"]) // 2]
        first, second = ((f"{peer['lag_p50'] * 1e3:.1f}", f"{peer['lag_p99'] * 1e3:.1f}") if lag else
                         (f"{peer['seconds']:.2f}", f"{peer['units'] / peer['seconds']:,.0f}"))
        busy = sorted(run["busy"].items(), key=lambda item: -item[1])[:4]
        servers = "+".join(mib(held) for held in peer["memory_servers"].values())
        print(f"  {name:18}{first:>12}{second:>12}{peer['cpu_seconds_per_million']:>10.2f}"
              f"{mib(peer['memory_program']):>7}{servers:>13}  "
              + ", ".join(f"{kind} {share:.0%}" for kind, share in busy))
    for ratio in ratios:
        if ratio["ratio"] is None:
            print(f"  beside {ratio['beside']}: it is not installed")
            continue
        verdict = {None: "", True: "reached", False: "MISSED"}[ratio["reached"]]
        target = "" if ratio["target"] is None else f"target {ratio['target']:.1f}"
        print(f"  beside {ratio['beside']:22} {ratio['ratio']:6.2f}x  {target:12} {verdict}")
