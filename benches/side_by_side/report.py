"""Summarizes the rounds, and formats them as Markdown tables."""

import statistics

from workloads import COMPARED, TARGETS, WORKLOADS

HEAD = ["", "", "CPU / HAProxy", "quartiles", "of which responder", "CPU, µs", "requests/s", "p50, µs", "p99, µs"]
HEAD += ["peak, MiB", "reads ‰", "writes ‰"]
LEGEND = """\
CPU: user and system time of the target's processes per request, with its responder's, divided by the mean of HAProxy's
right before and right after: median and quartiles over the rounds. Requests/s: with the target's core saturated. p50, p99:
latency at half the saturated rate of HAProxy, or of the gateway in workloads about its sessions, so that more expensive
targets are busier; none for those that cannot serve that rate. Peak: resident memory. Reads, writes: operations on the
table per 1,000 requests."""
COMPARISON_HEAD = ["", "", "CPU", "p50", "p99"]
COMPARISON_LEGEND = "Ratios of two targets of the same round, each CPU time already as a ratio to HAProxy's: median and quartiles."


def summary(rounds):
    """Returns the figures of each target for each workload. `rounds` has a list of `{target: figures}` per workload."""
    return {name: targets for name, runs in rounds.items() if (targets := summarize(WORKLOADS[name], runs))}


def summarize(workload, runs):
    targets = {}
    for target in (*workload.targets, "haproxy"):
        # Rounds in which HAProxy kept changing have no figures of the target.
        figures = [run[target] for run in runs if target in run]
        if figures:
            targets[target] = {key: statistics.median(row[key] for row in figures) for key in figures[0]}
            targets[target]["ratio"] = quartiles(row["ratio"] for row in figures)
            targets[target]["peak"] = max(row["peak"] for row in figures)
            targets[target]["rounds"] = len(figures)
            if "responder" in figures[0]:
                shares = [row["ratio"] * row["responder"] / row["cpu"] for row in figures]
                targets[target]["responder_ratio"] = quartiles(shares)
    return targets


def quartiles(values):
    """Returns the lower quartile, the median and the upper quartile."""
    values = list(values)
    if len(values) == 1:
        values *= 2
    return statistics.quantiles(values, n=4, method="inclusive")


def keeps_up(row):
    """Returns whether a target can serve the rate at which its latency was measured."""
    return row["rate"] > row["offered"]


def table(results):
    rows = []
    for name, targets in results.items():
        title = WORKLOADS[name].title
        for target, row in targets.items():
            low, ratio, high = row["ratio"]
            cells = [title, TARGETS[target], f"{ratio:.2f}", f"{low:.2f}–{high:.2f}" if target != "haproxy" else ""]
            cells += [f"{row['responder_ratio'][1]:.2f}" if "responder" in row else "", f"{row['cpu']:.1f}"]
            latency = [f"{row[key]:.0f}" for key in ("p50", "p99")] if keeps_up(row) else ["", ""]
            cells += [f"{row['rate']:.0f}", *latency, f"{row['peak'] / 1024:.0f}"]
            cells += [f"{row[key]:.1f}" if key in row else "" for key in ("reads", "writes")]
            rows.append(cells)
            title = ""
    return markdown(HEAD, rows)


def comparisons(rounds, results):
    """Returns the ratios of the pairs of `COMPARED`."""
    found = []
    for name, runs in rounds.items():
        for pair in COMPARED:
            both = [[run[target] for target in pair] for run in runs if all(target in run for target in pair)]
            if not both:
                continue
            keys = {"cpu": "ratio"}
            if all(keeps_up(results[name][target]) for target in pair):
                keys |= {"p50": "p50", "p99": "p99"}
            ratios = {title: quartiles(one[key] / other[key] for one, other in both) for title, key in keys.items()}
            found.append({"workload": name, "pair": pair} | ratios)
    return found


def comparison_table(found):
    rows, last = [], None
    for row in found:
        title = "" if row["workload"] == last else WORKLOADS[row["workload"]].title
        cells = [title, " / ".join(TARGETS[target] for target in row["pair"])]
        for key in ("cpu", "p50", "p99"):
            low, ratio, high = row.get(key, (None,) * 3)
            cells.append(f"{ratio:.2f} ({low:.2f}–{high:.2f})" if ratio else "")
        rows.append(cells)
        last = row["workload"]
    return markdown(COMPARISON_HEAD, rows)


def markdown(head, rows):
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
