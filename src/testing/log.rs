//! Keeps what was asked and answered, and has it judged.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::StatusCode;
use http::request::Parts;
use hyper::body::Bytes;
use tokio::sync::watch;

use super::answer::Answer;
use super::continuity::{Continuity, Origin};
use super::outline::{GivenAnswer, Outline, Pieces};
use super::prompt::Prompt;
use super::seen::{Mark, SeenRequest, agent};

/// A record of a gateway's calls that finds what stands out in them.
///
/// [`Gateway::log`](super::Gateway::log) returns the log of a gateway. A proxy in front of the real
/// gateway can keep a log of its own: it [records](Self::record) each request, and then how it was
/// [answered](Self::answer).
///
/// ```
/// use http::{Request, StatusCode};
/// use reqwest_opencode_session::testing::Mark;
/// use reqwest_opencode_session::testing::record::{Answer, Log};
///
/// let log = Log::default();
/// let (request, body) = Request::post("https://opencode.ai/zen/go/v1/chat/completions")
///     .body(r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#)?
///     .into_parts();
/// let number = log.record(&request, body);
/// log.answer(number, &Answer::with_status(StatusCode::BAD_REQUEST));
///
/// let seen = &log.requests()[0];
/// assert_eq!(seen.marks, [Mark::Missing]);
/// assert_eq!(
///     seen.to_string(),
///     "#1 call: 'Hello', kimi-k3, 1 message, no tools: \
///      POST /zen/go/v1/chat/completions without a session, answered 400 Bad Request",
/// );
/// # Ok::<(), http::Error>(())
/// ```
///
/// # Rules
///
/// A client sends the whole conversation with every call. So the prompts and the answers say which
/// call belongs to which conversation, and not the headers.
///
/// - **Missing, doubled and malformed** ids are marked when a call is recorded. A request that does
///   not ask a model, such as one for the list of models, needs no session, and never stands out. A
///   session is not missing where there is no such path: where the answer is 404.
/// - **Conversations** are judged when an answer's status is known. A call that was refused is
///   ignored. One that could not be [read](SeenRequest::unread) is not judged, and the assertions
///   about conversations name it.
/// - **A call continues an earlier one** if its messages begin with that call's, and what the model
///   says next agrees with the answer that was given: both are equal in letters and digits, or both
///   have at least 24 of these and the same 24 at the beginning or the end, or a tool call in
///   common. Clients strip thoughts, and cut. If the answer is not known, the messages decide. In
///   its own session, a call continues the earlier one although the answer differs, because clients
///   edit. A `previous_response_id` names the call that is continued.
/// - **What is compared** of a message does not depend on the order of keys, on cache markers, or on
///   whether a text is a string or a list of one. If an answer agrees, other tools and another
///   system prompt make no difference; otherwise, they must be the same, or the messages must
///   contain one of the model. Claude Code's note for billing is no part of the system prompt.
/// - **An answer that was given before** also continues the conversation, even if messages in front
///   of it were cut, if it has 24 letters and digits, or is a tool call whose id is long, or two tool
///   calls with the same names and arguments. Only answers that were given count, never a client's
///   own examples.
/// - **Moved** is a call that continues one of another session, unless one of the two sessions names
///   the other as its parent, or the fork was [expected](Self::expect_fork).
/// - **Shared** is a session in which two conversations with the same tools and system prompt go
///   on, unless the agents name themselves (`x-claude-code-agent-id`), or the first prompt of the
///   later one contains an answer of that session, as after a compaction. A conversation whose first
///   message is edited looks the same, so declare it: [`expect_edit`](Self::expect_edit).
/// - **Quotes** is a prompt that continues nothing, and contains more than half of an answer that was
///   given in exactly one other session: a title or a summary under an id of its own, or a
///   conversation that goes on from its summary in a new session. It may also be a text that was
///   passed on, so it is no fault. A session that names the other one, or the same parent, is
///   excused. System prompts and what tools answered are not searched. An answer of fewer than 24
///   letters and digits is no evidence, and neither is one that repeats its own prompt.
/// - **Bounded**: [`Limits`] say how much is kept. The oldest request that does not
///   [stand out](SeenRequest::stands_out) is dropped first, but never the latest, and counted in
///   [`dropped`](Self::dropped). The first 256 KiB of a prompt's letters and digits are searched for
///   quotations, and its last 4,096 messages are compared.
///
/// # What cannot be told
///
/// Right traffic is marked all the same if
///
/// - the first message of a conversation is edited in its session (`shared`), or the conversation is
///   forked (`moved`): declare it;
/// - a conversation goes on from a summary of fewer than four letters and digits, or from one that
///   its client has rewritten (`shared`), or from any in a new session (`quotes`);
/// - a user or an agent passes on an answer to a session that does not name its parent (`quotes`);
/// - a test invents the model's messages, so that they are those of another session by chance: take
///   them from the answers.
///
/// Wrong traffic passes if
///
/// - the first prompts of a conversation are all that moves: a helper call that contains nothing but
///   the user's words, or a retry that was not refused;
/// - what moves contains only answers that several sessions got, or short ones after messages that
///   were cut or edited;
/// - two conversations with different tools or system prompts, such as one with the time in it,
///   share a session, or one of them never goes on;
/// - the earlier call is no longer [remembered](Limits::prompts), or was made before the log began.
///
/// A clone refers to the same log.
///
/// [continues]: SeenRequest::continues
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    records: Mutex<Records>,
    /// Wakes the receivers of changes.
    changed: watch::Sender<()>,
}

/// How much a [`Log`] and a [`Gateway`](super::Gateway) keep.
///
/// ```
/// use reqwest_opencode_session::testing::{Gateway, Limits};
///
/// let limits = Limits::default().requests(100_000);
/// let gateway = Gateway::builder().limits(limits).start()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "limits do nothing until a log or a gateway has them"]
pub struct Limits {
    pub(super) requests: usize,
    pub(super) bodies: usize,
    pub(super) prompts: usize,
    pub(super) cache: usize,
    pub(super) body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 10_000,
            bodies: 16 << 20,
            prompts: 20_000,
            cache: 64 << 20,
            body: 32 << 20,
        }
    }
}

impl Limits {
    /// Sets how many requests are kept; the default is 10,000.
    pub fn requests(mut self, count: usize) -> Self {
        self.requests = count;
        self
    }

    /// Sets how many bytes of their bodies are kept in total; the default is 16 MiB.
    pub fn bodies(mut self, bytes: usize) -> Self {
        self.bodies = bytes;
        self
    }

    /// Sets how many prompts are remembered, as hashes, to find later ones that continue them, and
    /// how many conversations the gateway's providers remember; the default is 20,000 of each.
    pub fn prompts(mut self, count: usize) -> Self {
        self.prompts = count;
        self
    }

    /// Sets how many bytes of prompts the gateway's providers cache; the default is 64 MiB.
    pub fn cache(mut self, bytes: usize) -> Self {
        self.cache = bytes;
        self
    }

    /// Sets the longest body, in bytes, that the gateway accepts; the default is 32 MiB. A longer
    /// one is answered with 413.
    pub fn body(mut self, bytes: usize) -> Self {
        self.body = bytes;
        self
    }
}

/// The state of a log, behind its lock.
#[derive(Debug)]
struct Records {
    limits: Limits,
    last: u64,
    revision: u64,
    requests: BTreeMap<u64, Recorded>,
    /// The numbers of the requests that do not stand out, which are dropped first.
    inconspicuous: BTreeSet<u64>,
    /// The numbers of the requests, by the revision of their last change.
    changes: BTreeMap<u64, u64>,
    dropped: u64,
    dropped_faults: u64,
    dropped_unread: u64,
    /// The lengths of the bodies that are kept, by the numbers of their requests, and the sum.
    bodies: BTreeMap<u64, usize>,
    body_bytes: usize,
    /// The calls whose status or answer is not known yet, and may never be, and their size in bytes.
    pending: BTreeMap<u64, Pending>,
    pending_bytes: usize,
    continuity: Continuity,
    expected: Expected,
}

/// The moves and edits that are right.
#[derive(Debug, Default)]
struct Expected {
    /// The sessions of originals and their forks.
    forks: HashSet<(String, String)>,
    all_forks: bool,
    /// The sessions of edited conversations.
    edits: HashSet<String>,
    all_edits: bool,
}

impl Expected {
    fn contains(&self, session: Option<&str>, mark: &Mark) -> bool {
        let session = session.unwrap_or_default();
        match mark {
            Mark::Moved { from, .. } => {
                self.is_fork(from, session) || self.all_forks && mark.may_be_fork()
            }
            Mark::Quotes { session: from, .. } => self.is_fork(from, session),
            Mark::Shared { .. } => {
                self.edits.contains(session) || self.all_edits && mark.may_be_edit()
            }
            _ => false,
        }
    }

    /// Returns whether a session is a fork of another, or of one of its forks.
    fn is_fork(&self, original: &str, session: &str) -> bool {
        let mut found = vec![session];
        let mut at = 0;
        while let Some(fork) = found.get(at).copied() {
            let originals = self.forks.iter().filter(|pair| pair.1 == fork);
            for (original, _) in originals {
                if !found.contains(&original.as_str()) {
                    found.push(original);
                }
            }
            at += 1;
        }
        found[1..].contains(&original)
    }
}

#[derive(Debug)]
struct Recorded {
    request: SeenRequest,
    revision: u64,
}

/// What is kept of a prompt until its call is judged, and then until its answer is known.
#[derive(Debug)]
struct Pending {
    /// `None` once it is judged.
    outline: Option<Box<Outline>>,
    pieces: Pieces,
}

impl Pending {
    fn size(&self) -> usize {
        let outline = self.outline.as_ref().map(|outline| outline.size());
        outline.unwrap_or_else(|| self.pieces.size())
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

/// A request that was read, but is not recorded yet.
#[derive(Debug)]
pub(super) struct Unrecorded {
    pub request: SeenRequest,
    pub prompt: Option<Prompt>,
}

impl Unrecorded {
    /// Reads a request, which needs no lock.
    pub fn read(head: &Parts, body: Option<Bytes>) -> Self {
        let prompt = body.as_ref().and_then(|body| Prompt::read(body));
        Self {
            request: SeenRequest::new(head, body, prompt.as_ref()),
            prompt,
        }
    }
}

impl Log {
    /// Creates a log with these limits.
    pub fn with_limits(limits: Limits) -> Self {
        Self(Arc::new(Kept {
            records: Mutex::new(Records::new(limits)),
            changed: watch::Sender::default(),
        }))
    }

    /// Records a request with its whole body, and returns its number.
    ///
    /// The body is read before the log is locked: a long one does not keep other calls waiting.
    pub fn record(&self, head: &Parts, body: impl Into<Bytes>) -> u64 {
        // Copied, because it may be a slice of a larger buffer.
        let body = Bytes::copy_from_slice(&body.into());
        let unrecorded = Unrecorded::read(head, Some(body));
        let number = self.number();
        self.push(number, unrecorded, None);
        number
    }

    /// Reads a request without recording it. Returns it with the number of the call whose
    /// conversation it belongs to, if it has no session: the one that it continues, or else the one
    /// whose answer it quotes.
    ///
    /// A proxy can give such a call the session of that conversation.
    ///
    /// ```
    /// use http::{Request, StatusCode};
    /// use reqwest_opencode_session::testing::record::{Answer, Log};
    ///
    /// let log = Log::default();
    /// let question = r#"{"role": "user", "content": "Where is the sea?"}"#;
    /// let (head, ()) = Request::post("/zen/go/v1/chat/completions")
    ///     .header("x-opencode-session", "one")
    ///     .body(())?
    ///     .into_parts();
    /// let number = log.record(&head, format!(r#"{{"messages": [{question}]}}"#));
    /// let mut answer = Answer::with_status(StatusCode::OK);
    /// answer.text = Some("There.".to_owned());
    /// log.answer(number, &answer);
    ///
    /// let said = r#"{"role": "assistant", "content": "There."}"#;
    /// let (head, ()) = Request::post("/zen/go/v1/chat/completions").body(())?.into_parts();
    /// let body = format!(r#"{{"messages": [{question}, {said}, {question}]}}"#);
    /// assert_eq!(log.look_up(&head, body).1, Some(number));
    /// # Ok::<(), http::Error>(())
    /// ```
    pub fn look_up(&self, head: &Parts, body: impl Into<Bytes>) -> (SeenRequest, Option<u64>) {
        let Unrecorded { request, prompt } = Unrecorded::read(head, Some(body.into()));
        let prompt = prompt.filter(|_| request.session.is_none() && request.asks_a_model());
        let belongs_to = prompt.and_then(|prompt| {
            let mut records = self.records();
            records.continuity.belongs_to(&prompt.outline)
        });
        (request, belongs_to)
    }

    /// Returns the number of a request that is about to be recorded.
    pub(super) fn number(&self) -> u64 {
        let mut records = self.records();
        records.last += 1;
        records.last
    }

    /// Records a request under its number, and how it was answered if that is known.
    pub(super) fn push(&self, number: u64, unrecorded: Unrecorded, answer: Option<&Answer>) {
        let Unrecorded { request, prompt } = unrecorded;
        // What takes long is done before the lock.
        let outline = prompt.map(|prompt| Box::new(prompt.outline));
        let given = answer.and_then(|answer| {
            let pieces = outline.as_ref().map(|outline| outline.pieces.clone());
            GivenAnswer::of(answer, &pieces.unwrap_or_default())
        });
        self.change(|records| {
            records.push(number, request, outline);
            if let Some(answer) = answer {
                records.answer(number, answer, given);
            }
        });
    }

    /// Records how a request was answered, as far as that is known. A field that is `None` in the
    /// answer leaves the record as it is, so that a stream's status can come before its usage.
    pub fn answer(&self, number: u64, answer: &Answer) {
        let pieces = self.records().pieces(number);
        let given = GivenAnswer::of(answer, &pieces);
        self.change(|records| records.answer(number, answer, given));
    }

    /// Returns the requests that are kept, in the order in which they came.
    pub fn requests(&self) -> Vec<SeenRequest> {
        let records = self.records();
        let requests = records.requests.values();
        requests.map(|recorded| recorded.request.clone()).collect()
    }

    /// Returns the requests that are kept, and forgets them. Later ones are still known to continue
    /// them.
    pub fn take(&self) -> Vec<SeenRequest> {
        self.records().take()
    }

    /// Returns the request with this number, if it is kept.
    pub fn get(&self, number: u64) -> Option<SeenRequest> {
        let records = self.records();
        let recorded = records.requests.get(&number);
        recorded.map(|recorded| recorded.request.clone())
    }

    /// Returns the requests before this number that meet a condition: at most `count`, the latest
    /// first.
    pub fn latest(
        &self,
        before: u64,
        count: usize,
        meets: impl Fn(&SeenRequest) -> bool,
    ) -> Vec<SeenRequest> {
        let records = self.records();
        let requests = records.requests.range(..before).rev();
        let requests = requests.map(|(_, recorded)| &recorded.request);
        let found = requests.filter(|request| meets(request)).take(count);
        found.cloned().collect()
    }

    /// Returns how many requests were dropped because there were more than the
    /// [limit](Limits::requests).
    pub fn dropped(&self) -> u64 {
        self.records().dropped
    }

    /// Returns how many of the dropped requests had a [fault](SeenRequest::has_fault). They are
    /// dropped only if every other request stands out.
    pub fn dropped_faults(&self) -> u64 {
        self.records().dropped_faults
    }

    /// Returns how many of the dropped requests had no fault, but could not be
    /// [read](SeenRequest::unread).
    pub fn dropped_unread(&self) -> u64 {
        self.records().dropped_unread
    }

    /// Returns each request as it comes, and again when it changes.
    ///
    /// ```
    /// # use http::Request;
    /// # use reqwest_opencode_session::testing::record::Log;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), http::Error> {
    /// let log = Log::default();
    /// let mut changes = log.changes();
    /// let (request, body) = Request::get("/zen/v1/models").body("")?.into_parts();
    /// log.record(&request, body);
    /// assert_eq!(changes.next().await.unwrap().len(), 1);
    ///
    /// drop(log);
    /// assert!(changes.next().await.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn changes(&self) -> Changes {
        Changes {
            log: Arc::downgrade(&self.0),
            changed: self.0.changed.subscribe(),
            seen: 0,
        }
    }

    /// Declares that the session with the id `fork` is a fork of the one with the id `original`: a
    /// call that moves from `original` to `fork`, or quotes it there, before or after this, is not
    /// marked. So it is with a fork of a fork.
    pub fn expect_fork(&self, original: impl AsRef<str>, fork: impl AsRef<str>) {
        let pair = (original.as_ref().to_owned(), fork.as_ref().to_owned());
        self.expect(|expected| _ = expected.forks.insert(pair));
    }

    /// Treats every call that [may be a fork](Mark::may_be_fork) as one.
    pub fn allow_forks(&self) {
        self.expect(|expected| expected.all_forks = true);
    }

    /// Declares that the first message of a conversation in this session is edited: its calls,
    /// before or after this, are not marked as [shared](Mark::Shared).
    pub fn expect_edit(&self, session: impl AsRef<str>) {
        let session = session.as_ref().to_owned();
        self.expect(|expected| _ = expected.edits.insert(session));
    }

    /// Treats every call that [may follow an edit](Mark::may_be_edit) as one that does.
    pub fn allow_edits(&self) {
        self.expect(|expected| expected.all_edits = true);
    }

    fn expect(&self, expect: impl FnOnce(&mut Expected)) {
        self.change(|records| {
            expect(&mut records.expected);
            records.unmark();
        });
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.0
            .records
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Records) -> T) -> T {
        let result = change(&mut self.records());
        self.0.changed.send_replace(());
        result
    }
}

/// The requests of a [`Log`] as they come. Created by [`Log::changes`].
#[derive(Debug)]
pub struct Changes {
    log: Weak<Kept>,
    changed: watch::Receiver<()>,
    /// The revision up to which changes were returned.
    seen: u64,
}

impl Changes {
    /// The most requests that `next` returns.
    const BATCH: usize = 1000;

    /// Waits for requests that are new or have changed, and returns at most 1,000 of them, in the
    /// order of their last change. A request that changed several times since the last call is
    /// returned once; one that was dropped is not returned.
    ///
    /// Returns `None` once the log is gone. This method is cancel safe.
    pub async fn next(&mut self) -> Option<Vec<SeenRequest>> {
        loop {
            let requests = self.so_far()?;
            if !requests.is_empty() {
                return Some(requests);
            }
            self.changed.changed().await.ok()?;
        }
    }

    /// Returns the requests that have changed since the last call, or `None` once the log is gone.
    fn so_far(&mut self) -> Option<Vec<SeenRequest>> {
        let log = Log(self.log.upgrade()?);
        let records = log.records();
        let changes = records.changes.range(self.seen + 1..).take(Self::BATCH);
        let changes = changes.map(|(revision, number)| {
            self.seen = *revision;
            records.requests[number].request.clone()
        });
        Some(changes.collect())
    }
}

impl Records {
    /// The most calls that can wait for their status or answer at the same time, and the most bytes
    /// of what is kept for that.
    const PENDING: usize = 1024;
    const PENDING_BYTES: usize = 64 << 20;

    fn new(limits: Limits) -> Self {
        Self {
            last: 0,
            revision: 0,
            requests: BTreeMap::new(),
            inconspicuous: BTreeSet::new(),
            changes: BTreeMap::new(),
            dropped: 0,
            dropped_faults: 0,
            dropped_unread: 0,
            bodies: BTreeMap::new(),
            body_bytes: 0,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            continuity: Continuity::new(limits.prompts),
            expected: Expected::default(),
            limits,
        }
    }

    fn push(&mut self, number: u64, mut request: SeenRequest, outline: Option<Box<Outline>>) {
        request.number = number;
        if let Some(body) = &request.body {
            self.bodies.insert(number, body.len());
            self.body_bytes += body.len();
        }
        if let Some(outline) = outline {
            let pieces = outline.pieces.clone();
            let outline = Some(outline);
            self.wait(number, Pending { outline, pieces });
        }
        let revision = 0;
        self.requests.insert(number, Recorded { request, revision });
        self.touch(number);
        while self.body_bytes > self.limits.bodies {
            self.drop_the_oldest_body();
        }
        while self.requests.len() > self.limits.requests.max(1) {
            self.drop_the_oldest();
        }
    }

    /// Keeps what is needed once the status or the answer of a call is known.
    fn wait(&mut self, number: u64, pending: Pending) {
        self.pending_bytes += pending.size();
        self.pending.insert(number, pending);
        while self.pending.len() > Self::PENDING || self.pending_bytes > Self::PENDING_BYTES {
            let Some(oldest) = self.pending.keys().next().copied() else {
                return;
            };
            self.waited(oldest);
        }
    }

    fn waited(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        self.pending_bytes -= pending.size();
        Some(pending)
    }

    /// Returns the pieces of a prompt whose answer is not known yet.
    fn pieces(&self, number: u64) -> Pieces {
        let pending = self.pending.get(&number);
        pending.map_or_else(Pieces::default, |pending| pending.pieces.clone())
    }

    fn answer(&mut self, number: u64, answer: &Answer, given: Option<GivenAnswer>) {
        let Some(Recorded { request, .. }) = self.requests.get_mut(&number) else {
            return;
        };
        request.take(answer);
        if request.status == Some(StatusCode::NOT_FOUND) {
            // No gateway has this path, so that no session is missing there.
            request.marks.retain(|mark| *mark != Mark::Missing);
        }
        match answer.status {
            Some(status) if status.is_success() => {
                if let Some(Pending { outline, pieces }) = self.waited(number) {
                    if let Some(outline) = outline {
                        self.judge(number, &outline);
                    }
                    let outline = None;
                    self.wait(number, Pending { outline, pieces });
                }
            }
            // A call that was refused is ignored.
            Some(_) => _ = self.waited(number),
            None => {}
        }
        if let Some(given) = given {
            self.continuity.answered(number, given);
            if self
                .pending
                .get(&number)
                .is_some_and(|it| it.outline.is_none())
            {
                self.waited(number);
            }
        }
        self.touch(number);
    }

    fn judge(&mut self, number: u64, outline: &Outline) {
        let Some(Recorded { request, .. }) = self.requests.get_mut(&number) else {
            return;
        };
        let agent = agent(&request.headers);
        let origin = Origin {
            session: request.session.as_deref(),
            parent: request.parent.as_deref(),
            agent: agent.as_deref(),
        };
        let judgement = self.continuity.add(number, origin, outline);
        request.continues = judgement.continues;
        let moved = judgement.moved.zip(judgement.continues);
        let moved = moved.map(|(moved, continues)| Mark::Moved {
            continues,
            from: moved.from.to_string(),
            back: moved.back,
        });
        let shared = judgement.shared.map(|shared| Mark::Shared {
            conversation: shared.conversation,
            other: shared.other,
            back: shared.back,
        });
        let quotes = judgement.quotes.map(|quotes| Mark::Quotes {
            call: quotes.call,
            session: quotes.session.to_string(),
        });
        let session = request.session.as_deref();
        let marks = [moved, shared, quotes].into_iter().flatten();
        let marks = marks.filter(|mark| !self.expected.contains(session, mark));
        request.marks.extend(marks);
    }

    /// Gives a request that has changed a new revision.
    fn touch(&mut self, number: u64) {
        let Some(recorded) = self.requests.get_mut(&number) else {
            return;
        };
        self.revision += 1;
        self.changes.remove(&recorded.revision);
        recorded.revision = self.revision;
        self.changes.insert(self.revision, number);
        if recorded.request.stands_out() {
            self.inconspicuous.remove(&number);
        } else {
            self.inconspicuous.insert(number);
        }
    }

    /// Takes away the marks that are expected.
    fn unmark(&mut self) {
        let mut changed = vec![];
        for (number, Recorded { request, .. }) in &mut self.requests {
            let before = request.marks.len();
            let session = request.session.as_deref();
            let expected = &self.expected;
            (request.marks).retain(|mark| !expected.contains(session, mark));
            if request.marks.len() < before {
                changed.push(*number);
            }
        }
        changed.into_iter().for_each(|number| self.touch(number));
    }

    fn drop_the_oldest_body(&mut self) {
        let Some((number, length)) = self.bodies.pop_first() else {
            return;
        };
        self.body_bytes -= length;
        if let Some(Recorded { request, .. }) = self.requests.get_mut(&number) {
            request.body = None;
        }
    }

    fn drop_the_oldest(&mut self) {
        // The latest one is still to be answered and judged.
        let inconspicuous = self
            .inconspicuous
            .first()
            .filter(|&&number| number < self.last);
        let oldest = inconspicuous.or(self.requests.keys().next());
        let Some(Recorded { request, .. }) = oldest.copied().and_then(|number| self.remove(number))
        else {
            return;
        };
        self.dropped += 1;
        if request.has_fault() {
            self.dropped_faults += 1;
        } else if request.unread {
            self.dropped_unread += 1;
        }
    }

    fn remove(&mut self, number: u64) -> Option<Recorded> {
        let recorded = self.requests.remove(&number)?;
        self.inconspicuous.remove(&number);
        self.changes.remove(&recorded.revision);
        self.waited(number);
        if let Some(length) = self.bodies.remove(&number) {
            self.body_bytes -= length;
        }
        Some(recorded)
    }

    fn take(&mut self) -> Vec<SeenRequest> {
        let numbers: Vec<u64> = self.requests.keys().copied().collect();
        let taken = numbers.into_iter().filter_map(|number| self.remove(number));
        let taken = taken.map(|recorded| recorded.request).collect();
        self.dropped = 0;
        self.dropped_faults = 0;
        self.dropped_unread = 0;
        taken
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::{Value, json};

    use super::*;

    fn record(log: &Log, body: impl Into<Bytes>) -> u64 {
        let call = Request::post("/zen/v1/chat/completions").header("x-opencode-session", "s");
        let (head, ()) = call.body(()).unwrap().into_parts();
        log.record(&head, body)
    }

    #[test]
    fn the_oldest_of_too_many_calls_without_a_status_counts_for_nothing() {
        let log = Log::default();
        let ok = Answer::with_status(StatusCode::OK);
        let question = |number| json!({"role": "user", "content": format!("Question {number}")});
        let prompt = |messages: &[Value]| json!({"messages": messages}).to_string();
        let numbers = 1..=Records::PENDING as u64 + 1;
        for number in numbers.clone() {
            assert_eq!(record(&log, prompt(&[question(number)])), number);
        }
        for number in numbers {
            log.answer(number, &ok);
        }
        let answer = json!({"role": "assistant", "content": "An answer."});
        for (first, continues) in [(1, None), (2, Some(2))] {
            let messages = [question(first), answer.clone(), question(0)];
            let number = record(&log, prompt(&messages));
            log.answer(number, &ok);
            assert_eq!(log.get(number).unwrap().continues, continues);
        }
    }

    #[test]
    fn a_body_that_is_gone_makes_room_for_another() {
        let log = Log::with_limits(Limits::default().bodies(2));
        for _ in 0..2 {
            let numbers = [(); 3].map(|()| record(&log, "1"));
            let kept = numbers.map(|number| log.get(number).unwrap().body.is_some());
            assert_eq!(kept, [false, true, true]);
            log.take();
        }
    }
}
