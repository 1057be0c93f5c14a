//! reqwest-retry and reqwest-tracing on one chain with the middleware, which comes last.

use std::error::Error;
use std::iter::successors;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, RequestBuilder};
use reqwest_opencode_session::testing::{Failure, Gateway};
use reqwest_opencode_session::{
    Fallback, OpencodeSessionMiddleware, RedirectRefused, Session, WithSession,
};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_tracing::TracingMiddleware;
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::support::{assert_every_request_in_turn, http, opencode};

fn retry() -> RetryTransientMiddleware<ExponentialBackoff> {
    let moment = Duration::from_millis(1);
    let policy = ExponentialBackoff::builder().retry_bounds(moment, moment);
    RetryTransientMiddleware::new_with_policy(policy.build_with_max_retries(2))
}

fn prompt(client: &ClientWithMiddleware, gateway: &Gateway) -> RequestBuilder {
    client
        .post(gateway.url("/zen/go/v1/chat/completions"))
        .bearer_auth(Gateway::KEY)
        .body(r#"{"model": "kimi-k3", "messages": []}"#)
}

/// Counts the spans of reqwest-tracing.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<usize>>);

impl<S: Subscriber> Layer<S> for Spans {
    fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        if span.metadata().target().starts_with("reqwest_tracing") {
            *self.0.lock().unwrap() += 1;
        }
    }
}

#[tokio::test]
async fn every_attempt_is_traced_and_in_its_session_and_turn() {
    let spans = Spans::default();
    let _tracing = tracing::subscriber::set_default(registry().with(spans.clone()));
    let gateway = Gateway::start().unwrap();
    gateway.fail_next(2, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
    let client = ClientBuilder::new(http())
        .with(retry())
        .with(TracingMiddleware::default())
        .with(opencode())
        .build();
    let turn = Session::new().turn();
    let answer = prompt(&client, &gateway).send().with_session(&turn).await;

    assert_eq!(answer.unwrap().status(), StatusCode::OK);
    assert_eq!(gateway.requests().len(), 3);
    assert_every_request_in_turn(&gateway, &turn);
    assert_eq!(*spans.0.lock().unwrap(), 3);
}

/// The user begins a new conversation before each request of the old one is answered.
#[tokio::test]
async fn a_retry_keeps_the_answer_of_session_from_though_the_application_has_moved_on() {
    let gateway = Gateway::start().unwrap();
    gateway.fail_next(2, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let conversations = asked.clone();
    let opencode = OpencodeSessionMiddleware::builder()
        .session_from(move || {
            let session = Session::new().turn();
            conversations.lock().unwrap().push(session.clone());
            Some(session)
        })
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let client = ClientBuilder::new(http()).with(retry()).with(opencode);
    let client = client.build();
    prompt(&client, &gateway).send().await.unwrap();
    assert_eq!(gateway.requests().len(), 3);
    assert_every_request_in_turn(&gateway, &asked.lock().unwrap()[0]);

    gateway.take_requests();
    prompt(&client, &gateway).send().await.unwrap();
    assert_eq!(asked.lock().unwrap().len(), 2);
    assert_every_request_in_turn(&gateway, &asked.lock().unwrap()[1]);
}

#[tokio::test]
async fn a_redirect_off_the_targets_is_not_tried_again() {
    let gateway = Gateway::start().unwrap();
    let location = gateway.elsewhere("/").unwrap();
    gateway.fail_next(1, Failure::Redirect { location });
    let client = ClientBuilder::new(http()).with(retry()).with(opencode());
    let call = prompt(&client.build(), &gateway).send();
    let error = call.with_session(Session::new()).await.unwrap_err();

    let mut sources = successors(error.source(), |&error| error.source());
    assert!(sources.any(|source| source.is::<RedirectRefused>()));
    assert_eq!(gateway.requests().len(), 1);
    assert!(gateway.escaped().is_empty());
}

/// A failover: it sends every request to this server.
struct To(String);

#[async_trait::async_trait]
impl Middleware for To {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        *request.url_mut() = self.0.parse().unwrap();
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn below_a_failover_the_middleware_sees_where_the_request_really_goes() {
    let gateway = Gateway::start().unwrap();
    let failover = || To(gateway.elsewhere("/").unwrap());
    let last = ClientBuilder::new(http()).with(failover()).with(opencode());
    let first = ClientBuilder::new(http()).with(opencode()).with(failover());
    for client in [last.build(), first.build()] {
        let call = prompt(&client, &gateway).send();
        call.with_session(Session::new()).await.unwrap();
    }

    let strays: Vec<_> = gateway
        .escaped()
        .into_iter()
        .map(|left| left.session)
        .collect();
    // The other order shows why the middleware must come last.
    assert!(matches!(&strays[..], [None, Some(_)]), "{strays:?}");
}
