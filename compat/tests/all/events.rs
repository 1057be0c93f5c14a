//! Readers of server-sent events.

use futures::StreamExt;
use reqwest_eventsource::{Event, RequestBuilderExt as _};
use reqwest_opencode_session::testing::{Failure, Gateway};
use reqwest_opencode_session::{RequestBuilderExt, Session, WithSession};
use reqwest_sse::EventSource;

use crate::support::{assert_every_request_in_turn, client, opencode};

const CHAT: &str = "/zen/go/v1/chat/completions";
const PROMPT: &str = r#"{"model": "kimi-k3", "stream": true, "messages": []}"#;

/// reqwest-sse reads a response of any client on reqwest 0.13.
#[tokio::test]
async fn reqwest_sse_reads_what_our_client_got() {
    let gateway = Gateway::start().unwrap();
    let turn = Session::new().turn();
    let call = client()
        .post(gateway.url(CHAT))
        .bearer_auth(Gateway::KEY)
        .body(PROMPT)
        .send();
    let response = call.with_session(&turn).await.unwrap();
    let mut events = response.events().await.unwrap();
    let mut is_done = false;
    while let Some(event) = events.next().await {
        is_done |= event.unwrap().data == "[DONE]";
    }

    assert!(is_done);
    assert_eq!(gateway.requests().len(), 1);
    assert_every_request_in_turn(&gateway, &turn);
}

/// reqwest-eventsource sends a builder of reqwest 0.12 on its own. If the stream breaks off, it
/// sends the builder again, whatever session is current by then.
#[tokio::test]
async fn reqwest_eventsource_keeps_session_and_turn_when_it_reconnects() {
    let gateway = Gateway::start().unwrap();
    let turn = Session::new().turn();
    gateway.fail_next(2, Failure::CloseMidAnswer);
    let http = reqwest_012::Client::builder()
        .no_proxy()
        .redirect(opencode().redirect_policy())
        .build()
        .unwrap();
    let call = http
        .post(gateway.url(CHAT))
        .bearer_auth(Gateway::KEY)
        .body(PROMPT);
    let call = turn.in_scope(|| call.opencode_session(&opencode()));
    let mut events = call.unwrap().eventsource().unwrap();
    let mut breaks = 0;
    let read = async {
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Message(message)) if message.data == "[DONE]" => events.close(),
                Ok(_) => {}
                // The next event belongs to another attempt.
                Err(_) => breaks += 1,
            }
        }
    };
    read.with_session(Session::new()).await;

    assert_eq!(breaks, 2);
    assert_eq!(gateway.requests().len(), 3);
    assert_every_request_in_turn(&gateway, &turn);
    gateway.assert_every_client_is("compat");
}
