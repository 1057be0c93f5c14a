//! Random conversations of a right client: nothing is marked. With one fault put in, it is marked, or
//! it is one of those that the documentation of `Log` says cannot be told.

use http::StatusCode;
use proptest::prelude::RngCore;
use proptest::test_runner::{RngAlgorithm, TestRng};
use reqwest_opencode_session::testing::record::Log;
use reqwest_opencode_session::testing::{Mark, SeenRequest};
use serde_json::json;

use super::played::{Call, Format, Message, Said, Tool, asks, result, says};

const SYSTEMS: [&str; 2] = ["You are an agent.", "You plan."];

/// A generator of random numbers.
struct Random(TestRng);

impl Random {
    fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    fn below(&mut self, count: usize) -> usize {
        self.0.next_u64() as usize % count
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// Returns words that are said only once.
    fn words(&mut self, count: usize) -> String {
        let words = (0..count).map(|_| {
            let bits = self.0.next_u64();
            let letters =
                (0..3 + bits % 5).map(|at| char::from(b'a' + (bits >> (8 * at + 3)) as u8 % 26));
            letters.collect::<String>()
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A conversation of a right client.
#[derive(Clone)]
struct Conversation {
    session: String,
    parent: Option<String>,
    format: Format,
    system: &'static str,
    messages: Vec<Message>,
}

/// A call of a conversation.
#[derive(Clone)]
struct Made {
    call: Call,
    messages: Vec<Message>,
    answer: Option<Said>,
}

/// Plays a right client.
struct Client {
    random: Random,
    conversations: Vec<Conversation>,
    calls: Vec<Made>,
    edited: Vec<String>,
    forks: Vec<(String, String)>,
    sessions: usize,
}

impl Client {
    fn new(seed: u64) -> Self {
        let mut client = Self {
            random: Random::new(seed),
            conversations: vec![],
            calls: vec![],
            edited: vec![],
            forks: vec![],
            sessions: 0,
        };
        client.begin(None);
        client.turn(0);
        for _ in 0..8 + client.random.below(16) {
            client.step();
        }
        client
    }

    fn session(&mut self) -> String {
        self.sessions += 1;
        format!("session-{}", self.sessions)
    }

    fn begin(&mut self, parent: Option<String>) {
        let format = Format::ALL[self.random.below(4)];
        let conversation = Conversation {
            session: self.session(),
            parent,
            format,
            system: SYSTEMS[self.random.below(2)],
            messages: vec![],
        };
        self.conversations.push(conversation);
    }

    fn step(&mut self) {
        let at = self.random.below(self.conversations.len());
        match self.random.below(12) {
            0 => self.begin(None),
            1 => {
                let parent = self.conversations[at].session.clone();
                self.begin(Some(parent));
            }
            2 => self.compact(at),
            3 => self.prune(at),
            4 => self.edit(at),
            5 => self.fork(at),
            6 => self.help(at),
            _ => self.turn(at),
        }
    }

    fn answer(&mut self) -> Said {
        let id = format!(
            "call_{:x}{:x}",
            self.random.0.next_u64(),
            self.random.0.next_u64()
        );
        // Ids that are counted, or none, are those of some providers.
        let id = if self.random.one_in(3) {
            "call_1".to_owned()
        } else {
            id
        };
        let path = self.random.words(3);
        let tool = Tool::new(&id, "read", json!({"path": path}));
        let count = 8 + self.random.below(30);
        match self.random.below(4) {
            0 => tool.into(),
            1 => Said {
                text: self.random.words(count),
                calls: vec![tool],
            },
            _ => self.random.words(count).as_str().into(),
        }
    }

    /// Makes a call, after one that was refused, perhaps.
    fn call(&mut self, conversation: &Conversation, answer: Said) {
        let Conversation {
            session,
            parent,
            format,
            system,
            messages,
        } = conversation;
        let mut call = Call::in_format(session, *format, system, messages);
        call.parent.clone_from(parent);
        let messages = messages.clone();
        if self.random.one_in(8) {
            self.calls.push(Made {
                call: call.clone().refused(StatusCode::SERVICE_UNAVAILABLE),
                messages: messages.clone(),
                answer: None,
            });
        }
        self.calls.push(Made {
            call: call.answered(answer.clone()),
            messages,
            answer: Some(answer),
        });
    }

    /// Asks, and answers what tools are called for.
    fn turn(&mut self, at: usize) {
        let mut conversation = self.conversations[at].clone();
        let question = self.random.words(6);
        conversation.messages.push(asks(&question));
        loop {
            let said = self.answer();
            self.call(&conversation, said.clone());
            conversation.messages.push(Message::Model(said.clone()));
            let Some(tool) = said.calls.first() else {
                break;
            };
            let found = self.random.words(9);
            conversation.messages.push(result(tool, &found));
        }
        self.conversations[at] = conversation;
    }

    /// Goes on from a summary, in the same session.
    fn compact(&mut self, at: usize) {
        let mut conversation = self.conversations[at].clone();
        if conversation.messages.is_empty() {
            return;
        }
        conversation
            .messages
            .push(asks("Summarize the conversation."));
        let summary = self.random.words(20);
        self.call(&conversation, summary.as_str().into());
        conversation.messages = vec![asks(&format!("So far: {summary}")), says("Understood.")];
        self.conversations[at] = conversation;
        self.turn(at);
    }

    /// Drops the beginning of the conversation, up to its last question.
    fn prune(&mut self, at: usize) {
        let messages = &mut self.conversations[at].messages;
        let is_question = |message: &Message| matches!(message, Message::User(_));
        if let Some(last) = messages.iter().rposition(is_question) {
            messages.drain(..last);
        }
    }

    /// Changes an earlier message of the user, and goes on from there.
    fn edit(&mut self, at: usize) {
        let conversation = &mut self.conversations[at];
        let messages = conversation.messages.iter().enumerate();
        let users = messages.filter(|(_, message)| matches!(message, Message::User(_)));
        let users: Vec<usize> = users.map(|(at, _)| at).collect();
        if users.is_empty() {
            return;
        }
        let edited = users[self.random.below(users.len())];
        conversation.messages.truncate(edited);
        if edited == 0 {
            self.edited.push(conversation.session.clone());
        }
        self.turn(at);
    }

    /// Goes on in a new session as well, which is declared.
    fn fork(&mut self, at: usize) {
        let mut fork = self.conversations[at].clone();
        fork.session = self.session();
        fork.parent = None;
        let pair = (self.conversations[at].session.clone(), fork.session.clone());
        self.forks.push(pair);
        self.conversations.push(fork);
        self.turn(self.conversations.len() - 1);
    }

    /// Has a helper summarize the conversation under a system prompt of its own.
    fn help(&mut self, at: usize) {
        let mut helper = self.conversations[at].clone();
        let lines = helper.messages.iter().map(|message| match message {
            Message::User(text) => text.as_str(),
            Message::Model(said) => said.text.as_str(),
            Message::Results(_) => "",
        });
        helper.messages = vec![asks(&lines.collect::<Vec<_>>().join("\n"))];
        helper.system = "You write titles.";
        let title = self.random.words(4);
        self.call(&helper, title.as_str().into());
    }

    /// Plays the calls, with other sessions for some of them.
    fn play(&self, changed: &[(usize, &str)]) -> Vec<SeenRequest> {
        let log = Log::default();
        for (original, fork) in &self.forks {
            log.expect_fork(original, fork);
        }
        for session in &self.edited {
            log.expect_edit(session);
        }
        for (at, made) in self.calls.iter().enumerate() {
            let mut call = made.call.clone();
            if let Some((_, session)) = changed.iter().find(|(number, _)| *number == at) {
                call.session = (*session).to_owned();
            }
            call.record(&log);
        }
        log.requests()
    }
}

impl Made {
    /// Returns whether this call goes on from another one.
    fn continues(&self, earlier: &Self) -> bool {
        let asked = earlier.messages.len();
        earlier.answer.as_ref().is_some_and(|answer| {
            self.messages.len() > asked + 1
                && self.messages[..asked] == earlier.messages
                && self.messages[asked] == Message::Model(answer.clone())
        })
    }

    /// Returns whether an answer is recognised in this call, whatever else is there: by its text, or
    /// by the long id of a tool call, or because it is quoted.
    fn shows(&self, answer: &Said) -> bool {
        let has_long_id = answer.calls.iter().any(|call| call.id.len() > 16);
        self.messages.iter().any(|message| match message {
            Message::Model(said) => said == answer && (has_long_id || !answer.text.is_empty()),
            // Sessions with one parent may quote each other.
            Message::User(text) if self.call.parent.is_none() => {
                !answer.text.is_empty() && text.contains(&answer.text)
            }
            Message::User(_) => false,
            Message::Results(_) => false,
        })
    }
}

/// The seeds of the clients that are played. `PROPTEST_CASES` says how many, and `SEED` names the
/// first one.
fn seeds() -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let first = number("SEED").unwrap_or_default();
    first..first + number("PROPTEST_CASES").unwrap_or(200)
}

#[test]
fn right_clients_raise_no_mark() {
    for seed in seeds() {
        for seen in Client::new(seed).play(&[]) {
            assert_eq!(seen.marks, [], "{seed}: {seen}");
        }
    }
}

#[test]
fn the_id_of_one_call_that_changes_is_told_by_it_or_by_the_call_that_goes_on_from_it() {
    let (mut here, mut later, mut nowhere) = (0, 0, 0);
    for seed in seeds() {
        let mut client = Client::new(seed);
        let at = client.random.below(client.calls.len());
        let changed = client.calls[at].clone();
        let known = |session: &str| client.calls.iter().any(|made| made.call.session == session);
        assert!(known(&changed.call.session));
        let answered = client.calls[..at].iter();
        let answers = answered.filter_map(|made| Some((made, made.answer.as_ref()?)));
        let mut is_told = answers
            .clone()
            .any(|(made, answer)| changed.continues(made) || changed.shows(answer));
        // A call that was refused is not judged.
        is_told &= changed.answer.is_some();
        let goes_on = client.calls[at + 1..]
            .iter()
            .any(|made| made.continues(&changed));
        let seen = client.play(&[(at, "changed")]);
        let number = at as u64 + 1;
        let marked = |call: &SeenRequest| {
            call.marks.iter().find_map(|mark| match mark {
                Mark::Moved { continues, .. } => Some(*continues),
                Mark::Quotes { call, .. } => Some(*call),
                _ => None,
            })
        };
        if is_told {
            here += 1;
            assert!(marked(&seen[at]).is_some(), "{seed}: {}", seen[at]);
        } else if goes_on {
            later += 1;
            let found = seen[at + 1..]
                .iter()
                .any(|call| marked(call) == Some(number));
            assert!(found, "{seed}: {}", seen[at]);
        } else {
            nowhere += 1;
        }
    }
    // What cannot be told is the exception.
    let most = here > 3 * later && 4 * (here + later) > 3 * (here + later + nowhere);
    assert!(most || seeds().count() < 200, "{here}, {later}, {nowhere}");
}

#[test]
fn two_conversations_in_one_session_are_told_if_both_go_on_under_one_system_prompt() {
    let mut told = 0;
    for seed in seeds() {
        let client = Client::new(seed);
        let first_of = |session: &str| {
            let first = (client.calls.iter())
                .find(|made| made.call.session == session && made.answer.is_some())?;
            let mut rest = client.calls.iter();
            let goes_on = rest.any(|made| made.call.session == session && made.continues(first));
            goes_on.then_some(first)
        };
        let alone = |conversation: &&Conversation| {
            let session = &conversation.session;
            let is_edited = client.edited.contains(session);
            !is_edited && client.forks.iter().all(|(_, fork)| fork != session)
        };
        let conversations: Vec<_> = client.conversations.iter().filter(alone).collect();
        let Some((one, other)) = (conversations.iter().enumerate()).find_map(|(at, one)| {
            let other = conversations[at + 1..]
                .iter()
                .find(|other| one.system == other.system && first_of(&other.session).is_some());
            first_of(&one.session)?;
            Some((*one, *other?))
        }) else {
            continue;
        };
        told += 1;
        let calls = client.calls.iter().enumerate();
        let pinned = calls.filter(|(_, made)| made.call.session == other.session);
        let pinned: Vec<_> = pinned.map(|(at, _)| (at, one.session.as_str())).collect();
        let seen = client.play(&pinned);
        let is_shared = |mark: &Mark| matches!(mark, Mark::Shared { .. });
        let found = seen.iter().any(|call| {
            call.session.as_ref() == Some(&one.session) && call.marks.iter().any(is_shared)
        });
        assert!(found, "{seed}: {} and {}", one.session, other.session);
    }
    assert!(told > 20 || seeds().count() < 200, "{told}");
}
