//! The plugin in a chain of each generation of reqwest, and outside of reqwest.

use std::error::Error as _;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{LOCATION, USER_AGENT};
use http::{Extensions, HeaderMap, StatusCode, Uri};
use reqwest_opencode_session::testing::{Fault, Gateway};
use reqwest_opencode_session::{
    Fallback, MissingSession, OpencodeSessionMiddleware, RedirectRefused, Session, Target,
    WithSession, header,
};

use crate::stack::reqwest_middleware::{ClientBuilder, Error};
use crate::stack::reqwest_retry::RetryTransientMiddleware;
use crate::stack::reqwest_retry::policies::ExponentialBackoff;
use crate::stack::{into_client, redirect_policy, reqwest};
use crate::support::{CHAT, Elsewhere, PROMPT, chat, client_with, middleware_for, plain_client};

fn retry() -> RetryTransientMiddleware<ExponentialBackoff> {
    let moment = Duration::from_millis(1);
    let policy = ExponentialBackoff::builder().retry_bounds(moment, moment);
    RetryTransientMiddleware::new_with_policy(policy.build_with_max_retries(2))
}

fn sessions(gateway: &Gateway) -> Vec<Option<String>> {
    let requests = gateway.requests().into_iter();
    requests.map(|request| request.session).collect()
}

#[tokio::test]
async fn a_session_comes_from_where_it_is_nearest() {
    let gateway = Gateway::start().unwrap();
    let [header, extension, ambient, own] = std::array::from_fn(|_| Session::new());
    let plugin = middleware_for(&gateway).fallback(Fallback::Session(own.clone()));
    let client = client_with(plugin.build().unwrap());
    let call = || chat(&client, &gateway);

    async {
        let call = || call().with_extension(extension.clone());
        let by_header = call().header(header::SESSION, header.id().as_str());
        by_header.send().await.unwrap();
        call().send().await.unwrap();
    }
    .with_session(ambient.clone())
    .await;
    call().send().with_session(ambient.clone()).await.unwrap();
    call().send().await.unwrap();

    let expected = [header, extension, ambient, own].map(|session| Some(session.id().to_string()));
    assert_eq!(sessions(&gateway), expected);
}

#[tokio::test]
async fn retries_stay_in_their_session_on_either_side_of_the_plugin() {
    let gateway = Gateway::start().unwrap();
    for plugin_first in [true, false] {
        gateway.forget_requests();
        gateway.fail_next(2, Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
        let plugin = middleware_for(&gateway).fallback(Fallback::PerRequest);
        let plugin = plugin.build().unwrap();
        let chain = ClientBuilder::new(plain_client());
        let client = if plugin_first {
            chain.with(plugin).with(retry()).build()
        } else {
            chain.with(retry()).with(plugin).build()
        };

        assert_eq!(chat(&client, &gateway).send().await.unwrap().status(), 200);
        let sessions = sessions(&gateway);
        assert_eq!(sessions.len(), 3);
        assert!(sessions[0].is_some());
        assert!(sessions.iter().all(|session| *session == sessions[0]));
    }
}

#[tokio::test]
async fn a_refused_request_says_so_by_its_own_error() {
    let gateway = Gateway::start().unwrap();
    let plugin = middleware_for(&gateway).fallback(Fallback::Reject);
    let client = client_with(plugin.build().unwrap());

    let Err(Error::Middleware(error)) = chat(&client, &gateway).send().await else {
        panic!("the request was not refused by the plugin");
    };
    let missing = error.downcast_ref::<MissingSession>().unwrap();
    assert_eq!(missing.url(), gateway.url(CHAT));
    assert!(gateway.requests().is_empty());
}

#[tokio::test]
async fn a_redirect_stays_on_the_targets() {
    let elsewhere = Elsewhere::quiet().await;
    let url_elsewhere = format!("http://{}", elsewhere.address);
    let redirecting = url_elsewhere.clone();
    let target = Elsewhere::start(move |head| {
        let to = match head.uri.path() {
            "/away" => &redirecting,
            "/home" => "/arrived",
            _ => return Response::default(),
        };
        let answer = Response::builder().status(StatusCode::TEMPORARY_REDIRECT);
        answer.header(LOCATION, to).body(Body::empty()).unwrap()
    })
    .await;
    let url = |path: &str| format!("http://{}{path}", target.address);
    let plugin = OpencodeSessionMiddleware::builder().targets([url("").parse().unwrap()]);
    let plugin = plugin.build().unwrap();
    let by_hand = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect_policy(&plugin));
    let clients = [
        ClientBuilder::new(by_hand.build().unwrap())
            .with(plugin.clone())
            .build(),
        into_client(plugin, reqwest::Client::builder().no_proxy()).unwrap(),
    ];

    for client in clients {
        assert_eq!(
            client.post(url("/home")).send().await.unwrap().status(),
            200
        );
        let Err(Error::Reqwest(error)) = client.post(url("/away")).send().await else {
            panic!("the redirect was followed");
        };
        assert!(error.is_redirect());
        let refused = error.source().unwrap().downcast_ref::<RedirectRefused>();
        let refused = refused.unwrap();
        assert_eq!((refused.from(), refused.to()), (&*url(""), &*url_elsewhere));
    }
    assert_eq!(target.requests().len(), 6);
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn apply_sends_the_same_as_a_chain() {
    let gateway = Gateway::start().unwrap();
    let plugin = middleware_for(&gateway)
        .client_name("my-agent")
        .project("a-project")
        .user_agent("my-agent/1.0");
    let plugin = plugin.build().unwrap();
    let session = Session::new().subagent().turn();
    let client = client_with(plugin.clone());
    let call = chat(&client, &gateway).with_extension(session.clone());
    call.send().await.unwrap();
    let request = gateway.requests().remove(0);

    let (mut headers, mut extensions) = (HeaderMap::new(), Extensions::new());
    extensions.insert(session);
    let url: Uri = gateway.url(CHAT).parse().unwrap();
    plugin.apply(&url, &mut headers, &mut extensions).unwrap();

    assert_eq!(headers.len(), 6);
    assert!(headers.contains_key(USER_AGENT));
    for (name, value) in &headers {
        assert_eq!(request.headers.get(name), Some(value));
    }
}

#[tokio::test]
async fn nothing_reaches_another_host() {
    let elsewhere = Elsewhere::quiet().await;
    let target: Target = "http://opencode.test".parse().unwrap();
    let plugin = OpencodeSessionMiddleware::builder().target(target);
    let client = client_with(plugin.client_name("my-agent").build().unwrap());
    let call = client.post(format!("http://{}", elsewhere.address));
    let call = call.with_extension(Session::new()).body(PROMPT);
    call.send().with_session(Session::new()).await.unwrap();

    let requests = elsewhere.requests();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].opencode_headers().is_empty());
    assert_eq!(requests[0].body, PROMPT);
}
