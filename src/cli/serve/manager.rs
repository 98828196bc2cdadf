//! What a service manager is told (sd_notify(3)): that the gateway serves, reloads, ends, and is alive. Without one,
//! nothing happens.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;

use crate::server::{Server, State};

/// The gateway serves, as it does after every reload, whatever became of it.
pub(super) fn ready(server: &Server) {
    let reloads = server.state().reloads();
    let count = server.addresses().len();
    let noun = if count == 1 { "listener" } else { "listeners" };
    let status = match reloads.failed {
        0 => format!("Serving on {count} {noun}, configuration {}", reloads.generation),
        failed => format!(
            "Serving on {count} {noun}, configuration {}; {failed} reloads failed",
            reloads.generation
        ),
    };
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// A reload begins; [`ready`] ends it.
pub(super) fn reloading() {
    // The manager tells by the time which of two messages was sent first, and takes no reload without it.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// The gateway ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("Finishing the requests under way")]);
}

/// Process `pid` is the gateway from now on. Only the one that was can say so.
pub(super) fn succeeded_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Status("Handed over to the next process")]);
}

/// Tells the manager that the gateway is alive, twice in the time after which it would be killed for saying nothing, as
/// long as its workers are. None if the manager does not ask for that.
pub(super) fn watchdog(server: &Server) -> Option<AbortOnDropHandle<()>> {
    let limit = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())?;
    let alive = report(limit / 2, Arc::clone(server.state()));
    Some(AbortOnDropHandle::new(tokio::spawn(alive)))
}

async fn report(period: Duration, state: Arc<State>) {
    let mut tick = tokio::time::interval(period);
    loop {
        tick.tick().await;
        if state.is_alive() {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("a worker is stuck: the service manager is not told that the gateway is alive");
        }
    }
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
