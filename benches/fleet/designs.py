"""Designs that read and write the table: the gateways, and three kinds of session libraries inside the app.

A design receives events and counts request units by the hour of the day. Eventually consistent reads return data that was
written at least `lag` ago.
"""

import random

from traffic import DAY
from units import read_units, write_units


class Design:
    def __init__(self, name, options):
        self.name = name
        self.options = options
        self.index = 0
        self.reads_by_hour, self.writes_by_hour = [0.0] * 24, [0.0] * 24
        self.weak, self.strong = (read_units(options.item_bytes, strong) for strong in (False, True))
        self.weak_miss, self.strong_miss = read_units(0, False), read_units(0, True)
        self.unit = write_units(options.item_bytes)

    @property
    def reads(self):
        return sum(self.reads_by_hour)

    @property
    def writes(self):
        return sum(self.writes_by_hour)

    def count(self, time, reads, writes):
        hour = int(time % DAY // 3600)
        self.reads_by_hour[hour] += reads
        self.writes_by_hour[hour] += writes

    def issued_as_seen(self, row, time):
        """Returns the time of issue as an eventually consistent read sees it."""
        return row[0] if time - row[2] >= self.options.lag else row[1]

    def issue(self, session, time):
        row = session.rows[self.index]
        row[1], row[0], row[2] = row[0], time, time


class Gateways(Design):
    """The gateways. Each caches rows for `ttl`. The first request of a due session writes one reissue."""

    def __init__(self, name, options, count, sticky):
        super().__init__(name, options)
        self.fleet, self.sticky = count, sticky
        self.caches = [{} for _ in range(count)]
        # The cache of the gateway that got the last request, which also writes the changes of its response.
        self.last = self.caches[0]
        self.random = random.Random(f"{options.seed} {name}")
        self.refused = 0

    def choose(self, session):
        return self.caches[session.number % self.fleet if self.sticky else int(self.random.random() * self.fleet)]

    def remember(self, cache, session, entry):
        """Caches an entry. The entries read first are evicted first."""
        cache.pop(session, None)
        cache[session] = entry
        if len(cache) > self.options.capacity:
            del cache[next(iter(cache))]

    def requests(self, session, start, burst):
        options, index = self.options, self.index
        ttl, reissue_time = options.ttl, options.reissue_time
        row, version, cache = session.rows[index], session.version, self.last
        reads = writes = 0.0
        for offset in burst:
            time = start + offset
            cache = self.choose(session)
            entry = cache.get(session)
            if entry is None or time - entry[0] >= ttl or entry[1] < version:
                reads += self.weak
                issued = self.issued_as_seen(row, time)
                if time - session.written < options.lag:
                    reads += self.strong
                    issued = row[0]
                entry = (time, version, issued)
                self.remember(cache, session, entry)
            if time - entry[2] > reissue_time:
                writes += self.unit
                if time - row[0] > reissue_time:
                    self.issue(session, time)
                else:
                    self.refused += 1
                # Either way, DynamoDB's response contains the current row.
                self.remember(cache, session, (time, version, row[0]))
        self.last = cache
        self.count(start, reads, writes)

    def created(self, session, time, rotated):
        # A log-in with an earlier session rotates the id: two rows in one transaction.
        self.count(time, 0, 2 * write_units(self.options.item_bytes, True) if rotated else self.unit)
        self.remember(self.choose(session), session, (time, 1, time))

    def changed(self, session, time):
        self.count(time, 0, self.unit)
        self.issue(session, time)
        self.remember(self.last, session, (time, session.version, time))

    def ended(self, session, time):
        self.count(time, 0, self.unit)
        for cache in self.caches:
            cache.pop(session, None)

    def unknown(self, start, burst):
        known, reads = {}, 0.0
        sticky = int(self.random.random() * self.fleet)
        for offset in burst:
            gateway = sticky if self.sticky else int(self.random.random() * self.fleet)
            if start + offset - known.get(gateway, -DAY) >= self.options.ttl:
                known[gateway] = start + offset
                reads += self.weak_miss + self.strong_miss
        self.count(start, reads, 0)


class Pyramid(Design):
    """pyramid-dynamodb-sessions: a read per request. A reissue has no condition, so every request that sees it due writes."""

    def requests(self, session, start, burst):
        lag, row, reads, writes = self.options.lag, session.rows[self.index], 0.0, 0.0
        for offset in burst:
            time = start + offset
            reads += self.weak
            issued = self.issued_as_seen(row, time)
            if time - session.written < lag:
                reads += self.strong
                issued = row[0]
            if time - issued > self.options.reissue_time:
                writes += self.unit
                self.issue(session, time)
        self.count(start, reads, writes)

    def created(self, session, time, rotated):
        self.count(time, 0, self.unit)

    def changed(self, session, time):
        self.count(time, 0, self.unit)
        self.issue(session, time)

    def ended(self, session, time):
        # The row is emptied, not deleted.
        self.count(time, 0, self.unit)

    def unknown(self, start, burst):
        self.count(start, len(burst) * (self.weak_miss + self.strong_miss), 0)


class Django(Design):
    """django-dynamodb-sessions: strongly consistent reads. An unknown cookie creates a row. Nothing is reissued."""

    def requests(self, session, start, burst):
        self.count(start, len(burst) * self.strong, 0)

    def created(self, session, time, rotated):
        # Checks that the new id is free, creates the row, and saves it; deletes the row of an earlier id.
        self.count(time, self.strong_miss, write_units(0) + self.unit + (self.unit if rotated else 0))

    def changed(self, session, time):
        self.count(time, 0, self.unit)

    def ended(self, session, time):
        self.count(time, 0, self.unit)

    def unknown(self, start, burst):
        # The read finds no row. Then a new session: checks that its id is free, creates the row, and saves it.
        self.count(start, len(burst) * 2 * self.strong_miss, len(burst) * 2 * write_units(0))


class Always(Design):
    """The handler of PHP's AWS SDK, connect-dynamodb and others: a strongly consistent read and a write per request."""

    def requests(self, session, start, burst):
        self.count(start, len(burst) * self.strong, len(burst) * self.unit)

    def created(self, session, time, rotated):
        self.count(time, self.strong_miss, self.unit + (self.unit if rotated else 0))

    def changed(self, session, time):
        """Part of the write that every request makes."""

    def ended(self, session, time):
        self.count(time, 0, self.unit)

    def unknown(self, start, burst):
        self.count(start, len(burst) * self.strong_miss, len(burst) * write_units(0))
