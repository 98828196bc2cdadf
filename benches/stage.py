"""What the measurements share: processes that are started and ended, ports, CPU time and memory, the one session."""

import base64
import hashlib
import http.client
import json
import os
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SESSION = "side-by-side-session-id-of-43-characters-00"


class Failure(Exception):
    """Something that makes every figure worthless."""


def spawn(command, core, log):
    return subprocess.Popen(
        ["taskset", "-c", str(core), *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"},
    )


def free_ports(count):
    """Ports that nobody listens on now: nginx and HAProxy cannot be asked which one the system chose."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(port, process, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Failure(f"{process.args[3]} ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Failure(f"{process.args[3]} does not listen on port {port}")


def request(port, method, path, headers=None, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def process_tree(pid):
    """The process and all its descendants."""
    pids = [pid]
    for parent in pids:
        for task in Path(f"/proc/{parent}/task").iterdir():
            pids += [int(child) for child in (task / "children").read_text().split()]
    return pids


def cpu_nanos(pid):
    """User and system time of a process tree so far."""
    total = 0
    for member in process_tree(pid):
        tasks = list(Path(f"/proc/{member}/task").iterdir())
        try:
            # To the nanosecond, where the kernel keeps it.
            total += sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
        except OSError:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) * 10**9 // os.sysconf("SC_CLK_TCK")
    return total


def put_session(port):
    """Writes the one session into the gateway's embedded table, by DynamoDB's API."""
    now = int(time.time())
    claims = {"user": {"name": "Alice", "id": 42}, "roles": ["admin", "staff"], "tenant": "acme"}
    table = {
        "TableName": "sessions",
        "AttributeDefinitions": [{"AttributeName": "sid", "AttributeType": "B"}],
        "KeySchema": [{"AttributeName": "sid", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    item = {
        "sid": {"B": base64.b64encode(hashlib.sha256(SESSION.encode()).digest()).decode()},
        "dat": {"S": json.dumps(claims)},
        "ver": {"N": "1"},
        "iss": {"N": str(now)},
        "exp": {"N": str(now + 1200)},
    }
    for operation, body in (("CreateTable", table), ("PutItem", {"TableName": "sessions", "Item": item})):
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/20200101/eu-central-1/dynamodb/aws4_request,"
            " SignedHeaders=host, Signature=test",
        }
        status, text = request(port, "POST", "/", headers, json.dumps(body))
        # The gateway may have made the table itself.
        if status != 200 and "ResourceInUse" not in text:
            raise Failure(f"{operation}: {status} {text}")


def template(source, target, **values):
    """Fills in the blanks of a configuration file."""
    target.write_text(string.Template(source.read_text()).substitute(values))
    return target


def memory_kib(pid, field="VmRSS"):
    """What a process holds of memory now, or at most (`VmHWM`) since `forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise Failure(f"no {field} of process {pid}")


def forget_peak(pid):
    """Makes the peak what is held now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def end(processes):
    """Ends every process in order, and for sure."""
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def on_stage(play):
    """Runs `play(directory, processes)`; shows the logs if it fails, and ends the processes."""
    processes = []
    # nginx's worker, which is not root if the master is, has to get at the files.
    with tempfile.TemporaryDirectory(prefix="sessiongate-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        try:
            return play(directory, processes)
        except Failure as failure:
            print(f"failed: {failure}", file=sys.stderr)
            for log in sorted(directory.glob("*.log")):
                text = log.read_text(errors="replace")[-2000:]
                if text:
                    print(f"--- {log.name}\n{text}", file=sys.stderr)
            return 1
        finally:
            end(processes)
