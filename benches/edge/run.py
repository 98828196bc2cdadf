#!/usr/bin/env python3
"""What the gateway holds at the edge: memory of idle connections and of huge bodies, and its load under attack.

    run.py idle      memory of each of 10,000 idle keep-alive connections, plain and TLS
    run.py bodies    peak memory while 1 GB goes through each way, over HTTP/1.1 and HTTP/2, and WebSocket frames of 1 MB
    run.py attack    requests per second of a load of 64 connections beside clients that mean harm, against the same
                     load alone: what the attacker itself takes of the processors counts as the gateway's
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
from stage import (
    ROOT,
    SESSION,
    Failure,
    cpu_nanos,
    forget_peak,
    free_ports,
    make_certificate,
    memory_kib,
    on_stage,
    put_session,
    template,
    wait_for,
)

HERE = Path(__file__).resolve().parent
COOKIE = f"Cookie: session_id={SESSION}/1"
GIGABYTE = 1 << 30
REQUEST = f"GET /small HTTP/1.1\r\nHost: localhost\r\n{COOKIE}\r\n\r\n".encode()


class Stage:
    """The gateway between a client and its upstreams."""

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
    """Opens connections at this rate, sends a request over each, reads the answer, and keeps them."""
    gate = asyncio.Semaphore(100)

    async def one():
        async with gate:
            name = "localhost" if context else None
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise Failure(f"an answer began with {head[:40]}")
            await reader.readexactly(1024)
            return reader, writer

    opened = []
    for number in range(count):
        opened.append(asyncio.create_task(one()))
        if number % 50 == 49:
            await asyncio.sleep(50 / per_second)
    return await asyncio.gather(*opened)


async def idle_each(stage, port, count, per_second, context):
    """KiB that each idle connection adds to the gateway's memory."""
    # What is allocated once, or for the busiest moment, is there before the count begins.
    for _, writer in await hold(port, 200, per_second, context):
        writer.close()
    await asyncio.sleep(3)
    before = memory_kib(stage.gateway.pid)
    held = await hold(port, count, per_second, context)
    # Idle means idle: what a connection needs for a request is given back soon after it.
    await asyncio.sleep(5)
    after = memory_kib(stage.gateway.pid)
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
        # Each in a gateway of its own: what the first have given back would be the second's for nothing.
        place = directory / name
        place.mkdir()
        stage = Stage(options, place, processes)
        context = ssl.create_default_context(cafile=place / "cert.pem") if name == "TLS" else None
        port = stage.tls_port if context else stage.port
        start = memory_kib(stage.gateway.pid) / 1024
        each, base = asyncio.run(idle_each(stage, port, options.connections, options.per_second, context))
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
    """Echoes WebSocket frames; the mask is zero, which is a mask too."""
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
                    raise Failure("the WebSocket broke off")
                left -= read
    return count * size


def bodies(options, directory, processes):
    stage = Stage(options, directory, processes)
    plain, tls = f"http://127.0.0.1:{stage.port}", f"https://localhost:{stage.tls_port}"
    trust = ["--cacert", directory / "cert.pem", "--resolve", f"localhost:{stage.tls_port}:127.0.0.1"]
    huge = directory / "files" / "huge"
    passes = {
        "download, HTTP/1.1": lambda: download(f"{plain}/huge"),
        "upload, HTTP/1.1": lambda: upload(f"{plain}/streams/sink", huge),
        "download, HTTP/2": lambda: download(f"{plain}/huge", "--http2-prior-knowledge"),
        "upload, HTTP/2": lambda: upload(f"{plain}/streams/sink", huge, "--http2-prior-knowledge"),
        "download, HTTP/2 over TLS": lambda: download(f"{tls}/huge", "--http2", *trust),
        "upload, HTTP/2 over TLS": lambda: upload(f"{tls}/streams/sink", huge, "--http2", *trust),
        "events": lambda: download(f"{plain}/streams/events"),
        "WebSocket frames of 1 MB": lambda: frames(stage.port),
    }
    print("| what | bytes | peak memory, MiB | above what was held, MiB | MB/s |\n| --- | --- | --- | --- | --- |")
    for name, go in passes.items():
        forget_peak(stage.gateway.pid)
        before = memory_kib(stage.gateway.pid)
        began = time.monotonic()
        count = go()
        spent = time.monotonic() - began
        if "load" in name and count < GIGABYTE:
            raise Failure(f"{name}: only {count} bytes came through")
        peak = memory_kib(stage.gateway.pid, "VmHWM")
        print(f"| {name} | {count} | {peak / 1024:.1f} | {(peak - before) / 1024:.1f} | {count / spent / 1e6:.0f} |", flush=True)
    return 0


def rate(stage, seconds):
    """Requests per second of 64 connections, and the gateway's CPU time for each, in microseconds."""
    port, before = stage.port, cpu_nanos(stage.gateway.pid)
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "-H", COOKIE, "-s", HERE.parent / "side_by_side" / "report.lua"]
    command.append(f"http://127.0.0.1:{port}/small")
    environment = {**os.environ, "LOAD_METHOD": "GET", "LOAD_PAUSE_MS": "0"}
    run = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)
    if run.returncode:
        raise Failure(f"wrk: {run.stderr.strip()}")
    report = json.loads(run.stdout.strip().splitlines()[-1])
    if report["bad"]:
        raise Failure(f"{report['bad']} requests of the load failed")
    spent = cpu_nanos(stage.gateway.pid) - before
    return report["requests"] / report["micros"] * 1e6, spent / 1e3 / report["requests"]


def attacked(stage, kind, seconds):
    """The load's rate under an attack."""
    kind, how = kind
    attacker = subprocess.Popen(
        [sys.executable, str(HERE / "attack.py"), kind, str(stage.port), str(how)],
        stdin=subprocess.DEVNULL,
        stdout=stage.log,
        stderr=stage.log,
    )
    try:
        time.sleep(2)
        return rate(stage, seconds)
    finally:
        attacker.kill()
        attacker.wait()


def attack(options, directory, processes):
    stage = Stage(options, directory, processes)
    rate(stage, 1)
    attacks = {
        "streams opened and reset": ("resets", "pairs"),
        "streams reset when they are under way": ("resets", "late"),
        "a new connection whenever one is held up": ("resets", "hasty"),
        "1,000 heads, a byte a second": ("drips", 1000),
    }
    columns = ["attack", "requests/s undisturbed", "under attack", "ratio", "spread", "CPU µs each", "under attack"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name, kind in attacks.items():
        pairs = []
        for _ in range(options.rounds):
            pairs.append((rate(stage, options.seconds), attacked(stage, kind, options.seconds)))
        ratios = [under[0] / calm[0] for calm, under in pairs]
        medians = [[statistics.median(column) for column in zip(*side)] for side in zip(*pairs)]
        (calm, calm_cpu), (under, under_cpu) = medians
        ratio = f"{statistics.median(ratios):.2f} | {min(ratios):.2f}–{max(ratios):.2f}"
        print(f"| {name} | {calm:.0f} | {under:.0f} | {ratio} | {calm_cpu:.1f} | {under_cpu:.1f} |", flush=True)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plays = {"idle": idle, "bodies": bodies, "attack": attack}
    parser.add_argument("play", choices=plays)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--per-second", type=int, default=1000, help="how fast connections are opened (1000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--gateway", type=Path, default=ROOT / "target/dist/sessiongate", help="the binary")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    packages = {"nginx": "nginx-light", "wrk": "wrk", "curl": "curl", "openssl": "openssl"}
    absent = [package for program, package in packages.items() if shutil.which(program) is None]
    if absent or not options.gateway.exists():
        print(f"first: apt-get install -y {' '.join(absent)}" if absent else "first: cargo build --profile dist", file=sys.stderr)
        return 2
    return on_stage(lambda directory, processes: plays[options.play](options, directory, processes))


if __name__ == "__main__":
    sys.exit(main())
