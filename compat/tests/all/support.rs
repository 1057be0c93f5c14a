//! What the tests of several SDKs need.

use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session};

pub const MODEL: &str = "kimi-k3";

/// A plugin for which the gateway is OpenCode. Nothing hides a missed session: it has no fallback.
pub fn middleware(gateway: &Gateway) -> OpencodeSessionMiddleware {
    OpencodeSessionMiddleware::builder()
        .client_name("compat")
        .target(gateway.target())
        .fallback(Fallback::Omit)
        .build()
        .unwrap()
}

/// A client with this plugin alone.
pub fn client(gateway: &Gateway) -> ClientWithMiddleware {
    let builder = reqwest::Client::builder().no_proxy();
    middleware(gateway).into_client(builder).unwrap()
}

/// The sessions of the requests that the gateway saw.
pub fn sessions(gateway: &Gateway) -> Vec<Option<String>> {
    let requests = gateway.requests().into_iter();
    requests.map(|request| request.session).collect()
}

/// Asserts that there were requests and that all were in this turn.
#[track_caller]
pub fn assert_every_request_in_turn(gateway: &Gateway, turn: &Session) {
    gateway.assert_every_request_in(turn);
    for request in gateway.requests() {
        assert_eq!(request.turn.as_deref(), turn.request_id(), "{request}");
    }
}
