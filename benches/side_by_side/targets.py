"""The targets: their processes and ports, the resources that they have used, and checks of their responses."""

import re
import socket
import ssl
import time
import urllib.request
from pathlib import Path

import peers
from harness import (
    SESSION,
    Failure,
    cpu_nanos,
    reset_peak,
    free_ports,
    make_certificate,
    memory_kib,
    process_tree,
    put_sessions,
    request,
    session_id,
    spawn,
    template,
    wait_for,
)

HERE = Path(__file__).resolve().parent
COOKIE = f"session_id={SESSION}/1"
# What the upstream echoes of the headers that it receives.
EXPECTED = "Alice|admin,staff|Alice of acme|acme"
EXPECTED_OF_RESPONDER = "Alice|||"
SESSIONS = 10_000
# Variants of the gateway: values for the template gateway.toml.
GATEWAYS = {
    "gateway": {},
    "gateway-log": {"access_log": "true"},
    "gateway-reissue": {"reissue_time": "1s"},
    "gateway-uncached": {"ttl": "0s"},
}
OPERATION = re.compile(r'sessiongate_store_operations_total\{[^}]*operation="(\w+)"[^}]*\} (\d+)')


class Target:
    """A proxy under test: its process and its ports. `responder` is the process that it asks about each request."""

    def __init__(self, process, port, tls_port=None, admin_port=None, responder=None):
        self.process, self.port, self.tls_port, self.admin_port = process, port, tls_port, admin_port
        self.responder = responder

    def url(self, workload):
        if workload.tls:
            return f"https://localhost:{self.tls_port}{workload.path}"
        return f"http://127.0.0.1:{self.port}{workload.path}"

    def pids(self):
        """Returns the ids of all its processes, with those of its responder."""
        return process_tree(self.process.pid) + (process_tree(self.responder.pid) if self.responder else [])

    def cpu(self):
        """Returns the user and system time so far, in ns, with its responder's."""
        return cpu_nanos(self.process.pid) + self.responder_cpu()

    def responder_cpu(self):
        return cpu_nanos(self.responder.pid) if self.responder else 0

    def reset_peak(self):
        for pid in self.pids():
            reset_peak(pid)

    def peak_kib(self):
        """Returns the peak memory since `reset_peak`. Memory that processes share counts for each of them."""
        return sum(memory_kib(pid, "VmHWM") for pid in self.pids())

    def store_operations(self):
        """Returns the reads and writes of the table so far, by the gateway's metrics; `None` for other targets."""
        if not self.admin_port:
            return None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as answer:
            counts = OPERATION.findall(answer.read().decode())
        reads = sum(int(count) for operation, count in counts if operation == "get")
        return reads, sum(int(count) for _, count in counts) - reads

    def check(self):
        """Checks that TLS is 1.3, and that the upstream gets the session's headers and no forged ones."""
        if self.tls_port:
            check_tls(self.tls_port)
        if self.admin_port:
            self.check_session(EXPECTED)
        elif self.responder:
            self.check_session(EXPECTED_OF_RESPONDER)

    def check_session(self, expected):
        headers = {"Cookie": COOKIE, "X-User": "mallory", "X_User": "mallory"}
        status, text = request(self.port, "GET", "/echo", headers)
        if (status, text) != (200, expected):
            raise Failure(f"{self.process.args[3]} injected {text!r} (status {status}) instead of {expected!r}")
        status, _ = request(self.port, "GET", "/echo")
        if status not in (302, 401):
            raise Failure(f"{self.process.args[3]} answered {status} without a session")


def check_tls(port):
    certificate = ssl.get_server_certificate(("127.0.0.1", port))
    context = ssl.create_default_context(cadata=certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as secured:
            found = (secured.version(), secured.selected_alpn_protocol())
    if found != ("TLSv1.3", "h2"):
        raise Failure(f"port {port} negotiated {found}")


class Environment:
    """The upstream, the store, and the requested targets."""

    def __init__(self, options, wanted, directory, processes):
        self.options, self.directory, self.processes = options, directory, processes
        self.ids = [session_id(number) for number in range(SESSIONS)]
        (directory / "sessions").write_text("".join(f"{id}\n" for id in self.ids))
        (directory / "files").mkdir()
        (directory / "files" / "small").write_text("x" * 1024)
        (directory / "files" / "big").write_text("x" * 100 * 1024)
        make_certificate(directory)
        (directory / "both.pem").write_text((directory / "cert.pem").read_text() + (directory / "key.pem").read_text())
        upstream, self.store, port = free_ports(3)
        self.start_nginx("upstream", upstream, options.load_core, upstream_port=upstream)
        self.responder_port, = free_ports(1)
        # On the target's core, it would make the targets that ask it a quarter more expensive, by switches between the two.
        values = {"cookie": COOKIE.partition("=")[2], "responder_port": self.responder_port}
        self.responder = self.start_nginx("responder", self.responder_port, options.load_core, **values)
        file = template(HERE / "store.toml", directory / "store.toml", port=port, store_port=self.store)
        self.start("store", self.store, [options.gateway, "serve", "--config", file], options.load_core)
        self.write_sessions()
        self.targets = {}
        for name in wanted:
            if name not in self.targets:
                self.targets |= self.start_target(name, upstream)
        for target in self.targets.values():
            target.check()

    def start(self, name, port, command, core):
        with (self.directory / f"{name}.log").open("w") as log:
            # GOMAXPROCS gives a Go program one thread for its work. Caddy writes files below HOME.
            process = spawn(command, core, log, GOMAXPROCS="1", HOME=str(self.directory))
        self.processes.append(process)
        wait_for(port, process)
        return process

    def start_nginx(self, name, port, core, **values):
        file = template(HERE / f"{name}.conf", self.directory / f"{name}.conf", dir=self.directory, **values)
        return self.start(name, port, ["nginx", "-c", file, "-e", self.directory / f"{name}.log"], core)

    def start_target(self, name, upstream):
        """Starts a target, and perhaps others with it. Returns them by name."""
        if name in GATEWAYS:
            return self.gateway(name, upstream)
        if name in peers.PACKAGES:
            return self.peer(name, upstream)
        return self.haproxy(upstream) if name == "haproxy" else self.nginx(upstream)

    def write_sessions(self):
        """Writes all sessions, issued now."""
        put_sessions(self.store, [SESSION, *self.ids])

    def gateway(self, name, upstream):
        port, tls_port, admin_port = free_ports(3)
        ports = {"port": port, "tls_port": tls_port, "admin_port": admin_port, "store_port": self.store}
        values = {"access_log": "false", "reissue_time": "2m", "ttl": "2s", "upstream_port": upstream}
        file = self.directory / f"{name}.toml"
        template(HERE / "gateway.toml", file, **(values | ports | GATEWAYS[name]))
        command = [self.options.gateway, "serve", "--config", file]
        process = self.start(name, port, command, self.options.proxy_core)
        return {name: Target(process, port, tls_port, admin_port)}

    def nginx(self, upstream):
        """Starts one nginx, which serves both of its targets."""
        port, auth_port, tls_port = free_ports(3)
        ports = {"nginx_port": port, "nginx_auth_port": auth_port, "nginx_tls_port": tls_port}
        ports |= {"upstream_port": upstream, "responder_port": self.responder_port}
        process = self.start_nginx("nginx", port, self.options.proxy_core, **ports)
        return {"nginx": Target(process, port, tls_port), "nginx-auth": Target(process, auth_port, responder=self.responder)}

    def haproxy(self, upstream):
        port, tls_port = free_ports(2)
        file = self.directory / "haproxy.cfg"
        ports = {"haproxy_port": port, "haproxy_tls_port": tls_port, "upstream_port": upstream}
        template(HERE / "haproxy.cfg", file, dir=self.directory, **ports)
        process = self.start("haproxy", port, ["haproxy", "-db", "-f", file], self.options.proxy_core)
        return {"haproxy": Target(process, port, tls_port)}

    def peer(self, name, upstream):
        port, = free_ports(1)
        command = peers.command(name, self.directory, port, upstream_port=upstream, responder_port=self.responder_port)
        process = self.start(name, port, command, self.options.proxy_core)
        # Traefik listens before it has its routes.
        deadline = time.monotonic() + 20
        while request(port, "GET", "/small", {"Cookie": COOKIE})[0] == 404 and time.monotonic() < deadline:
            time.sleep(0.02)
        return {name: Target(process, port, responder=self.responder)}
