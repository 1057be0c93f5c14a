//! Moving from `reqwest::Client` to `ClientWithMiddleware` changes the error type.

use http::StatusCode;
use reqwest_opencode_session::testing::{Failure, Gateway};
use reqwest_opencode_session_shapes::after::error_type::{Provider, client, converse};
use reqwest_opencode_session_shapes::{after, before};

use crate::support::{MODELS, PROMPTS, assert_kept_apart, assert_refused, both};

fn provider(gateway: &Gateway, model: &str) -> Provider {
    Provider {
        http: client().unwrap(),
        url: gateway.url("/zen/go/v1/chat/completions"),
        key: Gateway::KEY.to_owned(),
        model: model.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_middleware_keeps_two_conversations_apart() {
    let gateway = Gateway::start().unwrap();
    let run = |model| {
        let provider = provider(&gateway, model);
        async move { converse(&provider, PROMPTS).await }
    };
    both(run).await.unwrap();
    assert_kept_apart(&gateway, 2);
}

#[tokio::test]
async fn a_plain_client_is_refused_without_sessions() {
    use before::error_type::{Provider, client, converse};

    let gateway = Gateway::start().unwrap();
    let provider = Provider {
        http: client().unwrap(),
        url: gateway.url("/zen/go/v1/chat/completions"),
        key: Gateway::KEY.to_owned(),
        model: MODELS[0].to_owned(),
    };
    assert_refused(&gateway, converse(&provider, PROMPTS).await);
}

#[tokio::test]
async fn nowhere_in_the_chain_of_causes_is_an_error_of_reqwest() {
    let gateway = Gateway::start().unwrap();
    gateway.fail_next(3, Failure::CloseBeforeAnswer);
    let error = provider(&gateway, MODELS[0])
        .ask("Hello")
        .await
        .unwrap_err();

    assert!(error.downcast_ref::<reqwest::Error>().is_none());
    assert!(!error.chain().any(|cause| cause.is::<reqwest::Error>()));
    assert!(!before::error_type::is_transient(&error));
    assert!(after::error_type::is_transient(&error));
}

#[tokio::test]
async fn an_error_of_a_response_is_one_of_reqwest_still() {
    let gateway = Gateway::start().unwrap();
    gateway.fail_next(3, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
    let error = provider(&gateway, MODELS[0])
        .ask("Hello")
        .await
        .unwrap_err();

    assert!(error.downcast_ref::<reqwest::Error>().is_some());
    assert!(after::error_type::is_transient(&error));
    assert_eq!(gateway.requests().len(), 3);
}

#[tokio::test]
async fn retries_that_match_both_errors_try_again() {
    let gateway = Gateway::start().unwrap();
    gateway.fail_next(1, Failure::CloseBeforeAnswer);
    gateway.fail_next(1, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
    provider(&gateway, MODELS[0]).ask("Hello").await.unwrap();
    assert_eq!(gateway.requests().len(), 3);
}

#[tokio::test]
async fn an_error_that_a_retry_wraps_is_found_among_its_causes() {
    use after::own_session::{ask, client};

    let gateway = Gateway::start().unwrap();
    gateway.fail_next(10, Failure::CloseBeforeAnswer);
    let url = gateway.url("/zen/go/v1/chat/completions");
    let asked = ask(&client().unwrap(), &url, Gateway::KEY, MODELS[0]).await;
    let error = asked.unwrap_err();

    assert!(!before::error_type::is_transient(&error));
    assert!(after::error_type::is_transient(&error));
}
