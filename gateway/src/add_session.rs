//! Adds a session to calls that carry none: `--add-session`.
//!
//! Which conversation a call belongs to is known by what it says, as the log judges it. Only calls
//! with the same key are compared.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts;
use hyper::body::Bytes;
use reqwest_opencode_session::testing::record::{Answer, End, Log};
use reqwest_opencode_session::testing::{Limits, SeenRequest};
use reqwest_opencode_session::{
    Applied, Fallback, OpencodeSessionMiddleware, Session, SessionId, Source,
};
use serde_json::Value;

use crate::options::Upstream;

/// Adds sessions to the calls to one upstream.
#[derive(Clone)]
pub struct AddSession(Arc<Shared>);

struct Shared {
    middleware: OpencodeSessionMiddleware,
    hasher: RandomState,
    keys: Mutex<Keys>,
}

/// The conversations with each key, by a hash of it; and the hashes, the oldest first.
#[derive(Default)]
struct Keys {
    conversations: HashMap<u64, Arc<Mutex<Conversations>>>,
    order: VecDeque<u64>,
}

/// The conversations with one key.
struct Conversations {
    log: Log,
    /// The session of each call, and its number for people.
    calls: BTreeMap<u64, (SessionId, u64)>,
    /// The sessions of calls that got no whole answer, by a hash of what they asked.
    unanswered: BTreeMap<u64, (SessionId, u64)>,
    begun: VecDeque<Begun>,
}

/// A conversation that began, by what its user typed first.
struct Begun {
    session: SessionId,
    number: u64,
    /// The first letters and digits of it.
    typed: String,
    /// Those of all that a helper was asked, if there was no other call so far.
    helper: Option<String>,
}

/// Where a session that was added comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// Another header of the call.
    OtherHeader,
    /// The conversation of this call, which it continues or quotes.
    From(u64),
    /// The same call before, which got no whole answer.
    Again(u64),
    /// A helper of this call, or the call that this helper is for, by what the user typed.
    Typed(u64),
    /// Nothing: it begins a conversation.
    New,
}

impl fmt::Display for Added {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherHeader => f.write_str("session added, of another header"),
            Self::From(number) => write!(f, "session added, that of #{number}"),
            Self::Again(number) => write!(f, "session added, that of #{number} before it"),
            Self::Typed(number) => write!(f, "session added, that of #{number} by its words"),
            Self::New => f.write_str("session added, a new one"),
        }
    }
}

/// The evidence that one call gives, as it goes on.
pub struct Evidence {
    conversations: Arc<Mutex<Conversations>>,
    /// Its number in the log of its key, and for people.
    call: u64,
    number: u64,
    asked: u64,
    session: SessionId,
}

/// How much is remembered of each key, and how many keys are.
const CALLS: usize = 5_000;
const KEYS: usize = 200;

/// How many calls with one key may be under way, so that their answers are evidence.
const AT_ONCE: usize = 1_000;

/// How many conversations are compared by what their users typed.
const BEGUN: usize = 64;

/// The shortest text that belongs to one conversation alone, in letters and digits.
const SHORTEST: usize = 24;

impl AddSession {
    pub fn new(upstream: &Upstream) -> Result<Self> {
        let middleware = OpencodeSessionMiddleware::builder()
            .targets([upstream.to_string().as_str()])
            .fallback(Fallback::Omit)
            .build()
            .context("cannot add sessions")?;
        Ok(Self(Arc::new(Shared {
            middleware,
            hasher: RandomState::new(),
            keys: Mutex::default(),
        })))
    }

    /// Gives a request that goes to the upstream a session, if it is a call that carries none.
    /// Calls `record` with what was added, for the request's number.
    pub fn apply(
        &self,
        head: &mut Parts,
        body: &Bytes,
        record: impl FnOnce(&Parts, Option<Added>) -> u64,
    ) -> Option<Evidence> {
        let conversations = self.conversations(head);
        // One after another, so that each call is evidence for the next.
        let mut own = lock(&conversations);
        let (request, belongs_to) = own.log.look_up(head, body.clone());
        if !request.asks_a_model() {
            record(head, None);
            return None;
        }
        let asked = self.0.hasher.hash_one((head.uri.path(), body));
        // This cannot fail: without a session, the request goes on as it is.
        let applied = self.0.middleware.apply(head).unwrap_or(Applied::NoSession);
        let added = match applied {
            Applied::NoSession => {
                let (session, added) = own.find(&request, body, belongs_to, asked);
                let bound = self.0.middleware.bound_to(Session::from(session));
                let _ = bound.apply(head);
                Some(added)
            }
            Applied::Session(Source::OtherHeader) => Some(Added::OtherHeader),
            _ => None,
        };
        let number = record(head, added);
        let session = Session::from_headers(&head.headers)?.id().clone();
        let call = own.log.record(head, body.clone());
        own.add(call, number, &session);
        if added == Some(Added::New) {
            own.begin(number, session.clone(), &request, body);
        }
        drop(own);
        Some(Evidence {
            conversations,
            call,
            number,
            asked,
            session,
        })
    }

    /// Returns the conversations with the key of a request.
    fn conversations(&self, head: &Parts) -> Arc<Mutex<Conversations>> {
        let names = [
            AUTHORIZATION,
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("x-goog-api-key"),
        ];
        let values = names.map(|name| {
            head.headers
                .get(name)
                .map(|value| value.as_bytes().to_vec())
        });
        let query = head.uri.query().unwrap_or_default();
        let in_query = query.split('&').find(|part| part.starts_with("key="));
        let key = self.0.hasher.hash_one((values, in_query));
        let mut keys = lock(&self.0.keys);
        if let Some(known) = keys.conversations.get(&key) {
            return Arc::clone(known);
        }
        let new = Arc::new(Mutex::new(Conversations::new()));
        keys.conversations.insert(key, Arc::clone(&new));
        keys.order.push_back(key);
        if keys.order.len() > KEYS {
            let oldest = keys.order.pop_front();
            oldest.map(|oldest| keys.conversations.remove(&oldest));
        }
        new
    }
}

impl Conversations {
    fn new() -> Self {
        let limits = Limits::default().requests(AT_ONCE).bodies(0).prompts(CALLS);
        Self {
            log: Log::with_limits(limits),
            calls: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            begun: VecDeque::new(),
        }
    }

    /// Returns the session of the conversation that a call belongs to, or a new one.
    fn find(
        &mut self,
        request: &SeenRequest,
        body: &[u8],
        belongs_to: Option<u64>,
        asked: u64,
    ) -> (SessionId, Added) {
        if let Some((session, number)) = self.unanswered.remove(&asked) {
            return (session, Added::Again(number));
        }
        if let Some((session, number)) = belongs_to.and_then(|call| self.calls.get(&call)) {
            return (session.clone(), Added::From(*number));
        }
        if let Some(begun) = self.by_words(request, body) {
            return (begun.session.clone(), Added::Typed(begun.number));
        }
        (SessionId::new(), Added::New)
    }

    /// Returns the only conversation that a helper is for, or whose helper came first.
    fn by_words(&mut self, request: &SeenRequest, body: &[u8]) -> Option<&Begun> {
        let is_helper = is_helper(request);
        let words = match is_helper {
            true => all_letters(body),
            false => typed(request),
        };
        let mut found = None;
        for (at, begun) in self.begun.iter().enumerate() {
            let is_for = match &begun.helper {
                Some(helper) => !is_helper && is_long(&words) && helper.contains(&words),
                None => is_helper && is_long(&begun.typed) && words.contains(&begun.typed),
            };
            if is_for && found.replace(at).is_some() {
                return None;
            }
        }
        let begun = &mut self.begun[found?];
        if !is_helper {
            begun.helper = None;
            begun.typed = words;
        }
        Some(begun)
    }

    /// Notes a call that goes on to the upstream.
    fn add(&mut self, call: u64, number: u64, session: &SessionId) {
        self.calls.insert(call, (session.clone(), number));
        if self.calls.len() > CALLS {
            self.calls.pop_first();
        }
    }

    /// Notes that a conversation began.
    fn begin(&mut self, number: u64, session: SessionId, request: &SeenRequest, body: &[u8]) {
        self.begun.push_back(Begun {
            session,
            number,
            typed: typed(request),
            helper: is_helper(request).then(|| all_letters(body)),
        });
        if self.begun.len() > BEGUN {
            self.begun.pop_front();
        }
    }
}

impl Evidence {
    /// Takes what is known of the answer so far.
    pub fn answer(&self, answer: &Answer) {
        lock(&self.conversations).log.answer(self.call, answer);
    }

    /// Takes how the call ended.
    pub fn ended(&self, answer: &Answer, end: End) {
        let mut own = lock(&self.conversations);
        own.log.answer(self.call, answer);
        let is_success = answer.status.is_some_and(|status| status.is_success());
        if is_success && end == End::Whole && answer.error.is_none() {
            return;
        }
        let again = (self.session.clone(), self.number);
        own.unanswered.insert(self.asked, again);
        if own.unanswered.len() > CALLS {
            own.unanswered.pop_first();
        }
    }
}

/// Returns whether a call is for a conversation rather than one itself, such as for its title.
fn is_helper(request: &SeenRequest) -> bool {
    request.kind() != "call"
}

/// How much of what a user typed is compared, in letters and digits, and of what a helper is asked.
const TYPED: usize = 48;
const ASKED: usize = 64 << 10;

/// Returns the first letters and digits of what the user typed.
fn typed(request: &SeenRequest) -> String {
    let prompt = request.prompt.as_deref().unwrap_or_default();
    prompt
        .chars()
        .filter(|c| c.is_alphanumeric())
        .take(TYPED)
        .collect()
}

fn is_long(letters: &str) -> bool {
    letters.chars().nth(SHORTEST - 1).is_some()
}

/// Returns the letters and digits of all texts in a body.
fn all_letters(body: &[u8]) -> String {
    fn add(value: &Value, letters: &mut String) {
        match value {
            Value::String(text) if letters.len() < ASKED => {
                letters.extend(text.chars().filter(|c| c.is_alphanumeric()));
            }
            Value::Array(items) => items.iter().for_each(|item| add(item, letters)),
            Value::Object(fields) => fields.values().for_each(|field| add(field, letters)),
            _ => {}
        }
    }
    let mut letters = String::new();
    if let Ok(body) = serde_json::from_slice(body) {
        add(&body, &mut letters);
    }
    letters
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
