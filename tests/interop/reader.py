"""An app without sessions. Its response has the headers that it has received as JSON, and the header fields in the query, which
are commands to the gateway.
"""

import json
from urllib.parse import parse_qsl

import service


def echo(environ, start_response):
    headers = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")}
    commands = parse_qsl(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "application/json"), *commands])
    return [json.dumps(headers).encode()]


if __name__ == "__main__":
    service.run(lambda _endpoint: echo)
