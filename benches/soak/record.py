"""Records the result of every request, and whether an injected fault explains a failure."""

import random
import time
from collections import Counter, defaultdict
from contextlib import contextmanager

# Seconds after a fault in which requests may still fail because of it: reads that time out, connections that break.
GRACE = {"store": 3.0, "upstream": 1.0}
# The faults that explain each kind of failure. Other failures are the gateway's.
EXPLAINED = {
    "503": {"store", "upstream"},
    "502": {"upstream"},
    "504": {"upstream"},
    "disconnected": {"upstream"},
    "store": {"store"},
}
MAX_EXAMPLES = 40
MAX_SAMPLE = 10_000


class Record:
    def __init__(self):
        self.began = time.monotonic()
        self.faults = []
        # Per client: successes, failures that a fault explains, and other failures.
        self.succeeded, self.explained, self.unexplained = Counter(), defaultdict(Counter), defaultdict(Counter)
        self.examples = []
        self.latencies = defaultdict(list)

    @contextmanager
    def fault(self, kind):
        """Records the duration of an injected fault."""
        window = [kind, time.monotonic(), None]
        self.faults.append(window)
        try:
            yield
        finally:
            window[2] = time.monotonic()

    def is_explained(self, failure, began):
        now = time.monotonic()
        return any(
            kind in EXPLAINED.get(failure, ()) and start <= now and (end is None or end + GRACE[kind] >= began)
            for kind, start, end in self.faults
        )

    def ok(self, client, began, count=1):
        self.succeeded[client] += count
        # Reservoir sampling: enough for percentiles, with constant memory.
        sample, index = self.latencies[client], random.randrange(self.succeeded[client])
        if len(sample) < MAX_SAMPLE:
            sample.append(time.monotonic() - began)
        elif index < MAX_SAMPLE:
            sample[index] = time.monotonic() - began

    def failed(self, client, began, failure, detail="", count=1):
        if self.is_explained(failure, began):
            self.explained[client][failure] += count
            return
        self.unexplained[client][failure] += count
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"{began - self.began:.1f}s–{time.monotonic() - self.began:.1f}s {client}: {failure} {detail}")

    def rows(self):
        """Yields for each client the counts, and the 50th and 99th percentile of the latency in ms."""
        for client in sorted({*self.succeeded, *self.explained, *self.unexplained}):
            sample = sorted(self.latencies[client]) or [0.0]
            p50, p99 = sample[len(sample) // 2], sample[min(len(sample) - 1, len(sample) * 99 // 100)]
            yield client, self.succeeded[client], self.explained[client], self.unexplained[client], p50 * 1000, p99 * 1000
