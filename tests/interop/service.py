"""Runs a WSGI app as a child process of a test: binds a free port, prints it, and then reads DynamoDB's URL from its input.

The port is printed first because the gateway's configuration names it, and the gateway may serve DynamoDB's API.
"""

import os
import socket
import sys
import threading

import waitress


def exit_with_the_test():
    sys.stdin.read()
    os._exit(0)


def run(make_app):
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    endpoint = sys.stdin.readline().strip()
    threading.Thread(target=exit_with_the_test, daemon=True).start()
    waitress.create_server(make_app(endpoint), sockets=[listener], threads=8).run()
