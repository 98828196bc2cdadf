"""A client of a WebSocket over HTTP/2 (RFC 8441), with the `h2` library and handmade WebSocket frames.

Arguments: host, port and cookie. Prints a line for each result.
"""

import os
import socket
import struct
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RemoteSettingsChanged, ResponseReceived, StreamEnded
from h2.settings import SettingCodes

host, port, cookie = sys.argv[1:]
connection = socket.create_connection((host, int(port)), timeout=20)
http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
http.initiate_connection()
bodies, heads, ended, settings = {}, {}, set(), {}


def step(until):
    """Reads until the condition holds."""
    connection.sendall(http.data_to_send())
    while not until():
        received = connection.recv(65536)
        assert received, "the connection has ended"
        for event in http.receive_data(received):
            if isinstance(event, RemoteSettingsChanged):
                settings.update({code: change.new_value for code, change in event.changed_settings.items()})
            elif isinstance(event, ResponseReceived):
                heads[event.stream_id] = dict(event.headers)
            elif isinstance(event, DataReceived):
                bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                ended.add(event.stream_id)
        connection.sendall(http.data_to_send())


def request(*pseudo, end):
    stream = http.get_next_available_stream_id()
    authority = (":authority", f"{host}:{port}")
    headers = [*pseudo, (":scheme", "http"), authority, ("cookie", cookie), ("sec-websocket-version", "13")]
    http.send_headers(stream, headers, end_stream=end)
    step(lambda: stream in heads)
    return stream


def frame(opcode, payload):
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return struct.pack("!BB", 0x80 | opcode, 0x80 | len(payload)) + mask + masked


step(lambda: SettingCodes.ENABLE_CONNECT_PROTOCOL in settings)
print("enabled", settings[SettingCodes.ENABLE_CONNECT_PROTOCOL], flush=True)

refused = request((":method", "CONNECT"), (":protocol", "websocket"), (":path", "/other"), end=False)
print("other route", heads[refused][":status"], flush=True)
other = request((":method", "CONNECT"), (":protocol", "connect-udp"), (":path", "/ws"), end=False)
print("other protocol", heads[other][":status"], flush=True)

tunnel = request((":method", "CONNECT"), (":protocol", "websocket"), (":path", "/ws"), end=False)
names = [name for name in heads[tunnel] if name.startswith(("sec-websocket-accept", "x-session", "upgrade"))]
print("tunnel", heads[tunnel][":status"], names, flush=True)
http.send_data(tunnel, frame(1, b"hello"))
step(lambda: len(bodies.get(tunnel, b"")) >= 7)
print("echoed", bodies.pop(tunnel), flush=True)

plain = request((":method", "GET"), (":path", "/ws"), end=True)
print("plain", heads[plain][":status"], flush=True)
sys.stdin.readline()
step(lambda: len(bodies.get(tunnel, b"")) >= 4)
print("closed", struct.unpack("!H", bodies[tunnel][2:4])[0], flush=True)
http.send_data(tunnel, frame(8, bodies[tunnel][2:4]))
step(lambda: tunnel in ended)
print("ended", flush=True)
