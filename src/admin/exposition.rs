//! All metrics as Prometheus's text: the counters that are kept in a registry, and everything that is read when somebody
//! asks, which is what other parts count for themselves and how full every bound is.

use std::fmt::{Display, Write as _};

use prometheus::TextEncoder;

use super::process::Process;
use super::{Reloads, Subject};
use crate::proxy::Gateway;
use crate::time::Now;

/// What a family of samples is.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

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

    fn upstreams(&mut self, gateway: &Gateway) {
        let name = "sessiongate_upstream_available";
        self.family(Kind::Gauge, name, "Whether an upstream has a server that takes requests.");
        for upstream in &gateway.upstreams {
            self.sample(name, &[("upstream", &upstream.name)], u8::from(upstream.is_available()));
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
