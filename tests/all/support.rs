//! What several tests need: a client of a gateway, and a server that is no gateway.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::ProptestConfig;
use reqwest_opencode_session::testing::{Gateway, SeenRequest};
use reqwest_opencode_session::{
    OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder, Session, SessionId, TurnId,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::stack::reqwest;
use crate::stack::reqwest_middleware::{ClientBuilder, ClientWithMiddleware, RequestBuilder};
use crate::stack::reqwest_retry::RetryTransientMiddleware;
use crate::stack::reqwest_retry::policies::ExponentialBackoff;

pub const CHAT: &str = "/zen/go/v1/chat/completions";
pub const PROMPT: &str =
    r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#;

/// This many random cases, unless the environment variable `PROPTEST_CASES` says otherwise.
pub fn cases(count: u32) -> ProptestConfig {
    let by_variable = ProptestConfig::default();
    let cases = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => by_variable.cases,
        None => count,
    };
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..by_variable
    }
}

/// The command that runs only this test, in a process of its own: this executable, run again.
pub fn alone(test: &str) -> Command {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", test]);
    again
}

pub fn start() -> Gateway {
    Gateway::start().unwrap()
}

/// A gateway that is a target only of a middleware that names it.
pub fn start_stranger() -> Gateway {
    Gateway::builder().implicit_target(false).start().unwrap()
}

/// The only request that the gateway saw.
#[track_caller]
pub fn only(gateway: &Gateway) -> SeenRequest {
    let [request] = <[SeenRequest; 1]>::try_from(gateway.requests()).unwrap();
    request
}

/// The values of one header, as they arrived.
pub fn values<'a>(request: &'a SeenRequest, name: &str) -> Vec<&'a [u8]> {
    let values = request.headers.get_all(name).iter();
    values.map(HeaderValue::as_bytes).collect()
}

/// Asserts that a request is in this session and turn, and names its parent.
#[track_caller]
pub fn assert_carries(request: &SeenRequest, session: &Session) {
    let id = session.id().as_str();
    assert_eq!(values(request, "x-opencode-session"), [id.as_bytes()]);
    assert_eq!(
        request.turn.as_deref(),
        session.turn_id().map(TurnId::as_str)
    );
    assert_eq!(
        request.parent.as_deref(),
        session.parent().map(SessionId::as_str)
    );
}

/// Headers with these values, in this order.
pub fn map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

/// Settings for a middleware that has the gateway as a target.
pub fn middleware_for(gateway: &Gateway) -> OpencodeSessionMiddlewareBuilder {
    OpencodeSessionMiddleware::builder().target(gateway.target())
}

/// A client with only this middleware.
pub fn client_with(middleware: OpencodeSessionMiddleware) -> ClientWithMiddleware {
    ClientBuilder::new(plain_client()).with(middleware).build()
}

/// A client without any middleware, and without a proxy from the environment.
pub fn plain_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A middleware that retries a call up to this many times, without a pause.
pub fn retries(times: u32) -> RetryTransientMiddleware<ExponentialBackoff> {
    let policy = ExponentialBackoff::builder().retry_bounds(Duration::ZERO, Duration::ZERO);
    RetryTransientMiddleware::new_with_policy(policy.build_with_max_retries(times))
}

/// A call to OpenCode Go that lacks only its session.
pub fn chat(client: &ClientWithMiddleware, gateway: &Gateway) -> RequestBuilder {
    client
        .post(gateway.url(CHAT))
        .bearer_auth(Gateway::KEY)
        .body(PROMPT)
}

/// Returns whether a header names a session, a turn, a parent, a client or a project.
pub fn is_opencode_header(name: &str) -> bool {
    name.starts_with("x-opencode-") || name == "x-parent-session-id"
}

/// A server on loopback that is no gateway. It answers with a function, and keeps the requests.
pub struct Elsewhere {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

/// A request that arrived at such a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Elsewhere {
    pub async fn start(
        answer: impl Fn(&http::request::Parts) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let recorded = Arc::clone(&seen);
        let answer = Arc::new(answer);
        let router = Router::new().fallback(async move |request: Request| {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let response = answer(&head);
            recorded.lock().unwrap().push(Seen {
                headers: head.headers,
                body,
            });
            response
        });
        let serving = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            seen,
            serving,
        }
    }

    /// Answers every request with 200 and no body.
    pub async fn quiet() -> Self {
        Self::start(|_| Response::default()).await
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Seen {
    /// The headers that name a session, a turn, a parent, a client or a project.
    pub fn opencode_headers(&self) -> Vec<&str> {
        let ours = |name: &&str| is_opencode_header(name);
        self.headers
            .keys()
            .map(http::HeaderName::as_str)
            .filter(ours)
            .collect()
    }
}
