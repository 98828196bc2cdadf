"""A day of page views: when users come, what they do, and which requests a page is made of.

Users are independent of each other. Everything is drawn from one seed, user by user, so a user's day is the same
whatever else is simulated.
"""

import math
import random

DAY = 86_400
LOGIN, RENEWAL, PAGE, CHANGE, LOGOUT, STRANGER = range(6)
# Bursts are drawn once and used again: which of them a page gets is random, its inside need not be drawn anew.
BURSTS = 1024


class Session:
    """A row of the table. Each design keeps its own idea of when it was issued, in `rows`."""

    __slots__ = ("number", "rows", "version", "written")

    def __init__(self, number, time, designs):
        self.number = number
        self.version = 1
        self.written = time
        # When it was issued, when it was before that, and when that changed.
        self.rows = [[time, time, time] for _ in range(designs)]


def moment(random, swing):
    """A time of day by a curve that peaks at 20:00 and is lowest at 8:00."""
    while True:
        time = random.random() * DAY
        if random.random() * (1 + swing) <= 1 + swing * math.cos(2 * math.pi * (time / DAY - 20 / 24)):
            return time


def poisson(random, mean):
    count, left = 0, math.exp(-mean)
    product = random.random()
    while product > left:
        count += 1
        product *= random.random()
    return count


def user_day(random, user, options):
    """One user's events as (time, user, what), in order."""
    last = free = -math.inf
    for arrival in sorted(moment(random, options.swing) for _ in range(poisson(random, options.visits))):
        time = max(arrival, free)
        # A row that was used lately was issued at most `reissue_time` before that use.
        if time - last > options.timeout - options.reissue_time:
            yield time, user, RENEWAL if last > 0 or random.random() < options.returning else LOGIN
            time += 1.0
        while True:
            yield time, user, CHANGE if random.random() < options.changes else PAGE
            if random.random() < options.strangers:
                yield time + random.random(), user, STRANGER
            last = time
            if random.random() < 1 / options.pages:
                break
            # Reading a page takes longer than loading it, and a visit does not outlive its session.
            time += min(options.spread + random.expovariate(1 / options.think), options.timeout / 2)
        if random.random() < options.logouts:
            time += options.spread + 1
            yield time, user, LOGOUT
            last = -math.inf
        free = time + options.pause


def day(users, options):
    """Every user's events of a day, in order of time."""
    events = []
    for user in range(users):
        events.extend(user_day(random.Random(f"{options.seed} {user}"), user, options))
    events.sort()
    return events


def bursts(options):
    """When a page's requests come: the document at once, the rest spread over the time that it takes to load."""
    source = random.Random(f"{options.seed} bursts")
    return [
        [0.0, *sorted(0.05 + source.random() * (options.spread - 0.05) for _ in range(options.assets))]
        for _ in range(BURSTS)
    ]
