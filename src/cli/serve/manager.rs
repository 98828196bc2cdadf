//! Notifications to the service manager (sd_notify(3)): the gateway is ready, reloads, stops, or is alive. They have no
//! effect if there is no service manager.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;

use crate::server::{Server, State};

/// Reports that the gateway is ready: at the start, and after each reload, whether or not it succeeded.
pub(super) fn ready(server: &Server) {
    let reloads = server.state().reloads();
    let count = server.config().listeners.len();
    let noun = if count == 1 { "listener" } else { "listeners" };
    let status = match reloads.failed {
        0 => format!("Serving on {count} {noun}, configuration {}", reloads.generation),
        failed => format!(
            "Serving on {count} {noun}, configuration {}; failed reloads: {failed}",
            reloads.generation
        ),
    };
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Reports the start of a reload. [`ready`] reports its end.
pub(super) fn reloading() {
    // systemd requires the timestamp, to tell this notification from earlier ones.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
}

/// Reports that the gateway is stopping.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("Finishing requests in flight")]);
}

/// Reports that process `pid` is now the service's main process. systemd accepts this only from the old main process.
pub(super) fn succeeded_by(pid: u32) {
    notify(&[NotifyState::MainPid(pid), NotifyState::Status("Handed over to the next process")]);
}

/// Starts a task that notifies the service manager's watchdog twice per timeout, as long as all workers are alive.
/// Returns `None` if the service manager has no watchdog for the gateway.
pub(super) fn watchdog(server: &Server) -> Option<AbortOnDropHandle<()>> {
    let timeout = sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero())?;
    let notifying = notify_watchdog(timeout / 2, Arc::clone(server.state()));
    Some(AbortOnDropHandle::new(tokio::spawn(notifying)))
}

async fn notify_watchdog(interval: Duration, state: Arc<State>) {
    let mut tick = tokio::time::interval(interval);
    loop {
        tick.tick().await;
        if state.is_alive() {
            notify(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("a worker is stuck: the service manager's watchdog is not notified");
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
