"""What is asked of the targets, and which of them are asked."""

from dataclasses import dataclass

KEEP_ALIVE = 64
# HTTP/2 has as many requests under way, on fewer connections.
H2_CONNECTIONS, H2_STREAMS = 16, 4


@dataclass(frozen=True)
class Workload:
    """One kind of load."""

    title: str
    targets: tuple
    path: str = "/small"
    # The least bytes of a good answer.
    least: int = 1024
    # Bytes of the request's body; with any, it is a POST.
    body: int = 0
    close: bool = False
    tls: bool = False
    http2: bool = False
    # Exponent of the Zipf distribution that requests draw their session from; 0: evenly. None: always the one session.
    zipf: float | None = None
    # Half of this target's saturated rate is the load under which latency is taken, of every target alike.
    paced_by: str = "haproxy"


PEERS = ("gateway", "nginx", "haproxy")
WORKLOADS = {
    "small": Workload("GET, 1 KB answer", ("gateway", "gateway-log", "nginx", "nginx-auth", "haproxy")),
    "big": Workload("GET, 100 KB answer", PEERS, path="/big", least=100 * 1024),
    "post": Workload("POST of 10 KB", PEERS, path="/post", least=2, body=10 * 1024),
    "connect": Workload("a connection each", PEERS, close=True),
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
# How a target differs from its defaults, for those who read the results.
TARGETS = {
    "gateway": "sessiongate",
    "gateway-log": "sessiongate, access log",
    "gateway-reissue": "sessiongate, `reissue_time = \"1s\"`",
    "gateway-uncached": "sessiongate, cache off",
    "nginx": "nginx `proxy_pass`",
    "nginx-auth": "nginx `auth_request`",
    "haproxy": "HAProxy",
}
