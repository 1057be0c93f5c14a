//! What several tests need: a client of a gateway, and a server that is no gateway.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use http::HeaderMap;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::stack::reqwest;
use crate::stack::reqwest_middleware::{ClientBuilder, ClientWithMiddleware, RequestBuilder};
use crate::stack::reqwest_retry::RetryTransientMiddleware;
use crate::stack::reqwest_retry::policies::ExponentialBackoff;

pub const CHAT: &str = "/zen/go/v1/chat/completions";
pub const PROMPT: &str =
    r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#;

/// Settings of a plugin that takes the gateway for OpenCode.
pub fn middleware_for(gateway: &Gateway) -> OpencodeSessionMiddlewareBuilder {
    OpencodeSessionMiddleware::builder().target(gateway.target())
}

/// A client with this plugin alone.
pub fn client_with(middleware: OpencodeSessionMiddleware) -> ClientWithMiddleware {
    ClientBuilder::new(plain_client()).with(middleware).build()
}

/// A client without any plugin, which no proxy of the environment comes between.
pub fn plain_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A middleware that tries a call this often again, without a pause.
pub fn retries(times: u32) -> RetryTransientMiddleware<ExponentialBackoff> {
    let policy = ExponentialBackoff::builder().retry_bounds(Duration::ZERO, Duration::ZERO);
    RetryTransientMiddleware::new_with_policy(policy.build_with_max_retries(times))
}

/// A call of OpenCode Go that is in order but for its session.
pub fn chat(client: &ClientWithMiddleware, gateway: &Gateway) -> RequestBuilder {
    client
        .post(gateway.url(CHAT))
        .bearer_auth(Gateway::KEY)
        .body(PROMPT)
}

/// Whether a header names a session, a turn, a parent, a client or a project.
pub fn is_opencode_header(name: &str) -> bool {
    name.starts_with("x-opencode-") || name == "x-parent-session-id"
}

/// A server on loopback that is no gateway. It answers by a function and keeps what it saw.
pub struct Elsewhere {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

/// A request that came elsewhere.
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
