"""Summarizes the rounds, and formats them as a Markdown table."""

import statistics

from workloads import TARGETS, WORKLOADS

HEAD = ["", "", "CPU / HAProxy", "spread", "CPU, µs", "requests/s", "p50, µs", "p99, µs", "peak, MiB", "reads ‰", "writes ‰"]
LEGEND = """\
CPU: user and system time of the target's processes per request, as a ratio to HAProxy's in the same round: median and
spread. Requests/s: with the target's core saturated. p50, p99: latency at half the saturated rate of HAProxy, or of the
gateway in workloads about its sessions. Peak: resident memory. Reads, writes: operations on the table per 1,000
requests."""


def summary(rounds):
    """Returns the figures of each target for each workload. `rounds` has a list of `{target: figures}` per workload."""
    return {name: {target: median(runs, target) for target in runs[0]} for name, runs in rounds.items() if runs}


def median(runs, target):
    ratios = [figures[target]["cpu"] / figures["haproxy"]["cpu"] for figures in runs]
    keys = runs[0][target]
    medians = {key: statistics.median(figures[target][key] for figures in runs) for key in keys if keys[key] is not None}
    peak = max(figures[target]["peak"] for figures in runs)
    return medians | {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "peak": peak}


def table(results):
    lines = ["| " + " | ".join(HEAD) + " |", "| --- | --- " + "| ---: " * (len(HEAD) - 2) + "|"]
    for name, targets in results.items():
        title = WORKLOADS[name].title
        for target, row in targets.items():
            cells = [title, TARGETS[target], f"{row['ratio']:.2f}", f"{row['low']:.2f}–{row['high']:.2f}"]
            cells += [f"{row['cpu']:.1f}", f"{row['rate']:.0f}", f"{row['p50']:.0f}", f"{row['p99']:.0f}"]
            cells += [f"{row['peak'] / 1024:.0f}"]
            cells += [f"{row[key]:.1f}" if key in row else "" for key in ("reads", "writes")]
            lines.append("| " + " | ".join(cells) + " |")
            title = ""
    return "\n".join(lines)
