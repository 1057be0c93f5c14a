//! What the calls add up to: in all, and for each conversation.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use reqwest_opencode_session::testing::{Log, Mark, SeenRequest};
use serde::Serialize;

use crate::exchange::Recorder;

/// The calls, counted. A clone is the same one.
#[derive(Clone)]
pub struct Journal {
    pub log: Log,
    /// Where calls pass through, what is still under way.
    recorder: Option<Recorder>,
    counts: Arc<Mutex<Counts>>,
}

/// What all calls add up to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    pub calls: u64,
    pub conversations: u64,
    /// Calls of a model without a session.
    pub missed: u64,
    /// Calls that continue a prompt of another session.
    pub moved: u64,
    /// Calls in a session that holds another conversation, too.
    pub shared: u64,
    /// Calls whose session is doubled or malformed.
    pub malformed: u64,
    pub refused: u64,
    /// Calls that stand out for any of these reasons.
    pub faults: u64,
    /// Calls of a model, and those of them that were answered.
    pub asked: u64,
    pub answered: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub cost: Option<f64>,
    /// Calls that are no longer kept, and those of them that stood out.
    pub dropped: u64,
    pub dropped_faults: u64,
}

/// One session, and what happened in it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Conversation {
    pub session: String,
    pub parent: Option<String>,
    pub client: Option<String>,
    /// The numbers of its first and its last call.
    pub first: u64,
    pub last: u64,
    /// When its last call came, in milliseconds since 1970.
    pub at: u64,
    pub calls: u64,
    pub turns: u64,
    pub subagents: Vec<String>,
    /// Calls without a session that continue one of it.
    pub missed: u64,
    /// Its calls that stand out.
    pub faults: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub cost: Option<f64>,
    /// The cached share of its last calls, the oldest first.
    pub shares: VecDeque<f64>,
    /// The first words of its first prompt.
    pub title: Option<String>,
    #[serde(skip)]
    titled_by_a_helper: bool,
    #[serde(skip)]
    recent_turns: VecDeque<String>,
}

#[derive(Default)]
struct Counts {
    totals: Totals,
    conversations: HashMap<String, Conversation>,
    /// The sessions by their last call.
    by_last: BTreeMap<u64, String>,
    /// The numbers of first calls of the conversations without anything that stands out.
    plain: BTreeSet<(u64, String)>,
    /// What the latest calls were counted as, and those that have not ended: they may change.
    counted: BTreeMap<u64, Counted>,
}

/// What one call was counted as.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counted {
    missed: bool,
    moved: bool,
    shared: bool,
    malformed: bool,
    refused: bool,
    asked: bool,
    answered: bool,
    stands_out: bool,
    prompt_tokens: u64,
    cached_tokens: u64,
    cost: Option<f64>,
    /// Whether it has ended.
    ended: bool,
}

impl Counted {
    fn of(request: &SeenRequest) -> Self {
        let marked = |is: fn(&Mark) -> bool| request.marks.iter().any(is);
        let asked = request.asks_a_model();
        Self {
            missed: marked(|mark| matches!(mark, Mark::Missing)),
            moved: marked(|mark| matches!(mark, Mark::Moved { .. })),
            shared: marked(|mark| matches!(mark, Mark::Shared { .. })),
            malformed: marked(|mark| matches!(mark, Mark::Doubled | Mark::Malformed)),
            refused: request.is_refused(),
            asked,
            answered: asked && request.status.is_some_and(|status| status.is_success()),
            stands_out: request.stands_out(),
            prompt_tokens: request.prompt_tokens,
            cached_tokens: request.cached_tokens,
            cost: request.cost,
            ended: false,
        }
    }
}

/// Whether a call stands out for a reason, which has its name from [`Totals`].
pub fn stands_out_for(request: &SeenRequest, reason: &str) -> bool {
    let counted = Counted::of(request);
    match reason {
        "missed" => counted.missed,
        "moved" => counted.moved,
        "shared" => counted.shared,
        "malformed" => counted.malformed,
        "refused" => counted.refused,
        _ => counted.stands_out,
    }
}

impl Journal {
    /// How many conversations are kept.
    const CONVERSATIONS: usize = 20_000;

    /// How many calls that have ended may still change.
    const COUNTED: usize = 10_000;

    pub fn new(log: Log, recorder: Option<Recorder>) -> Self {
        Self {
            log,
            recorder,
            counts: Arc::default(),
        }
    }

    /// Counts calls that are new or have changed.
    pub fn take(&self, requests: Vec<SeenRequest>) -> Taken {
        let mut taken = Taken::default();
        for mut request in requests {
            let mut ended = true;
            if let Some(recorder) = &self.recorder {
                ended = !recorder.is_open(request.number);
                if ended {
                    // It may have ended after it was given to us.
                    request = self.log.get(request.number).unwrap_or(request);
                }
            }
            let mut counts = self.counts();
            taken.sessions.extend(counts.take(&request, &self.log));
            taken.numbers.push(request.number);
            if ended && counts.end(&request) {
                taken.ended.push(request);
            }
        }
        taken
    }

    /// The number of the last call that has come; 0 where there is none.
    pub fn last(&self) -> u64 {
        let latest = self.log.latest(u64::MAX, 1, |_| true);
        latest.first().map_or(0, |call| call.number)
    }

    pub fn totals(&self) -> Totals {
        let totals = self.counts().totals.clone();
        Totals {
            dropped: self.log.dropped(),
            dropped_faults: self.log.dropped_faults(),
            ..totals
        }
    }

    /// The conversations whose last call came before this number, the latest first.
    pub fn conversations(
        &self,
        before: u64,
        count: usize,
        meets: impl Fn(&Conversation) -> bool,
    ) -> Vec<Conversation> {
        let counts = self.counts();
        let sessions = counts.by_last.range(..before).rev();
        let conversations = sessions.filter_map(|(_, id)| counts.conversations.get(id));
        let found = conversations.filter(|conversation| meets(conversation));
        found.take(count).cloned().collect()
    }

    /// The conversation of this session.
    pub fn conversation(&self, session: &str) -> Option<Conversation> {
        self.counts().conversations.get(session).cloned()
    }

    /// The conversation of this session, the one that started it, and those that it started.
    pub fn family(&self, session: &str) -> Vec<Conversation> {
        let counts = self.counts();
        let Some(own) = counts.conversations.get(session) else {
            return vec![];
        };
        let others = own.parent.iter().chain(&own.subagents);
        let others = others.filter_map(|id| counts.conversations.get(id));
        [own].into_iter().chain(others).cloned().collect()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of counting.
#[derive(Debug, Default)]
pub struct Taken {
    /// The numbers of the calls.
    pub numbers: Vec<u64>,
    /// Those that have ended, each of them once.
    pub ended: Vec<SeenRequest>,
    /// The conversations that have changed.
    pub sessions: BTreeSet<String>,
}

impl Counts {
    /// Counts a call, and tells which conversation it belongs to.
    fn take(&mut self, request: &SeenRequest, log: &Log) -> Option<String> {
        let now = Counted::of(request);
        let before = self.counted.get(&request.number).copied();
        let ended = before.is_some_and(|before| before.ended);
        self.counted
            .insert(request.number, Counted { ended, ..now });
        let is_new = before.is_none();
        let before = before.unwrap_or_default();
        self.totals.calls += u64::from(is_new);
        self.totals.replace(before, now);
        let session = match &request.session {
            Some(session) => session.clone(),
            // It belongs where the call is that it continues.
            None if now.missed && request.continues.is_some() => {
                let continued = request.continues.and_then(|number| log.get(number));
                let session = continued.and_then(|continued| continued.session)?;
                let conversation = self.conversations.get_mut(&session)?;
                conversation.missed += u64::from(is_new);
                return Some(session);
            }
            None => return None,
        };
        self.note_subagent(request);
        let totals = &mut self.totals;
        let conversation = self
            .conversations
            .entry(session.clone())
            .or_insert_with(|| {
                totals.conversations += 1;
                Conversation {
                    session: session.clone(),
                    first: request.number,
                    ..Conversation::default()
                }
            });
        if is_new {
            self.by_last.remove(&conversation.last);
            conversation.begin(request);
            self.by_last.insert(conversation.last, session.clone());
        }
        conversation.replace(before, now);
        let key = (conversation.first, session.clone());
        match conversation.faults {
            0 => self.plain.insert(key),
            _ => self.plain.remove(&key),
        };
        while self.conversations.len() > Journal::CONVERSATIONS {
            self.forget_one();
        }
        Some(session)
    }

    /// Notes that a call has ended; tells whether that is new.
    fn end(&mut self, request: &SeenRequest) -> bool {
        let Some(counted) = self.counted.get_mut(&request.number) else {
            return false;
        };
        if std::mem::replace(&mut counted.ended, true) {
            return false;
        }
        let counted = *counted;
        let session = request.session.as_ref();
        let conversation = session.and_then(|session| self.conversations.get_mut(session));
        if let Some(conversation) = conversation.filter(|_| counted.answered) {
            conversation.share(counted.cached_tokens, counted.prompt_tokens);
        }
        if self.counted.len() > Journal::COUNTED {
            let ended = self.counted.iter().find(|(_, counted)| counted.ended);
            let oldest = ended.map(|(number, _)| *number);
            oldest.map(|number| self.counted.remove(&number));
        }
        true
    }

    fn note_subagent(&mut self, request: &SeenRequest) {
        const MOST: usize = 200;
        let (Some(session), Some(parent)) = (&request.session, &request.parent) else {
            return;
        };
        if let Some(parent) = self.conversations.get_mut(parent) {
            if parent.subagents.len() < MOST && !parent.subagents.contains(session) {
                parent.subagents.push(session.clone());
            }
        }
    }

    /// Forgets the oldest conversation, one without anything that stands out if there is one.
    fn forget_one(&mut self) {
        let plain = self.plain.pop_first().map(|(_, session)| session);
        let oldest = || self.by_last.values().next().cloned();
        let session = plain.or_else(oldest);
        if let Some(gone) = session.and_then(|session| self.conversations.remove(&session)) {
            self.by_last.remove(&gone.last);
        }
    }
}

impl Totals {
    fn replace(&mut self, before: Counted, now: Counted) {
        let counts: [(&mut u64, bool, bool); 8] = [
            (&mut self.missed, before.missed, now.missed),
            (&mut self.moved, before.moved, now.moved),
            (&mut self.shared, before.shared, now.shared),
            (&mut self.malformed, before.malformed, now.malformed),
            (&mut self.refused, before.refused, now.refused),
            (&mut self.faults, before.stands_out, now.stands_out),
            (&mut self.asked, before.asked, now.asked),
            (&mut self.answered, before.answered, now.answered),
        ];
        for (count, before, now) in counts {
            *count = *count + u64::from(now) - u64::from(before);
        }
        self.prompt_tokens = self.prompt_tokens + now.prompt_tokens - before.prompt_tokens;
        self.cached_tokens = self.cached_tokens + now.cached_tokens - before.cached_tokens;
        add_cost(&mut self.cost, before.cost, now.cost);
    }
}

impl Conversation {
    /// How many shares and turns are kept.
    const SHARES: usize = 60;
    const TURNS: usize = 32;

    /// A call of it that is new.
    fn begin(&mut self, request: &SeenRequest) {
        self.calls += 1;
        self.last = self.last.max(request.number);
        let since = request.at.duration_since(SystemTime::UNIX_EPOCH);
        let at = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        self.at = self.at.max(at);
        for (own, new) in [
            (&mut self.parent, &request.parent),
            (&mut self.client, &request.client),
        ] {
            if own.is_none() {
                own.clone_from(new);
            }
        }
        let helper = request.kind() != "call";
        if request.prompt.is_some() && (self.title.is_none() || self.titled_by_a_helper && !helper)
        {
            self.title.clone_from(&request.prompt);
            self.titled_by_a_helper = helper;
        }
        if let Some(turn) = &request.turn {
            if !self.recent_turns.contains(turn) {
                self.turns += 1;
                self.recent_turns.push_back(turn.clone());
                if self.recent_turns.len() > Self::TURNS {
                    self.recent_turns.pop_front();
                }
            }
        }
    }

    fn replace(&mut self, before: Counted, now: Counted) {
        self.faults = self.faults + u64::from(now.stands_out) - u64::from(before.stands_out);
        self.prompt_tokens = self.prompt_tokens + now.prompt_tokens - before.prompt_tokens;
        self.cached_tokens = self.cached_tokens + now.cached_tokens - before.cached_tokens;
        add_cost(&mut self.cost, before.cost, now.cost);
    }

    fn share(&mut self, cached: u64, prompt: u64) {
        if prompt == 0 {
            return;
        }
        let share = cached as f64 / prompt as f64;
        self.shares.push_back((share * 1000.0).round() / 1000.0);
        if self.shares.len() > Self::SHARES {
            self.shares.pop_front();
        }
    }
}

fn add_cost(sum: &mut Option<f64>, before: Option<f64>, now: Option<f64>) {
    if let Some(now) = now {
        *sum = Some(sum.unwrap_or_default() + now - before.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use reqwest_opencode_session::testing::Answer;

    use super::*;

    #[test]
    fn a_call_that_changes_after_its_end_has_ended_once() {
        let log = Log::default();
        let call = http::Request::post("/zen/v1/chat/completions");
        let (head, ()) = call.body(()).unwrap().into_parts();
        let number = log.record(&head, "{}");
        log.answer(number, &Answer::with_status(StatusCode::OK));
        let journal = Journal::new(log.clone(), None);
        for ended in [1, 0, 0] {
            let taken = journal.take(vec![log.get(number).unwrap()]);
            assert_eq!(taken.ended.len(), ended);
            assert_eq!(taken.numbers, [number]);
        }
        assert_eq!(journal.totals().calls, 1);
    }
}
