"""What every client saw, and whether a fault that was made on purpose explains it."""

import random
import time
from collections import Counter, defaultdict
from contextlib import contextmanager

# How long after a fault something may still fail by it: a read that waits for its timeout, a connection that is noticed.
GRACE = {"store": 3.0, "upstream": 1.0}
# Which failure which fault explains. Everything else is the gateway's.
EXPLAINED = {
    "503": {"store", "upstream"},
    "502": {"upstream"},
    "504": {"upstream"},
    "broke off": {"upstream"},
    "store": {"store"},
}
EXAMPLES = 40
SAMPLE = 10_000


class Ledger:
    def __init__(self):
        self.began = time.monotonic()
        self.faults = []
        self.well, self.injected, self.wrong = Counter(), defaultdict(Counter), defaultdict(Counter)
        self.examples = []
        self.latencies = defaultdict(list)

    @contextmanager
    def fault(self, kind):
        """Something is broken on purpose."""
        window = [kind, time.monotonic(), None]
        self.faults.append(window)
        try:
            yield
        finally:
            window[2] = time.monotonic()

    def explains(self, failure, began):
        now = time.monotonic()
        return any(
            kind in EXPLAINED.get(failure, ()) and start <= now and (end is None or end + GRACE[kind] >= began)
            for kind, start, end in self.faults
        )

    def ok(self, client, began, count=1):
        self.well[client] += count
        # A fair sample is enough for percentiles, and does not grow with the hours.
        sample, place = self.latencies[client], random.randrange(self.well[client])
        if len(sample) < SAMPLE:
            sample.append(time.monotonic() - began)
        elif place < SAMPLE:
            sample[place] = time.monotonic() - began

    def failed(self, client, began, failure, detail="", count=1):
        if self.explains(failure, began):
            self.injected[client][failure] += count
            return
        self.wrong[client][failure] += count
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{began - self.began:.1f}s–{time.monotonic() - self.began:.1f}s {client}: {failure} {detail}")

    def rows(self):
        for client in sorted({*self.well, *self.injected, *self.wrong}):
            sample = sorted(self.latencies[client]) or [0.0]
            middle, late = sample[len(sample) // 2], sample[min(len(sample) - 1, len(sample) * 99 // 100)]
            yield client, self.well[client], self.injected[client], self.wrong[client], middle * 1000, late * 1000
