"""A gRPC client: runs the named case against a port and prints what came of it as one line of JSON."""

import json
import queue
import sys

import grpc

WAIT = 15


def told(error):
    return {"code": error.code().name, "details": error.details()}


def refused(channel, methods, metadata):
    """The status of a call of each method."""
    results = []
    for method in methods:
        try:
            answer = channel.unary_unary(method)(b"hello", timeout=WAIT, metadata=metadata)
            results.append({"code": "OK", "answer": answer.decode()})
        except grpc.RpcError as error:
            results.append(told(error))
    return results


def kinds(channel, metadata):
    """Each kind of call."""
    results = {}
    answer, call = channel.unary_unary("/echo.Echo/Unary").with_call(b"hello", timeout=WAIT, metadata=metadata)
    results["unary"] = answer.decode()
    results["trailing"] = {key: value for key, value in call.trailing_metadata()}
    try:
        channel.unary_unary("/echo.Echo/Unary")(b"fail", timeout=WAIT, metadata=metadata)
    except grpc.RpcError as error:
        results["failed"] = told(error)
    answers = channel.unary_stream("/echo.Echo/Server")(b"2000", timeout=WAIT, metadata=metadata)
    results["server"] = sum(int(answer) for answer in answers)
    parts = (b"x" * 10_000 for _ in range(200))
    answer = channel.stream_unary("/echo.Echo/Client")(parts, timeout=WAIT, metadata=metadata)
    results["client"] = int(answer)
    # In lockstep: each message waits for the answer to the one before.
    asked = queue.Queue()
    asked.put(b"a0")
    both = channel.stream_stream("/echo.Echo/Both")(iter(asked.get, None), timeout=WAIT, metadata=metadata)
    heard = []
    for answer in both:
        heard.append(answer.decode())
        asked.put(b"a%d" % len(heard) if len(heard) < 5 else None)
    results["both"] = heard
    return results


def quiet(channel, metadata):
    """A call in which nobody says anything for longer than a body may take."""
    asked = queue.Queue()
    asked.put(b"a")
    both = channel.stream_stream("/echo.Echo/Both")(iter(asked.get, None), timeout=WAIT, metadata=metadata)
    heard = [next(both).decode()]
    print("quiet", flush=True)
    sys.stdin.readline()
    asked.put(b"b")
    heard.append(next(both).decode())
    asked.put(None)
    heard.extend(answer.decode() for answer in both)
    return heard


if __name__ == "__main__":
    case, port = sys.argv[1], sys.argv[2]
    arguments = [json.loads(argument) for argument in sys.argv[3:]]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        print(json.dumps(globals()[case](channel, *arguments)), flush=True)
