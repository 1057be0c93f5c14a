//! Keeps what was asked and answered, and has it judged.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use http::StatusCode;
use http::request::Parts;
use hyper::body::Bytes;
use tokio::sync::watch;

use super::answer::Answer;
use super::continuity::Continuity;
use super::prompt::Prompt;
use super::seen::{Mark, SeenRequest};

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
/// - **Missing, doubled and malformed** ids are marked when a call is recorded. A request that does
///   not ask a model, such as one for the list of models, needs no session, and never stands out. A
///   session is not missing where there is no such path: where the answer is 404.
/// - **Continuity** is judged when an answer's status is known; a call that was refused is ignored.
///   A prompt that begins with all of an earlier one, and goes on, [continues] it.
/// - **Moved** is a call that continues a prompt of another session, unless its parent header names
///   that session or the fork was [expected](Self::expect_fork).
/// - **Shared** is a session in which two conversations with the same tools and system prompt go
///   on, unless the first prompt of the later one contains an answer of that session, as after a
///   compaction.
/// - **Bounded**: [`Limits`] say how much is kept. The oldest request that does not
///   [stand out](SeenRequest::stands_out) is dropped first, but never the latest, and counted in
///   [`dropped`](Self::dropped).
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
    /// The lengths of the bodies that are kept, by the numbers of their requests, and the sum.
    bodies: BTreeMap<u64, usize>,
    body_bytes: usize,
    /// The prompts of the requests that have no status yet, and may never have one.
    pending: BTreeMap<u64, Prompt>,
    continuity: Continuity,
    forks: HashSet<(String, String)>,
    all_forks: bool,
}

#[derive(Debug)]
struct Recorded {
    request: SeenRequest,
    revision: u64,
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

    /// Returns the number of a request that is about to be recorded.
    pub(super) fn number(&self) -> u64 {
        let mut records = self.records();
        records.last += 1;
        records.last
    }

    /// Records a request under its number, and how it was answered if that is known.
    pub(super) fn push(&self, number: u64, mut unrecorded: Unrecorded, answer: Option<&Answer>) {
        if let Some(prompt) = &mut unrecorded.prompt {
            prompt.shorten();
        }
        self.change(|records| {
            records.push(number, unrecorded);
            if let Some(answer) = answer {
                records.answer(number, answer);
            }
        });
    }

    /// Records how a request was answered, as far as that is known. A field that is `None` in the
    /// answer leaves the record as it is, so that a stream's status can come before its usage.
    pub fn answer(&self, number: u64, answer: &Answer) {
        self.change(|records| records.answer(number, answer));
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
    /// call that moves from `original` to `fork`, before or after this, is not marked.
    pub fn expect_fork(&self, original: impl AsRef<str>, fork: impl AsRef<str>) {
        let (from, to) = (original.as_ref(), fork.as_ref());
        self.change(|records| {
            records.forks.insert((from.to_owned(), to.to_owned()));
            records.unmark(|request, mark| {
                matches!(mark, Mark::Moved { from: before, .. } if before == from)
                    && request.session.as_deref() == Some(to)
            });
        });
    }

    /// Treats every call that [may be a fork](Mark::may_be_fork) as one.
    pub fn allow_forks(&self) {
        self.change(|records| {
            records.all_forks = true;
            records.unmark(|_, mark| mark.may_be_fork());
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
    /// The most calls that can wait for their status at the same time.
    const PENDING: usize = 1024;

    fn new(limits: Limits) -> Self {
        Self {
            last: 0,
            revision: 0,
            requests: BTreeMap::new(),
            inconspicuous: BTreeSet::new(),
            changes: BTreeMap::new(),
            dropped: 0,
            dropped_faults: 0,
            bodies: BTreeMap::new(),
            body_bytes: 0,
            pending: BTreeMap::new(),
            continuity: Continuity::new(limits.prompts),
            forks: HashSet::new(),
            all_forks: false,
            limits,
        }
    }

    fn push(
        &mut self,
        number: u64,
        Unrecorded {
            mut request,
            prompt,
        }: Unrecorded,
    ) {
        request.number = number;
        if let Some(body) = &request.body {
            self.bodies.insert(number, body.len());
            self.body_bytes += body.len();
        }
        self.pending.extend(prompt.map(|prompt| (number, prompt)));
        if self.pending.len() > Self::PENDING {
            self.pending.pop_first();
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

    fn answer(&mut self, number: u64, answer: &Answer) {
        // A call that was refused is ignored.
        let judged = match answer.status {
            Some(status) if status.is_success() => self.pending.remove(&number),
            Some(_) => {
                self.pending.remove(&number);
                None
            }
            None => None,
        };
        let Some(Recorded { request, .. }) = self.requests.get_mut(&number) else {
            return;
        };
        request.take(answer);
        if request.status == Some(StatusCode::NOT_FOUND) {
            // No gateway has this path, so that no session is missing there.
            request.marks.retain(|mark| *mark != Mark::Missing);
        }
        if let Some(prompt) = judged {
            let session = request.session.as_deref();
            let parent = request.parent.as_deref();
            let judgement = self.continuity.add(number, session, parent, &prompt);
            request.continues = judgement.continues;
            if let (Some(moved), Some(continues)) = (judgement.moved, judgement.continues) {
                let pair = (
                    moved.from.to_string(),
                    session.unwrap_or_default().to_owned(),
                );
                if !(self.forks.contains(&pair) || self.all_forks && !moved.back) {
                    request.marks.push(Mark::Moved {
                        continues,
                        from: pair.0,
                        back: moved.back,
                    });
                }
            }
            request
                .marks
                .extend(judgement.shared.map(|shared| Mark::Shared {
                    conversation: shared.conversation,
                    other: shared.other,
                }));
        }
        if let Some(text) = &answer.text {
            self.continuity.answered(number, text);
        }
        self.touch(number);
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

    fn unmark(&mut self, unmarks: impl Fn(&SeenRequest, &Mark) -> bool) {
        let mut changed = vec![];
        for (number, Recorded { request, .. }) in &mut self.requests {
            let mut marks = mem::take(&mut request.marks);
            let before = marks.len();
            marks.retain(|mark| !unmarks(request, mark));
            if marks.len() < before {
                changed.push(*number);
            }
            request.marks = marks;
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
        self.dropped_faults += u64::from(request.has_fault());
    }

    fn remove(&mut self, number: u64) -> Option<Recorded> {
        let recorded = self.requests.remove(&number)?;
        self.inconspicuous.remove(&number);
        self.changes.remove(&recorded.revision);
        self.pending.remove(&number);
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
