//! async-openai, through a tower service over our client, with its own retry layer kept.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use async_openai::middleware::retry::OpenAIRetryLayer;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequest, CreateChatCompletionRequestArgs,
};
use async_openai::types::responses::{CreateResponse, CreateResponseArgs};
use futures::StreamExt;
use http::StatusCode;
use reqwest_middleware::{ClientWithMiddleware, Error};
use reqwest_opencode_session::testing::{Fault, Gateway};
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session, WithSession};
use tower::{ServiceBuilder, service_fn};

use crate::support::{MODEL, assert_every_request_in_turn, client, sessions};

fn openai(gateway: &Gateway, http: ClientWithMiddleware) -> Client<OpenAIConfig> {
    let send = service_fn(move |request: HttpRequestFactory| {
        let http = http.clone();
        async move {
            let request = request.build().await?;
            http.execute(request).await.map_err(|error| match error {
                Error::Reqwest(error) => OpenAIError::Reqwest(error),
                Error::Middleware(error) => OpenAIError::Boxed(error.into()),
            })
        }
    });
    let service = ServiceBuilder::new()
        .layer(OpenAIRetryLayer::default())
        .service(send);
    let config = OpenAIConfig::new()
        .with_api_base(gateway.url("/zen/go/v1"))
        .with_api_key(Gateway::KEY);
    Client::with_config(config).with_http_service(service)
}

fn chat() -> CreateChatCompletionRequest {
    let hello = ChatCompletionRequestUserMessage::from("Hello");
    CreateChatCompletionRequestArgs::default()
        .model(MODEL)
        .messages([hello.into()])
        .build()
        .unwrap()
}

fn response() -> CreateResponse {
    CreateResponseArgs::default()
        .model(MODEL)
        .input("Hello")
        .build()
        .unwrap()
}

#[tokio::test]
async fn chats_and_responses_are_in_their_session_streamed_or_not() {
    let gateway = Gateway::start().unwrap();
    let openai = openai(&gateway, client(&gateway));
    let session = Session::new();
    async {
        openai.chat().create(chat()).await.unwrap();
        openai.responses().create(response()).await.unwrap();
        let mut chunks = openai.chat().create_stream(chat()).await.unwrap();
        while let Some(chunk) = chunks.next().await {
            chunk.unwrap();
        }
        let mut events = openai.responses().create_stream(response()).await.unwrap();
        while let Some(event) = events.next().await {
            event.unwrap();
        }
    }
    .with_session(session.clone())
    .await;

    assert_eq!(gateway.requests().len(), 4);
    gateway.assert_every_request_in(&session);
    gateway.assert_every_client_is("compat");
}

#[tokio::test]
async fn its_own_retries_keep_session_and_turn() {
    let gateway = Gateway::start().unwrap();
    let openai = openai(&gateway, client(&gateway));
    gateway.fail_next(2, Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    let turn = Session::new().turn();
    let chats = openai.chat();
    let call = chats.create(chat());
    call.with_session(turn.clone()).await.unwrap();

    assert_eq!(gateway.requests().len(), 3);
    assert_every_request_in_turn(&gateway, &turn);
}

/// What is lost: the retry layer makes a new request for each attempt, so that an id that was made
/// for one request is not found again. With a session around the call, nothing is lost.
#[tokio::test]
async fn an_id_made_per_request_changes_with_each_attempt() {
    let gateway = Gateway::start().unwrap();
    let http = OpencodeSessionMiddleware::builder()
        .target(gateway.target())
        .fallback(Fallback::PerRequest)
        .build()
        .unwrap()
        .into_client(reqwest::Client::builder().no_proxy())
        .unwrap();
    let openai = openai(&gateway, http);
    gateway.fail_next(1, Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    openai.chat().create(chat()).await.unwrap();

    gateway.assert_no_session_missing();
    let sessions = sessions(&gateway);
    assert_eq!(sessions.len(), 2);
    assert_ne!(sessions[0], sessions[1]);
}
