//! What a test makes go wrong.

use std::fmt;
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
    /// 401 `ModelError`: the model is unknown or disabled. Nothing is wrong with the key.
    UnknownModel,
    /// 400 `ModelProtocolUnsupported`: the model does not speak this wire format.
    ProtocolUnsupported,
    /// 400 `server_error`, "Model is unavailable": this model alone, for the moment.
    ModelUnavailable,
    /// 403 `FreeTierError`: free models are for OpenCode's own client alone.
    FreeTier,
    /// 403 `EntitlementError`: the key's owner has no subscription to OpenCode Go. A request for
    /// Go's limits is also refused, if it comes before the call.
    Entitlement,
    /// 503 `api_error`: the gateway cannot route calls at the moment.
    Unavailable,
    /// 307 to this address, absolute or not, such as
    /// [`Gateway::elsewhere`](super::Gateway::elsewhere), which is no target.
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

/// Writes what was done.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "answered with {}", status.as_u16()),
            Self::RateLimit { retry_after } => {
                write!(f, "limited for {} seconds", retry_after.as_secs())
            }
            Self::GoUsageLimit => f.write_str("answered with Go's usage limit"),
            Self::FreeUsageLimit => f.write_str("answered with the limit of free models"),
            Self::UnknownModel => f.write_str("answered with an unknown model"),
            Self::ProtocolUnsupported => f.write_str("answered with an unsupported protocol"),
            Self::ModelUnavailable => f.write_str("answered with an unavailable model"),
            Self::FreeTier => f.write_str("answered with the refusal of free models"),
            Self::Entitlement => f.write_str("answered with a missing subscription"),
            Self::Unavailable => f.write_str("answered with 503"),
            Self::Redirect { location } => write!(f, "redirected to {location}"),
            Self::Delay(delay) => write!(f, "delayed by {} seconds", delay.as_secs_f64()),
            Self::CloseBeforeAnswer => f.write_str("closed without an answer"),
            Self::CloseMidAnswer => f.write_str("closed halfway through the answer"),
        }
    }
}

impl Failure {
    /// Returns what happens instead of an answer, or `None` if there is an answer.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        const HOUR: Duration = Duration::from_secs(3600);
        let limited = |kind: &str, message: &str, metadata: &str, after: Duration| {
            let mut outcome = Outcome::limited(kind, message, metadata);
            outcome.headers.insert(RETRY_AFTER, after.as_secs().into());
            outcome
        };
        let told = "The gateway was told to fail.";
        Some(match self {
            Self::Status(StatusCode::SERVICE_UNAVAILABLE) | Self::Unavailable => {
                Outcome::unavailable()
            }
            Self::Status(StatusCode::TOO_MANY_REQUESTS) => {
                Outcome::limited("RateLimitError", told, "{}")
            }
            Self::Status(status) => {
                let kind = match *status {
                    StatusCode::UNAUTHORIZED => "AuthError",
                    StatusCode::FORBIDDEN => "RegionError",
                    _ => "error",
                };
                Outcome::error(*status, kind, told)
            }
            Self::RateLimit { retry_after } => {
                let message = "Rate limit exceeded. Please try again later.";
                limited("RateLimitError", message, "{}", *retry_after)
            }
            Self::GoUsageLimit => limited(
                "GoUsageLimitError",
                "5 hour usage limit reached.",
                r#"{"workspace":"workspace-0","limitName":"5 hour"}"#,
                HOUR,
            ),
            Self::FreeUsageLimit => {
                let message = "Free usage limit reached.";
                limited("FreeUsageLimitError", message, "{}", HOUR)
            }
            Self::UnknownModel => {
                let message = "Model is disabled";
                Outcome::error(StatusCode::UNAUTHORIZED, "ModelError", message)
            }
            Self::ProtocolUnsupported => {
                let message = "Model does not support this protocol.";
                Outcome::error(StatusCode::BAD_REQUEST, "ModelProtocolUnsupported", message)
            }
            Self::ModelUnavailable => {
                let message = "Model is unavailable";
                Outcome::error(StatusCode::BAD_REQUEST, "server_error", message)
            }
            Self::FreeTier => Outcome::free_tier(),
            Self::Entitlement => {
                let message = "OpenCode Go subscription required.";
                Outcome::error(StatusCode::FORBIDDEN, "EntitlementError", message)
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
