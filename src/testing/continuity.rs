//! Which conversation a prompt continues, and whether the conversation stays in its session.
//!
//! A client sends the whole conversation with every call. So a prompt that begins with all of an
//! earlier one continues it, whatever the headers say:
//!
//! - Of several earlier prompts, it continues the longest; of equally long ones, the one in its own
//!   session, or else the latest. A prompt is recognised by its tools, system prompt and messages;
//!   if its messages contain an answer of the model, they are enough.
//! - It has *moved* if the prompt that it continues is in another session, unless its parent header
//!   names that session.
//! - A session is *shared* if two prompts in it with the same tools and system prompt begin a
//!   conversation, both conversations go on, and the later prompt does not contain an earlier
//!   answer of that session. If it does, it is a compaction.
//!
//! Each prompt is looked up by the hash of each of its beginnings, so the work grows with the
//! prompt's length, but not with the number of earlier prompts.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::prompt::{Excerpt, Outline, Prompt};

/// How many of a session's latest answers are kept, to recognise a compaction.
const ANSWERS: usize = 16;

/// How many of a session's first conversations another one is compared with.
const CONVERSATIONS: usize = 256;

/// The latest prompts that were answered.
#[derive(Debug)]
pub(super) struct Continuity {
    limit: usize,
    prompts: HashMap<u64, Known>,
    /// Their numbers, the oldest first.
    order: VecDeque<u64>,
    /// The latest prompt with this key in a session.
    own: HashMap<(Key, Option<Arc<str>>), u64>,
    /// The latest prompt with this key in any session.
    latest: HashMap<Key, u64>,
    sessions: HashMap<Arc<str>, Seen>,
}

/// What a whole prompt is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Beginning(u64),
    History(u64),
    Words(u64),
}

#[derive(Debug)]
struct Known {
    session: Option<Arc<str>>,
    keys: Vec<Key>,
    root: Root,
    answer: Option<Excerpt>,
}

/// The first prompt of a conversation within its session.
#[derive(Debug, Clone, Copy)]
struct Root {
    number: u64,
    head: u64,
    /// Whether it contains an earlier answer of the session.
    resumes: bool,
}

/// What is known of a session.
#[derive(Debug, Default)]
struct Seen {
    prompts: usize,
    /// The conversations that went on.
    continued: Vec<Root>,
    answers: VecDeque<Excerpt>,
}

/// The result of comparing a prompt with the earlier ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// The number of the prompt that it continues.
    pub continues: Option<u64>,
    pub moved: Option<Moved>,
    pub shared: Option<Sharing>,
}

/// The prompt continues one of another session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    /// The session of the prompt that it continues.
    pub from: Arc<str>,
    /// Whether the conversation was in the prompt's session before.
    pub back: bool,
}

/// The prompt's session contains another conversation that goes on as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sharing {
    /// The number of the prompt that the conversation began with.
    pub conversation: u64,
    /// The number of the prompt that the other conversation began with.
    pub other: u64,
}

impl Continuity {
    /// Creates one that remembers this many prompts.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            prompts: HashMap::new(),
            order: VecDeque::new(),
            own: HashMap::new(),
            latest: HashMap::new(),
            sessions: HashMap::new(),
        }
    }

    /// Judges a prompt that was not refused, and remembers it.
    pub fn add(
        &mut self,
        number: u64,
        session: Option<&str>,
        parent: Option<&str>,
        prompt: &Prompt,
    ) -> Judgement {
        let session = session.map(|id| match self.sessions.get_key_value(id) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(id),
        });
        let own = self.predecessor(prompt, |key| self.own.get(&(key, session.clone())));
        let any = self.predecessor(prompt, |key| self.latest.get(&key));
        // Of equally long ones, the one in its own session.
        let continues = match (own, any) {
            (Some(own), Some(any)) if any.length > own.length => Some(any),
            (own, any) => own.or(any),
        };
        let mut judgement = Judgement {
            continues: continues.map(|found| found.number),
            ..Judgement::default()
        };
        let before = continues.and_then(|found| self.prompts[&found.number].session.as_ref());
        if let (Some(session), Some(before)) = (&session, before) {
            let moved = session != before && parent != Some(&**before);
            judgement.moved = moved.then(|| Moved {
                from: Arc::clone(before),
                back: own.is_some(),
            });
        }

        let root = match own {
            Some(found) => self.prompts[&found.number].root,
            None => Root {
                number,
                head: prompt.outline.head,
                resumes: self.holds_an_answer(session.as_deref(), prompt),
            },
        };
        if let Some(session) = &session {
            let seen = self.sessions.entry(Arc::clone(session)).or_default();
            seen.prompts += 1;
            for answer in &prompt.outline.answers {
                seen.remember(answer.clone());
            }
            if own.is_some() {
                judgement.shared = seen.go_on(root);
            }
        }
        self.remember(number, session, root, &prompt.outline);
        judgement
    }

    /// Remembers what the model said, to recognise a compaction.
    pub fn answered(&mut self, number: u64, text: &str) {
        let (Some(known), Some(answer)) = (self.prompts.get_mut(&number), Excerpt::of(text)) else {
            return;
        };
        if let Some(seen) = known
            .session
            .as_ref()
            .and_then(|session| self.sessions.get_mut(session))
        {
            seen.remember(answer.clone());
        }
        known.answer = Some(answer);
    }

    /// Returns the longest prompt that this one continues, of those that `find` finds.
    fn predecessor<'a>(
        &self,
        prompt: &Prompt,
        find: impl Fn(Key) -> Option<&'a u64>,
    ) -> Option<Found> {
        let outline = &prompt.outline;
        let shorter = outline.beginnings.len().saturating_sub(1);
        let found = (0..shorter).rev().find_map(|at| {
            let history = outline.histories[at].map(Key::History);
            let keys = [Some(Key::Beginning(outline.beginnings[at])), history];
            let number = *keys.into_iter().flatten().find_map(&find)?;
            let length = at;
            Some(Found { number, length })
        });
        // A string that begins with another proves little, unless the answer follows.
        found.or_else(|| {
            let shorter = outline.words.len().saturating_sub(1);
            (0..shorter).rev().find_map(|length| {
                let number = *find(Key::Words(outline.words[length]))?;
                let answer = self.prompts[&number].answer.as_ref()?;
                answer
                    .is_in(&prompt.text[prompt.messages_at..])
                    .then_some(Found { number, length })
            })
        })
    }

    fn holds_an_answer(&self, session: Option<&str>, prompt: &Prompt) -> bool {
        let Some(seen) = session.and_then(|session| self.sessions.get(session)) else {
            return false;
        };
        let messages = &prompt.text[prompt.messages_at..];
        seen.answers.iter().any(|answer| answer.is_in(messages))
    }

    fn remember(&mut self, number: u64, session: Option<Arc<str>>, root: Root, outline: &Outline) {
        let keys = [
            outline.beginnings.last().copied().map(Key::Beginning),
            outline
                .histories
                .last()
                .copied()
                .flatten()
                .map(Key::History),
            outline.words.last().copied().map(Key::Words),
        ];
        let keys: Vec<_> = keys.into_iter().flatten().collect();
        for &key in &keys {
            self.own.insert((key, session.clone()), number);
            self.latest.insert(key, number);
        }
        let known = Known {
            session,
            keys,
            root,
            answer: None,
        };
        self.prompts.insert(number, known);
        self.order.push_back(number);
        while self.order.len() > self.limit {
            self.forget_the_oldest();
        }
    }

    fn forget_the_oldest(&mut self) {
        let number = self.order.pop_front();
        let Some((number, known)) = number.and_then(|number| self.prompts.remove_entry(&number))
        else {
            return;
        };
        for key in known.keys {
            remove_if(&mut self.own, (key, known.session.clone()), &number);
            remove_if(&mut self.latest, key, &number);
        }
        if let Some(session) = known.session {
            if let Entry::Occupied(mut seen) = self.sessions.entry(session) {
                seen.get_mut().prompts -= 1;
                if seen.get().prompts == 0 {
                    seen.remove();
                }
            }
        }
    }
}

/// A prompt that another one continues, and how much of that one it covers.
#[derive(Debug, Clone, Copy)]
struct Found {
    number: u64,
    length: usize,
}

impl Seen {
    fn remember(&mut self, answer: Excerpt) {
        if !self.answers.contains(&answer) {
            if self.answers.len() == ANSWERS {
                self.answers.pop_front();
            }
            self.answers.push_back(answer);
        }
    }

    /// Notes that a conversation went on; returns the other one that shares the session, if any.
    fn go_on(&mut self, root: Root) -> Option<Sharing> {
        let known = |other: &Root| other.number == root.number;
        if self.continued.iter().any(known) {
            return None;
        }
        let strangers = |other: &&Root| {
            let later = [*other, &root].into_iter().max_by_key(|root| root.number);
            other.head == root.head && later.is_some_and(|later| !later.resumes)
        };
        let shared = self.continued.iter().find(strangers).map(|other| Sharing {
            conversation: root.number,
            other: other.number,
        });
        if self.continued.len() < CONVERSATIONS {
            self.continued.push(root);
        }
        shared
    }
}

fn remove_if<K: Eq + std::hash::Hash, V: Eq>(map: &mut HashMap<K, V>, key: K, value: &V) {
    if let Entry::Occupied(entry) = map.entry(key) {
        if entry.get() == value {
            entry.remove();
        }
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
            head,
            resumes: false,
        };
        let mut seen = Seen::default();
        let count = CONVERSATIONS as u64;
        for number in 0..=count {
            assert_eq!(seen.go_on(root(number, number)), None);
        }
        assert_eq!(seen.go_on(root(1000, count)), None);
        let (conversation, other) = (1001, count - 1);
        let shared = Sharing {
            conversation,
            other,
        };
        assert_eq!(seen.go_on(root(conversation, other)), Some(shared));
        assert_eq!(seen.continued.len(), CONVERSATIONS);
    }

    #[test]
    fn a_session_keeps_its_latest_answers_each_of_them_once() {
        let answer = |number| Excerpt::of(&format!("answer {number}")).unwrap();
        let answers = |numbers: Range<usize>| numbers.map(answer).collect::<Vec<_>>();
        let mut seen = Seen::default();
        for number in 0..ANSWERS {
            seen.remember(answer(number));
            seen.remember(answer(0));
        }
        assert_eq!(seen.answers, answers(0..ANSWERS));
        seen.remember(answer(ANSWERS));
        assert_eq!(seen.answers, answers(1..ANSWERS + 1));
    }
}
