//! The commands that `--check` runs in these tests: agents that know only what their environment
//! says about the gateway. They are this test executable, run again.

use std::env;

use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

use crate::program::{chat, this_executable};

/// The environment variable that says which agent this executable should be.
const AGENT: &str = "TOOL_TEST_AGENT";

/// The command that runs an agent.
pub fn command(agent: &str) -> (Vec<String>, (&'static str, String)) {
    let arguments = ["agent::acts", "--exact", "--ignored", "--nocapture"];
    let mut command = vec![this_executable()];
    command.extend(arguments.map(str::to_owned));
    (command, (AGENT, agent.to_owned()))
}

#[test]
#[ignore = "it is run by the program"]
fn acts() {
    let agent = env::var(AGENT).unwrap_or_default();
    match &*agent {
        "right" => right(),
        "pinned" => pinned(),
        "title forgotten" => title_forgotten(),
        "changing" => changing(),
        "forking" => forking(),
        "quoting" => quoting(),
        "compressing" => compressing(),
        "silent" => {}
        "only models" => only_models(),
        "models at the end" => {
            right();
            (0..10).for_each(|_| only_models());
        }
        "many calls" => (0..300).for_each(|_| only_models()),
        "wrong key" => wrong_key(),
        "one refused" => one_refused(),
        "retrying" => retrying(),
        "failing" => {
            right();
            std::process::exit(7);
        }
        "environment" => environment(),
        agent => panic!("unknown agent {agent:?}"),
    }
}

/// A summary that is made under an id of its own.
fn quoting() {
    let sdk = Sdk::new();
    let said = sdk.converse(&[(FIRST, "Where is the sea warm?")]);
    let prompt = format!("Summarize this conversation: {}", said.join("\n"));
    sdk.ask(SECOND, &chat(GUIDE, &[&prompt]));
}

/// A prompt that the gateway cannot read.
fn compressing() {
    let sdk = Sdk::new();
    sdk.converse(&[(FIRST, "Where is the sea warm?")]);
    let call = sdk.client.post(format!("{}/chat/completions", sdk.base));
    let call = call
        .bearer_auth(&sdk.key)
        .header("x-opencode-session", FIRST);
    let call = call.header("content-encoding", "zstd").body("no JSON");
    assert_eq!(call.send().unwrap().status(), 500);
}

const GUIDE: &str = "You are a guide to the cities of the sea.";
const FIRST: &str = "01a20360-f6d2-7083-9a19-5a139a403ac6";
const SECOND: &str = "01a20360-f6d2-7083-9a19-5a139a40b7d1";

struct Sdk {
    client: Client,
    base: String,
    key: String,
}

impl Sdk {
    fn new() -> Self {
        Self {
            client: Client::builder()
                .user_agent("test-agent/1.0")
                .build()
                .unwrap(),
            base: env::var("OPENAI_BASE_URL").unwrap(),
            key: env::var("OPENAI_API_KEY").unwrap(),
        }
    }

    fn send(&self, session: Option<&str>, parent: Option<&str>, body: &Value) -> Response {
        let mut call = self.client.post(format!("{}/chat/completions", self.base));
        call = call.bearer_auth(&self.key).body(body.to_string());
        if let Some(session) = session {
            call = call.header("x-opencode-session", session);
        }
        if let Some(parent) = parent {
            call = call.header("x-parent-session-id", parent);
        }
        call.send().unwrap()
    }

    /// Makes a call, and returns what the model says.
    fn ask(&self, session: &str, body: &Value) -> String {
        let response = self.send(Some(session), None, body);
        assert_eq!(response.status(), 200);
        let answer: Value = serde_json::from_str(&response.text().unwrap()).unwrap();
        let text = answer["choices"][0]["message"]["content"].as_str();
        text.unwrap().to_owned()
    }

    /// Holds a conversation of these questions, each with the session that it is asked in.
    fn converse(&self, questions: &[(&str, &str)]) -> Vec<String> {
        let mut said = vec![];
        for (session, question) in questions {
            said.push((*question).to_owned());
            let texts: Vec<&str> = said.iter().map(String::as_str).collect();
            let answer = self.ask(session, &chat(GUIDE, &texts));
            said.push(answer);
        }
        said
    }
}

fn title(of: &str) -> Value {
    let prompt = format!("Generate a title for this conversation: {of}");
    json!({"model": "glm-5.2", "messages": [{"role": "user", "content": prompt}]})
}

/// A complete conversation in one session: its title, one-shot calls of helpers, a compaction and
/// what follows it. Also a subagent that names its parent.
fn right() {
    let sdk = Sdk::new();
    sdk.ask(FIRST, &title("Where is the sea warm?"));
    let said = sdk.converse(&[
        (FIRST, "Where is the sea warm?"),
        (FIRST, "And where is it cold?"),
    ]);
    for question in ["Is that a question?", "Which language is it?"] {
        let body = json!({"model": "glm-5.2", "messages": [{"role": "user", "content": question}]});
        sdk.ask(FIRST, &body);
    }
    let mut all: Vec<&str> = said.iter().map(String::as_str).collect();
    all.push("Summarize all that was said, so that another one can go on.");
    let summary = sdk.ask(FIRST, &chat(GUIDE, &all));

    let resumed = format!("What was said before:\n{summary}\nAnd where is there no sea?");
    let answer = sdk.ask(FIRST, &chat(GUIDE, &[&resumed]));
    sdk.ask(FIRST, &chat(GUIDE, &[&resumed, &answer, "Thank you."]));

    let task = chat("You look things up.", &["The water's temperature in Oslo"]);
    assert_eq!(sdk.send(Some(SECOND), Some(FIRST), &task).status(), 200);
}

/// One id for all conversations, as in a client's default headers.
fn pinned() {
    let sdk = Sdk::new();
    sdk.converse(&[
        (FIRST, "Where is the sea warm?"),
        (FIRST, "And where is it cold?"),
    ]);
    sdk.converse(&[
        (FIRST, "What is a fjord?"),
        (FIRST, "And what is a lagoon?"),
    ]);
}

fn title_forgotten() {
    let sdk = Sdk::new();
    sdk.converse(&[
        (FIRST, "Where is the sea warm?"),
        (FIRST, "And where is it cold?"),
    ]);
    assert_eq!(
        sdk.send(None, None, &title("Where is the sea warm?"))
            .status(),
        400
    );
}

/// A conversation that is in another session for one call, as a wrong retry would be.
fn changing() {
    Sdk::new().converse(&[
        (FIRST, "Where is the sea warm?"),
        (SECOND, "And where is it cold?"),
        (FIRST, "And where is there none?"),
    ]);
}

/// A conversation that continues in another session.
fn forking() {
    Sdk::new().converse(&[
        (FIRST, "Where is the sea warm?"),
        (SECOND, "And where is it cold?"),
        (SECOND, "And where is there none?"),
    ]);
}

fn only_models() {
    let sdk = Sdk::new();
    let response = sdk
        .client
        .get(format!("{}/models", sdk.base))
        .send()
        .unwrap();
    assert_eq!(response.status(), 200);
}

fn wrong_key() {
    let sdk = Sdk {
        key: "wrong-key".to_owned(),
        ..Sdk::new()
    };
    let body = chat(GUIDE, &["Where is the sea warm?"]);
    assert_eq!(sdk.send(Some(FIRST), None, &body).status(), 401);
}

/// One call is refused for good, so nobody knows how the conversation would have gone on.
fn one_refused() {
    right();
    wrong_key();
}

/// A call that is retried after it failed.
fn retrying() {
    let sdk = Sdk::new();
    let body = chat(GUIDE, &["Where is the sea warm?"]);
    assert_eq!(sdk.send(Some(FIRST), None, &body).status(), 503);
    assert_eq!(sdk.send(Some(FIRST), None, &body).status(), 429);
    sdk.ask(FIRST, &body);
}

/// Prints the environment variables that the SDKs read.
fn environment() {
    for (name, value) in env::vars() {
        let is_told = [
            "_BASE_URL",
            "_API_BASE",
            "_CONFIG_CONTENT",
            "_API_KEY",
            "_TOKEN",
            "_GATEWAY_KEY",
            "CODEX_HOME",
            "_PROXY",
            "_proxy",
        ];
        if is_told.iter().any(|end| name.ends_with(end)) {
            println!("{name}={value}");
        }
    }
    right();
}
