#!/usr/bin/env python3
"""Writes fuzz/corpus, the initial inputs of the fuzz targets. The sessions are those in tests/fixtures/session-vectors.json,
as the frameworks wrote them; the other inputs are written by hand. Files are named by the hash of their content, so
running this again changes nothing."""

import hashlib
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent
VECTORS = json.loads((ROOT.parent / "tests/fixtures/session-vectors.json").read_text())["vectors"]

# The character that chooses the realm, by its index in REALMS of src/fuzzing/row.rs.
NATIVE, PYRAMID, NATIVE_SIGNED = "0", "1", "2"
FORMATS = {
    "pyramid-dynamodb-sessions": PYRAMID,
    "django-dynamodb-sessions": "3",
    "connect-dynamodb": "4",
    "flask-session": "5",
    "dynamodb-session-web": "6",
    "django-dysession": "7",
    "adonisjs": "8",
    "aws-sessionstore-dynamodb": "9",
    "dynamodb-store": ":",
}

ID = "gDHmhEn9a5y2gT9Cp3pkYQGzrVxWM1x0dHVaZ5sT5lM"

SEEDS = {
    "cookie": ["sid=1", "a=0; sid=1;sid=2 ;\tsid=3; other=4", 'other="x; sid=1; y"; sid =z', "\u00a0sid=z; sid=y; ;=;"],
    "set_cookie": [
        "sid=a/1; Path=/elsewhere; Domain=evil.example; Secure; HttpOnly; SameSite=None",
        "sid=; Max-Age=0; Path=/x",
        'sid="a b"; Expires=Thu, 01 Jan 1970 00:00:00 GMT',
        "sid=x; max-age=60; partitioned",
    ],
    "session_cookie": [f"{NATIVE}{ID}/7", f"{PYRAMID}{ID}/000000000000000007", f"{NATIVE_SIGNED}{ID}/7/" + "A" * 43],
    "row": [
        NATIVE
        + json.dumps(
            {
                "dat": {"M": {"user": {"S": "alice"}, "n": {"N": "1.5"}, "l": {"L": [{"NULL": True}, {"BOOL": True}]}}},
                "ver": {"N": "1"},
                "iss": {"N": "1799999000"},
                "exp": {"N": "1800000200"},
                "cre": {"N": "1799990000"},
            }
        )
    ],
    "route": ["/", "/admin", "/admin/public?x=1", "/files/a%2fb", "/files/private", "/%61dmin", "/admin;x/public",
              "/a/../admin", "//admin", "/files/%252e%252e/admin", "/files/..%2fprivate", "/%c0%af"],
    "mapping": [
        json.dumps({"user": "alice", "name": "Zoë ☃", "raw": "\r\n\0", "roles": ["admin", "a,b", "100%", ""],
                    "tags": ["a | b", 7, None, {"x": []}], "tenant": " acme "}, ensure_ascii=False),
        json.dumps({"user": {"name": "alice"}, "tenant": 1.5}),
    ],
    "configuration": [(ROOT.parent / "gateway.toml").read_text(), "[sessions.x]\nformat = 7\n[[routes]]\npath = \"\"\n"],
    "forwarded": ["f6.6.6.6, 9.9.9.9:80, 10.0.0.7\nphttps\nhpublic.example\n=for=9.9.9.9", "f[::1]:80, ::ffff:1.2.3.4", "ha b"],
    "request": [
        "abc\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "z\n\r\n\r\nGET /a?b HTTP/1.1\r\nHost: a\r\nX: \t y \r\nX:\r\n\r\nGET /c HTTP/1.0\r\n\r\n",
        "~\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloPOST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "zz\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\n"
        "GET /d HTTP/1.1\r\n\r\n",
        "b\nPUT http://a/b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "o\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\nQUERY /?\"<x>\" HTTP/1.1\r\nHost: a\r\n\r\n",
        "i\nGET / HTTP/1.1\nHost: a\r\n\r\n",
        "\nPOST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "q\nGET / HTTP/1.1\r\nHost : a\r\n folded\r\n\r\n",
    ],
    "response": [
        "Go3\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
        "Gc0\nHTTP/1.0 200 OK\r\n\r\nto the end",
        "Po19\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
        '2;x="y"\r\nab\r\n0A\r\n0123456789\r\n0\r\nX: y\r\n\r\n',
        "Ho\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: keep-alive, close\r\n\r\n",
        "Go\x7f\nHTTP/1.1 204 No Content\n\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "Gc5\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Go\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nframe",
        "Gr\nHTTP/1.1 100 Continue\r\n\r\n",
        "Gr\nX: y\r\n",
        "Gr\n\n",
        "Gr\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        "Go4\nHTTP/1.1 200 OK\r\nX : a\r\nContent-Length:\r\n 5\r\nContent-Length : 5, 05\r\n\r\nhello",
        "Go4\nHTTP/2.0\t200  \x01\nX: a\x01\n b\nX(Y): z\njunk\nTransfer-Encoding : chunked\n\n"
        "5\r\nhello\r\n0\r\nX : y\r\n z\r\njunk\r\n\r\n",
        "Go\nHTTP/1.1 200 OK\r\n(Content-Length: 5\r\nX: a\rb\r\n\r\nhello",
    ],
    "host": ["example.com", "EXAMPLE.com.:8080", "[::1]:80", "127.0.0.1", "a_b"],
}


def main():
    for vector in VECTORS:
        choice = FORMATS.get(vector["format"], NATIVE)
        if header := vector.get("cookie"):
            SEEDS["cookie"].append(header)
            SEEDS["session_cookie"].append(choice + header.partition("=")[2])
        if header := vector.get("set_cookie"):
            SEEDS["set_cookie"].append(header.removeprefix("Set-Cookie: "))
        for item in ("item", "item_after_modify"):
            if vector.get(item):
                SEEDS["row"].append(choice + json.dumps(vector[item]))
        if vector.get("decoded"):
            SEEDS["mapping"].append(json.dumps(vector["decoded"]))
    for target, seeds in SEEDS.items():
        folder = ROOT / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            data = seed.encode()
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
