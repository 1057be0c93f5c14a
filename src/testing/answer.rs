//! How a call was answered.

use http::StatusCode;

/// How a request was answered, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: Option<StatusCode>,
    /// The `error.type` of a refusal.
    pub error: Option<String>,
    /// The message of a refusal.
    pub error_message: Option<String>,
    /// The provider that was picked.
    pub provider: Option<String>,
    /// The tokens.
    pub usage: Option<Usage>,
    /// What the gateway bills, in US dollars.
    pub cost: Option<f64>,
    /// What the model said, up to its first 64 KiB, by which a compaction is recognised.
    pub text: Option<String>,
    /// The failure that a test gateway was told to answer with, in words.
    pub failure: Option<String>,
    /// How it ended, if this is all that will be known of it.
    pub end: Option<End>,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// The client has all of it.
    Whole,
    /// The client left before that.
    ClientLeft,
    /// The gateway closed the connection before that, or never answered.
    Cut,
}

impl Answer {
    /// Returns an answer of which only the status is known.
    pub fn with_status(status: StatusCode) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }
}

/// The tokens of a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The tokens of the prompt, including the cached ones.
    pub prompt: u64,
    /// The tokens of the prompt's start that the provider had in its cache.
    pub cached: u64,
    /// The tokens of the answer.
    pub output: u64,
}
