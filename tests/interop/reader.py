"""An app without sessions: it believes the headers it gets, and answers with them."""

import json

import service


def echo(environ, start_response):
    headers = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(headers).encode()]


if __name__ == "__main__":
    service.run(lambda _endpoint: echo)
