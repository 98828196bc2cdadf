"""A gRPC server with all four kinds of calls, without a schema: messages are bytes.

Prints its port, and serves until its input ends.
"""

import sys
from concurrent import futures

import grpc


def end(context):
    metadata = dict(context.invocation_metadata())
    user = metadata.get("x-user", "nobody")
    context.set_trailing_metadata((("x-served", user), ("x-session-patch", "{}")))


def unary(request, context):
    end(context)
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 50%")
    return request.upper()


def server_stream(request, context):
    for n in range(int(request)):
        yield b"%d" % n
    end(context)


def client_stream(requests, context):
    total = sum(len(request) for request in requests)
    end(context)
    return b"%d" % total


def both(requests, context):
    for request in requests:
        yield request.upper()
    end(context)


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/echo.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/echo.Echo/Server": grpc.unary_stream_rpc_method_handler(server_stream),
            "/echo.Echo/Client": grpc.stream_unary_rpc_method_handler(client_stream),
            "/echo.Echo/Both": grpc.stream_stream_rpc_method_handler(both),
        }.get(details.method)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((Echo(),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
sys.stdin.read()
