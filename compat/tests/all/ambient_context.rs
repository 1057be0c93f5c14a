//! A session that travels in a context of opentelemetry, or in a span of tracing.

use opentelemetry::Context;
use opentelemetry::context::FutureExt as _;
use reqwest_middleware::{ClientWithMiddleware, Error, RequestBuilder};
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{MissingSession, Session};
use reqwest_opencode_session_compat::ambient_context;
use tracing::{Instrument as _, info_span, trace_span};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;

use crate::support::{
    MANY, assert_every_request_in_turn, assert_none_in_another_session, assert_shown, hold_many,
};

fn client(middleware: reqwest_opencode_session::OpencodeSessionMiddleware) -> ClientWithMiddleware {
    let builder = reqwest::Client::builder().no_proxy();
    middleware.into_client(builder).unwrap()
}

/// A call whose model is named after the session that it should be in.
fn call(client: &ClientWithMiddleware, gateway: &Gateway, session: &Session) -> RequestBuilder {
    client
        .post(gateway.url("/zen/go/v1/chat/completions"))
        .bearer_auth(Gateway::KEY)
        .body(format!(
            r#"{{"model": "{}", "messages": []}}"#,
            session.id()
        ))
}

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Middleware(error) if error.is::<MissingSession>())
}

#[test]
fn the_page_shows_the_code_that_is_tested_here() {
    let page = include_str!("../../../src/docs/recipes/ambient_context.md");
    for code in [
        include_str!("../../src/ambient_context/opentelemetry.rs"),
        include_str!("../../src/ambient_context/tracing.rs"),
    ] {
        assert_shown(page, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_at_once_stay_apart_in_contexts_of_opentelemetry() {
    let gateway = Gateway::start().unwrap();
    let client = client(ambient_context::opentelemetry::middleware().unwrap());
    hold_many(|session| {
        let calls = [(); 3].map(|()| call(&client, &gateway, &session).send());
        let conversation = async {
            let [first, second, third] = calls;
            first.await.unwrap();
            // A task is in the context that it is given.
            tokio::spawn(second.with_current_context())
                .await
                .unwrap()
                .unwrap();
            third.await.unwrap();
        };
        conversation.with_context(Context::current_with_value(session))
    })
    .await;
    assert_none_in_another_session(&gateway, 3 * MANY);
}

// On one thread, because a subscriber that is not global is one thread's.
#[tokio::test]
async fn conversations_at_once_stay_apart_in_spans_of_tracing() {
    let _tracing = tracing::subscriber::set_default(registry());
    let gateway = Gateway::start().unwrap();
    let client = client(ambient_context::tracing::middleware().unwrap());
    hold_many(|session| {
        let calls = [(); 3].map(|()| call(&client, &gateway, &session).send());
        let turn = info_span!("turn");
        ambient_context::tracing::put(&turn, session);
        // An inner span is in the session of the one around it.
        let title = info_span!(parent: &turn, "title");
        let conversation = async move {
            let [first, second, third] = calls;
            first.await.unwrap();
            tokio::spawn(second.instrument(title))
                .await
                .unwrap()
                .unwrap();
            third.await.unwrap();
        };
        conversation.instrument(turn)
    })
    .await;
    assert_none_in_another_session(&gateway, 3 * MANY);
}

#[tokio::test]
async fn a_call_outside_every_context_is_refused() {
    let gateway = Gateway::start().unwrap();
    let _tracing = tracing::subscriber::set_default(registry());
    for middleware in [
        ambient_context::opentelemetry::middleware().unwrap(),
        ambient_context::tracing::middleware().unwrap(),
    ] {
        let outside = call(&client(middleware), &gateway, &Session::new()).send();
        assert!(is_refused(&outside.await.unwrap_err()));
    }
    assert!(gateway.requests().is_empty());
}

/// The page warns of it: such a span is not there at all.
#[tokio::test]
async fn a_span_that_is_turned_off_leaves_its_calls_in_the_session_around_it() {
    let gateway = Gateway::start().unwrap();
    let _tracing = tracing::subscriber::set_default(registry().with(LevelFilter::INFO));
    let client = client(ambient_context::tracing::middleware().unwrap());
    let (around, off) = (info_span!("turn"), trace_span!("subagent"));
    let turn = Session::new().turn();
    ambient_context::tracing::put(&around, turn.clone());
    ambient_context::tracing::put(&off, Session::new());

    let subagent = call(&client, &gateway, &turn).send().instrument(off);
    subagent.instrument(around).await.unwrap();
    assert_every_request_in_turn(&gateway, &turn);
}
