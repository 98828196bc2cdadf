use http_body_util::BodyExt as _;
use http_body_util::Empty;
use hyper::client::conn::http1 as client;

use super::*;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

async fn get(running: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
    let stream = TcpStream::connect(running.address()).await.unwrap();
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::get(path).header("host", "app.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    drop(sender);
    connection.await.unwrap().unwrap();
    Answer { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

fn app() -> App {
    App::new(HeaderOrigins {
        session: vec![http::HeaderName::from_static("x-user")],
        gateway: vec![crate::headers::TRACEPARENT],
    })
}

fn entrance() -> DemoLogin {
    DemoLogin {
        token: "t0ken".to_owned(),
        admit: Box::new(|| Box::pin(async { Some(HeaderValue::from_static("s=1; Path=/")) })),
    }
}

#[tokio::test]
async fn curl_reads_text_and_a_browser_gets_the_page() {
    let running = app().spawn().await.unwrap();
    let text = get(&running, "/", &[("x-user", "alice"), ("accept", "*/*")]).await;
    assert!(text.body.starts_with("Hello, alice\n"), "{}", text.body);
    assert!(text.body.contains(" * X-User: alice\n"), "{}", text.body);
    assert!(text.body.contains("   Host:   app.example\n"), "{}", text.body);

    let page = get(&running, "/", &[("accept", "text/html,*/*;q=0.8")]).await;
    assert!(page.body.contains("anonymous"));
    assert!(
        page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'")
    );
}

#[tokio::test]
async fn whoami_below_any_page_is_json() {
    let running = app().spawn().await.unwrap();
    for path in ["/whoami", "/public/whoami"] {
        let answer =
            get(&running, path, &[("x-user", "alice"), ("via", "1.1 gate"), ("traceparent", "00-0-0-00")])
                .await;
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(json["user"], "alice");
        assert_eq!(
            json["headers"][0],
            serde_json::json!({ "name": "X-User", "value": "alice", "from": "session" })
        );
        let origins: Vec<_> =
            json["headers"].as_array().unwrap().iter().map(|header| &header["from"]).collect();
        assert_eq!(origins, ["session", "gateway", "gateway", "client"]);
    }
}

#[tokio::test]
async fn an_unknown_page_is_404() {
    let running = app().spawn().await.unwrap();
    assert_eq!(get(&running, "/favicon.ico", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_entrance_hands_out_a_session_to_who_has_the_link() {
    let running = app().with_entrance(entrance()).spawn().await.unwrap();
    let answer = get(&running, "/become/t0ken?next=%2Fmembers%3Fa%3D%2520", &[]).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(answer.headers[header::LOCATION], "/members?a=%20");
    assert_eq!(answer.headers[header::SET_COOKIE], "s=1; Path=/");

    let login = get(&running, "/login?next=%2Fmembers", &[("accept", "text/html")]).await;
    assert!(login.body.contains(r#"href="/become/t0ken?next=%2Fmembers""#));

    let guess = get(&running, "/become/token", &[]).await;
    assert_eq!(guess.status, StatusCode::NOT_FOUND);
    assert!(guess.headers.get(header::SET_COOKIE).is_none());
}

#[tokio::test]
async fn without_an_entrance_there_is_no_link() {
    let running = app().spawn().await.unwrap();
    assert_eq!(get(&running, "/become/", &[]).await.status, StatusCode::NOT_FOUND);
    let page = get(&running, "/", &[("accept", "text/html")]).await;
    assert!(!page.body.contains("/become/"));
}

#[tokio::test]
async fn each_request_is_told_before_it_is_answered() {
    let (sender, told) = std::sync::mpsc::channel();
    let running = app().with_narration(move |heard| sender.send(heard).unwrap()).spawn().await.unwrap();
    get(&running, "/members", &[("x-user", "alice"), ("x-request-id", "r1"), ("x-other", "y")]).await;
    let heard = told.try_recv().unwrap();
    assert_eq!(heard.request_id, "r1");
    assert_eq!(heard.injected, [("X-User".to_owned(), "alice".to_owned())]);
}

#[tokio::test]
async fn dropping_it_stops_it() {
    let running = app().spawn().await.unwrap();
    let address = running.address();
    drop(running);
    let mut tries = 0..100_000;
    while TcpStream::connect(address).await.is_ok() {
        assert!(tries.next().is_some(), "it goes on listening");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_destination_is_a_path_on_this_host() {
    for (query, expected) in [
        (None, "/"),
        (Some("next=%2Fmembers"), "/members"),
        (Some("a=b&next=/admin?x=1"), "/admin?x=1"),
        (Some("next=/"), "/"),
        (Some("next="), "/"),
        (Some("next=members"), "/"),
        (Some("next=https://evil.example"), "/"),
        (Some("next=//evil.example"), "/"),
        (Some("next=/%5Cevil.example"), "/"),
        (Some("next=/%09/evil.example"), "/"),
        (Some("next=/%0d%0aset-cookie:x"), "/"),
        (Some("next=/%C3%A9"), "/"),
    ] {
        assert_eq!(destination(query), expected, "{query:?}");
    }
}
