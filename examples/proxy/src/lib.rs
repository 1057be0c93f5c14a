//! A forwarding proxy that keeps its tenants' conversations apart.
//!
//! It takes the session from any header that clients use for it, and derives another one from it, so
//! that OpenCode learns nothing from it and no two tenants ever share one. Then it streams the
//! answer back.
//!
//! `cargo run -p proxy` starts it in front of a test gateway. Two tenants both call their conversation
//! `chat-1`, and show up in two sessions.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, StatusCode};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session};

/// The headers that are forwarded as they came. All others, and what they reveal, stay here.
const FORWARDED: [HeaderName; 2] = [ACCEPT, CONTENT_TYPE];

/// The settings of a proxy.
pub struct Settings {
    /// The origin that requests are forwarded to, such as `https://opencode.ai`.
    pub upstream: String,
    /// The key that is valid there.
    pub key: String,
    /// A reader of it can work out which session a tenant's id became.
    pub secret: String,
    /// The tenants' names, by the keys that they send.
    pub tenants: HashMap<String, String>,
}

struct Proxy {
    settings: Settings,
    client: ClientWithMiddleware,
}

/// Builds the proxy as a service.
pub fn router(settings: Settings) -> Result<Router, Box<dyn Error>> {
    let client = OpencodeSessionMiddleware::builder()
        .user_agent("example-proxy/1.0")
        .targets([settings.upstream.as_str()])
        // A request that came without a session goes on without one: refusing it is up to OpenCode.
        .fallback(Fallback::Omit)
        .build()?
        .into_client(reqwest::Client::builder().no_proxy())?;
    let proxy = Arc::new(Proxy { settings, client });
    Ok(Router::new().fallback(forward).with_state(proxy))
}

async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Some(tenant) = proxy.tenant(&head.headers) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut call = proxy
        .client
        .request(head.method, format!("{}{path}", proxy.settings.upstream))
        .bearer_auth(&proxy.settings.key)
        .body(reqwest::Body::wrap_stream(body.into_data_stream()));
    for name in FORWARDED {
        if let Some(value) = head.headers.get(&name) {
            call = call.header(name, value);
        }
    }
    if let Some(claimed) = Session::from_headers(&head.headers) {
        call = call.with_extension(opaque(&proxy.settings.secret, tenant, &claimed));
    }
    let answer = match call.send().await {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("no answer from upstream: {error}");
            return StatusCode::BAD_GATEWAY.into_response();
        }
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    if let Some(value) = answer.headers().get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, value.clone());
    }
    response.map(|_| Body::from_stream(answer.bytes_stream()))
}

impl Proxy {
    fn tenant(&self, headers: &HeaderMap) -> Option<&str> {
        let key = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let tenant = self.settings.tenants.get(key.strip_prefix("Bearer ")?)?;
        Some(tenant)
    }
}

/// Returns the session that OpenCode sees instead of the one that a tenant claims, with its turn
/// and its parent. The same claim of the same tenant always leads to the same session.
pub fn opaque(secret: &str, tenant: &str, claimed: &Session) -> Session {
    claimed.derived(format!("{secret}/{tenant}"))
}
