//! Scrapes `/metrics`. A violation of Prometheus' text format or naming conventions fails the test.

use std::collections::{BTreeMap, BTreeSet};

use super::client::Request;
use super::gateway::Gateway;

/// All samples of one scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    samples: Vec<Sample>,
    kinds: BTreeMap<String, String>,
    text: String,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Scrapes the gateway's admin listener.
    pub(crate) async fn scrape(gateway: &Gateway) -> Self {
        let address = gateway.addresses("admin")[0];
        let request = Request::get("/metrics").header("Host", &address.to_string());
        let response = request.send(address).await;
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Self::parse(&response.text())
    }

    /// Returns the sum of all samples with this name and these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
        };
        self.samples.iter().filter(has).map(|sample| sample.value).sum()
    }

    /// Returns the values of a label of this metric.
    pub(crate) fn label_values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples.filter_map(|sample| sample.labels.get(label).cloned()).collect()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the values of counters and histograms, by name and labels.
    pub(crate) fn counters(&self) -> BTreeMap<String, f64> {
        let counted = self.samples.iter().filter(|sample| {
            let family =
                sample.name.trim_end_matches("_bucket").trim_end_matches("_count").trim_end_matches("_sum");
            ["counter", "histogram"].iter().any(|kind| {
                [family, &sample.name].iter().any(|name| self.kinds.get(*name).is_some_and(|k| k == kind))
            })
        });
        counted.map(|sample| (format!("{}{:?}", sample.name, sample.labels), sample.value)).collect()
    }

    /// Parses the text and checks it against Prometheus' format and conventions.
    fn parse(text: &str) -> Self {
        let mut kinds = BTreeMap::new();
        let mut helps = BTreeSet::new();
        let mut samples: Vec<Sample> = Vec::new();
        let mut family = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(helps.insert(name.to_owned()), "two help texts: {name}");
                assert!(help.ends_with('.') && help.len() > 10, "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(helps.contains(name), "no help text: {name}");
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "two types: {name}");
                check_name(name, kind);
                name.clone_into(&mut family);
            } else {
                let sample = sample(line);
                let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.name.strip_suffix(end));
                let is_own =
                    sample.name == family || (bare == Some(&family) && kinds[&family] == "histogram");
                assert!(is_own, "outside its family `{family}`: {line}");
                let twice = samples.iter().any(|s| s.name == sample.name && s.labels == sample.labels);
                assert!(!twice, "twice: {line}");
                samples.push(sample);
            }
        }
        let metrics = Self { samples, kinds, text: text.to_owned() };
        metrics.check_histograms();
        metrics
    }

    /// Checks that buckets are cumulative and that the last equals the count.
    fn check_histograms(&self) {
        for family in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut series: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
            for sample in self.samples.iter().filter(|sample| sample.name == format!("{family}_bucket")) {
                let mut labels = sample.labels.clone();
                let bound = labels.remove("le").expect("a bound");
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
                series.entry(labels).or_default().push((bound, sample.value));
            }
            for (labels, buckets) in series {
                assert!(
                    buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
                    "{family}{labels:?} {buckets:?}"
                );
                let value = |end| {
                    let name = format!("{family}_{end}");
                    let mut own = self.samples.iter().filter(|s| s.name == name && s.labels == labels);
                    own.next().expect("a sum and a count").value
                };
                let (bound, last) = buckets[buckets.len() - 1];
                assert!(bound.is_infinite() && (last - value("count")).abs() < 0.5, "{family}{labels:?}");
                assert!(value("sum") >= 0.0);
            }
        }
    }
}

/// Checks that a name begins with `sessiongate_` or `process_`, is in base units, and ends with `_total` if it is a
/// counter's.
fn check_name(name: &str, kind: &str) {
    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
    assert!(name.starts_with("sessiongate_") || name.starts_with("process_"), "{name}");
    assert_eq!(kind == "counter", name.ends_with("_total"), "{name} {kind}");
    for unit in
        ["_ms", "_millis", "_milliseconds", "_minutes", "_kb", "_kilobytes", "_percent", "_count", "_sum"]
    {
        assert!(!name.contains(&format!("{unit}_")) && !name.ends_with(unit), "{name}");
    }
    if kind == "histogram" {
        assert!(name.ends_with("_seconds") || name.ends_with("_bytes"), "{name}");
    }
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
    let (name, rest) = series.split_once('{').unwrap_or((series, "}"));
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}').unwrap_or_else(|| panic!("no closing brace: {line}"));
    while let Some((label, after)) = rest.split_once("=\"") {
        // The gateway's label values need no escaping.
        let (value, after) = after.split_once('"').unwrap_or_else(|| panic!("no closing quote: {line}"));
        assert!(!value.is_empty() && value.len() < 100, "{line}");
        assert!(labels.insert(label.to_owned(), value.to_owned()).is_none(), "{line}");
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    assert!(rest.is_empty(), "{line}");
    let value = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
    Sample { name: name.to_owned(), labels, value }
}
