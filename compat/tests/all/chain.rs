//! reqwest-retry and reqwest-tracing on one chain with the plugin.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use reqwest_middleware::ClientBuilder;
use reqwest_opencode_session::testing::{Fault, Gateway};
use reqwest_opencode_session::{Session, WithSession};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_tracing::TracingMiddleware;
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::support::middleware;

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
async fn every_attempt_is_traced_and_in_its_session_in_any_order_of_the_chain() {
    let moment = Duration::from_millis(1);
    let policy = ExponentialBackoff::builder().retry_bounds(moment, moment);
    let policy = policy.build_with_max_retries(2);
    let retry = || RetryTransientMiddleware::new_with_policy(policy);
    let trace = TracingMiddleware::default;
    let spans = Spans::default();
    let _tracing = tracing::subscriber::set_default(registry().with(spans.clone()));

    for place in 0..3 {
        let gateway = Gateway::start().unwrap();
        gateway.fail_next(2, Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
        let plugin = middleware(&gateway);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let chain = ClientBuilder::new(http);
        let client = match place {
            0 => chain.with(plugin).with(retry()).with(trace()),
            1 => chain.with(retry()).with(plugin).with(trace()),
            _ => chain.with(retry()).with(trace()).with(plugin),
        };
        let session = Session::new();
        let call = client
            .build()
            .post(gateway.url("/zen/go/v1/chat/completions"))
            .bearer_auth(Gateway::KEY)
            .body(r#"{"model": "kimi-k3", "messages": []}"#);
        let answer = call.send().with_session(session.clone()).await.unwrap();

        assert_eq!(answer.status(), 200);
        assert_eq!(gateway.requests().len(), 3);
        gateway.assert_every_request_in(&session);
    }
    assert_eq!(*spans.0.lock().unwrap(), 9);
}
