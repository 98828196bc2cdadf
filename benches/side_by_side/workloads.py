"""The workloads, and the targets of each."""

from dataclasses import dataclass

KEEP_ALIVE = 64
# HTTP/2 has as many concurrent requests, on fewer connections.
H2_CONNECTIONS, H2_STREAMS = 16, 4


@dataclass(frozen=True)
class Workload:
    """One kind of load."""

    title: str
    targets: tuple
    path: str = "/small"
    # The minimum size of a complete response body, in bytes.
    least: int = 1024
    # The size of the request body in bytes; the method is POST if it is not 0.
    body: int = 0
    close: bool = False
    tls: bool = False
    http2: bool = False
    # Exponent of the Zipf distribution of sessions over requests; 0: uniform; None: always the same session.
    zipf: float | None = None
    # The latency of every target is measured at half the saturated rate of this target.
    paced_by: str = "haproxy"


PEERS = ("gateway", "nginx", "haproxy")
WORKLOADS = {
    "small": Workload("GET, 1 KB response", ("gateway", "gateway-log", "nginx", "nginx-auth", "haproxy")),
    "big": Workload("GET, 100 KB response", PEERS, path="/big", least=100 * 1024),
    "post": Workload("POST of 10 KB", PEERS, path="/post", least=2, body=10 * 1024),
    "connect": Workload("one connection per request", PEERS, close=True),
    "tls": Workload("TLS 1.3, keep-alive", PEERS, tls=True),
    "http2": Workload("HTTP/2 over TLS", PEERS, tls=True, http2=True),
    "zipf": Workload("10,000 sessions, Zipf", ("gateway", "haproxy"), zipf=1.0, paced_by="gateway"),
    "reissue": Workload("one session, reissued", ("gateway-reissue", "haproxy"), paced_by="gateway-reissue"),
    "zipf-reissue": Workload(
        "10,000 sessions, Zipf, reissued", ("gateway-reissue", "haproxy"), zipf=1.0, paced_by="gateway-reissue"
    ),
    "uncached": Workload(
        "10,000 sessions, no cache", ("gateway-uncached", "haproxy"), zipf=0.0, paced_by="gateway-uncached"
    ),
}
# Names of the targets in the results.
TARGETS = {
    "gateway": "sessiongate",
    "gateway-log": "sessiongate, access log",
    "gateway-reissue": "sessiongate, `reissue_time = \"1s\"`",
    "gateway-uncached": "sessiongate, cache off",
    "nginx": "nginx `proxy_pass`",
    "nginx-auth": "nginx `auth_request`",
    "haproxy": "HAProxy",
}
