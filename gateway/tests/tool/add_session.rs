//! `--add-session`: calls of clients that name no session, as they reach the upstream.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use reqwest::blocking::{RequestBuilder, Response};
use reqwest_opencode_session::testing::{Failure, Gateway, Reply, SeenRequest};
use serde_json::{Value, json};

use crate::program::{Program, chat, client, run, stderr};

const PATH: &str = "/zen/go/v1/chat/completions";
const SYSTEM: &str = "You are a careful engineer.";

/// The program in front of a test gateway that accepts two keys.
fn start() -> (Gateway, Program) {
    let gateway = Gateway::builder().key("another-key").start().unwrap();
    let program = Program::start(["--upstream", &gateway.url(""), "--add-session"]);
    (gateway, program)
}

fn post(program: &Program, key: &str) -> RequestBuilder {
    client().post(program.url(PATH)).bearer_auth(key)
}

/// Makes a call without a session, and returns what the model says.
fn ask(program: &Program, body: &Value) -> Value {
    ask_with(program, Gateway::KEY, body)
}

fn ask_with(program: &Program, key: &str, body: &Value) -> Value {
    let response = post(program, key).body(body.to_string()).send().unwrap();
    assert_eq!(response.status(), 200);
    message(response)
}

/// Returns the message of an answer, whole or streamed.
fn message(response: Response) -> Value {
    let text = response.text().unwrap();
    if let Ok(answer) = serde_json::from_str::<Value>(&text) {
        return answer["choices"][0]["message"].clone();
    }
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let said = events.filter_map(|event| {
        let content = &event["choices"][0]["delta"]["content"];
        content.as_str().map(str::to_owned)
    });
    json!({"role": "assistant", "content": said.collect::<String>()})
}

fn sessions(calls: &[SeenRequest]) -> Vec<&str> {
    let sessions = calls.iter().map(|call| call.session.as_deref().unwrap());
    sessions.collect()
}

/// Holds a conversation as an agent does: its title first, tools, a retry, and a summary at the
/// end.
fn converse(program: &Program, topic: &str, stream: bool) {
    let question = format!("{topic}: please find out why its tests are flaky, and mend them.");
    let title = json!({"model": "kimi-k3", "messages": [
        {"role": "system", "content": "Generate a title for this conversation."},
        {"role": "user", "content": question},
    ]});
    ask(program, &title);
    let tools = json!([{"type": "function", "function": {"name": "read", "parameters": {}}}]);
    let mut messages = vec![
        json!({"role": "system", "content": SYSTEM}),
        json!({"role": "user", "content": question}),
    ];
    let mut last = Value::Null;
    for turn in 0..4 {
        let body = json!({
            "model": "kimi-k3", "messages": messages, "tools": tools, "stream": stream,
        });
        // Some calls are refused, and sent again.
        last = loop {
            let call = post(program, Gateway::KEY).body(body.to_string());
            let response = call.send().unwrap();
            if response.status() == 200 {
                break message(response);
            }
            assert_eq!(response.status(), 503);
        };
        messages.push(last.clone());
        messages.push(json!({"role": "user", "content": format!("{topic}: go on, {turn}.")}));
    }
    let said = last["content"].as_str().unwrap();
    let summary = json!({"model": "kimi-k3", "messages": [
        {"role": "user", "content": format!("Summarize for {topic}: {said}")},
    ]});
    ask(program, &summary);
}

#[test]
fn conversations_at_once_with_titles_retries_and_summaries_are_each_in_one_session() {
    let (gateway, program) = start();
    gateway.fail_next(2, Failure::Status(http::StatusCode::SERVICE_UNAVAILABLE));
    ask_until_it_works(&program);
    gateway.fail_next(3, Failure::Delay(Duration::from_millis(100)));
    let topics = ["The parser", "The exporter", "The settings page"];
    thread::scope(|scope| {
        for (topic, stream) in topics.into_iter().zip([false, true, false]) {
            let program = &program;
            scope.spawn(move || converse(program, topic, stream));
        }
    });
    let mut of_topic: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let requests = gateway.requests();
    for call in &requests {
        let session = call.session.clone().expect("every call has a session");
        let body = String::from_utf8(call.body.clone().unwrap().to_vec()).unwrap();
        if let Some(topic) = topics.into_iter().find(|topic| body.contains(topic)) {
            of_topic.entry(topic).or_default().insert(session);
        }
    }
    let all: BTreeSet<_> = of_topic.values().flatten().collect();
    assert_eq!(of_topic.len(), 3);
    let added: Vec<String> = (1..=requests.len() as u64)
        .map(|number| {
            let call = program.call(number, |_| true);
            format!("{} {} {}", call["name"], call["session"], call["added"])
        })
        .collect();
    assert_eq!(all.len(), 3, "{added:#?}");
    assert!(requests.iter().all(|call| !call.has_fault()));
}

/// Makes a call until it is answered, as a client retries.
fn ask_until_it_works(program: &Program) {
    let body = chat(SYSTEM, &["Are you there?"]).to_string();
    while post(program, Gateway::KEY)
        .body(body.clone())
        .send()
        .unwrap()
        .status()
        != 200
    {}
}

#[test]
fn a_call_that_is_sent_again_because_it_got_no_whole_answer_stays_in_its_session() {
    let (gateway, program) = start();
    let body = chat(SYSTEM, &["Where is the sea?"]);
    let send = || post(&program, Gateway::KEY).body(body.to_string()).send();
    gateway.fail_next(1, Failure::Status(http::StatusCode::SERVICE_UNAVAILABLE));
    gateway.fail_next(1, Failure::CloseMidAnswer);
    assert_eq!(send().unwrap().status(), 503);
    assert!(send().and_then(Response::text).is_err());
    assert_eq!(send().unwrap().status(), 200);
    // The same words once more are another conversation.
    assert_eq!(send().unwrap().status(), 200);
    let requests = gateway.requests();
    let [first, second, third, other] = sessions(&requests)[..] else {
        panic!("there were four calls");
    };
    assert_eq!([second, third], [first, first]);
    assert_ne!(other, first);
    let added = |number| program.call(number, |_| true)["added"].clone();
    assert_eq!(added(1), "session added, a new one");
    assert_eq!(added(3), "session added, that of #2 before it");
}

#[test]
fn a_session_of_the_clients_own_stays_and_one_under_another_name_is_sent_on() {
    let (gateway, program) = start();
    let body = chat(SYSTEM, &["Where is the sea?"]).to_string();
    for (name, turn) in [("x-opencode-session", true), ("x-session-id", false)] {
        let call = post(&program, Gateway::KEY)
            .header(name, "mine")
            .body(body.clone());
        let call = match turn {
            true => call.header("x-opencode-request", "turn-1"),
            false => call,
        };
        assert_eq!(call.send().unwrap().status(), 200);
    }
    let requests = gateway.requests();
    assert_eq!(sessions(&requests), ["mine", "mine"]);
    assert_eq!(requests[0].turn.as_deref(), Some("turn-1"));
    assert_eq!(requests[1].headers["x-opencode-session"], "mine");
    let call = |number| program.call(number, |_| true);
    assert_eq!(call(1)["added"], Value::Null);
    assert_eq!(call(2)["added"], "session added, of another header");
}

#[test]
fn a_conversation_with_a_session_of_its_own_gives_it_to_its_helper() {
    let (gateway, program) = start();
    let said = "The sea begins where the last house of the village ends.";
    gateway.reply_next(Reply::Text(said.to_owned()));
    let call = post(&program, Gateway::KEY).header("x-opencode-session", "mine");
    let question = chat(SYSTEM, &["Where is the sea?"]).to_string();
    assert_eq!(call.body(question).send().unwrap().status(), 200);
    let summary = format!("Summarize this: {said}");
    ask(&program, &chat("You are brief.", &[&summary]));
    assert_eq!(sessions(&gateway.requests()), ["mine", "mine"]);
    assert_eq!(
        program.call(2, |_| true)["added"],
        "session added, that of #1"
    );
}

#[test]
fn calls_with_another_key_are_no_evidence() {
    let (gateway, program) = start();
    let said = "The sea begins where the last house of the village ends.";
    gateway.reply_next(Reply::Text(said.to_owned()));
    ask(&program, &chat(SYSTEM, &["Where is the sea?"]));
    let next = chat(SYSTEM, &["Where is the sea?", said, "And the lake?"]);
    ask_with(&program, "another-key", &next);
    ask(&program, &next);
    let requests = gateway.requests();
    let [first, strangers, own] = sessions(&requests)[..] else {
        panic!("there were three calls");
    };
    assert_ne!(strangers, first);
    assert_eq!(own, first);
}

#[test]
fn what_is_no_call_gets_no_session() {
    let (gateway, program) = start();
    let models = client()
        .get(program.url("/zen/go/v1/models"))
        .send()
        .unwrap();
    assert_eq!(models.status(), 200);
    assert_eq!(gateway.requests()[0].session, None);
}

#[test]
fn the_lines_say_which_sessions_were_added() {
    let (_gateway, mut program) = start();
    let first = chat(SYSTEM, &["Where is the sea?"]);
    let said = ask(&program, &first)["content"]
        .as_str()
        .unwrap()
        .to_owned();
    ask(
        &program,
        &chat(SYSTEM, &["Where is the sea?", &said, "And the lake?"]),
    );
    assert!(program.call_line().contains("session added, a new one"));
    assert!(program.call_line().contains("session added, that of #1"));
}

#[test]
fn it_needs_an_upstream() {
    let output = run(["--add-session"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        stderr(&output).contains("--upstream"),
        "{}",
        stderr(&output)
    );
}
