//! Whether a write may have been carried out by an attempt that failed.
//!
//! The SDK retries a write whose response is lost. If the retry is then refused by the write's own condition, it may be
//! the first attempt that changed the row, or another writer. Only the attempts tell that the question arises at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::FinalizerInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Watches the attempts of one operation.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(Arc<AtomicBool>);

impl Attempts {
    /// Returns whether an attempt failed in a way that does not say whether DynamoDB carried it out: without a response,
    /// with one that is not DynamoDB's, or with a server error.
    pub(super) fn are_uncertain(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "attempts"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let is_done = context.output_or_error().is_some_and(|result| result.is_ok());
        // A client error is DynamoDB's own refusal: nothing was written.
        let is_refused = context.response().is_some_and(|response| response.status().is_client_error());
        if !is_done && !is_refused {
            self.0.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
