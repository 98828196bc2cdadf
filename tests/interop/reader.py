"""An app without sessions: it believes the headers it gets, and answers with them. Its query is the headers that it
orders the gateway by.
"""

import json
from urllib.parse import parse_qsl

import service


def echo(environ, start_response):
    headers = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")}
    orders = parse_qsl(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "application/json"), *orders])
    return [json.dumps(headers).encode()]


if __name__ == "__main__":
    service.run(lambda _endpoint: echo)
