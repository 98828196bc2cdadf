//! Prometheus counters and histograms that are updated by requests.
//!
//! 1. The counters of the request path are looked up when a configuration is loaded, or on first use. Counting is then
//!    an atomic add, without a lock, a lookup or an allocation. Rarer events, such as refusals and store operations,
//!    look their counters up.
//! 2. Label values are configured names and constants, never client data, so the number of series is bounded.
//! 3. The counters survive a reload. Routes, realms and tables that keep their names keep their values.
//!
//! Gauges, and counters that other modules keep, are read at each scrape: `src/admin/exposition.rs`.

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use prometheus::{
    CounterVec, Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

/// Histogram buckets in seconds, from 25 microseconds to 30 seconds.
const BUCKETS: [f64; 17] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 5.0, 30.0,
];

/// Label values for the class of a response's status; `499` if the client disconnected before the response.
const STATUS_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "499"];
/// Index of `499` in [`STATUS_CLASSES`].
const DISCONNECTED: usize = 5;

/// Label value if no route applies: `-`.
pub const NONE: &str = "-";

/// All metric families.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    gateway_seconds: HistogramVec,
    store_wait_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    refusals: IntCounterVec,
    scrubbed: IntCounter,
    access_log: LineMetrics,
    resolutions: IntCounterVec,
    cache: IntCounterVec,
    reissues: IntCounterVec,
    changes: IntCounterVec,
    operations: IntCounterVec,
    operation_seconds: HistogramVec,
    capacity: CounterVec,
}

/// Metrics of a route.
#[derive(Debug)]
pub struct RouteMetrics {
    name: String,
    family: IntCounterVec,
    /// Counters by verdict and status class, created on first use.
    requests: [[OnceLock<IntCounter>; STATUS_CLASSES.len()]; RequestVerdict::ALL.len()],
    request: Histogram,
    gateway: Histogram,
    store: Histogram,
    upstream: Histogram,
}

/// The gateway's decision about a request: the values of the label `verdict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestVerdict {
    /// Admitted with the session of a logged-in user, or with any session of a realm without `user`.
    Active,
    /// Admitted with the session of a visitor who is not logged in.
    Guest,
    /// Admitted without a session.
    Anonymous,
    /// Admitted although the session could not be looked up.
    Unavailable,
    /// Admitted by a public route, without a lookup.
    Public,
    /// Refused by the gateway.
    Refused,
    /// The client disconnected before the response.
    Gone,
}

/// Durations of the parts of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestTimes {
    /// From the request head to the response head.
    pub total: Duration,
    /// Time spent waiting for the session store.
    pub store: Duration,
    /// Time spent waiting for the upstream's response head; `None` if the request was not forwarded.
    pub upstream: Option<Duration>,
}

/// Metrics of a realm.
#[derive(Clone, Debug)]
pub struct RealmMetrics {
    /// Session resolutions by outcome.
    pub resolutions: OutcomeCounters,
    /// Cache lookups by result.
    pub cache: OutcomeCounters,
    /// Reissues by outcome.
    pub reissues: OutcomeCounters,
    /// Session changes by outcome.
    pub changes: OutcomeCounters,
}

/// Metrics of the access log.
#[derive(Clone, Debug)]
pub struct LineMetrics {
    /// Lines written.
    pub written: IntCounter,
    /// Lines dropped because the output was too slow or failed.
    pub dropped: IntCounter,
}

/// Metrics of a table.
#[derive(Clone, Debug)]
pub struct TableMetrics {
    table: String,
    operations: IntCounterVec,
    seconds: HistogramVec,
    capacity: CounterVec,
}

/// Counters of one realm and one family, by outcome. The counters of the common outcomes are looked up beforehand.
#[derive(Clone, Debug)]
pub struct OutcomeCounters {
    family: IntCounterVec,
    realm: String,
    common: Box<[(&'static str, IntCounter)]>,
}

impl Metrics {
    /// Creates and registers all metrics.
    ///
    /// # Errors
    /// Returns an error if two metrics have the same name. That is a programming error, and every start would show it.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let new = Families(&registry);
        let outcomes = &["table", "operation", "outcome"];
        let lines = new.counters(
            "sessiongate_access_log_lines_total",
            "Access log lines: written, or dropped because the output was too slow or failed.",
            &["outcome"],
        )?;
        Ok(Self {
            requests: new.counters(
                "sessiongate_requests_total",
                "Requests by status class of the response; 499 if the client disconnected before the response.",
                &["route", "status", "verdict"],
            )?,
            request_seconds: new.histograms(
                "sessiongate_request_duration_seconds",
                "Time from the request head to the response head, or until the client disconnected.",
                &["route"],
            )?,
            gateway_seconds: new.histograms(
                "sessiongate_request_gateway_duration_seconds",
                "Time spent in the gateway itself: the duration less the waits for the store and the upstream.",
                &["route"],
            )?,
            store_wait_seconds: new.histograms(
                "sessiongate_request_store_duration_seconds",
                "Time that requests waited for the session store, if they did.",
                &["route"],
            )?,
            upstream_seconds: new.histograms(
                "sessiongate_request_upstream_duration_seconds",
                "Time that forwarded requests waited for the upstream's response head.",
                &["route"],
            )?,
            refusals: new.counters(
                "sessiongate_refusals_total",
                "Requests that the gateway refused, by cause.",
                &["cause"],
            )?,
            scrubbed: new.counter(
                "sessiongate_scrubbed_headers_total",
                "Client headers removed because an upstream could take them for the gateway's.",
            )?,
            access_log: LineMetrics {
                written: lines.with_label_values(&["written"]),
                dropped: lines.with_label_values(&["dropped"]),
            },
            resolutions: new.counters(
                "sessiongate_session_resolutions_total",
                "Session resolutions by outcome: active, unavailable, throttled, or why there is no session.",
                &["realm", "outcome"],
            )?,
            cache: new.counters(
                "sessiongate_session_cache_lookups_total",
                "Session cache lookups: hit, negative (a cached miss), miss (read from the store), stale.",
                &["realm", "result"],
            )?,
            reissues: new.counters(
                "sessiongate_session_reissues_total",
                "Reissues of sessions: won, lost (to another writer), gone (no row), failed.",
                &["realm", "outcome"],
            )?,
            changes: new.counters(
                "sessiongate_session_changes_total",
                "Session changes by upstreams or the gateway: written, ended, nothing (to do), or why they failed.",
                &["realm", "outcome"],
            )?,
            operations: new.counters(
                "sessiongate_store_operations_total",
                "Operations on tables by outcome; retries are part of their operation.",
                outcomes,
            )?,
            operation_seconds: new.histograms(
                "sessiongate_store_operation_duration_seconds",
                "Duration of operations on tables, retries included.",
                &["table", "operation"],
            )?,
            capacity: new.sums(
                "sessiongate_store_consumed_capacity_units_total",
                "Capacity units that DynamoDB reported as consumed. It reports none for a failed condition.",
                &["table", "operation"],
            )?,
            registry,
        })
    }

    /// Returns the registry with all of these metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the metrics of a route; `None` stands for requests that match no route.
    pub fn route(&self, name: Option<&str>) -> RouteMetrics {
        let name = name.unwrap_or(NONE);
        RouteMetrics {
            name: name.to_owned(),
            family: self.requests.clone(),
            requests: Default::default(),
            request: self.request_seconds.with_label_values(&[name]),
            gateway: self.gateway_seconds.with_label_values(&[name]),
            store: self.store_wait_seconds.with_label_values(&[name]),
            upstream: self.upstream_seconds.with_label_values(&[name]),
        }
    }

    /// Returns the metrics of a realm.
    pub fn realm(&self, name: &str) -> RealmMetrics {
        let counters = |family: &IntCounterVec, common: &[&'static str]| {
            let counter = |&outcome| (outcome, family.with_label_values(&[name, outcome]));
            OutcomeCounters {
                family: family.clone(),
                realm: name.to_owned(),
                common: common.iter().map(counter).collect(),
            }
        };
        RealmMetrics {
            resolutions: counters(
                &self.resolutions,
                &["active", "no-cookie", "absent", "idle", "unavailable"],
            ),
            cache: counters(&self.cache, &["hit", "miss", "negative", "stale"]),
            reissues: counters(&self.reissues, &["won", "lost", "gone", "failed"]),
            changes: counters(&self.changes, &["written", "ended", "nothing", "conflict", "store"]),
        }
    }

    /// Returns the metrics of a table.
    pub fn table(&self, name: &str) -> TableMetrics {
        TableMetrics {
            table: name.to_owned(),
            operations: self.operations.clone(),
            seconds: self.operation_seconds.clone(),
            capacity: self.capacity.clone(),
        }
    }

    /// Returns the metrics of the access log.
    pub fn access_log(&self) -> LineMetrics {
        self.access_log.clone()
    }

    /// Counts a refused request.
    pub fn count_refusal(&self, cause: &'static str) {
        self.refusals.with_label_values(&[cause]).inc();
    }

    /// Counts client headers that were removed.
    pub fn count_scrubbed(&self, headers: u64) {
        self.scrubbed.inc_by(headers);
    }
}

/// Returns the index of the class of `status` in [`STATUS_CLASSES`]. A status above 599 counts as a server error
/// (RFC 9110, 15).
fn status_class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, 5) - 1
}

impl RouteMetrics {
    /// Records a request that got a response.
    pub fn record_response(&self, status: StatusCode, verdict: RequestVerdict, times: RequestTimes) {
        self.count(status_class(status), verdict);
        let RequestTimes { total, store, upstream } = times;
        self.request.observe(total.as_secs_f64());
        let elsewhere = store + upstream.unwrap_or_default();
        self.gateway.observe(total.saturating_sub(elsewhere).as_secs_f64());
        if !store.is_zero() {
            self.store.observe(store.as_secs_f64());
        }
        if let Some(upstream) = upstream {
            self.upstream.observe(upstream.as_secs_f64());
        }
    }

    /// Records a request whose client disconnected before the response, `after` its head was read. The other histograms
    /// are not updated, since their durations are not known.
    pub fn record_disconnect(&self, after: Duration) {
        self.count(DISCONNECTED, RequestVerdict::Gone);
        self.request.observe(after.as_secs_f64());
    }

    fn count(&self, class: usize, verdict: RequestVerdict) {
        let counter = self.requests.get(verdict as usize).and_then(|classes| classes.get(class));
        if let (Some(counter), Some(class)) = (counter, STATUS_CLASSES.get(class)) {
            let labels = [self.name.as_str(), class, verdict.label()];
            counter.get_or_init(|| self.family.with_label_values(&labels)).inc();
        }
    }
}

impl TableMetrics {
    /// Records an operation that has ended, with the capacity units that it consumed, if they are known.
    pub fn record_operation(
        &self,
        operation: &'static str,
        outcome: &'static str,
        took: Duration,
        units: Option<f64>,
    ) {
        self.operations.with_label_values(&[self.table.as_str(), operation, outcome]).inc();
        self.seconds.with_label_values(&[self.table.as_str(), operation]).observe(took.as_secs_f64());
        // In debug builds, `inc_by` panics on negative values.
        if let Some(units) = units.filter(|units| units.is_finite() && *units > 0.0) {
            self.capacity.with_label_values(&[self.table.as_str(), operation]).inc_by(units);
        }
    }
}

impl OutcomeCounters {
    /// Counts one event with this outcome.
    pub fn count(&self, outcome: &'static str) {
        match self.common.iter().find(|(common, _)| *common == outcome) {
            Some((_, counter)) => counter.inc(),
            None => self.family.with_label_values(&[self.realm.as_str(), outcome]).inc(),
        }
    }
}

impl RequestVerdict {
    const ALL: [Self; 7] = [
        Self::Active,
        Self::Guest,
        Self::Anonymous,
        Self::Unavailable,
        Self::Public,
        Self::Refused,
        Self::Gone,
    ];

    /// Returns the verdict as a label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Guest => "guest",
            Self::Anonymous => "anonymous",
            Self::Unavailable => "unavailable",
            Self::Public => "public",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }
}

/// Creates metric families and registers them.
struct Families<'r>(&'r Registry);

impl Families<'_> {
    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        let counter = IntCounter::new(name, help)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn sums(&self, name: &str, help: &str, labels: &[&str]) -> Result<CounterVec, Error> {
        let family = CounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, Error> {
        let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        let family = HistogramVec::new(options, labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_above_599_is_a_server_error() {
        for (status, class) in
            [(100, "1xx"), (204, "2xx"), (499, "4xx"), (599, "5xx"), (600, "5xx"), (999, "5xx")]
        {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(STATUS_CLASSES[status_class(status)], class, "{status}");
        }
    }
}
