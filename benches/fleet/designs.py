"""Who reads and writes the table, and when: the gateways, and three ways of libraries inside the app.

A design is told of events and counts units, by the hour of the day. Reads that are eventually consistent see what was
written `lag` ago or longer.
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
        """A replica may not have heard of the last reissue."""
        return row[0] if time - row[2] >= self.options.lag else row[1]

    def issue(self, session, time):
        row = session.rows[self.index]
        row[1], row[0], row[2] = row[0], time, time


class Gateways(Design):
    """Rows are cached for `ttl` in each gateway; of a session that is due, one write is made, by who is first."""

    def __init__(self, name, options, count, sticky):
        super().__init__(name, options)
        self.fleet, self.sticky = count, sticky
        self.caches = [{} for _ in range(count)]
        # The gateway that was asked last is the one that writes what the answer orders.
        self.last = self.caches[0]
        self.random = random.Random(f"{options.seed} {name}")
        self.refused = 0

    def choose(self, session):
        return self.caches[session.number % self.fleet if self.sticky else int(self.random.random() * self.fleet)]

    def remember(self, cache, session, entry):
        """In the order of reading, which is the order of dropping."""
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
                # Either way, the answer holds the row as it is now.
                self.remember(cache, session, (time, version, row[0]))
        self.last = cache
        self.count(start, reads, writes)

    def created(self, session, time, rotated):
        # A log-in that had a session before it gets a new id: two rows in one transaction.
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
            place = sticky if self.sticky else int(self.random.random() * self.fleet)
            if start + offset - known.get(place, -DAY) >= self.options.ttl:
                known[place] = start + offset
                reads += self.weak_miss + self.strong_miss
        self.count(start, reads, 0)


class Pyramid(Design):
    """pyramid-dynamodb-sessions: a read for each request; a reissue has no condition, so that all who see it due write."""

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
        # It is emptied, not deleted.
        self.count(time, 0, self.unit)

    def unknown(self, start, burst):
        self.count(start, len(burst) * (self.weak_miss + self.strong_miss), 0)


class Django(Design):
    """django-dynamodb-sessions: strongly consistent reads; an unknown cookie makes a row; nothing is ever reissued."""

    def requests(self, session, start, burst):
        self.count(start, len(burst) * self.strong, 0)

    def created(self, session, time, rotated):
        # Whether the new id is free, the row made, then saved; with an id before it, that one is deleted.
        self.count(time, self.strong_miss, write_units(0) + self.unit + (self.unit if rotated else 0))

    def changed(self, session, time):
        self.count(time, 0, self.unit)

    def ended(self, session, time):
        self.count(time, 0, self.unit)

    def unknown(self, start, burst):
        # The read that fails, then a new empty session: whether its id is free, the row made, then saved.
        self.count(start, len(burst) * 2 * self.strong_miss, len(burst) * 2 * write_units(0))


class Always(Design):
    """The handler of PHP's AWS SDK, connect-dynamodb and others: a strongly consistent read and a write each time."""

    def requests(self, session, start, burst):
        self.count(start, len(burst) * self.strong, len(burst) * self.unit)

    def created(self, session, time, rotated):
        self.count(time, self.strong_miss, self.unit + (self.unit if rotated else 0))

    def changed(self, session, time):
        """The write is one that is made anyway."""

    def ended(self, session, time):
        self.count(time, 0, self.unit)

    def unknown(self, start, burst):
        self.count(start, len(burst) * self.strong_miss, len(burst) * write_units(0))
