"""A gRPC client: runs a case against a port and prints the outcome as one line of JSON."""

import json
import queue
import sys

import grpc

WAIT = 15


def status(error):
    return {"code": error.code().name, "details": error.details()}


def refused(channel, methods, metadata):
    """Returns the status of a call of each method."""
    results = []
    for method in methods:
        try:
            response = channel.unary_unary(method)(b"hello", timeout=WAIT, metadata=metadata)
            results.append({"code": "OK", "response": response.decode()})
        except grpc.RpcError as error:
            results.append(status(error))
    return results


def kinds(channel, metadata):
    """Makes each kind of call."""
    results = {}
    response, call = channel.unary_unary("/echo.Echo/Unary").with_call(b"hello", timeout=WAIT, metadata=metadata)
    results["unary"] = response.decode()
    results["trailing"] = {key: value for key, value in call.trailing_metadata()}
    try:
        channel.unary_unary("/echo.Echo/Unary")(b"fail", timeout=WAIT, metadata=metadata)
    except grpc.RpcError as error:
        results["failed"] = status(error)
    responses = channel.unary_stream("/echo.Echo/Server")(b"2000", timeout=WAIT, metadata=metadata)
    results["server"] = sum(int(response) for response in responses)
    parts = (b"x" * 10_000 for _ in range(200))
    response = channel.stream_unary("/echo.Echo/Client")(parts, timeout=WAIT, metadata=metadata)
    results["client"] = int(response)
    # In lockstep: each message is sent after the response to the previous one.
    requests = queue.Queue()
    requests.put(b"a0")
    both = channel.stream_stream("/echo.Echo/Both")(iter(requests.get, None), timeout=WAIT, metadata=metadata)
    responses = []
    for response in both:
        responses.append(response.decode())
        requests.put(b"a%d" % len(responses) if len(responses) < 5 else None)
    results["both"] = responses
    return results


def idle(channel, metadata):
    """Makes a call in which neither side sends anything for longer than the body timeout."""
    requests = queue.Queue()
    requests.put(b"a")
    both = channel.stream_stream("/echo.Echo/Both")(iter(requests.get, None), timeout=WAIT, metadata=metadata)
    responses = [next(both).decode()]
    print("idle", flush=True)
    sys.stdin.readline()
    requests.put(b"b")
    responses.append(next(both).decode())
    requests.put(None)
    responses.extend(response.decode() for response in both)
    return responses


if __name__ == "__main__":
    case, port = sys.argv[1], sys.argv[2]
    arguments = [json.loads(argument) for argument in sys.argv[3:]]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        print(json.dumps(globals()[case](channel, *arguments)), flush=True)
