//! genai, which takes only a plain client: its resolver gives each call its session.

use futures::StreamExt;
use genai::Client;
use genai::adapter::AdapterKind;
use genai::chat::ChatRequest;
use genai::resolver::{AuthData, Endpoint};
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{Session, WithSession};
use reqwest_opencode_session_compat::genai::in_session;

use crate::support::{
    MANY, assert_every_request_in_turn, assert_none_in_another_session, assert_shown, hold_many,
    http, opencode,
};

/// A chat completion, and a message in Anthropic's format.
const MODELS: [&str; 2] = ["opencode_go::kimi-k3", "opencode_go::minimax-m3"];

fn genai(gateway: &Gateway) -> Client {
    let opencode = opencode();
    Client::builder()
        .with_reqwest(http())
        .with_service_target_resolver_fn(move |target| in_session(&opencode, target))
        .append_provider_config(
            AdapterKind::OpenCodeGo,
            (
                Endpoint::from_owned(gateway.url("/zen/go/v1/")),
                AuthData::from_single(Gateway::KEY),
            ),
        )
        .build()
        .unwrap()
}

/// Makes a call that is answered whole, and one whose answer is streamed.
async fn call_twice(genai: &Client, model: &str) {
    let request = ChatRequest::from_user("Hello");
    let call = genai.exec_chat(model, request.clone(), None);
    call.await.unwrap();
    let call = genai.exec_chat_stream(model, request, None);
    let mut stream = call.await.unwrap().stream;
    while let Some(event) = stream.next().await {
        event.unwrap();
    }
}

#[test]
fn the_page_shows_the_code_that_is_tested_here() {
    let page = include_str!("../../../src/docs/recipes/genai.md");
    assert_shown(page, include_str!("../../src/genai.rs"));
}

#[tokio::test]
async fn each_call_is_in_the_session_around_it_streamed_or_not() {
    let gateway = Gateway::start().unwrap();
    let genai = genai(&gateway);
    let turn = Session::new().subagent().turn();
    async {
        for model in MODELS {
            call_twice(&genai, model).await;
        }
    }
    .with_session(&turn)
    .await;

    let requests = gateway.requests();
    assert_eq!(requests.len(), 4);
    assert_every_request_in_turn(&gateway, &turn);
    gateway.assert_every_client_is("compat");
    let parent = turn.parent().map(AsRef::as_ref);
    for request in &requests {
        assert_eq!(request.parent.as_deref(), parent);
    }
    assert_eq!(requests[0].path, "/zen/go/v1/chat/completions");
    assert_eq!(requests[2].path, "/zen/go/v1/messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_at_once_stay_apart_on_one_client() {
    let gateway = Gateway::start().unwrap();
    let genai = genai(&gateway);
    hold_many(|session| {
        let genai = genai.clone();
        async move {
            let model = format!("opencode_go::{}", Session::current().unwrap().id());
            for _ in 0..2 {
                call_twice(&genai, &model).await;
            }
        }
        .with_session(session)
    })
    .await;
    assert_none_in_another_session(&gateway, 4 * MANY);
}

#[tokio::test]
async fn a_stream_may_be_read_outside_the_scope_that_it_was_made_in() {
    let gateway = Gateway::start().unwrap();
    let genai = genai(&gateway);
    let session = Session::new();
    let call = genai.exec_chat_stream(MODELS[0], ChatRequest::from_user("Hello"), None);
    let mut stream = call.with_session(&session).await.unwrap().stream;
    while let Some(event) = stream.next().await {
        event.unwrap();
    }

    assert_eq!(gateway.requests().len(), 1);
    gateway.assert_every_request_in(&session);
}

#[tokio::test]
async fn a_call_in_no_session_is_refused_before_it_is_sent() {
    let gateway = Gateway::start().unwrap();
    let genai = genai(&gateway);
    let call = genai.exec_chat(MODELS[0], ChatRequest::from_user("Hello"), None);
    let refused = call.await.unwrap_err().to_string();

    assert!(refused.contains("no session"), "{refused}");
    assert!(gateway.requests().is_empty());
}

/// The endpoint decides, not the model's prefix.
#[tokio::test]
async fn a_call_to_a_stranger_carries_no_session() {
    let stranger = Gateway::builder().implicit_target(false).start().unwrap();
    let genai = genai(&stranger);
    let call = genai.exec_chat(MODELS[0], ChatRequest::from_user("Hello"), None);
    // The answer does not matter.
    let _ = call.with_session(Session::new()).await;

    assert_eq!(stranger.requests().len(), 1);
    assert_eq!(stranger.requests()[0].session, None);
}
