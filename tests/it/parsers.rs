//! Parsing of HTTP/1.1 requests: the gateway agrees with hyper's server, and reads the same in any two pieces.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sessiongate::fuzzing::{ClientRequest, client_requests};
use tokio::io::{AsyncWrite as _, duplex};

use crate::support::request_streams::{self, Ending, Reading, Rejections};

#[test]
fn requests_are_the_same_in_any_two_pieces() {
    let mut splits = 0;
    for stream in request_streams::unchanged() {
        let whole = client_requests(&[stream]);
        for at in 0..stream.len() {
            let (first, second) = stream.split_at(at);
            assert_eq!(client_requests(&[first, second]), whole, "{:?}", String::from_utf8_lossy(first));
            splits += 1;
        }
        let bytes: Vec<_> = stream.chunks(1).collect();
        assert_eq!(client_requests(&bytes), whole);
    }
    assert!(splits > 1000);
}

#[test]
fn hyper_reads_the_same_requests() {
    let (mut disagreements, mut rejections) = (Vec::new(), Rejections::new());
    for stream in request_streams::all() {
        disagreements
            .extend(request_streams::compare(&stream, &read_by_hyper(&stream), &mut rejections).err());
    }
    // hyper accepts no quotation mark in a query, which the gateway percent-encodes.
    request_streams::assert_agreement(&disagreements, &rejections, &["invalid URI"]);
}

/// Returns what hyper's server reads in a stream, whose end it does not see.
fn read_by_hyper(stream: &[u8]) -> Reading {
    let requests = Rc::new(RefCell::new(Vec::new()));
    let received = Rc::clone(&requests);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let received = Rc::clone(&received);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            received.borrow_mut().push(client_request(&head, &body));
            Ok::<_, hyper::Error>(http::Response::new(Empty::<Bytes>::new()))
        }
    });
    let (mut client, server) = duplex(64 * 1024);
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(&mut client).poll_write(&mut context, stream).is_ready(), "the stream fits into the pipe");
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.header_read_timeout(None);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(server), service));
    let mut ending = Ending::Waits;
    let mut idle_polls = 0;
    // A poll may only pass on what an earlier one has read, so one poll without a new request is not the end.
    while idle_polls < 4 {
        let before = requests.borrow().len();
        match connection.as_mut().poll(&mut context) {
            Poll::Ready(Ok(())) => ending = Ending::Closed,
            Poll::Ready(Err(error)) => ending = Ending::Rejected(error.to_string()),
            Poll::Pending => {
                idle_polls = if requests.borrow().len() > before { 0 } else { idle_polls + 1 };
                continue;
            }
        }
        break;
    }
    let requests = requests.take();
    Reading { requests, ending }
}

fn client_request(head: &http::request::Parts, body: &[u8]) -> ClientRequest {
    let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    ClientRequest {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        fields: fields.collect(),
        body: body.to_vec(),
    }
}
