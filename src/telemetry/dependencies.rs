//! Limits on what dependencies log, whatever `RUST_LOG` says.
//!
//! 1. The AWS SDK logs warnings and errors only. At lower levels it logs requests, responses and credentials, and with
//!    them access key ids, session ids and claims.
//! 2. Each warning or error of a dependency is logged at most once a second, because the SDK logs some for every failed
//!    request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::throttle::Throttle;
use crate::time::Clock;

/// The prefix of the targets of the AWS SDK's crates.
const SDK: &str = "aws_";
/// The prefix of the gateway's own targets.
const OWN: &str = "sessiongate";

/// A tracing layer that applies the limits.
#[derive(Debug, Default)]
pub struct DependencyLimits {
    /// Throttles by call site. The number of call sites is fixed.
    repeated: Mutex<HashMap<Identifier, Throttle>>,
}

impl<S: Subscriber> Layer<S> for DependencyLimits {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_warning(metadata) || !metadata.target().starts_with(SDK)
    }

    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if metadata.target().starts_with(OWN) || !is_warning(metadata) {
            return true;
        }
        let mut repeated = self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        repeated.entry(metadata.callsite()).or_default().pass(Clock.mono()).is_some()
    }
}

fn is_warning(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::WARN
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Returns what `run` logs when the filter is `trace`.
    fn logged(run: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let filter = tracing_subscriber::EnvFilter::new("trace");
        let subscriber =
            tracing_subscriber::registry().with(format).with(filter).with(DependencyLimits::default());
        tracing::subscriber::with_default(subscriber, run);
        let lines = lines.0.lock().unwrap().clone();
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn sdk_logs_nothing_below_warnings() {
        let log = logged(|| {
            tracing::trace!(target: "aws_smithy_runtime::client::orchestrator", "key-1");
            tracing::debug!(target: "aws_sigv4", "key-2");
            tracing::info!(target: "aws_config::profile::credentials", "key-3");
            let span = tracing::debug_span!(target: "aws_sdk_dynamodb", "request", id = "key-4");
            span.in_scope(|| tracing::warn!(target: "aws_config::ecs", "heard"));
            tracing::trace!(target: "hyper", "heard, too");
            tracing::trace!("and this");
        });
        assert!(!log.contains("key-"), "{log}");
        assert_eq!(log.lines().count(), 3, "{log}");
    }

    #[test]
    fn warning_of_a_dependency_is_logged_once_a_second() {
        let log = logged(|| {
            for _ in 0..100 {
                tracing::error!(target: "aws_smithy_runtime", "again");
                tracing::warn!(target: "hyper", "and again");
                tracing::debug!(target: "hyper", "asked for");
                tracing::warn!("of our own");
            }
        });
        let count = |text: &str| log.matches(text).count();
        assert_eq!((count("asked for"), count("of our own")), (100, 100), "{log}");
        let repeated = count("ERROR") + count("and again");
        assert!((2..=4).contains(&repeated), "{repeated}");
    }
}
