//! All metrics in Prometheus's text format: those in `telemetry/metrics.rs`, and those read at each scrape, which are the
//! counters of other modules and the use of every bounded structure.

use prometheus::{CounterVec, Error, GaugeVec, Opts, Registry, TextEncoder};

use super::process::Process;
use super::{AdminSources, ConnectionReport, Http2Report, ReloadReport};
use crate::proxy::Gateway;
use crate::telemetry::metrics::NONE;
use crate::time::Now;
use crate::upstream::{ServerReport, UpstreamReport};

/// The type of a metric family.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A metric with its kind, its name, its help text, and a function that reads its value from a report.
type Reading<T> = (Kind, &'static str, &'static str, fn(&T) -> u64);

/// The metrics that are read at one scrape.
#[derive(Debug, Default)]
struct Scrape(Registry);

const UPSTREAM: [Reading<UpstreamReport>; 5] = [
    (
        Kind::Gauge,
        "sessiongate_upstream_available",
        "Whether an upstream has an available server.",
        |report| u64::from(report.is_available()),
    ),
    (
        Kind::Gauge,
        "sessiongate_upstream_queued_requests",
        "Requests that are waiting for a connection to a server.",
        |report| report.queued as u64,
    ),
    (
        Kind::Gauge,
        "sessiongate_upstream_queue_limit_requests",
        "Maximum number of waiting requests.",
        |report| report.queue_size as u64,
    ),
    (Kind::Counter, "sessiongate_upstream_retries_total", "Retries of requests.", |report| report.retries),
    (
        Kind::Counter,
        "sessiongate_upstream_retries_denied_total",
        "Retries that were not made because the retry budget was spent.",
        |report| report.retries_denied,
    ),
];

const SERVER: [Reading<ServerReport>; 9] = [
    (
        Kind::Gauge,
        "sessiongate_server_healthy",
        "Whether a server passes its health checks, or has none.",
        |server| u64::from(server.healthy),
    ),
    (Kind::Gauge, "sessiongate_server_ejected", "Whether a server is ejected after failures.", |server| {
        u64::from(server.ejected)
    }),
    (Kind::Gauge, "sessiongate_server_requests_in_flight", "Requests in flight to a server.", |server| {
        server.in_flight as u64
    }),
    (Kind::Gauge, "sessiongate_server_connections_open", "Open connections to a server.", |server| {
        server.connections as u64
    }),
    (Kind::Gauge, "sessiongate_server_connections_idle", "Idle connections to a server.", |server| {
        server.idle as u64
    }),
    (Kind::Counter, "sessiongate_server_connections_total", "Connections that were opened.", |server| {
        server.connected
    }),
    (
        Kind::Counter,
        "sessiongate_server_connect_failures_total",
        "Connections that could not be opened.",
        |server| server.connect_failures,
    ),
    (Kind::Counter, "sessiongate_server_ejections_total", "Ejections of a server.", |server| {
        server.ejections
    }),
    (
        Kind::Counter,
        "sessiongate_server_health_changes_total",
        "Changes of a server's health by its health checks, the first result included.",
        |server| server.health_changes,
    ),
];

/// Returns the current values of all metrics.
///
/// # Errors
/// Returns an error if a metric is registered twice or cannot be written, which is a defect.
pub(super) fn exposition(sources: &AdminSources, gateway: &Gateway, started: Now) -> Result<String, Error> {
    let scrape = Scrape::default();
    scrape.realms(gateway)?;
    scrape.limiters(gateway)?;
    scrape.upstreams(gateway)?;
    scrape.access_log(gateway)?;
    scrape.server(sources)?;
    scrape.connections(&(sources.connections)())?;
    scrape.process(started)?;
    let mut text = String::new();
    let encoder = TextEncoder::new();
    encoder.encode_utf8(&sources.metrics.registry().gather(), &mut text)?;
    encoder.encode_utf8(&scrape.0.gather(), &mut text)?;
    Ok(text)
}

impl Scrape {
    /// Adds a family. Samples with the same labels are added up.
    fn family<'s, const LABELS: usize>(
        &self,
        kind: Kind,
        name: &str,
        help: &str,
        labels: [&str; LABELS],
        samples: impl IntoIterator<Item = ([&'s str; LABELS], f64)>,
    ) -> Result<(), Error> {
        let options = Opts::new(name, help);
        match kind {
            Kind::Counter => {
                let family = CounterVec::new(options, &labels)?;
                self.0.register(Box::new(family.clone()))?;
                for (labels, value) in samples {
                    family.get_metric_with_label_values(&labels)?.inc_by(value);
                }
            }
            Kind::Gauge => {
                let family = GaugeVec::new(options, &labels)?;
                self.0.register(Box::new(family.clone()))?;
                for (labels, value) in samples {
                    family.get_metric_with_label_values(&labels)?.add(value);
                }
            }
        }
        Ok(())
    }

    /// Adds a metric without labels, if there is a value.
    fn single(&self, kind: Kind, name: &str, help: &str, value: Option<f64>) -> Result<(), Error> {
        self.family(kind, name, help, [], value.map(|value| ([], value)))
    }

    fn realms(&self, gateway: &Gateway) -> Result<(), Error> {
        let usages: Vec<_> = gateway.realms.iter().map(|realm| (realm.name(), realm.usage())).collect();
        let bounds = |usage: &crate::session::RealmUsage| {
            [
                ("session_cache", usage.sessions),
                ("session_cache_misses", usage.negatives),
                ("session_lookups", usage.lookups),
                ("session_reissues", usage.reissues),
            ]
        };
        let samples: Vec<_> = usages
            .iter()
            .flat_map(|(realm, usage)| bounds(usage).map(|(bound, usage)| ([*realm, bound], usage)))
            .collect();
        let used = samples.iter().map(|&(labels, (used, _))| (labels, number(used)));
        let help = "Use of each bounded structure of a realm.";
        self.family(Kind::Gauge, "sessiongate_realm_bound_used", help, ["realm", "bound"], used)?;
        let limit = samples.iter().map(|&(labels, (_, limit))| (labels, number(limit)));
        let help = "Limit on each bounded structure of a realm.";
        self.family(Kind::Gauge, "sessiongate_realm_bound_limit", help, ["realm", "bound"], limit)
    }

    fn limiters(&self, gateway: &Gateway) -> Result<(), Error> {
        let usages: Vec<_> = gateway
            .limiters()
            .map(|(route, which, limiter)| ([route.unwrap_or(NONE), which], limiter.usage()))
            .collect();
        let labels = ["route", "limiter"];
        let used = usages.iter().map(|&(labels, (used, _))| (labels, number(used)));
        let help = "Addresses that a rate limiter tracks: a route's, or the gateway's.";
        self.family(Kind::Gauge, "sessiongate_limiter_bound_used", help, labels, used)?;
        let limit = usages.iter().map(|&(labels, (_, limit))| (labels, number(limit)));
        let help = "Maximum number of addresses that a rate limiter tracks.";
        self.family(Kind::Gauge, "sessiongate_limiter_bound_limit", help, labels, limit)
    }

    fn upstreams(&self, gateway: &Gateway) -> Result<(), Error> {
        let reports: Vec<_> = gateway
            .upstreams
            .iter()
            .map(|upstream| (upstream.config().name.as_str(), upstream.report()))
            .collect();
        for (kind, name, help, value) in UPSTREAM {
            let samples = reports.iter().map(|(upstream, report)| ([*upstream], number(value(report))));
            self.family(kind, name, help, ["upstream"], samples)?;
        }
        let servers: Vec<_> = reports
            .iter()
            .flat_map(|(upstream, report)| {
                report.servers.iter().map(|server| ([*upstream, &server.label], server))
            })
            .collect();
        let labels = ["upstream", "server"];
        for (kind, name, help, value) in SERVER {
            let samples = servers.iter().map(|(labels, server)| (*labels, number(value(server))));
            self.family(kind, name, help, labels, samples)?;
        }
        let limits = servers.iter().filter_map(|(labels, server)| {
            server.max_connections.map(|limit| (*labels, number(limit as u64)))
        });
        let help = "Maximum number of requests in flight to a server.";
        self.family(Kind::Gauge, "sessiongate_server_requests_limit", help, labels, limits)
    }

    fn access_log(&self, gateway: &Gateway) -> Result<(), Error> {
        let usage = gateway.access_log.as_ref().map(|log| log.usage());
        let used = usage.map(|(used, _)| number(used as u64));
        let help = "Size of the access log lines that are waiting to be written.";
        self.single(Kind::Gauge, "sessiongate_access_log_queue_bytes", help, used)?;
        let limit = usage.map(|(_, limit)| number(limit as u64));
        let help = "Maximum size of the lines that are waiting to be written.";
        self.single(Kind::Gauge, "sessiongate_access_log_queue_limit_bytes", help, limit)
    }

    fn server(&self, sources: &AdminSources) -> Result<(), Error> {
        let build = [([env!("CARGO_PKG_VERSION")], 1.0)];
        let help = "The version of this build; always 1.";
        self.family(Kind::Gauge, "sessiongate_build_info", help, ["version"], build)?;
        let open = number(sources.tunnels.open() as u64);
        self.single(Kind::Gauge, "sessiongate_tunnels_open", "Open WebSockets.", Some(open))?;
        let closed = sources.tunnels.closed().map(|(cause, count)| ([cause], number(count)));
        let help = "WebSockets that have ended, by cause.";
        self.family(Kind::Counter, "sessiongate_tunnels_closed_total", help, ["cause"], closed)?;
        let ReloadReport { done, failed, last, generation } = (sources.reloads)();
        let outcomes = [(["done"], number(done)), (["failed"], number(failed))];
        let help = "Reloads of the configuration: done, or failed.";
        self.family(Kind::Counter, "sessiongate_reloads_total", help, ["outcome"], outcomes)?;
        let gauges = [
            (
                "sessiongate_configuration_generation",
                "Generation of the current configuration; the first is 1.",
                number(generation),
            ),
            (
                "sessiongate_configuration_loaded_time_seconds",
                "When the current configuration was loaded, in Unix seconds.",
                last.as_secs() as f64,
            ),
            ("sessiongate_workers", "Threads that serve requests.", number(sources.workers as u64)),
            (
                "sessiongate_draining",
                "Whether the gateway is draining.",
                f64::from(u8::from((sources.is_draining)())),
            ),
        ];
        gauges
            .into_iter()
            .try_for_each(|(name, help, value)| self.single(Kind::Gauge, name, help, Some(value)))
    }

    fn connections(&self, connections: &ConnectionReport) -> Result<(), Error> {
        let ConnectionReport { open, limit, outcomes, http2, certificates, not_after } = connections;
        let (open, limit) = (number(*open as u64), number(*limit as u64));
        self.single(Kind::Gauge, "sessiongate_connections", "Open client connections.", Some(open))?;
        let help = "Maximum number of open client connections.";
        self.single(Kind::Gauge, "sessiongate_connections_limit", help, Some(limit))?;
        let outcomes = outcomes.iter().map(|&(outcome, count)| ([outcome], number(count)));
        let help = "Client connections and TLS handshakes, by outcome.";
        self.family(Kind::Counter, "sessiongate_connections_total", help, ["outcome"], outcomes)?;
        let Http2Report { resets, pauses, ended } = *http2;
        let counters = [
            (
                "sessiongate_http2_resets_total",
                "Streams that clients reset before the response was sent.",
                resets,
            ),
            (
                "sessiongate_http2_pauses_total",
                "Times that a connection was paused because its address had reset too many streams.",
                pauses,
            ),
            (
                "sessiongate_http2_ended_total",
                "Connections closed because the client violated the protocol or exceeded a limit.",
                ended,
            ),
        ];
        for (name, help, count) in counters {
            self.single(Kind::Counter, name, help, Some(number(count)))?;
        }
        let reloads = certificates.iter().map(|&(outcome, count)| ([outcome], number(count)));
        let help = "Reloads of listener certificates after a file has changed: done, or failed.";
        self.family(Kind::Counter, "sessiongate_certificate_reloads_total", help, ["outcome"], reloads)?;
        let not_after = not_after.map(|not_after| not_after.as_secs() as f64);
        let help = "When the first of the listeners' certificates expires, in Unix seconds.";
        self.single(Kind::Gauge, "sessiongate_certificate_not_after_seconds", help, not_after)
    }

    fn process(&self, start: Now) -> Result<(), Error> {
        let Process { resident_bytes, cpu_seconds, open_fds, max_fds, threads } = Process::read();
        let started = Some((start.wall.as_millis() / 1000) as f64);
        let help = "When the gateway started, in Unix seconds.";
        self.single(Kind::Gauge, "process_start_time_seconds", help, started)?;
        self.single(Kind::Counter, "process_cpu_seconds_total", "User and system CPU time.", cpu_seconds)?;
        let gauges = [
            ("process_resident_memory_bytes", "Resident memory.", resident_bytes),
            ("process_open_fds", "Open file descriptors.", open_fds),
            ("process_max_fds", "Maximum number of open file descriptors.", max_fds),
            ("process_threads", "Threads of the process.", threads),
        ];
        gauges
            .into_iter()
            .try_for_each(|(name, help, value)| self.single(Kind::Gauge, name, help, value.map(number)))
    }
}

/// Converts a count to a sample value. Prometheus uses floats, which round counts beyond 2^53.
fn number(count: u64) -> f64 {
    count as f64
}
