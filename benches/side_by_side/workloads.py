"""The workloads, and the targets of each."""

from dataclasses import dataclass

KEEP_ALIVE = 64
# HTTP/2 has as many concurrent requests, on fewer connections.
H2_CONNECTIONS, H2_STREAMS = 16, 4


@dataclass(frozen=True)
class Workload:
    """One kind of load."""

    title: str
    # Besides HAProxy, which is measured in every workload.
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
    # Whether the CPU time depends on what the target has cached, so that it is measured right after a load of the same kind.
    warmed: bool = False


def sessions(title, target, zipf=None):
    return Workload(title, (target,), zipf=zipf, paced_by=target, warmed=True)


PEERS = ("caddy", "traefik", "envoy")
WORKLOADS = {
    "small": Workload("GET, 1 KB response", ("gateway", "gateway-log", "nginx", "nginx-auth", *PEERS)),
    "big": Workload("GET, 100 KB response", ("gateway", "nginx", "nginx-auth"), path="/big", least=100 * 1024),
    "post": Workload("POST of 10 KB", ("gateway", "nginx", "nginx-auth"), path="/post", least=2, body=10 * 1024),
    "connect": Workload("one connection per request", ("gateway", "nginx"), close=True),
    "tls": Workload("TLS 1.3, keep-alive", ("gateway", "nginx"), tls=True),
    "http2": Workload("HTTP/2 over TLS", ("gateway", "nginx"), tls=True, http2=True),
    "zipf": sessions("10,000 sessions, Zipf", "gateway", zipf=1.0),
    "reissue": sessions("one session, reissued", "gateway-reissue"),
    "zipf-reissue": sessions("10,000 sessions, Zipf, reissued", "gateway-reissue", zipf=1.0),
    "uncached": sessions("10,000 sessions, no cache", "gateway-uncached", zipf=0.0),
}
# Names of the targets in the results.
TARGETS = {
    "gateway": "sessiongate",
    "gateway-log": "sessiongate, access log",
    "gateway-reissue": "sessiongate, `reissue_time = \"1s\"`",
    "gateway-uncached": "sessiongate, cache off",
    "nginx": "nginx `proxy_pass`",
    "nginx-auth": "nginx `auth_request`",
    "caddy": "Caddy `forward_auth`",
    "traefik": "Traefik ForwardAuth",
    "envoy": "Envoy `ext_authz`",
    "haproxy": "HAProxy",
}
# Pairs of targets that are also compared with each other.
COMPARED = [
    ("gateway", "nginx"),
    ("gateway-log", "gateway"),
    *(("gateway", peer) for peer in ("nginx-auth", *PEERS)),
]
