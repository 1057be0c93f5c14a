//! The middleware in a chain of each generation of reqwest, and outside of reqwest.

use std::error::Error as _;

use axum::body::Body;
use axum::response::Response;
use http::header::{LOCATION, USER_AGENT};
use http::{Extensions, HeaderMap, StatusCode, Uri};
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, RedirectRefused, Session};

use crate::stack::reqwest;
use crate::stack::reqwest_middleware::{ClientBuilder, Error};
use crate::support::{CHAT, Elsewhere, chat, client_with, middleware_for};

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
    let middleware = OpencodeSessionMiddleware::builder().targets([url("")]);
    let middleware = middleware.build().unwrap();
    let by_hand = reqwest::Client::builder()
        .no_proxy()
        .redirect(middleware.redirect_policy());
    let clients = [
        ClientBuilder::new(by_hand.build().unwrap())
            .with(middleware.clone())
            .build(),
        middleware
            .into_client(reqwest::Client::builder().no_proxy())
            .unwrap(),
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
        assert_eq!(
            (refused.from_origin(), refused.to_origin()),
            (&*url(""), &*url_elsewhere)
        );
    }
    assert_eq!(target.requests().len(), 6);
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn apply_sends_the_same_as_a_chain() {
    let gateway = Gateway::start().unwrap();
    let middleware = middleware_for(&gateway)
        .client_name("my-agent")
        .project("a-project")
        .user_agent("my-agent/1.0");
    let middleware = middleware.build().unwrap();
    let session = Session::new().subagent().turn();
    let client = client_with(middleware.clone());
    let call = chat(&client, &gateway).with_extension(session.clone());
    call.send().await.unwrap();
    let request = gateway.requests().remove(0);

    let (mut headers, mut extensions) = (HeaderMap::new(), Extensions::new());
    extensions.insert(session);
    let url: Uri = gateway.url(CHAT).parse().unwrap();
    middleware
        .apply_parts(&url, &mut headers, &mut extensions)
        .unwrap();

    assert_eq!(headers.len(), 6);
    assert!(headers.contains_key(USER_AGENT));
    for (name, value) in &headers {
        assert_eq!(request.headers.get(name), Some(value));
    }
}
