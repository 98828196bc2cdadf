#!/usr/bin/env python3
"""The gateway side by side with nginx and HAProxy: what a proxied request costs in CPU time.

Every target runs on one core, the load generator and the upstream on another. The targets take turns, in a new random
order each round, so that what the machine does meanwhile hits all of them. The figure is the CPU time of the target's
whole process tree per request, as a ratio to HAProxy's in the same round. A round in which any target answered anything
but 200 in full is thrown away whole.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stage import ROOT, SESSION, Failure, cpu_nanos, free_ports, on_stage, put_session, request, spawn, template, wait_for

HERE = Path(__file__).resolve().parent
CONNECTIONS = 64
EXPECTED = "Alice|admin,staff|Alice of acme|acme"
# name: (method, path, bytes of the request's body, least bytes of an answer)
WORKLOADS = {
    "small": ("GET", "/small", 0, 1024),
    "post": ("POST", "/post", 10 * 1024, 2),
    "big": ("GET", "/big", 0, 100 * 1024),
}


class Target:
    """A proxy under test: its process, and where it listens."""

    def __init__(self, name, command, port):
        self.name = name
        self.command = command
        self.port = port
        self.process = None

    def start(self, core, log):
        self.process = spawn(self.command, core, log)


def load(port, workload, seconds, core, pause_ms=0.0):
    """Runs the load generator; gives what it counted."""
    method, path, body, least = WORKLOADS[workload]
    environment = {**os.environ, "LOAD_METHOD": method, "LOAD_PAUSE_MS": str(pause_ms)}
    if body:
        environment["LOAD_BODY"] = str(body)
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    command += ["-H", f"Cookie: session_id={SESSION}/1", "-s", str(HERE / "report.lua"), f"http://127.0.0.1:{port}{path}"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if run.returncode != 0:
        raise Failure(f"wrk failed: {run.stderr.strip() or run.stdout.strip()}")
    report = json.loads(run.stdout.strip().splitlines()[-1])
    report["short"] = report["requests"] == 0 or report["bytes"] < report["requests"] * least
    return report


def check_injection(port):
    """The figure is worth nothing unless the upstream gets the session's headers, and no forged ones."""
    headers = {"Cookie": f"session_id={SESSION}/1", "X-User": "mallory", "X_User": "mallory"}
    status, text = request(port, "GET", "/echo", headers)
    if (status, text) != (200, EXPECTED):
        raise Failure(f"the gateway injected {text!r} (status {status}) instead of {EXPECTED!r}")
    status, _ = request(port, "GET", "/echo")
    if status not in (302, 401):
        raise Failure(f"the gateway answered {status} without a session")


def prepare(options, directory):
    """Configures everything; gives the upstream's command and port, and the targets with the gateways' store ports."""
    upstream, haproxy, nginx, nginx_auth, *gateway_ports = free_ports(8)
    (directory / "files").mkdir()
    (directory / "files" / "small").write_text("x" * 1024)
    (directory / "files" / "big").write_text("x" * 100 * 1024)
    values = {"dir": directory, "upstream_port": upstream, "nginx_port": nginx, "nginx_auth_port": nginx_auth}
    upstream_file = template(HERE / "upstream.conf", directory / "upstream.conf", **values)
    nginx_file = template(HERE / "nginx.conf", directory / "nginx.conf", **values)
    haproxy_file = template(HERE / "haproxy.cfg", directory / "haproxy.cfg", upstream_port=upstream, haproxy_port=haproxy)
    targets = {
        "haproxy": Target("haproxy", ["haproxy", "-db", "-f", haproxy_file], haproxy),
        "nginx": Target("nginx", ["nginx", "-c", nginx_file, "-e", directory / "nginx.log"], nginx),
        "nginx-auth": Target("nginx-auth", None, nginx_auth),
    }
    stores = {}
    for name, access_log in (("gateway", "false"), ("gateway-log", "true")):
        port, store = gateway_ports.pop(), gateway_ports.pop()
        file = directory / f"{name}.toml"
        template(HERE / "gateway.toml", file, port=port, store_port=store, upstream_port=upstream, access_log=access_log)
        targets[name] = Target(name, [options.gateway, "serve", "--config", file], port)
        stores[name] = store
    wanted = {name: targets[name] for name in options.targets}
    # One nginx serves both of its targets.
    if "nginx-auth" in wanted:
        wanted.setdefault("nginx", targets["nginx"])
    return ["nginx", "-c", upstream_file, "-e", directory / "upstream.log"], upstream, wanted, stores


def measure(targets, order, workload, options, half_pause):
    """One round: every target in this order. Gives None if any of them failed."""
    figures = {}
    for name in order:
        target = targets[name]
        # Connections, caches and branch predictors settle before what is measured.
        load(target.port, workload, 1, options.load_core)
        before = cpu_nanos(target.process.pid)
        report = load(target.port, workload, options.seconds, options.load_core)
        spent = cpu_nanos(target.process.pid) - before
        if half_pause:
            half = load(target.port, workload, options.seconds, options.load_core, half_pause)
            report |= {"half_p50": half["p50"], "half_p99": half["p99"], "bad": report["bad"] + half["bad"]}
        if report["bad"] or report["short"]:
            print(f"  {name}: {report['bad']} bad answers, short: {report['short']}", file=sys.stderr)
            return None
        report["cpu"] = spent / report["requests"] / 1000
        report["rate"] = report["requests"] / report["micros"] * 1e6
        report["busy"] = spent / report["micros"] / 1000
        figures[name] = report
    return figures


def table(workload, rounds, names, thrown_away):
    print(f"\n### {workload}: {len(rounds)} rounds" + (f", {thrown_away} thrown away" if thrown_away else ""), end="\n\n")
    half = "half_p50" in rounds[0][names[0]]
    head = ["target", "CPU / HAProxy", "spread", "CPU per request, µs", "requests/s", "core busy"]
    head += ["p50 at half load, µs", "p99 at half load, µs"] if half else []
    print("| " + " | ".join(head) + " |")
    print("| --- " * len(head) + "|")
    for name in names:
        ratios = [r[name]["cpu"] / r["haproxy"]["cpu"] for r in rounds]
        middle = {key: statistics.median(r[name][key] for r in rounds) for key in rounds[0][name]}
        row = [name, f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}–{max(ratios):.2f}"]
        row += [f"{middle['cpu']:.1f}", f"{middle['rate']:.0f}", f"{100 * middle['busy']:.0f} %"]
        row += [f"{middle['half_p50']:.0f}", f"{middle['half_p99']:.0f}"] if half else []
        print("| " + " | ".join(row) + " |")
    sys.stdout.flush()


def compare(options, directory, processes):
    log = (directory / "output.log").open("w")
    command, upstream_port, targets, stores = prepare(options, directory)
    processes.append(spawn(command, options.load_core, log))
    wait_for(upstream_port, processes[-1])
    for name, target in targets.items():
        if target.command:
            target.start(options.proxy_core, (directory / f"{name}.log").open("w"))
            processes.append(target.process)
    if "nginx-auth" in targets:
        targets["nginx-auth"].process = targets["nginx"].process
    for target in targets.values():
        wait_for(target.port, target.process)
    for name in stores.keys() & targets.keys():
        wait_for(stores[name], targets[name].process)
        put_session(stores[name])
        check_injection(targets[name].port)
    bad = False
    for workload in options.workloads:
        half_pause = 0.0
        if options.half:
            # Half of what HAProxy does when saturated, for every target alike.
            report = load(targets["haproxy"].port, workload, options.seconds, options.load_core)
            half_pause = 2 * CONNECTIONS * report["micros"] / report["requests"] / 1000
        rounds, thrown_away = [], 0
        for number in range(options.rounds):
            order = random.sample(options.targets, len(options.targets))
            print(f"{workload}, round {number + 1} of {options.rounds}: {', '.join(order)}", file=sys.stderr)
            figures = measure(targets, order, workload, options, half_pause)
            if figures is None:
                thrown_away += 1
            else:
                rounds.append(figures)
        if rounds:
            table(workload, rounds, options.targets, thrown_away)
        else:
            print(f"{workload}: no round without a failure, so there is no figure", file=sys.stderr)
        bad = bad or thrown_away > 0
    for name in stores.keys() & targets.keys():
        check_injection(targets[name].port)
    return 1 if bad else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often every target is measured (7)")
    parser.add_argument("--seconds", type=int, default=5, help="how long each time (5)")
    for name, what in (("small", "GET, 1 KB answers"), ("post", "POST of 10 KB"), ("big", "GET, 100 KB answers")):
        parser.add_argument(f"--{name}", dest="workloads", action="append_const", const=name, help=what)
    parser.add_argument("--half", action="store_true", help="also latency at half of HAProxy's saturated rate")
    every = ["gateway", "gateway-log", "nginx", "nginx-auth", "haproxy"]
    parser.add_argument("--targets", nargs="+", choices=every, default=["gateway", "nginx", "haproxy"])
    parser.add_argument("--gateway", type=Path, default=ROOT / "target/dist/sessiongate", help="the binary")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1, help="load generator and upstream")
    options = parser.parse_args()
    options.workloads = options.workloads or ["small"]
    if "haproxy" not in options.targets:
        options.targets.append("haproxy")
    return options


def missing(options):
    """What has to be there first, each with the command that brings it."""
    packages = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "taskset": "util-linux"}
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    absent = [package for program, package in packages.items() if shutil.which(program) is None]
    if absent:
        yield f"apt-get install -y --no-install-recommends {' '.join(absent)}"
    if any(name.startswith("gateway") for name in options.targets) and not options.gateway.exists():
        yield "cargo build --profile dist"
    cores = os.sched_getaffinity(0)
    if not {options.proxy_core, options.load_core} <= cores or options.proxy_core == options.load_core:
        yield f"choose two of the cores {sorted(cores)} with --proxy-core and --load-core"


def main():
    options = arguments()
    first = list(missing(options))
    if first:
        print("first:\n  " + "\n  ".join(first), file=sys.stderr)
        return 2
    return on_stage(lambda directory, processes: compare(options, directory, processes))


if __name__ == "__main__":
    sys.exit(main())
