//! Totals of the calls: of all of them, and of each conversation.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use reqwest_opencode_session::testing::record::Log;
use reqwest_opencode_session::testing::{Mark, SeenRequest};
use serde::Serialize;
use serde_json::Value;

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
    /// Calls in a session that another conversation also uses.
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

/// One conversation, in one session or several, and the totals of its calls.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Conversation {
    /// The number of the call that it began with.
    pub id: u64,
    /// The session that it began in.
    pub session: Option<String>,
    /// Where it was, in the order of its calls: more than one session if it moved.
    pub stretches: Vec<Stretch>,
    /// How often it changed its session.
    pub changes: u64,
    /// The session that its calls name as their parent.
    pub parent: Option<String>,
    /// The conversation that started it, or that it quotes.
    pub under: Option<u64>,
    /// Whether it is a helper of that conversation, in a session of its own.
    pub quotes: bool,
    pub client: Option<String>,
    /// The number of its last call.
    pub last: u64,
    /// When its last call came, in milliseconds since 1970.
    pub at: u64,
    pub calls: u64,
    pub turns: u64,
    /// The conversations beneath it.
    pub children: Vec<u64>,
    /// Calls of it without a session.
    pub missed: u64,
    /// How many of its calls stand out.
    pub stand_out: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub cost: Option<f64>,
    /// The cached share of its last calls, the oldest first.
    pub shares: VecDeque<f64>,
    /// The title that its client had made, or else the first words that its user typed.
    pub title: Option<String>,
    #[serde(skip)]
    titled_by: TitledBy,
    #[serde(skip)]
    recent_turns: VecDeque<String>,
}

/// A part of a conversation in one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// `None` if its calls have no session.
    pub session: Option<String>,
    /// The turn and the call with which it begins.
    pub turn: u64,
    pub call: u64,
}

/// What a conversation's title comes from, the worst first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum TitledBy {
    #[default]
    Nothing,
    /// A helper's prompt, such as one that asks for a title.
    Helper,
    User,
    /// The title that its client had made.
    Title,
}

#[derive(Default)]
struct Counts {
    totals: Totals,
    conversations: HashMap<u64, Conversation>,
    /// The conversations, by their last call.
    by_last: BTreeMap<u64, u64>,
    /// The conversations in which nothing stands out.
    plain: BTreeSet<u64>,
    /// The conversation that each session belongs to.
    sessions: HashMap<String, u64>,
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
    /// The conversation that it belongs to, once that is known.
    conversation: Option<u64>,
    /// The call that its prompt goes back to.
    root: u64,
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
            conversation: None,
            root: request.number,
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
            taken.conversations.extend(counts.take(&request, self));
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
        let ids = counts.by_last.range(..before).rev();
        let conversations = ids.filter_map(|(_, id)| counts.conversations.get(id));
        let found = conversations.filter(|conversation| meets(conversation));
        found.take(count).cloned().collect()
    }

    /// Returns the conversation with this id.
    pub fn conversation(&self, id: u64) -> Option<Conversation> {
        self.counts().conversations.get(&id).cloned()
    }

    /// Returns the conversation of each of these calls, as far as that is known.
    pub fn conversations_of(&self, calls: &[SeenRequest]) -> Vec<Option<u64>> {
        let counts = self.counts();
        let of = |call: &SeenRequest| counts.conversation_of(call.number, call.session.as_deref());
        calls.iter().map(of).collect()
    }

    /// Returns the conversations of calls, by their numbers and sessions.
    pub fn conversations_with(&self, calls: &[(u64, Option<String>)]) -> Vec<u64> {
        let counts = self.counts();
        let calls = calls.iter();
        let of = |call: &(u64, Option<String>)| counts.conversation_of(call.0, call.1.as_deref());
        calls.filter_map(of).collect()
    }

    /// Returns what tells whether a call belongs to a conversation.
    pub fn members(&self, id: u64) -> impl Fn(&SeenRequest) -> bool + use<> {
        let counts = self.counts();
        let members = counts.counted.iter().filter_map(|(number, counted)| {
            let is_member = counted.conversation == Some(id);
            counted.conversation.map(|_| (*number, is_member))
        });
        let members: HashMap<u64, bool> = members.collect();
        // Of older calls, only the session is known.
        let sessions = counts.sessions.iter().filter(|(_, of)| **of == id);
        let sessions: BTreeSet<String> = sessions.map(|(session, _)| session.clone()).collect();
        move |call| match members.get(&call.number) {
            Some(is_member) => *is_member,
            None => (call.session.as_ref()).is_some_and(|session| sessions.contains(session)),
        }
    }

    /// Returns a conversation, the one above it, and those beneath it.
    pub fn family(&self, id: u64) -> Vec<Conversation> {
        let counts = self.counts();
        let Some(own) = counts.conversations.get(&id) else {
            return vec![];
        };
        let others = own.under.iter().chain(&own.children);
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
    pub conversations: BTreeSet<u64>,
}

impl Counts {
    /// How many conversations beneath another one are kept.
    const CHILDREN: usize = 200;

    /// Counts a call, and returns the conversation that it belongs to, and others that changed.
    fn take(&mut self, request: &SeenRequest, journal: &Journal) -> Vec<u64> {
        let before = self.counted.get(&request.number).cloned();
        let is_new = before.is_none();
        let before = before.unwrap_or_default();
        let mut now = Counted {
            ended: before.ended,
            conversation: before.conversation,
            ..Counted::of(request, &journal.rules)
        };
        now.root = match request
            .continues
            .and_then(|number| self.counted.get(&number))
        {
            Some(continued) => continued.root,
            None => request.continues.unwrap_or(request.number),
        };
        self.totals.calls += u64::from(is_new);
        self.totals.replace(&before, &now);
        let mut changed = self.detached(request, journal);
        // What a call continues is known when its status is.
        let is_judged = request.status.is_some() || request.end.is_some();
        if now.conversation.is_none() && is_judged {
            now.conversation = self.place(request, journal);
        }
        self.counted.insert(request.number, now.clone());
        let Some(id) = now.conversation else {
            return changed;
        };
        let joins = before.conversation.is_none();
        if joins {
            self.join(id, request);
        }
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return changed;
        };
        let counted_before = match joins {
            true => &Counted::default(),
            false => &before,
        };
        conversation.replace(counted_before, &now);
        conversation.name(request, now.root);
        self.sort(id);
        while self.conversations.len() > Journal::CONVERSATIONS {
            self.forget_one();
        }
        changed.push(id);
        changed
    }

    /// Returns the conversation of a call that was counted, or else of its session.
    fn conversation_of(&self, number: u64, session: Option<&str>) -> Option<u64> {
        match self.counted.get(&number) {
            Some(counted) => counted.conversation,
            None => self.sessions.get(session?).copied(),
        }
    }

    /// Returns the conversation that a call belongs to.
    fn place(&mut self, request: &SeenRequest, journal: &Journal) -> Option<u64> {
        // It may have been continued before it was counted.
        if self.conversations.contains_key(&request.number) {
            return Some(request.number);
        }
        let own = request.session.as_ref();
        let own = own.and_then(|session| self.sessions.get(session)).copied();
        if let Some(continued) = request.continues {
            let before = request.marks.iter().find_map(|mark| match mark {
                Mark::Moved { from, .. } => self.sessions.get(from).copied(),
                _ => None,
            });
            return match self.counted.get(&continued) {
                Some(Counted {
                    conversation: Some(id),
                    ..
                }) => Some(*id),
                // A call without a session that nothing had continued yet.
                Some(_) => {
                    self.adopt(continued, continued, journal);
                    Some(continued)
                }
                None => before.or(own).or(Some(continued)),
            };
        }
        own.or_else(|| request.session.as_ref().map(|_| request.number))
    }

    /// Puts a call that was counted into a conversation.
    fn adopt(&mut self, number: u64, id: u64, journal: &Journal) {
        let Some(mut counted) = self.counted.get(&number).cloned() else {
            return;
        };
        let old = counted.conversation.replace(id);
        self.counted.insert(number, counted.clone());
        if let Some(left) = old.and_then(|old| self.conversations.get_mut(&old)) {
            left.calls -= 1;
            left.replace(&counted, &Counted::default());
            if left.last == number {
                let mut earlier = self.counted.range(..number).rev();
                let last = earlier.find(|(_, counted)| counted.conversation == old);
                left.last = last.map_or(left.id, |(last, _)| *last);
                self.by_last.remove(&number);
                self.by_last.insert(left.last, left.id);
            }
        }
        if let Some(request) = journal.log.get(number) {
            self.join(id, &request);
            if let Some(conversation) = self.conversations.get_mut(&id) {
                conversation.name(&request, counted.root);
            }
        }
        if let Some(conversation) = self.conversations.get_mut(&id) {
            conversation.replace(&Counted::default(), &counted);
        }
        self.sort(id);
        old.into_iter().for_each(|old| self.sort(old));
    }

    /// Gives a conversation that shares its session a row of its own, once that is known. Returns
    /// the conversations that changed.
    fn detached(&mut self, request: &SeenRequest, journal: &Journal) -> Vec<u64> {
        let shared = request.marks.iter().find_map(|mark| match mark {
            Mark::Shared {
                conversation,
                other,
                ..
            } => Some(*conversation.max(other)),
            _ => None,
        });
        let Some(root) = shared else {
            return vec![];
        };
        let from = self
            .counted
            .get(&root)
            .and_then(|counted| counted.conversation);
        let Some(from) = from.filter(|from| *from != root) else {
            return vec![];
        };
        let calls = self
            .counted
            .range(root..)
            .filter(|(_, counted)| counted.root == root && counted.conversation == Some(from));
        let calls: Vec<u64> = calls.map(|(number, _)| *number).collect();
        for number in calls {
            self.adopt(number, root, journal);
        }
        vec![from, root]
    }

    /// Adds a call to a conversation, which begins with it if there is none.
    fn join(&mut self, id: u64, request: &SeenRequest) {
        if !self.conversations.contains_key(&id) {
            self.totals.conversations += 1;
            let conversation = Conversation {
                id,
                session: request.session.clone(),
                ..Conversation::default()
            };
            self.conversations.insert(id, conversation);
        }
        if let Some(session) = &request.session {
            self.sessions.entry(session.clone()).or_insert(id);
        }
        let parent = request
            .parent
            .as_ref()
            .and_then(|parent| self.sessions.get(parent));
        let parent = parent.map(|parent| (*parent, false));
        let quoted = request.marks.iter().find_map(|mark| match mark {
            Mark::Quotes { call, session } => {
                let quoted = self.conversation_of(*call, Some(session));
                quoted.map(|quoted| (quoted, true))
            }
            _ => None,
        });
        let above = parent
            .or(quoted)
            .filter(|(above, _)| !self.leads_to(*above, id));
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        self.by_last.remove(&conversation.last);
        conversation.begin(request);
        self.by_last.insert(conversation.last, id);
        if let (None, Some((above, quotes))) = (conversation.under, above) {
            conversation.under = Some(above);
            conversation.quotes = quotes;
            if let Some(above) = self.conversations.get_mut(&above) {
                if above.children.len() < Self::CHILDREN {
                    above.children.push(id);
                }
            }
        }
    }

    /// Returns whether a conversation is another one, or somewhere beneath it.
    fn leads_to(&self, mut from: u64, to: u64) -> bool {
        for _ in 0..=Self::CHILDREN {
            if from == to {
                return true;
            }
            match self.conversations.get(&from).and_then(|found| found.under) {
                Some(above) => from = above,
                None => return false,
            }
        }
        true
    }

    /// Notes whether something stands out in a conversation.
    fn sort(&mut self, id: u64) {
        match self.conversations.get(&id).map(|found| found.stand_out) {
            Some(0) => self.plain.insert(id),
            _ => self.plain.remove(&id),
        };
    }

    /// Notes that a call has ended, and returns whether that is new.
    fn end(&mut self, request: &SeenRequest) -> bool {
        let Some(counted) = self.counted.get_mut(&request.number) else {
            return false;
        };
        if std::mem::replace(&mut counted.ended, true) {
            return false;
        }
        let id = counted.conversation.filter(|_| counted.answered);
        if let Some(conversation) = id.and_then(|id| self.conversations.get_mut(&id)) {
            conversation.share(counted.cached_tokens, counted.prompt_tokens);
        }
        if self.counted.len() > Journal::COUNTED {
            let ended = self.counted.iter().find(|(_, counted)| counted.ended);
            let oldest = ended.map(|(number, _)| *number);
            oldest.map(|number| self.counted.remove(&number));
        }
        true
    }

    /// Forgets the oldest conversation, if possible one in which nothing stands out.
    fn forget_one(&mut self) {
        let plain = self.plain.pop_first();
        let oldest = || self.by_last.values().next().copied();
        let id = plain.or_else(oldest);
        if let Some(gone) = id.and_then(|id| self.conversations.remove(&id)) {
            self.by_last.remove(&gone.last);
            let sessions = gone
                .stretches
                .into_iter()
                .filter_map(|stretch| stretch.session);
            for session in sessions.chain(gone.session) {
                if self.sessions.get(&session) == Some(&gone.id) {
                    self.sessions.remove(&session);
                }
            }
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

    /// How many stretches are kept.
    const STRETCHES: usize = 50;

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
        if let Some(turn) = &request.turn {
            if !self.recent_turns.contains(turn) {
                self.turns += 1;
                self.recent_turns.push_back(turn.clone());
                if self.recent_turns.len() > Self::TURNS {
                    self.recent_turns.pop_front();
                }
            }
        }
        // Helpers say nothing about where the conversation goes on.
        if request.continues.is_none() && request.number != self.id {
            return;
        }
        let latest = self.stretches.last().map(|stretch| &stretch.session);
        if latest == Some(&request.session) {
            return;
        }
        self.changes += u64::from(latest.is_some());
        if self.stretches.len() < Self::STRETCHES {
            self.stretches.push(Stretch {
                session: request.session.clone(),
                turn: self.turns.max(1),
                call: request.number,
            });
        }
    }

    /// Takes a better title from a call that goes back to this one.
    fn name(&mut self, request: &SeenRequest, root: u64) {
        let made = (request.kind() == "title").then(|| request.said.as_deref().map(title));
        let by = match made {
            Some(Some(_)) => TitledBy::Title,
            _ if request.kind() != "call" => TitledBy::Helper,
            _ if root == self.id || self.titled_by < TitledBy::User => TitledBy::User,
            _ => return,
        };
        let words = made.flatten().or_else(|| request.prompt.clone());
        if by > self.titled_by && words.is_some() {
            self.title = words;
            self.titled_by = by;
        }
    }

    fn replace(&mut self, before: &Counted, now: &Counted) {
        replace(&mut self.stand_out, before.stands_out, now.stands_out);
        replace(&mut self.missed, before.missed, now.missed);
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

/// Returns the title that a model made, without what its client takes away: quotes, or JSON.
fn title(said: &str) -> String {
    let json: Option<Value> = serde_json::from_str(said).ok();
    let title = json.as_ref().and_then(|json| json["title"].as_str());
    title
        .unwrap_or(said)
        .trim_matches(['"', '\'', ' '])
        .to_owned()
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
    if now.cost.or(before.cost).is_some() {
        let change = now.cost.unwrap_or_default() - before.cost.unwrap_or_default();
        *cost = Some(cost.unwrap_or_default() + change);
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

    /// Returns the conversation of this session.
    fn of_session(journal: &Journal, session: &str) -> Option<Conversation> {
        let id = journal.counts().sessions.get(session).copied();
        journal.conversation(id?)
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
                let changed = take(&journal, number).conversations;
                assert_eq!(changed.into_iter().collect::<Vec<_>>(), [1]);
                let conversation = of_session(&journal, "one").unwrap();
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
        assert_eq!(of_session(&journal, "one").unwrap().missed, 1);
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
        assert_eq!(of_session(&journal, "one").unwrap().missed, 2);
    }

    #[test]
    fn a_call_without_a_session_that_continues_none_belongs_to_no_conversation() {
        let log = Log::default();
        let journal = Journal::new(log.clone(), Rules::default());
        let number = record(&log, call_in(""), 1);
        answer(&log, number, StatusCode::OK);
        assert_eq!(take(&journal, number).conversations, BTreeSet::new());
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
        assert!(of_session(&journal, "1").is_some());
        assert_eq!(journal.counts().counted.len(), Journal::COUNTED);

        take("one more", StatusCode::OK);
        assert_eq!(kept(), most);
        assert!(of_session(&journal, "1").is_none());
        for session in ["refused", "2", "one more"] {
            assert!(of_session(&journal, session).is_some(), "{session}");
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
        let conversation = of_session(&journal, "one").unwrap();
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
            assert_eq!(of_session(&journal, "one").unwrap().stand_out, 1);
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
        let conversation = of_session(&journal, "one").unwrap();
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
        let call = |call| {
            let number = record(&log, call, 1);
            answer(&log, number, StatusCode::OK);
            take(&journal, number);
        };
        call(call_in("one"));
        for _ in 0..2 {
            for subagent in 0..=Counts::CHILDREN {
                call(call_in(&subagent.to_string()).header("x-parent-session-id", "one"));
            }
        }
        let children = of_session(&journal, "one").unwrap().children;
        let expected: Vec<u64> = (2..).take(Counts::CHILDREN).collect();
        assert_eq!(children, expected);
        assert_eq!(of_session(&journal, "7").unwrap().under, Some(1));
    }

    /// Says these texts by turns in a session, and returns the number of the call.
    fn say(journal: &Journal, session: &str, said: &[&str], answered: &str) -> u64 {
        let roles = ["user", "assistant"].into_iter().cycle();
        let messages = roles.zip(said);
        let messages = messages.map(|(role, content)| json!({"role": role, "content": content}));
        let body = json!({"model": "glm-5.2", "messages": messages.collect::<Vec<_>>()});
        let (head, ()) = call_in(session).body(()).unwrap().into_parts();
        let number = journal.log.record(&head, body.to_string());
        take(journal, number);
        let mut answer = Answer::with_status(StatusCode::OK);
        answer.text = Some(answered.to_owned());
        answer.end = Some(End::Whole);
        journal.log.answer(number, &answer);
        take(journal, number);
        number
    }

    const LONG: &str = "The sea begins where the last house of the village ends.";

    #[test]
    fn a_conversation_that_moves_is_one_with_its_helper_beneath_it() {
        let journal = Journal::new(Log::default(), Rules::default());
        say(&journal, "one", &["Where is the sea?"], LONG);
        say(
            &journal,
            "two",
            &["Where is the sea?", LONG, "And the lake?"],
            "There.",
        );
        let title = format!("Generate a title for this conversation: {LONG}");
        let helper = say(&journal, "three", &[&title], "\"The sea\"");
        let all = journal.conversations(u64::MAX, 10, |_| true);
        let ids: Vec<_> = all
            .iter()
            .map(|found| (found.id, found.under, found.quotes))
            .collect();
        assert_eq!(ids, [(helper, Some(1), true), (1, None, false)]);
        let stretch = |session: &str, call| Stretch {
            session: Some(session.to_owned()),
            turn: 1,
            call,
        };
        assert_eq!(all[1].stretches, [stretch("one", 1), stretch("two", 2)]);
        assert_eq!((all[1].changes, all[1].calls), (1, 2));
        assert_eq!(journal.totals().conversations, 2);
        let family = journal.family(1);
        assert_eq!(
            family.iter().map(|found| found.id).collect::<Vec<_>>(),
            [1, helper]
        );
    }

    #[test]
    fn a_title_that_the_client_had_made_is_the_name_of_its_conversation() {
        let journal = Journal::new(Log::default(), Rules::default());
        let name = || journal.conversation(1).unwrap().title.unwrap();
        let ask = "Generate a title for this conversation: the sea";
        say(&journal, "one", &[ask], r#"{"title": "By the sea"}"#);
        assert_eq!(name(), "By the sea");
        say(&journal, "one", &["Where is the sea?"], LONG);
        assert_eq!(name(), "By the sea");
        say(&journal, "two", &["Where is the lake?"], "There.");
        let title = journal.conversation(3).unwrap().title;
        assert_eq!(title.as_deref(), Some("Where is the lake?"));
    }

    #[test]
    fn conversations_that_share_a_session_are_told_apart_with_all_of_their_sums() {
        let journal = Journal::new(Log::default(), Rules::default());
        say(&journal, "one", &["Where is the sea?"], LONG);
        say(
            &journal,
            "one",
            &["Where is the sea?", LONG, "And the lake?"],
            "There.",
        );
        let second = say(&journal, "one", &["What is a fjord?"], "A bay.");
        assert_eq!(journal.conversation(1).unwrap().calls, 3);
        let said = ["What is a fjord?", "A bay.", "And a lagoon?"];
        let shared = say(&journal, "one", &said, "A lake.");
        let [first, other] = [1, second].map(|id| journal.conversation(id).unwrap());
        assert_eq!((first.calls, first.stand_out, first.last), (2, 0, 2));
        assert_eq!((other.calls, other.stand_out, other.last), (2, 1, shared));
        assert_eq!(other.title.as_deref(), Some("What is a fjord?"));
        let listed = journal.conversations(u64::MAX, 10, |_| true);
        assert_eq!(
            listed.iter().map(|found| found.id).collect::<Vec<_>>(),
            [second, 1]
        );
        let is_member = journal.members(second);
        let members = journal.log.latest(u64::MAX, 10, is_member);
        let members: Vec<_> = members.iter().map(|call| call.number).collect();
        assert_eq!(members, [shared, second]);
    }

    #[test]
    fn calls_without_any_session_that_continue_each_other_are_a_conversation() {
        let journal = Journal::new(Log::default(), Rules::default());
        say(&journal, "", &["Where is the sea?"], LONG);
        assert_eq!(journal.totals().conversations, 0);
        say(
            &journal,
            "",
            &["Where is the sea?", LONG, "And the lake?"],
            "There.",
        );
        let found = journal.conversation(1).unwrap();
        assert_eq!((found.calls, found.missed, found.session), (2, 2, None));
        assert_eq!(found.title.as_deref(), Some("Where is the sea?"));
    }
}
