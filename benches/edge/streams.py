"""An upstream for large and long-lived bodies: discards uploads, sends events, echoes WebSocket frames."""

import base64
import hashlib
import socket
import sys
import threading
import time

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
EVENTS = 200_000
TICKS = 40


def read_head(connection):
    """Reads a request head. Returns the request line, the headers, and the bytes after them."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None, {}, b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    pairs = (field.split(b":", 1) for field in fields)
    return line, {name.strip().lower(): value.strip() for name, value in pairs}, rest


def discard(connection, headers, rest):
    """Reads a body to its end, and responds with the number of bytes, chunk framing included."""
    buffer, count = bytearray(1 << 20), len(rest)
    if b"content-length" in headers:
        while count < int(headers[b"content-length"]):
            count += connection.recv_into(buffer)
    else:
        tail = rest
        while not tail.endswith(b"0\r\n\r\n"):
            piece = connection.recv(1 << 20)
            count += len(piece)
            tail = (tail + piece)[-5:]
    text = str(count).encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


def events(connection):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head)
    for number in range(EVENTS):
        event = b"data: %d\n\n" % number
        connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
    connection.sendall(b"0\r\n\r\n")


def ticks(connection):
    """Sends single events for ten seconds."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(TICKS):
        event = b"data: %d\n\n" % number
        connection.sendall(b"%x\r\n%s\r\n" % (len(event), event))
        time.sleep(0.25)
    connection.sendall(b"0\r\n\r\n")


def exactly(connection, count, buffer):
    while len(buffer) < count:
        piece = connection.recv(1 << 18)
        if not piece:
            return False
        buffer += piece
    return True


def echo(connection, headers, buffer):
    """Echoes frames whose mask is zero, so that unmasking only drops the four bytes of the mask."""
    key = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + GUID).digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    connection.sendall(head + key + b"\r\n\r\n")
    buffer = bytearray(buffer)
    while exactly(connection, 14, buffer):
        # Only frames with a 64-bit length are supported.
        length = int.from_bytes(buffer[2:10])
        if not exactly(connection, 14 + length, buffer):
            return
        connection.sendall(bytes([buffer[0], 127]) + buffer[2:10] + buffer[14 : 14 + length])
        del buffer[: 14 + length]


def serve(connection):
    with connection:
        while True:
            line, headers, rest = read_head(connection)
            if line is None:
                return
            if line.startswith(b"GET /streams/events"):
                events(connection)
            elif line.startswith(b"GET /streams/ticks"):
                ticks(connection)
            elif line.startswith(b"GET"):
                return echo(connection, headers, rest)
            else:
                discard(connection, headers, rest)


def main():
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
