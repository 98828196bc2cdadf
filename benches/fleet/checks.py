"""Checks the simulation against closed-form results."""

import copy
import math
import random

from designs import Always, Django, Gateways, Pyramid
from traffic import Session
from units import LIST_PRICES, read_units, write_units

SECONDS = 400_000


def steady(period, seconds=SECONDS):
    return [period * number for number in range(1, int(seconds / period))]


def at_random(rate, seed, seconds=SECONDS):
    source, time, times = random.Random(seed), 0.0, []
    while (time := time + source.expovariate(rate)) < seconds:
        times.append(time)
    return times


def simulate_user(design, times):
    session = Session(0, -1000.0, 1)
    session.rows[0] = [0.0, 0.0, -1000.0]
    for time in times:
        design.requests(session, time, (0.0,))
    return design


def cases(options):
    """Yields (description, simulated, expected), each for one user."""
    ttl, due = options.ttl, options.reissue_time
    weak, unit = read_units(options.item_bytes, False), write_units(options.item_bytes)

    # A request every `period`: the row is read again after `ttl`, unless a reissue has refreshed it before.
    for period in (0.3, 7.0, 50.0):
        gateway = simulate_user(Gateways("one", options, 1, False), steady(period))
        between = period * math.ceil(ttl / period - 1e-9)
        moves = period * (math.floor(due / period + 1e-9) + 1)
        yield f"one gateway, a request every {period} s: reads", gateway.reads, SECONDS / between * weak
        yield f"one gateway, a request every {period} s: reissues", gateway.writes, SECONDS / moves * unit

    # Requests at random: a read is followed by `ttl`, and on average `1 / rate` until the next request.
    for rate in (0.02, 0.5, 5.0):
        gateway = simulate_user(Gateways("one", options, 1, False), at_random(rate, options.seed))
        yield f"one gateway, {rate} requests/s at random: reads", gateway.reads, SECONDS / (ttl + 1 / rate) * weak
        yield f"one gateway, {rate} requests/s at random: reissues", gateway.writes, SECONDS / (due + 1 / rate) * unit

    # Each of several gateways gets its share of the requests.
    fleet = simulate_user(Gateways("fleet", options, 8, False), at_random(2.0, options.seed))
    yield "8 gateways, 2 requests/s at random: reads", fleet.reads, 8 * SECONDS / (ttl + 8 / 2.0) * weak
    written = (fleet.writes - fleet.refused * unit) / unit
    yield "8 gateways, 2 requests/s at random: successful reissues", written, SECONDS / (due + 1 / 2.0)

    # The expected number of different gateways that the requests of a burst reach.
    fleet, session = Gateways("fleet", options, 8, False), Session(0, 0.0, 1)
    for number in range(20_000):
        session.rows[0] = [10.0 * number + 10, 0.0, 0.0]
        fleet.requests(session, 10.0 * number + 10, (0.0,) * 9)
    yield "bursts of 9 over 8 gateways: reads", fleet.reads, 20_000 * 8 * (1 - (7 / 8) ** 9) * weak

    times = at_random(0.5, options.seed)
    pyramid = simulate_user(Pyramid("pyramid", options), times)
    yield "pyramid: reads", pyramid.reads, len(times) * weak
    # Requests before the replicas are up to date write another reissue.
    yield "pyramid: reissues", pyramid.writes, SECONDS / (due + 1 / 0.5) * (1 + 0.5 * options.lag) * unit
    django = simulate_user(Django("django", options), times)
    yield "django: reads", django.reads, len(times) * 2 * weak
    always = simulate_user(Always("always", options), times)
    yield "read and write: writes", always.writes, len(times) * unit

    yield "units of 5,000 bytes", read_units(5000, False) + read_units(5000, True), 1 + 2
    yield "write units, alone and in a transaction", write_units(5000) + write_units(5000, True), 5 + 10
    yield "a million of each, in dollars", LIST_PRICES.on_demand(1e6, 1e6), 0.125 + 0.625
    # One read unit and one write unit per second at 100 % for a month: $0.0949 + $0.4745.
    hours = [3600.0] * 24
    yield "provisioned, one unit of each for a month", LIST_PRICES.provisioned(hours, hours, 1.0) * 730 / 24, 0.5694


def scaling(options, simulate):
    """The cost per user does not depend on the number of users, and a simulation can be repeated."""
    sizes = [(users, simulate(users, options)[0]) for users in (1_000, 5_000)]
    for row in zip(*(compared for _, compared in sizes)):
        (small, small_cost), (large, large_cost) = (
            (users, design.options.prices.on_demand(design.reads, design.writes)) for (users, _), design in zip(sizes, row)
        )
        yield f"{small:,} and {large:,} users: {row[0].name}", small_cost / small, large_cost / large
    again = simulate(1_000, options)[0]
    for first, second in zip(sizes[0][1], again):
        yield f"repeated: {first.name}", first.reads + first.writes, second.reads + second.writes


def bounds(options, simulate):
    """A cache that is too small increases the reads."""
    small = copy.copy(options)
    small.capacity = 1
    crowded, roomy = (simulate(500, settings)[0][0].reads for settings in (small, options))
    yield "a cache of one row costs reads", float(crowded > roomy), 1.0


def check(options, simulate):
    failed = 0
    tolerances = ((cases(options), 0.02), (scaling(options, simulate), 0.05), (bounds(options, simulate), 0.0))
    for results, tolerance in tolerances:
        for description, simulated, expected in results:
            is_right = abs(simulated - expected) <= tolerance * abs(expected)
            failed += not is_right
            print(f"{'ok' if is_right else 'WRONG'}  {description}: {simulated:.6g}, expected {expected:.6g}")
    print(f"{failed} wrong" if failed else "all correct")
    return 1 if failed else 0
