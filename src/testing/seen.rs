//! A call as a gateway saw it, and its marks.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use hyper::body::Bytes;

use super::answer::{Answer, End, Usage};
use super::endpoint::Call;
use super::prompt::{Prompt, first_words};
use crate::{header, session};

/// A request, what it asks for, and how it was answered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SeenRequest {
    /// Its number, counted from 1 and never reused.
    pub number: u64,
    /// When it was received.
    pub at: SystemTime,
    /// The method.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// All headers. Those that may carry a key are marked as sensitive, so that `Debug` does not
    /// print them.
    pub headers: HeaderMap,
    /// The body as it came, unless it was not read or is no longer [kept](super::Limits::bodies).
    pub body: Option<Bytes>,

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
    /// Whether the request asks for a stream.
    pub stream: bool,
    /// The names of the tools that the model may call.
    pub tools: Vec<String>,
    /// How many messages the prompt has, including those of the system.
    pub messages: usize,
    /// The first words of the system prompt.
    pub system: Option<String>,
    /// The first words that the user typed last.
    pub prompt: Option<String>,

    /// The first words of the model's last message in the prompt.
    pub recalls: Option<String>,

    /// The first words of the answer.
    pub said: Option<String>,
    /// The provider that was picked, unless the request was refused before that.
    pub provider: Option<String>,
    /// The status of the answer, once there is one.
    pub status: Option<StatusCode>,
    /// The `error.type` of a refusal, such as `MissingSessionID`.
    pub error: Option<String>,
    /// The message of a refusal.
    pub error_message: Option<String>,
    /// The tokens of the prompt.
    pub prompt_tokens: u64,
    /// The tokens of the prompt that the provider had in its cache.
    pub cached_tokens: u64,
    /// The tokens of the answer.
    pub output_tokens: u64,
    /// What the gateway bills, in US dollars, if its answer says so.
    pub cost: Option<f64>,
    /// The failure that the test gateway was told to answer with, in words.
    pub failure: Option<String>,
    /// How its answer ended, once it has, as far as its gateway or proxy has said.
    pub end: Option<End>,
    /// How long it took until its status was known.
    pub answered_after: Option<Duration>,
    /// How long it took until its answer ended.
    pub ended_after: Option<Duration>,

    /// Whether it asks a model, and what it asks could not be read: its body is no JSON, is
    /// compressed, or was not kept. Then its conversation is not judged.
    pub unread: bool,
    /// The number of the request whose conversation this one continues.
    pub continues: Option<u64>,
    /// What stands out in it.
    pub marks: Vec<Mark>,
}

/// Something that stands out in a request. `Display` describes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mark {
    /// A call to a model without a session.
    Missing,
    /// The session header appears more than once, so that the gateway reads all its values as one
    /// id.
    Doubled,
    /// The session is longer than 128 characters, or not all of them are visible ASCII characters.
    Malformed,
    /// It continues a prompt of another session.
    Moved {
        /// The number of the request that it continues.
        continues: u64,
        /// The session of that request.
        from: String,
        /// Whether the conversation was in this session before. If not, this may be a fork; if so,
        /// the conversation goes back and forth between sessions.
        back: bool,
    },
    /// Its session also contains another conversation.
    Shared {
        /// The number of the request that its conversation began with.
        conversation: u64,
        /// The number of the request that the other one began with.
        other: u64,
        /// Whether this conversation was there before the other one went on. If not, its first
        /// message may be an edit of the other one's; if so, the two take turns.
        back: bool,
    },
    /// It continues nothing, and contains an answer that was given in exactly one other session: a
    /// helper call under an id of its own, such as one for a summary, or a conversation that goes on
    /// from its summary in a new session. It may also be a text that a user or an agent passed on, so
    /// it is not a [fault](Self::is_fault) in itself.
    Quotes {
        /// The number of the request that was answered so.
        call: u64,
        /// The session of that request.
        session: String,
    },
    /// It is in [`Session::process`](crate::Session), the process-wide session. This suits a
    /// program with one conversation, and no server. It is not a [fault](Self::is_fault) in itself.
    ProcessSession,
}

impl Mark {
    /// Returns its name: `missing`, `doubled`, `malformed`, `moved`, `shared`, `quotes` or `process`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Malformed => "malformed",
            Self::Moved { .. } => "moved",
            Self::Shared { .. } => "shared",
            Self::Quotes { .. } => "quotes",
            Self::ProcessSession => "process",
        }
    }

    /// Returns whether it is wrong in any program.
    pub fn is_fault(&self) -> bool {
        !matches!(self, Self::Quotes { .. } | Self::ProcessSession)
    }

    /// Returns whether it may be a fork: a conversation that goes on in a session new to it.
    pub fn may_be_fork(&self) -> bool {
        matches!(self, Self::Moved { back: false, .. })
    }

    /// Returns whether it may be an edit: a conversation whose first message was changed.
    pub fn may_be_edit(&self) -> bool {
        matches!(self, Self::Shared { back: false, .. })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no session"),
            Self::Doubled => f.write_str("the session header appears more than once"),
            Self::Malformed => f.write_str(
                "the session is not an id of 1 to 128 visible ASCII characters without spaces",
            ),
            Self::Moved {
                continues,
                from,
                back: false,
            } => write!(
                f,
                "moved: it continues #{continues}, which was in session {from}, or is a fork of it"
            ),
            Self::Moved {
                continues, from, ..
            } => write!(
                f,
                "moved back to this session: it continues #{continues}, \
                which was in session {from}"
            ),
            Self::Shared {
                conversation,
                other,
                back,
            } => {
                write!(
                    f,
                    "shared: its session contains the conversation that began with \
                    #{conversation} and the one that began with #{other}"
                )?;
                f.write_str(match back {
                    true => ", by turns",
                    false => ", or this is an edit of its first message",
                })
            }
            Self::Quotes { call, session } => write!(
                f,
                "quotes the answer to #{call}, which was in session {session}: \
                a helper call outside of that session, or a text that was passed on"
            ),
            Self::ProcessSession => f.write_str("in the process-wide session"),
        }
    }
}

impl SeenRequest {
    pub(super) fn new(head: &Parts, body: Option<Bytes>, prompt: Option<&Prompt>) -> Self {
        // Copied, because a value may be a slice of the connection's whole read buffer.
        let headers: HeaderMap = head.headers.iter().map(copied).collect();
        let path = head.uri.path();
        let call = Call::at_end_of(path);
        let session_name = header::SESSION_NAMES
            .into_iter()
            .map(HeaderName::from_static)
            .find(|name| value(&headers, name).is_some());
        let session_name = session_name.as_ref();
        let unread = prompt.is_none();
        let empty = Prompt::default();
        let prompt = prompt.unwrap_or(&empty);
        let model = call.as_ref().and_then(|call| call.model.clone());
        let mut request = Self {
            number: 0,
            at: SystemTime::now(),
            method: head.method.clone(),
            path: path.to_owned(),
            body,
            session: session_name.and_then(|name| value(&headers, name)),
            turn: value(&headers, &header::TURN),
            client: value(&headers, &header::CLIENT),
            project: value(&headers, &header::PROJECT),
            parent: value(&headers, &header::PARENT_SESSION),
            model: model.or_else(|| prompt.model.clone()),
            stream: prompt.stream || call.is_some_and(|call| call.stream),
            tools: prompt.tools.clone(),
            messages: prompt.messages,
            system: prompt.system.clone(),
            prompt: prompt.user.clone(),
            recalls: prompt.recalls.clone(),
            said: None,
            provider: None,
            status: None,
            error: None,
            error_message: None,
            prompt_tokens: 0,
            cached_tokens: 0,
            output_tokens: 0,
            cost: None,
            failure: None,
            end: None,
            answered_after: None,
            ended_after: None,
            unread: false,
            continues: None,
            marks: vec![],
            headers,
        };
        request.unread = unread && request.asks_a_model();
        let mark = match (session_name, &request.session) {
            _ if !request.asks_a_model() => None,
            (Some(name), _) if request.headers.get_all(name).iter().count() > 1 => {
                Some(Mark::Doubled)
            }
            (Some(name), _) if header::sole_token(&request.headers, name).is_none() => {
                Some(Mark::Malformed)
            }
            (_, Some(id))
                if session::process_id().is_some_and(|process| process.as_ref() == id) =>
            {
                Some(Mark::ProcessSession)
            }
            (_, None) => Some(Mark::Missing),
            _ => None,
        };
        request.marks.extend(mark);
        request
    }

    /// Returns whether it is a call: whether it asks a model, and so needs a session. Its path says
    /// so. A request for the list of models, to count tokens or to open a WebSocket does not.
    pub fn asks_a_model(&self) -> bool {
        self.method == Method::POST && Call::at_end_of(&self.path).is_some()
    }

    /// Returns whether one of its marks is a [fault](Mark::is_fault).
    pub fn has_fault(&self) -> bool {
        self.marks.iter().any(Mark::is_fault)
    }

    /// Returns whether it was answered with an error, or its answer was cut off.
    pub fn is_refused(&self) -> bool {
        let status = self.status;
        self.error.is_some() || status.is_some_and(|s| s.is_client_error() || s.is_server_error())
    }

    /// Returns whether it is a call that has a fault, was refused, or [quotes](Mark::Quotes) another
    /// session.
    pub fn stands_out(&self) -> bool {
        let quotes = |mark: &Mark| matches!(mark, Mark::Quotes { .. });
        let stands_out = self.has_fault() || self.is_refused() || self.marks.iter().any(quotes);
        self.asks_a_model() && stands_out
    }

    /// Returns what kind of call it looks like: `title`, `summary`, `commit message` or `call`, or,
    /// for a request that does not ask a model, `models` or `request`.
    ///
    /// This is a guess by the words of a prompt without tools, for people to read.
    pub fn kind(&self) -> &'static str {
        if !self.asks_a_model() {
            return match self.path.ends_with("/models") {
                true => "models",
                false => "request",
            };
        }
        let words = [&self.system, &self.prompt].map(|words| words.as_deref().unwrap_or_default());
        let words = words.join(" ").to_ascii_lowercase();
        let kinds = [
            ("commit message", "commit message"),
            ("title", "title"),
            ("summar", "summary"),
            ("compact", "summary"),
        ];
        let kind = kinds.iter().find(|(word, _)| words.contains(word));
        match kind {
            Some((_, kind)) if self.tools.is_empty() => kind,
            _ => "call",
        }
    }

    /// Describes the call in a few words: `title: 'Generate a title…', kimi-k3, 2 messages, no
    /// tools`.
    pub fn name(&self) -> String {
        if !self.asks_a_model() {
            return self.kind().to_owned();
        }
        let count = |count: usize, what: &str| match count {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        let words = self.prompt.as_deref().or(self.system.as_deref());
        let parts = [
            words.map_or_else(
                || "no prompt".to_owned(),
                |words| format!("'{}'", short(words)),
            ),
            self.model.clone().unwrap_or_else(|| "no model".to_owned()),
            count(self.messages, "message"),
            count(self.tools.len(), "tool"),
        ];
        format!("{}: {}", self.kind(), parts.join(", "))
    }

    pub(super) fn take(&mut self, answer: &Answer) {
        fn update<T: Clone>(own: &mut Option<T>, new: &Option<T>) {
            if new.is_some() {
                own.clone_from(new);
            }
        }
        update(&mut self.status, &answer.status);
        update(&mut self.error, &answer.error);
        update(&mut self.error_message, &answer.error_message);
        update(&mut self.provider, &answer.provider);
        if let Some(text) = &answer.text {
            self.said = first_words([text.as_str()].into_iter());
        }
        update(&mut self.cost, &answer.cost);
        update(&mut self.failure, &answer.failure);
        update(&mut self.end, &answer.end);
        let after = self.at.elapsed().unwrap_or_default();
        if self.status.is_some() {
            self.answered_after.get_or_insert(after);
        }
        if self.end.is_some() {
            self.ended_after.get_or_insert(after);
        }
        if let Some(Usage {
            prompt,
            cached,
            output,
        }) = answer.usage
        {
            self.prompt_tokens = prompt;
            self.cached_tokens = cached;
            self.output_tokens = output;
        }
    }
}

impl fmt::Display for SeenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} ", self.number)?;
        if self.asks_a_model() {
            write!(f, "{}: ", self.name())?;
        }
        write!(f, "{} {}", self.method, self.path)?;
        match &self.session {
            Some(session) => write!(f, " in session {session}")?,
            None => f.write_str(" without a session")?,
        }
        match (self.status, &self.error) {
            (None, _) => f.write_str(", not answered")?,
            (Some(status), None) => write!(f, ", answered {status}")?,
            (Some(status), Some(error)) => write!(f, ", answered {status} ({error})")?,
        }
        if self.unread {
            f.write_str("; its prompt could not be read")?;
        }
        for mark in self.marks.iter().filter(|mark| **mark != Mark::Missing) {
            write!(f, "; {mark}")?;
        }
        Ok(())
    }
}

/// Returns the agent that made a call, if it names itself: Claude Code's agents share a session.
pub(super) fn agent(headers: &HeaderMap) -> Option<String> {
    const AGENT: HeaderName = HeaderName::from_static("x-claude-code-agent-id");
    value(headers, &AGENT)
}

/// Copies a header, and marks it as sensitive if it may carry a key.
fn copied((name, value): (&HeaderName, &HeaderValue)) -> (HeaderName, HeaderValue) {
    let name = HeaderName::from_bytes(name.as_str().as_bytes()).expect("it is a header's name");
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).expect("it is a header's value");
    copy.set_sensitive(value.is_sensitive() || header::is_secret(&name));
    (name, copy)
}

/// Returns a header as the gateway reads it: several values are joined by commas, and an empty one
/// is `None`.
pub(super) fn value(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<String> = headers
        .get_all(name)
        .iter()
        .map(|value| value.as_bytes().iter().copied().map(char::from).collect())
        .collect();
    Some(values.join(", ")).filter(|value| !value.is_empty())
}

/// Returns the beginning of an excerpt, cut between words.
fn short(words: &str) -> String {
    const LENGTH: usize = 40;
    let Some((end, _)) = words.char_indices().nth(LENGTH) else {
        return words.to_owned();
    };
    // If the first word is too long, it is cut.
    let end = words[..end].rfind(' ').unwrap_or(end);
    format!("{}…", &words[..end])
}
