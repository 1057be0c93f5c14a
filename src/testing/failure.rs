//! What a test makes go wrong.

use std::time::Duration;

use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use super::answer::Answer;
use super::outcome::Outcome;

/// Something that goes wrong with a request that would otherwise succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The answer has this status and an error as its body.
    Status(StatusCode),
    /// 429 `RateLimitError`, with `retry-after` in whole seconds.
    RateLimit {
        /// How long the client should wait.
        retry_after: Duration,
    },
    /// 429 `GoUsageLimitError`: a limit of OpenCode Go is used up, and `retry-after` is an hour.
    GoUsageLimit,
    /// 429 `FreeUsageLimitError`: the limit of free models is used up, and `retry-after` is an
    /// hour.
    FreeUsageLimit,
    /// 503 `api_error`: the model has no provider at the moment.
    Unavailable,
    /// 307 to this address, absolute or not, such as
    /// [`Gateway::elsewhere`](super::Gateway::elsewhere), which is a non-target.
    Redirect {
        /// The value of the header `location`.
        location: String,
    },
    /// The answer comes this much later.
    Delay(Duration),
    /// The connection is closed without an answer.
    CloseBeforeAnswer,
    /// The connection is closed halfway through the answer's body.
    CloseMidAnswer,
}

impl Failure {
    /// Returns what happens instead of an answer, or `None` if there is an answer.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        const HOUR: Duration = Duration::from_secs(3600);
        let limit = |kind: &str, message: &str, fields: &str, after: Duration| {
            let status = StatusCode::TOO_MANY_REQUESTS;
            let mut outcome = Outcome::error_with(status, kind, message, fields);
            let seconds = after.as_secs().into();
            outcome.headers.insert(RETRY_AFTER, seconds);
            outcome
        };
        Some(match self {
            Self::Status(StatusCode::SERVICE_UNAVAILABLE) | Self::Unavailable => {
                Outcome::unavailable()
            }
            Self::Status(status) => {
                let kind = match *status {
                    StatusCode::UNAUTHORIZED => "AuthError",
                    StatusCode::FORBIDDEN => "RegionError",
                    StatusCode::TOO_MANY_REQUESTS => "RateLimitError",
                    _ => "error",
                };
                Outcome::error(*status, kind, "The gateway was told to fail.")
            }
            Self::RateLimit { retry_after } => {
                let message = "Rate limit exceeded. Please try again later.";
                limit("RateLimitError", message, "", *retry_after)
            }
            Self::GoUsageLimit => limit(
                "GoUsageLimitError",
                "5 hour usage limit reached.",
                r#","metadata":{"workspace":"workspace-0","limitName":"5 hour"}"#,
                HOUR,
            ),
            Self::FreeUsageLimit => {
                limit("FreeUsageLimitError", "Free usage limit reached.", "", HOUR)
            }
            Self::Redirect { location } => {
                let mut outcome = Outcome {
                    answer: Answer::with_status(StatusCode::TEMPORARY_REDIRECT),
                    ..Outcome::default()
                };
                // What is not a valid header value cannot be followed either.
                let location = HeaderValue::from_str(location).ok()?;
                outcome.headers.insert(LOCATION, location);
                outcome
            }
            Self::CloseBeforeAnswer => Outcome::default(),
            Self::Delay(_) | Self::CloseMidAnswer => return None,
        })
    }
}
