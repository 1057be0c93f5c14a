//! `--check`: what it finds, and its exit code.

use std::process::Output;

use crate::program::{self, stderr, stdout};
use crate::{agent, program::command};

/// Checks an agent, with these arguments before `--check`.
fn check(arguments: &[&str], agent: &str) -> Output {
    let (agent, (name, value)) = agent::command(agent);
    let mut command = command(arguments);
    command
        .arg("--check")
        .arg("--")
        .args(agent)
        .env(name, value);
    command.output().unwrap()
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, why: &str) {
    let report = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{report}");
    let last = report
        .lines()
        .find(|line| line.starts_with("opencode-gateway: exit"));
    let last = last.unwrap_or_else(|| panic!("no exit code in {report}"));
    assert!(last.contains(&format!("exit {code}, {why}")), "{report}");
}

#[test]
fn right_traffic_passes() {
    let output = check(&[], "right");
    assert_ends(&output, 0, "every call kept its conversation's session");
    assert!(stderr(&output).starts_with("opencode-gateway: running "));
    // Standard output belongs to the command.
    let told = stdout(&output);
    let mut lines = told.lines().map(str::trim_start);
    assert!(!lines.any(|line| line.starts_with('#')), "{told}");
    assert!(
        stderr(&output).contains("9 calls in 2 conversations"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn calls_that_are_no_longer_kept_count() {
    let output = check(&["--keep", "10"], "models at the end");
    assert_ends(&output, 0, "every call kept its conversation's session");
}

#[cfg(target_os = "linux")]
#[test]
fn calls_that_cannot_be_written_fail_the_check() {
    let output = check(&["--json=/dev/full"], "right");
    assert_ends(&output, 125, "because not all calls could be written");
}

#[test]
fn a_forgotten_title_call_is_found_and_named() {
    let output = check(&[], "title forgotten");
    assert_ends(&output, 1, "because a call had no session");
    let report = stderr(&output);
    assert!(
        report.contains("1 call without a session:\n  #3 title: 'Generate a title"),
        "{report}"
    );
    assert!(!report.contains("Each conversation"), "{report}");
}

#[test]
fn an_id_pinned_over_several_conversations_is_found() {
    let output = check(&[], "pinned");
    assert_ends(
        &output,
        1,
        "because a call was not in its conversation's session",
    );
    let report = stderr(&output);
    assert!(
        report.contains("1 call in another conversation's session:\n  #4"),
        "{report}"
    );
    assert!(
        report.contains("Each conversation needs an id of its own."),
        "{report}"
    );
}

#[test]
fn a_session_that_changes_in_the_middle_is_found() {
    for arguments in [&[][..], &["--allow-forks"]] {
        let output = check(arguments, "changing");
        assert_ends(
            &output,
            1,
            "because a call was not in its conversation's session",
        );
        assert!(stderr(&output).contains("#3 call: 'And where is there none?'"));
    }
}

#[test]
fn a_fork_passes_where_forks_are_allowed() {
    let output = check(&[], "forking");
    assert_ends(
        &output,
        1,
        "because a call was not in its conversation's session",
    );
    assert!(stderr(&output).contains("use --allow-forks"));

    let output = check(&["--allow-forks"], "forking");
    assert_ends(&output, 0, "every call kept its conversation's session");
}

#[test]
fn two_conversations_in_a_session_pass_where_edits_are_allowed() {
    let output = check(&[], "pinned");
    let hint = "If its first message was edited, which is not a fault, use --allow-edits.";
    assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    let output = check(&["--allow-edits"], "pinned");
    assert_ends(&output, 0, "every call kept its conversation's session");
}

#[test]
fn a_quotation_fails_a_check_where_it_is_denied() {
    let output = check(&[], "quoting");
    assert_ends(&output, 0, "every call kept its conversation's session");
    let report = stderr(&output);
    for told in [
        "1 call with an answer of another session in the prompt:\n  #2 summary: ",
        "This is no fault by itself: use --deny quotes if it is one here.",
    ] {
        assert!(report.contains(told), "{report}");
    }
    let output = check(&["--deny", "quotes"], "quoting");
    let because = "because a call quoted an answer of another session";
    assert_ends(&output, 1, because);
    assert!(!stderr(&output).contains("no fault"));
    let output = check(&["--deny", "quotes"], "right");
    assert_ends(&output, 0, "every call kept its conversation's session");
}

#[test]
fn a_prompt_that_cannot_be_read_is_not_judged() {
    let output = check(&[], "compressing");
    let because = "because a prompt could not be read, so that its conversation was not judged";
    assert_ends(&output, 2, because);
    let report = stderr(&output);
    let told = "1 call whose prompt could not be read:\n  #2 call: no prompt";
    assert!(report.contains(told), "{report}");
}

#[test]
fn a_mark_that_is_allowed_passes_and_is_counted_and_no_other_passes_with_it() {
    let kept = "every call kept its conversation's session, but for what is allowed";
    for (allow, agent, count) in [
        (
            "missing",
            "title forgotten",
            "\n1 call with a mark that is allowed:\n  #3 title: ",
        ),
        (
            "missing:test-agent",
            "title forgotten",
            "\n1 call with a mark",
        ),
        (
            "missing:/zen/go/v1",
            "title forgotten",
            "\n1 call with a mark",
        ),
        (
            "shared",
            "pinned",
            "\n1 call with a mark that is allowed:\n",
        ),
    ] {
        let output = check(&["--allow", allow], agent);
        assert_ends(&output, 0, kept);
        assert!(stderr(&output).contains(count), "{}", stderr(&output));
    }
    for (allow, agent) in [
        ("moved", "title forgotten"),
        ("missing:another-agent", "title forgotten"),
        ("missing:/inference", "title forgotten"),
        ("missing", "pinned"),
    ] {
        let output = check(&["--allow", allow], agent);
        assert_eq!(output.status.code(), Some(1), "{allow}");
    }
}

#[test]
fn a_command_that_makes_no_call_does_not_pass() {
    let output = check(&[], "silent");
    assert_ends(&output, 2, "because no call to a model was seen");
    assert!(stderr(&output).contains("\n  OPENAI_BASE_URL=http://127.0.0.1:"));

    // A request for the list of models proves nothing about sessions.
    let output = check(&[], "only models");
    assert_ends(&output, 2, "because no call to a model was seen");
}

#[test]
fn calls_that_were_refused_prove_nothing() {
    let output = check(&[], "wrong key");
    assert_ends(&output, 2, "because no call was answered");
    assert!(stderr(&output).contains("401 Unauthorized (AuthError)"));

    let output = check(&[], "one refused");
    assert_ends(&output, 2, "because a call was refused");
    let report = stderr(&output);
    assert!(
        report.contains("1 call refused before the session could be judged:\n  #10"),
        "{report}"
    );
}

#[test]
fn a_call_that_fails_and_is_sent_again_is_judged_then() {
    let output = check(&["--fail", "503", "--fail", "rate-limit:1"], "retrying");
    assert_ends(&output, 0, "every call kept its conversation's session");
}

#[test]
fn the_commands_own_code_and_output_are_passed_on() {
    let output = check(&[], "failing");
    assert_ends(
        &output,
        7,
        "the command's own code: every call kept its conversation's session",
    );
    // Only what the command writes.
    assert!(stdout(&output).contains("running 1 test"));
    assert!(!stdout(&output).contains("opencode-gateway:"));
}

#[test]
fn a_command_that_cannot_be_started_is_said_so() {
    let output = program::run(["--check", "--", "there-is-no-such-command"]);
    assert_ends(&output, 127, "because the command was never run");
    assert!(stderr(&output).contains("the command was not found"));
}

#[cfg(unix)]
#[test]
fn a_command_that_cannot_be_executed_is_said_so() {
    let output = program::run(["--check", "--", "/"]);
    assert_ends(&output, 126, "because the command was never run");
    let report = stderr(&output);
    assert!(
        report.contains("the command could not be run: "),
        "{report}"
    );
}

#[test]
fn the_command_is_shown_on_one_short_line_as_one_would_type_it() {
    let arguments = ["it's", "a\nb", "", "--plain_1=./:,@%+", &"x".repeat(100)];
    let output = program::run(["--check", "--", "no-such"].iter().chain(&arguments));
    let report = stderr(&output);
    let shown = r"opencode-gateway: running no-such 'it'\''s' 'a b' '' --plain_1=./:,@%+ xxx";
    assert!(report.starts_with(shown), "{report}");
    let line = report.lines().next().unwrap();
    let command = line.strip_prefix("opencode-gateway: running ").unwrap();
    assert_eq!(command.chars().count(), 101, "{line}");
    assert!(line.ends_with("xxx…"), "{line}");
}

#[test]
fn the_command_is_given_base_urls_and_keys_that_are_the_gateways() {
    let (agent, (name, value)) = agent::command("environment");
    let mut command = command(["--check", "--"]);
    command.args(agent).env(name, value);
    command
        .env("OPENAI_API_KEY", "sk-secret")
        .env("OPENCODE_API_KEY", "the-real-gateways-secret")
        .env("CODEX_HOME", "/a/secret/place")
        .env("ANTHROPIC_AUTH_TOKEN", "another-secret")
        .env("ANTHROPIC_OAUTH_TOKEN", "one-more-secret")
        .env("NO_PROXY", "example.com");
    let output = command.output().unwrap();
    assert_ends(&output, 0, "every call kept its conversation's session");
    let told = stdout(&output);
    for variable in [
        "OPENAI_BASE_URL=http://127.0.0.1:",
        "ANTHROPIC_BASE_URL=http://127.0.0.1:",
        "GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:",
        "OPENCODE_BASE_URL=http://127.0.0.1:",
        "OPENAI_API_KEY=loopback-key\n",
        "ANTHROPIC_API_KEY=loopback-key\n",
        "GEMINI_API_KEY=loopback-key\n",
        "OPENCODE_GATEWAY_KEY=loopback-key\n",
        "OPENCODE_CONFIG_CONTENT={\"provider\":",
        "OPENAI_API_BASE=http://127.0.0.1:",
        "GEMINI_API_BASE=http://127.0.0.1:",
        "NO_PROXY=example.com,127.0.0.1,localhost,::1\n",
        "no_proxy=127.0.0.1,localhost,::1\n",
    ] {
        assert!(told.contains(variable), "{variable} is not in {told}");
    }
    assert!(!told.contains("secret"), "{told}");
    // A client that reads it has another address, and there the key would be wrong.
    assert!(!told.contains("OPENCODE_API_KEY"), "{told}");
}

#[test]
fn the_real_gateways_key_is_asked_for() {
    let arguments = ["--upstream", "https://127.0.0.1:9", "--check", "--", "true"];
    let output = program::run(arguments);
    assert_eq!(output.status.code(), Some(125));
    let report = stderr(&output);
    assert_eq!(
        report,
        "error: --check with --upstream needs a key: set OPENCODE_API_KEY\n"
    );
}

#[cfg(unix)]
mod unix {
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::Stdio;
    use std::thread;
    use std::time::{Duration, Instant};

    use reqwest_opencode_session::testing::Gateway;
    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::program::terminal;

    #[test]
    fn settings_name_no_other_address_and_last_as_long_as_the_command() {
        let script = r#"echo "$PI_CODING_AGENT_DIR"
            cat "$PI_CODING_AGENT_DIR/models.json" "$CODEX_HOME/config.toml" \
                "$GEMINI_CLI_SYSTEM_SETTINGS_PATH"
            ls -ld "$(dirname "$CODEX_HOME")""#;
        let real = Gateway::builder().key("real-key").start().unwrap();
        let upstream = real.url("");
        for (arguments, key) in [(&[][..], "loopback-key"), (&["--upstream", &upstream], "")] {
            let mut command = command(arguments);
            command.env("OPENCODE_API_KEY", "real-key");
            command.args(["--check", "--", "sh", "-c", script]);
            let output = command.output().unwrap();
            let (report, told) = (stderr(&output), stdout(&output));
            let (_, origin) = report.split_once("see its calls at ").unwrap();
            let origin = origin.lines().next().unwrap();
            assert!(told.contains(&format!(r#""baseUrl":"{origin}/"#)), "{told}");
            assert!(
                told.contains(&format!(r#"base_url = "{origin}/"#)),
                "{told}"
            );
            assert_eq!(
                told.matches("http").count(),
                told.matches(origin).count(),
                "{told}"
            );
            assert!(told.contains("gemini-api-key"), "{told}");
            assert!(told.contains(key) && !told.contains("real-key"), "{told}");
            assert!(told.contains("drwx------ "), "{told}");
            let directory = Path::new(told.lines().next().unwrap());
            assert!(directory.is_absolute(), "{told}");
            assert!(!directory.parent().unwrap().exists(), "{told}");
        }
    }

    #[test]
    fn a_directory_for_settings_that_cannot_be_written_is_named() {
        let mut command = command(["--check", "--", "true"]);
        let output = command.env("TMPDIR", "/no/such").output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        let report = stderr(&output);
        let why = "error: cannot write clients' settings in /no/such: ";
        assert!(report.starts_with(why), "{report}");
    }

    #[test]
    fn a_command_that_a_signal_ends_has_the_code_of_a_shell() {
        let (agent, (name, value)) = agent::command("right");
        let mut command = command(["--check", "--", "sh", "-c", "\"$@\"; kill -TERM $$", "sh"]);
        let output = command.args(agent).env(name, value).output().unwrap();
        assert_ends(&output, 143, "the command's own code");
        assert!(stderr(&output).contains("the command was killed by signal 15"));
    }

    #[test]
    fn a_signal_is_passed_on_and_a_check_that_was_stopped_does_not_pass() {
        for signal in [Signal::INT, Signal::TERM] {
            let script = "trap 'echo stopping; exit 0' INT TERM; echo ready; \
                while :; do sleep 0.05; done";
            let mut command = command(["--check", "--", "sh", "-c", script]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "ready");
            kill_process(Pid::from_child(&child), signal).unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), "stopping");
            let output = child.wait_with_output().unwrap();
            assert_ends(
                &output,
                130,
                "because the check was stopped before it finished",
            );
        }
    }

    #[test]
    fn ctrl_c_in_a_terminal_reaches_the_command_by_the_terminal_alone() {
        let script = "trap 'echo INT' INT; trap 'echo TERM; exit 0' TERM; echo ready; \
            while :; do sleep 0.05; done";
        let mut command = command(["--check", "--", "sh", "-c", script]);
        let (_screen, terminal) = terminal(80);
        command
            .stdin(terminal)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        // Enough time for the program to pass the signal on, which would be wrong.
        thread::sleep(Duration::from_millis(300));
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "TERM");
        let output = child.wait_with_output().unwrap();
        assert_ends(
            &output,
            130,
            "because the check was stopped before it finished",
        );
    }

    #[test]
    fn a_command_that_ignores_a_signal_is_killed_by_the_next_one() {
        let script = "trap '' INT; echo ready; while :; do sleep 0.05; done";
        let mut command = command(["--check", "--", "sh", "-c", script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut ready = BufReader::new(child.stdout.take().unwrap());
        ready.read_line(&mut String::new()).unwrap();
        // If two signals arrive at the same time, one may be lost.
        while child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        let output = child.wait_with_output().unwrap();
        assert_ends(
            &output,
            130,
            "because the check was stopped before it finished",
        );
    }

    #[test]
    fn a_check_whose_output_nobody_reads_is_ended_by_a_signal() {
        let (agent, (name, value)) = agent::command("many calls");
        let script = "\"$@\" >&2; echo ended >&2";
        let mut command = command(["--check", "--json", "--", "sh", "-c", script, "sh"]);
        command.args(agent).env(name, value);
        // Nobody reads this pipe, and the calls more than fill it.
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.map(Result::unwrap).any(|line| line == "ended"));
        // A signal that comes before the end of the command would be passed on to it.
        thread::sleep(Duration::from_millis(500));
        let until = Instant::now() + Duration::from_secs(20);
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the program is still running");
            kill_process(Pid::from_child(&child), Signal::INT).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(child.wait().unwrap().code(), Some(130));
    }

    #[test]
    fn calls_of_a_process_that_the_command_leaves_behind_are_waited_for() {
        let (agent, (name, value)) = agent::command("right");
        // The command exits as soon as the gateway has the call, which is answered later.
        let script = r#""$@" >&2 &
            origin=${OPENCODE_BASE_URL%/zen/*}
            until curl --silent $origin/api/state | grep -q '"number":1,'; do :; done"#;
        let arguments = [
            "--fail", "delay:2", "--check", "--", "sh", "-c", script, "sh",
        ];
        let mut command = command(arguments);
        let output = command.args(agent).env(name, value).output().unwrap();
        let report = stderr(&output);
        assert!(
            report.contains("The command left a process behind"),
            "{report}"
        );
        assert!(report.contains("one call was still under way."), "{report}");
    }

    #[test]
    fn a_call_that_does_not_end_leaves_the_check_open() {
        let (agent, (name, value)) = agent::command("right");
        let script = r#"curl --silent --header "authorization: Bearer $OPENAI_API_KEY" \
                --header 'x-opencode-session: slow' --data '{"model": "glm-5.2"}' \
                "$OPENAI_BASE_URL/chat/completions" >&2 &
            origin=${OPENCODE_BASE_URL%/zen/*}
            until curl --silent $origin/api/state | grep -q '"number":1,'; do :; done
            "$@""#;
        let arguments = [
            "--fail", "delay:60", "--check", "--", "sh", "-c", script, "sh",
        ];
        let mut command = command(arguments);
        let output = command.args(agent).env(name, value).output().unwrap();
        assert_ends(
            &output,
            2,
            "because a call had not ended when the check did",
        );
        let report = stderr(&output);
        assert!(
            report.contains("and 1 had not ended 5 seconds later."),
            "{report}"
        );
    }
}
