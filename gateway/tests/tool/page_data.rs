//! The data of the page.

use std::io::{BufRead, BufReader};

use serde_json::{Value, json};

use crate::program::{Program, chat, client};

const PATH: &str = "/zen/go/v1/chat/completions";

struct Caller<'a> {
    program: &'a Program,
    client: reqwest::blocking::Client,
}

impl<'a> Caller<'a> {
    fn new(program: &'a Program) -> Self {
        let client = client();
        Self { program, client }
    }

    fn call(&self, headers: &[(&str, &str)], body: &Value) {
        let mut call = self
            .client
            .post(self.program.url(PATH))
            .bearer_auth("loopback-key");
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        call.body(body.to_string()).send().unwrap();
    }
}

fn hello(number: usize) -> Value {
    chat("You are a guide.", &[&format!("Question {number} of many")])
}

/// The numbers of calls in a list.
fn numbers(calls: &Value) -> Vec<u64> {
    let calls = calls.as_array().unwrap().iter();
    calls.map(|call| call["number"].as_u64().unwrap()).collect()
}

#[test]
fn it_tells_where_it_is_and_how_to_begin() {
    let program = Program::start([""; 0]);
    let state = program.data("/api/state");
    assert_eq!(state["mode"], "loopback");
    assert_eq!(state["address"], program.origin);
    assert_eq!(state["prices"], "November 2026");
    let openai = &state["setups"][0];
    assert_eq!(
        (&openai["name"], &openai["title"]),
        (&json!("openai"), &json!("OpenAI SDKs"))
    );
    let told = format!("export OPENAI_BASE_URL={}\n", program.url("/zen/go/v1"));
    assert!(
        openai["commands"].as_str().unwrap().contains(&told),
        "{openai}"
    );
    let command = state["try"].as_str().unwrap();
    assert!(
        command.starts_with(&format!("curl {}", program.url(PATH))),
        "{command}"
    );
    assert_eq!(state["totals"]["calls"], 0);
}

#[cfg(unix)]
#[test]
fn the_command_to_begin_with_makes_a_call_that_is_in_order() {
    let program = Program::start([""; 0]);
    let state = program.data("/api/state");
    let command = state["try"].as_str().unwrap();
    let output = std::process::Command::new("sh")
        .args(["-c", command])
        .env("no_proxy", "127.0.0.1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let call = program.call(1, |call| call["status"] == 200);
    assert_eq!(call["marks"], json!([]));
}

#[test]
fn calls_that_stand_out_are_never_dropped_before_others() {
    let program = Program::start(["--keep", "50"]);
    let caller = Caller::new(&program);
    for number in 0..5 {
        caller.call(&[], &hello(number));
    }
    for number in 0..100 {
        caller.call(&[("x-opencode-session", "one")], &hello(number));
    }
    program.call(105, |call| call["status"] == 200);
    let state = program.data("/api/state");
    assert_eq!(numbers(&state["standouts"]), [5, 4, 3, 2, 1]);
    let only_standouts = program.data("/api/calls?stands_out=1");
    assert_eq!(numbers(&only_standouts["calls"]), [5, 4, 3, 2, 1]);
    assert_eq!(state["totals"]["calls"], 105);
    assert_eq!(state["totals"]["missed"], 5);
    assert_eq!(state["totals"]["dropped"], 55);
    assert_eq!(state["totals"]["dropped_faults"], 0);
    assert_eq!(state["conversations"][0]["calls"], 100);

    // If there are no others, the oldest is dropped.
    for number in 5..57 {
        caller.call(&[], &hello(number));
    }
    program.call(157, |call| call["status"] == 400);
    let totals = &program.data("/api/state")["totals"];
    assert_eq!(
        (&totals["dropped"], &totals["dropped_faults"]),
        (&json!(107), &json!(7))
    );
}

#[test]
fn a_conversation_has_its_turns_subagents_tokens_and_title() {
    let replies = ["--reply", "title:\"The coast\"", "--reply", "There."];
    let program = Program::start(replies);
    let caller = Caller::new(&program);
    let title = json!({"model": "glm-5.2",
        "messages": [{"role": "user", "content": "Generate a title for it"}]});
    let main = [
        ("x-opencode-session", "main"),
        ("x-opencode-client", "my-agent"),
    ];
    let in_turn = |turn| [main[0], main[1], ("x-opencode-request", turn)];
    let long = "The guide knows the coast by heart. ".repeat(50);
    caller.call(&in_turn("one"), &title);
    caller.call(&in_turn("one"), &chat(&long, &["Where is the sea?"]));
    caller.call(
        &in_turn("two"),
        &chat(&long, &["Where is the sea?", "There.", "And the lake?"]),
    );
    let child = [
        ("x-opencode-session", "child"),
        ("x-parent-session-id", "main"),
    ];
    caller.call(&child, &chat("You look things up.", &["The lake"]));
    program.call(4, |call| call["status"] == 200);

    let conversations = program.data("/api/conversations");
    assert_eq!(conversations["more"], false);
    let [child, main] = &conversations["conversations"].as_array().unwrap()[..] else {
        panic!("expected two conversations: {conversations}");
    };
    assert_eq!(child["session"], "child");
    assert_eq!(child["parent"], "main");
    assert_eq!(
        (&main["children"], &child["under"]),
        (&json!([4]), &json!(1))
    );
    assert_eq!(main["client"], "my-agent");
    assert_eq!([&main["calls"], &main["turns"]], [3, 2]);
    assert_eq!([&main["id"], &main["last"]], [1, 3]);
    assert_eq!(main["title"], "The coast");
    assert_eq!(main["stand_out"], 0);
    let shares = main["shares"].as_array().unwrap();
    assert_eq!(shares.len(), 3);
    assert!(shares[2].as_f64().unwrap() > 0.9, "{main}");
    assert!(main["cost"].as_f64().unwrap() > 0.0);
    assert!(main["cached_tokens"].as_u64() < main["prompt_tokens"].as_u64());

    // A conversation is listed with its subagents, and a subagent with the session that started it.
    for (id, family) in [
        (1, json!(["main", "child"])),
        (4, json!(["child", "main"])),
        (2, json!([])),
    ] {
        let found = program.data(&format!("/api/conversations?conversation={id}"));
        let found = found["conversations"].as_array().unwrap().iter();
        let sessions: Vec<_> = found.map(|found| found["session"].clone()).collect();
        assert_eq!(Value::from(sessions), family);
    }
}

#[test]
fn calls_are_listed_by_the_reason_for_which_they_stand_out() {
    let answers = ["a", "b", "x", "c", "x", "d", "x", "e", "x"];
    let replies = answers.iter().flat_map(|answer| ["--reply", answer]);
    let program = Program::start(["--models", "glm-5.2"].into_iter().chain(replies));
    let caller = Caller::new(&program);
    let ask = |session, texts: &[&str]| {
        caller.call(
            &[("x-opencode-session", session)],
            &chat("You guide.", texts),
        );
    };
    ask("one", &["1"]);
    // Zen answers a call without a session, which still continues its conversation.
    for texts in [&["1", "a", "2"][..], &["1", "a", "2", "b", "3"]] {
        let call = client().post(program.url("/zen/v1/chat/completions"));
        let body = chat("You guide.", texts).to_string();
        call.bearer_auth("loopback-key").body(body).send().unwrap();
    }
    ask("two", &["1", "a", "4"]);
    ask("one two", &["Hello"]);
    ask("three", &["5"]);
    ask("three", &["5", "d", "6"]);
    ask("three", &["7"]);
    ask("three", &["7", "e", "8"]);
    let unknown = json!({"model": "glm-4", "messages": []});
    caller.call(&[("x-opencode-session", "four")], &unknown);
    program.call(10, |call| call["status"] == 401);

    for (reason, expected) in [
        ("missed", vec![3, 2]),
        ("moved", vec![4]),
        ("malformed", vec![5]),
        ("shared", vec![9]),
        ("refused", vec![10]),
        ("any", vec![10, 9, 5, 4, 3, 2]),
    ] {
        let listed = program.data(&format!("/api/calls?stands_out={reason}"));
        assert_eq!(numbers(&listed["calls"]), expected, "{reason}");
    }
    // Both calls without a session count for the conversation that they continue.
    let found = program.data("/api/conversations?conversation=1");
    assert_eq!(found["conversations"][0]["missed"], 2);
    let own = program.data("/api/calls?conversation=1");
    assert_eq!(numbers(&own["calls"]), [4, 3, 2, 1]);
    let where_it_was = json!([
        {"session": "one", "turn": 1, "call": 1},
        {"session": null, "turn": 1, "call": 2},
        {"session": "two", "turn": 1, "call": 4},
    ]);
    assert_eq!(found["conversations"][0]["stretches"], where_it_was);
    let moved = program.data("/api/calls/4");
    assert_eq!(
        moved["marks"][0]["proof"],
        json!([
            {"call": 1, "session": "one", "what": "was answered", "words": "a"},
            {"call": 4, "session": "two", "what": "goes on after", "words": "a"},
        ])
    );
    // Both conversations that share a session have a row of their own.
    let ids = |session: &str| {
        let found = program.data(&format!("/api/conversations?q={session}"));
        let found = found["conversations"].as_array().unwrap().iter();
        found
            .map(|found| found["id"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("three"), [8, 6]);
    assert_eq!(ids("question"), [0; 0]);
}

#[test]
fn a_call_below_api_that_is_no_data_of_the_page_is_seen() {
    let program = Program::start([""; 0]);
    for path in ["/api/v1/chat/completions", "/api/statement"] {
        let response = client().post(program.url(path)).body("{}").send().unwrap();
        assert_eq!(response.status(), 404);
        let text = response.text().unwrap();
        assert!(
            text.contains(&format!("There is no POST {path}.")),
            "{text}"
        );
    }
    assert_eq!(program.call(2, |_| true)["path"], "/api/statement");
}

#[test]
fn pages_of_calls_and_conversations_follow_each_other() {
    let program = Program::start([""; 0]);
    let caller = Caller::new(&program);
    for number in 1..=7 {
        let session = format!("session-{number}");
        caller.call(&[("x-opencode-session", &session)], &hello(number));
    }
    program.call(7, |call| call["status"] == 200);
    let first = program.data("/api/calls?limit=3");
    assert_eq!(
        (numbers(&first["calls"]), &first["more"]),
        (vec![7, 6, 5], &json!(true))
    );
    let last = program.data("/api/calls?before=3&limit=3");
    assert_eq!(
        (numbers(&last["calls"]), &last["more"]),
        (vec![2, 1], &json!(false))
    );
    let found = program.data("/api/calls?q=QUESTION%204");
    assert_eq!(numbers(&found["calls"]), [4]);
    let none = program.data("/api/calls?q=nothing-like-it");
    assert_eq!(numbers(&none["calls"]), [0; 0]);
    let of_session = program.data("/api/calls?session=session-2");
    assert_eq!(numbers(&of_session["calls"]), [2]);

    let conversations = program.data("/api/conversations?before=6&limit=2");
    let sessions: Vec<_> = conversations["conversations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|conversation| conversation["session"].as_str().unwrap())
        .collect();
    assert_eq!(sessions, ["session-5", "session-4"]);
    assert_eq!(conversations["more"], true);
    let found = program.data("/api/conversations?q=session-3");
    assert_eq!(found["conversations"].as_array().unwrap().len(), 1);
}

#[test]
fn a_call_is_shown_whole_without_its_keys() {
    let program = Program::start([""; 0]);
    let caller = Caller::new(&program);
    let headers = [
        ("x-opencode-session", "one"),
        ("x-api-key", "secret-key"),
        ("cookie", "secret=1"),
        ("user-agent", "my-agent/1.0"),
    ];
    caller.call(&headers, &hello(1));
    let call = program.call(1, |call| call["status"] == 200);
    assert_eq!(call["headers"]["user-agent"], "my-agent/1.0");
    assert_eq!(call["headers"]["x-api-key"], "(hidden)");
    assert_eq!(call["prompt"], "Question 1 of many");
    for path in ["/api/state", "/api/calls", "/api/calls/1"] {
        let data = program.data(path).to_string();
        assert!(!data.contains("secret"), "{data}");
    }
    let response = client().get(program.url("/api/calls/2")).send().unwrap();
    assert_eq!(response.status(), 404);
}

#[test]
fn no_list_is_long_whatever_the_calls_hold() {
    let program = Program::start([""; 0]);
    let caller = Caller::new(&program);
    let long = "x".repeat(10_000);
    for number in 0..120 {
        let mut body = hello(number);
        body["tools"] = (0..100)
            .map(|tool| json!({"name": format!("{long}-{tool}")}))
            .take(if number == 0 { 100 } else { 1 })
            .collect();
        caller.call(
            &[("x-opencode-session", "one"), ("x-opencode-client", &long)],
            &body,
        );
    }
    program.call(120, |call| call["status"] == 200);
    let state = client()
        .get(program.url("/api/state"))
        .send()
        .unwrap()
        .text()
        .unwrap();
    assert!(state.len() < 500_000, "{}", state.len());
}

/// Waits for the next event of this kind.
fn event(events: &mut impl BufRead, kind: &str) -> Value {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(
            events.read_line(&mut line).unwrap(),
            0,
            "the stream has ended"
        );
        if line.trim_end() == format!("event: {kind}") {
            line.clear();
            events.read_line(&mut line).unwrap();
            let data = line.strip_prefix("data: ").unwrap();
            return serde_json::from_str(data).unwrap();
        }
    }
}

#[test]
fn events_tell_of_each_call_and_conversation() {
    let program = Program::start([""; 0]);
    let events = client().get(program.url("/api/events")).send().unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let mut events = BufReader::new(events);
    let caller = Caller::new(&program);
    caller.call(&[("x-opencode-session", "one")], &hello(1));
    let change = event(&mut events, "change");
    assert_eq!(numbers(&change["calls"]), [1]);
    assert_eq!(change["conversations"][0]["session"], "one");
    assert_eq!(change["totals"]["calls"], 1);

    caller.call(&[], &hello(2));
    let change = event(&mut events, "change");
    assert_eq!(numbers(&change["calls"]), [2]);
    assert_eq!(change["totals"]["missed"], 1);
    assert_eq!(change["more"], false);
}
