//! What the gateway saw.

use std::fmt;
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::header;

/// A request that the gateway saw, and what it made of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SeenRequest {
    /// When it had come in.
    pub at: SystemTime,
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// All headers; those that bear a key are marked as sensitive, so that `Debug` does not print
    /// it.
    pub headers: HeaderMap,
    /// The session, from `x-opencode-session` or another name that the gateway accepts.
    pub session: Option<String>,
    /// `x-opencode-request`.
    pub turn: Option<String>,
    /// `x-opencode-client`.
    pub client: Option<String>,
    /// `x-opencode-project`.
    pub project: Option<String>,
    /// `x-parent-session-id`.
    pub parent: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The provider that was picked, unless the request was refused before that.
    pub provider: Option<String>,
    /// The status of the answer; none where the connection was closed without one.
    pub status: Option<StatusCode>,
    /// The tokens of the prompt.
    pub prompt_tokens: u64,
    /// Those of them that the provider had seen of this conversation before.
    pub cached_tokens: u64,
}

impl SeenRequest {
    pub(super) fn new(head: &Parts) -> Self {
        let mut headers = head.headers.clone();
        for name in [AUTHORIZATION, X_API_KEY, X_GOOG_API_KEY] {
            if let Some(key) = headers.get_mut(name) {
                key.set_sensitive(true);
            }
        }
        Self {
            at: SystemTime::now(),
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            session: header::SESSION_NAMES
                .iter()
                .find_map(|name| value(&headers, name)),
            turn: value(&headers, &header::TURN),
            client: value(&headers, &header::CLIENT),
            project: value(&headers, &header::PROJECT),
            parent: value(&headers, &header::PARENT_SESSION),
            headers,
            model: None,
            provider: None,
            status: None,
            prompt_tokens: 0,
            cached_tokens: 0,
        }
    }
}

pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(super) const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// A header as the gateway reads it: several values joined by commas, and an empty one as none.
pub(super) fn value(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|value| value.as_bytes().iter().copied().map(char::from).collect())
        .collect();
    Some(values.join(", ")).filter(|value| !value.is_empty())
}

impl fmt::Display for SeenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        match &self.session {
            Some(session) => write!(f, " in session {session}")?,
            None => f.write_str(" without a session")?,
        }
        match self.status {
            Some(status) => write!(f, ", answered {status}"),
            None => f.write_str(", not answered"),
        }
    }
}

/// Panics with the requests that miss what all must have, or where there is no request at all.
#[track_caller]
pub(super) fn assert_each(
    requests: &[SeenRequest],
    expectation: &str,
    meets: impl Fn(&SeenRequest) -> bool,
) {
    assert!(
        !requests.is_empty(),
        "the gateway saw no request, expected some {expectation}"
    );
    let missed: String = requests
        .iter()
        .enumerate()
        .filter(|(_, request)| !meets(request))
        .map(|(index, request)| format!("\n  #{} {request}", index + 1))
        .collect();
    let count = missed.lines().skip(1).count();
    assert!(
        missed.is_empty(),
        "{count} of {} requests were not {expectation}:{missed}",
        requests.len(),
    );
}
