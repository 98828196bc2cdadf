//! A request's path through the gateway, from its head to the response.
//!
//! `decide` takes every step that could turn the request away, and writes nothing. `execute` does what was decided:
//! it prepares and forwards the request, and applies what the response says of the session. Each step is a file in
//! `request/`, `response/` or `long_lived/`, and returns a type that only it can make and that the next step consumes;
//! [`request`] lists them and proves that none can be left out.

mod dry_run;
mod forward;
mod header_edits;
mod log;
mod long_lived;
mod model;
mod observer;
mod refusal;
pub mod request;
mod response;
mod rewrite;
mod worker;

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use tracing::{Instrument as _, debug_span};

pub(crate) use dry_run::{DryRun, DryRunOutcome, OtherCase, ResolvedCookies, dry_run};
pub use long_lived::{Tunnels, Upgrade, UpgradedIo};
pub use model::{Exchange, Gateway, Route, Visitor};
pub use refusal::Refusal;
pub use request::{CertificateRule, ListenerPolicy, Peer, RequestIds, TlsFacts, map};
pub use response::ResponseBody;
pub use worker::{Snapshot, Worker};

use crate::headers::REQUEST_ID;
use crate::session::PendingReissue;
use crate::time::{Clock, Now};
use crate::upstream::ClientBody;
use header_edits::{EditVariables, PreparedEdits};
use log::{PendingResponse, RequestRecord};
use long_lived::{SessionBinding, Tunnel};
use observer::Observer;
use request::{
    Admitted, Forwardable, Inbound, Injection, LimitsChecked, PolicyChecked, RateChecked, Resolved, Routed,
    SessionPreparation, UpgradeChecked,
};
use response::{AcceptedErrors, CookieAction};

/// A request as it arrived.
#[derive(Clone, Copy, Debug)]
struct Arrival<'r> {
    peer: &'r Peer,
    id: &'r HeaderValue,
    now: Now,
}

/// What happens to a request that no step turned away.
#[derive(Debug)]
enum Decision {
    /// It is forwarded to the route's upstream.
    Forward(Forwardable),
    /// The route answers it without an upstream.
    Respond(Box<Response<ResponseBody>>),
}

/// Handles a request of `peer`. Never fails: errors and panics become responses.
pub async fn handle(worker: &Worker, peer: &Peer, request: Request<ClientBody>) -> Response<ResponseBody> {
    let now = Clock.now();
    let snapshot = worker.snapshot();
    let gateway = &snapshot.gateway;
    let id = worker.ids().for_request(request.headers());
    let accepted = AcceptedErrors::of_request(request.method(), request.headers());
    let version = request.version();
    let trace = worker.traces().context(request.headers(), gateway.traces);
    let mut record = RequestRecord::new(id.clone(), trace, now, gateway.access_log.is_some());
    let mut edits = PreparedEdits::none();
    let may_send_early = request::may_send_early(&request);
    let span = debug_span!("request", id = id.to_str().unwrap_or_default(), trace = record.trace_id());
    let pending = PendingResponse::new(&mut record, gateway, worker.number());
    let arrival = Arrival { peer, id: &id, now };
    // Pinned, here and below: to wrap a future in its span would move it, and they are large.
    let served = AssertUnwindSafe(
        pin!(serve(worker, &snapshot, request, arrival, &mut edits, pending.record)).instrument(span),
    )
    .catch_unwind()
    .await;
    let served = served.unwrap_or_else(|_| {
        let id = id.to_str().unwrap_or_default();
        tracing::error!(id, trace = pending.record.trace_id(), "a request ended in a panic");
        Err(Refusal::Internal)
    });
    pending.complete();
    let (mut response, tunnel) = served.unwrap_or_else(|refusal| {
        record.refused(gateway, refusal.label(), refusal.status());
        let mut response = response::refuse(refusal, &id, &accepted);
        edits.complete(response.headers_mut());
        (response, None)
    });
    record.answered(gateway, response.status());
    response.headers_mut().insert(REQUEST_ID, id);
    peer.listener_policy().add_headers(response.headers_mut());
    if version == Version::HTTP_2 {
        // HTTP/2 has no Connection header; what a refusal leaves unread of a body is reset.
        response.headers_mut().remove(CONNECTION);
    } else if may_send_early && tunnel.is_none() {
        // What may have come after such a request was not meant as the next one.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let entry = gateway.access_log.as_ref().map(|log| Box::new(record.into_entry(log, worker.number())));
    match tunnel {
        Some(tunnel) => worker.open(tunnel, entry),
        None => entry.into_iter().for_each(|entry| response.body_mut().record(entry)),
    }
    response
}

/// Returns the response to what a client of HTTP/1.1 sent instead of a valid request head; the connection is closed after
/// it.
pub(crate) fn reject(worker: &Worker, peer: &Peer, refusal: Refusal) -> Response<ResponseBody> {
    let snapshot = worker.snapshot();
    let gateway = &snapshot.gateway;
    let id = worker.ids().for_request(&HeaderMap::new());
    let mut record = RequestRecord::new(id.clone(), None, Clock.now(), gateway.access_log.is_some());
    record.rejected(peer.address());
    record.refused(gateway, refusal.label(), refusal.status());
    let mut response = response::refuse(refusal, &id, &AcceptedErrors::default());
    record.answered(gateway, response.status());
    response.headers_mut().insert(REQUEST_ID, id);
    peer.listener_policy().add_headers(response.headers_mut());
    if let Some(log) = &gateway.access_log {
        response.body_mut().record(Box::new(record.into_entry(log, worker.number())));
    }
    response
}

/// Decides and executes. Once the route is known, `edits` are those of its responses.
async fn serve<'g>(
    worker: &Worker,
    snapshot: &'g Snapshot,
    request: Request<ClientBody>,
    arrival: Arrival<'_>,
    edits: &mut PreparedEdits<'g>,
    record: &mut RequestRecord,
) -> Result<(Response<ResponseBody>, Option<Tunnel>), Refusal> {
    let decision = pin!(decide(&snapshot.gateway, request, arrival, edits, record)).await?;
    match decision {
        Decision::Forward(forwardable) => {
            pin!(execute(worker, snapshot, forwardable, arrival, edits, record)).await
        }
        Decision::Respond(mut response) => {
            edits.complete(response.headers_mut());
            Ok((*response, None))
        }
    }
}

/// Decides what happens to a request: takes every step that can refuse it before anything is written or sent.
///
/// The store is read, and the request counts against its client's rates. `observer` learns what each step finds.
///
/// # Errors
/// Returns the refusal of the first step that turns the request away.
async fn decide<'g>(
    gateway: &'g Gateway,
    request: Request<ClientBody>,
    Arrival { peer, id, now }: Arrival<'_>,
    edits: &mut PreparedEdits<'g>,
    observer: &mut impl Observer,
) -> Result<Decision, Refusal> {
    let inbound = Inbound::read(request, &gateway.limits, peer)?;
    let sanitized = inbound.sanitize(&gateway.scrub, peer);
    observer.sanitized(&sanitized);
    if sanitized.scrubbed() > 0 {
        gateway.metrics.count_scrubbed(sanitized.scrubbed());
    }
    let checked = RateChecked::check(sanitized, gateway.rate.as_ref(), now)?;
    let checked = PolicyChecked::check(checked, peer)?;
    let routed = Routed::find(checked, &gateway.router)?;
    observer.routed(routed.route());
    *edits = PreparedEdits::new(
        &routed.route().response_headers,
        &EditVariables::from_request(routed.request(), id),
    );
    routed.check_spelling()?;
    let checked = LimitsChecked::check(routed, now)?;
    let resolved = pin!(Resolved::resolve(checked, gateway.misses.as_ref(), now, observer))
        .instrument(debug_span!("resolve"))
        .await;
    let admitted = debug_span!("admit").in_scope(|| Admitted::check(resolved))?;
    observer.admitted(admitted.visitor());
    // Before a response of the route's own: a rejected upgrade must not look accepted.
    let checked = UpgradeChecked::check(admitted)?;
    if let Some(response) = response::local(&checked)? {
        return Ok(Decision::Respond(Box::new(response)));
    }
    Ok(Decision::Forward(Forwardable::check(checked)?))
}

/// Forwards a request and makes the client's response: prepares the session, injects its headers, sends the request,
/// and applies what the upstream's response says of the session before any of it is passed on.
///
/// # Errors
/// Returns the refusal to send instead of a response.
async fn execute(
    worker: &Worker,
    snapshot: &Snapshot,
    mut forwardable: Forwardable,
    Arrival { peer, id, now }: Arrival<'_>,
    edits: &PreparedEdits<'_>,
    record: &mut RequestRecord,
) -> Result<(Response<ResponseBody>, Option<Tunnel>), Refusal> {
    let gateway = &snapshot.gateway;
    let preparation = SessionPreparation::run(&mut forwardable, gateway.max_header_bytes).await;
    record.store += preparation.took;
    let reissuing = if preparation.written { None } else { start_reissue(&forwardable, now) };
    record.reissue = reissuing.is_some();
    let injection = Injection {
        max_header_bytes: gateway.max_header_bytes,
        certificate: peer.certificate(),
        request_id: id,
        trace: record.trace(),
        flash: &preparation.flash,
        hidden: &gateway.hidden_cookies,
        min_rate: gateway.min_rate(),
        scrub: &gateway.scrub,
    };
    let (outbound, handshake, exchange) = request::inject(forwardable, &injection)?;
    let Some(pool) = snapshot.pools.get(outbound.upstream()) else { return Err(Refusal::Internal) };
    record.sent = Some(Clock.mono());
    let answer = pin!(forward::forward(pool, outbound, || exchange.affinity()))
        .instrument(debug_span!("forward"))
        .await;
    record.heard = Some(Clock.mono());
    let mut answer = answer.map_err(|error| {
        record.detail = Some(error.to_string());
        error.refusal()
    })?;
    record.upstream = Some(Arc::clone(&answer.server));
    let mutated = pin!(response::apply_commands(answer.response.headers(), &exchange, record))
        .instrument(debug_span!("commands"))
        .await?;
    let is_reissued = preparation.written || reissuing.is_some_and(|reissuing| !reissuing.is_gone());
    let cookie = match mutated {
        Some(outcome) => CookieAction::Mutated(outcome),
        None if is_reissued => CookieAction::Reissue,
        None => CookieAction::None,
    };
    let upstream_io = answer.upgraded.take();
    let mut response = response::respond(answer, &exchange, &cookie, edits);
    let route = Arc::clone(&exchange.route);
    let binding = SessionBinding::new(exchange, &cookie, now.mono);
    let tunnel = match handshake {
        Some(handshake) => {
            long_lived::conclude_handshake(&handshake, &mut response, upstream_io, binding, &route.streams)?
        }
        None => {
            long_lived::bind(&mut response, binding, &route.streams, &worker.stopped);
            None
        }
    };
    Ok((response, tunnel))
}

/// Starts the reissue of a session that is due, to run while the upstream works.
fn start_reissue(forwardable: &Forwardable, now: Now) -> Option<PendingReissue> {
    let active = forwardable.visitor().active()?;
    let realm = forwardable.route().realm.as_ref()?;
    active.life.due.map(|due| realm.reissue(&active.session, due, now))
}
