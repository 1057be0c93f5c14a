//! Clients with their own current conversation, with string headers, HTTP traits or threads.

use std::sync::{Arc, Mutex};

use reqwest_opencode_session::Session;
use reqwest_opencode_session::testing::{Failure, Gateway, SeenRequest};
use reqwest_opencode_session_shapes::{after, before};

use crate::support::{
    MODELS, PROMPTS, assert_kept_apart, assert_refused, both, requests_of, sole_session,
};

/// The application: a user who changes the conversation, and a subagent that has worked before.
async fn use_own_session(gateway: &Gateway, model: &str, ids: [String; 3]) -> anyhow::Result<()> {
    use after::own_session::{CURRENT, ask, client};

    let http = client()?;
    let url = gateway.url("/zen/go/v1/chat/completions");
    let [first, second, subagent] = ids;
    let ask = || ask(&http, &url, Gateway::KEY, model);
    let delegate = || CURRENT.scope(Arc::new(Mutex::new(subagent.clone())), ask());
    let user = async {
        ask().await?;
        delegate().await?;
        CURRENT.with(|current| *current.lock().unwrap() = second);
        ask().await?;
        delegate().await
    };
    CURRENT.scope(Arc::new(Mutex::new(first)), user).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_applications_own_session_is_followed_when_it_changes_and_resumed_for_subagents() {
    let gateway = Arc::new(Gateway::start().unwrap());
    // A retry keeps its session as well.
    gateway.fail_next(1, Failure::CloseBeforeAnswer);
    let ids_of = |model| ["first", "second", "subagent"].map(|id| format!("{model}, {id}"));
    let run = |model| {
        let gateway = gateway.clone();
        async move { use_own_session(&gateway, model, ids_of(model)).await }
    };
    both(run).await.unwrap();
    let mut attempts = 0;
    for model in MODELS {
        let mut requests = requests_of(&gateway, model);
        attempts += requests.len();
        requests.retain(|request| request.status.is_some());
        for (id, calls) in ids_of(model).iter().zip([2, 2, 4]) {
            let session = Session::derive("my-agent", id);
            let own =
                |request: &&SeenRequest| request.session.as_deref() == Some(session.id().as_str());
            assert_eq!(requests.iter().filter(own).count(), calls, "{requests:#?}");
        }
        assert_eq!(requests.len(), 8);
    }
    assert_eq!(attempts, 17);
}

#[tokio::test]
async fn an_application_with_a_session_of_its_own_is_refused_without_ours() {
    use before::own_session::{CURRENT, ask, client};

    let gateway = Gateway::start().unwrap();
    let (http, url) = (
        client().unwrap(),
        gateway.url("/zen/go/v1/chat/completions"),
    );
    let ask = ask(&http, &url, Gateway::KEY, MODELS[0]);
    let result = CURRENT
        .scope(Arc::new(Mutex::new("first".to_owned())), ask)
        .await;
    assert_refused(&gateway, result);
}

fn strings(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    headers.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_as_strings_keep_two_conversations_apart() {
    use after::string_headers::{Provider, client, converse};

    let gateway = Gateway::start().unwrap();
    let bearer = format!("Bearer {}", Gateway::KEY);
    let run = |model: &str| {
        let headers = strings(&[("Authorization", &bearer)]);
        let provider = Provider {
            http: client().unwrap(),
            url: gateway.url("/zen/go/v1/chat/completions").parse().unwrap(),
            model: model.to_owned(),
            headers,
        };
        async move { converse(&provider, PROMPTS).await }
    };
    both(run).await.unwrap();
    assert_kept_apart(&gateway, 2);
}

#[tokio::test]
async fn headers_as_strings_leave_the_users_own_session_alone() {
    use after::string_headers::{Provider, client, converse};

    let gateway = Gateway::start().unwrap();
    let bearer = format!("Bearer {}", Gateway::KEY);
    let headers = strings(&[
        ("Authorization", &bearer),
        ("X-OpenCode-Session", "the-users-own"),
    ]);
    let provider = Provider {
        http: client().unwrap(),
        url: gateway.url("/zen/go/v1/chat/completions").parse().unwrap(),
        model: MODELS[0].to_owned(),
        headers,
    };
    converse(&provider, &["Hello"]).await.unwrap();
    let requests = gateway.requests();
    assert_eq!(sole_session(&requests), "the-users-own");
    // Nor is it mixed with the turn of another session.
    assert!(requests.iter().all(|request| request.turn.is_none()));
}

#[tokio::test]
async fn headers_as_strings_are_refused_without_sessions() {
    use before::string_headers::{Provider, client, converse};

    let gateway = Gateway::start().unwrap();
    let bearer = format!("Bearer {}", Gateway::KEY);
    let headers = strings(&[("Authorization", &bearer)]);
    let provider = Provider {
        http: client().unwrap(),
        url: gateway.url("/zen/go/v1/chat/completions").parse().unwrap(),
        model: MODELS[0].to_owned(),
        headers,
    };
    assert_refused(&gateway, converse(&provider, PROMPTS).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_trait_keeps_two_conversations_apart() {
    use after::http_trait::{Provider, Reqwest, converse};

    let gateway = Gateway::start().unwrap();
    let http = Arc::new(Reqwest::new().unwrap());
    let run = |model: &'static str| {
        let provider = Provider {
            http: http.clone(),
            url: gateway.url("/zen/go/v1/chat/completions"),
            key: Gateway::KEY.to_owned(),
            model: model.to_owned(),
        };
        async move { converse(&provider, PROMPTS).await }
    };
    both(run).await.unwrap();
    assert_kept_apart(&gateway, 2);
}

#[tokio::test]
async fn an_http_trait_is_refused_without_sessions() {
    use before::http_trait::{Provider, Reqwest, converse};

    let gateway = Gateway::start().unwrap();
    let provider = Provider {
        http: Arc::new(Reqwest::new().unwrap()),
        url: gateway.url("/zen/go/v1/chat/completions"),
        key: Gateway::KEY.to_owned(),
        model: MODELS[0].to_owned(),
    };
    let result = converse(&provider, PROMPTS).await;
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains("MissingSessionID"), "{error}");
}

/// A blocking client must be built, and dropped, where it may block.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(f).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_calls_keep_two_conversations_apart() {
    use after::blocking::{Provider, client, converse};

    let gateway = Gateway::start().unwrap();
    let http = blocking(client).await.unwrap();
    let run = |model: &'static str| {
        let provider = Provider {
            http: http.clone(),
            url: gateway.url("/zen/go/v1/chat/completions"),
            key: Gateway::KEY.to_owned(),
            model: model.to_owned(),
        };
        async move { converse(&provider, PROMPTS).await }
    };
    both(run).await.unwrap();
    blocking(|| drop(http)).await;
    assert_kept_apart(&gateway, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_calls_are_refused_without_sessions() {
    use before::blocking::{Provider, client, converse};

    let gateway = Gateway::start().unwrap();
    let provider = Provider {
        http: blocking(client).await.unwrap(),
        url: gateway.url("/zen/go/v1/chat/completions"),
        key: Gateway::KEY.to_owned(),
        model: MODELS[0].to_owned(),
    };
    assert_refused(&gateway, converse(&provider, PROMPTS).await);
    blocking(|| drop(provider)).await;
}
