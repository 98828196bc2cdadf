"""A minimal and strict client for HTTP/1.1 and WebSocket frames."""

import asyncio
import ssl

NO_VERIFICATION = ssl.create_default_context()
NO_VERIFICATION.check_hostname = False
NO_VERIFICATION.verify_mode = ssl.CERT_NONE


class Unexpected(Exception):
    """An unexpected response: a status or a kind of failure, and details."""

    def __init__(self, failure, detail=""):
        super().__init__(failure, detail)
        self.failure, self.detail = failure, detail


class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port, tls=False, source=None):
        local = (source, 0) if source else None
        streams = asyncio.open_connection("127.0.0.1", port, ssl=NO_VERIFICATION if tls else None, local_addr=local)
        return cls(*await asyncio.wait_for(streams, 10))

    def close(self):
        self.writer.transport.abort()

    async def send(self, method, path, headers=(), body=None, pieces=None):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        if pieces is not None:
            lines.append("Transfer-Encoding: chunked")
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + (body or b""))
        for piece in pieces or ():
            self.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await self.writer.drain()
        if pieces is not None:
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def head(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        line, *fields = head[:-4].split(b"\r\n")
        pairs = (field.split(b":", 1) for field in fields)
        return int(line.split(b" ")[1]), {name.lower().decode(): value.strip().decode() for name, value in pairs}

    async def body(self, headers):
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        body = bytearray()
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return bytes(body)

    async def exchange(self, method, path, headers=(), body=None, pieces=None):
        """Sends a request and reads the response. Returns status, headers and body."""
        await self.send(method, path, headers, body, pieces)
        status, fields = await self.head()
        return status, fields, await self.body(fields)

    async def websocket(self, path, headers=()):
        key = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
        await self.send("GET", path, (*key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers))
        status, _ = await self.head()
        if status != 101:
            raise Unexpected(str(status), "instead of 101")

    async def echo(self, payload):
        """Sends a frame and reads it back. The mask is zero, which is valid and saves the masking."""
        self.writer.write(bytes([0x82, 0xFF]) + len(payload).to_bytes(8) + bytes(4) + payload)
        await self.writer.drain()
        head = await self.reader.readexactly(10)
        if head != bytes([0x82, 127]) + len(payload).to_bytes(8) or await self.reader.readexactly(len(payload)) != payload:
            raise Unexpected("wrong frame", head.hex())

    async def closing(self):
        """Waits for a close frame and returns its code."""
        head = await self.reader.readexactly(2)
        if head[0] != 0x88 or head[1] < 2:
            raise Unexpected("wrong frame", head.hex())
        return int.from_bytes((await self.reader.readexactly(head[1]))[:2])
