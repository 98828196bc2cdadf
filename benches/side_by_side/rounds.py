"""Measures the targets of a workload in rounds, each target between two measurements of HAProxy."""

import random
import statistics
import sys

REFERENCE = "haproxy"
# If the two measurements of HAProxy differ by more, something else ran on the machine in between.
TOLERANCE = 0.15
ATTEMPTS = 3


class BadResponses(Exception):
    """A target returned a response that was not a complete 200, or none."""


class Rounds:
    """Measures one workload. `kept` has the rounds without bad responses, as `{target: figures}`."""

    def __init__(self, generator, workload, targets, seconds):
        self.generator, self.workload, self.targets, self.seconds = generator, workload, targets, seconds
        self.kept, self.discarded, self.repeated, self.unsettled = [], 0, 0, 0
        pace = generator.run(workload, targets[workload.paced_by], seconds)
        self.rate = pace["requests"] / pace["micros"] * 1e6 / 2

    def run(self, names):
        """Measures a round: the latency of all targets, then their CPU time. Both are in random order."""
        try:
            latencies = {name: self.latency(name) for name in shuffled([*names, REFERENCE])}
            figures = {}
            references = [self.cpu(REFERENCE)]
            for name in shuffled(names):
                if found := self.between_references(name, references):
                    figures[name] = latencies[name] | found
        except BadResponses as error:
            print(f"  discarded: {error}", file=sys.stderr)
            self.discarded += 1
            return
        means = {key: statistics.mean(reference[key] for reference in references) for key in references[0]}
        self.kept.append(figures | {REFERENCE: latencies[REFERENCE] | means | {"ratio": 1}})

    def between_references(self, name, references):
        """Measures a target and then the reference, until the reference has not changed. Returns `None` if it keeps changing."""
        for attempt in range(ATTEMPTS):
            if self.workload.warmed:
                self.load(name)
            figures = self.cpu(name)
            references.append(self.cpu(REFERENCE))
            before, after = (reference["cpu"] for reference in references[-2:])
            ratio = figures["cpu"] / statistics.mean((before, after))
            settled = max(before, after) <= min(before, after) * (1 + TOLERANCE)
            note = "" if settled else f"; HAProxy changed from {before:.1f} to {after:.1f} µs"
            busy = f"core {100 * figures['busy']:.0f} % busy"
            print(f"  {name}: {figures['cpu']:.1f} µs, {ratio:.2f} of HAProxy, {busy}{note}", file=sys.stderr)
            if settled:
                return figures | {"ratio": ratio}
            if attempt + 1 < ATTEMPTS:
                self.repeated += 1
        self.unsettled += 1
        return None

    def latency(self, name):
        """Measures the latency at half load."""
        self.targets[name].reset_peak()
        report = self.load(name, self.rate)
        return {"offered": self.rate, "p50": report["p50"], "p99": report["p99"]}

    def cpu(self, name):
        """Measures the CPU time at full load, in µs per request, and the operations on the table per 1,000 requests."""
        target = self.targets[name]
        operations, spent, responder = target.store_operations(), target.cpu(), target.responder_cpu()
        report = self.load(name)
        spent = target.cpu() - spent
        responder = target.responder_cpu() - responder
        requests = report["requests"]
        figures = {
            "cpu": spent / requests / 1000,
            "rate": requests / report["micros"] * 1e6,
            # The share of its core that the target used. If it is far below 1, something else was the bottleneck.
            "busy": (spent - responder) / report["micros"] / 1000,
            "peak": target.peak_kib(),
        }
        if target.responder:
            figures["responder"] = responder / requests / 1000
        if operations:
            # Includes up to 64 requests that were in flight when the load ended and are not counted.
            done = [after - before for before, after in zip(operations, target.store_operations())]
            figures["reads"], figures["writes"] = (1000 * count / requests for count in done)
        return figures

    def load(self, name, rate=None):
        report = self.generator.run(self.workload, self.targets[name], self.seconds, rate)
        if report["bad"]:
            raise BadResponses(f"{name}: {report['bad']} bad responses")
        return report


def shuffled(names):
    return random.sample(names, len(names))
