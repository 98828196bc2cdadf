"""From the rounds to figures, and to a table in Markdown."""

import statistics

from workloads import TARGETS, WORKLOADS

HEAD = ["", "", "CPU / HAProxy", "spread", "CPU, µs", "requests/s", "p50, µs", "p99, µs", "peak, MiB", "reads ‰", "writes ‰"]
LEGEND = """\
CPU: user and system time of the target's processes for each request, as a ratio to HAProxy's in the same round: median
and spread. Requests/s: with the target's core saturated. p50, p99: at half the saturated rate of HAProxy, or of the
gateway where its sessions are the point. Peak: resident memory. Reads, writes: of
DynamoDB's table for a thousand requests."""


def summary(rounds):
    """Of each workload's rounds, `{target: figures}` each, the figures of each target."""
    return {name: {target: middle(played, target) for target in played[0]} for name, played in rounds.items() if played}


def middle(played, target):
    ratios = [figures[target]["cpu"] / figures["haproxy"]["cpu"] for figures in played]
    keys = played[0][target]
    medians = {key: statistics.median(figures[target][key] for figures in played) for key in keys if keys[key] is not None}
    peak = max(figures[target]["peak"] for figures in played)
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
