"""Runs a WSGI app as a child of the test: binds a free port, tells it, and then waits to be told where DynamoDB is.

The port comes first since the gateway's configuration names it, and the gateway may be what serves DynamoDB's API.
"""

import os
import socket
import sys
import threading

import waitress


def end_with_the_test():
    sys.stdin.read()
    os._exit(0)


def run(make_app):
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    endpoint = sys.stdin.readline().strip()
    threading.Thread(target=end_with_the_test, daemon=True).start()
    waitress.create_server(make_app(endpoint), sockets=[listener], threads=8).run()
