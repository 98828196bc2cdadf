//! What would become of a request, without anything happening: the steps of [`super::handle`] up to the forwarding,
//! with no reissue, no upstream and no line in the log.

use std::sync::Arc;

use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use super::record::Record;
use super::{Gateway, Inbound, Injection, Peer, Refusal, Route, Sanitized, admit, inject, limit, redirect};
use crate::headers::Fate;
use crate::session::judge::Life;
use crate::session::reference::Ref;
use crate::session::{Anonymous, Resolution, UserState};
use crate::time::Now;
use crate::upstream::ClientBody;

/// What would become of a request.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    /// The client's headers that it may not send.
    pub(crate) scrubbed: Vec<HeaderName>,
    /// The route, once there is one.
    pub(crate) route: Option<Arc<Route>>,
    /// What the cookies came to, if they were looked at.
    pub(crate) known: Option<Known>,
    /// What it would come to, or the refusal.
    pub(crate) outcome: Result<Ending, Refusal>,
}

/// What a request comes to that is let through.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The upstream would receive this.
    Forwarded {
        /// Path and query.
        target: String,
        /// The headers.
        headers: HeaderMap,
    },
    /// The route answers by itself: with this status, and a location if it redirects.
    Answered(StatusCode, Option<HeaderValue>),
}

/// What the cookies of a request come to.
#[derive(Debug)]
pub(crate) enum Known {
    /// A live session, and whether a user is logged in.
    Active(Ref, Life, UserState),
    /// None, and why.
    Anonymous(Anonymous),
    /// It cannot be told.
    Unavailable,
}

/// Takes `request` of `peer` as far as it goes without consequences.
pub(crate) async fn rehearse(
    gateway: &Gateway,
    peer: &Peer,
    request: Request<ClientBody>,
    now: Now,
) -> Rehearsal {
    let scrubbed = request.headers().keys().filter(|name| gateway.scrub.fate(name) == Fate::Scrub);
    let mut rehearsal = Rehearsal {
        scrubbed: scrubbed.cloned().collect(),
        route: None,
        known: None,
        outcome: Err(Refusal::Internal),
    };
    rehearsal.outcome = match Inbound::read(request, &gateway.limits, peer) {
        Ok(inbound) => play(gateway, inbound.sanitize(&gateway.scrub, peer), now, &mut rehearsal).await,
        Err(refusal) => Err(refusal),
    };
    rehearsal
}

async fn play(
    gateway: &Gateway,
    request: Sanitized,
    now: Now,
    rehearsal: &mut Rehearsal,
) -> Result<Ending, Refusal> {
    let id = HeaderValue::from_static("rehearsal");
    let route = gateway.router.find(request.host(), request.path(), request.method())?;
    rehearsal.route = Some(Arc::clone(route));
    let resolution = super::resolve(
        route,
        &request,
        limit::meter(None, &request),
        now,
        &mut Record::new(id.clone(), None, now),
    )
    .await;
    rehearsal.known = resolution.as_ref().map(Known::from);
    let admitted = admit::admit(request, route, resolution)?;
    if let Some(answer) = redirect::answer(&admitted)? {
        return Ok(Ending::Answered(answer.status(), answer.headers().get(LOCATION).cloned()));
    }
    let injection = Injection {
        max_header_bytes: gateway.max_header_bytes,
        certificate: None,
        request_id: &id,
        trace: None,
        flash: &[],
        hidden: &gateway.hidden_cookies,
        pace: gateway.pace(),
        scrub: &gateway.scrub,
    };
    let (outbound, _) = inject(admitted, &injection)?;
    let target = outbound.request.uri().to_string();
    let mut headers = outbound.request.headers().clone();
    outbound.said.write(&mut headers);
    Ok(Ending::Forwarded { target, headers })
}

impl From<&Resolution> for Known {
    fn from(resolution: &Resolution) -> Self {
        match resolution {
            Resolution::Active(active) => {
                Self::Active(active.session.reference(), active.life, active.session.user())
            }
            Resolution::Anonymous(why) => Self::Anonymous(why.clone()),
            Resolution::Unavailable | Resolution::Throttled(_) => Self::Unavailable,
        }
    }
}
