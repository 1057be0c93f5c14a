//! Moving from `reqwest::Client` to `ClientWithMiddleware` changes the error type.

use http::StatusCode;
use reqwest_opencode_session::testing::{Failure, Gateway};
use reqwest_opencode_session_shapes::after::error_type::{Provider, converse};
use reqwest_opencode_session_shapes::{after, before};
use uuid::Uuid;

use crate::support::{MODELS, PROMPTS, assert_kept_apart, assert_refused, both};

fn provider(gateway: &Gateway) -> Provider {
    Provider::new(&gateway.url("/zen/go/v1"), Gateway::KEY, MODELS[0]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_middleware_keeps_two_conversations_apart() {
    let gateway = Gateway::start().unwrap();
    let run = |model| {
        let provider = Provider::new(&gateway.url("/zen/go/v1"), Gateway::KEY, model).unwrap();
        async move { converse(&provider, PROMPTS).await }
    };
    both(run).await.unwrap();
    assert_kept_apart(&gateway, 2);
}

#[tokio::test]
async fn a_plain_client_is_refused_without_sessions() {
    use before::error_type::{Provider, converse};

    let gateway = Gateway::start().unwrap();
    let provider = Provider::new(&gateway.url("/zen/go/v1"), Gateway::KEY, MODELS[0]).unwrap();
    assert_refused(&gateway, converse(&provider, PROMPTS).await);
}

#[tokio::test]
async fn nowhere_in_the_chain_of_causes_is_an_error_of_reqwest() {
    let gateway = Gateway::start().unwrap();
    gateway.fail_next(3, Failure::CloseBeforeAnswer);
    let error = provider(&gateway).answer("Hello").await.unwrap_err();

    assert!(error.downcast_ref::<reqwest::Error>().is_none());
    assert!(!error.chain().any(|cause| cause.is::<reqwest::Error>()));
    assert!(!before::error_type::is_transient(&error));
    assert!(after::error_type::is_transient(&error));
}

#[tokio::test]
async fn an_error_of_a_response_is_one_of_reqwest_still() {
    let gateway = Gateway::start().unwrap();
    gateway.fail_next(3, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
    let error = provider(&gateway).answer("Hello").await.unwrap_err();

    assert!(error.downcast_ref::<reqwest::Error>().is_some());
    assert!(after::error_type::is_transient(&error));
    assert_eq!(gateway.requests().len(), 3);
}

#[tokio::test]
async fn retries_that_match_both_errors_try_again() {
    let gateway = Gateway::start().unwrap();
    gateway.fail_next(1, Failure::CloseBeforeAnswer);
    gateway.fail_next(1, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
    provider(&gateway).answer("Hello").await.unwrap();
    assert_eq!(gateway.requests().len(), 3);
}

#[tokio::test]
async fn an_error_that_a_retry_wraps_is_found_among_its_causes() {
    use after::own_session::{Agent, Input};

    let gateway = Gateway::start().unwrap();
    gateway.fail_next(10, Failure::CloseBeforeAnswer);
    let agent = Agent::new(&gateway.url("/zen/go/v1"), Gateway::KEY, MODELS[0]).unwrap();
    let inputs = [Input::Prompt("Hello")];
    let error = agent.run(Uuid::now_v7(), &inputs).await.unwrap_err();

    assert!(!before::error_type::is_transient(&error));
    assert!(after::error_type::is_transient(&error));
}
