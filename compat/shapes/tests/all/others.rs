//! Clients that are not reqwest, SDKs with ids of their own, and bodies that hold the session.

use http::{HeaderMap, HeaderValue};
use reqwest::Url;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Extension};
use reqwest_opencode_session::testing::{Failure, Gateway, Mark};
use reqwest_opencode_session::{
    OpencodeSessionMiddleware, RedirectRefused, RequestBuilderExt as _, Session, WithSession as _,
};
use reqwest_opencode_session_shapes::after::{
    proxy_without_sessions, reqwest_fork, sdk_with_ids, session_in_body,
};
use serde_json::{Value, json};

use crate::support::{MODELS, both, requests_of, sole_session};

const BODY: &str = r#"{"model": "kimi-k3", "messages": []}"#;

fn sdk(gateway: &Gateway, http: ClientWithMiddleware, model: &str) -> sdk_with_ids::Sdk {
    sdk_with_ids::Sdk {
        http,
        url: gateway.url("/zen/go/v1/chat/completions"),
        key: Gateway::KEY.to_owned(),
        model: model.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sdks_fresh_ids_are_replaced_by_the_session_of_the_conversation() {
    let gateway = Gateway::start().unwrap();
    let run = |model: &str| {
        let sdk = sdk(&gateway, sdk_with_ids::client().unwrap(), model);
        async move { sdk_with_ids::converse(&sdk, &["Hello", "More", "Thanks"]).await }
    };
    both(run).await.unwrap();
    let sessions = MODELS.map(|model| {
        let requests = requests_of(&gateway, model);
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|request| request.turn.is_some()));
        sole_session(&requests)
    });
    assert_ne!(sessions[0], sessions[1]);
}

#[tokio::test]
async fn an_sdks_fresh_ids_are_kept_by_default() {
    let gateway = Gateway::start().unwrap();
    let http = OpencodeSessionMiddleware::new().into_client(reqwest::Client::builder());
    let sdk = sdk(&gateway, http.unwrap(), MODELS[0]);
    sdk_with_ids::converse(&sdk, &["Hello", "More"])
        .await
        .unwrap();
    let [one, other] = &gateway.requests()[..] else {
        panic!("two calls");
    };
    assert_ne!(one.session, other.session);
}

#[tokio::test]
async fn a_fork_of_reqwest_sends_the_session_of_the_scope_around_the_call() {
    let gateway = Gateway::start().unwrap();
    let http = reqwest_fork::client().unwrap();
    let session = Session::new();
    let url = gateway.url("/zen/go/v1/chat/completions").parse().unwrap();
    let turn = session.turn();
    let call = turn.scope(reqwest_fork::ask(&http, url, Gateway::KEY, BODY.to_owned()));
    call.await.unwrap();
    assert_eq!(gateway.requests().len(), 1);
    gateway.assert_every_request_in(&session);
}

#[tokio::test]
async fn a_fork_of_reqwest_follows_no_redirect_to_another_host() {
    let gateway = Gateway::start().unwrap();
    let location = gateway.elsewhere("/").unwrap();
    gateway.fail_next(1, Failure::Redirect { location });
    let http = reqwest_fork::client().unwrap();
    let url = gateway.url("/zen/go/v1/chat/completions").parse().unwrap();
    let asked = reqwest_fork::ask(&http, url, Gateway::KEY, BODY.to_owned()).await;
    let error = asked.unwrap_err();
    assert!(error.chain().any(|cause| cause.is::<RedirectRefused>()));
    gateway.assert_every_failure_used();
    gateway.assert_no_request_escaped();
}

#[test]
fn clients_without_sessions_are_told_apart_by_tenant_and_first_message() {
    use proxy_without_sessions::session;

    let user = |text: &str| json!({"role": "user", "content": text});
    let answer = json!({"role": "assistant", "content": "Hello."});
    let none = HeaderMap::new();
    let of = |scope: &str, messages: &[Value]| {
        let body = json!({"model": "kimi-k3", "messages": messages});
        session(scope, &none, &body).unwrap()
    };
    let system = |text: &str| json!({"role": "system", "content": text});

    let first = of("secret/ada", &[system("It is noon."), user("Hello")]);
    let later = [system("It is one."), user("Hello"), answer, user("More")];
    assert_eq!(of("secret/ada", &later), first);
    assert_ne!(of("secret/ada", &[user("Good morning")]), first);
    assert_ne!(of("secret/grace", &[user("Hello")]), first);

    // The other formats
    let parts = json!({"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]});
    assert!(session("secret/ada", &none, &parts).is_some());
    let input = json!({"input": [{"role": "user", "content": "Hello"}]});
    assert_eq!(session("secret/ada", &none, &input), Some(first.clone()));
    // Nothing to go by
    assert_eq!(
        session("secret/ada", &none, &json!({"input": "Hello"})),
        None
    );

    // A session that the client names, under any name, goes first.
    let named = HeaderMap::from_iter([(
        http::HeaderName::from_static("x-session-id"),
        HeaderValue::from_static("chat-1"),
    )]);
    let of_named = session("secret/ada", &named, &json!({"messages": later})).unwrap();
    assert_ne!(of_named, first);
    assert_ne!(of_named.id(), &"chat-1");
    let elsewhere = session("secret/ada", &named, &json!({"messages": [user("Other")]}));
    assert_eq!(elsewhere, Some(of_named));
}

#[tokio::test]
async fn a_session_in_the_body_is_the_sessions_id() {
    let gateway = Gateway::start().unwrap();
    let session = Session::new();
    let url = gateway.url("/zen/v1/chat/completions");
    let http = reqwest::Client::new();
    session_in_body::ask(&http, &url, Gateway::KEY, &session)
        .await
        .unwrap();
    let requests = gateway.requests();
    let body: Value = serde_json::from_slice(requests[0].body.as_ref().unwrap()).unwrap();
    assert_eq!(body["prompt_cache_key"], session.id().as_str());
    assert_eq!(requests[0].session, None);

    let mut body = json!({"model": "claude-sonnet-5", "messages": []});
    session_in_body::name_session(&mut body, session_in_body::Api::Anthropic, &session);
    assert_eq!(body["metadata"], json!({"user_id": session.id().as_str()}));
}

/// What the guide says of reqwest-middleware's two ways to put a session into the extensions.
#[tokio::test]
async fn an_extension_of_the_client_goes_before_every_scope_and_one_of_the_request_before_that() {
    let gateway = Gateway::start().unwrap();
    let [of_client, of_request, scope] = [Session::new(), Session::new(), Session::new()];
    let http = reqwest::Client::new();
    let client = ClientBuilder::new(http)
        .with_init(Extension(of_client.clone()))
        .with(OpencodeSessionMiddleware::new())
        .build();
    let call = || client.post(gateway.url("/zen/go/v1/chat/completions"));
    call().send().with_session(&scope).await.unwrap();
    let named = call().with_extension(of_request.clone()).send();
    named.with_session(&scope).await.unwrap();
    let seen: Vec<_> = gateway
        .requests()
        .into_iter()
        .map(|seen| seen.session)
        .collect();
    assert_eq!(
        seen,
        [of_client, of_request].map(|session| Some(session.id().to_string()))
    );
}

#[tokio::test]
async fn a_session_in_another_wrapper_in_the_extensions_is_ignored() {
    let gateway = Gateway::start().unwrap();
    let session = Session::new();
    let client = OpencodeSessionMiddleware::new().into_client(reqwest::Client::builder());
    let client = client.unwrap();
    let call = || client.post(gateway.url("/zen/go/v1/chat/completions"));
    let wrapped = call().with_extension(Some(session.clone()));
    wrapped.send().await.unwrap();
    let wrapped = call().with_extension(std::sync::Arc::new(session));
    wrapped.send().await.unwrap();
    assert_eq!(gateway.requests().len(), 2);
    gateway.assert_every_request_in(&Session::process());
}

/// What the page on one function says of a session that the user has set.
#[tokio::test]
async fn the_headers_for_a_url_replace_a_session_that_is_there_and_one_header_is_added() {
    let gateway = Gateway::start().unwrap();
    let opencode = OpencodeSessionMiddleware::new();
    let session = Session::new().turn();
    let url = Url::parse(&gateway.url("/zen/go/v1/chat/completions")).unwrap();
    let ours = opencode.bound_to(&session).headers_for(&url).unwrap();
    let call = || {
        let call = reqwest::Client::new().post(url.clone());
        call.header("x-opencode-session", "the-users-own")
    };

    call().headers(ours.clone()).send().await.unwrap();
    let added = reqwest::Client::new().post(url.clone()).headers(ours);
    let added = added.header("x-opencode-session", "the-users-own");
    added.send().await.unwrap();
    let kept = call()
        .opencode_session(&opencode.bound_to(&session))
        .unwrap();
    kept.send().await.unwrap();

    let [replaced, added, kept] = &gateway.requests()[..] else {
        panic!("three calls");
    };
    assert_eq!(replaced.session.as_deref(), Some(session.id().as_str()));
    let turn = session.turn_id().map(AsRef::as_ref);
    assert_eq!(replaced.turn.as_deref(), turn);
    assert!(added.marks.contains(&Mark::Doubled), "{added}");
    assert_eq!(kept.session.as_deref(), Some("the-users-own"));
    assert_eq!(kept.turn, None);
}
