//! Detection of attempts that failed although DynamoDB may have executed the write.
//!
//! The SDK retries a write whose response is lost. If the condition of the retry fails, the row was changed either by the
//! first attempt or by another writer. The SDK reports only the last attempt, so an interceptor watches all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::FinalizerInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Watches the attempts of one operation.
#[derive(Clone, Debug, Default)]
pub(super) struct AttemptTracker(Arc<AtomicBool>);

impl AttemptTracker {
    /// Returns whether the outcome of an attempt is unknown: DynamoDB did not respond, the response did not come from
    /// DynamoDB, or it was a server error.
    pub(super) fn has_unknown_outcome(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Intercept for AttemptTracker {
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
        // With a 4xx status, DynamoDB has written nothing.
        let is_refused = context.response().is_some_and(|response| response.status().is_client_error());
        if !is_done && !is_refused {
            self.0.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
