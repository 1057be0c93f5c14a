//! Which earlier call a prompt continues, and whether the conversation stays in its session.
//!
//! [`Log`](super::record::Log) states the rules. A prompt is compared with earlier ones at each place
//! where one of them may have ended, the last place first. What is found there is ranked:
//!
//! 1. A call of its own session to which the model answered what it says at that place.
//! 2. One of its own session whose answer is not known.
//! 3. One of another session to which the model answered that.
//! 4. One of its own session, after other messages, that the model answered that to.
//! 5. One of another session, likewise, if no other session got that answer.
//! 6. One of its own session to which the model answered something else: the client has edited it.
//! 7. One of another session whose answer is not known.
//!
//! All of this is looked up by hashes, so the work grows with a prompt's length, but not with the
//! number of earlier calls.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::outline::{GivenAnswer, Outline, Place, Said, Sign, Weight, hash_of};
use super::quotes::{Given, Giver, HashedMap, with};

/// How many of a session's latest short answers are kept, to recognise a compaction.
const SHORT_ANSWERS: usize = 16;

/// How many of a session's first conversations another one is compared with.
const CONVERSATIONS: usize = 256;

/// The latest calls that were answered.
#[derive(Debug)]
pub(super) struct Continuity {
    limit: usize,
    calls: HashMap<u64, Known>,
    /// Their numbers, the oldest first.
    order: VecDeque<u64>,
    /// The latest call with each key.
    latest: HashedMap<u64>,
    given: Given,
    sessions: HashMap<Arc<str>, Seen>,
}

/// What a call is looked up by. The messages of a [`Place`] and of an [`Outline`] are all before it,
/// and a session is a hash of it.
#[derive(Debug, Clone, Copy)]
enum Key {
    /// Its messages.
    Messages(u64),
    MessagesIn(u64, u64),
    /// Its messages, and its tools and system prompt.
    PromptIn(u64, u64, u64),
    /// Its messages, and a sign of its answer.
    Answer(u64, u64),
    AnswerIn(u64, u64, u64),
    /// Its messages, which contain something that the model said, while its answer is not known.
    Unanswered(u64),
    /// Its messages, tools and system prompt, while its answer is not known.
    UnansweredUnder(u64, u64),
    /// The id of its answer.
    Id(u64),
    IdIn(u64, u64),
    /// All of it, which is one string.
    Words(u64),
    WordsIn(u64, u64),
}

impl Key {
    fn hash(self) -> u64 {
        let (kind, parts) = match self {
            Self::Messages(messages) => (1, [messages, 0, 0]),
            Self::MessagesIn(messages, session) => (2, [messages, session, 0]),
            Self::PromptIn(messages, head, session) => (11, [messages, head, session]),
            Self::Answer(messages, sign) => (3, [messages, sign, 0]),
            Self::AnswerIn(messages, sign, session) => (4, [messages, sign, session]),
            Self::Unanswered(messages) => (5, [messages, 0, 0]),
            Self::UnansweredUnder(messages, head) => (6, [messages, head, 0]),
            Self::Id(id) => (7, [id, 0, 0]),
            Self::IdIn(id, session) => (8, [id, session, 0]),
            Self::Words(words) => (9, [words, 0, 0]),
            Self::WordsIn(words, session) => (10, [words, session, 0]),
        };
        parts.into_iter().fold(kind, with)
    }
}

#[derive(Debug)]
struct Known {
    session: Option<Arc<str>>,
    /// A hash of it.
    within: u64,
    root: Root,
    messages: u64,
    /// Whether an answer to it is known, and whether it was learned from a later prompt.
    answered: bool,
    taught: bool,
    /// The hashes of its keys in `latest`, and of what it gave.
    keys: Vec<u64>,
    gave: Vec<u64>,
    /// How many pieces of its answer are known.
    sketch: usize,
    /// The beginning of its answer, if its prompt is one string.
    beginning: Option<Box<str>>,
    is_string: bool,
}

/// The first call of a conversation within its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Root {
    number: u64,
    /// The first call of the conversation in any session: what is edited in a fork is still that
    /// fork.
    original: u64,
    /// Its tools and system prompt.
    head: u64,
    /// The agent that made it, if it names itself.
    agent: Option<u64>,
    /// Whether it contains an earlier answer of the session.
    resumes: bool,
}

impl Root {
    /// Returns whether nothing explains that another conversation is in its session.
    fn is_stranger_to(&self, other: &Self) -> bool {
        let later = if self.number > other.number {
            self
        } else {
            other
        };
        self.original != other.original
            && self.head == other.head
            && self.agent == other.agent
            && !later.resumes
    }
}

/// What is known of a session.
#[derive(Debug, Default)]
struct Seen {
    calls: usize,
    parent: Option<Arc<str>>,
    /// The conversations that went on, and how often one did.
    conversations: Vec<Conversation>,
    turns: u64,
    /// The latest short answers, each with the number of its latest call.
    short_answers: VecDeque<(Box<str>, u64)>,
}

/// A conversation of a session that went on.
#[derive(Debug)]
struct Conversation {
    root: Root,
    /// When it went on last.
    turn: u64,
    /// Whether it was found to take turns with another one.
    takes_turns: bool,
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Origin<'a> {
    pub session: Option<&'a str>,
    pub parent: Option<&'a str>,
    pub agent: Option<&'a str>,
}

/// The result of comparing a call with the earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// The number of the call that it continues.
    pub continues: Option<u64>,
    pub moved: Option<Moved>,
    pub shared: Option<Sharing>,
    pub quotes: Option<Quotation>,
}

/// The call continues one of another session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    /// The session of the call that it continues.
    pub from: Arc<str>,
    /// Whether the conversation was in the call's session before.
    pub back: bool,
}

/// The call's session also contains another conversation that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sharing {
    /// The number of the call that the conversation began with.
    pub conversation: u64,
    /// The number of the call that the other conversation began with.
    pub other: u64,
    /// Whether this one was there before the other one went on.
    pub back: bool,
}

/// The call quotes an answer of another session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quotation {
    pub call: u64,
    pub session: Arc<str>,
}

impl Continuity {
    /// Creates one that remembers this many calls.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            calls: HashMap::new(),
            order: VecDeque::new(),
            latest: HashedMap::default(),
            given: Given::default(),
            sessions: HashMap::new(),
        }
    }

    /// Judges a call that was not refused, and remembers it.
    pub fn add(&mut self, number: u64, origin: Origin<'_>, outline: &Outline) -> Judgement {
        let session = origin.session.map(|id| self.known(id));
        if let (Some(session), Some(parent)) = (&session, origin.parent) {
            let parent = self.known(parent);
            let seen = self.sessions.entry(Arc::clone(session)).or_default();
            seen.parent = Some(parent);
        }
        let within = hash_of(&origin.session);
        let (found, own) = self.predecessors(outline, within, origin.parent);
        let mut judgement = Judgement {
            continues: found,
            ..Judgement::default()
        };
        if let (Some(found), Some(session)) = (found, &session) {
            let from = self.calls[&found].session.as_ref();
            let from = from.filter(|from| *from != session && !self.are_kin(session, from));
            judgement.moved = from.map(|from| Moved {
                from: Arc::clone(from),
                back: own.is_some(),
            });
        }
        let root = match own {
            Some(own) => self.calls[&own].root,
            None => {
                let (resumed, quoted) = self.quoted(outline, within, session.as_deref());
                let is_new = found.is_none() && resumed.is_none();
                judgement.quotes = quoted
                    .filter(|_| is_new)
                    .and_then(|call| self.quotation(call, session.as_ref()?));
                let original = found.or(resumed).or(quoted);
                let original = original.map(|call| self.calls[&call].root.original);
                Root {
                    number,
                    original: original.unwrap_or(number),
                    head: outline.head,
                    agent: origin.agent.map(hash_of),
                    resumes: resumed.is_some(),
                }
            }
        };
        if let Some(session) = &session {
            let seen = self.sessions.entry(Arc::clone(session)).or_default();
            seen.calls += 1;
            if own.is_some() {
                judgement.shared = seen.go_on(root);
            }
        }
        self.remember(number, session, within, root, outline);
        judgement
    }

    /// Returns the call whose conversation a prompt in no session belongs to: the one that it
    /// continues, or else the one whose answer it quotes.
    pub fn belongs_to(&mut self, outline: &Outline) -> Option<u64> {
        let within = hash_of(&None::<&str>);
        let (continued, _) = self.predecessors(outline, within, None);
        continued.or_else(|| self.quoted(outline, within, None).1)
    }

    /// Remembers what the model answered.
    pub fn answered(&mut self, number: u64, answer: GivenAnswer) {
        let Some(known) = self.calls.get_mut(&number) else {
            return;
        };
        known.sketch = answer.sketch.len();
        known.beginning = known.is_string.then_some(answer.beginning);
        let within = known.within;
        for piece in answer.sketch {
            known.gave.push(piece);
            self.given.add(piece, number, within);
        }
        if let Some(id) = answer.id {
            self.add_keys(number, [Key::Id(id), Key::IdIn(id, within)]);
        }
        self.learn(number, &answer.said);
        let session = self.calls[&number].session.as_ref();
        if let Some(seen) = session.and_then(|session| self.sessions.get_mut(session)) {
            if let Some(short) = answer.short {
                seen.add(short, number);
            }
        }
    }

    /// Remembers what a call's answer is recognised by.
    fn learn(&mut self, number: u64, said: &Said) {
        let Some(known) = self.calls.get_mut(&number) else {
            return;
        };
        if said.signs().is_empty() {
            return;
        }
        known.answered = true;
        let (messages, within) = (known.messages, known.within);
        for Sign { hash, weight } in said.signs() {
            if *weight != Weight::InPlace {
                known.gave.push(*hash);
                self.given.add(*hash, number, within);
            }
        }
        for Sign { hash, .. } in said.signs() {
            let own = Key::AnswerIn(messages, *hash, within);
            self.add_keys(number, [Key::Answer(messages, *hash), own]);
        }
    }

    /// Returns the call that a prompt continues, and the one of its own session that it continues:
    /// the same, unless it has moved.
    fn predecessors(
        &mut self,
        outline: &Outline,
        within: u64,
        parent: Option<&str>,
    ) -> (Option<u64>, Option<u64>) {
        let named = outline.previous.and_then(|id| {
            let own = self.latest(Key::IdIn(id, within));
            own.or_else(|| self.latest(Key::Id(id)))
        });
        let mut best = named.or_else(|| self.by_words(outline, within));
        if let Some(number) = best.filter(|best| self.calls[best].within == within) {
            return (best, Some(number));
        }
        let mut search = Search {
            within,
            head: outline.head,
            parent: parent.map(|parent| hash_of(&Some(parent))),
            own_only: best.is_some(),
            halves: vec![],
        };
        for place in outline.places.iter().rev() {
            let Some((number, is_taught)) = self.at(place, &mut search) else {
                continue;
            };
            if is_taught {
                self.learn(number, &place.said);
                if let Some(known) = self.calls.get_mut(&number) {
                    known.taught = true;
                }
            }
            best.get_or_insert(number);
            if self.calls[&number].within == within {
                return (best, Some(number));
            }
            search.own_only = true;
        }
        (best, None)
    }

    /// Returns the call that a prompt continues at a place, and whether its answer is not known, so
    /// that it must be what the model says there.
    fn at(&self, place: &Place, search: &mut Search) -> Option<(u64, bool)> {
        let Search {
            within,
            head,
            parent,
            own_only,
            ..
        } = *search;
        let messages = place.messages;
        let with_answer = |key: &dyn Fn(u64) -> Key| {
            let mut signs = place.said.signs().iter();
            signs.find_map(|sign| self.latest(key(sign.hash)))
        };
        let is_unanswered = |number: &u64| place.goes_on && !self.calls[number].answered;
        let mut own = None;
        let is_known = self.latest(Key::Messages(messages)).is_some();
        if is_known {
            let prompt = self.latest(Key::PromptIn(messages, head, within));
            own = prompt.or_else(|| self.latest(Key::MessagesIn(messages, within)));
            let open = own.filter(is_unanswered);
            let agrees = with_answer(&|sign| Key::AnswerIn(messages, sign, within));
            // What was learned is less certain.
            let agrees = agrees.filter(|number| {
                !self.calls[number].taught || open.is_none_or(|open| open < *number)
            });
            if let Some(number) = agrees.or(open) {
                return Some((number, agrees.is_none()));
            }
            if !own_only {
                let parents = parent
                    .and_then(|parent| with_answer(&|sign| Key::AnswerIn(messages, sign, parent)));
                let others = || with_answer(&|sign| Key::Answer(messages, sign));
                if let Some(number) = parents.or_else(others) {
                    return Some((number, false));
                }
            }
        }
        let edited = own.filter(|_| place.goes_on);
        let found = self.by_answer(place, search).or(edited);
        if let Some(number) = found {
            return Some((number, false));
        }
        let key = match place.answered {
            true => Key::Unanswered(messages),
            false => Key::UnansweredUnder(messages, head),
        };
        let others = self.latest(key).filter(is_unanswered);
        others
            .filter(|_| is_known && !own_only)
            .map(|number| (number, true))
    }

    /// Returns the call that gave what the model says at a place, without regard to what comes before it.
    fn by_answer(&self, place: &Place, search: &mut Search) -> Option<u64> {
        let mut other = None;
        for Sign { hash, weight } in place.said.signs() {
            if *weight == Weight::InPlace {
                continue;
            }
            match self.given.giver(*hash, search.within) {
                Some(Giver::Own(number)) => return Some(number),
                Some(Giver::Other(number)) if !search.own_only && other.is_none() => {
                    other = match weight {
                        Weight::Anywhere => Some(number),
                        _ => search.second_half(*hash, number, self.calls[&number].within),
                    };
                }
                _ => {}
            }
        }
        other
    }

    /// Returns the call that a prompt of one string begins with, if its answer follows there.
    fn by_words(&self, outline: &Outline, within: u64) -> Option<u64> {
        let words = &outline.words;
        let (_, shorter) = words.beginnings.split_last()?;
        shorter.iter().rev().find_map(|(hash, length)| {
            let own = self.latest(Key::WordsIn(*hash, within));
            let number = own.or_else(|| self.latest(Key::Words(*hash)))?;
            let answer = self.calls[&number].beginning.as_deref()?;
            words.has_answer(*length, answer).then_some(number)
        })
    }

    /// Returns the latest call of its own session whose answer a prompt quotes, and that of another
    /// session whose answer it contains.
    fn quoted(
        &self,
        outline: &Outline,
        within: u64,
        session: Option<&str>,
    ) -> (Option<u64>, Option<u64>) {
        let mut counts = HashMap::new();
        for piece in outline.pieces.quotable.iter() {
            if let Some(giver) = self.given.giver(*piece, within) {
                *counts.entry(giver).or_insert(0) += 1;
            }
        }
        let (mut resumed, mut quoted) = (None, None);
        for (giver, count) in counts {
            match giver {
                // Clients shorten the summaries that a conversation goes on from.
                Giver::Own(number) if 4 * count >= self.calls[&number].sketch => {
                    resumed = resumed.max(Some(number));
                }
                Giver::Other(number) if 2 * count > self.calls[&number].sketch => {
                    quoted = quoted.max(Some(number));
                }
                Giver::Own(_) | Giver::Other(_) => {}
            }
        }
        let seen = session.and_then(|session| self.sessions.get(session));
        let short = seen.into_iter().flat_map(|seen| &seen.short_answers);
        let opening = &*outline.opening;
        let short = short.filter(|(answer, _)| opening.contains(&**answer));
        let short = short.map(|(_, number)| *number);
        // It may have been forgotten.
        let short = short.filter(|number| self.calls.contains_key(number));
        (short.max().max(resumed), quoted)
    }

    /// Describes that a call quotes this one, unless their sessions belong together.
    fn quotation(&self, call: u64, session: &str) -> Option<Quotation> {
        let other = self.calls[&call].session.as_ref()?;
        let parent = |session| self.sessions.get(session)?.parent.as_deref();
        let is_sibling = parent(session).is_some() && parent(session) == parent(other);
        let is_strange = !is_sibling && !self.are_kin(session, other);
        is_strange.then(|| Quotation {
            call,
            session: Arc::clone(other),
        })
    }

    /// Returns whether one of two sessions names the other as its parent.
    fn are_kin(&self, one: &str, other: &str) -> bool {
        let parent = |session| self.sessions.get(session)?.parent.as_deref();
        parent(one) == Some(other) || parent(other) == Some(one)
    }

    /// Returns a session's id, which is kept once.
    fn known(&self, session: &str) -> Arc<str> {
        match self.sessions.get_key_value(session) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(session),
        }
    }

    fn latest(&self, key: Key) -> Option<u64> {
        self.latest.get(&key.hash()).copied()
    }

    fn add_keys(&mut self, number: u64, keys: impl IntoIterator<Item = Key>) {
        let Some(known) = self.calls.get_mut(&number) else {
            return;
        };
        for key in keys {
            let key = key.hash();
            known.keys.push(key);
            self.latest.insert(key, number);
        }
    }

    fn remember(
        &mut self,
        number: u64,
        session: Option<Arc<str>>,
        within: u64,
        root: Root,
        outline: &Outline,
    ) {
        let messages = outline.messages;
        let words = outline.words.beginnings.last().map(|(hash, _)| *hash);
        self.calls.insert(
            number,
            Known {
                session,
                within,
                root,
                messages,
                answered: false,
                taught: false,
                keys: vec![],
                gave: vec![],
                sketch: 0,
                beginning: None,
                is_string: words.is_some(),
            },
        );
        if outline.asked {
            let unanswered = match outline.answered {
                true => Key::Unanswered(messages),
                false => Key::UnansweredUnder(messages, outline.head),
            };
            let own = Key::MessagesIn(messages, within);
            let prompt = Key::PromptIn(messages, outline.head, within);
            self.add_keys(number, [Key::Messages(messages), own, prompt, unanswered]);
        }
        if let Some(words) = words {
            self.add_keys(number, [Key::Words(words), Key::WordsIn(words, within)]);
        }
        self.order.push_back(number);
        while self.order.len() > self.limit {
            self.forget_the_oldest();
        }
    }

    fn forget_the_oldest(&mut self) {
        let number = self.order.pop_front();
        let Some((number, known)) = number.and_then(|number| self.calls.remove_entry(&number))
        else {
            return;
        };
        for key in known.keys {
            if let Entry::Occupied(entry) = self.latest.entry(key) {
                if *entry.get() == number {
                    entry.remove();
                }
            }
        }
        for gift in known.gave {
            self.given.remove(gift, number, known.within);
        }
        if let Some(session) = known.session {
            if let Entry::Occupied(mut seen) = self.sessions.entry(session) {
                seen.get_mut().calls -= 1;
                if seen.get().calls == 0 {
                    seen.remove();
                }
            }
        }
    }
}

/// A search for the calls that a prompt continues.
#[derive(Debug)]
struct Search {
    /// Its session, as a hash, and its tools and system prompt.
    within: u64,
    head: u64,
    /// The session that it names as its parent.
    parent: Option<u64>,
    /// Whether only calls of its own session are still looked for.
    own_only: bool,
    /// The tool calls of other sessions that were found so far, each with its call and its session.
    halves: Vec<(u64, u64, u64)>,
}

impl Search {
    /// Notes a tool call of another session; returns the latest call that gave one, if there are
    /// two.
    fn second_half(&mut self, hash: u64, call: u64, session: u64) -> Option<u64> {
        let mut halves = self.halves.iter();
        let first = halves.find(|half| half.0 != hash && half.2 == session);
        let latest = first.map(|first| first.1.max(call));
        self.halves.push((hash, call, session));
        latest
    }
}

impl Seen {
    fn add(&mut self, short: Box<str>, number: u64) {
        self.short_answers.retain(|(answer, _)| *answer != short);
        if self.short_answers.len() == SHORT_ANSWERS {
            self.short_answers.pop_front();
        }
        self.short_answers.push_back((short, number));
    }

    /// Notes that a conversation went on; returns the other one that shares the session, if that is
    /// new.
    fn go_on(&mut self, root: Root) -> Option<Sharing> {
        self.turns += 1;
        let turn = self.turns;
        let sharing = |other: &Conversation| Sharing {
            conversation: root.number,
            other: other.root.number,
            back: other.root.number > root.number,
        };
        let strangers = |other: &&Conversation| root.is_stranger_to(&other.root);
        let own = (self.conversations.iter()).position(|own| own.root.number == root.number);
        let Some(own) = own else {
            let sharing = self.conversations.iter().find(strangers).map(sharing);
            if self.conversations.len() < CONVERSATIONS {
                self.conversations.push(Conversation {
                    root,
                    turn,
                    takes_turns: sharing.is_some_and(|sharing| sharing.back),
                });
            }
            return sharing;
        };
        let since = std::mem::replace(&mut self.conversations[own].turn, turn);
        let mut others = self.conversations.iter().filter(strangers);
        let later = others.find(|other| other.root.number > root.number && other.turn > since);
        let sharing = later.map(sharing);
        let own = &mut self.conversations[own];
        sharing.filter(|_| !std::mem::replace(&mut own.takes_turns, true))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    #[test]
    fn a_conversation_is_compared_with_the_first_ones_of_its_session() {
        let root = |number, head| Root {
            number,
            original: number,
            head,
            agent: None,
            resumes: false,
        };
        let mut seen = Seen::default();
        let count = CONVERSATIONS as u64;
        for number in 0..=count {
            assert_eq!(seen.go_on(root(number, number)), None);
        }
        assert_eq!(seen.go_on(root(1000, count)), None);
        let (conversation, other) = (1001, count - 1);
        let sharing = Sharing {
            conversation,
            other,
            back: false,
        };
        assert_eq!(seen.go_on(root(conversation, other)), Some(sharing));
        assert_eq!(seen.conversations.len(), CONVERSATIONS);
    }

    #[test]
    fn a_session_keeps_its_latest_short_answers_each_of_them_once() {
        let answer = |number| format!("answer{number}").into_boxed_str();
        let answers = |numbers: Range<u64>| {
            let numbered = |number| (answer(number), number);
            numbers.map(numbered).collect::<Vec<_>>()
        };
        let mut seen = Seen::default();
        let count = SHORT_ANSWERS as u64;
        for number in 0..count {
            seen.add(answer(number), 0);
            seen.add(answer(number), number);
        }
        assert_eq!(seen.short_answers, answers(0..count));
        seen.add(answer(count), count);
        assert_eq!(seen.short_answers, answers(1..count + 1));
    }
}
