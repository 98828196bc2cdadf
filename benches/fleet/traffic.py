"""A day of page views: the users' visits and actions, and the requests of each page.

Users are independent of each other. All random numbers are derived from one seed and the user's number, so that a user's
day does not depend on the rest of the simulation.
"""

import math
import random

DAY = 86_400
LOGIN, RETURNING_LOGIN, PAGE, CHANGE, LOGOUT, STRANGER = range(6)
# The number of different bursts of requests. Each page view gets one of them at random.
BURSTS = 1024


class Session:
    """A session. `rows` has the row's times of issue for each design."""

    __slots__ = ("number", "rows", "version", "written")

    def __init__(self, number, time, designs):
        self.number = number
        self.version = 1
        self.written = time
        # The last time of issue, the one before, and when it changed.
        self.rows = [[time, time, time] for _ in range(designs)]


def moment(random, swing):
    """Returns a random time of day; the density has its maximum at 20:00 and its minimum at 8:00."""
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
    """Yields a user's events as (time, user, kind), in order."""
    last = free = -math.inf
    for arrival in sorted(moment(random, options.swing) for _ in range(poisson(random, options.visits))):
        time = max(arrival, free)
        # The last issue was at most `reissue_time` before the last use.
        if time - last > options.timeout - options.reissue_time:
            yield time, user, RETURNING_LOGIN if last > 0 or random.random() < options.returning else LOGIN
            time += 1.0
        while True:
            yield time, user, CHANGE if random.random() < options.changes else PAGE
            if random.random() < options.strangers:
                yield time + random.random(), user, STRANGER
            last = time
            if random.random() < 1 / options.pages:
                break
            # The next page view comes after the page has loaded, and before the session expires.
            time += min(options.spread + random.expovariate(1 / options.think), options.timeout / 2)
        if random.random() < options.logouts:
            time += options.spread + 1
            yield time, user, LOGOUT
            last = -math.inf
        free = time + options.pause


def day(users, options):
    """Returns the events of all users in a day, in order of time."""
    events = []
    for user in range(users):
        events.extend(user_day(random.Random(f"{options.seed} {user}"), user, options))
    events.sort()
    return events


def bursts(options):
    """Returns the times of a page's requests: first the document, then the others while the page loads."""
    source = random.Random(f"{options.seed} bursts")
    return [
        [0.0, *sorted(0.05 + source.random() * (options.spread - 0.05) for _ in range(options.assets))]
        for _ in range(BURSTS)
    ]
