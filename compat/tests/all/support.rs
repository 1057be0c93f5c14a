//! Helpers for the tests of several SDKs.

use std::time::Duration;

use futures::future::join_all;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session};
use tokio::time::timeout;

pub const MODEL: &str = "kimi-k3";

/// How many conversations there are at once.
pub const MANY: usize = 200;

/// A middleware that refuses a call without a session, so that no fallback hides it.
pub fn opencode() -> OpencodeSessionMiddleware {
    OpencodeSessionMiddleware::builder()
        .client_name("compat")
        .fallback(Fallback::Reject)
        .build()
        .unwrap()
}

/// A plain client that keeps the session on its targets.
pub fn http() -> reqwest::Client {
    let redirects = opencode().redirect_policy();
    let builder = reqwest::Client::builder().no_proxy().redirect(redirects);
    builder.build().unwrap()
}

/// A client with only the middleware.
pub fn client() -> ClientWithMiddleware {
    opencode()
        .into_client(reqwest::Client::builder().no_proxy())
        .unwrap()
}

/// Holds many conversations at the same time, each in its own task. The model of each request is
/// named after the session.
pub async fn hold_many<F>(conversation: impl Fn(Session) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks: Vec<_> = (0..MANY)
        .map(|_| tokio::spawn(conversation(Session::new().turn())))
        .collect();
    let ended = timeout(Duration::from_secs(120), join_all(tasks)).await;
    for ended in ended.expect("all conversations end") {
        ended.unwrap();
    }
}

/// Asserts that there were this many requests, each in the session that its model is named after.
#[track_caller]
pub fn assert_none_in_another_session(gateway: &Gateway, requests: usize) {
    assert_eq!(gateway.requests().len(), requests);
    assert_eq!(count_in_another_session(gateway), 0);
}

/// Returns how many requests were not in the session that their model is named after.
pub fn count_in_another_session(gateway: &Gateway) -> usize {
    let requests = gateway.requests().into_iter();
    requests
        .filter(|request| request.session.is_none() || request.session != request.model)
        .count()
}

/// Asserts that there were requests and that all were in this turn.
#[track_caller]
pub fn assert_every_request_in_turn(gateway: &Gateway, turn: &Session) {
    gateway.assert_every_request_in(turn);
    let id = turn.turn_id().map(AsRef::as_ref);
    for request in gateway.requests() {
        assert_eq!(request.turn.as_deref(), id, "{request}");
    }
}

/// Asserts that a page shows this code word for word.
#[track_caller]
pub fn assert_shown(page: &str, code: &str) {
    assert!(page.contains(code), "the page shows other code");
}
