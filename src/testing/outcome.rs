//! What to do with a request, and the answers that do not come from a model.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::body::Bytes;
use serde_json::Value;

use super::answer::Answer;

/// What to do with a request.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub delay: Duration,
    /// The whole answer. If it has no status, the connection is closed.
    pub answer: Answer,
    pub headers: HeaderMap,
    /// The body, in the pieces in which it is sent.
    pub frames: Vec<Frame>,
    /// Whether the connection is closed halfway through the body.
    pub cut: bool,
}

/// A piece of a body, and what a client learns from it.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub bytes: Bytes,
    pub told: Answer,
}

impl From<Bytes> for Frame {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }
}

impl Outcome {
    pub fn json(body: &Value) -> Self {
        Self::with(
            StatusCode::OK,
            "application/json",
            vec![Bytes::from(body.to_string()).into()],
        )
    }

    pub fn stream(frames: Vec<Frame>) -> Self {
        Self::with(StatusCode::OK, "text/event-stream", frames)
    }

    fn with(status: StatusCode, content_type: &'static str, frames: Vec<Frame>) -> Self {
        let content_type = HeaderValue::from_static(content_type);
        Self {
            answer: Answer::with_status(status),
            headers: HeaderMap::from_iter([(http::header::CONTENT_TYPE, content_type)]),
            frames,
            ..Self::default()
        }
    }

    pub fn error(status: StatusCode, kind: &str, message: &str) -> Self {
        let body = format!(r#"{{"type":"error","error":{}}}"#, error(kind, message));
        Self::refusal(status, kind, message, body)
    }

    /// Returns the error of a limit, with `metadata`, a JSON object.
    pub fn limited(kind: &str, message: &str, metadata: &str) -> Self {
        let body = format!(
            r#"{{"type":"error","error":{},"metadata":{metadata}}}"#,
            error(kind, message)
        );
        Self::refusal(StatusCode::TOO_MANY_REQUESTS, kind, message, body)
    }

    fn refusal(status: StatusCode, kind: &str, message: &str, body: String) -> Self {
        let mut outcome = Self::with(status, "application/json", vec![Bytes::from(body).into()]);
        outcome.answer.error = Some(kind.to_owned());
        outcome.answer.error_message = Some(message.to_owned());
        outcome
    }

    /// Returns OpenCode Go's answer to a request without a session.
    pub fn missing_session() -> Self {
        let message = "Error from provider (Console Go): Request is missing \
            x-opencode-session and cannot be routed efficiently. \
            Please see https://opencode.ai/docs/go/#where-can-i-use-it";
        Self::error(StatusCode::BAD_REQUEST, "MissingSessionID", message)
    }

    /// Returns the answer of `/zen` if `/inference` cannot be reached.
    pub fn unavailable() -> Self {
        let kind = "api_error";
        let message = "Inference routing is unavailable. Please retry later.";
        let body = format!(r#"{{"error":{}}}"#, error(kind, message));
        Self::refusal(StatusCode::SERVICE_UNAVAILABLE, kind, message, body)
            .with_headers([("cache-control", "no-store")])
    }

    /// Returns the answer to a body that is not JSON.
    pub fn internal_error() -> Self {
        // That of the newer source; the older one answered with the message as plain text.
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::error(status, "error", "Internal server error")
    }

    /// Returns the answer to every client but OpenCode's own that asks for a free model.
    pub fn free_tier() -> Self {
        let message = "Error from provider (Console): \
            OpenCode's free tier can only be used from within OpenCode";
        Self::error(StatusCode::FORBIDDEN, "FreeTierError", message)
    }

    /// Returns the answer to a call that comes by WebSocket.
    pub fn upgrade_required() -> Self {
        // What the real gateway answers is not known; this one makes Codex go on by HTTP at once.
        let status = StatusCode::UPGRADE_REQUIRED;
        let message = "There is no WebSocket here: send the call with POST.";
        Self::error(status, "UpgradeRequired", message).with_headers([("upgrade", "HTTP/1.1")])
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("The body is longer than {limit} bytes.");
        Self::error(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", &message)
    }

    /// Returns the answer to a browser that asks what a page of another origin may send.
    pub fn preflight() -> Self {
        let headers = [
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            // Not `x-opencode-session`.
            (
                "access-control-allow-headers",
                "Content-Type, Authorization, x-api-key, x-goog-api-key, anthropic-version",
            ),
        ];
        let outcome = Self {
            answer: Answer::with_status(StatusCode::OK),
            ..Self::default()
        };
        outcome.for_any_origin().with_headers(headers)
    }

    /// Lets a page of any origin read the answer.
    pub fn for_any_origin(self) -> Self {
        self.with_headers([("access-control-allow-origin", "*")])
    }

    /// Adds headers. A value that no header can have is left out.
    pub fn with_headers<const N: usize>(mut self, headers: [(&'static str, &str); N]) -> Self {
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                self.headers.insert(HeaderName::from_static(name), value);
            }
        }
        self
    }
}

fn error(kind: &str, message: &str) -> String {
    // Written out, to keep the order of the fields.
    format!(
        r#"{{"type":{},"message":{}}}"#,
        Value::from(kind),
        Value::from(message)
    )
}
