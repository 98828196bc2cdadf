//! Loading of credentials in the background.
//!
//! The SDK loads credentials within the request that finds them expired, and cancels the load when that request times out.
//! If a credentials helper or single sign-on takes longer than the timeout, every load would be cancelled, and every
//! request would fail until a restart. So a load runs in a separate task: if the request that started it times out, later
//! requests wait for the same load.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio_util::task::AbortOnDropHandle;

type Load = Shared<BoxFuture<'static, Result<Credentials, Arc<CredentialsError>>>>;

/// Loads credentials from another provider, one load at a time, each in a separate task.
pub(super) struct BackgroundProvider {
    inner: SharedCredentialsProvider,
    /// The load that is in progress, or has finished and was not used yet. A failed load is replaced.
    load: Mutex<Option<Load>>,
}

impl BackgroundProvider {
    pub(super) fn new(inner: SharedCredentialsProvider) -> Self {
        Self { inner, load: Mutex::new(None) }
    }

    /// Returns the load in progress, or starts one.
    fn current_load(&self) -> Load {
        let mut slot = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = slot.as_ref().filter(|load| !matches!(load.peek(), Some(Err(_)))) {
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
                Ok(Credentials::new("id", "secret", None, None, "test"))
            })
        }
    }

    #[tokio::test]
    async fn load_continues_after_the_request_that_started_it_is_cancelled() {
        let slow = Arc::new(Slow { gate: Semaphore::new(0), loads: AtomicUsize::new(0) });
        let provider = BackgroundProvider::new(SharedCredentialsProvider::new(Handle(slow.clone())));

        assert!(provider.provide_credentials().now_or_never().is_none(), "the first request is cancelled");
        while slow.loads.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        slow.gate.add_permits(1);
        provider.provide_credentials().await.expect("the result of the first load");
        assert_eq!(slow.loads.load(Ordering::SeqCst), 1);

        slow.gate.add_permits(1);
        provider.provide_credentials().await.expect("a second load");
        assert_eq!(slow.loads.load(Ordering::SeqCst), 2, "the result of a load is used once");
    }
}
