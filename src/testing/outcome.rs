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
    /// If it has no status, the connection is closed.
    pub answer: Answer,
    pub headers: HeaderMap,
    /// The body, in the pieces in which it is sent.
    pub frames: Vec<Bytes>,
    /// Whether the connection is closed halfway through the body.
    pub cut: bool,
}

impl Outcome {
    pub fn json(body: &Value) -> Self {
        Self::with(
            StatusCode::OK,
            "application/json",
            vec![body.to_string().into()],
        )
    }

    pub fn stream(frames: Vec<Bytes>) -> Self {
        Self::with(StatusCode::OK, "text/event-stream", frames)
    }

    fn with(status: StatusCode, content_type: &'static str, frames: Vec<Bytes>) -> Self {
        let content_type = HeaderValue::from_static(content_type);
        Self {
            answer: Answer::with_status(status),
            headers: HeaderMap::from_iter([(http::header::CONTENT_TYPE, content_type)]),
            frames,
            ..Self::default()
        }
    }

    pub fn error(status: StatusCode, kind: &str, message: &str) -> Self {
        Self::error_with(status, kind, message, "")
    }

    /// Returns an error whose outer object has more fields.
    pub fn error_with(status: StatusCode, kind: &str, message: &str, fields: &str) -> Self {
        let body = format!(
            r#"{{"type":"error","error":{}{fields}}}"#,
            error(kind, message)
        );
        Self::refusal(status, kind, message, body)
    }

    fn refusal(status: StatusCode, kind: &str, message: &str, body: String) -> Self {
        let mut outcome = Self::with(status, "application/json", vec![body.into()]);
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

    pub fn unavailable() -> Self {
        let (kind, message) = ("api_error", "No provider is available.");
        let body = format!(r#"{{"error":{}}}"#, error(kind, message));
        Self::refusal(StatusCode::SERVICE_UNAVAILABLE, kind, message, body)
    }

    /// Returns the answer to a body that is not JSON.
    pub fn internal_error() -> Self {
        let body = Bytes::from_static(b"Internal server error");
        let mut outcome = Self::with(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain;charset=UTF-8",
            vec![body],
        );
        outcome.answer.error_message = Some("Internal server error".to_owned());
        outcome
    }

    pub fn too_large(limit: usize) -> Self {
        let message = format!("The body is longer than {limit} bytes.");
        Self::error(StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLarge", &message)
    }

    /// Returns the answer to a browser that asks what a page of another origin may send.
    pub fn preflight() -> Self {
        let headers = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            // Not `x-opencode-session`.
            (
                "access-control-allow-headers",
                "Content-Type, Authorization, x-api-key, x-goog-api-key, anthropic-version",
            ),
        ];
        let headers = headers.map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        Self {
            answer: Answer::with_status(StatusCode::OK),
            headers: HeaderMap::from_iter(headers),
            ..Self::default()
        }
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
