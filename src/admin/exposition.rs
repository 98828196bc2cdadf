//! All metrics as Prometheus's text: the counters that are kept in a registry, and everything that is read when somebody
//! asks, which is what other parts count for themselves and how full every bound is.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use prometheus::TextEncoder;

use super::process::Process;
use super::{Connections, Http2, Reloads, Subject};
use crate::proxy::Gateway;
use crate::telemetry::metrics::NONE;
use crate::time::Now;
use crate::upstream::{Report, ServerReport, Upstream};

/// What a family of samples is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A family read off a report: its kind, its name, its help, and its value.
type Family<T> = (Kind, &'static str, &'static str, fn(&T) -> u64);

/// The text in the making.
#[derive(Debug, Default)]
struct Exposition(String);

/// Everything that can be measured now.
///
/// # Errors
/// If a counter cannot be written, which is a defect.
pub(super) fn exposition(
    subject: &Subject,
    gateway: &Gateway,
    began: Now,
) -> Result<String, prometheus::Error> {
    let mut text = Exposition::default();
    TextEncoder::new().encode_utf8(&subject.metrics.registry().gather(), &mut text.0)?;
    text.realms(gateway);
    text.limiters(gateway);
    text.upstreams(gateway);
    text.access_log(gateway);
    text.server(subject);
    text.process(began);
    Ok(text.0)
}

impl Exposition {
    fn family(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Text takes whatever is written.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{before}{label}=\"{text}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }

    /// A family of one sample.
    fn single(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.family(kind, name, help);
        self.sample(name, &[], value);
    }

    /// A family of one sample, if there is one.
    fn known(&mut self, kind: Kind, name: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.single(kind, name, help, value);
        }
    }

    fn realms(&mut self, gateway: &Gateway) {
        let fills: Vec<_> = gateway.realms.iter().map(|realm| (realm.name(), realm.fill())).collect();
        let parts = |fill: &crate::session::Fill| {
            [
                ("session_cache", fill.sessions),
                ("session_cache_misses", fill.misses),
                ("session_lookups", fill.lookups),
                ("session_reissues", fill.reissues),
            ]
        };
        let help = "How much of what is bounded is in use, for each realm.";
        self.family(Kind::Gauge, "sessiongate_realm_bound_used", help);
        for (realm, fill) in &fills {
            for (bound, (used, _)) in parts(fill) {
                self.sample("sessiongate_realm_bound_used", &[("realm", realm), ("bound", bound)], used);
            }
        }
        self.family(Kind::Gauge, "sessiongate_realm_bound_limit", "The bounds, for each realm.");
        for (realm, fill) in &fills {
            for (bound, (_, limit)) in parts(fill) {
                self.sample("sessiongate_realm_bound_limit", &[("realm", realm), ("bound", bound)], limit);
            }
        }
    }

    fn limiters(&mut self, gateway: &Gateway) {
        // Routes of one name stand under one label.
        let mut fills = BTreeMap::new();
        for (route, which, limiter) in gateway.limiters() {
            let (used, limit) = limiter.fill();
            let sum = fills.entry((route.unwrap_or(NONE), which)).or_insert((0, 0));
            *sum = (sum.0 + used, sum.1 + limit);
        }
        let used = "sessiongate_limiter_bound_used";
        self.family(Kind::Gauge, used, "Addresses that a limiter remembers: a route's, or everybody's.");
        for ((route, which), (value, _)) in &fills {
            self.sample(used, &[("route", route), ("limiter", which)], value);
        }
        let limit = "sessiongate_limiter_bound_limit";
        self.family(Kind::Gauge, limit, "How many it may remember.");
        for ((route, which), (_, value)) in &fills {
            self.sample(limit, &[("route", route), ("limiter", which)], value);
        }
    }

    fn upstreams(&mut self, gateway: &Gateway) {
        let named = |upstream: &Arc<Upstream>| (upstream.config().name.clone(), upstream.report());
        let reports: Vec<_> = gateway.upstreams.iter().map(named).collect();
        let whole: [Family<Report>; 5] = [
            (
                Kind::Gauge,
                "sessiongate_upstream_available",
                "Whether an upstream has a server that takes requests.",
                |it| u64::from(it.is_available()),
            ),
            (
                Kind::Gauge,
                "sessiongate_upstream_queued_requests",
                "Requests that wait for room at a server.",
                |it| it.queued as u64,
            ),
            (Kind::Gauge, "sessiongate_upstream_queue_limit_requests", "How many may wait.", |it| {
                it.queue_size as u64
            }),
            (
                Kind::Counter,
                "sessiongate_upstream_retries_total",
                "Requests that were sent once more.",
                |it| it.retries,
            ),
            (
                Kind::Counter,
                "sessiongate_upstream_retries_denied_total",
                "Requests that were not sent once more, since the budget was spent.",
                |it| it.retries_denied,
            ),
        ];
        for (kind, name, help, value) in whole {
            self.family(kind, name, help);
            for (upstream, report) in &reports {
                self.sample(name, &[("upstream", upstream)], value(report));
            }
        }
        let each: [Family<ServerReport>; 9] = [
            (
                Kind::Gauge,
                "sessiongate_server_healthy",
                "Whether a server answers its health checks, or has none.",
                |it| u64::from(it.healthy),
            ),
            (
                Kind::Gauge,
                "sessiongate_server_ejected",
                "Whether a server is ejected after failures.",
                |it| u64::from(it.ejected),
            ),
            (Kind::Gauge, "sessiongate_server_requests_in_flight", "Requests under way at a server.", |it| {
                it.in_flight as u64
            }),
            (Kind::Gauge, "sessiongate_server_connections_open", "Open connections to a server.", |it| {
                it.connections as u64
            }),
            (
                Kind::Gauge,
                "sessiongate_server_connections_idle",
                "Open connections without a request.",
                |it| it.idle as u64,
            ),
            (Kind::Counter, "sessiongate_server_connections_total", "Connections that were opened.", |it| {
                it.connected
            }),
            (
                Kind::Counter,
                "sessiongate_server_connect_failures_total",
                "Connections that could not be opened.",
                |it| it.connect_failures,
            ),
            (Kind::Counter, "sessiongate_server_ejections_total", "How often a server was ejected.", |it| {
                it.ejections
            }),
            (
                Kind::Counter,
                "sessiongate_server_health_changes_total",
                "How often health checks changed their mind.",
                |it| it.health_changes,
            ),
        ];
        for (kind, name, help, value) in each {
            self.servers(kind, name, help, &reports, |server| Some(value(server)));
        }
        let name = "sessiongate_server_requests_limit";
        self.servers(Kind::Gauge, name, "How many requests a server may have at once.", &reports, |server| {
            server.max_connections.map(|limit| limit as u64)
        });
    }

    /// A family with a sample for each address of each server that has one.
    fn servers(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        reports: &[(String, Report)],
        value: impl Fn(&ServerReport) -> Option<u64>,
    ) {
        self.family(kind, name, help);
        // Two entries of one address stand under one label.
        let mut sums = BTreeMap::new();
        for (upstream, report) in reports {
            for server in &report.servers {
                if let Some(value) = value(server) {
                    *sums.entry((upstream, &server.label)).or_insert(0) += value;
                }
            }
        }
        for ((upstream, server), value) in sums {
            self.sample(name, &[("upstream", upstream), ("server", server)], value);
        }
    }

    fn access_log(&mut self, gateway: &Gateway) {
        let Some(log) = &gateway.access_log else { return };
        let (used, limit) = log.fill();
        let help = "Lines of the access log that wait to be written.";
        self.single(Kind::Gauge, "sessiongate_access_log_queue_bytes", help, used);
        let help = "The bound of the lines that wait.";
        self.single(Kind::Gauge, "sessiongate_access_log_queue_limit_bytes", help, limit);
    }

    fn server(&mut self, subject: &Subject) {
        let name = "sessiongate_build_info";
        self.family(Kind::Gauge, name, "Which build this is; always 1.");
        self.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
        let open = subject.tunnels.open();
        self.single(Kind::Gauge, "sessiongate_tunnels_open", "Open WebSockets.", open);
        let name = "sessiongate_tunnels_closed_total";
        self.family(Kind::Counter, name, "WebSockets that have ended, by cause.");
        for (cause, count) in subject.tunnels.closed() {
            self.sample(name, &[("cause", cause)], count);
        }
        self.connections(&(subject.connections)());
        let Reloads { done, failed, last, generation } = (subject.reloads)();
        let name = "sessiongate_reloads_total";
        self.family(Kind::Counter, name, "Reloads of the configuration: carried out, or refused.");
        self.sample(name, &[("outcome", "done")], done);
        self.sample(name, &[("outcome", "failed")], failed);
        let name = "sessiongate_configuration_generation";
        self.single(Kind::Gauge, name, "The number of the configuration in force, from 1.", generation);
        let name = "sessiongate_configuration_loaded_time_seconds";
        self.single(Kind::Gauge, name, "When it came into force, in Unix seconds.", last.as_secs());
        self.single(Kind::Gauge, "sessiongate_workers", "Threads that serve requests.", subject.workers);
        let draining = u8::from((subject.is_draining)());
        self.single(Kind::Gauge, "sessiongate_draining", "Whether the gateway is about to end.", draining);
    }

    fn connections(&mut self, connections: &Connections) {
        let Connections { open, bound, outcomes, http2, certificates, not_after } = connections;
        self.single(Kind::Gauge, "sessiongate_connections", "Open client connections.", open);
        let help = "The bound of open client connections.";
        self.single(Kind::Gauge, "sessiongate_connections_limit", help, bound);
        let name = "sessiongate_connections_total";
        self.family(Kind::Counter, name, "Client connections, by what became of them before any request.");
        for (outcome, count) in outcomes {
            self.sample(name, &[("outcome", outcome)], count);
        }
        let Http2 { resets, pauses, ended } = http2;
        let name = "sessiongate_http2_resets_total";
        self.single(
            Kind::Counter,
            name,
            "Streams that clients gave up before their responses had gone.",
            resets,
        );
        let name = "sessiongate_http2_pauses_total";
        let help = "How often a connection was left unread because its address had reset too many streams.";
        self.single(Kind::Counter, name, help, pauses);
        let name = "sessiongate_http2_ended_total";
        let help = "Connections that were ended because their clients broke the protocol or its bounds.";
        self.single(Kind::Counter, name, help, ended);
        let name = "sessiongate_certificate_reloads_total";
        self.family(Kind::Counter, name, "Listeners' certificates that changed: taken, or of no use.");
        for (outcome, count) in certificates {
            self.sample(name, &[("outcome", outcome)], count);
        }
        if let Some(not_after) = not_after {
            let help = "When the first of the listeners' certificates expires, in Unix seconds.";
            self.single(Kind::Gauge, "sessiongate_certificate_not_after_seconds", help, not_after.as_secs());
        }
    }

    fn process(&mut self, began: Now) {
        let Process { resident_bytes, cpu_seconds, open_fds, max_fds, threads } = Process::read();
        let started = began.wall.as_millis() / 1000;
        let (gauge, counter) = (Kind::Gauge, Kind::Counter);
        self.single(
            gauge,
            "process_start_time_seconds",
            "When the gateway started, in Unix seconds.",
            started,
        );
        self.known(counter, "process_cpu_seconds_total", "User and system time.", cpu_seconds);
        self.known(gauge, "process_resident_memory_bytes", "Memory that is in use.", resident_bytes);
        self.known(gauge, "process_open_fds", "Open file descriptors.", open_fds);
        self.known(gauge, "process_max_fds", "The limit of open file descriptors.", max_fds);
        self.known(gauge, "process_threads", "Threads of the process.", threads);
    }
}
