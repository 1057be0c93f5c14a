//! What the program prints.

use serde_json::Value;

use crate::program::{Program, chat, client, command, stderr};

const PATH: &str = "/zen/go/v1/chat/completions";

fn call(program: &Program, session: Option<&str>, body: &Value) {
    try_call(program, session, body).unwrap();
}

fn try_call(
    program: &Program,
    session: Option<&str>,
    body: &Value,
) -> reqwest::Result<reqwest::blocking::Response> {
    let client = client();
    let mut call = client.post(program.url(PATH)).bearer_auth("loopback-key");
    if let Some(session) = session {
        call = call.header("x-opencode-session", session);
    }
    call.body(body.to_string()).send()
}

#[test]
fn each_call_is_one_line_with_its_reason_and_no_colour_in_a_pipe() {
    let mut program = Program::start([""; 0]);
    let body = chat("You are a guide.", &["Where is the sea?\n\u{1b}[31mRed"]);
    call(&program, Some("a-session-of-its-own"), &body);
    let line = program.call_line();
    assert!(line.starts_with("    #1 "), "{line}");
    assert!(line.contains(" 200    …-its-own "), "{line}");
    assert!(
        line.contains("'Where is the sea? [31mRed', glm-5.2, 2 messages"),
        "{line}"
    );

    call(&program, None, &body);
    let line = program.call_line();
    assert!(line.contains(" 400    –  "), "{line}");
    assert!(line.contains("no session · call: 'Where"), "{line}");
    assert!(!line.contains('\u{1b}'), "{line}");
}

#[cfg(unix)]
#[test]
fn in_a_terminal_lines_have_a_heading_fit_its_columns_and_show_reasons_in_red() {
    const RED: &str = "\u{1b}[1m\u{1b}[31m";
    const DIM: &str = "\u{1b}[2m";
    const RESET: &str = "\u{1b}[0m";
    let mut program = Program::in_terminal(70);
    let body = chat("You are a guide.", &["Where is the sea?"]);
    call(&program, None, &body);
    let heading = program.line(|line| line.contains("status"));
    let line = program.call_line();
    let heading = heading.trim_end().strip_prefix(DIM).unwrap();
    let reason = format!("{RED}no session{RESET}");
    // The reason is below the last name of the heading.
    let before = |line: &str, text: &str| line.split(text).next().unwrap().chars().count();
    assert_eq!(before(heading, "what it is"), before(&line, &reason));
    let shown = line.trim_end().replace(&reason, "no session");
    assert_eq!(shown.chars().count(), 70, "{shown:?}");
    assert!(shown.ends_with(" · call: 'Where is…"), "{shown:?}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_with_a_summary() {
    use rustix::process::Signal;

    for signal in [Signal::INT, Signal::TERM] {
        let program = Program::start(["--reply", "There."]);
        let body = chat("You are a guide.", &["Where is the sea?"]);
        call(&program, Some("one"), &body);
        call(&program, None, &body);
        let said = ["Where is the sea?", "There.", "And the lake?"];
        call(&program, Some("two"), &chat("You are a guide.", &said));
        let (status, rest) = program.end_by(signal);
        assert_eq!(status.code(), Some(0));
        let rows: Vec<Vec<&str>> = rest
            .lines()
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|cell| !cell.is_empty())
                    .collect()
            })
            .collect();
        for row in [
            ["calls", "3"],
            ["conversations", "1"],
            ["without a session", "1"],
            ["moved to another session", "1"],
            ["refused", "1"],
        ] {
            assert!(
                rows.iter().any(|cells| cells[..] == row),
                "{row:?} is not in {rest}"
            );
        }
        assert!(
            rest.contains("\ncached ") && rest.contains(" prompt tokens\n"),
            "{rest}"
        );
        assert!(rest.contains("\ncost ") && rest.contains('$'), "{rest}");
    }
}

#[test]
fn a_closed_pipe_ends_it_without_a_word() {
    let mut command = command([""; 0]);
    command.stderr(std::process::Stdio::piped());
    let mut program = Program::started(command);
    program.close_output();
    let body = chat("You are a guide.", &["Where is the sea?"]);
    // The program may have ended before it could answer.
    let _ = try_call(&program, Some("one"), &body);
    let output = program.wait_with_output();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
}

#[cfg(unix)]
#[test]
fn help_into_a_closed_pipe_is_no_panic() {
    let mut help = command(["--help"]);
    help.stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = help.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "");
}

#[cfg(unix)]
#[test]
fn a_reader_that_stops_for_a_while_holds_up_neither_the_page_nor_a_line() {
    use rustix::process::Signal;

    // Enough to fill a pipe.
    const CALLS: u64 = 300;
    let program = Program::json();
    let body = chat("You are a guide.", &["Where is the sea?"]);
    for _ in 0..CALLS {
        call(&program, Some("one"), &body);
    }
    program.data_once("/api/state", |state| state["totals"]["answered"] == CALLS);
    let (_, lines) = program.end_by(Signal::INT);
    assert!(
        lines.len() > 100_000,
        "all of it may have fitted into a pipe"
    );
    assert_eq!(lines.lines().count() as u64, CALLS);
}

#[cfg(unix)]
#[test]
fn json_is_one_line_for_each_call_and_nothing_else() {
    use rustix::process::Signal;

    let program = Program::json();
    let body = chat("You are a guide.", &["Where is the sea?"]);
    call(&program, Some("one"), &body);
    call(&program, None, &body);
    let (_, lines) = program.end_by(Signal::INT);
    let calls: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(calls.len(), 2, "{lines}");
    assert_eq!(calls[0]["session"], "one");
    assert_eq!(calls[0]["status"], 200);
    assert_eq!(calls[1]["marks"][0]["name"], "missing");
    assert!(!lines.contains("loopback-key"), "{lines}");
}

#[test]
fn json_goes_into_a_file_where_one_is_named() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("calls-{}.jsonl", std::process::id()));
    let mut program = Program::json_into(&path);
    call(
        &program,
        Some("one"),
        &chat("You are a guide.", &["Where is the sea?"]),
    );
    program.call(1, |call| call["status"] == 200);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let text = loop {
        let text = std::fs::read_to_string(&path).unwrap();
        if text.ends_with('\n') || std::time::Instant::now() > until {
            break text;
        }
    };
    std::fs::remove_file(&path).unwrap();
    let call: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(call["session"], "one");
    // The lines for people are as they are without it.
    assert!(program.call_line().contains("'Where is the sea?'"));
}

#[test]
fn what_the_gateway_was_told_to_do_is_said_and_what_was_cut_or_left() {
    let failures = ["503", "close", "cut", "delay:0.2"];
    let arguments: Vec<&str> = failures
        .iter()
        .flat_map(|failure| ["--fail", *failure])
        .collect();
    let mut program = Program::start(&arguments);
    let body = chat("You are a guide.", &["Where is the sea?"]);
    for (number, state, told) in [
        (1, "refused", "answered with 503"),
        (2, "cut", "closed without an answer"),
        (3, "cut", "closed halfway through the answer"),
        (4, "done", "delayed by 0.2 seconds"),
    ] {
        let _ = try_call(&program, Some("one"), &body).and_then(|answer| answer.bytes());
        let line = program.call_line();
        assert!(line.contains(&format!("as told: {told}")), "{line}");
        let call = program.call(number, |call| call["ended_after_ms"].is_u64());
        assert_eq!(
            (&call["state"], &call["failure"]),
            (&state.into(), &told.into()),
            "{call}"
        );
    }
}

#[test]
fn failures_and_replies_come_in_the_order_of_the_arguments() {
    let program = Program::start([
        "--fail",
        "2x503",
        "--reply",
        r#"tool:get_weather={"city": "Oslo"}"#,
        "--reply",
        "It rains.",
        "--reply",
        "title:Rain",
        "--key",
        "another-key",
        "--models",
        "glm-5.2,kimi-k3",
    ]);
    let client = client();
    let ask = |question: &str, model: &str| {
        let mut body = chat("You are a guide.", &[question]);
        body["model"] = model.into();
        let call = client.post(program.url(PATH)).bearer_auth("another-key");
        let call = call
            .header("x-opencode-session", "one")
            .body(body.to_string());
        let response = call.send().unwrap();
        let status = response.status().as_u16();
        let body: Value = serde_json::from_str(&response.text().unwrap()).unwrap();
        (status, body["choices"][0]["message"].clone())
    };
    assert_eq!(ask("Hello", "glm-5.2").0, 503);
    assert_eq!(ask("Hello", "glm-5.2").0, 503);
    assert_eq!(ask("Generate a title", "glm-5.2").1["content"], "Rain");
    let call = &ask("Hello", "kimi-k3").1["tool_calls"][0]["function"];
    assert_eq!(call["name"], "get_weather");
    assert_eq!(call["arguments"], r#"{"city":"Oslo"}"#);
    assert_eq!(ask("Hello", "glm-5.2").1["content"], "It rains.");
    assert_eq!(ask("Hello", "glm-4").0, 401);
}

#[test]
fn refusals_are_those_of_the_gateway() {
    for (name, status, error) in [
        ("go-limit", 429, "GoUsageLimitError"),
        ("free-limit", 429, "FreeUsageLimitError"),
        ("unknown-model", 401, "ModelError"),
        ("model-protocol", 400, "ModelProtocolUnsupported"),
        ("model-unavailable", 400, "Model is unavailable"),
        ("free-tier", 403, "FreeTierError"),
        ("entitlement", 403, "EntitlementError"),
    ] {
        let program = Program::start(["--fail", name]);
        let body = chat("You are a guide.", &["Where is the sea?"]);
        let response = try_call(&program, Some("one"), &body).unwrap();
        assert_eq!(response.status(), status, "{name}");
        assert!(response.text().unwrap().contains(error), "{name}");
    }
}

#[test]
fn connections_are_closed_before_and_in_the_middle_of_an_answer() {
    let program = Program::start(["--fail", "close", "--fail", "cut"]);
    let body = chat("You are a guide.", &["Where is the sea?"]);
    let closed = try_call(&program, Some("one"), &body).unwrap_err();
    assert!(closed.is_request(), "{closed:?}");
    let cut = try_call(&program, Some("one"), &body).unwrap();
    assert_eq!(cut.status(), 200);
    let cut = cut.text().unwrap_err();
    assert!(cut.is_body() || cut.is_decode(), "{cut:?}");
}
