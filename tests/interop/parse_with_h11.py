"""Reads streams of HTTP/1.1 requests, one per line in hex, with h11, and prints for each the complete requests and what
the parser does next."""

import json
import sys

import h11


def read(stream):
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(stream)
    requests, request, body = [], None, b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            # The rest of the message quotes the stream.
            return requests, "rejected " + str(error).partition(": bytearray")[0]
        if event is h11.NEED_DATA:
            return requests, "waits"
        if isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers]
            requests.append([request.method.decode(), request.target.decode("latin-1"), fields, body.hex()])
            if connection.their_state is not h11.DONE:
                return requests, "closed"
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return requests, "closed"
            connection.start_next_cycle()
        else:
            return requests, "closed"


for line in open(sys.argv[1], encoding="ascii"):
    requests, ending = read(bytes.fromhex(line))
    print(json.dumps({"requests": requests, "ending": ending}))
