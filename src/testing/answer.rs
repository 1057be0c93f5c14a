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
    /// Its id, which a call in the Responses format may name as its `previous_response_id`.
    pub id: Option<String>,
    /// What the model said, without its thoughts. Its first [64 KiB](Self::LONGEST_TEXT) count.
    pub text: Option<String>,
    /// The tools that the model called.
    pub tool_calls: Vec<ToolCall>,
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
    /// How much of a text counts, in bytes.
    pub const LONGEST_TEXT: usize = 64 << 10;

    /// Returns an answer of which only the status is known.
    pub fn with_status(status: StatusCode) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }

    /// Adds what the model said next, as far as it is kept.
    pub(super) fn say(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let said = self.text.get_or_insert_default();
        for character in text.chars() {
            if said.len() >= Self::LONGEST_TEXT {
                break;
            }
            said.push(character);
        }
    }
}

/// A call of a tool, as a model asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolCall {
    /// Its id, unless the wire format has none.
    pub id: Option<String>,
    /// The name of the tool.
    pub name: String,
    /// The arguments, as JSON.
    pub arguments: String,
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
