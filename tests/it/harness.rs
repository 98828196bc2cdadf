//! Tests of the test harness.

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::engine::{Affected, Counts, Fault};
use crate::support::gate::Gate;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn upstream_records_header_lines_unchanged() {
    let upstream = Upstream::start();
    let request = Request::post("/a?b", "body").header("x-Odd_name", " v ").header("X-Odd_Name", "w");

    let response = request.send(upstream.address()).await;

    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    let received = upstream.only_request();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/a?b"));
    assert_eq!(received.message.body, b"body");
    let names: Vec<_> = received.message.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Host", "Content-Length", "x-Odd_name", "X-Odd_Name"]);
    assert_eq!(received.all("x-odd_name"), ["v", "w"]);
}

#[tokio::test]
async fn scripted_responses_are_framed_paused_and_truncated() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |request| match request.target.as_str() {
        "/chunked" => ScriptedResponse::ok("x".repeat(2500)).chunked(&[("X-End", "1")]),
        "/interim" => {
            ScriptedResponse::ok("late").preceded_by("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        }
        "/paused" => ScriptedResponse::ok("12345").paused_after(2, &held),
        _ => ScriptedResponse::ok("12345").truncated_to(2),
    });
    let mut client = Client::connect(upstream.address()).await;

    let chunked = client.request(&Request::get("/chunked")).await;
    assert_eq!((chunked.message.body.len(), chunked.message.trailers.len()), (2500, 1));
    let interim = client.request(&Request::get("/interim")).await;
    assert_eq!((interim.text().as_str(), interim.interim.len()), ("late", 1));
    client.send_request(&Request::get("/paused")).await;
    gate.wait_for_arrival().await;
    gate.open();
    assert_eq!(client.read_response().await.unwrap().text(), "12345");
    client.send_request(&Request::get("/truncated")).await;
    assert!(client.read_response().await.is_err());
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn stopped_server_refuses_connections_and_resumes_on_its_port() {
    let mut upstream = Upstream::start();
    let mut client = Client::connect(upstream.address()).await;
    client.request(&Request::get("/")).await;

    upstream.server().stop().await;
    assert!(client.is_closed().await);
    assert!(tokio::net::TcpStream::connect(upstream.address()).await.is_err());

    upstream.server().resume();
    assert_eq!(Request::get("/").send(upstream.address()).await.status, 200);
}

#[tokio::test]
async fn engine_counts_operations_and_injects_faults() {
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let read = |consistent: bool| {
        let body = json!({ "TableName": table::TABLE, "Key": session.key(), "ConsistentRead": consistent });
        Request::post("/", body.to_string()).header("X-Amz-Target", "DynamoDB_20120810.GetItem")
    };

    assert_eq!(read(true).send(engine.address()).await.json()["Item"], session.item());
    engine.inject(Affected::Only("GetItem"), Fault::Stale(Value::Null));
    assert_eq!(read(false).send(engine.address()).await.json(), json!({}));
    assert_eq!(read(true).send(engine.address()).await.json()["Item"], session.item());
    engine.clear_faults();
    engine.inject(Affected::All, Fault::Throttle);
    assert_eq!(read(true).send(engine.address()).await.status, 400);

    assert_eq!(engine.counts(), Counts { strong_reads: 3, eventual_reads: 1, ..Counts::default() });
    assert_eq!(session.row(&engine).await, session.item());
    session.delete(&engine).await;
    assert_eq!(session.row(&engine).await, Value::Null);
}
