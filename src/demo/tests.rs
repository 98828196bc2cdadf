use http_body_util::BodyExt as _;
use http_body_util::Empty;
use hyper::client::conn::http1 as client;

use super::*;

struct TextResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

async fn get(app: &RunningApp, path: &str, headers: &[(&str, &str)]) -> TextResponse {
    let stream = TcpStream::connect(app.address()).await.unwrap();
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
    let body = String::from_utf8(body.to_vec()).unwrap();
    TextResponse { status: head.status, headers: head.headers, body }
}

fn app() -> App {
    App::new(HeaderOrigins {
        session: vec![http::HeaderName::from_static("x-user")],
        gateway: vec![crate::headers::TRACEPARENT],
    })
}

fn login_link() -> LoginLink {
    LoginLink {
        token: "t0ken".to_owned(),
        log_in: Box::new(|| Box::pin(async { Some(HeaderValue::from_static("s=1; Path=/")) })),
    }
}

#[tokio::test]
async fn curl_gets_text_and_a_browser_the_page() {
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
        let response =
            get(&running, path, &[("x-user", "alice"), ("via", "1.1 gate"), ("traceparent", "00-0-0-00")])
                .await;
        let json: serde_json::Value = serde_json::from_str(&response.body).unwrap();
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
async fn unknown_page_is_404() {
    let running = app().spawn().await.unwrap();
    assert_eq!(get(&running, "/favicon.ico", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn login_link_sets_the_cookie_if_its_token_is_right() {
    let running = app().with_login_link(login_link()).spawn().await.unwrap();
    let response = get(&running, "/become/t0ken?next=%2Fmembers%3Fa%3D%2520", &[]).await;
    assert_eq!(response.status, StatusCode::SEE_OTHER);
    assert_eq!(response.headers[header::LOCATION], "/members?a=%20");
    assert_eq!(response.headers[header::SET_COOKIE], "s=1; Path=/");

    let login = get(&running, "/login?next=%2Fmembers", &[("accept", "text/html")]).await;
    assert!(login.body.contains(r#"href="/become/t0ken?next=%2Fmembers""#));

    let guess = get(&running, "/become/token", &[]).await;
    assert_eq!(guess.status, StatusCode::NOT_FOUND);
    assert!(guess.headers.get(header::SET_COOKIE).is_none());
}

#[tokio::test]
async fn page_has_no_login_link_by_default() {
    let running = app().spawn().await.unwrap();
    assert_eq!(get(&running, "/become/", &[]).await.status, StatusCode::NOT_FOUND);
    let page = get(&running, "/", &[("accept", "text/html")]).await;
    assert!(!page.body.contains("/become/"));
}

#[tokio::test]
async fn observer_is_called_before_the_response() {
    let (sender, observed) = std::sync::mpsc::channel();
    let running = app().with_observer(move |request| sender.send(request).unwrap()).spawn().await.unwrap();
    get(&running, "/members", &[("x-user", "alice"), ("x-request-id", "r1"), ("x-other", "y")]).await;
    let request = observed.try_recv().unwrap();
    assert_eq!(request.request_id, "r1");
    assert_eq!(request.injected, [("X-User".to_owned(), "alice".to_owned())]);
}

#[tokio::test]
async fn dropped_app_stops_listening() {
    let running = app().spawn().await.unwrap();
    let address = running.address();
    drop(running);
    let mut tries = 0..100_000;
    while TcpStream::connect(address).await.is_ok() {
        assert!(tries.next().is_some(), "the app still listens");
        tokio::task::yield_now().await;
    }
}

#[test]
fn next_location_is_a_path_on_this_host() {
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
        assert_eq!(next_location(query), expected, "{query:?}");
    }
}
