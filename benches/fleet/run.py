#!/usr/bin/env python3
"""What sessions cost in DynamoDB: the gateway's reads and writes beside those of libraries inside the app.

    run.py             simulates a day of 1,000, 10,000 and 100,000 users, request by request; prints a table for `--users`
    run.py --check     holds the simulation against what can be worked out by hand; takes seconds

The counts of one user do not depend on the others as long as no gateway's cache is full, so they grow with the number
of users. The sizes that are simulated show it, and the gateways' caches are checked against `--users`.
"""

import argparse
import random
import sys

from checks import check
from designs import Always, Django, Gateways, Pyramid
from traffic import BURSTS, CHANGE, DAY, LOGIN, LOGOUT, PAGE, RENEWAL, STRANGER, Session, bursts, day
from units import DAYS_OF_MONTH, LIST_PRICES, write_units



def designs(options):
    """What is compared. The gateways' names say how requests find them."""
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
    """Tells every design of a day's events; gives the designs and how many pages were viewed."""
    compared, templates = designs(options), bursts(options)
    source = random.Random(f"{options.seed} {users}")
    current, pages, number = {}, 0, 0
    for time, user, what in day(users, options):
        if what in (LOGIN, RENEWAL):
            number += 1
            session = current[user] = Session(number, time + 0.5, len(compared))
            rotated = source.random() < options.rotations
            for design in compared:
                if what == RENEWAL:
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
    print("Assumed:\n")
    for line in (
        f"{options.visits:g} visits a user and day, most at 20:00 and least at 8:00, {(1 - options.swing) / (1 + options.swing):.0%} of it;"
        f" {options.pages:g} page views a visit, {options.think:g} s apart (exponential) and {options.spread:g} s of loading",
        f"{requests} requests a page view that ask for the session: the document, and {options.assets} more within {options.spread:g} s."
        " What browsers cache or public routes serve asks for none",
        f"rows of {options.item_bytes} bytes ({written:g} write units, read units by 4 KB); timeout {options.timeout / 60:g} min,"
        f" reissue_time {options.reissue_time:g} s, cache ttl {options.ttl:g} s and capacity {options.capacity:,} a gateway",
        f"{options.changes:.0%} of page views change the session, {options.logouts:.0%} of visits end by a log-out,"
        f" {options.rotations:.0%} of log-ins change the id of an earlier session (the gateway's transaction is charged double)",
        f"{options.returning:.0%} of users come with a cookie whose row is gone; for every 100 page views,"
        f" {options.strangers * 100:g} strangers with a made-up cookie send {options.stranger_requests} requests each (unsigned"
        " cookies; signed ones that are made up cost the gateway nothing)",
        f"replicas lag {options.lag:g} s; refused conditional writes are charged; nothing for storage, backups, transfer",
        f"on demand ${options.prices.read}/${options.prices.write} per million read/write units; provisioned"
        f" ${options.prices.read_hour}/${options.prices.write_hour} per unit and hour, following the load by the hour at"
        f" {options.utilisation:.0%} ({options.prices.source}); a month has {DAYS_OF_MONTH:.1f} days",
        f"the app behind the gateway has no session library of its own: one that has goes on reading and writing; seed {options.seed}",
    ):
        print(f"- {line}")


def print_costs(compared, pages, users, options):
    prices = options.prices
    scale = options.users / users
    base = next(design for design in compared if isinstance(design, Pyramid))
    base_price = prices.on_demand(base.reads, base.writes)
    print(f"\n{options.users / 1e6:g} million active users a day, {pages * scale / 1e6:,.0f} million page views a day;")
    print(f"simulated with {users:,} users and {pages:,} page views ({pages * (options.assets + 1):,} requests)\n")
    print("| who reads and writes | read units a page | write units a page | $ per million pages | $ a month | provisioned | |")
    print("| --- " * 7 + "|")
    for design in compared:
        day_price = prices.on_demand(design.reads, design.writes)
        provisioned = prices.provisioned(design.reads_by_hour, design.writes_by_hour, options.utilisation)
        row = [design.name, f"{design.reads / pages:.2f}", f"{design.writes / pages:.2f}", f"{day_price / pages * 1e6:.2f}"]
        row += [f"{price * scale * DAYS_OF_MONTH:,.0f}" for price in (day_price, provisioned)]
        print("| " + " | ".join([*row, f"{day_price / base_price:.2f}"]) + " |")
    print("\nThe last column is the price on demand against pyramid-dynamodb-sessions'.")


def print_scaling(runs):
    """Whether a user costs the same at every size."""
    print("\nUnits a user and day (read + write) by the number of users simulated; the last column is the largest difference:\n")
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


def print_room(compared, pages, users, options):
    """The assumption behind the scaling: what a gateway reads within `ttl` fits into its cache."""
    scale = options.users / users
    print()
    for design in compared:
        if isinstance(design, Gateways):
            busiest = max(design.reads_by_hour) * scale / 3600 / design.weak / design.fleet
            rows = busiest * options.ttl
            verdict = "fits" if rows < options.capacity else "DOES NOT FIT: take more gateways, or a larger capacity"
            print(f"{design.name}: {busiest:,.0f} reads/s each in the busiest hour, {rows:,.0f} rows within the ttl: {verdict}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--check", action="store_true", help="hold the simulation against closed forms, and print nothing else")
    add("--users", type=float, default=10e6, help="active users a day that the table is for (10 million)")
    add("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="how many users are simulated")
    add("--gateways", type=int, nargs="*", default=[4, 16], help="fleets behind a balancer that is not sticky")
    add("--visits", type=float, default=1.5, help="visits a user and day")
    add("--pages", type=float, default=8.0, help="page views a visit, on average")
    add("--think", type=float, default=40.0, help="seconds between two page views, on average, beyond loading")
    add("--assets", type=int, default=8, help="requests of a page besides its document that ask for the session")
    add("--spread", type=float, default=3.0, help="seconds within which they come")
    add("--pause", type=float, default=60.0, help="least seconds between two visits")
    add("--swing", type=float, default=0.7, help="of the daily curve: 0 is none, 1 is an empty morning")
    add("--changes", type=float, default=0.05, help="share of page views that change the session")
    add("--logouts", type=float, default=0.1, help="share of visits that end by a log-out")
    add("--returning", type=float, default=0.5, help="share of users whose first request brings an ended session's cookie")
    add("--rotations", type=float, default=0.2, help="share of log-ins that change the id of an earlier session")
    add("--strangers", type=float, default=0.01, help="made-up cookies for each page view")
    add("--stranger-requests", type=int, default=3, help="requests with each made-up cookie")
    add("--timeout", type=float, default=1200.0, help="seconds")
    add("--reissue-time", type=float, default=120.0, help="seconds")
    add("--ttl", type=float, default=2.0, help="seconds that a gateway uses a row without reading it again")
    add("--capacity", type=int, default=100_000, help="sessions that a gateway caches")
    add("--item-bytes", type=int, default=700, help="size of a row, names of attributes included")
    add("--lag", type=float, default=0.1, help="seconds by which eventually consistent reads are late")
    add("--utilisation", type=float, default=0.7, help="how full provisioned capacity is")
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
    print_room(compared, pages, users, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
