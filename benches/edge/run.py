#!/usr/bin/env python3
"""Measures the gateway's memory for idle connections and large bodies, and its throughput under attack.

    run.py idle      memory per connection of 10,000 idle keep-alive connections, with and without TLS
    run.py bodies    peak memory while 1 GB is forwarded in each direction, over HTTP/1.1 and HTTP/2, and WebSocket
                     frames of 1 MB
    run.py attack    requests per second of 64 connections during an attack, compared with the same load alone. CPU time
                     that the attacker uses on this machine counts against the gateway
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from harness import (
    ROOT,
    SESSION,
    Failure,
    cpu_nanos,
    reset_peak,
    free_ports,
    make_certificate,
    memory_kib,
    run_in_directory,
    put_session,
    template,
    wait_for,
)

HERE = Path(__file__).resolve().parent
COOKIE = f"Cookie: session_id={SESSION}/1"
GIGABYTE = 1 << 30
REQUEST = f"GET /small HTTP/1.1\r\nHost: localhost\r\n{COOKIE}\r\n\r\n".encode()


class Environment:
    """The gateway and its upstreams."""

    def __init__(self, options, directory, processes):
        self.directory, self.processes = directory, processes
        self.log = (directory / "output.log").open("w")
        self.port, self.tls_port, store, upstream, streams = free_ports(5)
        (directory / "files").mkdir()
        (directory / "files" / "small").write_text("x" * 1024)
        with (directory / "files" / "huge").open("w") as huge:
            huge.truncate(GIGABYTE)
        make_certificate(directory)
        values = {"dir": directory, "upstream_port": upstream}
        file = template(HERE.parent / "side_by_side" / "upstream.conf", directory / "upstream.conf", **values)
        self.start(upstream, "nginx", "-c", file, "-e", directory / "upstream.log")
        self.start(streams, sys.executable, HERE / "streams.py", streams)
        ports = {"port": self.port, "tls_port": self.tls_port, "store_port": store}
        file = template(
            HERE / "gateway.toml", directory / "gateway.toml", upstream_port=upstream, streams_port=streams, **ports
        )
        self.gateway = self.start(self.port, options.gateway, "serve", "--config", file)
        wait_for(store, self.gateway)
        put_session(store)

    def start(self, port, *command):
        process = subprocess.Popen(
            [*map(str, command)], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.processes.append(process)
        if port:
            wait_for_port(port, process)
        return process


def wait_for_port(port, process):
    process.args = ["", "", "", process.args[0]]
    wait_for(port, process)


async def hold(port, count, per_second, context=None):
    """Opens connections at this rate, sends a request over each, reads the response, and keeps them open."""
    gate = asyncio.Semaphore(100)

    async def one():
        async with gate:
            name = "localhost" if context else None
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise Failure(f"a response began with {head[:40]}")
            await reader.readexactly(1024)
            return reader, writer

    opened = []
    for number in range(count):
        opened.append(asyncio.create_task(one()))
        if number % 50 == 49:
            await asyncio.sleep(50 / per_second)
    return await asyncio.gather(*opened)


async def idle_each(environment, port, count, per_second, context):
    """Returns the KiB that each idle connection adds to the gateway's memory, and the MiB before."""
    # A warm-up: the gateway allocates memory that it needs only once, or for peaks, before the first measurement.
    for _, writer in await hold(port, 200, per_second, context):
        writer.close()
    await asyncio.sleep(3)
    before = memory_kib(environment.gateway.pid)
    held = await hold(port, count, per_second, context)
    # The gateway frees the memory that a connection needs for a request soon after it.
    await asyncio.sleep(5)
    after = memory_kib(environment.gateway.pid)
    alive = held[:: max(1, count // 100)]
    for reader, writer in alive:
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1024)
    for _, writer in held:
        writer.transport.abort()
    await asyncio.sleep(2)
    return (after - before) / count, before / 1024


def idle(options, directory, processes):
    need = options.connections + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < need:
        raise Failure(f"{need} descriptors are needed, and {hard} allowed: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, need), hard))
    for name in ("plain", "TLS"):
        # Each in a gateway of its own, since the second would reuse memory that the first has freed.
        subdirectory = directory / name
        subdirectory.mkdir()
        environment = Environment(options, subdirectory, processes)
        context = ssl.create_default_context(cafile=subdirectory / "cert.pem") if name == "TLS" else None
        port = environment.tls_port if context else environment.port
        start = memory_kib(environment.gateway.pid) / 1024
        each, base = asyncio.run(idle_each(environment, port, options.connections, options.per_second, context))
        print(
            f"{options.connections} idle {name} connections: {each:.1f} KiB each, above {base:.1f} MiB "
            f"({start:.1f} MiB at the start)"
        )
    return 0


def curl(*arguments):
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", "300", "-H", COOKIE, *arguments]
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if run.returncode:
        raise Failure(f"curl: {run.stderr.strip()}")
    return run.stdout


def download(url, *flags):
    size = curl(*flags, "--output", os.devnull, "--write-out", "%{size_download}", url)
    return int(size)


def upload(url, file, *flags):
    return int(curl(*flags, "--upload-file", file, url))


def frames(port, count=512, size=1 << 20):
    """Sends WebSocket frames and reads them back. The mask is zero, which is valid and saves the masking."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        head = "GET /streams/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        connection.sendall(f"{head}{key}{COOKIE}\r\n\r\n".encode())
        answer = connection.recv(4096)
        if not answer.startswith(b"HTTP/1.1 101"):
            raise Failure(f"no WebSocket: {answer[:60]}")
        sent = bytes([0x82, 0xFF]) + size.to_bytes(8) + bytes(4) + bytes(size)
        buffer = bytearray(1 << 20)
        for _ in range(count):
            connection.sendall(sent)
            left = 10 + size
            while left:
                read = connection.recv_into(buffer, min(left, len(buffer)))
                if not read:
                    raise Failure("the WebSocket was closed")
                left -= read
    return count * size


def bodies(options, directory, processes):
    environment = Environment(options, directory, processes)
    plain, tls = f"http://127.0.0.1:{environment.port}", f"https://localhost:{environment.tls_port}"
    trust = ["--cacert", directory / "cert.pem", "--resolve", f"localhost:{environment.tls_port}:127.0.0.1"]
    huge = directory / "files" / "huge"
    transfers = {
        "download, HTTP/1.1": lambda: download(f"{plain}/huge"),
        "upload, HTTP/1.1": lambda: upload(f"{plain}/streams/sink", huge),
        "download, HTTP/2": lambda: download(f"{plain}/huge", "--http2-prior-knowledge"),
        "upload, HTTP/2": lambda: upload(f"{plain}/streams/sink", huge, "--http2-prior-knowledge"),
        "download, HTTP/2 over TLS": lambda: download(f"{tls}/huge", "--http2", *trust),
        "upload, HTTP/2 over TLS": lambda: upload(f"{tls}/streams/sink", huge, "--http2", *trust),
        "events": lambda: download(f"{plain}/streams/events"),
        "WebSocket frames of 1 MB": lambda: frames(environment.port),
    }
    print("| transfer | bytes | peak memory, MiB | increase, MiB | MB/s |\n| --- | --- | --- | --- | --- |")
    for name, transfer in transfers.items():
        reset_peak(environment.gateway.pid)
        before = memory_kib(environment.gateway.pid)
        began = time.monotonic()
        count = transfer()
        spent = time.monotonic() - began
        if "load" in name and count < GIGABYTE:
            raise Failure(f"{name}: only {count} bytes were transferred")
        peak = memory_kib(environment.gateway.pid, "VmHWM")
        print(f"| {name} | {count} | {peak / 1024:.1f} | {(peak - before) / 1024:.1f} | {count / spent / 1e6:.0f} |", flush=True)
    return 0


def rate(environment, seconds):
    """Returns the requests per second of 64 connections, and the gateway's CPU time per request in microseconds."""
    port, before = environment.port, cpu_nanos(environment.gateway.pid)
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "-H", COOKIE, "-s", HERE.parent / "side_by_side" / "report.lua"]
    command.append(f"http://127.0.0.1:{port}/small")
    environment = {**os.environ, "LOAD_METHOD": "GET", "LOAD_PAUSE_MS": "0"}
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        raise Failure(f"wrk: {run.stderr.strip()}")
    report = json.loads(run.stdout.strip().splitlines()[-1])
    if report["bad"]:
        raise Failure(f"{report['bad']} requests of the load failed")
    spent = cpu_nanos(environment.gateway.pid) - before
    return report["requests"] / report["micros"] * 1e6, spent / 1e3 / report["requests"]


def attacked(environment, kind, seconds):
    """Returns the same during an attack."""
    kind, argument = kind
    attacker = subprocess.Popen(
        [sys.executable, str(HERE / "attack.py"), kind, str(environment.port), str(argument)],
        stdin=subprocess.DEVNULL,
        stdout=environment.log,
        stderr=environment.log,
    )
    try:
        time.sleep(2)
        return rate(environment, seconds)
    finally:
        attacker.kill()
        attacker.wait()


def attack(options, directory, processes):
    environment = Environment(options, directory, processes)
    rate(environment, 1)
    attacks = {
        "streams opened and reset at once": ("resets", "pairs"),
        "streams reset after the upstream has the request": ("resets", "late"),
        "a new connection whenever one is paused": ("resets", "hasty"),
        "1,000 heads at a byte per second": ("drips", 1000),
    }
    columns = ["attack", "requests/s without", "requests/s during", "ratio", "spread", "CPU µs without", "CPU µs during"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name, kind in attacks.items():
        pairs = []
        for _ in range(options.rounds):
            pairs.append((rate(environment, options.seconds), attacked(environment, kind, options.seconds)))
        ratios = [under[0] / calm[0] for calm, under in pairs]
        medians = [[statistics.median(column) for column in zip(*side)] for side in zip(*pairs)]
        (calm, calm_cpu), (under, under_cpu) = medians
        ratio = f"{statistics.median(ratios):.2f} | {min(ratios):.2f}–{max(ratios):.2f}"
        print(f"| {name} | {calm:.0f} | {under:.0f} | {ratio} | {calm_cpu:.1f} | {under_cpu:.1f} |", flush=True)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measurements = {"idle": idle, "bodies": bodies, "attack": attack}
    parser.add_argument("measurement", choices=measurements)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--per-second", type=int, default=1000, help="rate at which connections are opened (1000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--gateway", type=Path, default=ROOT / "target/dist/sessiongate", help="the binary")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    packages = {"nginx": "nginx-light", "wrk": "wrk", "curl": "curl", "openssl": "openssl"}
    absent = [package for program, package in packages.items() if shutil.which(program) is None]
    if absent or not options.gateway.exists():
        print(f"first: apt-get install -y {' '.join(absent)}" if absent else "first: cargo build --profile dist --features jemalloc", file=sys.stderr)
        return 2
    measure = measurements[options.measurement]
    return run_in_directory(lambda directory, processes: measure(options, directory, processes))


if __name__ == "__main__":
    sys.exit(main())
