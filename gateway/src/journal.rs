//! Totals of the calls: of all of them, and of each conversation.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use reqwest_opencode_session::testing::record::Log;
use reqwest_opencode_session::testing::{Mark, SeenRequest};
use serde::Serialize;

use crate::rules::{self, Rules};

/// The counted calls. A clone refers to the same journal.
#[derive(Clone)]
pub struct Journal {
    pub log: Log,
    pub rules: Rules,
    counts: Arc<Mutex<Counts>>,
}

/// The totals of all calls.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    pub calls: u64,
    pub conversations: u64,
    /// Calls to a model without a session.
    pub missed: u64,
    /// Calls that continue a prompt of another session.
    pub moved: u64,
    /// Calls in a session that another conversation uses as well.
    pub shared: u64,
    /// Calls that quote an answer of another session.
    pub quotes: u64,
    /// Calls whose session is doubled or malformed.
    pub malformed: u64,
    pub refused: u64,
    /// Calls that stand out for any of the reasons above.
    pub stand_out: u64,
    /// Calls with a mark that is accepted.
    pub allowed: u64,
    /// Calls to a model, and those of them that were answered.
    pub asked: u64,
    pub answered: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub cost: Option<f64>,
    /// Calls that are no longer kept, and those of them that had a fault.
    pub dropped: u64,
    pub dropped_faults: u64,
}

/// One session, and the totals of its calls.
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
    /// Calls without a session that continue it.
    pub missed: u64,
    /// How many of its calls stand out.
    pub stand_out: u64,
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
    /// The sessions, by their last call.
    by_last: BTreeMap<u64, String>,
    /// The conversations in which nothing stands out, each after the number of its first call.
    plain: BTreeSet<(u64, String)>,
    /// Calls that conversations missed before a call of theirs was counted.
    missed_early: HashMap<String, u64>,
    /// How the calls that may still change were counted: the latest, and those that have not ended.
    counted: BTreeMap<u64, Counted>,
}

/// How one call was counted.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counted {
    missed: bool,
    moved: bool,
    shared: bool,
    quotes: bool,
    malformed: bool,
    refused: bool,
    asked: bool,
    answered: bool,
    stands_out: bool,
    allowed: bool,
    prompt_tokens: u64,
    cached_tokens: u64,
    cost: Option<f64>,
    session: Option<String>,
    /// The session of the conversation that it continues without a session.
    lost_from: Option<String>,
    /// Whether it has ended.
    ended: bool,
}

impl Counted {
    fn of(request: &SeenRequest, rules: &Rules) -> Self {
        let marked = |is: fn(&Mark) -> bool| rules.reasons(request).any(is);
        let asked = request.asks_a_model();
        Self {
            missed: marked(|mark| matches!(mark, Mark::Missing)),
            moved: marked(|mark| matches!(mark, Mark::Moved { .. })),
            shared: marked(|mark| matches!(mark, Mark::Shared { .. })),
            quotes: marked(|mark| matches!(mark, Mark::Quotes { .. })),
            malformed: marked(|mark| matches!(mark, Mark::Doubled | Mark::Malformed)),
            refused: asked && request.is_refused(),
            asked,
            answered: asked && request.status.is_some_and(|status| status.is_success()),
            stands_out: rules.stands_out(request),
            allowed: rules.has_allowed(request),
            prompt_tokens: request.prompt_tokens,
            cached_tokens: request.cached_tokens,
            cost: request.cost,
            session: request.session.clone(),
            lost_from: None,
            ended: false,
        }
    }
}

/// Returns whether a call stands out for a reason, named as in [`Totals`].
pub fn stands_out_for(request: &SeenRequest, rules: &Rules, reason: &str) -> bool {
    let counted = Counted::of(request, rules);
    match reason {
        "missed" => counted.missed,
        "moved" => counted.moved,
        "shared" => counted.shared,
        "quotes" => counted.quotes,
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

    pub fn new(log: Log, rules: Rules) -> Self {
        Self {
            log,
            rules,
            counts: Arc::default(),
        }
    }

    /// Counts calls that are new or have changed.
    pub fn take(&self, requests: Vec<SeenRequest>) -> Taken {
        let mut taken = Taken::default();
        for request in requests {
            let mut counts = self.counts();
            taken.sessions.extend(counts.take(&request, self));
            taken.numbers.push(request.number);
            if request.end.is_some() && counts.end(&request) {
                taken.ended.push(request);
            }
        }
        taken
    }

    /// Returns the number of the last call that has come, or 0 if there is none.
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

    /// Returns the conversations whose last call has a lower number than this, the latest first.
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

    /// Returns the conversation of this session.
    pub fn conversation(&self, session: &str) -> Option<Conversation> {
        self.counts().conversations.get(session).cloned()
    }

    /// Returns the conversation of this session, its parent, and its subagents.
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

/// The result of counting calls.
#[derive(Debug, Default)]
pub struct Taken {
    /// The numbers of the calls.
    pub numbers: Vec<u64>,
    /// The calls that have ended, each of them only once.
    pub ended: Vec<SeenRequest>,
    /// The conversations that have changed.
    pub sessions: BTreeSet<String>,
}

impl Counts {
    /// How many subagents of a conversation are kept.
    const SUBAGENTS: usize = 200;

    /// Counts a call, and returns the session of the conversation that it belongs to.
    fn take(&mut self, request: &SeenRequest, journal: &Journal) -> Option<String> {
        let before = self.counted.get(&request.number).cloned();
        let is_new = before.is_none();
        let before = before.unwrap_or_default();
        let now = Counted {
            lost_from: (before.lost_from.clone()).or_else(|| self.lost_from(request, &journal.log)),
            ended: before.ended,
            ..Counted::of(request, &journal.rules)
        };
        self.counted.insert(request.number, now.clone());
        self.totals.calls += u64::from(is_new);
        self.totals.replace(&before, &now);
        if let Some(session) = now.lost_from {
            if before.lost_from.is_none() {
                self.count_missed(&session);
            }
            return Some(session);
        }
        let session = request.session.clone()?;
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
                    missed: self.missed_early.remove(&session).unwrap_or_default(),
                    ..Conversation::default()
                }
            });
        if is_new {
            self.by_last.remove(&conversation.last);
            conversation.begin(request);
            self.by_last.insert(conversation.last, session.clone());
        }
        conversation.replace(&before, &now);
        let key = (conversation.first, session.clone());
        match conversation.stand_out {
            0 => self.plain.insert(key),
            _ => self.plain.remove(&key),
        };
        while self.conversations.len() > Journal::CONVERSATIONS {
            self.forget_one();
        }
        Some(session)
    }

    /// Notes that a call has ended, and returns whether that is new.
    fn end(&mut self, request: &SeenRequest) -> bool {
        let Some(counted) = self.counted.get_mut(&request.number) else {
            return false;
        };
        if std::mem::replace(&mut counted.ended, true) {
            return false;
        }
        let session = request.session.as_ref().filter(|_| counted.answered);
        if let Some(conversation) = session.and_then(|id| self.conversations.get_mut(id)) {
            conversation.share(counted.cached_tokens, counted.prompt_tokens);
        }
        if self.counted.len() > Journal::COUNTED {
            let ended = self.counted.iter().find(|(_, counted)| counted.ended);
            let oldest = ended.map(|(number, _)| *number);
            oldest.map(|number| self.counted.remove(&number));
        }
        true
    }

    /// Returns the session of the conversation that a call without a session continues, directly or
    /// through other such calls.
    fn lost_from(&self, request: &SeenRequest, log: &Log) -> Option<String> {
        if request.session.is_some() {
            return None;
        }
        let continued = request.continues?;
        match self.counted.get(&continued) {
            Some(counted) => counted
                .session
                .clone()
                .or_else(|| counted.lost_from.clone()),
            None => log.get(continued)?.session,
        }
    }

    /// Counts a call that a conversation missed, for later if no call of it was counted so far.
    fn count_missed(&mut self, session: &str) {
        if let Some(conversation) = self.conversations.get_mut(session) {
            conversation.missed += 1;
        } else if self.missed_early.len() < Journal::CONVERSATIONS {
            *self.missed_early.entry(session.to_owned()).or_default() += 1;
        }
    }

    fn note_subagent(&mut self, request: &SeenRequest) {
        let (Some(session), Some(parent)) = (&request.session, &request.parent) else {
            return;
        };
        if let Some(parent) = self.conversations.get_mut(parent) {
            if parent.subagents.len() < Self::SUBAGENTS && !parent.subagents.contains(session) {
                parent.subagents.push(session.clone());
            }
        }
    }

    /// Forgets the oldest conversation, if possible one in which nothing stands out.
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
    fn replace(&mut self, before: &Counted, now: &Counted) {
        for (count, before, now) in [
            (&mut self.missed, before.missed, now.missed),
            (&mut self.moved, before.moved, now.moved),
            (&mut self.shared, before.shared, now.shared),
            (&mut self.quotes, before.quotes, now.quotes),
            (&mut self.malformed, before.malformed, now.malformed),
            (&mut self.refused, before.refused, now.refused),
            (&mut self.stand_out, before.stands_out, now.stands_out),
            (&mut self.allowed, before.allowed, now.allowed),
            (&mut self.asked, before.asked, now.asked),
            (&mut self.answered, before.answered, now.answered),
        ] {
            replace(count, before, now);
        }
        let tokens = (&mut self.prompt_tokens, &mut self.cached_tokens);
        replace_usage(tokens, &mut self.cost, before, now);
    }
}

impl Conversation {
    /// How many shares and turns are kept.
    const SHARES: usize = 60;
    const TURNS: usize = 32;

    /// Takes a new call of the conversation.
    fn begin(&mut self, request: &SeenRequest) {
        self.calls += 1;
        self.last = self.last.max(request.number);
        let since = request.at.duration_since(SystemTime::UNIX_EPOCH);
        let at = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        self.at = self.at.max(at);
        if self.parent.is_none() {
            self.parent.clone_from(&request.parent);
        }
        if self.client.is_none() {
            self.client = rules::client(request);
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

    fn replace(&mut self, before: &Counted, now: &Counted) {
        replace(&mut self.stand_out, before.stands_out, now.stands_out);
        let tokens = (&mut self.prompt_tokens, &mut self.cached_tokens);
        replace_usage(tokens, &mut self.cost, before, now);
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

/// Replaces what a call counted for before with what it counts for now.
fn replace(sum: &mut u64, before: impl Into<u64>, now: impl Into<u64>) {
    *sum = *sum + now.into() - before.into();
}

fn replace_usage(
    (prompt, cached): (&mut u64, &mut u64),
    cost: &mut Option<f64>,
    before: &Counted,
    now: &Counted,
) {
    replace(prompt, before.prompt_tokens, now.prompt_tokens);
    replace(cached, before.cached_tokens, now.cached_tokens);
    if let Some(now) = now.cost {
        *cost = Some(cost.unwrap_or_default() + now - before.cost.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use reqwest_opencode_session::testing::Limits;
    use reqwest_opencode_session::testing::record::{Answer, End, Usage};
    use serde_json::json;

    use super::*;

    const SAID: [&str; 7] = [
        "Where is the sea?",
        "There.",
        "And the lake?",
        "There.",
        "And the river?",
        "There.",
        "And the well?",
    ];

    fn record(log: &Log, request: http::request::Builder, said: usize) -> u64 {
        let roles = ["user", "assistant"].into_iter().cycle();
        let messages = roles.zip(&SAID[..said]);
        let messages = messages.map(|(role, content)| json!({"role": role, "content": content}));
        let messages: Vec<_> = messages.collect();
        let body = json!({"model": "glm-5.2", "messages": messages});
        let (head, ()) = request.body(()).unwrap().into_parts();
        log.record(&head, body.to_string())
    }

    /// Builds a call in this session, or in none if it is empty.
    fn call_in(session: &str) -> http::request::Builder {
        Request::post("/zen/v1/chat/completions").header("x-opencode-session", session)
    }

    fn answer(log: &Log, number: u64, status: StatusCode) {
        let mut answer = Answer::with_status(status);
        answer.end = Some(End::Whole);
        log.answer(number, &answer);
    }

    /// Takes the changes of this call.
    fn take(journal: &Journal, number: u64) -> Taken {
        journal.take(vec![journal.log.get(number).unwrap()])
    }

    #[test]
    fn a_call_that_changes_after_its_end_has_ended_once() {
        let log = Log::default();
        let number = record(&log, call_in("one"), 1);
        answer(&log, number, StatusCode::OK);
        let journal = Journal::new(log, Rules::default());
        for ended in [1, 0, 0] {
            let taken = take(&journal, number);
            assert_eq!(taken.ended.len(), ended);
            assert_eq!(taken.numbers, [number]);
        }
        assert_eq!(journal.totals().calls, 1);
    }

    #[test]
    fn each_call_that_lost_its_session_counts_once_as_missed_by_its_conversation() {
        let log = Log::default();
        let journal = Journal::new(log.clone(), Rules::default());
        let mut said = 1;
        for (session, missed) in [("one", 0), ("", 1), ("", 2), ("one", 2)] {
            let number = record(&log, call_in(session), said);
            said += 2;
            // A slow gateway answers after the call was seen.
            take(&journal, number);
            answer(&log, number, StatusCode::OK);
            for _ in 0..2 {
                assert_eq!(
                    take(&journal, number).sessions.iter().collect::<Vec<_>>(),
                    ["one"]
                );
                let conversation = journal.conversation("one").unwrap();
                assert_eq!(conversation.missed, missed, "{session:?}");
            }
        }
        assert_eq!(journal.totals().missed, 2);
    }

    #[test]
    fn a_missed_call_counts_even_if_it_is_counted_before_its_conversation() {
        let log = Log::default();
        let journal = Journal::new(log.clone(), Rules::default());
        let first = record(&log, call_in("one"), 1);
        answer(&log, first, StatusCode::OK);
        let missed = record(&log, call_in(""), 3);
        answer(&log, missed, StatusCode::OK);
        for number in [missed, first, missed] {
            take(&journal, number);
        }
        assert_eq!(journal.conversation("one").unwrap().missed, 1);
    }

    #[test]
    fn calls_that_were_missed_early_wait_in_bounded_memory() {
        let journal = Journal::new(Log::default(), Rules::default());
        let mut counts = journal.counts();
        for session in 0..=Journal::CONVERSATIONS {
            counts.count_missed(&session.to_string());
        }
        assert_eq!(counts.missed_early.len(), Journal::CONVERSATIONS);
    }

    #[test]
    fn a_missed_call_counts_even_if_what_it_continues_is_no_longer_kept() {
        let log = Log::with_limits(Limits::default().requests(1));
        let journal = Journal::new(log.clone(), Rules::default());
        for (session, said) in [("one", 1), ("", 3), ("", 5)] {
            let number = record(&log, call_in(session), said);
            answer(&log, number, StatusCode::OK);
            take(&journal, number);
        }
        assert_eq!(journal.conversation("one").unwrap().missed, 2);
    }

    #[test]
    fn a_call_without_a_session_that_continues_none_belongs_to_no_conversation() {
        let log = Log::default();
        let journal = Journal::new(log.clone(), Rules::default());
        let number = record(&log, call_in(""), 1);
        answer(&log, number, StatusCode::OK);
        assert_eq!(take(&journal, number).sessions, BTreeSet::new());
        assert_eq!(journal.totals().missed, 1);
    }

    #[test]
    fn the_latest_conversations_are_kept_and_longer_those_in_which_something_stands_out() {
        let log = Log::default();
        let journal = Journal::new(log.clone(), Rules::default());
        let take = |session: &str, status| {
            let number = record(&log, call_in(session), 1);
            answer(&log, number, status);
            take(&journal, number);
        };
        take("refused", StatusCode::BAD_REQUEST);
        let most = Journal::CONVERSATIONS;
        for number in 1..most {
            take(&number.to_string(), StatusCode::OK);
        }
        let kept = || journal.conversations(u64::MAX, usize::MAX, |_| true).len();
        assert_eq!(kept(), most);
        assert!(journal.conversation("1").is_some());
        assert_eq!(journal.counts().counted.len(), Journal::COUNTED);

        take("one more", StatusCode::OK);
        assert_eq!(kept(), most);
        assert!(journal.conversation("1").is_none());
        for session in ["refused", "2", "one more"] {
            assert!(journal.conversation(session).is_some(), "{session}");
        }
    }

    #[test]
    fn a_call_counts_for_what_it_was_last() {
        let log = Log::default();
        let journal = Journal::new(log.clone(), Rules::default());
        let other = record(&log, call_in("one"), 1);
        let number = record(&log, call_in("one"), 3);
        let calls = [
            (other, 100, 40, 0.5),
            (number, 60, 3, 0.25),
            (number, 200, 50, 1.0),
        ];
        for (number, prompt, cached, cost) in calls {
            let mut answer = Answer::with_status(StatusCode::OK);
            answer.end = Some(End::Whole);
            let mut usage = Usage::default();
            (usage.prompt, usage.cached) = (prompt, cached);
            (answer.usage, answer.cost) = (Some(usage), Some(cost));
            log.answer(number, &answer);
            take(&journal, number);
            take(&journal, number);
        }
        let totals = journal.totals();
        assert_eq!((totals.calls, totals.asked, totals.answered), (2, 2, 2));
        assert_eq!((totals.stand_out, totals.refused), (0, 0));
        let conversation = journal.conversation("one").unwrap();
        assert_eq!((conversation.calls, conversation.stand_out), (2, 0));
        for (prompt, cached, cost) in [
            (totals.prompt_tokens, totals.cached_tokens, totals.cost),
            (
                conversation.prompt_tokens,
                conversation.cached_tokens,
                conversation.cost,
            ),
        ] {
            assert_eq!((prompt, cached, cost), (300, 90, Some(1.5)));
        }
        // A share counts as it was when its call ended.
        assert_eq!(conversation.shares, [0.4, 0.05]);

        log.answer(number, &{
            let mut broken = Answer::default();
            broken.error = Some("upstream_failed".to_owned());
            broken
        });
        for _ in 0..2 {
            take(&journal, number);
            let totals = journal.totals();
            assert_eq!(
                (totals.stand_out, totals.refused, totals.answered),
                (1, 1, 2)
            );
            assert_eq!(journal.conversation("one").unwrap().stand_out, 1);
        }
    }

    #[test]
    fn of_each_conversation_the_latest_shares_and_turns_are_kept() {
        let log = Log::default();
        let journal = Journal::new(log.clone(), Rules::default());
        let turns = Conversation::SHARES as u64 + 1;
        for turn in 1..=turns {
            for _ in 0..2 {
                let call = call_in("one").header("x-opencode-request", turn.to_string());
                let number = record(&log, call, 1);
                let mut answer = Answer::with_status(StatusCode::OK);
                answer.end = Some(End::Whole);
                let mut usage = Usage::default();
                (usage.prompt, usage.cached) = (300, turn);
                answer.usage = Some(usage);
                log.answer(number, &answer);
                take(&journal, number);
            }
        }
        let conversation = journal.conversation("one").unwrap();
        assert_eq!(conversation.turns, turns);
        assert_eq!(conversation.recent_turns.len(), Conversation::TURNS);
        assert_eq!(conversation.shares.len(), Conversation::SHARES);
        assert_eq!(conversation.shares[0], 0.107);
        assert_eq!(conversation.shares[Conversation::SHARES - 1], 0.203);
    }

    #[test]
    fn a_conversation_names_its_subagents_once_each_up_to_a_bound() {
        let log = Log::default();
        let journal = Journal::new(log.clone(), Rules::default());
        take(&journal, record(&log, call_in("one"), 1));
        for _ in 0..2 {
            for subagent in 0..=Counts::SUBAGENTS {
                let call = call_in(&subagent.to_string()).header("x-parent-session-id", "one");
                take(&journal, record(&log, call, 1));
            }
        }
        let subagents = journal.conversation("one").unwrap().subagents;
        let expected = 0..Counts::SUBAGENTS;
        assert_eq!(
            subagents,
            expected
                .map(|number| number.to_string())
                .collect::<Vec<_>>()
        );
    }
}
