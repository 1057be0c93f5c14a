//! Errors in the arguments: one line that also says what to do.

use std::cell::Cell;
use std::net::TcpListener;

use crate::program::{Program, run, stderr, stdout};

/// Asserts that the program exits with 125 and an error with these parts.
#[track_caller]
fn assert_refused(arguments: &[&str], expected: &[&str]) {
    let output = run(arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(125), "{message}");
    assert!(message.starts_with("error: "), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(!message.contains("Usage"), "{message}");
    for part in expected {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    assert_eq!(stdout(&output), "");
}

#[test]
fn help_teaches() {
    let output = run(["--help"]);
    assert!(output.status.success());
    let help = stdout(&output);
    for part in [
        "x-opencode-session",
        "opencode-gateway --check -- npm test",
        "opencode-gateway --upstream https://opencode.ai",
        "eval \"$(opencode-gateway --setup codex)\"; codex",
        "Exit status of --check:",
        "HTTPS_PROXY",
    ] {
        assert!(help.contains(part), "{part} is not in {help}");
    }
    assert!(
        help.lines().all(|line| line.chars().count() <= 100),
        "{help}"
    );
}

#[test]
fn a_setup_is_for_the_address_and_the_upstream_of_the_gateway_and_starts_nothing() {
    let told = |arguments: &[&str]| {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let openai = told(&["--setup", "openai"]);
    assert_eq!(
        openai,
        "export OPENAI_BASE_URL=http://127.0.0.1:8787/zen/go/v1\n\
        export OPENAI_API_KEY=loopback-key\n\
        # Then, for example:\n# python my_agent.py\n"
    );
    // A second gateway could not listen there.
    let program = Program::start([""; 0]);
    let codex = told(&["--setup", "codex", "--listen", program.address()]);
    let base = format!("base_url = \"{}\"", program.url("/zen/go/v1"));
    assert!(codex.contains(&base), "{codex}");

    let upstream = ["--upstream", "https://opencode.ai"];
    let pi = told(&[&["--setup", "pi"], &upstream[..]].concat());
    assert!(!pi.contains("apiKey"), "{pi}");
    let aider = told(&[&["--setup", "aider"], &upstream[..]].concat());
    assert!(
        aider.contains("OPENAI_API_KEY=\"$OPENCODE_API_KEY\"\n"),
        "{aider}"
    );
}

#[test]
fn a_setup_of_an_unknown_client_names_those_that_are_known() {
    assert_refused(&["--setup", "emacs"], &["opencode", "codex", "aider"]);
}

#[test]
#[cfg(unix)]
fn a_shell_can_run_every_setup() {
    let home = env!("CARGO_TARGET_TMPDIR");
    let state = Program::start([""; 0]).data("/api/state");
    for setup in state["setups"].as_array().unwrap() {
        let commands = setup["commands"].as_str().unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-euc", commands]).env("HOME", home);
        let output = shell.env_remove("XDG_CACHE_HOME").output().unwrap();
        assert!(output.status.success(), "{commands}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{commands}");
    }
    let models = format!("{home}/.cache/opencode-gateway/pi/models.json");
    let models: serde_json::Value =
        serde_json::from_slice(&std::fs::read(models).unwrap()).unwrap();
    assert_eq!(models["providers"]["opencode-go"]["apiKey"], "loopback-key");
}

#[test]
fn a_port_alone_is_an_address() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for (value, origin) in [
        (port.to_string(), format!("http://127.0.0.1:{port}")),
        (format!(":{port}"), format!("http://127.0.0.1:{port}")),
        (
            format!("localhost:{port}"),
            format!("http://127.0.0.1:{port}"),
        ),
    ] {
        // `Program::start` would add `--listen 0`.
        let program = Program::listening(&value);
        assert_eq!(program.origin, origin, "{value}");
    }
}

#[test]
fn a_loopback_address_is_not_warned_of() {
    let mut program = Program::listening("127.0.0.1:0");
    let warned = Cell::new(false);
    program.line(|line| {
        warned.set(warned.get() || line.contains("another machine"));
        line.starts_with("Press Ctrl-C to stop")
    });
    assert!(!warned.get());
}

#[test]
fn a_busy_port_is_named_with_what_to_do() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let expected = [
        &*format!("cannot listen on {address}"),
        "another program listens",
        "--listen",
    ];
    assert_refused(&["--listen", &address], &expected);
}

#[test]
fn bad_values_are_named_with_what_is_expected() {
    assert_refused(
        &["--listen", "nowhere"],
        &["'nowhere'", "expected a port, such as 9000"],
    );
    assert_refused(&["--listen", "70000"], &["'70000'", "expected a port"]);
    assert_refused(
        &["--listen", "192.0.2.1:9000"],
        &["192.0.2.1:9000", "no such address"],
    );
    assert_refused(&["--fail", "200"], &["'200'", "from 400 to 599"]);
    assert_refused(&["--fail", "0x503"], &["1 to 10000 times"]);
    assert_refused(&["--fail", "99999999999x503"], &["1 to 10000 times"]);
    assert_refused(&["--fail", "redirect:nope"], &["a URL to redirect to"]);
    assert_refused(
        &["--fail", "lightning"],
        &["'lightning'", "expected a failure"],
    );
    assert_refused(
        &["--reply", "tool:look=here"],
        &["'tool:look=here'", "JSON object"],
    );
    assert_refused(
        &["--keep", "many"],
        &["'many'", "--keep", "expected a number of calls"],
    );
    assert_refused(
        &["--keep", "0"],
        &["'0'", "--keep", "expected a number of calls"],
    );
    assert_refused(&["--deny", "shared"], &["'shared'", "expected quotes"]);
    assert_refused(&["--lisen", "9000"], &["'--lisen'", "'--listen'"]);
    assert_refused(&["--keep", "-1"], &["'-1'", "expected a number of calls"]);
    assert_refused(&["--json", "calls"], &["'calls'", "named as --json=FILE"]);
    for arguments in [&["--bogus"][..], &["--check", "--bogus", "--", "true"]] {
        let message = stderr(&run(arguments));
        assert!(!message.contains("-- --bogus"), "{message}");
        assert!(!message.contains("a command comes after"), "{message}");
        assert!(!message.contains("--json"), "{message}");
    }
    // A slip of another kind needs no hint about commands.
    assert!(!stderr(&run(["--lisen", "9000"])).contains("a command comes after"));
    assert_refused(
        &["--check", "npm", "test"],
        &[
            "'npm'",
            "a command comes after --, as in `opencode-gateway --check -- npm test`",
        ],
    );
    assert_refused(&["--check"], &["needs a command", "--check -- npm test"]);
    assert_refused(
        &["--", "npm", "test"],
        &["needs --check", "--check -- npm test"],
    );
}

#[test]
fn a_missing_directory_is_named() {
    let directory = std::env::temp_dir().join("there-is-no-such-directory");
    let file = directory.join("calls.jsonl");
    let json = format!("--json={}", file.display());
    let directory = format!("create the directory {} first", directory.display());
    assert_refused(&[&json], &["cannot write", &directory]);
}

#[test]
fn an_upstream_is_https_or_on_this_machine() {
    let upstream =
        |url: &str, expected: &str| assert_refused(&["--upstream", url], &[url, expected]);
    upstream("http://opencode.ai", "expected https");
    upstream("http://localhost.example.com", "expected https");
    upstream("ftp://localhost", "expected https");
    upstream("https://opencode.ai/zen/go/v1", "leave out the path");
    upstream("https://me@opencode.ai", "leave out the user name");
    upstream("opencode.ai", "expected a scheme and a host");
    let both = ["--upstream", "https://opencode.ai", "--key", "mine"];
    assert_refused(&both, &["--upstream", "--key"]);
}

#[test]
fn the_program_is_no_upstream_of_its_own() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let upstream = format!("http://{host}:{port}");
        let arguments = ["--listen", &port, "--upstream", &upstream];
        assert_refused(&arguments, &[&upstream, "is this program itself"]);
    }
}
