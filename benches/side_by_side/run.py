#!/usr/bin/env python3
"""Compares the cost of a proxied request in the gateway, nginx and HAProxy.

The targets run on one core; the load generator, the upstream and the store on another. The targets are measured in turn,
in a new random order each round, so that other load on the machine affects all of them. The main figure is the CPU time
per request of the target's process tree, as a ratio to HAProxy's in the same round. A round is discarded if any response
of any target is not a complete 200.

Prints a Markdown table, and writes a plot when all workloads are measured. Installs nothing, but lists missing programs.
"""

import argparse
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from load import Generator
from plot import plot
from report import LEGEND, summary, table
from harness import ROOT, run_in_directory
from targets import Environment
from workloads import TARGETS, WORKLOADS

HERE = Path(__file__).resolve().parent


def measure(generator, workload, target, seconds, rate):
    """Measures one target: latency at half load, which also warms caches and pools, then CPU time at full load."""
    target.reset_peak()
    half = generator.run(workload, target, seconds, rate)
    operations, spent = target.store_operations(), target.cpu()
    report = generator.run(workload, target, seconds)
    spent = target.cpu() - spent
    figures = {
        "bad": half["bad"] + report["bad"],
        "cpu": spent / max(1, report["requests"]) / 1000,
        "rate": report["requests"] / report["micros"] * 1e6,
        # The share of its core that the target used. If it is far below 1, something else was the bottleneck.
        "busy": spent / report["micros"] / 1000,
        "p50": half["p50"],
        "p99": half["p99"],
        "peak": target.peak_kib(),
    }
    if operations:
        # Includes up to 64 requests that were in flight when the load ended and are not counted.
        done = [after - before for before, after in zip(operations, target.store_operations())]
        reads, writes = (1000 * count / max(1, report["requests"]) for count in done)
        figures |= {"reads": reads, "writes": writes}
    return figures


def run_workload(name, names, environment, generator, options):
    """Runs all rounds of a workload, and returns those in which no target failed."""
    workload = WORKLOADS[name]
    environment.write_sessions()
    pace = generator.run(workload, environment.targets[workload.paced_by], options.seconds)
    rate = pace["requests"] / pace["micros"] * 1e6 / 2
    rounds = []
    for number in range(options.rounds):
        order = random.sample(names, len(names))
        print(f"{name}, round {number + 1} of {options.rounds}: {', '.join(order)}", file=sys.stderr)
        figures = {
            target: measure(generator, workload, environment.targets[target], options.seconds, rate) for target in order
        }
        failed = [f"{target}: {row['bad']} bad responses" for target, row in figures.items() if row["bad"]]
        if failed:
            print(f"  discarded: {', '.join(failed)}", file=sys.stderr)
        else:
            rounds.append({target: figures[target] for target in names})
            for target, row in figures.items():
                print(f"  {target}: {row['cpu']:.1f} µs, core {100 * row['busy']:.0f} % busy", file=sys.stderr)
    return rounds


def compare(options, directory, processes):
    began = time.monotonic()
    environment = Environment(options, options.wanted(), directory, processes)
    generator = Generator(options.load_core, directory)
    rounds = {
        name: run_workload(name, options.names(name), environment, generator, options) for name in options.workloads
    }
    for target in environment.targets.values():
        target.check()
    results = summary(rounds)
    print(table(results), end="\n\n")
    print(LEGEND, end="\n\n")
    kept = sum(map(len, rounds.values()))
    print(f"{options.rounds} rounds of {options.seconds} s, {kept} of {options.rounds * len(rounds)} kept,", end=" ")
    print(f"in {(time.monotonic() - began) / 60:.0f} minutes. {machine()}")
    if options.plot and results:
        options.plot.write_text(plot(results))
    return 0 if all(rounds.values()) else 1


def machine():
    """Returns the processor and the versions of the kernel and the targets."""
    processors = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = processors[0].partition(": ")[2] if processors else platform.machine()
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip().rpartition("/")[2]
    haproxy = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    return f"{processor}, Linux {platform.release()}; nginx {nginx}, HAProxy {haproxy}."


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ", ".join(WORKLOADS)
    parser.add_argument("workloads", nargs="*", metavar="workload", help=f"any of: {every}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (5)")
    parser.add_argument("--seconds", type=int, default=2, help="duration of each measurement, at half load and at full load (2)")
    parser.add_argument("--quick", action="store_true", help="two rounds of one second: takes three minutes, and is imprecise")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="only these targets, and HAProxy")
    parser.add_argument("--gateway", type=Path, default=ROOT / "target/dist/sessiongate", help="the binary")
    parser.add_argument("--plot", type=Path, help="path of the plot (default for all workloads without --quick: result.svg in this directory)")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1, help="load generator, upstream and store")
    options = parser.parse_args()
    unknown = [name for name in options.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"unknown workload {', '.join(unknown)}; the workloads are {every}")
    if not options.plot and not (options.workloads or options.quick):
        options.plot = HERE / "result.svg"
    if options.quick:
        options.rounds, options.seconds = 2, 1
    options.workloads = options.workloads or list(WORKLOADS)
    kept = {*options.targets, "haproxy"}
    options.names = lambda name: [target for target in WORKLOADS[name].targets if target in kept]
    # The target that sets the pace is needed even if it is not measured.
    options.wanted = lambda: sorted(
        {target for name in options.workloads for target in (*options.names(name), WORKLOADS[name].paced_by)}
    )
    return options


def missing(options):
    """Yields the command that provides each missing requirement."""
    packages = {
        "nginx": "nginx-light",
        "haproxy": "haproxy",
        "wrk": "wrk",
        "h2load": "nghttp2-client",
        "openssl": "openssl",
        "taskset": "util-linux",
    }
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    absent = [package for program, package in packages.items() if shutil.which(program) is None]
    if absent:
        yield f"apt-get install -y --no-install-recommends {' '.join(absent)}"
    if not options.gateway.exists():
        yield "cargo build --profile dist --features jemalloc"
    cores = os.sched_getaffinity(0)
    if not {options.proxy_core, options.load_core} <= cores or options.proxy_core == options.load_core:
        yield f"choose two of the cores {sorted(cores)} with --proxy-core and --load-core"


def main():
    options = arguments()
    first = list(missing(options))
    if first:
        print("first:\n  " + "\n  ".join(first), file=sys.stderr)
        return 2
    return run_in_directory(lambda directory, processes: compare(options, directory, processes))


if __name__ == "__main__":
    sys.exit(main())
