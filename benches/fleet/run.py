#!/usr/bin/env python3
"""Simulates the cost of sessions in DynamoDB, with the gateway and with session libraries inside the app.

    run.py             simulates a day of 1,000, 10,000 and 100,000 users, request by request; prints a table for `--users`
    run.py --check     checks the simulation against closed-form results; takes seconds

As long as no gateway's cache is full, the users do not affect each other, so the cost is proportional to their number.
The simulated sizes confirm this, and the report says whether the caches suffice for `--users`.
"""

import argparse
import random
import sys

from checks import check
from designs import Always, Django, Gateways, Pyramid
from traffic import BURSTS, CHANGE, LOGIN, LOGOUT, PAGE, RETURNING_LOGIN, STRANGER, Session, bursts, day
from units import DAYS_OF_MONTH, LIST_PRICES, write_units



def designs(options):
    """Returns the designs to compare. The names of the gateways say how requests are balanced."""
    everyone = [Gateways("1 gateway, or several and a sticky balancer", options, 1, False)]
    for count in options.gateways:
        everyone.append(Gateways(f"{count} gateways, any of them for each request", options, count, False))
    everyone.append(Pyramid("pyramid-dynamodb-sessions", options))
    everyone.append(Django("django-dynamodb-sessions 0.7", options))
    everyone.append(Always("read and write each request (PHP, connect-dynamodb)", options))
    for index, design in enumerate(everyone):
        design.index = index
    return everyone


def simulate(users, options):
    """Passes the events of a day to every design. Returns the designs and the number of page views."""
    compared, templates = designs(options), bursts(options)
    source = random.Random(f"{options.seed} {users}")
    current, pages, number = {}, 0, 0
    for time, user, what in day(users, options):
        if what in (LOGIN, RETURNING_LOGIN):
            number += 1
            session = current[user] = Session(number, time + 0.5, len(compared))
            rotated = source.random() < options.rotations
            for design in compared:
                if what == RETURNING_LOGIN:
                    design.unknown(time, (0.0,))
                design.created(session, time + 0.5, rotated)
        elif what in (PAGE, CHANGE):
            pages += 1
            session, burst = current[user], templates[int(source.random() * BURSTS)]
            if what == CHANGE:
                for design in compared:
                    design.requests(session, time, burst[:1])
                session.version += 1
                session.written = time
                for design in compared:
                    design.changed(session, time)
            for design in compared:
                design.requests(session, time, burst[1:] if what == CHANGE else burst)
        elif what == LOGOUT:
            session = current.pop(user)
            for design in compared:
                design.ended(session, time)
        elif what == STRANGER:
            for design in compared:
                design.unknown(time, templates[int(source.random() * BURSTS)][: options.stranger_requests])
    return compared, pages


def print_assumptions(options):
    requests = options.assets + 1
    written = write_units(options.item_bytes)
    print("Assumptions:\n")
    for line in (
        f"{options.visits:g} visits per user and day; the rate is highest at 20:00, and lowest at 8:00, with"
        f" {(1 - options.swing) / (1 + options.swing):.0%} of it; {options.pages:g} page views per visit, with"
        f" {options.think:g} s between them (exponential) and {options.spread:g} s of loading",
        f"{requests} requests with the session per page view: the document, and {options.assets} more within {options.spread:g} s;"
        " resources in the browser's cache or on public routes need no session",
        f"rows of {options.item_bytes} bytes ({written:g} write units, read units per 4 KB); timeout {options.timeout / 60:g} min,"
        f" reissue_time {options.reissue_time:g} s, cache ttl {options.ttl:g} s and capacity {options.capacity:,} per gateway",
        f"{options.changes:.0%} of page views change the session, {options.logouts:.0%} of visits end with a log-out,"
        f" {options.rotations:.0%} of log-ins rotate the id of an earlier session (the gateway's transaction costs double)",
        f"{options.returning:.0%} of users arrive with a cookie whose row no longer exists; for every 100 page views,"
        f" {options.strangers * 100:g} clients with an unknown id send {options.stranger_requests} requests each (unsigned"
        " cookies; signed cookies with made-up ids cost the gateway nothing)",
        f"replicas lag {options.lag:g} s; failed conditional writes cost units; storage, backups and transfer are excluded",
        f"on demand ${options.prices.read}/${options.prices.write} per million read/write units; provisioned"
        f" ${options.prices.read_hour}/${options.prices.write_hour} per unit and hour, adapted to the load every hour at"
        f" {options.utilisation:.0%} utilisation ({options.prices.source}); a month has {DAYS_OF_MONTH:.1f} days",
        f"the app behind the gateway has no session library, which would read and write in addition; seed {options.seed}",
    ):
        print(f"- {line}")


def print_costs(compared, pages, users, options):
    prices = options.prices
    scale = options.users / users
    base = next(design for design in compared if isinstance(design, Pyramid))
    base_price = prices.on_demand(base.reads, base.writes)
    print(f"\n{options.users / 1e6:g} million active users a day, {pages * scale / 1e6:,.0f} million page views a day;")
    print(f"simulated with {users:,} users and {pages:,} page views ({pages * (options.assets + 1):,} requests)\n")
    print("| design | read units per page | write units per page | $ per million pages | $ per month | provisioned | |")
    print("| --- " * 7 + "|")
    for design in compared:
        day_price = prices.on_demand(design.reads, design.writes)
        provisioned = prices.provisioned(design.reads_by_hour, design.writes_by_hour, options.utilisation)
        row = [design.name, f"{design.reads / pages:.2f}", f"{design.writes / pages:.2f}", f"{day_price / pages * 1e6:.2f}"]
        row += [f"{price * scale * DAYS_OF_MONTH:,.0f}" for price in (day_price, provisioned)]
        print("| " + " | ".join([*row, f"{day_price / base_price:.2f}"]) + " |")
    print("\nThe last column is the on-demand price as a ratio to that of pyramid-dynamodb-sessions.")


def print_scaling(runs):
    """Prints the cost per user for each number of users. Returns the largest difference."""
    print("\nUnits per user and day (read + write) by the number of simulated users; the last column is the largest difference:\n")
    print("| | " + " | ".join(f"{users:,}" for users, _, _ in runs) + " | |")
    print("| --- " * (len(runs) + 2) + "|")
    worst = 0.0
    for row in zip(*(compared for _, compared, _ in runs)):
        each = [(design.reads / users, design.writes / users) for design, (users, _, _) in zip(row, runs)]
        spread = max(max(column) / min(column) - 1 for column in zip(*each))
        worst = max(worst, spread)
        cells = [f"{reads:.1f} + {writes:.2f}" for reads, writes in each]
        print("| " + " | ".join([row[0].name, *cells, f"{spread:.1%}"]) + " |")
    return worst


def print_cache_use(compared, pages, users, options):
    """Checks the assumption of the scaling: the rows that a gateway reads within `ttl` fit into its cache."""
    scale = options.users / users
    print()
    for design in compared:
        if isinstance(design, Gateways):
            busiest = max(design.reads_by_hour) * scale / 3600 / design.weak / design.fleet
            rows = busiest * options.ttl
            verdict = "fits" if rows < options.capacity else "DOES NOT FIT: use more gateways or a larger capacity"
            print(f"{design.name}: {busiest:,.0f} reads/s each in the busiest hour, {rows:,.0f} rows within the ttl: {verdict}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--check", action="store_true", help="check the simulation against closed-form results, and print nothing else")
    add("--users", type=float, default=10e6, help="active users per day for the table (10 million)")
    add("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="numbers of users to simulate")
    add("--gateways", type=int, nargs="*", default=[4, 16], help="numbers of gateways behind a balancer that is not sticky")
    add("--visits", type=float, default=1.5, help="visits per user and day")
    add("--pages", type=float, default=8.0, help="average page views per visit")
    add("--think", type=float, default=40.0, help="average seconds between two page views, in addition to loading")
    add("--assets", type=int, default=8, help="requests of a page with the session, besides the document")
    add("--spread", type=float, default=3.0, help="seconds within which these requests are sent")
    add("--pause", type=float, default=60.0, help="minimum seconds between two visits")
    add("--swing", type=float, default=0.7, help="amplitude of the daily curve: 0 is constant, 1 is no load at 8:00")
    add("--changes", type=float, default=0.05, help="share of page views that change the session")
    add("--logouts", type=float, default=0.1, help="share of visits that end with a log-out")
    add("--returning", type=float, default=0.5, help="share of users whose first request has the cookie of an ended session")
    add("--rotations", type=float, default=0.2, help="share of log-ins that rotate the id of an earlier session")
    add("--strangers", type=float, default=0.01, help="cookies with unknown ids per page view")
    add("--stranger-requests", type=int, default=3, help="requests with each of these cookies")
    add("--timeout", type=float, default=1200.0, help="seconds")
    add("--reissue-time", type=float, default=120.0, help="seconds")
    add("--ttl", type=float, default=2.0, help="seconds that a gateway uses a row without reading it again")
    add("--capacity", type=int, default=100_000, help="sessions that a gateway caches")
    add("--item-bytes", type=int, default=700, help="size of a row, attribute names included")
    add("--lag", type=float, default=0.1, help="age in seconds of the data that eventually consistent reads return")
    add("--utilisation", type=float, default=0.7, help="utilisation of provisioned capacity")
    add("--seed", type=int, default=1)
    options = parser.parse_args()
    options.prices = LIST_PRICES
    return options


def main():
    options = arguments()
    if options.check:
        return check(options, simulate)
    print_assumptions(options)
    runs = [(users, *simulate(users, options)) for users in sorted(options.sizes)]
    users, compared, pages = runs[-1]
    print_costs(compared, pages, users, options)
    print_scaling(runs)
    print_cache_use(compared, pages, users, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
