//! Loading of credentials in the background.
//!
//! The SDK loads credentials within the request that finds them expired, and cancels the load when that request times out.
//! If a credentials helper or single sign-on takes longer than the timeout, every load would be cancelled, and every
//! request would fail until a restart. So a load runs in a separate task: if the request that started it times out, later
//! requests wait for the same load.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio_util::task::AbortOnDropHandle;

use crate::time::Clock;

/// How long credentials that were loaded for an earlier request must still be valid.
const MIN_VALIDITY: Duration = Duration::from_mins(1);

type Load = Shared<BoxFuture<'static, Result<Credentials, Arc<CredentialsError>>>>;

/// Loads credentials from another provider, one load at a time, each in a separate task.
pub(super) struct BackgroundProvider {
    inner: SharedCredentialsProvider,
    /// The load that is in progress, or has finished and was not used yet. It is replaced if it has failed, or if its
    /// credentials have expired.
    load: Mutex<Option<Load>>,
}

impl BackgroundProvider {
    pub(super) fn new(inner: SharedCredentialsProvider) -> Self {
        Self { inner, load: Mutex::new(None) }
    }

    /// Returns the load in progress, or starts one.
    fn current_load(&self) -> Load {
        let mut slot = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        let is_usable = |load: &&Load| load.peek().is_none_or(|loaded| !has_failed_or_expired(loaded));
        if let Some(load) = slot.as_ref().filter(is_usable) {
            return load.clone();
        }
        let inner = self.inner.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(async move { inner.provide_credentials().await }));
        let load = async move {
            match task.await {
                Ok(loaded) => loaded.map_err(Arc::new),
                Err(stopped) => Err(Arc::new(CredentialsError::unhandled(stopped))),
            }
        };
        let load = load.boxed().shared();
        *slot = Some(load.clone());
        load
    }

    /// Removes a load whose result was used, so that the next call loads new credentials.
    fn remove(&self, load: &Load) {
        let mut slot = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|current| current.ptr_eq(load)) {
            *slot = None;
        }
    }
}

/// Returns whether a load has failed, or its credentials expire within [`MIN_VALIDITY`].
fn has_failed_or_expired(loaded: &Result<Credentials, Arc<CredentialsError>>) -> bool {
    let Ok(credentials) = loaded else { return true };
    let now = Duration::from_millis(u64::try_from(Clock.wall().as_millis()).unwrap_or(0));
    credentials.expiry().is_some_and(|expiry| expiry < SystemTime::UNIX_EPOCH + now + MIN_VALIDITY)
}

impl ProvideCredentials for BackgroundProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let load = self.current_load();
            let loaded = load.clone().await;
            self.remove(&load);
            loaded.map_err(CredentialsError::provider_error)
        })
    }
}

impl fmt::Debug for BackgroundProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackgroundProvider").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Returns one set of credentials per permit.
    #[derive(Debug)]
    struct Slow {
        gate: Semaphore,
        loads: AtomicUsize,
        expiry: Option<SystemTime>,
    }

    impl Slow {
        fn new(expiry: Option<SystemTime>) -> Arc<Self> {
            Arc::new(Self { gate: Semaphore::new(0), loads: AtomicUsize::new(0), expiry })
        }

        /// Waits until this many loads have begun.
        async fn wait_for_loads(&self, count: usize) {
            while self.loads.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        }
    }

    #[derive(Debug, Clone)]
    struct Handle(Arc<Slow>);

    impl ProvideCredentials for Handle {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                self.0.loads.fetch_add(1, Ordering::SeqCst);
                self.0.gate.acquire().await.expect("open").forget();
                Ok(Credentials::new("id", "secret", None, self.0.expiry, "test"))
            })
        }
    }

    #[tokio::test]
    async fn load_continues_after_the_request_that_started_it_is_cancelled() {
        let slow = Slow::new(None);
        let provider = BackgroundProvider::new(SharedCredentialsProvider::new(Handle(slow.clone())));

        assert!(provider.provide_credentials().now_or_never().is_none(), "the first request is cancelled");
        slow.wait_for_loads(1).await;
        slow.gate.add_permits(1);
        provider.provide_credentials().await.expect("the result of the first load");
        assert_eq!(slow.loads.load(Ordering::SeqCst), 1);

        slow.gate.add_permits(1);
        provider.provide_credentials().await.expect("a second load");
        assert_eq!(slow.loads.load(Ordering::SeqCst), 2, "the result of a load is used once");
    }

    #[tokio::test]
    async fn credentials_that_expired_before_they_were_used_are_loaded_again() {
        for (validity, loads) in [(Duration::from_secs(10), 2), (Duration::from_hours(1), 1)] {
            let now = Duration::from_millis(u64::try_from(Clock.wall().as_millis()).unwrap());
            let slow = Slow::new(Some(SystemTime::UNIX_EPOCH + now + validity));
            let provider = BackgroundProvider::new(SharedCredentialsProvider::new(Handle(slow.clone())));
            assert!(provider.provide_credentials().now_or_never().is_none());
            slow.wait_for_loads(1).await;
            slow.gate.add_permits(2);
            let load = provider.load.lock().unwrap().clone().unwrap();
            load.await.expect("the first load, whose request has been cancelled");
            provider.provide_credentials().await.expect("credentials");
            assert_eq!(slow.loads.load(Ordering::SeqCst), loads, "{validity:?}");
        }
    }
}
