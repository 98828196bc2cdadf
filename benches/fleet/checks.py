"""The simulation against what can be worked out with a pencil."""

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


def played(design, times):
    session = Session(0, -1000.0, 1)
    session.rows[0] = [0.0, 0.0, -1000.0]
    for time in times:
        design.requests(session, time, (0.0,))
    return design


def cases(options):
    """(what, counted, expected), for one user each."""
    ttl, due = options.ttl, options.reissue_time
    weak, unit = read_units(options.item_bytes, False), write_units(options.item_bytes)

    # A request every `period`: a row is read again once `ttl` has passed, and by then a reissue may have brought it.
    for period in (0.3, 7.0, 50.0):
        gateway = played(Gateways("one", options, 1, False), steady(period))
        between = period * math.ceil(ttl / period - 1e-9)
        moves = period * (math.floor(due / period + 1e-9) + 1)
        yield f"one gateway, a request every {period} s: reads", gateway.reads, SECONDS / between * weak
        yield f"one gateway, a request every {period} s: reissues", gateway.writes, SECONDS / moves * unit

    # Requests at random: after a read, `ttl` passes, and then the next request comes `1 / rate` later.
    for rate in (0.02, 0.5, 5.0):
        gateway = played(Gateways("one", options, 1, False), at_random(rate, options.seed))
        yield f"one gateway, {rate} requests/s at random: reads", gateway.reads, SECONDS / (ttl + 1 / rate) * weak
        yield f"one gateway, {rate} requests/s at random: reissues", gateway.writes, SECONDS / (due + 1 / rate) * unit

    # Each of several gateways sees its share.
    fleet = played(Gateways("fleet", options, 8, False), at_random(2.0, options.seed))
    yield "8 gateways, 2 requests/s at random: reads", fleet.reads, 8 * SECONDS / (ttl + 8 / 2.0) * weak
    won = (fleet.writes - fleet.refused * unit) / unit
    yield "8 gateways, 2 requests/s at random: reissues that were done", won, SECONDS / (due + 1 / 2.0)

    # A burst at one moment meets so many different gateways.
    fleet, session = Gateways("fleet", options, 8, False), Session(0, 0.0, 1)
    for number in range(20_000):
        session.rows[0] = [10.0 * number + 10, 0.0, 0.0]
        fleet.requests(session, 10.0 * number + 10, (0.0,) * 9)
    yield "bursts of 9 over 8 gateways: reads", fleet.reads, 20_000 * 8 * (1 - (7 / 8) ** 9) * weak

    times = at_random(0.5, options.seed)
    pyramid = played(Pyramid("pyramid", options), times)
    yield "pyramid: reads", pyramid.reads, len(times) * weak
    # Whoever comes before the replicas have heard of a reissue makes another.
    yield "pyramid: reissues", pyramid.writes, SECONDS / (due + 1 / 0.5) * (1 + 0.5 * options.lag) * unit
    django = played(Django("django", options), times)
    yield "django: reads", django.reads, len(times) * 2 * weak
    always = played(Always("always", options), times)
    yield "read and write: writes", always.writes, len(times) * unit

    yield "units of 5,000 bytes", read_units(5000, False) + read_units(5000, True), 1 + 2
    yield "written, and in a transaction", write_units(5000) + write_units(5000, True), 5 + 10
    yield "a million of each, in dollars", LIST_PRICES.on_demand(1e6, 1e6), 0.125 + 0.625
    # A unit a second at 100 % for a month: $0.0949 + $0.4745.
    hours = [3600.0] * 24
    yield "provisioned, a month of a unit", LIST_PRICES.provisioned(hours, hours, 1.0) * 730 / 24, 0.5694


def scaling(options, simulate):
    """A user costs the same in a crowd five times as large, and a day is the same whenever it is simulated."""
    sizes = [(users, simulate(users, options)[0]) for users in (1_000, 5_000)]
    for row in zip(*(compared for _, compared in sizes)):
        (small, small_cost), (large, large_cost) = (
            (users, design.options.prices.on_demand(design.reads, design.writes)) for (users, _), design in zip(sizes, row)
        )
        yield f"{small:,} and {large:,} users: {row[0].name}", small_cost / small, large_cost / large
    again = simulate(1_000, options)[0]
    for first, second in zip(sizes[0][1], again):
        yield f"the same again: {first.name}", first.reads + first.writes, second.reads + second.writes


def bounds(options, simulate):
    """A cache that is too small shows, rather than being assumed away."""
    small = copy.copy(options)
    small.capacity = 1
    crowded, roomy = (simulate(500, settings)[0][0].reads for settings in (small, options))
    yield "a cache of one row costs reads", float(crowded > roomy), 1.0


def check(options, simulate):
    failed = 0
    tolerances = ((cases(options), 0.02), (scaling(options, simulate), 0.05), (bounds(options, simulate), 0.0))
    for found, tolerance in tolerances:
        for what, counted, expected in found:
            holds = abs(counted - expected) <= tolerance * abs(expected)
            failed += not holds
            print(f"{'ok' if holds else 'WRONG'}  {what}: {counted:.6g}, expected {expected:.6g}")
    print(f"{failed} wrong" if failed else "all hold")
    return 1 if failed else 0
