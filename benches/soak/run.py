#!/usr/bin/env python3
"""Everything at once for a long time: mixed load on a real gateway, while what it depends on is broken on purpose.

Reloads come every 20 s, good ones and broken ones; one of two upstreams is killed and comes back; the store stops
answering for 3 s. The run fails if a client saw what no fault explains, if memory grows or descriptors stay, if a reload
did not do what it must, or if the log has an error that was not asked for. Prints its findings as Markdown.
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
from ledger import Ledger
from stage import ROOT, Failure, cpu_nanos, free_ports, memory_kib, on_stage, put_session, template, wait_for
from wire import Connection

HERE = Path(__file__).resolve().parent
# Longer than the gateway waits for the store.
OUTAGE = 3
# Sent by the gateway itself, on purpose, when a file with errors is read.
REFUSED = ("configuration not reloaded", "configuration error")
MORE = '[[routes]]\npath = "/more"\naccess = "public"\nrespond = { status = 200, body = "more" }\n'
BROKEN = ('[[routes]\npath = "/"\n', '[upstreams.none]\nservers = []\n', '[[routes]]\npath = "/none"\nupstream = "nobody"\n', "typo = 1\n")


def environment():
    """The gateway's own, and credentials that the embedded engine takes."""
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    return {**os.environ, **keys, "RUST_LOG": "sessiongate=info"}


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Stage:
    """The processes, their ports, and what happens to them."""

    def __init__(self, options, directory, processes, ledger):
        self.options, self.directory, self.processes, self.ledger = options, directory, processes, ledger
        ports = free_ports(8)
        self.port, self.tls_port, self.admin_port, self.store_port, own, self.streams_port, *self.file_ports = ports
        self.sizes = {"/small": 1024, "/big": 300_000}
        (directory / "files").mkdir()
        for path, size in self.sizes.items():
            (directory / "files" / path[1:]).write_text("x" * size)
        self.tasks = set()
        self.generation, self.good, self.broken = 0, 0, 0
        self.certify()
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
            [*map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment()
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

    def certify(self):
        """A new certificate: moved into place, so that no half of one is read."""
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command += ["-keyout", self.directory / "key.new", "-out", self.directory / "cert.new"]
        subprocess.run([*map(str, command)], check=True, capture_output=True)
        for name in ("key", "cert"):
            (self.directory / f"{name}.new").rename(self.directory / f"{name}.pem")

    def configure(self, more="", broken=""):
        values = {"port": self.port, "tls_port": self.tls_port, "admin_port": self.admin_port, "store_port": self.store_port}
        values |= {"first_port": self.file_ports[0], "second_port": self.file_ports[1], "streams_port": self.streams_port}
        values |= {"generation": self.generation, "keep_alive": 32 + self.generation // 3 % 2, "more": more}
        file = template(HERE / "gateway.toml", self.directory / "gateway.toml", **values)
        if broken:
            file.write_text(file.read_text() + "\n" + broken)

    def spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def ask(self, port, path, headers=()):
        connection = await Connection.open(port)
        try:
            return await asyncio.wait_for(connection.exchange("GET", path, headers), 10)
        finally:
            connection.close()

    # What happens meanwhile.

    async def reloads(self):
        """Another configuration every 20 s; each fourth one is broken, and must change nothing."""
        for number in itertools.count(1):
            await asyncio.sleep(self.options.reload_every)
            broken = random.choice(BROKEN) if number % 4 == 0 else ""
            more = MORE if number % 2 else ""
            if not broken:
                self.generation += 1
            if number % 5 == 0:
                await asyncio.to_thread(self.certify)
            self.configure(more, broken)
            began = time.monotonic()
            self.gateway.send_signal(signal.SIGHUP)
            if broken:
                self.broken += 1
                await asyncio.sleep(2)
                self.configure(more)
            if await self.in_force():
                self.good += not broken
                self.ledger.ok("reload", began)
            else:
                self.ledger.failed("reload", began, "another configuration", "a broken one" if broken else "not the new one")

    async def in_force(self):
        """Whether the gateway serves by the configuration that must be in force, within 5 s."""
        for _ in range(50):
            try:
                _, headers, _ = await self.ask(self.port, "/small", (self.steady.cookie,))
            except FAILURES:
                headers = {}
            if headers.get("x-generation") == str(self.generation):
                return True
            await asyncio.sleep(0.1)
        return False

    async def upstream_faults(self):
        """One of the two is killed, and comes back two seconds later."""
        for number in itertools.count():
            await asyncio.sleep(self.options.upstream_every)
            with self.ledger.fault("upstream"):
                victim = self.files[number % 2]
                victim.kill()
                await asyncio.to_thread(victim.wait)
                self.processes.remove(victim)
                await asyncio.sleep(2)
                self.files[number % 2] = await asyncio.to_thread(self.start_files, number % 2)

    async def store_faults(self):
        """The store is there and says nothing."""
        while True:
            await asyncio.sleep(self.options.store_every)
            with self.ledger.fault("store"):
                self.store.send_signal(signal.SIGSTOP)
                try:
                    await asyncio.sleep(OUTAGE)
                finally:
                    self.store.send_signal(signal.SIGCONT)

    async def samples(self, found):
        """Memory and descriptors, and a new file for the access log, as log rotation does it."""
        for number in itertools.count(1):
            found.append((time.monotonic() - self.ledger.began, memory_kib(self.gateway.pid), descriptors(self.gateway.pid)))
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

    async def play(self):
        """The load and the faults, for as long as it was asked for; then quiet."""
        clients, found, self.lines = Clients(self, self.ledger, self.options.rate), [], 0
        self.steady = await clients.person()
        clients.people = [await clients.person() for _ in range(200)]
        await self.ask(self.port, "/small", (self.steady.cookie,))
        before = descriptors(self.gateway.pid)
        started = time.monotonic()
        self.ledger.began = started
        spent = cpu_nanos(self.gateway.pid)
        helpers = [self.samples(found), self.reloads(), self.upstream_faults(), self.store_faults()]
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
        after = await self.quiet(before)
        _, _, metrics = await self.ask(self.admin_port, "/metrics")
        return found, before, after, seconds, spent / 1e9, metrics.decode()

    async def quiet(self, before):
        """Descriptors once idle connections have timed out."""
        for _ in range(self.options.quiet):
            await asyncio.sleep(1)
            if descriptors(self.gateway.pid) <= before + self.options.descriptors:
                break
        return descriptors(self.gateway.pid)

    def end(self):
        """Stops the gateway as a service manager would; gives its status and how long it took."""
        began = time.monotonic()
        self.gateway.send_signal(signal.SIGTERM)
        try:
            return self.gateway.wait(45), time.monotonic() - began
        except subprocess.TimeoutExpired:
            return "none within 45 s", time.monotonic() - began


def read_log(path):
    """Counts the log's warnings, and gives the errors that were not asked for."""
    warned, wrong, refused = Counter(), [], 0
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
            wrong.append(line[:300])
        elif level == "WARN":
            warned[message] += 1
    return warned, wrong, refused


def slope(points):
    """KiB a minute, by least squares."""
    return statistics.linear_regression(*zip(*points)).slope * 60 if len(points) > 2 else 0.0


def metric(text, name):
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith((name + "{", name + " ")))


def report(stage, played, options):
    """Prints what was found; gives the rules that were broken."""
    found, before, after, seconds, spent, metrics = played
    status, took = stage.end()
    warned, wrong, refused = read_log(stage.directory / "gateway.log")
    ledger, broken = stage.ledger, []
    warm = [(at, kib) for at, kib, _ in found if at >= min(options.warm_up * 60, seconds / 3)]
    growth = slope(warm)
    requests = metric(metrics, "sessiongate_requests_total")
    faults = Counter(kind for kind, _, _ in ledger.faults)

    print(f"## Soak: {seconds / 60:.1f} minutes\n")
    print(f"{requests:,.0f} requests ({requests / seconds:.0f} a second), {spent / requests * 1e6 if requests else 0:.0f} µs of CPU each;"
          f" {stage.good} reloads and {stage.broken} refused ones, {faults['upstream']} upstreams killed, {faults['store']} outages"
          f" of the store; {stage.lines:,} lines of the access log in rotated files\n")
    print("| client | well | failed by a fault | failed otherwise | p50, ms | p99, ms |\n| --- | --- | --- | --- | --- | --- |")
    for client, well, injected, otherwise, middle, late in ledger.rows():
        cells = [", ".join(f"{count} × {what}" for what, count in sorted(counter.items())) or "0" for counter in (injected, otherwise)]
        times = (f"{middle:.1f}", f"{late:.1f}") if middle else ("", "")
        print("| " + " | ".join([client, str(well), *cells, *times]) + " |")
    print("\n| minute | memory, MiB | descriptors |\n| --- | --- | --- |")
    step = max(1, len(found) // 15)
    for at, kib, count in found[::step]:
        print(f"| {at / 60:.1f} | {kib / 1024:.1f} | {count} |")
    print(f"\nMemory after warm-up: {growth:+.1f} KiB a minute (bound {options.slope:g}). Descriptors: {before} before, {after} after"
          f" (bound +{options.descriptors}). Ended with status {status} in {took:.1f} s.")
    print("\nWarnings: " + (", ".join(f"{count} × {what}" for what, count in warned.most_common()) or "none") + ".")

    if growth > options.slope:
        broken.append(f"memory grows by {growth:.0f} KiB a minute")
    if after > before + options.descriptors:
        broken.append(f"{after - before} descriptors stayed open")
    if any(ledger.wrong.values()):
        broken.append("failures that no fault explains")
    if wrong:
        broken.append(f"{len(wrong)} errors in the log")
    if refused != stage.broken:
        broken.append(f"{stage.broken} broken files, and {refused} refused")
    if status != 0:
        broken.append(f"ended with status {status}")
    for example in (*ledger.examples, *wrong[:20]):
        print(f"    {example}")
    print(f"\nBroken rules: {'; '.join(broken) or 'none'}.")
    return broken


def soak(options, directory, processes):
    random.seed(options.seed)
    stage = Stage(options, directory, processes, Ledger())
    try:
        played = asyncio.run(stage.play())
        return 1 if report(stage, played, options) else 0
    finally:
        stage.store.send_signal(signal.SIGCONT)
        if options.logs:
            shutil.copytree(directory, options.logs, dirs_exist_ok=True, ignore=shutil.ignore_patterns("files", "*-*", "*.pem"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=30)
    add("--rate", type=float, default=1.0, help="pace of the load; 1 is about 700 requests a second")
    add("--reload-every", type=float, default=20, help="seconds")
    add("--upstream-every", type=float, default=45, help="seconds")
    add("--store-every", type=float, default=60, help="seconds")
    add("--warm-up", type=float, default=5, help="minutes, or a third of the run, after which memory must not grow")
    add("--slope", type=float, default=100, help="KiB a minute that memory may grow by")
    add("--descriptors", type=int, default=4, help="how many more may be open at the end")
    add("--quiet", type=int, default=150, help="seconds that idle connections may take to be closed")
    add("--logs", type=Path, help="a directory to keep the logs in")
    add("--seed", type=int, default=1)
    add("--gateway", type=Path, default=ROOT / "target/dist/sessiongate", help="the binary")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    packages = {"nginx": "nginx-light", "h2load": "nghttp2-client", "openssl": "openssl"}
    absent = [package for program, package in packages.items() if shutil.which(program) is None]
    if absent or not options.gateway.exists():
        print(f"first: apt-get install -y {' '.join(absent)}" if absent else "first: cargo build --profile dist", file=sys.stderr)
        return 2
    return on_stage(lambda directory, processes: soak(options, directory, processes))


if __name__ == "__main__":
    sys.exit(main())
