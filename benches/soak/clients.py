"""The load: browsers, log-ins and log-outs, uploads, WebSockets, event streams, and unknown session ids.

Each client runs at its own rate until it is cancelled, and records every request.
"""

import asyncio
import base64
import hashlib
import json
import random
import re
import secrets
import time

from connection import Connection, Unexpected

CREDENTIALS = (
    "AWS4-HMAC-SHA256 Credential=test/20200101/eu-central-1/dynamodb/aws4_request, SignedHeaders=host, Signature=test"
)
# Seconds; longer than the cache's ttl, so that a deleted session is in no cache any more.
CACHE_EXPIRY = 2.5
FAILURES = (OSError, EOFError, asyncio.IncompleteReadError, ValueError)


class TestSession:
    """A session in the table, and the name of its user."""

    def __init__(self):
        self.id, self.name = secrets.token_urlsafe(), f"user-{secrets.token_hex(4)}"
        self.cookie = f"Cookie: session_id={self.id}/1"

    def item(self):
        now = int(time.time())
        return {
            "sid": self.key(),
            "dat": {"S": json.dumps({"user": self.name})},
            "ver": {"N": "1"},
            "iss": {"N": str(now)},
            "exp": {"N": str(now + 1200)},
        }

    def key(self):
        return {"B": base64.b64encode(hashlib.sha256(self.id.encode()).digest()).decode()}


class Clients:
    def __init__(self, environment, record, rate):
        self.environment, self.record, self.rate = environment, record, rate
        self.sessions = []

    # Helpers.

    async def attempt(self, client, action, seconds=30):
        """Runs and records one action, with a timeout. Returns whether it succeeded."""
        began = time.monotonic()
        try:
            await asyncio.wait_for(action, seconds)
        except Unexpected as unexpected:
            self.record.failed(client, began, unexpected.failure, unexpected.detail)
        except (TimeoutError, asyncio.TimeoutError):
            self.record.failed(client, began, "timeout")
        except FAILURES as error:
            self.record.failed(client, began, "disconnected", repr(error)[:120])
        else:
            self.record.ok(client, began)
            return True
        return False

    async def pause(self, seconds):
        await asyncio.sleep(random.uniform(0.5, 1.5) * seconds / self.rate)

    async def table(self, operation, **body):
        """Calls an operation on the table directly."""
        connection = None
        try:
            connection = await Connection.open(self.environment.store_port)
            headers = (
                "Content-Type: application/x-amz-json-1.0",
                f"X-Amz-Target: DynamoDB_20120810.{operation}",
                f"X-Amz-Date: {time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}",
                f"Authorization: {CREDENTIALS}",
            )
            text = json.dumps({"TableName": "sessions", **body}).encode()
            status, _, answer = await connection.exchange("POST", "/", headers, text)
        except FAILURES as error:
            raise Unexpected("store", repr(error)) from error
        finally:
            if connection:
                connection.close()
        if status != 200:
            raise Unexpected("store", f"{status} {answer[:100]}")

    async def create_session(self):
        session = TestSession()
        await self.table("PutItem", Item=session.item())
        return session

    # The clients.

    async def browse(self, client, tls, pace, requests):
        """A browser, which sends `requests` requests over each connection."""
        connection, left = None, 0
        while True:
            if connection is None:
                left = requests

            async def act():
                nonlocal connection, left
                if connection is None:
                    connection = await Connection.open(self.environment.tls_port if tls else self.environment.port, tls)
                left = left - 1 if await self.visit(connection) else 0

            if not await self.attempt(client, act()) or left <= 0:
                if connection:
                    connection.close()
                connection = None
            await self.pause(pace)

    async def visit(self, connection):
        """Sends one request with a session. Returns whether the connection stays open."""
        session = random.choice(self.sessions)
        path = random.choices(("/small", "/echo", "/big"), (70, 28, 2))[0]
        status, headers, body = await connection.exchange("GET", path, (session.cookie,))
        if status != 200:
            raise Unexpected(str(status), path)
        if path == "/echo":
            if body.decode() != session.name:
                raise Unexpected("wrong session", f"{body!r} instead of {session.name}")
        elif len(body) != self.environment.sizes[path]:
            raise Unexpected("wrong body", f"{path}: {len(body)} bytes")
        return headers.get("connection") != "close"

    async def log_in_and_out(self):
        """Creates sessions and uses them at once. Ends the oldest ones, and checks that they are no longer valid."""
        while True:

            async def log_in():
                session = await self.create_session()
                connection = await Connection.open(self.environment.port)
                try:
                    status, _, body = await connection.exchange("GET", "/echo", (session.cookie,))
                finally:
                    connection.close()
                if status != 200 or body.decode() != session.name:
                    raise Unexpected(str(status) if status != 200 else "wrong session", "after a log-in")
                self.sessions.append(session)

            await self.attempt("log-in", log_in())
            await self.pause(0.4)
            if len(self.sessions) > 250:
                self.environment.spawn(self.end_session(self.sessions.pop(0)))

    async def end_session(self, session):
        # Waits for requests that have chosen this session before.
        await asyncio.sleep(6)

        async def log_out():
            await self.table("DeleteItem", Key={"sid": session.key()})
            await asyncio.sleep(CACHE_EXPIRY)
            connection = await Connection.open(self.environment.port)
            try:
                status, _, _ = await connection.exchange("GET", "/small", (session.cookie,))
            finally:
                connection.close()
            if status != 401:
                raise Unexpected(str(status) if status >= 500 else "admitted", f"{status} after a log-out")

        await self.attempt("log-out", log_out())

    async def websocket_of_ended_session(self):
        """Opens WebSockets and ends their sessions. They must be closed within `recheck` and the time for a read."""
        while True:

            async def act():
                session = await self.create_session()
                connection = await Connection.open(self.environment.port)
                try:
                    await connection.websocket("/streams/echo", (session.cookie,))
                    await connection.echo(b"hello")
                    await self.table("DeleteItem", Key={"sid": session.key()})
                    code = await asyncio.wait_for(connection.closing(), 15)
                finally:
                    connection.close()
                if code != 1008:
                    raise Unexpected("wrong close code", str(code))

            await self.attempt("WebSocket of an ended session", act())
            await self.pause(5)

    async def socket(self, tls):
        while True:

            async def act():
                connection = await Connection.open(self.environment.tls_port if tls else self.environment.port, tls)
                try:
                    await connection.websocket("/streams/echo", (self.environment.steady.cookie,))
                    for _ in range(random.randint(5, 100)):
                        await connection.echo(secrets.token_bytes(random.choice((20, 1000, 50_000))))
                        await asyncio.sleep(0.3)
                finally:
                    connection.close()

            await self.attempt("WebSocket", act(), 90)
            await self.pause(0.5)

    async def events(self):
        """Reads event streams. Disconnects from some of them before their end."""
        while True:

            async def act():
                connection = await Connection.open(self.environment.port)
                try:
                    await connection.send("GET", "/streams/ticks", (self.environment.steady.cookie,))
                    status, headers = await connection.head()
                    if status != 200:
                        raise Unexpected(str(status), "event stream")
                    if random.random() < 0.3:
                        await connection.reader.readline()
                    elif (count := (await connection.body(headers)).count(b"data:")) != 40:
                        raise Unexpected("wrong body", f"{count} events")
                finally:
                    connection.close()

            await self.attempt("event stream", act(), 60)
            await self.pause(1)

    async def upload(self, tls):
        while True:

            async def act():
                size = random.choice((10_000, 200_000, 1_000_000))
                body = bytes(size)
                pieces = [body[at : at + 30_000] for at in range(0, size, 30_000)] if random.random() < 0.5 else None
                connection = await Connection.open(self.environment.tls_port if tls else self.environment.port, tls)
                try:
                    whole = None if pieces else body
                    status, _, answer = await connection.exchange(
                        "POST", "/streams/sink", (self.environment.steady.cookie,), whole, pieces
                    )
                finally:
                    connection.close()
                if status != 200 or (not pieces and int(answer) != size):
                    raise Unexpected(str(status) if status != 200 else "wrong body", f"upload of {size}: {answer[:40]}")

            await self.attempt("upload", act())
            await self.pause(1)

    async def unknown_ids(self, source, pace, allowed):
        """Sends cookies with unknown ids, which must be refused, and limited if there are too many."""
        while True:

            async def act():
                connection = await Connection.open(self.environment.port, source=source)
                try:
                    made_up = random.choice((f"{secrets.token_urlsafe()}/1", "x", secrets.token_hex(600), "a/b/c"))
                    status, _, _ = await connection.exchange("GET", "/small", (f"Cookie: session_id={made_up}",))
                finally:
                    connection.close()
                if status not in allowed:
                    raise Unexpected(str(status) if status >= 500 else "admitted", f"{status} for an unknown id")

            await self.attempt("unknown id", act())
            await self.pause(pace)

    async def h2load(self):
        """Sends HTTP/2 requests with h2load, with and without TLS."""
        for number in range(1 << 30):
            base = f"https://127.0.0.1:{self.environment.tls_port}" if number % 2 else f"http://127.0.0.1:{self.environment.port}"
            command = ["h2load", "-n", "400", "-c", "4", "-m", "5", "--rps", str(max(1, int(25 * self.rate)))]
            command += ["-H", self.environment.steady.cookie, f"{base}/small"]
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            try:
                output, _ = await asyncio.wait_for(process.communicate(), 120)
            except (asyncio.CancelledError, asyncio.TimeoutError):
                process.kill()
                raise
            text = output.decode(errors="replace")
            counts = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
            if counts is None:
                self.record.failed("h2load", began, "no results", text[-200:])
                continue
            good, third, fourth, fifth = map(int, counts.groups())
            if good:
                self.record.succeeded["h2load"] += good
            disconnected = 400 - good - third - fourth - fifth
            for count, failure in ((third + fourth, "refused"), (fifth, "503"), (disconnected, "disconnected")):
                if count:
                    self.record.failed("h2load", began, failure, f"{count} of 400", count)

    def all(self):
        """Yields all clients."""
        yield from (self.browse("keep-alive", False, 0.05, 2000) for _ in range(20))
        yield from (self.browse("keep-alive, TLS", True, 0.08, 500) for _ in range(8))
        yield from (self.browse("new connections", False, 0.1, 1) for _ in range(2))
        yield self.browse("new connections, TLS", True, 0.2, 1)
        yield from (self.socket(tls) for tls in (False, False, False, True))
        yield from (self.events() for _ in range(4))
        yield from (self.upload(tls) for tls in (False, True))
        yield self.unknown_ids(None, 0.2, (401,))
        yield self.unknown_ids("127.0.0.2", 0.01, (401, 429))
        yield self.log_in_and_out()
        yield self.websocket_of_ended_session()
        yield self.h2load()
