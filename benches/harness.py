"""Functions that the measurements share: processes, ports, CPU time and memory, sessions, certificates."""

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
# The embedded store accepts any credentials.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class Failure(Exception):
    """An error that invalidates the whole measurement."""


def spawn(command, core, log, **environment):
    return subprocess.Popen(
        ["taskset", "-c", str(core), *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={**os.environ, **CREDENTIALS, **environment},
    )


def free_ports(count):
    """Returns free ports. nginx and HAProxy cannot report a port that the system chose."""
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
    """Returns the process ids of the process and all its descendants."""
    pids = [pid]
    for parent in pids:
        for task in Path(f"/proc/{parent}/task").iterdir():
            pids += [int(child) for child in (task / "children").read_text().split()]
    return pids


def cpu_nanos(pid):
    """Returns the user and system time of a process tree so far."""
    total = 0
    for member in process_tree(pid):
        tasks = list(Path(f"/proc/{member}/task").iterdir())
        try:
            # In nanoseconds, if the kernel records it.
            total += sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
        except OSError:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) * 10**9 // os.sysconf("SC_CLK_TCK")
    return total


def session_id(number):
    """Returns the id of a session: 43 characters."""
    digest = hashlib.sha256(f"session {number}".encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def session_row(id, now):
    claims = {"user": {"name": "Alice", "id": 42}, "roles": ["admin", "staff"], "tenant": "acme"}
    return {
        "sid": {"B": base64.b64encode(hashlib.sha256(id.encode()).digest()).decode()},
        "dat": {"S": json.dumps(claims)},
        "ver": {"N": "1"},
        "iss": {"N": str(now)},
        "exp": {"N": str(now + 1200)},
    }


def put_session(port):
    """Writes the session `SESSION` into the table of a gateway's embedded store."""
    put_sessions(port, [SESSION])


def put_sessions(port, ids):
    """Writes sessions, issued now, by DynamoDB's API. Creates the table if it does not exist."""
    table = {
        "TableName": "sessions",
        "AttributeDefinitions": [{"AttributeName": "sid", "AttributeType": "B"}],
        "KeySchema": [{"AttributeName": "sid", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    call(connection, "CreateTable", table)
    rows = [{"PutRequest": {"Item": session_row(id, int(time.time()))}} for id in ids]
    for begin in range(0, len(rows), 25):
        answer = call(connection, "BatchWriteItem", {"RequestItems": {"sessions": rows[begin : begin + 25]}})
        if answer.get("UnprocessedItems"):
            raise Failure("the store did not accept all sessions")
    connection.close()


def call(connection, operation, body):
    """Calls an operation of DynamoDB's API."""
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "Authorization": "AWS4-HMAC-SHA256 Credential=test/20200101/eu-central-1/dynamodb/aws4_request,"
        " SignedHeaders=host, Signature=test",
    }
    connection.request("POST", "/", json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    # The gateway may have created the table already.
    if answer.status != 200 and "ResourceInUse" not in text:
        raise Failure(f"{operation}: {answer.status} {text}")
    return json.loads(text)


def make_certificate(directory):
    """Creates a self-signed certificate for localhost: `cert.pem` and `key.pem`."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", directory / "key.pem", "-out", directory / "cert.pem"]
    subprocess.run([*map(str, command)], check=True, capture_output=True)


def template(source, target, **values):
    """Writes a configuration file from a template."""
    target.write_text(string.Template(source.read_text()).substitute(values))
    return target


def memory_kib(pid, field="VmRSS"):
    """Returns a process's resident memory, or its peak (`VmHWM`) since `reset_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise Failure(f"no {field} of process {pid}")


def reset_peak(pid):
    """Sets the peak to the current memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def end(processes):
    """Ends all processes, and kills those that do not end in time."""
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def run_in_directory(measure):
    """Runs `measure(directory, processes)` in a temporary directory. Prints the logs if it fails, and ends the processes."""
    processes = []
    # If nginx's master runs as root, its worker does not, and needs access to the files.
    with tempfile.TemporaryDirectory(prefix="sessiongate-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        try:
            return measure(directory, processes)
        except Failure as failure:
            print(f"failed: {failure}", file=sys.stderr)
            for log in sorted(directory.glob("*.log")):
                text = log.read_text(errors="replace")[-2000:]
                if text:
                    print(f"--- {log.name}\n{text}", file=sys.stderr)
            return 1
        finally:
            end(processes)
