"""Runs the load generators, wrk and h2load, and parses their results."""

import json
import os
import random
import re
import subprocess
from pathlib import Path

from harness import Failure
from targets import COOKIE
from workloads import H2_CONNECTIONS, H2_STREAMS, KEEP_ALIVE

REPORT = Path(__file__).resolve().parent / "report.lua"


class Generator:
    """Generates load from one core. `directory` contains the file of session ids, and receives logs."""

    def __init__(self, core, directory):
        self.core, self.directory = core, directory

    def run(self, workload, target, seconds, rate=None):
        """Sends requests as fast as possible, or `rate` per second. Returns requests, µs, bad responses and latencies."""
        report = (self.h2load if workload.http2 else self.wrk)(workload, target, seconds, rate)
        # Responses that are too short, such as redirects to a log-in page, invalidate the measurement.
        if report["requests"] == 0 or report["bytes"] < report["requests"] * workload.least:
            report["bad"] += 1
        return report

    def command(self, command, seconds, **variables):
        line = ["taskset", "-c", str(self.core), *map(str, command)]
        environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
        run = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=False)
        if run.returncode:
            raise Failure(f"{command[0]} failed: {run.stderr.strip() or run.stdout.strip()}")
        return run.stdout

    def wrk(self, workload, target, seconds, rate):
        # Each connection pauses between requests. The actual rate is below `rate`, since responses take time, too.
        variables = {"LOAD_PAUSE_MS": KEEP_ALIVE * 1000 / rate if rate else 0}
        if workload.body:
            variables |= {"LOAD_METHOD": "POST", "LOAD_BODY": workload.body}
        if workload.zipf is not None:
            variables |= {"LOAD_SESSIONS": self.directory / "sessions", "LOAD_ZIPF": workload.zipf}
            variables["LOAD_SEED"] = random.randrange(1 << 30)
        command = ["wrk", "-t1", f"-c{KEEP_ALIVE}", f"-d{seconds}s", "--latency", "-s", REPORT]
        command += ["-H", f"Cookie: {COOKIE}"]
        if workload.close:
            command += ["-H", "Connection: close"]
        output = self.command([*command, target.url(workload)], seconds, **variables)
        return json.loads(output.strip().splitlines()[-1])

    def h2load(self, workload, target, seconds, rate):
        log = self.directory / "h2load.log"
        log.unlink(missing_ok=True)
        command = ["h2load", "-t1", f"-c{H2_CONNECTIONS}", f"-m{H2_STREAMS}", f"-D{seconds}", "--warm-up-time=0"]
        command += [f"--log-file={log}", "-H", f"cookie: {COOKIE}"]
        if rate:
            command.append(f"--rps={rate / H2_CONNECTIONS:.1f}")
        output = self.command([*command, target.url(workload)], seconds)
        counted = re.search(
            r"finished in .*\nrequests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, "
            r"(\d+) failed, (\d+) errored.*\nstatus codes: (\d+) 2xx.*\ntraffic: .* \((\d+)\) data",
            output,
        )
        if not counted:
            raise Failure(f"unexpected output of h2load: {output}")
        done, succeeded, failed, errored, good, data = map(int, counted.groups())
        if "Application protocol: h2" not in output or "TLSv1.3" not in output:
            raise Failure(f"this is not HTTP/2 over TLS 1.3: {output}")
        latencies = sorted(int(line.split("\t")[2]) for line in log.read_text().splitlines())
        return {
            "requests": done,
            "bytes": data,
            "micros": seconds * 1_000_000,
            "bad": failed + errored + (done - succeeded) + (done - good),
            "p50": latencies[len(latencies) // 2] if latencies else 0,
            "p99": latencies[len(latencies) * 99 // 100] if latencies else 0,
        }
