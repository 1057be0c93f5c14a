//! Conversations in the shapes of real clients: as they are, nothing is marked. If the id of any one
//! call changes, that call is marked, or the one that goes on from it.

use reqwest_opencode_session::testing::record::Log;
use reqwest_opencode_session::testing::{Mark, SeenRequest};
use serde_json::{Value, json};

use super::played::{Call, Format, Message, Said, Tool, asks, result, says};

/// What shows that the id of a call has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// A mark of the call itself.
    Here,
    /// A mark of a later call, which goes on from this one: it is the first of its conversation.
    Later,
    /// Nothing: it contains nothing but what the user said, and nothing goes on from it.
    Nowhere,
}

/// The calls of a client, in their order.
#[derive(Debug, Default)]
struct Client {
    calls: Vec<(Call, Told)>,
    /// How many answers were made up, so that each is another one.
    answers: u64,
}

impl Client {
    /// Returns an answer that is unlike every other.
    fn text(&mut self) -> String {
        const WORDS: [&str; 16] = [
            "parser", "module", "tests", "reads", "writes", "checks", "stream", "buffer", "error",
            "branch", "commit", "config", "thread", "socket", "header", "session",
        ];
        self.answers += 1;
        let mut bits = self.answers.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut text = format!("Step {}:", self.answers);
        for _ in 0..12 {
            bits = bits.rotate_left(17).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            text.push(' ');
            text.push_str(WORDS[(bits >> 60) as usize]);
        }
        text + "."
    }

    /// Returns a call of a tool, with an id as providers make them.
    fn tool(&mut self) -> Tool {
        self.answers += 1;
        let bits = self.answers.wrapping_mul(0x94d0_49bb_1331_11eb);
        let path = format!("src/file_{}.rs", self.answers % 4);
        Tool::new(
            &format!("call_{bits:016x}{:04}", self.answers),
            "read",
            json!({"path": path}),
        )
    }

    fn add(&mut self, call: Call, answer: impl Into<Said>, told: Told) {
        self.calls.push((call.answered(answer), told));
    }

    /// Plays the calls, with another session for one of them.
    fn play(&self, changed: Option<usize>) -> Vec<SeenRequest> {
        let log = Log::default();
        for (number, (call, _)) in self.calls.iter().enumerate() {
            let mut call = call.clone();
            if changed == Some(number) {
                call.session = "changed".to_owned();
            }
            call.record(&log);
        }
        log.requests()
    }

    fn check(&self, name: &str) {
        for seen in self.play(None) {
            assert_eq!(seen.marks, [], "{name}: {seen}");
        }
        for (at, (_, told)) in self.calls.iter().enumerate() {
            let seen = self.play(Some(at));
            let number = at as u64 + 1;
            let is_told = |mark: &Mark| match mark {
                Mark::Moved { continues, .. } => Some(*continues),
                Mark::Quotes { call, .. } => Some(*call),
                _ => None,
            };
            let marked = |call: &SeenRequest| call.marks.iter().find_map(is_told);
            let here = marked(&seen[at]).is_some();
            let later = seen[at + 1..]
                .iter()
                .any(|call| marked(call) == Some(number));
            let found = match (here, later) {
                (true, _) => Told::Here,
                (false, true) => Told::Later,
                (false, false) => Told::Nowhere,
            };
            assert_eq!(found, *told, "{name}: {}", seen[at]);
        }
    }
}

/// A conversation that an agent holds in one wire format.
struct Conversation {
    format: Format,
    session: String,
    parent: Option<String>,
    system: String,
    messages: Vec<Message>,
    /// What each call has in its body as well.
    fields: Value,
}

impl Conversation {
    fn new(format: Format, session: &str, system: &str) -> Self {
        Self {
            format,
            session: session.to_owned(),
            parent: None,
            system: system.to_owned(),
            messages: vec![],
            fields: json!({}),
        }
    }

    /// Returns a call with these messages in place of its own.
    fn call_with(&self, messages: &[Message]) -> Call {
        let mut call = Call::in_format(&self.session, self.format, &self.system, messages);
        for (name, value) in self.fields.as_object().unwrap() {
            call.body[name] = value.clone();
        }
        call.parent.clone_from(&self.parent);
        call
    }

    fn call(&self) -> Call {
        self.call_with(&self.messages)
    }

    /// Asks, lets the model read two files, one at a time, and answer.
    fn turn(&mut self, client: &mut Client, question: &str) {
        self.messages.push(asks(question));
        let begins = !self
            .messages
            .iter()
            .any(|message| matches!(message, Message::Model(_)));
        let mut told = if begins { Told::Later } else { Told::Here };
        for _ in 0..2 {
            let tool = client.tool();
            // With a few words before the call, or none.
            let text = if told == Told::Here {
                client.text()
            } else {
                String::new()
            };
            let said = Said {
                text,
                calls: vec![tool.clone()],
            };
            client.add(self.call(), said.clone(), told);
            self.messages
                .extend([Message::Model(said), result(&tool, "fn main() {}")]);
            told = Told::Here;
        }
        let answer = client.text();
        client.add(self.call(), &*answer, told);
        self.messages.push(says(&*answer));
    }

    /// Sends one more message after the conversation, and forgets it; returns the answer.
    fn aside(&self, client: &mut Client, question: &str) -> String {
        let messages = [&self.messages[..], &[asks(question)]].concat();
        let answer = client.text();
        client.add(self.call_with(&messages), &*answer, Told::Here);
        answer
    }
}

/// A call of a helper: one message under a system prompt of its own.
fn helper(client: &mut Client, of: &Conversation, text: &str, told: Told) -> String {
    let mut helper = Conversation::new(of.format, &of.session, "You help another agent.");
    helper.messages.push(asks(text));
    let answer = client.text();
    client.add(helper.call(), &*answer, told);
    answer
}

/// Returns a conversation as text.
fn transcript(messages: &[Message]) -> String {
    let lines = messages.iter().map(|message| match message {
        Message::User(text) => format!("# USER\n{text}\n"),
        Message::Model(said) => format!("# ASSISTANT\n{}\n", said.text),
        Message::Results(_) => String::new(),
    });
    lines.collect()
}

#[test]
fn opencode() {
    for format in Format::ALL {
        let mut client = Client::default();
        let mut main = Conversation::new(format, "ses_main", "You are opencode. <env>2026</env>");
        helper(
            &mut client,
            &main,
            "Generate a title for: Fix the parser",
            Told::Nowhere,
        );
        main.turn(&mut client, "Fix the parser");
        // A subagent: a session of its own, and its answer is what the tool answers.
        let mut sub = Conversation::new(format, "ses_sub", "You are a researcher.");
        sub.parent = Some("ses_main".to_owned());
        sub.turn(&mut client, "Find all callers");
        let task = client.tool();
        main.messages.push(asks("Who calls it?"));
        client.add(main.call(), task.clone(), Told::Here);
        let Some(Message::Model(found)) = sub.messages.last().cloned() else {
            panic!("it has answered");
        };
        main.messages
            .extend([says(task.clone()), result(&task, &found.text)]);
        main.turn(&mut client, "Go on");
        // The next day, with another commit, and a reminder that only the last message has.
        main.system = main.system.replace("2026", "2027");
        let reminded = [
            &main.messages[..],
            &[asks("Now?\n<reminder>Plan only.</reminder>")],
        ]
        .concat();
        let plan = client.text();
        client.add(main.call_with(&reminded), &*plan, Told::Here);
        main.messages.extend([asks("Now?"), says(&*plan)]);
        main.turn(&mut client, "Do it");
        // A compaction, from which the conversation goes on.
        let summary = main.aside(&mut client, "Provide a detailed prompt for continuing.");
        main.messages = vec![asks("What did we do so far?"), says(&*summary)];
        main.turn(&mut client, "Continue if you have next steps");
        main.turn(&mut client, "And the tests?");
        client.check(&format!("{format:?}"));
    }
}

#[test]
fn pi() {
    for format in Format::ALL {
        let mut client = Client::default();
        let mut main = Conversation::new(format, "0199-pi", "You are pi. It is 10:00.");
        main.turn(&mut client, "Fix the parser");
        main.system = "You are pi. It is 10:01.".to_owned();
        main.turn(&mut client, "And the tests?");
        // It summarizes what came before as text, and keeps the last turn as it was.
        let tail = main.messages.split_off(main.messages.len() - 6);
        let text = format!(
            "<conversation>{}</conversation>",
            transcript(&main.messages)
        );
        let summary = helper(&mut client, &main, &text, Told::Here);
        let before =
            format!("The history before this point was compacted: <summary>{summary}</summary>");
        main.messages = [vec![asks(&before)], tail].concat();
        main.turn(&mut client, "Go on");
        main.turn(&mut client, "And then?");
        client.check(&format!("{format:?}"));
    }
}

#[test]
fn codex() {
    let mut client = Client::default();
    let format = Format::Responses;
    let mut main = Conversation::new(format, "019a-codex", "You are Codex.");
    main.fields = json!({"store": false, "include": ["reasoning.encrypted_content"]});
    let context = [
        asks("# AGENTS.md\nBe brief."),
        asks("<environment_context>cwd</environment_context>"),
    ];
    main.messages.extend(context.clone());
    main.turn(&mut client, "Fix the parser");
    main.turn(&mut client, "And the tests?");
    // It sends thoughts back until the next turn.
    let (mut call, told) = client.calls.pop().unwrap();
    let thought = json!({"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"});
    let items = call.body["input"].as_array_mut().unwrap();
    let last = items.len() - 2;
    items.insert(last, thought);
    client.calls.push((call, told));
    main.turn(&mut client, "Go on");
    // A compaction keeps what the user said, and a summary.
    let summary = main.aside(
        &mut client,
        "You are performing a context checkpoint compaction.",
    );
    let kept = main
        .messages
        .iter()
        .filter(|message| matches!(message, Message::User(_)));
    let mut kept: Vec<_> = kept.cloned().collect();
    kept.push(asks(&format!(
        "Another model started to solve this. Its summary:\n{summary}"
    )));
    main.messages = kept;
    let first = client.calls.len();
    main.turn(&mut client, "Continue");
    // The summary shows where the conversation belongs.
    client.calls[first].1 = Told::Here;
    main.turn(&mut client, "And then?");
    client.check("codex");
}

#[test]
fn claude_code() {
    let mut client = Client::default();
    let format = Format::Messages;
    let mut main = Conversation::new(format, "cc", "You are Claude Code.");
    helper(&mut client, &main, "Fix the parser", Told::Nowhere);
    main.turn(
        &mut client,
        "<system-reminder>CLAUDE.md</system-reminder> Fix the parser",
    );
    // Agents share its session.
    let mut agent = Conversation::new(format, "cc", "You are Claude Code.");
    let begins = client.calls.len();
    agent.turn(&mut client, "Find all callers");
    agent.turn(&mut client, "And their callers");
    for (call, _) in &mut client.calls[begins..] {
        *call = call.clone().agent("agent-1");
    }
    main.turn(&mut client, "And the tests?");
    let summary = main.aside(
        &mut client,
        "Create a detailed summary of the conversation so far.",
    );
    main.messages.clear();
    let first = client.calls.len();
    main.turn(
        &mut client,
        &format!("This session is being continued from a previous one: {summary}"),
    );
    client.calls[first].1 = Told::Here;
    main.turn(&mut client, "And then?");
    // Its system prompt begins with a note that always differs, and the marker of the cache moves.
    for (number, (call, _)) in client.calls.iter_mut().enumerate() {
        let note = format!("x-anthropic-billing-header: cch={number:05x};");
        let system = call.body["system"].take();
        call.body["system"] = json!([
            {"type": "text", "text": note},
            {"type": "text", "text": system, "cache_control": {"type": "ephemeral"}},
        ]);
        let messages = call.body["messages"].as_array_mut().unwrap();
        let blocks = messages.last_mut().unwrap()["content"].as_array_mut();
        blocks.unwrap().last_mut().unwrap()["cache_control"] = json!({"type": "ephemeral"});
    }
    client.check("claude code");
}

#[test]
fn qwen_code_and_gemini_cli() {
    for format in [Format::Chat, Format::Generate] {
        let mut client = Client::default();
        let mut main = Conversation::new(format, "qwen", "You are an interactive CLI agent.");
        let context = "This is the CLI. We are setting up the context for our chat.";
        let got_it = "Got it. Thanks for the context!";
        main.messages.extend([asks(context), says(got_it)]);
        main.turn(&mut client, "Fix the parser");
        // The first call of all is told by the next one.
        client.calls[0].1 = Told::Later;
        main.aside(
            &mut client,
            "Analyze *only* your preceding response. Who should speak next?",
        );
        main.turn(&mut client, "And the tests?");
        let snapshot = main.aside(&mut client, "Generate the <state_snapshot>.");
        let tail = main.messages.split_off(main.messages.len() - 2);
        let compressed = [
            asks(context),
            says(got_it),
            asks(&format!("<state_snapshot>{snapshot}</state_snapshot>")),
            says("Got it. Thanks for the additional context!"),
        ];
        main.messages = [compressed.to_vec(), tail].concat();
        main.turn(&mut client, "Go on");
        // Another conversation, in a session of its own, begins with the same lines.
        let mut other = Conversation::new(format, "qwen-2", "You are an interactive CLI agent.");
        other.messages.extend([asks(context), says(got_it)]);
        let first = client.calls.len();
        other.turn(&mut client, "Fix the parser");
        client.calls[first].1 = Told::Later;
        client.check(&format!("{format:?}"));
    }
}

#[test]
fn aider() {
    let mut client = Client::default();
    let format = Format::Chat;
    let examples = [
        asks("Change get_factorial() to use math.factorial"),
        says("To make this change we need to modify `mathweb/flask/app.py` as follows."),
    ];
    let files = |version: usize| {
        [
            asks(&format!(
                "Here are summaries of some files, version {version}."
            )),
            says("Ok, I won't try and edit those files without asking first."),
            asks(&format!(
                "I have *added these files to the chat*: version {version}"
            )),
            says("Ok, any changes I propose will be to those files."),
        ]
    };
    let mut main = Conversation::new(format, "aider", "Act as an expert software developer.");
    let mut history = vec![];
    for (version, question) in ["Fix the parser", "And the tests?", "Document it"]
        .iter()
        .enumerate()
    {
        history.push(asks(question));
        // The files change with each answer, and stand before the history.
        main.messages = [&examples[..], &files(version), &history].concat();
        let answer = client.text();
        let told = if version == 0 {
            Told::Later
        } else {
            Told::Here
        };
        client.add(main.call(), &*answer, told);
        history.push(says(&*answer));
        let diff = format!("+ a line\n{}", transcript(&history));
        helper(&mut client, &main, &diff, Told::Here);
    }
    let summary = helper(&mut client, &main, &transcript(&history), Told::Here);
    history = vec![
        asks(&format!(
            "I spoke to you previously about a number of things. {summary}"
        )),
        says("Ok."),
        asks("Go on"),
    ];
    main.messages = [&examples[..], &files(4), &history].concat();
    let answer = client.text();
    client.add(main.call(), &*answer, Told::Here);
    client.check("aider");
}

#[test]
fn the_sdks() {
    // A chat of an SDK: the whole history, in each wire format.
    for format in Format::ALL {
        let mut client = Client::default();
        let mut chat = Conversation::new(format, "chat", "You are helpful.");
        for question in ["Hello", "How is the weather?", "And tomorrow?"] {
            chat.turn(&mut client, question);
        }
        client.check(&format!("{format:?}"));

        // A window that slides over the last four messages.
        let mut client = Client::default();
        let mut chat = Conversation::new(format, "window", "You are helpful.");
        for turn in 0..6 {
            chat.messages.push(asks(&format!("Question {turn}")));
            let first = chat.messages.len().saturating_sub(3);
            chat.messages.drain(..first);
            let answer = client.text();
            let told = if turn == 0 { Told::Later } else { Told::Here };
            client.add(chat.call(), &*answer, told);
            chat.messages.push(says(&*answer));
        }
        client.check(&format!("{format:?}"));
    }

    // The Responses API keeps the history.
    let mut client = Client::default();
    let mut previous: Option<String> = None;
    for turn in 0..4 {
        let mut chat = Conversation::new(Format::Responses, "previous", "You are helpful.");
        chat.messages.push(asks(&format!("Question {turn}")));
        chat.fields = json!({"previous_response_id": previous});
        let id = format!("resp_{turn}");
        let told = if turn == 0 { Told::Later } else { Told::Here };
        let answer = client.text();
        client.add(chat.call().with_id(&id), &*answer, told);
        previous = Some(id);
    }
    client.check("previous_response_id");

    // A string that grows.
    let mut client = Client::default();
    let mut text = String::new();
    for turn in 0..4 {
        text.push_str(&format!("User: Question {turn}\n"));
        let told = if turn == 0 { Told::Later } else { Told::Here };
        let answer = client.text();
        let body = json!({"model": "m", "input": text});
        client.add(Call::new("string", body), &*answer, told);
        text.push_str(&format!("Assistant: {answer}\n"));
    }
    client.check("one string");
}
