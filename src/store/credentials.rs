//! Credentials that are loaded on the side.
//!
//! The SDK loads credentials within the request that finds them expired, and drops the load when that request's time is
//! up. A helper process or a single sign-on that takes longer than a request may would then never be waited for, and
//! every request would fail until a restart. So a load runs in a task of its own: the request that began it may give
//! up, and the next one finds it further on, or done.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio_util::task::AbortOnDropHandle;

type Load = Shared<BoxFuture<'static, Result<Credentials, Arc<CredentialsError>>>>;

/// Loads through another provider, one load at a time, each in a task of its own.
pub(super) struct Detached {
    inner: SharedCredentialsProvider,
    /// The load that is under way, or is done and was not collected. A failure is never kept.
    load: Mutex<Option<Load>>,
}

impl Detached {
    pub(super) fn new(inner: SharedCredentialsProvider) -> Self {
        Self { inner, load: Mutex::new(None) }
    }

    /// Joins the load that is under way, or begins one.
    fn join(&self) -> Load {
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

    /// Ends a load that was collected, so that the next request for credentials gets new ones.
    fn collect(&self, load: &Load) {
        let mut slot = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|current| current.ptr_eq(load)) {
            *slot = None;
        }
    }
}

impl ProvideCredentials for Detached {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let load = self.join();
            let loaded = load.clone().await;
            self.collect(&load);
            loaded.map_err(CredentialsError::provider_error)
        })
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Gives one set of credentials per permit.
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
    async fn a_load_outlives_the_request_that_gave_up_on_it() {
        let slow = Arc::new(Slow { gate: Semaphore::new(0), loads: AtomicUsize::new(0) });
        let provider = Detached::new(SharedCredentialsProvider::new(Handle(slow.clone())));

        assert!(provider.provide_credentials().now_or_never().is_none(), "an impatient request");
        while slow.loads.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        slow.gate.add_permits(1);
        provider.provide_credentials().await.expect("the first load, done meanwhile");
        assert_eq!(slow.loads.load(Ordering::SeqCst), 1);

        slow.gate.add_permits(1);
        provider.provide_credentials().await.expect("a second load");
        assert_eq!(slow.loads.load(Ordering::SeqCst), 2, "a collected load is not handed out twice");
    }
}
