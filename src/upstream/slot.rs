//! A worker's connections to one server.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::balance::Candidate;
use super::endpoint::ServerProtocol;
use super::link::{Http1Link, Http2Link, Http2Stream, Link};
use super::stream::{Offer, ServerStream};
use super::target::Target;
use crate::config::UpstreamConfig;
use crate::time::Clock;

/// A worker's connections to one target.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) target: Arc<Target>,
    /// Idle HTTP/1.1 connections, the most recently used last.
    pub(super) idle: RefCell<VecDeque<Http1Link>>,
    /// HTTP/2 connections.
    pub(super) shared: RefCell<Vec<Rc<Http2Link>>>,
    /// Whether the server chose HTTP/1.1 when ALPN offered both versions.
    pub(super) chose_http1: Cell<bool>,
    /// Held while an HTTP/2 connection is being opened, so that waiting requests share it.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// Number of failed attempts to open an HTTP/2 connection.
    pub(super) failed_openings: Cell<u64>,
    /// See [`Candidate::credit`].
    pub(super) credit: Cell<i64>,
    /// Whether no further request uses the slot, so that connections are not kept when they become idle.
    pub(super) is_retired: Cell<bool>,
}

/// A connection in use.
#[derive(Debug)]
pub(super) enum Leased {
    Http1(Http1Link),
    Http2(Http2Stream),
}

impl Slot {
    pub(super) fn new(target: &Arc<Target>) -> Self {
        Self {
            target: Arc::clone(target),
            idle: RefCell::default(),
            shared: RefCell::default(),
            chose_http1: Cell::new(false),
            opening: tokio::sync::Mutex::new(()),
            failed_openings: Cell::new(0),
            credit: Cell::new(0),
            is_retired: Cell::new(false),
        }
    }

    /// Closes idle connections, now and when they become idle.
    pub(super) fn retire(&self) {
        self.is_retired.set(true);
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }

    pub(super) fn candidate(&self, index: usize) -> Candidate<'_> {
        Candidate {
            index,
            weight: self.target.endpoint.weight,
            load: self.target.in_flight.load(Relaxed),
            hash: self.target.hash,
            credit: &self.credit,
        }
    }

    /// Returns a new stream of an open HTTP/2 connection, or an idle HTTP/1.1 connection.
    pub(super) fn take_open(&self, config: &UpstreamConfig, offer: Offer) -> Option<Leased> {
        if offer == Offer::All
            && let Some(stream) = self.http2_stream()
        {
            return Some(Leased::Http2(stream));
        }
        loop {
            let link = self.idle.borrow_mut().pop_back()?;
            if Clock.mono().saturating_duration_since(link.idle_since) > config.idle_timeout {
                // The others have been idle even longer.
                self.idle.borrow_mut().clear();
                return None;
            }
            if link.connection.is_open() {
                return Some(Leased::Http1(link));
            }
        }
    }

    pub(super) fn http2_stream(&self) -> Option<Http2Stream> {
        self.shared.borrow().iter().find_map(Http2Link::stream)
    }

    /// Opens a connection, or returns a stream of an HTTP/2 connection that another request has opened meanwhile.
    pub(super) async fn open(&self, config: &UpstreamConfig, offer: Offer) -> Result<Leased, String> {
        let may_share = offer == Offer::All
            && match &self.target.endpoint.protocol {
                ServerProtocol::Http1 => false,
                ServerProtocol::Http2 => true,
                ServerProtocol::Tls(tls) => tls.allows_http2 && !self.chose_http1.get(),
            };
        if !may_share {
            return self.connect(config, offer).await;
        }
        let failed = self.failed_openings.get();
        let opening = self.opening.lock().await;
        if let Some(stream) = self.http2_stream() {
            return Ok(Leased::Http2(stream));
        }
        if self.chose_http1.get() {
            // HTTP/1.1 connections cannot be shared, so requests need not open them one after the other.
            drop(opening);
            return self.connect(config, offer).await;
        }
        if self.failed_openings.get() != failed {
            return Err("another request failed to open the shared connection".to_owned());
        }
        let opened = self.connect(config, offer).await;
        if opened.is_err() {
            self.failed_openings.set(failed.wrapping_add(1));
        }
        opened
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, config: &UpstreamConfig, offer: Offer) -> Result<Leased, String> {
        let target = &self.target;
        let opened =
            ServerStream::open(&target.endpoint, &target.address, config.connect_timeout, offer).await;
        let linked = match opened {
            Ok((stream, version)) => {
                Link::new(target, stream, version).await.map_err(|error| error.to_string())
            }
            Err(reason) => Err(reason),
        };
        match linked {
            Ok(link) => {
                target.connected.fetch_add(1, Relaxed);
                match link {
                    Link::Http1(link) => {
                        // If only HTTP/1.1 was offered, the server had no choice.
                        self.chose_http1.set(offer == Offer::All || self.chose_http1.get());
                        Ok(Leased::Http1(link))
                    }
                    Link::Http2(link) => {
                        self.chose_http1.set(false);
                        let stream = link.stream().ok_or("the server allows no streams")?;
                        if !self.is_retired.get() {
                            self.shared.borrow_mut().push(link);
                        }
                        Ok(Leased::Http2(stream))
                    }
                }
            }
            Err(reason) => {
                target.connect_failures.fetch_add(1, Relaxed);
                let (upstream, server) = (&*config.name, &*target.label);
                tracing::warn!(upstream, server, %reason, "a connection could not be opened");
                target.failed(&config.name, config.ejection.as_ref(), &reason);
                Err(reason)
            }
        }
    }
}
