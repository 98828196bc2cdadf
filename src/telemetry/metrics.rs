//! What is counted and timed, under one name each.
//!
//! 1. Whatever a request needs is looked up when the configuration is assembled: counting is an atomic add, without a
//!    lock, a lookup or an allocation. What is rare, such as a refusal, may look its counter up.
//! 2. Labels hold configured names and fixed words, never what a client sent: their number is bounded.
//! 3. The counters outlive the configuration. What a new one has in common with the last goes on from where it was.
//!
//! What other parts count for themselves, and every gauge, is read when somebody asks: `src/admin/exposition.rs`.

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use prometheus::{
    CounterVec, Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

/// For what takes from microseconds to a minute.
const SECONDS: [f64; 17] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 5.0, 30.0,
];

/// The status of answers by its class, and of requests that have none.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "499"];
/// Where among them those are.
const UNANSWERED: usize = 5;

/// The label of what is not there.
pub const NONE: &str = "-";

/// All families of metrics.
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

/// What a route counts.
#[derive(Debug)]
pub struct RouteMetrics {
    name: String,
    family: IntCounterVec,
    /// By verdict and class of status; made when the first one comes.
    requests: [[OnceLock<IntCounter>; CLASSES.len()]; RequestVerdict::ALL.len()],
    request: Histogram,
    gateway: Histogram,
    store: Histogram,
    upstream: Histogram,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestVerdict {
    /// It went on with a session.
    Active,
    /// It went on with the session of a visitor who is not logged in.
    Guest,
    /// It went on without one.
    Anonymous,
    /// It went on though it could not be told.
    Unavailable,
    /// It went on, and nobody asked.
    Public,
    /// The gateway answered it itself.
    Refused,
    /// Its client hung up before there was an answer.
    Gone,
}

/// How long the parts of a request took.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestTimes {
    /// From the request's head to the response's.
    pub total: Duration,
    /// Of it, waiting for the store.
    pub store: Duration,
    /// Of it, waiting for the upstream; none: it was not asked.
    pub upstream: Option<Duration>,
}

/// What a realm counts.
#[derive(Clone, Debug)]
pub struct RealmMetrics {
    /// What cookies came to.
    pub resolutions: Kinds,
    /// Where the answers came from.
    pub cache: Kinds,
    /// How reissues ended.
    pub reissues: Kinds,
    /// How changes ended.
    pub changes: Kinds,
}

/// What the access log counts.
#[derive(Clone, Debug)]
pub struct LineMetrics {
    /// Lines that were written.
    pub written: IntCounter,
    /// Lines that were not, since the output did not keep up or failed.
    pub dropped: IntCounter,
}

/// What a table counts.
#[derive(Clone, Debug)]
pub struct TableMetrics {
    table: String,
    operations: IntCounterVec,
    seconds: HistogramVec,
    capacity: CounterVec,
}

/// Counters of one family that differ in their last label, whose usual values are known.
#[derive(Clone, Debug)]
pub struct Kinds {
    family: IntCounterVec,
    owner: String,
    known: Box<[(&'static str, IntCounter)]>,
}

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// If two have one name, which is a defect that every start would show.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let new = Families(&registry);
        let outcomes = &["table", "operation", "outcome"];
        let lines = new.counters(
            "sessiongate_access_log_lines_total",
            "Lines of the access log: written, or dropped since its output did not keep up or failed.",
            &["outcome"],
        )?;
        Ok(Self {
            requests: new.counters(
                "sessiongate_requests_total",
                "Requests by the class of their answer's status; 499: the client hung up before there was one.",
                &["route", "status", "verdict"],
            )?,
            request_seconds: new.histograms(
                "sessiongate_request_duration_seconds",
                "From a request's head to the head of its response, or until the client hung up.",
                &["route"],
            )?,
            gateway_seconds: new.histograms(
                "sessiongate_request_gateway_duration_seconds",
                "Of the duration of requests, what the gateway itself took.",
                &["route"],
            )?,
            store_wait_seconds: new.histograms(
                "sessiongate_request_store_duration_seconds",
                "Of the duration of requests that waited for the session store, how long they did.",
                &["route"],
            )?,
            upstream_seconds: new.histograms(
                "sessiongate_request_upstream_duration_seconds",
                "Of the duration of requests that were forwarded, how long the response's head took.",
                &["route"],
            )?,
            refusals: new.counters(
                "sessiongate_refusals_total",
                "Requests that the gateway answered itself, by cause.",
                &["cause"],
            )?,
            scrubbed: new.counter(
                "sessiongate_scrubbed_headers_total",
                "Client headers that were removed since an upstream could take them for the gateway's.",
            )?,
            access_log: LineMetrics {
                written: lines.with_label_values(&["written"]),
                dropped: lines.with_label_values(&["dropped"]),
            },
            resolutions: new.counters(
                "sessiongate_session_resolutions_total",
                "What the cookies of requests came to: an active session, none and why, or unavailable.",
                &["realm", "outcome"],
            )?,
            cache: new.counters(
                "sessiongate_session_cache_lookups_total",
                "Where sessions came from: hit, negative (a remembered miss), miss (the store), stale.",
                &["realm", "result"],
            )?,
            reissues: new.counters(
                "sessiongate_session_reissues_total",
                "Reissues of sessions: won, lost to somebody else, gone, failed.",
                &["realm", "outcome"],
            )?,
            changes: new.counters(
                "sessiongate_session_changes_total",
                "Changes of sessions that were ordered: written, ended, nothing to do, or why not.",
                &["realm", "outcome"],
            )?,
            operations: new.counters(
                "sessiongate_store_operations_total",
                "Operations on tables, retries included in one, by how they ended.",
                outcomes,
            )?,
            operation_seconds: new.histograms(
                "sessiongate_store_operation_duration_seconds",
                "How long operations on tables took, retries included.",
                &["table", "operation"],
            )?,
            capacity: new.sums(
                "sessiongate_store_consumed_capacity_units_total",
                "Capacity units that DynamoDB said it consumed. It does not say so of a refused write.",
                &["table", "operation"],
            )?,
            registry,
        })
    }

    /// The registry, to read them all.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Those of a route; of requests that none takes, if it has no name.
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

    /// Those of a realm.
    pub fn realm(&self, name: &str) -> RealmMetrics {
        let kinds = |family: &IntCounterVec, known: &[&'static str]| {
            let counter = |&kind| (kind, family.with_label_values(&[name, kind]));
            Kinds {
                family: family.clone(),
                owner: name.to_owned(),
                known: known.iter().map(counter).collect(),
            }
        };
        RealmMetrics {
            resolutions: kinds(&self.resolutions, &["active", "no-cookie", "absent", "idle", "unavailable"]),
            cache: kinds(&self.cache, &["hit", "miss", "negative", "stale"]),
            reissues: kinds(&self.reissues, &["won", "lost", "gone", "failed"]),
            changes: kinds(&self.changes, &["written", "ended", "nothing", "conflict", "store"]),
        }
    }

    /// Those of a table.
    pub fn table(&self, name: &str) -> TableMetrics {
        TableMetrics {
            table: name.to_owned(),
            operations: self.operations.clone(),
            seconds: self.operation_seconds.clone(),
            capacity: self.capacity.clone(),
        }
    }

    /// Those of the access log.
    pub fn access_log(&self) -> LineMetrics {
        self.access_log.clone()
    }

    /// A request was refused for this cause.
    pub fn refused(&self, cause: &'static str) {
        self.refusals.with_label_values(&[cause]).inc();
    }

    /// So many headers were removed.
    pub fn scrubbed(&self, headers: u64) {
        self.scrubbed.inc_by(headers);
    }
}

impl RouteMetrics {
    /// A request was answered.
    pub fn answered(&self, status: StatusCode, verdict: RequestVerdict, times: RequestTimes) {
        self.count(usize::from(status.as_u16() / 100).saturating_sub(1), verdict);
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

    /// A request's client hung up before there was an answer, after so long. What it would have taken in the end, and
    /// whom, nobody knows.
    pub fn gone(&self, after: Duration) {
        self.count(UNANSWERED, RequestVerdict::Gone);
        self.request.observe(after.as_secs_f64());
    }

    fn count(&self, class: usize, verdict: RequestVerdict) {
        let counter = self.requests.get(verdict as usize).and_then(|classes| classes.get(class));
        if let (Some(counter), Some(class)) = (counter, CLASSES.get(class)) {
            let labels = [self.name.as_str(), class, verdict.label()];
            counter.get_or_init(|| self.family.with_label_values(&labels)).inc();
        }
    }
}

impl TableMetrics {
    /// An operation has ended.
    pub fn done(&self, operation: &'static str, outcome: &'static str, took: Duration, units: Option<f64>) {
        self.operations.with_label_values(&[self.table.as_str(), operation, outcome]).inc();
        self.seconds.with_label_values(&[self.table.as_str(), operation]).observe(took.as_secs_f64());
        // A counter that is asked to go backwards panics.
        if let Some(units) = units.filter(|units| units.is_finite() && *units > 0.0) {
            self.capacity.with_label_values(&[self.table.as_str(), operation]).inc_by(units);
        }
    }
}

impl Kinds {
    /// One of this kind.
    pub fn count(&self, kind: &'static str) {
        match self.known.iter().find(|(known, _)| *known == kind) {
            Some((_, counter)) => counter.inc(),
            None => self.family.with_label_values(&[self.owner.as_str(), kind]).inc(),
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

    /// The verdict in one word.
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

/// Makes families, each registered.
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
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let family = HistogramVec::new(options, labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}
