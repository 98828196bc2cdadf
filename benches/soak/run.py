#!/usr/bin/env python3
"""Soak test: a mixed load on a gateway for a long time, with injected faults of its dependencies.

The configuration is reloaded every 20 s, sometimes with an invalid file; one of an upstream's two servers is killed and
restarted; the store is suspended for 3 s. The run fails if a client sees a failure that no fault explains, if memory
grows or descriptors stay open, if a reload has the wrong result, or if the log contains an unexpected error. Prints a
report in Markdown.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from clients import FAILURES, Clients
from record import Record
from harness import ROOT, Failure, cpu_nanos, free_ports, memory_kib, run_in_directory, put_session, template, wait_for
from connection import Connection

HERE = Path(__file__).resolve().parent
# Seconds; longer than the gateway's timeout for the store.
OUTAGE = 3
# Beginnings of the errors that the gateway logs for an invalid file.
REFUSED = ("configuration not reloaded", "configuration error")
MORE = '[[routes]]\npath = "/more"\naccess = "public"\nrespond = { status = 200, body = "more" }\n'
INVALID = ('[[routes]\npath = "/"\n', '[upstreams.none]\nservers = []\n', '[[routes]]\npath = "/none"\nupstream = "nobody"\n', "typo = 1\n")


def process_environment():
    """Returns the environment of the processes, with credentials for the embedded store."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    return {**os.environ, **keys, "RUST_LOG": "sessiongate=info"}


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Environment:
    """The processes with their ports, the load and the faults."""

    def __init__(self, options, directory, processes, record):
        self.options, self.directory, self.processes, self.record = options, directory, processes, record
        ports = free_ports(8)
        self.port, self.tls_port, self.admin_port, self.store_port, own, self.streams_port, *self.file_ports = ports
        self.sizes = {"/small": 1024, "/big": 300_000}
        (directory / "files").mkdir()
        for path, size in self.sizes.items():
            (directory / "files" / path[1:]).write_text("x" * size)
        self.tasks = set()
        self.generation, self.valid_reloads, self.invalid_reloads = 0, 0, 0
        self.renew_certificate()
        store = template(HERE / "store.toml", directory / "store.toml", port=own, store_port=self.store_port)
        self.store = self.start("store", self.store_port, options.gateway, "serve", "--config", store)
        put_session(self.store_port)
        self.files = [self.start_files(name) for name in (0, 1)]
        self.start("streams", self.streams_port, sys.executable, HERE.parent / "edge" / "streams.py", self.streams_port)
        self.configure()
        self.gateway = self.start("gateway", self.port, options.gateway, "serve", "--config", directory / "gateway.toml")

    def start(self, name, port, *command):
        log = (self.directory / f"{name}.log").open("a")
        process = subprocess.Popen(
            [*map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=process_environment()
        )
        log.close()
        process.args = ["", "", "", name]
        self.processes.append(process)
        wait_for(port, process)
        return process

    def start_files(self, name):
        port = self.file_ports[name]
        file = template(HERE / "upstream.conf", self.directory / f"files-{name}.conf", dir=self.directory, name=f"files-{name}", port=port)
        return self.start(f"files-{name}", port, "nginx", "-c", file, "-e", self.directory / f"files-{name}.log")

    def renew_certificate(self):
        """Creates a new certificate, and renames it into place, so that the gateway never reads a partial file."""
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command += ["-keyout", self.directory / "key.new", "-out", self.directory / "cert.new"]
        subprocess.run([*map(str, command)], check=True, capture_output=True)
        for name in ("key", "cert"):
            (self.directory / f"{name}.new").rename(self.directory / f"{name}.pem")

    def configure(self, more="", invalid=""):
        values = {"port": self.port, "tls_port": self.tls_port, "admin_port": self.admin_port, "store_port": self.store_port}
        values |= {"first_port": self.file_ports[0], "second_port": self.file_ports[1], "streams_port": self.streams_port}
        values |= {"generation": self.generation, "keep_alive": 32 + self.generation // 3 % 2, "more": more}
        file = template(HERE / "gateway.toml", self.directory / "gateway.toml", **values)
        if invalid:
            file.write_text(file.read_text() + "\n" + invalid)

    def spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def get(self, port, path, headers=()):
        connection = await Connection.open(port)
        try:
            return await asyncio.wait_for(connection.exchange("GET", path, headers), 10)
        finally:
            connection.close()

    # Background tasks.

    async def reloads(self):
        """Reloads another configuration periodically. Each fourth one is invalid, and must change nothing."""
        for number in itertools.count(1):
            await asyncio.sleep(self.options.reload_every)
            invalid = random.choice(INVALID) if number % 4 == 0 else ""
            more = MORE if number % 2 else ""
            if not invalid:
                self.generation += 1
            if number % 5 == 0:
                await asyncio.to_thread(self.renew_certificate)
            self.configure(more, invalid)
            began = time.monotonic()
            self.gateway.send_signal(signal.SIGHUP)
            if invalid:
                self.invalid_reloads += 1
                await asyncio.sleep(2)
                self.configure(more)
            if await self.wait_for_generation():
                self.valid_reloads += not invalid
                self.record.ok("reload", began)
            else:
                detail = "the invalid one" if invalid else "not the new one"
                self.record.failed("reload", began, "wrong configuration", detail)

    async def wait_for_generation(self):
        """Waits up to 5 s for the gateway to use the current configuration. Returns whether it does."""
        for _ in range(50):
            try:
                _, headers, _ = await self.get(self.port, "/small", (self.steady.cookie,))
            except FAILURES:
                headers = {}
            if headers.get("x-generation") == str(self.generation):
                return True
            await asyncio.sleep(0.1)
        return False

    async def upstream_faults(self):
        """Kills one of an upstream's two servers periodically, and restarts it after two seconds."""
        for number in itertools.count():
            await asyncio.sleep(self.options.upstream_every)
            with self.record.fault("upstream"):
                victim = self.files[number % 2]
                victim.kill()
                await asyncio.to_thread(victim.wait)
                self.processes.remove(victim)
                await asyncio.sleep(2)
                self.files[number % 2] = await asyncio.to_thread(self.start_files, number % 2)

    async def store_faults(self):
        """Suspends the store periodically, so that it accepts connections but does not respond."""
        while True:
            await asyncio.sleep(self.options.store_every)
            with self.record.fault("store"):
                self.store.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(OUTAGE)
                finally:
                    self.store.send_signal(signal.SIGCONT)

    async def samples(self, samples):
        """Records memory and descriptors periodically, and rotates the access log."""
        for number in itertools.count(1):
            samples.append((time.monotonic() - self.record.began, memory_kib(self.gateway.pid), descriptors(self.gateway.pid)))
            if number % 6 == 0:
                log, old = self.directory / "access.log", self.directory / "access.old"
                log.rename(old)
                self.gateway.send_signal(signal.SIGUSR1)
                await asyncio.sleep(2)
                self.lines += await asyncio.to_thread(lambda: sum(1 for _ in old.open("rb")))
                old.unlink()
                await asyncio.sleep(8)
            else:
                await asyncio.sleep(10)

    async def run(self):
        """Runs the load and the faults for the requested time, and then waits for idle connections to close."""
        clients, samples, self.lines = Clients(self, self.record, self.options.rate), [], 0
        self.steady = await clients.create_session()
        clients.sessions = [await clients.create_session() for _ in range(200)]
        await self.get(self.port, "/small", (self.steady.cookie,))
        before = descriptors(self.gateway.pid)
        started = time.monotonic()
        self.record.began = started
        spent = cpu_nanos(self.gateway.pid)
        helpers = [self.samples(samples), self.reloads(), self.upstream_faults(), self.store_faults()]
        watched = [self.spawn(work) for work in (*helpers, *clients.all())]
        deadline = started + self.options.minutes * 60
        while time.monotonic() < deadline:
            await asyncio.sleep(1)
            if self.gateway.poll() is not None:
                raise Failure(f"the gateway ended with status {self.gateway.returncode}")
            for task in watched:
                if task.done():
                    raise Failure(f"a client ended: {task.exception()!r}")
        seconds = time.monotonic() - started
        spent = cpu_nanos(self.gateway.pid) - spent
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.store.send_signal(signal.SIGCONT)
        after = await self.wait_until_idle(before)
        _, _, metrics = await self.get(self.admin_port, "/metrics")
        return samples, before, after, seconds, spent / 1e9, metrics.decode()

    async def wait_until_idle(self, before):
        """Waits until idle connections have timed out. Returns the number of open descriptors."""
        for _ in range(self.options.quiet):
            await asyncio.sleep(1)
            if descriptors(self.gateway.pid) <= before + self.options.descriptors:
                break
        return descriptors(self.gateway.pid)

    def end(self):
        """Stops the gateway as a service manager would. Returns its exit status and the duration."""
        began = time.monotonic()
        self.gateway.send_signal(signal.SIGTERM)
        try:
            return self.gateway.wait(45), time.monotonic() - began
        except subprocess.TimeoutExpired:
            return "none within 45 s", time.monotonic() - began


def read_log(path):
    """Returns the counts of warnings, the unexpected errors, and the number of refused reloads."""
    warnings, unexpected, refused = Counter(), [], 0
    for line in path.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
            level = event.get("level", "")
            message = event.get("message") or event.get("fields", {}).get("message", "")
        except ValueError:
            level, message = "", line
        if level == "ERROR" and message.startswith(REFUSED):
            refused += message.startswith(REFUSED[0])
        elif level == "ERROR" or "panicked" in line or not level:
            unexpected.append(line[:300])
        elif level == "WARN":
            warnings[message] += 1
    return warnings, unexpected, refused


def slope(points):
    """Returns the growth in KiB per minute, by least squares."""
    return statistics.linear_regression(*zip(*points)).slope * 60 if len(points) > 2 else 0.0


def metric(text, name):
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith((name + "{", name + " ")))


def report(environment, results, options):
    """Prints the report. Returns the violated rules."""
    samples, before, after, seconds, spent, metrics = results
    status, took = environment.end()
    warnings, unexpected, refused = read_log(environment.directory / "gateway.log")
    record, violations = environment.record, []
    warm = [(at, kib) for at, kib, _ in samples if at >= min(options.warm_up * 60, seconds / 3)]
    growth = slope(warm)
    requests = metric(metrics, "sessiongate_requests_total")
    faults = Counter(kind for kind, _, _ in record.faults)

    print(f"## Soak: {seconds / 60:.1f} minutes\n")
    print(f"{requests:,.0f} requests ({requests / seconds:.0f} per second), {spent / requests * 1e6 if requests else 0:.0f} µs of CPU each;"
          f" {environment.valid_reloads} valid and {environment.invalid_reloads} invalid reloads, {faults['upstream']} servers killed,"
          f" {faults['store']} outages of the store; {environment.lines:,} access log lines in rotated files\n")
    print("| client | succeeded | failed by a fault | failed otherwise | p50, ms | p99, ms |\n| --- | --- | --- | --- | --- | --- |")
    for client, succeeded, explained, unexplained, p50, p99 in record.rows():
        counters = (explained, unexplained)
        cells = [", ".join(f"{count} × {what}" for what, count in sorted(counter.items())) or "0" for counter in counters]
        times = (f"{p50:.1f}", f"{p99:.1f}") if p50 else ("", "")
        print("| " + " | ".join([client, str(succeeded), *cells, *times]) + " |")
    print("\n| minute | memory, MiB | descriptors |\n| --- | --- | --- |")
    step = max(1, len(samples) // 15)
    for at, kib, count in samples[::step]:
        print(f"| {at / 60:.1f} | {kib / 1024:.1f} | {count} |")
    print(f"\nMemory after warm-up: {growth:+.1f} KiB per minute (limit {options.slope:g}). Descriptors: {before} before, {after} after"
          f" (limit +{options.descriptors}). Ended with status {status} in {took:.1f} s.")
    print("\nWarnings: " + (", ".join(f"{count} × {what}" for what, count in warnings.most_common()) or "none") + ".")

    if growth > options.slope:
        violations.append(f"memory grows by {growth:.0f} KiB per minute")
    if after > before + options.descriptors:
        violations.append(f"{after - before} descriptors stayed open")
    if any(record.unexplained.values()):
        violations.append("failures that no fault explains")
    if unexpected:
        violations.append(f"{len(unexpected)} unexpected errors in the log")
    if refused != environment.invalid_reloads:
        violations.append(f"{environment.invalid_reloads} invalid files, but {refused} refused reloads")
    if status != 0:
        violations.append(f"ended with status {status}")
    for example in (*record.examples, *unexpected[:20]):
        print(f"    {example}")
    print(f"\nViolations: {'; '.join(violations) or 'none'}.")
    return violations


def soak(options, directory, processes):
    random.seed(options.seed)
    environment = Environment(options, directory, processes, Record())
    try:
        results = asyncio.run(environment.run())
        return 1 if report(environment, results, options) else 0
    finally:
        environment.store.send_signal(signal.SIGCONT)
        if options.logs:
            shutil.copytree(directory, options.logs, dirs_exist_ok=True, ignore=shutil.ignore_patterns("files", "*-*", "*.pem"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=30)
    add("--rate", type=float, default=1.0, help="rate of the load; 1 is about 700 requests per second")
    add("--reload-every", type=float, default=20, help="seconds")
    add("--upstream-every", type=float, default=45, help="seconds")
    add("--store-every", type=float, default=60, help="seconds")
    add("--warm-up", type=float, default=5, help="minutes (at most a third of the run) after which memory must not grow")
    add("--slope", type=float, default=100, help="limit of the growth of memory, in KiB per minute")
    add("--descriptors", type=int, default=4, help="limit of additional open descriptors at the end")
    add("--quiet", type=int, default=150, help="seconds within which idle connections must be closed")
    add("--logs", type=Path, help="directory to which the logs are copied")
    add("--seed", type=int, default=1)
    add("--gateway", type=Path, default=ROOT / "target/dist/sessiongate", help="the binary")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    packages = {"nginx": "nginx-light", "h2load": "nghttp2-client", "openssl": "openssl"}
    absent = [package for program, package in packages.items() if shutil.which(program) is None]
    if absent or not options.gateway.exists():
        print(f"first: apt-get install -y {' '.join(absent)}" if absent else "first: cargo build --profile dist --features jemalloc", file=sys.stderr)
        return 2
    return run_in_directory(lambda directory, processes: soak(options, directory, processes))


if __name__ == "__main__":
    sys.exit(main())
