//! Clients with their own current conversation, with string headers, HTTP traits or threads.

use std::collections::HashMap;
use std::sync::Arc;

use reqwest_opencode_session::testing::{Failure, Gateway};
use reqwest_opencode_session_shapes::{after, before};
use uuid::Uuid;

use crate::support::{
    MODELS, PROMPTS, assert_kept_apart, assert_refused, both, requests_of, sole_session,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_applications_own_session_is_followed_when_it_changes_and_resumed_for_subagents() {
    use after::own_session::{Agent, Input};

    let gateway = Gateway::start().unwrap();
    // A retry keeps its session, too.
    gateway.fail_next(1, Failure::CloseBeforeAnswer);
    let ids: HashMap<_, _> = MODELS
        .into_iter()
        .map(|model| (model, [(); 3].map(|()| Uuid::now_v7())))
        .collect();
    let run = |model| {
        let [first, second, subagent] = ids[model];
        let agent = Agent::new(&gateway.url("/zen/go/v1"), Gateway::KEY, model).unwrap();
        async move {
            let inputs = [
                Input::Prompt("Hello"),
                Input::Subagent(subagent, "Find out."),
                Input::New(second),
                Input::Prompt("Something else."),
                Input::Subagent(subagent, "Sum up."),
            ];
            agent.run(first, &inputs).await
        }
    };
    both(run).await.unwrap();
    let mut attempts = 0;
    for model in MODELS {
        let mut requests = requests_of(&gateway, model);
        attempts += requests.len();
        requests.retain(|request| request.status.is_some());
        for (id, calls) in ids[model].iter().zip([2, 2, 4]) {
            let own = |session: &str| session == id.to_string();
            let own = requests
                .iter()
                .filter(|request| request.session.as_deref().is_some_and(own));
            assert_eq!(own.count(), calls, "{requests:#?}");
        }
        assert_eq!(requests.len(), 8);
    }
    assert_eq!(attempts, 17);
}

#[tokio::test]
async fn an_application_with_a_session_of_its_own_is_refused_without_ours() {
    use before::own_session::{Agent, Input};

    let gateway = Gateway::start().unwrap();
    let agent = Agent::new(&gateway.url("/zen/go/v1"), Gateway::KEY, MODELS[0]).unwrap();
    let result = agent.run(Uuid::now_v7(), &[Input::Prompt("Hello")]).await;
    assert_refused(&gateway, result);
}

fn strings(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    headers.iter().map(owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_as_strings_keep_two_conversations_apart() {
    use after::string_headers::{Provider, converse};

    let gateway = Gateway::start().unwrap();
    let bearer = format!("Bearer {}", Gateway::KEY);
    let run = |model| {
        let headers = strings(&[("Authorization", &bearer)]);
        let provider = Provider::new(&gateway.url("/zen/go/v1"), model, headers).unwrap();
        async move { converse(&provider, PROMPTS).await }
    };
    both(run).await.unwrap();
    assert_kept_apart(&gateway, 2);
}

#[tokio::test]
async fn headers_as_strings_leave_the_users_own_session_alone() {
    use after::string_headers::{Provider, converse};

    let gateway = Gateway::start().unwrap();
    let bearer = format!("Bearer {}", Gateway::KEY);
    let headers = strings(&[
        ("Authorization", &bearer),
        ("X-OpenCode-Session", "the-users-own"),
    ]);
    let provider = Provider::new(&gateway.url("/zen/go/v1"), MODELS[0], headers).unwrap();
    converse(&provider, &["Hello"]).await.unwrap();
    assert_eq!(sole_session(&gateway.requests()), "the-users-own");
}

#[tokio::test]
async fn headers_as_strings_are_refused_without_sessions() {
    use before::string_headers::{Provider, converse};

    let gateway = Gateway::start().unwrap();
    let bearer = format!("Bearer {}", Gateway::KEY);
    let headers = strings(&[("Authorization", &bearer)]);
    let provider = Provider::new(&gateway.url("/zen/go/v1"), MODELS[0], headers).unwrap();
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
            base_url: gateway.url("/zen/go/v1"),
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
        base_url: gateway.url("/zen/go/v1"),
        key: Gateway::KEY.to_owned(),
        model: MODELS[0].to_owned(),
    };
    let result = converse(&provider, PROMPTS).await;
    let error = format!("{:#}", result.unwrap_err());
    assert!(error.contains("MissingSessionID"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_calls_keep_two_conversations_apart() {
    use after::blocking::{Provider, converse};

    let gateway = Gateway::start().unwrap();
    let provider = |model| {
        let base_url = gateway.url("/zen/go/v1");
        std::thread::spawn(move || Provider::new(&base_url, Gateway::KEY, model))
    };
    let run = |model| {
        let provider = provider(model).join().unwrap().unwrap();
        async move {
            converse(&provider, PROMPTS).await?;
            Ok(tokio::task::spawn_blocking(|| drop(provider)).await?)
        }
    };
    both(run).await.unwrap();
    assert_kept_apart(&gateway, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_calls_are_refused_without_sessions() {
    use before::blocking::{Provider, converse};

    let gateway = Gateway::start().unwrap();
    let base_url = gateway.url("/zen/go/v1");
    let provider = std::thread::spawn(move || Provider::new(&base_url, Gateway::KEY, MODELS[0]));
    let provider = provider.join().unwrap().unwrap();
    assert_refused(&gateway, converse(&provider, PROMPTS).await);
    tokio::task::spawn_blocking(|| drop(provider))
        .await
        .unwrap();
}
