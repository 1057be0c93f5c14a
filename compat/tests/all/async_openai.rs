//! async-openai, with our layer below its own retry layer.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
};
use async_openai::types::responses::{CreateResponse, CreateResponseArgs, ResponseStreamEvent};
use futures::StreamExt;
use http::StatusCode;
use reqwest_opencode_session::testing::{Failure, Gateway};
use reqwest_opencode_session::{MissingSession, OpencodeSessionMiddleware, Session, WithSession};
use reqwest_opencode_session_compat::async_openai::openai;
use tokio::net::TcpListener;

use crate::support::{
    MANY, MODEL, assert_every_request_in_turn, assert_none_in_another_session, assert_shown,
    hold_many, http, opencode,
};

fn config(gateway: &Gateway) -> OpenAIConfig {
    OpenAIConfig::new()
        .with_api_base(gateway.url("/zen/go/v1"))
        .with_api_key(Gateway::KEY)
}

fn client(gateway: &Gateway, opencode: &OpencodeSessionMiddleware) -> Client<OpenAIConfig> {
    openai(config(gateway), opencode, http())
}

fn chat(model: &str) -> CreateChatCompletionRequest {
    let hello = ChatCompletionRequestUserMessage::from("Hello");
    CreateChatCompletionRequestArgs::default()
        .model(model)
        .messages([hello.into()])
        .build()
        .unwrap()
}

fn response(model: &str) -> CreateResponse {
    CreateResponseArgs::default()
        .model(model)
        .input("Hello")
        .build()
        .unwrap()
}

/// Makes a chat call and a responses call, each answered whole and as a stream.
async fn call_each(openai: &Client<OpenAIConfig>, model: &str) {
    openai.chat().create(chat(model)).await.unwrap();
    openai.responses().create(response(model)).await.unwrap();
    let mut chunks = openai.chat().create_stream(chat(model)).await.unwrap();
    while let Some(chunk) = chunks.next().await {
        chunk.unwrap();
    }
    let responses = openai.responses();
    let events = responses.create_stream(response(model));
    let mut events = events.await.unwrap();
    loop {
        let event = events.next().await.expect("the response is completed");
        // async-openai does not know what the gateway sends after this.
        if let ResponseStreamEvent::ResponseCompleted(_) = event.unwrap() {
            break;
        }
    }
}

#[test]
fn the_page_shows_the_code_that_is_tested_here() {
    let page = include_str!("../../../src/docs/recipes/async_openai.md");
    assert_shown(page, include_str!("../../src/async_openai.rs"));
}

#[tokio::test]
async fn chats_and_responses_are_in_their_session_streamed_or_not() {
    let gateway = Gateway::start().unwrap();
    let openai = client(&gateway, &opencode());
    let turn = Session::new().turn();
    call_each(&openai, MODEL).with_session(&turn).await;

    assert_eq!(gateway.requests().len(), 4);
    assert_every_request_in_turn(&gateway, &turn);
    gateway.assert_every_client_is("compat");
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_at_once_stay_apart_on_one_client() {
    let gateway = Gateway::start().unwrap();
    let openai = client(&gateway, &opencode());
    hold_many(|session| {
        let openai = openai.clone();
        async move {
            let model = Session::current().unwrap().id().to_string();
            call_each(&openai, &model).await;
        }
        .with_session(session)
    })
    .await;
    assert_none_in_another_session(&gateway, 4 * MANY);
}

#[tokio::test]
async fn a_stream_may_be_read_outside_the_scope_that_it_was_made_in() {
    let gateway = Gateway::start().unwrap();
    let openai = client(&gateway, &opencode());
    let session = Session::new();
    let chats = openai.chat();
    let stream = chats.create_stream(chat(MODEL)).with_session(&session);
    let mut chunks = stream.await.unwrap();
    while let Some(chunk) = chunks.next().await {
        chunk.unwrap();
    }

    assert_eq!(gateway.requests().len(), 1);
    gateway.assert_every_request_in(&session);
}

/// A bound client needs no scope: it takes its session wherever it goes.
#[tokio::test]
async fn a_client_may_be_bound_to_its_session() {
    let gateway = Gateway::start().unwrap();
    let session = Session::new();
    let openai = client(&gateway, &opencode().bound_to(&session));
    let call = tokio::spawn(async move { openai.chat().create(chat(MODEL)).await });
    call.await.unwrap().unwrap();

    assert_eq!(gateway.requests().len(), 1);
    gateway.assert_every_request_in(&session);
}

#[tokio::test]
async fn its_own_retries_keep_session_and_turn() {
    let gateway = Gateway::start().unwrap();
    let openai = client(&gateway, &opencode());
    gateway.fail_next(2, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
    let turn = Session::new().turn();
    let chats = openai.chat();
    chats.create(chat(MODEL)).with_session(&turn).await.unwrap();

    assert_eq!(gateway.requests().len(), 3);
    assert_every_request_in_turn(&gateway, &turn);
}

/// async-openai's retry layer recognizes by reqwest's own error that nobody was reached.
#[tokio::test]
async fn an_error_of_reqwest_stays_one() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let config = OpenAIConfig::new().with_api_base(format!("http://{address}"));
    let openai = openai(config, &opencode(), http());
    let error = openai.chat().create(chat(MODEL)).await.unwrap_err();
    assert!(matches!(error, OpenAIError::Reqwest(error) if error.is_connect()));
}

#[tokio::test]
async fn a_call_in_no_session_is_refused_before_it_is_sent() {
    let gateway = Gateway::start().unwrap();
    let openai = client(&gateway, &opencode());
    let error = openai.chat().create(chat(MODEL)).await.unwrap_err();

    let OpenAIError::Boxed(error) = error else {
        panic!("{error}");
    };
    assert!(error.is::<MissingSession>());
    assert!(gateway.requests().is_empty());
}
