//! genai, which takes only a plain client: the session goes along as extra headers.

use futures::StreamExt;
use genai::Client;
use genai::adapter::AdapterKind;
use genai::chat::{ChatOptions, ChatRequest};
use genai::resolver::{AuthData, Endpoint};
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{Session, WithSession};

use crate::support::{assert_every_request_in_turn, middleware, sessions};

/// A chat completion, and a message in Anthropic's format.
const MODELS: [&str; 2] = ["opencode_go::kimi-k3", "opencode_go::minimax-m3"];

/// The options of a call that is in this session.
fn in_session(session: &Session) -> ChatOptions {
    let headers = session.headers();
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect();
    ChatOptions::default().with_extra_headers(headers)
}

fn genai(gateway: &Gateway) -> Client {
    let redirects = middleware(gateway).redirect_policy();
    let http = reqwest::Client::builder().no_proxy().redirect(redirects);
    Client::builder()
        .with_reqwest(http.build().unwrap())
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

#[tokio::test]
async fn each_call_is_in_the_session_of_its_options_streamed_or_not() {
    let gateway = Gateway::start().unwrap();
    let genai = genai(&gateway);
    let turn = Session::new().subagent().turn();
    let options = in_session(&turn);
    let request = ChatRequest::from_user("Hello");
    for model in MODELS {
        let call = genai.exec_chat(model, request.clone(), Some(&options));
        call.await.unwrap();
        let call = genai.exec_chat_stream(model, request.clone(), Some(&options));
        let mut stream = call.await.unwrap().stream;
        while let Some(event) = stream.next().await {
            event.unwrap();
        }
    }

    let requests = gateway.requests();
    assert_eq!(requests.len(), 4);
    assert_every_request_in_turn(&gateway, &turn);
    let parent = turn.parent().map(AsRef::as_ref);
    assert!(
        requests
            .iter()
            .all(|request| request.parent.as_deref() == parent)
    );
}

/// What is lost: below genai there is no plugin, so a call without the options has no session,
/// whatever is around it.
#[tokio::test]
async fn a_call_without_the_options_misses_its_session() {
    let gateway = Gateway::start().unwrap();
    let genai = genai(&gateway);
    let call = genai.exec_chat(MODELS[0], ChatRequest::from_user("Hello"), None);
    let answer = call.with_session(Session::new()).await;

    assert!(answer.unwrap_err().to_string().contains("400"));
    assert_eq!(sessions(&gateway), [None]);
}
