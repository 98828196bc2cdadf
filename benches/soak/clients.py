"""The load: browsers of every kind, people who log in and out, uploads, sockets, and strangers.

Each client goes on until its stage ends, at its own pace, and tells the ledger of every request.
"""

import asyncio
import base64
import hashlib
import json
import random
import re
import secrets
import time

from wire import Connection, Wrong

CREDENTIALS = (
    "AWS4-HMAC-SHA256 Credential=test/20200101/eu-central-1/dynamodb/aws4_request, SignedHeaders=host, Signature=test"
)
# Longer than the cache's ttl: after it, a session that was deleted is nobody's any more.
FORGOTTEN = 2.5
FAILURES = (OSError, EOFError, asyncio.IncompleteReadError, ValueError)


class Person:
    """A session in the table, and whose it is."""

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
    def __init__(self, stage, ledger, rate):
        self.stage, self.ledger, self.rate = stage, ledger, rate
        self.people = []

    # What they share.

    async def attempt(self, client, act, seconds=30):
        """One thing done, within its time; gives whether it went well."""
        began = time.monotonic()
        try:
            await asyncio.wait_for(act, seconds)
        except Wrong as wrong:
            self.ledger.failed(client, began, wrong.failure, wrong.detail)
        except (TimeoutError, asyncio.TimeoutError):
            self.ledger.failed(client, began, "timeout")
        except FAILURES as error:
            self.ledger.failed(client, began, "broke off", repr(error)[:120])
        else:
            self.ledger.ok(client, began)
            return True
        return False

    async def pause(self, seconds):
        await asyncio.sleep(random.uniform(0.5, 1.5) * seconds / self.rate)

    async def table(self, operation, **body):
        """An operation on the table, past the gateway."""
        connection = None
        try:
            connection = await Connection.open(self.stage.store_port)
            headers = (
                "Content-Type: application/x-amz-json-1.0",
                f"X-Amz-Target: DynamoDB_20120810.{operation}",
                f"X-Amz-Date: {time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}",
                f"Authorization: {CREDENTIALS}",
            )
            text = json.dumps({"TableName": "sessions", **body}).encode()
            status, _, answer = await connection.exchange("POST", "/", headers, text)
        except FAILURES as error:
            raise Wrong("store", repr(error)) from error
        finally:
            if connection:
                connection.close()
        if status != 200:
            raise Wrong("store", f"{status} {answer[:100]}")

    async def person(self):
        person = Person()
        await self.table("PutItem", Item=person.item())
        return person

    # The clients.

    async def browse(self, client, tls, pace, requests):
        """A browser: `requests` over one connection, then a new one."""
        connection, left = None, 0
        while True:
            if connection is None:
                left = requests

            async def act():
                nonlocal connection, left
                if connection is None:
                    connection = await Connection.open(self.stage.tls_port if tls else self.stage.port, tls)
                left = left - 1 if await self.visit(connection) else 0

            if not await self.attempt(client, act()) or left <= 0:
                if connection:
                    connection.close()
                connection = None
            await self.pause(pace)

    async def visit(self, connection):
        """One request of somebody who is logged in; gives whether the connection is kept."""
        person = random.choice(self.people)
        path = random.choices(("/small", "/echo", "/big"), (70, 28, 2))[0]
        status, headers, body = await connection.exchange("GET", path, (person.cookie,))
        if status != 200:
            raise Wrong(str(status), path)
        if path == "/echo":
            if body.decode() != person.name:
                raise Wrong("another's session", f"{body!r} instead of {person.name}")
        elif len(body) != self.stage.sizes[path]:
            raise Wrong("another body", f"{path}: {len(body)} bytes")
        return headers.get("connection") != "close"

    async def log_in_and_out(self):
        """A new session, used at once; the oldest one ends, and is nobody's once caches have forgotten it."""
        while True:

            async def come():
                person = await self.person()
                connection = await Connection.open(self.stage.port)
                try:
                    status, _, body = await connection.exchange("GET", "/echo", (person.cookie,))
                finally:
                    connection.close()
                if status != 200 or body.decode() != person.name:
                    raise Wrong(str(status) if status != 200 else "another's session", "after a log-in")
                self.people.append(person)

            await self.attempt("log-in", come())
            await self.pause(0.4)
            if len(self.people) > 250:
                self.stage.spawn(self.leave(self.people.pop(0)))

    async def leave(self, person):
        # Whoever has chosen this session a moment ago is done by then.
        await asyncio.sleep(6)

        async def go():
            await self.table("DeleteItem", Key={"sid": person.key()})
            await asyncio.sleep(FORGOTTEN)
            connection = await Connection.open(self.stage.port)
            try:
                status, _, _ = await connection.exchange("GET", "/small", (person.cookie,))
            finally:
                connection.close()
            if status != 401:
                raise Wrong(str(status) if status >= 500 else "let in", f"{status} after a log-out")

        await self.attempt("log-out", go())

    async def watched(self):
        """A WebSocket whose session ends: it is closed within `recheck`, and a while for the store."""
        while True:

            async def act():
                person = await self.person()
                connection = await Connection.open(self.stage.port)
                try:
                    await connection.websocket("/streams/echo", (person.cookie,))
                    await connection.echo(b"hello")
                    await self.table("DeleteItem", Key={"sid": person.key()})
                    code = await asyncio.wait_for(connection.closing(), 15)
                finally:
                    connection.close()
                if code != 1008:
                    raise Wrong("another code", str(code))

            await self.attempt("WebSocket of an ended session", act())
            await self.pause(5)

    async def socket(self, tls):
        while True:

            async def act():
                connection = await Connection.open(self.stage.tls_port if tls else self.stage.port, tls)
                try:
                    await connection.websocket("/streams/echo", (self.stage.steady.cookie,))
                    for _ in range(random.randint(5, 100)):
                        await connection.echo(secrets.token_bytes(random.choice((20, 1000, 50_000))))
                        await asyncio.sleep(0.3)
                finally:
                    connection.close()

            await self.attempt("WebSocket", act(), 90)
            await self.pause(0.5)

    async def events(self):
        """An event stream that goes on for a while; some are left before their end."""
        while True:

            async def act():
                connection = await Connection.open(self.stage.port)
                try:
                    await connection.send("GET", "/streams/ticks", (self.stage.steady.cookie,))
                    status, headers = await connection.head()
                    if status != 200:
                        raise Wrong(str(status), "event stream")
                    if random.random() < 0.3:
                        await connection.reader.readline()
                    elif (count := (await connection.body(headers)).count(b"data:")) != 40:
                        raise Wrong("another body", f"{count} events")
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
                connection = await Connection.open(self.stage.tls_port if tls else self.stage.port, tls)
                try:
                    whole = None if pieces else body
                    status, _, answer = await connection.exchange(
                        "POST", "/streams/sink", (self.stage.steady.cookie,), whole, pieces
                    )
                finally:
                    connection.close()
                if status != 200 or (not pieces and int(answer) != size):
                    raise Wrong(str(status) if status != 200 else "another body", f"upload of {size}: {answer[:40]}")

            await self.attempt("upload", act())
            await self.pause(1)

    async def stranger(self, source, pace, allowed):
        """Cookies that name nothing: never let in. Who brings too many is told so."""
        while True:

            async def act():
                connection = await Connection.open(self.stage.port, source=source)
                try:
                    made_up = random.choice((f"{secrets.token_urlsafe()}/1", "x", secrets.token_hex(600), "a/b/c"))
                    status, _, _ = await connection.exchange("GET", "/small", (f"Cookie: session_id={made_up}",))
                finally:
                    connection.close()
                if status not in allowed:
                    raise Wrong(str(status) if status >= 500 else "let in", f"{status} for a made-up cookie")

            await self.attempt("made-up cookie", act())
            await self.pause(pace)

    async def h2load(self):
        """HTTP/2, over TLS and without, by somebody else's client."""
        for number in range(1 << 30):
            base = f"https://127.0.0.1:{self.stage.tls_port}" if number % 2 else f"http://127.0.0.1:{self.stage.port}"
            command = ["h2load", "-n", "400", "-c", "4", "-m", "5", "--rps", str(max(1, int(25 * self.rate)))]
            command += ["-H", self.stage.steady.cookie, f"{base}/small"]
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
                self.ledger.failed("h2load", began, "no figures", text[-200:])
                continue
            good, third, fourth, fifth = map(int, counts.groups())
            if good:
                self.ledger.well["h2load"] += good
            for count, failure in ((third + fourth, "refused"), (fifth, "503"), (400 - good - third - fourth - fifth, "broke off")):
                if count:
                    self.ledger.failed("h2load", began, failure, f"{count} of 400", count)

    def all(self):
        """Everybody, as (how many, who)."""
        yield from (self.browse("keep-alive", False, 0.05, 2000) for _ in range(20))
        yield from (self.browse("keep-alive, TLS", True, 0.08, 500) for _ in range(8))
        yield from (self.browse("new connections", False, 0.1, 1) for _ in range(2))
        yield self.browse("new connections, TLS", True, 0.2, 1)
        yield from (self.socket(tls) for tls in (False, False, False, True))
        yield from (self.events() for _ in range(4))
        yield from (self.upload(tls) for tls in (False, True))
        yield self.stranger(None, 0.2, (401,))
        yield self.stranger("127.0.0.2", 0.01, (401, 429))
        yield self.log_in_and_out()
        yield self.watched()
        yield self.h2load()
