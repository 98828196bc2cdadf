#!/usr/bin/env python3
"""Compares the cost of a proxied request in the gateway, nginx and HAProxy, and other peers if they are asked for.

The targets run on one core; the load generator, the upstream, the store, and the responder that some targets ask about each
request, on another. The targets are measured in turn, in a new random order each round, and HAProxy between them. The main
figure is the CPU time per request of a target's process tree, and of its responder's, divided by the mean of HAProxy's right
before and right after. If HAProxy's two figures differ by more than 15 %, the target is measured again, up to twice. A round is
discarded if any response of any target is not a complete 200.

Prints Markdown tables, and writes them as JSON and a plot. Installs nothing but the peers of `--peers`, into `target/`, and lists
other missing programs.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import peers
from load import Generator
from plot import plot
from report import COMPARISON_LEGEND, LEGEND, comparison_table, comparisons, summary, table
from harness import ROOT, run_in_directory
from rounds import REFERENCE, TOLERANCE, Rounds
from targets import Environment
from workloads import TARGETS, WORKLOADS

HERE = Path(__file__).resolve().parent
OWN = [name for name in TARGETS if name not in (REFERENCE, *peers.PACKAGES)]


def run_workload(name, environment, generator, options):
    environment.write_sessions()
    rounds = Rounds(generator, WORKLOADS[name], environment.targets, options.seconds)
    for number in range(options.rounds):
        print(f"{name}, round {number + 1} of {options.rounds}", file=sys.stderr)
        rounds.run(targets_of(name, options))
    return rounds


def targets_of(workload, options):
    """Returns the targets of a workload that are asked for, except for HAProxy."""
    return [target for target in WORKLOADS[workload].targets if target in options.targets + options.peers]


def compare(options, directory, processes):
    began = time.monotonic()
    wanted = {REFERENCE}.union(*(targets_of(name, options) for name in options.workloads))
    # The target that sets the pace is needed even if it is not measured.
    wanted |= {WORKLOADS[name].paced_by for name in options.workloads}
    environment = Environment(options, sorted(wanted), directory, processes)
    generator = Generator(options.load_core, directory)
    measured = {name: run_workload(name, environment, generator, options) for name in options.workloads}
    for target in environment.targets.values():
        target.check()
    kept = {name: rounds.kept for name, rounds in measured.items()}
    results = summary(kept)
    compared = comparisons(kept, results)
    notes = [*counts(measured, options), f"{(time.monotonic() - began) / 60:.1f} minutes. {machine(options)}"]
    notes += [f"NOT MEASURED: {TARGETS[peer]}: {reason}" for peer, reason in options.absent.items()]
    print("\n\n".join([table(results), LEGEND, comparison_table(compared), COMPARISON_LEGEND, *notes]))
    write(options.output, {"notes": notes, "results": results, "comparisons": compared, "rounds": kept})
    complete = all(set(results.get(name, [])) >= {*targets_of(name, options)} for name in options.workloads)
    return 0 if complete else 1


def counts(measured, options):
    """Yields how many rounds there were, and how many measurements were repeated."""
    total = {key: sum(getattr(rounds, key) for rounds in measured.values()) for key in ("discarded", "repeated", "unsettled")}
    yield (
        f"Rounds: {options.rounds} for each workload, of {options.seconds} s for each measurement; discarded for bad responses: "
        f"{total['discarded']}. Measurements repeated because HAProxy changed by more than {TOLERANCE:.0%}: {total['repeated']}; "
        f"given up because it kept changing: {total['unsettled']}."
    )


def write(output, report):
    """Writes the plot and the JSON. Quartiles are lists: the lower one, the median, the upper one."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "result.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if report["results"]:
        (output / "result.svg").write_text(plot(report["results"]))
    print(f"wrote {output}/result.json and result.svg", file=sys.stderr)


def machine(options):
    """Returns the processor and the versions of the kernel and the peers."""
    processors = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = processors[0].partition(": ")[2] if processors else platform.machine()
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.strip().rpartition("/")[2]
    haproxy = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    versions = [f"nginx {nginx}", f"HAProxy {haproxy}", *(f"{peer.title()} {peers.version(peer)}" for peer in options.peers)]
    return f"{processor}, Linux {platform.release()}; {', '.join(versions)}."


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ", ".join(WORKLOADS)
    parser.add_argument("workloads", nargs="*", metavar="workload", help=f"any of: {every}; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds (7)")
    parser.add_argument("--seconds", type=int, default=2, help="duration of each measurement (2)")
    parser.add_argument("--quick", action="store_true", help="one round of one second, of `small`: checks that this works")
    parser.add_argument("--targets", nargs="+", choices=OWN, default=OWN, help="only these targets, and HAProxy")
    parser.add_argument("--peers", default="", help=f"also these, for `small`: any of {','.join(peers.PACKAGES)}")
    parser.add_argument("--gateway", type=Path, default=ROOT / "target/dist/sessiongate", help="the binary")
    output = "directory of result.json and result.svg (the script's for all workloads, otherwise target/side_by_side)"
    parser.add_argument("--output", type=Path, help=output)
    parser.add_argument("--proxy-core", type=int, default=0, help="the targets (0)")
    parser.add_argument("--load-core", type=int, default=1, help="load generator, upstream, responder and store (1)")
    options = parser.parse_args()
    options.peers = [peer for peer in options.peers.split(",") if peer]
    check_names(parser, "workload", options.workloads, WORKLOADS)
    check_names(parser, "peer", options.peers, peers.PACKAGES)
    if not options.output:
        partial = options.workloads or options.quick
        options.output = ROOT / "target/side_by_side" if partial else HERE
    if options.quick:
        options.rounds, options.seconds = 1, 1
    options.workloads = options.workloads or (["small"] if options.quick else list(WORKLOADS))
    return options


def check_names(parser, kind, names, known):
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"unknown {kind} {', '.join(unknown)}; known: {', '.join(known)}")


def install_peers(options):
    """Installs the peers that are asked for. Those that cannot be had are moved to `options.absent`, with the reason."""
    reasons = {peer: peers.install(peer) for peer in options.peers}
    options.absent = {peer: reason for peer, reason in reasons.items() if reason}
    options.peers = [peer for peer in options.peers if peer not in options.absent]
    for peer, reason in options.absent.items():
        print(f"NOT MEASURED: {TARGETS[peer]}: {reason}", file=sys.stderr)


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
    install_peers(options)
    return run_in_directory(lambda directory, processes: compare(options, directory, processes))


if __name__ == "__main__":
    sys.exit(main())
