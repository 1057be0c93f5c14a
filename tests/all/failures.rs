//! Failures on the way, and retries: each attempt is in the same session and turn.

use std::error::Error;
use std::time::Duration;

use axum::body::Body;
use futures::future::join_all;
use http::header::LOCATION;
use http::{Extensions, Response, StatusCode};
use reqwest_opencode_session::testing::{Failure, Gateway, SeenRequest};
use reqwest_opencode_session::{OpencodeSessionMiddleware, RedirectRefused, Session, WithSession};

use crate::stack::reqwest;
use crate::stack::reqwest_middleware::{self, ClientBuilder, ClientWithMiddleware};
use crate::support::{CHAT, Elsewhere, PROMPT, chat, middleware_for, plain_client, retries};

const RETRIES: u32 = 2;
const ATTEMPTS: usize = 3;

/// The side of the middleware that the retries are on.
#[derive(Debug, Clone, Copy)]
enum Chain {
    RetriesOutside,
    RetriesInside,
    MiddlewareOnBothSides,
}

/// Where a call gets its session from.
#[derive(Debug, Clone, Copy)]
enum Given {
    Scope,
    Extension,
    /// Nowhere: `session_from` makes one for the request.
    Nothing,
}

/// A call to its own gateway.
struct Call {
    gateway: Gateway,
    client: ClientWithMiddleware,
    given: Given,
    session: Session,
    extensions: Extensions,
    name: String,
}

impl Call {
    /// One call for each chain and each source of a session.
    fn all(client: &reqwest::Client) -> impl Iterator<Item = Self> {
        let chains = [
            Chain::RetriesOutside,
            Chain::RetriesInside,
            Chain::MiddlewareOnBothSides,
        ];
        let sources = [Given::Scope, Given::Extension, Given::Nothing];
        let cases = chains
            .into_iter()
            .flat_map(move |chain| sources.map(|given| (chain, given)));
        cases.map(|(chain, given)| Self::new(client.clone(), chain, given))
    }

    fn new(client: reqwest::Client, chain: Chain, given: Given) -> Self {
        let gateway = Gateway::start().unwrap();
        let middleware = middleware_for(&gateway)
            .session_from(|| Some(Session::new()))
            .build()
            .unwrap();
        let client = ClientBuilder::new(client);
        let client = match chain {
            Chain::RetriesOutside => client.with(retries(RETRIES)).with(middleware),
            Chain::RetriesInside => client.with(middleware).with(retries(RETRIES)),
            Chain::MiddlewareOnBothSides => client
                .with(middleware.clone())
                .with(retries(RETRIES))
                .with(middleware),
        };
        let session = Session::new().turn();
        let mut extensions = Extensions::new();
        if let Given::Extension = given {
            extensions.insert(session.clone());
        }
        Self {
            gateway,
            client: client.build(),
            given,
            session,
            extensions,
            name: format!("{chain:?}, {given:?}"),
        }
    }

    async fn send(&mut self, body: &'static str) -> reqwest_middleware::Result<reqwest::Response> {
        let request = self
            .client
            .post(self.gateway.url(CHAT))
            .bearer_auth(Gateway::KEY)
            .body(body);
        let sending = self
            .client
            .execute_with_extensions(request.build()?, &mut self.extensions);
        match self.given {
            Given::Scope => sending.with_session(self.session.clone()).await,
            Given::Extension | Given::Nothing => sending.await,
        }
    }

    fn assert_attempts(&self, count: usize, what: &str) {
        let requests = self.gateway.requests();
        let what = format!("{}, {what}: {requests:#?}", self.name);
        assert_eq!(requests.len(), count, "{what}");
        let belongs = |request: &SeenRequest| (request.session.clone(), request.turn.clone());
        let expected = match self.given {
            Given::Nothing => belongs(&requests[0]),
            Given::Scope | Given::Extension => {
                let turn = self.session.turn_id().unwrap();
                (Some(self.session.id().to_string()), Some(turn.to_string()))
            }
        };
        assert!(expected.0.is_some(), "{what}");
        assert!(
            requests.iter().all(|request| belongs(request) == expected),
            "{what}"
        );
    }
}

/// Failures after which reqwest-retry tries again.
fn transient_failures() -> [Failure; 3] {
    [
        Failure::Status(StatusCode::TOO_MANY_REQUESTS),
        Failure::Status(StatusCode::SERVICE_UNAVAILABLE),
        Failure::CloseBeforeAnswer,
    ]
}

#[tokio::test]
async fn attempts_go_on_until_one_is_answered() {
    for failure in transient_failures() {
        for mut call in Call::all(&plain_client()) {
            call.gateway.fail_next(ATTEMPTS - 1, failure.clone());
            let response = call.send(PROMPT).await.unwrap();
            assert_eq!(response.status(), 200);
            call.assert_attempts(ATTEMPTS, &format!("{failure:?}"));
        }
    }
}

#[tokio::test]
async fn attempts_end_with_the_last_one_asked_for() {
    for failure in transient_failures() {
        for mut call in Call::all(&plain_client()) {
            call.gateway.fail_next(ATTEMPTS + 1, failure.clone());
            let result = call.send(PROMPT).await;
            assert!(!result.is_ok_and(|response| response.status().is_success()));
            call.assert_attempts(ATTEMPTS, &format!("{failure:?}"));
        }
    }
}

#[tokio::test]
async fn attempts_that_time_out_are_of_one_session() {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(1));
    let client = client.build().unwrap();
    join_all(Call::all(&client).map(async |mut call| {
        call.gateway
            .fail_next(ATTEMPTS, Failure::Delay(Duration::from_secs(3600)));
        call.send(PROMPT).await.unwrap_err();
        call.assert_attempts(ATTEMPTS, "timeout");
    }))
    .await;
}

#[tokio::test]
async fn a_stream_that_breaks_is_for_the_application_to_ask_for_again() {
    const STREAMED: &str = r#"{"model": "kimi-k3", "stream": true, "messages": []}"#;
    for mut call in Call::all(&plain_client()) {
        call.gateway.fail_next(1, Failure::CloseMidAnswer);
        let response = call.send(STREAMED).await.unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap_err();
        call.assert_attempts(1, "broken stream");

        let response = call.send(STREAMED).await.unwrap();
        assert!(response.text().await.unwrap().contains("[DONE]\n\n"));
        call.assert_attempts(2, "second stream");
    }
}

#[tokio::test]
async fn without_retries_nothing_is_sent_twice() {
    let http_2 = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge();
    for client in [plain_client(), http_2.build().unwrap()] {
        for failure in transient_failures() {
            let gateway = Gateway::start().unwrap();
            let middleware = middleware_for(&gateway).build().unwrap();
            let session = Session::process();
            let client = ClientBuilder::new(client.clone()).with(middleware).build();
            let call = || chat(&client, &gateway).send();
            // The next call reuses the connection of this one.
            call().await.unwrap().bytes().await.unwrap();
            gateway.fail_next(1, failure);
            let result = call().await;
            assert!(!result.is_ok_and(|response| response.status().is_success()));
            assert_eq!(gateway.requests().len(), 2);
            gateway.assert_every_request_in(&session);
        }
    }
}

#[tokio::test]
async fn a_refused_redirect_is_not_tried_again() {
    let elsewhere = Elsewhere::quiet().await;
    let location = format!("http://{}/", elsewhere.address);
    let target = Elsewhere::start(move |_| {
        let response = Response::builder().status(307).header(LOCATION, &location);
        response.body(Body::empty()).unwrap()
    })
    .await;
    let url = format!("http://{}", target.address);
    let middleware = OpencodeSessionMiddleware::builder()
        .target(&*url)
        .build()
        .unwrap();
    let client = middleware
        .into_client(reqwest::Client::builder().no_proxy())
        .unwrap();
    let client = ClientBuilder::from_client(client)
        .with(retries(RETRIES))
        .build();
    let error = client.post(url).body(PROMPT).send().await.unwrap_err();

    let mut error: &dyn Error = &error;
    while !error.is::<RedirectRefused>() {
        error = error.source().expect("the refusal is the first cause");
    }
    assert_eq!(target.requests().len(), 1);
    assert_eq!(elsewhere.requests().len(), 0);
}

#[tokio::test]
async fn a_gateway_that_redirects_elsewhere_sees_that_nothing_leaves() {
    let gateway = Gateway::start().unwrap();
    let middleware = middleware_for(&gateway).build().unwrap();
    let builder = reqwest::Client::builder().no_proxy();
    let client = middleware.into_client(builder).unwrap();
    let location = gateway.elsewhere("/").unwrap();
    gateway.fail_next(1, Failure::Redirect { location });
    chat(&client, &gateway).send().await.unwrap_err();
    gateway.assert_no_request_escaped();

    // A redirect to the gateway itself is followed.
    let location = gateway.url(CHAT);
    gateway.fail_next(1, Failure::Redirect { location });
    let response = chat(&client, &gateway).send().await.unwrap();
    assert_eq!(response.status(), 200);
    gateway.assert_no_request_escaped();
    assert_eq!(gateway.requests().len(), 3);
}

#[tokio::test]
async fn a_limit_that_says_when_is_tried_again() {
    for mut call in Call::all(&plain_client()) {
        let retry_after = Duration::ZERO;
        call.gateway
            .fail_next(1, Failure::RateLimit { retry_after });
        call.gateway.fail_next(1, Failure::Unavailable);
        assert_eq!(call.send(PROMPT).await.unwrap().status(), 200);
        call.assert_attempts(ATTEMPTS, "limits");
    }
}
