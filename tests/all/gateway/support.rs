//! Helpers for the tests of the gateway: a client without any middleware.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use http::{Method, Request};
use reqwest::{Client, RequestBuilder, Response};
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::testing::record::Log;
use serde_json::{Value, json};

use crate::support::CHAT;

pub const GENERATE: &str = "/zen/v1/models/kimi-k3:generateContent";

/// One client for all tests, because building one is slow. It keeps no idle connection, which would
/// belong to the runtime of one test.
pub fn client() -> Client {
    static CLIENT: LazyLock<Client> = LazyLock::new(|| {
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0);
        client.build().unwrap()
    });
    CLIENT.clone()
}

pub fn start() -> Gateway {
    Gateway::start().unwrap()
}

pub fn post(gateway: &Gateway, path: &str) -> RequestBuilder {
    client().post(gateway.url(path))
}

/// Makes a call to OpenCode Go in this session.
pub async fn chat_in(gateway: &Gateway, session: &str, prompt: &Value) -> Response {
    let request = post(gateway, CHAT).bearer_auth(Gateway::KEY).json(prompt);
    request
        .header("x-opencode-session", session)
        .send()
        .await
        .unwrap()
}

pub fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// Returns the message that an assertion of the gateway fails with.
pub fn message_of(assertion: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(assertion)).expect_err("the assertion holds");
    match panic.downcast::<String>() {
        Ok(message) => *message,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    }
}

/// Records a request in a session, and returns its number.
pub fn record(log: &Log, method: Method, path: &str, body: &str) -> u64 {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("x-opencode-session", "s");
    let (head, ()) = request.body(()).unwrap().into_parts();
    log.record(&head, body.to_owned())
}

/// The path that asks for a stream, in the one format where the path does that.
pub fn streaming(path: &str) -> String {
    path.replace(":generateContent", ":streamGenerateContent")
}
