//! Readers of server-sent events.

use futures::StreamExt;
use reqwest_eventsource::{Event, RequestBuilderExt};
use reqwest_opencode_session::testing::{Fault, Gateway};
use reqwest_opencode_session::{Session, WithSession};
use reqwest_sse::EventSource;

use crate::support::{client, sessions};

const CHAT: &str = "/zen/go/v1/chat/completions";
const PROMPT: &str = r#"{"model": "kimi-k3", "stream": true, "messages": []}"#;

/// reqwest-sse reads the response of any client.
#[tokio::test]
async fn reqwest_sse_reads_what_our_client_got() {
    let gateway = Gateway::start().unwrap();
    let session = Session::new();
    let call = client(&gateway)
        .post(gateway.url(CHAT))
        .bearer_auth(Gateway::KEY)
        .body(PROMPT)
        .send();
    let response = call.with_session(session.clone()).await.unwrap();
    let mut events = response.events().await.unwrap();
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event.unwrap().data);
    }

    assert_eq!(last.as_deref(), Some("[DONE]"));
    assert_eq!(gateway.requests().len(), 1);
    gateway.assert_every_request_in(&session);
}

fn prompt(gateway: &Gateway) -> reqwest_012::RequestBuilder {
    let client = reqwest_012::Client::builder().no_proxy().build().unwrap();
    let call = client.post(gateway.url(CHAT));
    call.bearer_auth(Gateway::KEY).body(PROMPT)
}

/// reqwest-eventsource sends a plain request, and sends it again where the stream breaks off.
#[tokio::test]
async fn reqwest_eventsource_keeps_the_session_of_its_headers_when_it_reconnects() {
    let gateway = Gateway::start().unwrap();
    let session = Session::new();
    gateway.fail_next(1, Fault::CloseMidAnswer);
    let call = prompt(&gateway).headers(session.headers());
    let mut events = call.eventsource().unwrap();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Message(message)) if message.data == "[DONE]" => events.close(),
            // It is the break, and what follows is another attempt.
            Ok(_) | Err(_) => {}
        }
    }

    assert_eq!(gateway.requests().len(), 2);
    gateway.assert_every_request_in(&session);
}

/// What is lost: a plain request passes no plugin, so only its own headers give it a session.
#[tokio::test]
async fn reqwest_eventsource_knows_no_ambient_session() {
    let gateway = Gateway::start().unwrap();
    let mut events = prompt(&gateway).eventsource().unwrap();
    let answer = events.next().with_session(Session::new()).await;

    assert!(matches!(answer, Some(Err(_))));
    assert_eq!(sessions(&gateway), [None]);
}
