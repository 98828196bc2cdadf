//! A request's path through the gateway, from its head to the response.
//!
//! `decide` takes every step that can refuse the request before anything is written or sent. `execute` carries out the
//! decision: it prepares and forwards the request, and applies the session commands of the response. Most steps
//! are files in `request/`, `response/` or `long_lived/`; forwarding is `forward.rs`. A step of `decide` returns a type
//! that only it can make and that the next step consumes. [`request`] lists these steps, and shows for most of them
//! that code without the step does not compile.

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
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Method, Version};
use tracing::{Instrument as _, debug_span};

pub(crate) use dry_run::{DryRun, DryRunOutcome, OtherCase, ResolvedCookies, dry_run};
pub use long_lived::{Tunnels, Upgrade, UpgradedIo};
pub use model::{Exchange, Gateway, Route, Visitor};
pub use refusal::Refusal;
pub use request::{CertificateRule, ListenerPolicy, Peer, RequestIds, TlsFacts, map};
pub use response::ResponseBody;
pub use worker::{Snapshot, Worker};

use crate::fields::Fields;
use crate::headers::REQUEST_ID;
use crate::message::{Request, Response};
use crate::session::{MutationOutcome, PendingReissue};
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

/// The peer, id and arrival time of a request.
#[derive(Clone, Copy, Debug)]
struct RequestContext<'r> {
    peer: &'r Peer,
    id: &'r HeaderValue,
    now: Now,
}

/// The decision on a request that no step refused.
#[derive(Debug)]
enum Decision {
    /// Forward the request to the route's upstream.
    Forward(Forwardable),
    /// Send this response, since the route has no upstream.
    Respond(Box<Response<ResponseBody>>),
}

/// Handles a request from `peer`. Never fails, since errors and panics become responses.
pub async fn handle(worker: &Worker, peer: &Peer, request: Request<ClientBody>) -> Response<ResponseBody> {
    let now = Clock.now();
    let snapshot = worker.snapshot();
    let gateway = &snapshot.gateway;
    let id = worker.ids().for_request(&request.head.fields);
    let accepted = AcceptedErrors::from_request(&request.head.method, &request.head.fields);
    let version = request.head.version;
    let is_head = request.head.method == Method::HEAD;
    let trace = worker.traces().context(&request.head.fields, gateway.traces);
    let mut record = RequestRecord::new(id.clone(), trace, now, gateway.access_log.is_some());
    let mut edits = PreparedEdits::none();
    let may_send_early = request::may_send_early(&request.head);
    let span = debug_span!("request", id = id.to_str().unwrap_or_default(), trace = record.trace_id());
    let pending = PendingResponse::new(&mut record, gateway, worker.number());
    let context = RequestContext { peer, id: &id, now };
    // The futures are pinned, here and below, because wrapping a future in its span would move it, and they are large.
    let served = AssertUnwindSafe(
        pin!(serve(worker, &snapshot, request, context, &mut edits, pending.record)).instrument(span),
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
        record.record_refusal(gateway, refusal.label(), refusal.status());
        let mut response = response::refuse(refusal, &id, &accepted);
        edits.apply_to_local_response(&mut response.fields);
        (response, None)
    });
    record.record_response(gateway, response.status);
    response.fields.insert(REQUEST_ID, id);
    peer.listener_policy().add_headers(&mut response.fields);
    if is_head && let Some(length) = response.body.omit_content().filter(|length| *length > 0) {
        response.fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if version == Version::HTTP_2 {
        // HTTP/2 has no Connection header. If a refusal leaves a body unread, its stream is reset.
        response.fields.remove(&CONNECTION);
    } else if may_send_early && tunnel.is_none() {
        // Bytes after such a request may belong to a tunnel and not to another request.
        response.fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let entry = gateway.access_log.as_ref().map(|log| Box::new(record.into_entry(log, worker.number())));
    match tunnel {
        Some(tunnel) => worker.open_tunnel(*tunnel, entry),
        None => entry.into_iter().for_each(|entry| response.body.record(entry)),
    }
    response
}

/// Returns the response to an invalid request head of an HTTP/1.1 client. The caller closes the connection after it.
pub(crate) fn reject(worker: &Worker, peer: &Peer, refusal: Refusal) -> Response<ResponseBody> {
    let snapshot = worker.snapshot();
    let gateway = &snapshot.gateway;
    let id = worker.ids().for_request(&Fields::new());
    let mut record = RequestRecord::new(id.clone(), None, Clock.now(), gateway.access_log.is_some());
    record.record_rejection(peer.address());
    record.record_refusal(gateway, refusal.label(), refusal.status());
    let mut response = response::refuse(refusal, &id, &AcceptedErrors::default());
    record.record_response(gateway, response.status);
    response.fields.insert(REQUEST_ID, id);
    peer.listener_policy().add_headers(&mut response.fields);
    if let Some(log) = &gateway.access_log {
        response.body.record(Box::new(record.into_entry(log, worker.number())));
    }
    response
}

/// Decides and executes. Sets `edits` to the response edits of the route once it is known.
async fn serve<'g>(
    worker: &Worker,
    snapshot: &'g Snapshot,
    request: Request<ClientBody>,
    context: RequestContext<'_>,
    edits: &mut PreparedEdits<'g>,
    record: &mut RequestRecord,
) -> Result<(Response<ResponseBody>, Option<Box<Tunnel>>), Refusal> {
    let decision = pin!(decide(&snapshot.gateway, request, context, edits, record)).await?;
    match decision {
        Decision::Forward(forwardable) => {
            pin!(execute(worker, snapshot, forwardable, context, edits, record)).await
        }
        Decision::Respond(mut response) => {
            edits.apply_to_local_response(&mut response.fields);
            Ok((*response, None))
        }
    }
}

/// Takes every step that can refuse a request before anything is written or sent.
///
/// Reads the store, and counts the request against the rate limits of its client. `observer` receives the result of each
/// step.
///
/// # Errors
/// Returns the refusal of the first step that refuses the request.
async fn decide<'g>(
    gateway: &'g Gateway,
    request: Request<ClientBody>,
    RequestContext { peer, id, now }: RequestContext<'_>,
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
    routed.check_canonical_path()?;
    let checked = LimitsChecked::check(routed, now)?;
    let resolved = pin!(Resolved::resolve(checked, gateway.misses.as_ref(), now, observer))
        .instrument(debug_span!("resolve"))
        .await;
    let admitted = debug_span!("admit").in_scope(|| Admitted::check(resolved))?;
    observer.admitted(admitted.visitor());
    // Checked before the local response, because a rejected upgrade must not look accepted.
    let checked = UpgradeChecked::check(admitted)?;
    if let Some(response) = response::local(&checked)? {
        return Ok(Decision::Respond(Box::new(response)));
    }
    Ok(Decision::Forward(Forwardable::check(checked)?))
}

/// Forwards a request and returns the client's response: prepares the session, injects its headers, sends the request,
/// and applies the session commands of the upstream's response before any of it is forwarded.
///
/// # Errors
/// Returns the refusal to send instead of a response.
async fn execute(
    worker: &Worker,
    snapshot: &Snapshot,
    mut forwardable: Forwardable,
    RequestContext { peer, id, now }: RequestContext<'_>,
    edits: &PreparedEdits<'_>,
    record: &mut RequestRecord,
) -> Result<(Response<ResponseBody>, Option<Box<Tunnel>>), Refusal> {
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
    record.sent_at = Some(Clock.mono());
    let upstream_response = pin!(forward::forward(pool, outbound, || exchange.affinity()))
        .instrument(debug_span!("forward"))
        .await;
    record.responded_at = Some(Clock.mono());
    let mut upstream_response = upstream_response.map_err(|error| {
        record.detail = Some(error.to_string());
        error.refusal()
    })?;
    record.upstream = Some(Arc::clone(&upstream_response.server));
    // Checked before the commands, because none is applied if the client gets another response.
    if let Some(handshake) = handshake.as_ref().filter(|_| upstream_response.upgraded.is_none())
        && long_lived::looks_accepted(handshake, upstream_response.response.status)
    {
        return Err(Refusal::BadResponse);
    }
    let mutated = pin!(response::apply_commands(&upstream_response.response.fields, &exchange, record))
        .instrument(debug_span!("commands"))
        .await?;
    let is_reissued = preparation.written || reissuing.is_some_and(|reissuing| !reissuing.is_gone());
    let cookie = match mutated {
        Some(MutationOutcome::Unchanged) | None if is_reissued => CookieAction::Reissue,
        Some(outcome) => CookieAction::Mutated(outcome),
        None => CookieAction::None,
    };
    let upstream_io = upstream_response.upgraded.take();
    let mut response = response::respond(upstream_response, &exchange, &cookie, edits);
    let route = Arc::clone(&exchange.route);
    let binding = SessionBinding::new(exchange, &cookie, now.mono);
    let tunnel = match handshake {
        Some(handshake) => {
            long_lived::conclude_handshake(&handshake, &mut response, upstream_io, binding, &route.streams)
        }
        None => {
            long_lived::bind(&mut response, binding, &route.streams, &worker.stopped);
            None
        }
    };
    Ok((response, tunnel))
}

/// Starts the reissue of a session that is due. It runs while the upstream handles the request.
fn start_reissue(forwardable: &Forwardable, now: Now) -> Option<PendingReissue> {
    let active = forwardable.visitor().active()?;
    let realm = forwardable.route().realm.as_ref()?;
    active.life.due.map(|due| realm.reissue(&active.session, due, now))
}
