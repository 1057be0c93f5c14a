//! What the proxy promises, over real sockets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::StreamExt;
use futures::channel::mpsc;
use http::StatusCode;
use proxy::{Settings, router};
use reqwest_opencode_session::testing::Gateway;
use tokio::net::TcpListener;
use tokio::time::timeout;

const CHAT: &str = "/zen/go/v1/chat/completions";
const PROMPT: &str = r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#;

/// Serves on a free port; returns the origin.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    format!("http://{address}")
}

/// Starts the proxy for the tenants `ada` and `ben`, whose names are their keys, and returns its
/// URL.
async fn start(upstream: String) -> String {
    let tenants = ["ada", "ben"].map(|name| (name.to_owned(), name.to_owned()));
    let settings = Settings {
        upstream,
        key: Gateway::KEY.to_owned(),
        secret: "secret".to_owned(),
        tenants: HashMap::from(tenants),
    };
    serve(router(settings).unwrap()).await
}

fn call(proxy: &str, tenant: &str) -> reqwest::RequestBuilder {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = client.post(format!("{proxy}{CHAT}"));
    call.bearer_auth(tenant).body(PROMPT)
}

#[tokio::test]
async fn tenants_who_use_the_same_id_are_in_two_sessions() {
    let gateway = Gateway::start().unwrap();
    let proxy = start(gateway.url("")).await;
    for (tenant, header) in [
        ("ada", "x-opencode-session"),
        ("ada", "session-id"),
        ("ben", "x-session-id"),
        ("ben", "x-claude-code-session-id"),
    ] {
        let call = call(&proxy, tenant).header(header, "chat-1");
        let answer = call.header("x-opencode-project", "chat-1").send().await;
        assert_eq!(answer.unwrap().status(), 200);
    }

    let requests = gateway.requests();
    let [ada, ada_again, ben, ben_again] = &requests[..] else {
        panic!("{} requests came through", requests.len());
    };
    assert!(ada.session.is_some() && ben.session.is_some());
    assert_eq!(ada.session, ada_again.session);
    assert_eq!(ben.session, ben_again.session);
    assert_ne!(ada.session, ben.session);
    for request in &requests {
        assert!(request.headers.values().all(|value| value != "chat-1"));
    }
}

#[tokio::test]
async fn a_call_without_a_session_gets_the_answer_of_opencode() {
    let gateway = Gateway::start().unwrap();
    let proxy = start(gateway.url("")).await;
    let answer = call(&proxy, "ada").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert!(answer.text().await.unwrap().contains("MissingSessionID"));
}

#[tokio::test]
async fn an_unknown_tenant_gets_nowhere() {
    let gateway = Gateway::start().unwrap();
    let proxy = start(gateway.url("")).await;
    let call = call(&proxy, "eve").header("session-id", "chat-1");
    assert_eq!(
        call.send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert!(gateway.requests().is_empty());
}

#[tokio::test]
async fn an_answer_arrives_piece_by_piece() {
    let (pieces, answer) = mpsc::unbounded::<Result<Bytes, std::io::Error>>();
    let answer = Arc::new(Mutex::new(Some(answer)));
    let upstream = Router::new().fallback(async move || {
        let answer = answer.lock().unwrap().take().unwrap();
        Response::new(Body::from_stream(answer))
    });
    let proxy = start(serve(upstream).await).await;
    let answer = call(&proxy, "ada").send().await.unwrap();
    let mut answer = answer.bytes_stream();

    // Each piece is sent only after the previous one has arrived.
    for piece in ["one", "two", "three"] {
        pieces.unbounded_send(Ok(piece.into())).unwrap();
        let arrived = timeout(Duration::from_secs(10), answer.next()).await;
        assert_eq!(arrived.unwrap().unwrap().unwrap(), piece);
    }
    drop(pieces);
    assert!(answer.next().await.is_none());
}
