//! Plain clients, on reqwest 0.13 and, in `generation-012`, on reqwest 0.12.

use reqwest_opencode_session::Session;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session_shapes::{after, before};

use crate::support::{MODELS, PROMPTS, assert_kept_apart, assert_refused, assert_turns, both};

macro_rules! provider {
    ($shape:path, $gateway:expr, $model:expr) => {{
        use $shape as shape;
        shape::Provider {
            http: shape::client().unwrap(),
            url: $gateway.url("/zen/go/v1/chat/completions"),
            key: Gateway::KEY.to_owned(),
            model: $model.to_owned(),
        }
    }};
}

macro_rules! agent {
    ($shape:path, $gateway:expr, $model:expr) => {{
        use $shape as shape;
        shape::Agent {
            http: shape::client().unwrap(),
            base_url: $gateway.url("/zen/go/v1"),
            key: Gateway::KEY.to_owned(),
            model: $model.to_owned(),
        }
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_function_keeps_two_conversations_apart() {
    let gateway = Gateway::start().unwrap();
    let run = |model: &str| {
        let provider = provider!(after::one_function, gateway, model);
        async move { after::one_function::converse(&provider, PROMPTS).await }
    };
    both(run).await.unwrap();
    assert_kept_apart(&gateway, 2);
    assert_turns(&gateway, 2);
}

#[tokio::test]
async fn one_function_is_refused_without_sessions() {
    let gateway = Gateway::start().unwrap();
    let provider = provider!(before::one_function, gateway, MODELS[0]);
    let result = before::one_function::converse(&provider, PROMPTS).await;
    assert_refused(&gateway, result);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sends_keep_two_conversations_apart() {
    let gateway = Gateway::start().unwrap();
    let run = |model: &str| {
        let agent = agent!(after::many_sends, gateway, model);
        async move { agent.converse(PROMPTS).await }
    };
    both(run).await.unwrap();
    assert_kept_apart(&gateway, 3);
    assert_turns(&gateway, 3);
}

#[tokio::test]
async fn many_sends_are_refused_without_sessions() {
    let gateway = Gateway::start().unwrap();
    let agent = agent!(before::many_sends, gateway, MODELS[0]);
    assert_refused(&gateway, agent.converse(PROMPTS).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_for_each_call_keeps_two_conversations_apart() {
    use after::client_per_call::{Provider, converse};

    let gateway = Gateway::start().unwrap();
    let run = |model: &'static str| {
        let provider = Provider {
            base_url: gateway.url("/zen/go/v1"),
            key: Gateway::KEY.to_owned(),
            model: model.to_owned(),
        };
        async move { converse(&provider, PROMPTS).await }
    };
    both(run).await.unwrap();
    assert_kept_apart(&gateway, 2);
    assert_turns(&gateway, 2);
}

#[tokio::test]
async fn clients_outside_every_conversation_share_the_session_of_the_process() {
    use after::client_per_call::Provider;

    let gateway = Gateway::start().unwrap();
    let provider = Provider {
        base_url: gateway.url("/zen/go/v1"),
        key: Gateway::KEY.to_owned(),
        model: MODELS[0].to_owned(),
    };
    for _ in 0..3 {
        provider.clone().ask("Hello").await.unwrap();
    }
    assert_eq!(gateway.requests().len(), 3);
    gateway.assert_every_request_in(&Session::process());
}

#[tokio::test]
async fn a_client_for_each_call_is_refused_without_sessions() {
    use before::client_per_call::{Provider, converse};

    let gateway = Gateway::start().unwrap();
    let provider = Provider {
        base_url: gateway.url("/zen/go/v1"),
        key: Gateway::KEY.to_owned(),
        model: MODELS[0].to_owned(),
    };
    assert_refused(&gateway, converse(&provider, PROMPTS).await);
}
