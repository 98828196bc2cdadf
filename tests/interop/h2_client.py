"""HTTP/2 clients, valid and invalid: runs a case against a port and prints the outcome as one line of JSON.

Valid frames are h2's, and invalid ones are built here.
"""

import json
import socket
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import hyperframe.frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WAIT = 15


class Client:
    """A connection that may violate the protocol. It records what it receives."""

    def __init__(self, port, settings=None, window=None):
        config = h2.config.H2Configuration(
            client_side=True,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            header_encoding="utf-8",
        )
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        self.h2.initiate_connection()
        self.streams = {}
        self.goaway = None
        self.closed = False
        self.acknowledges = True
        self.flush()

    def stream(self, number):
        return self.streams.setdefault(
            number, {"status": None, "headers": {}, "body": 0, "trailers": {}, "ended": False, "reset": None}
        )

    def flush(self):
        try:
            self.socket.sendall(self.h2.data_to_send())
        except OSError:
            self.closed = True

    def raw(self, *sent):
        """Sends frames without h2."""
        try:
            self.socket.sendall(b"".join(frame.serialize() for frame in sent))
        except OSError:
            self.closed = True

    def request(self, headers, end=True, number=None):
        number = number or self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, headers, end_stream=end)
        self.flush()
        return number

    def read(self, until):
        """Reads until `until` holds or the connection has ended."""
        deadline = time.monotonic() + WAIT
        while not self.closed and not until():
            left = deadline - time.monotonic()
            if left <= 0:
                raise SystemExit(f"timeout: {self.outcome()}")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                data = b""
            except TimeoutError:
                continue
            if not data:
                self.closed = True
                break
            try:
                events = self.h2.receive_data(data)
            except h2.exceptions.ProtocolError:
                events = []
            for event in events:
                self.event(event)
            self.flush()
        return self

    def event(self, event):
        number = getattr(event, "stream_id", None)
        if isinstance(event, h2.events.ResponseReceived):
            headers = dict(event.headers)
            self.stream(number)["status"] = int(headers.pop(":status"))
            self.stream(number)["headers"] = headers
        elif isinstance(event, h2.events.DataReceived):
            self.stream(number)["body"] += len(event.data)
            if self.acknowledges:
                self.h2.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, h2.events.TrailersReceived):
            self.stream(number)["trailers"] = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self.stream(number)["ended"] = True
        elif isinstance(event, h2.events.StreamReset):
            self.stream(number)["reset"] = int(event.error_code)
        elif isinstance(event, h2.events.ConnectionTerminated):
            if self.goaway is None or event.error_code:
                self.goaway = int(event.error_code)

    def done(self, number):
        stream = self.stream(number)
        return stream["ended"] or stream["reset"] is not None

    def finish(self, number):
        self.read(lambda: self.done(number))
        return self.stream(number)

    def outcome(self):
        return {"goaway": self.goaway, "closed": self.closed, "streams": self.streams}


def head(path="/", method="GET", authority="gateway.test", *more):
    return [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path), *more]


def one(port, headers, end=True):
    """The outcome of one request on its own connection."""
    client = Client(port)
    number = client.request(headers, end)
    stream = client.finish(number) if end else client.read(lambda: client.done(number)).stream(number)
    return {**stream, "goaway": client.goaway}


def heads(port, cases):
    return [one(port, [tuple(field) for field in case]) for case in cases]


def length(port):
    """A body that is shorter than its content-length."""
    client = Client(port)
    number = client.request(head("/length", "POST", "gateway.test", ("content-length", "5")), end=False)
    client.raw(frames.DataFrame(number, data=b"abc", flags=["END_STREAM"]))
    client.read(lambda: client.done(number) or client.goaway is not None)
    return client.outcome()


def trailers(port, fields):
    client = Client(port)
    number = client.request(head("/trailers", "POST"), end=False)
    client.h2.send_data(number, b"abc")
    client.h2.send_headers(number, [tuple(field) for field in fields], end_stream=True)
    client.flush()
    return client.finish(number)


def raw_trailers(port, shape, fields):
    """Trailers in a frame of this shape: `plain`, `padded`, `priority`, `resized` (dynamic table size updates), `continued` (with
    a CONTINUATION frame) or `bytes` (sent byte by byte).
    """
    client = Client(port)
    number = client.request(head("/trailers", "POST"), end=False)
    client.h2.send_data(number, b"abc")
    client.flush()
    encoder = client.h2.encoder
    if shape == "resized":
        encoder.header_table_size = 0
        encoder.header_table_size = 1024
    fields = encoder.encode([tuple(field) for field in fields])
    cut = 1 if shape == "continued" else len(fields)
    frame = frames.HeadersFrame(number, data=fields[:cut], flags=["END_STREAM"])
    if shape == "padded":
        frame.flags.add("PADDED")
        frame.pad_length = 7
    if shape == "priority":
        frame.flags.add("PRIORITY")
        frame.stream_weight = 7
    if cut < len(fields):
        client.raw(frame, frames.ContinuationFrame(number, data=fields[cut:], flags=["END_HEADERS"]))
    else:
        frame.flags.add("END_HEADERS")
        step = 1 if shape == "bytes" else 1 << 20
        sent = frame.serialize()
        for at in range(0, len(sent), step):
            client.socket.sendall(sent[at : at + step])
    client.read(lambda: client.done(number) or client.goaway is not None)
    return {**client.stream(number), "goaway": client.goaway}


def block(*more):
    return hpack.Encoder().encode(head("/", "GET", "gateway.test", *more), huffman=False)


def flood(port, kind):
    """Sends frames until the gateway closes the connection, and reads none meanwhile."""
    client = Client(port)
    client.read(lambda: client.h2.remote_settings.max_concurrent_streams < 1000)
    data = block()

    def start(number, flags=("END_STREAM", "END_HEADERS")):
        return frames.HeadersFrame(number, data=data, flags=flags)

    numbers = range(1, 100_000, 2)
    if kind == "resets":
        batches = ([start(n), frames.RstStreamFrame(n, error_code=8)] for n in numbers)
    elif kind == "invalid_updates":
        # The window exceeds its maximum, so the gateway has to reset these streams (MadeYouReset).
        maximum = (1 << 31) - 1
        batches = ([start(n, ["END_HEADERS"]), frames.WindowUpdateFrame(n, window_increment=maximum)] for n in numbers)
    elif kind == "continuations":
        more = hpack.Encoder().encode([("x-filler", "x" * 100)], huffman=False)
        first = [frames.HeadersFrame(1, data=data, flags=["END_STREAM"])]
        batches = (first if n == 1 else [frames.ContinuationFrame(1, data=more)] for n in numbers)
    elif kind == "empty":
        first = [frames.HeadersFrame(1, data=data, flags=["END_HEADERS"])]
        batches = (first if n == 1 else [frames.DataFrame(1, data=b"")] for n in numbers)
    elif kind == "settings":
        batches = ([frames.SettingsFrame(0, settings={3: n})] for n in range(1, 3_000_000))
    else:
        batches = ([frames.PingFrame(0, opaque_data=b"12345678")] for n in range(1, 3_000_000))
    client.socket.settimeout(WAIT)
    sent = bytearray()
    count = 0
    try:
        for batch in batches:
            for frame in batch:
                sent += frame.serialize()
                count += 1
            if len(sent) > 16384:
                client.socket.sendall(sent)
                sent.clear()
        client.socket.sendall(sent)
        client.read(lambda: client.goaway is not None)
        stopped = client.closed or client.goaway is not None
    except OSError:
        stopped = True
        client.closed = False
        try:
            client.read(lambda: client.goaway is not None)
        except OSError:
            pass
    return {"stopped": stopped, "goaway": client.goaway, "frames": count}


def many(port, count):
    """More concurrent streams than allowed. The upstream holds those that are allowed."""
    client = Client(port)
    client.read(lambda: client.h2.remote_settings.max_concurrent_streams < 1000)
    allowed = client.h2.remote_settings.max_concurrent_streams
    data = block()
    for n in range(count):
        client.raw(frames.HeadersFrame(2 * n + 1, data=data, flags=["END_STREAM", "END_HEADERS"]))
    # h2 does not know these streams, so their frames are parsed here.
    refused = 0
    buffer = b""
    while refused < count - allowed:
        data = client.socket.recv(65536)
        if not data:
            break
        buffer += data
        while len(buffer) >= 9:
            size = int.from_bytes(buffer[:3], "big")
            if len(buffer) < 9 + size:
                break
            if buffer[3] == 3 and int.from_bytes(buffer[9:13], "big") == 7:
                refused += 1
            buffer = buffer[9 + size :]
    return {"allowed": allowed, "refused": refused}


def stalled(port):
    """Sends no WINDOW_UPDATE for the stream of a large response, and reads other responses."""
    client = Client(port)
    client.acknowledges = False
    slow = client.request(head("/large"))
    client.read(lambda: client.stream(slow)["body"] >= 65535)
    client.h2.increment_flow_control_window(1 << 20)
    client.flush()
    good = client.request(head("/small"))
    client.finish(good)
    client.read(lambda: client.stream(slow)["reset"] is not None)
    later = client.request(head("/small"))
    client.finish(later)
    return {"slow": client.stream(slow), "good": client.stream(good), "later": client.stream(later)}


def not_reading(port):
    """Requests more than buffers hold, and does not read."""
    client = Client(port)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.h2.increment_flow_control_window((1 << 31) - 1 - 65535)
    client.flush()
    number = client.request(head("/large"))
    client.h2.increment_flow_control_window((1 << 30), number)
    client.flush()
    print("request sent", flush=True)
    sys.stdin.readline()
    client.acknowledges = False
    client.read(lambda: False)
    return client.outcome()


def idle(port):
    client = Client(port)
    number = client.request(head())
    client.finish(number)
    client.read(lambda: False)
    return client.outcome()


def drain(port):
    """One request is open when the gateway drains. Frames are parsed here because h2 treats a GOAWAY as the end."""
    client = Client(port)
    number = client.request(head("/held"))
    print("request sent", flush=True)
    outcome = {"goaway": None, "body": 0, "ended": False}
    buffer = b""
    while data := client.socket.recv(65536):
        buffer += data
        while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
            size = int.from_bytes(buffer[:3], "big")
            kind, flags, stream = buffer[3], buffer[4], int.from_bytes(buffer[5:9], "big")
            payload, buffer = buffer[9 : 9 + size], buffer[9 + size :]
            if kind == 0 and stream == number:
                outcome["body"] += size
                outcome["ended"] = bool(flags & 1)
            elif kind == 6 and not flags & 1:
                client.raw(frames.PingFrame(0, opaque_data=payload, flags=["ACK"]))
            elif kind == 7 and outcome["goaway"] is None:
                outcome["goaway"] = int.from_bytes(payload[4:8], "big")
                print("GOAWAY", flush=True)
    return outcome


def disconnect(port):
    """Disconnects in the middle of a request."""
    client = Client(port)
    number = client.request(head("/disconnect", "POST"), end=False)
    client.h2.send_data(number, b"abc")
    client.flush()
    print("request sent", flush=True)
    sys.stdin.readline()
    client.socket.close()
    return {}


def reset(port):
    """Resets a stream and opens another."""
    client = Client(port)
    number = client.request(head("/held"))
    print("request sent", flush=True)
    sys.stdin.readline()
    client.h2.reset_stream(number, 8)
    good = client.request(head("/small"))
    client.finish(good)
    return client.outcome()


def unread(port):
    """Gets a refusal before it has sent most of the body."""
    client = Client(port)
    number = client.request(head("/missing", "POST"), end=False)
    client.h2.send_data(number, b"x" * 16000)
    client.flush()
    client.read(lambda: client.stream(number)["reset"] is not None)
    good = client.request(head("/small"))
    client.finish(good)
    return client.outcome()


def upload(port, path, size, before):
    """Sends a whole body before it reads the response, on a connection with `before` earlier requests."""
    client = Client(port)
    for _ in range(before):
        client.finish(client.request(head(path)))
    client.acknowledges = False
    number = client.request(head(path, "POST"), end=False)
    acknowledged = 0
    while size and not client.done(number):
        piece = min(size, client.h2.local_flow_control_window(number), 16384)
        if piece:
            client.h2.send_data(number, bytes(piece), end_stream=piece == size)
            client.flush()
            size -= piece
        else:
            client.read(lambda: client.done(number) or client.h2.local_flow_control_window(number))
    while not client.done(number):
        received = client.stream(number)["body"]
        if received > acknowledged:
            client.h2.acknowledge_received_data(received - acknowledged, number)
            client.flush()
            acknowledged = received
        client.read(lambda: client.done(number) or client.stream(number)["body"] > acknowledged)
    return {"sent": not size, **client.stream(number)}


def slow(port):
    """Sends a part of a body and no more."""
    client = Client(port)
    number = client.request(head("/", "POST"), end=False)
    client.h2.send_data(number, b"abc")
    client.flush()
    client.read(lambda: client.stream(number)["status"] is not None)
    good = client.request(head("/small"))
    client.finish(good)
    return client.outcome()


if __name__ == "__main__":
    case, port = sys.argv[1], int(sys.argv[2])
    arguments = [json.loads(argument) for argument in sys.argv[3:]]
    print(json.dumps(globals()[case](port, *arguments)), flush=True)
