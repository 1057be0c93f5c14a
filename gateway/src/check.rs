//! The result of a check: its exit code, and a report that says why.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write};
use std::io;
use std::time::Duration;

use http::StatusCode;
use reqwest_opencode_session::testing::{Mark, SeenRequest};
use tokio::sync::watch;

use crate::FAILURE;
use crate::command::Exit;
use crate::journal::{Journal, Totals};
use crate::setup::{Client, Place};
use crate::terminal::harmless;

/// The result of a check.
pub struct Check<'a> {
    pub journal: &'a Journal,
    pub end: Exit,
    pub origin: &'a str,
    /// The number of the last call that came before the command ended.
    pub before_end: u64,
    /// The number of the last call to judge: a process that the command left behind may make more.
    pub last: u64,
    /// How many calls were still under way after the command ended, and how many never ended.
    pub left: Left,
    /// Why not all calls could be written to the file or output of `--json`.
    pub unwritten: Option<io::Error>,
}

/// Calls of processes that the command left behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Left {
    pub under_way: usize,
    pub cut_off: usize,
}

/// How long to wait for calls that are still under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for new calls of a process that outlives the command.
const GRACE: Duration = Duration::from_secs(1);

/// Waits for the calls that are still under way when the command has ended.
pub async fn settle(mut under_way: watch::Receiver<usize>) -> Left {
    // The connections of the command itself close meanwhile.
    tokio::time::sleep(GRACE).await;
    let after_grace = *under_way.borrow();
    let ended = under_way.wait_for(|count| *count == 0);
    let all_ended = tokio::time::timeout(PATIENCE, ended).await.is_ok();
    let cut_off = *under_way.borrow();
    Left {
        under_way: after_grace,
        cut_off: if all_ended { 0 } else { cut_off },
    }
}

/// The verdict of a check, which decides its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    NotStarted,
    Fault,
    Stopped,
    NoCall,
    NotJudged,
    Unread,
    Late,
    NotCounted,
    Unwritten,
    TheCommands,
}

/// How many unrelated prompts in one session may well be as many conversations.
const MANY: usize = 5;

/// How many calls of each kind a report names.
const NAMED: usize = 20;

impl Check<'_> {
    pub fn code(&self) -> u8 {
        match self.verdict() {
            Verdict::Fault => 1,
            Verdict::NoCall
            | Verdict::NotJudged
            | Verdict::Unread
            | Verdict::Late
            | Verdict::NotCounted => 2,
            Verdict::Stopped => 130,
            Verdict::Unwritten => FAILURE,
            Verdict::NotStarted | Verdict::TheCommands => self.end.code(),
        }
    }

    fn verdict(&self) -> Verdict {
        let Totals {
            asked,
            answered,
            dropped_faults,
            ..
        } = self.journal.totals();
        if matches!(self.end, Exit::NotStarted(_)) {
            Verdict::NotStarted
        } else if dropped_faults > 0
            || !self
                .calls(|call| self.journal.rules.has_fault(call))
                .is_empty()
        {
            Verdict::Fault
        } else if self.end.was_stopped() {
            Verdict::Stopped
        } else if asked == 0 {
            Verdict::NoCall
        } else if answered == 0 || self.left.cut_off > 0 || !self.unjudged().is_empty() {
            Verdict::NotJudged
        } else if !self.unread().is_empty() || self.journal.log.dropped_unread() > 0 {
            Verdict::Unread
        } else if self.late() > 0 {
            Verdict::Late
        } else if self.uncounted() > 0 {
            Verdict::NotCounted
        } else if self.unwritten.is_some() && self.end.code() == 0 {
            Verdict::Unwritten
        } else {
            Verdict::TheCommands
        }
    }

    /// Returns how many calls a process made after the command had ended, so far.
    fn late(&self) -> usize {
        let is_late = |call: &SeenRequest| call.number > self.before_end && call.asks_a_model();
        self.journal.log.latest(u64::MAX, usize::MAX, is_late).len()
    }

    /// Returns the sessions with many prompts that neither continue a call nor are continued, and
    /// the number of them.
    fn one_shots(&self) -> BTreeMap<String, usize> {
        let calls = self.calls(|call| call.status.is_some_and(|status| status.is_success()));
        let continued: HashSet<u64> = calls.iter().filter_map(|call| call.continues).collect();
        let is_alone = |call: &SeenRequest| {
            call.continues.is_none() && !continued.contains(&call.number) && call.kind() == "call"
        };
        // What is sent again is one prompt, and may go on.
        let (mut alone, mut others) = (BTreeMap::<_, HashSet<_>>::new(), HashSet::new());
        for call in &calls {
            let (Some(session), Some(prompt)) = (&call.session, &call.prompt) else {
                continue;
            };
            match is_alone(call) {
                true => _ = alone.entry(session).or_default().insert(prompt),
                false => _ = others.insert((session, prompt)),
            }
        }
        let counts = alone.into_iter().map(|(session, prompts)| {
            let prompts = prompts.into_iter();
            let alone = prompts.filter(|prompt| !others.contains(&(session, *prompt)));
            (session.clone(), alone.count())
        });
        counts.filter(|(_, count)| *count >= MANY).collect()
    }

    /// Returns the calls whose prompt could not be read.
    fn unread(&self) -> Vec<SeenRequest> {
        self.calls(|call| call.unread)
    }

    /// Returns how many calls were dropped before they were counted and written.
    fn uncounted(&self) -> u64 {
        self.last.saturating_sub(self.journal.totals().calls)
    }

    /// Returns the calls that were refused for good, before their session could be judged, unless
    /// what is wrong with them is accepted.
    fn unjudged(&self) -> Vec<SeenRequest> {
        self.calls(|call| was_not_judged(call) && !self.journal.rules.has_allowed(call))
    }

    /// Returns the calls with a mark that is accepted.
    fn allowed(&self) -> Vec<SeenRequest> {
        self.calls(|call| self.journal.rules.has_allowed(call))
    }

    fn calls(&self, meets: impl Fn(&SeenRequest) -> bool) -> Vec<SeenRequest> {
        let mut calls = self.journal.log.latest(self.last + 1, usize::MAX, meets);
        calls.reverse();
        calls
    }
}

/// Returns whether a call was refused for good, before its session could be judged. A call that the
/// client should retry is judged when it does.
fn was_not_judged(request: &SeenRequest) -> bool {
    let again = [408, 409, 425, 429];
    request.asks_a_model()
        && request
            .status
            .is_some_and(|status| status.is_client_error() && !again.contains(&status.as_u16()))
}

impl fmt::Display for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals {
            calls,
            conversations,
            ..
        } = self.journal.totals();
        writeln!(
            f,
            "opencode-gateway: {}; {} in {}",
            self.end,
            count(calls, "call"),
            count(conversations, "conversation"),
        )?;
        self.faults(f)?;
        if self.verdict() == Verdict::NotJudged {
            let refused = self.calls(|request| request.asks_a_model() && request.is_refused());
            named(f, &refused, "refused before the session could be judged")?;
        }
        named(f, &self.unread(), "whose prompt could not be read")?;
        if self.uncounted() > 0 {
            let uncounted = count(self.uncounted(), "call");
            writeln!(
                f,
                "{uncounted} had to be dropped before being counted: use a larger --keep"
            )?;
        }
        named(f, &self.allowed(), "with a mark that is allowed")?;
        for (session, count) in self.one_shots().iter().take(NAMED) {
            let session = harmless(session);
            writeln!(f, "{count} unrelated prompts in session {session}")?;
            writeln!(
                f,
                "  If these are conversations, each needs a session of its own."
            )?;
        }
        self.left_behind(f)?;
        writeln!(
            f,
            "opencode-gateway: exit {}, {}",
            self.code(),
            self.because()
        )
    }
}

impl Check<'_> {
    fn faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = &self.journal.rules;
        let marked = |is: fn(&Mark) -> bool| self.calls(move |call| rules.faults(call).any(is));
        let missing = marked(|mark| matches!(mark, Mark::Missing));
        named(f, &missing, "without a session")?;
        let moved = marked(|mark| matches!(mark, Mark::Moved { .. }));
        named(f, &moved, "moved to another session")?;
        let forks = marked(Mark::may_be_fork).len();
        if forks > 0 {
            let moved_back = match forks == moved.len() {
                true => "",
                false => " A call that moved back is no fork.",
            };
            writeln!(
                f,
                "  If this is a fork, which is not a fault, use --allow-forks.{moved_back}"
            )?;
        }
        let shared = marked(|mark| matches!(mark, Mark::Shared { .. }));
        named(f, &shared, "in another conversation's session")?;
        if !shared.is_empty() {
            writeln!(f, "  Each conversation needs an id of its own.")?;
        }
        if shared
            .iter()
            .flat_map(|call| &call.marks)
            .any(Mark::may_be_edit)
        {
            let hint = "If its first message was edited, which is not a fault, use --allow-edits.";
            writeln!(f, "  {hint}")?;
        }
        let no_id = marked(|mark| matches!(mark, Mark::Doubled | Mark::Malformed));
        named(f, &no_id, "with a doubled or malformed session")?;
        let is_quote = |mark: &Mark| matches!(mark, Mark::Quotes { .. });
        let quotes = self.calls(|call| rules.reasons(call).any(is_quote));
        named(
            f,
            &quotes,
            "with an answer of another session in the prompt",
        )?;
        if !quotes.is_empty() && !rules.denies("quotes") {
            let hint = "This is no fault by itself: use --deny quotes if it is one here.";
            writeln!(f, "  {hint}")?;
        }
        match self.journal.totals().dropped_faults {
            0 => Ok(()),
            1 => writeln!(f, "1 more call with a fault is no longer kept."),
            more => writeln!(f, "{more} more calls with a fault are no longer kept."),
        }
    }

    fn left_behind(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left { under_way, cut_off } = self.left;
        if under_way == 0 && cut_off == 0 {
            return Ok(());
        }
        f.write_str("The command left a process behind")?;
        match under_way {
            0 => f.write_str(", which went on to make calls")?,
            1 => f.write_str(": after it ended, one call was still under way")?,
            _ => write!(
                f,
                ": after it ended, {under_way} calls were still under way"
            )?,
        }
        if cut_off > 0 {
            let seconds = PATIENCE.as_secs();
            write!(f, ", and {cut_off} had not ended {seconds} seconds later")?;
        }
        writeln!(f, ".")
    }

    fn because(&self) -> String {
        let Totals {
            answered,
            missed,
            moved,
            shared,
            malformed,
            ..
        } = self.journal.totals();
        match self.verdict() {
            Verdict::NotStarted => "because the command was never run".to_owned(),
            Verdict::Fault if missed > 0 => {
                "because a call had no session: titles, summaries and retries also need one"
                    .to_owned()
            }
            Verdict::Fault if moved + shared > 0 => {
                "because a call was not in its conversation's session".to_owned()
            }
            Verdict::Fault if malformed > 0 => {
                "because a call had a doubled or malformed session".to_owned()
            }
            Verdict::Fault => "because a call quoted an answer of another session".to_owned(),
            Verdict::Stopped => "because the check was stopped before it finished".to_owned(),
            Verdict::NoCall => {
                let mut text =
                    String::from("because no call to a model was seen. The command was given:");
                let place = Place {
                    origin: self.origin,
                    key: None,
                };
                for client in [Client::Openai, Client::Anthropic, Client::Google] {
                    let (name, url) = client.setup(place).variables.swap_remove(0);
                    let _ = write!(text, "\n  {name}={url}");
                }
                text.push_str(
                    "\nand what opencode, pi, Codex, Claude Code, Gemini CLI, Qwen Code and aider \
                    read. Does the command wait for its calls to end?",
                );
                text
            }
            Verdict::NotJudged if answered == 0 => "because no call was answered".to_owned(),
            Verdict::NotJudged if self.left.cut_off > 0 => {
                "because a call had not ended when the check did".to_owned()
            }
            Verdict::NotJudged => {
                "because a call was refused before its session could be judged".to_owned()
            }
            Verdict::Unread => {
                "because a prompt could not be read, so that its conversation was not judged"
                    .to_owned()
            }
            Verdict::Late => {
                let calls = count(self.late() as u64, "call");
                format!("because {calls} came after the command had ended, and perhaps more will")
            }
            Verdict::NotCounted => "because not every call could be counted".to_owned(),
            Verdict::Unwritten => "because not all calls could be written".to_owned(),
            Verdict::TheCommands => {
                let own = match self.end.code() {
                    0 => "",
                    _ => "the command's own code: ",
                };
                let but = match self.allowed().len() {
                    0 => "",
                    _ => ", but for what is allowed",
                };
                format!("{own}every call kept its conversation's session{but}")
            }
        }
    }
}

/// Names the calls of one kind, one per line.
fn named(f: &mut fmt::Formatter<'_>, calls: &[SeenRequest], what: &str) -> fmt::Result {
    if calls.is_empty() {
        return Ok(());
    }
    writeln!(f, "{} {what}:", count(calls.len() as u64, "call"))?;
    for request in calls.iter().take(NAMED) {
        let line = harmless(&request.to_string());
        writeln!(f, "  {line}")?;
        // It names the nearest path.
        if let (Some(StatusCode::NOT_FOUND), Some(message)) =
            (request.status, &request.error_message)
        {
            writeln!(f, "    {}", harmless(message))?;
        }
    }
    match calls.len().saturating_sub(NAMED) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more"),
    }
}

fn count(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;

    use reqwest_opencode_session::testing::Limits;
    use reqwest_opencode_session::testing::record::{Answer, Log};
    use serde_json::json;

    use super::*;
    use crate::rules::Rules;

    /// Records an answered call in a session, with what the user and the model said by turns.
    fn call(journal: &Journal, session: &str, said: &[&str]) {
        let call = http::Request::post("/zen/v1/chat/completions");
        let call = call.header("x-opencode-session", session);
        let (head, ()) = call.body(()).unwrap().into_parts();
        let roles = ["user", "assistant"].into_iter().cycle();
        let messages = roles.zip(said);
        let messages = messages.map(|(role, content)| json!({"role": role, "content": content}));
        let body = json!({"model": "m", "messages": messages.collect::<Vec<_>>()});
        let number = journal.log.record(&head, body.to_string());
        let answer = Answer::with_status(StatusCode::OK);
        journal.log.answer(number, &answer);
    }

    /// Counts the calls that are kept.
    fn count(journal: &Journal) {
        journal.take(journal.log.latest(u64::MAX, usize::MAX, |_| true));
    }

    /// Checks the calls up to a number, of a command that succeeded.
    fn check(journal: &Journal, last: u64) -> Check<'_> {
        Check {
            journal,
            end: Exit::Ended {
                status: ExitStatus::default(),
                stopped: false,
            },
            origin: "http://127.0.0.1:8787",
            before_end: u64::MAX,
            last,
            left: Left::default(),
            unwritten: None,
        }
    }

    #[test]
    fn a_check_that_could_not_count_all_calls_does_not_pass() {
        let journal = Journal::new(
            Log::with_limits(Limits::default().requests(1)),
            Rules::default(),
        );
        call(&journal, "s", &["1"]);
        count(&journal);
        assert_eq!(check(&journal, 1).code(), 0);
        assert!(!check(&journal, 1).to_string().contains("dropped"));
        // A call after the last one to judge changes nothing.
        call(&journal, "s", &["1"]);
        assert_eq!(check(&journal, 1).code(), 0);
        call(&journal, "s", &["1"]);
        count(&journal);
        assert_eq!(check(&journal, 3).code(), 2);
        let report = check(&journal, 3).to_string();
        for line in [
            "1 call had to be dropped before being counted: use a larger --keep\n",
            "exit 2, because not every call could be counted\n",
        ] {
            assert!(report.contains(line), "{report}");
        }
    }

    #[test]
    fn a_fault_fails_a_check_even_if_it_is_no_longer_kept() {
        let journal = Journal::new(
            Log::with_limits(Limits::default().requests(1)),
            Rules::default(),
        );
        for session in ["no id", "s"] {
            call(&journal, session, &["1"]);
            count(&journal);
        }
        assert_eq!(check(&journal, 2).code(), 1);
    }

    #[test]
    fn a_prompt_that_could_not_be_read_counts_though_it_is_no_longer_kept_and_a_fault_outranks_it()
    {
        let limits = Limits::default().requests(1);
        let journal = Journal::new(Log::with_limits(limits), Rules::default());
        let (head, ()) = http::Request::post("/zen/v1/chat/completions")
            .header("x-opencode-session", "s")
            .body(())
            .unwrap()
            .into_parts();
        let number = journal.log.record(&head, "no JSON");
        let answer = Answer::with_status(StatusCode::OK);
        journal.log.answer(number, &answer);
        count(&journal);
        assert_eq!(check(&journal, 1).code(), 2);
        call(&journal, "s", &["1"]);
        count(&journal);
        assert_eq!(check(&journal, 2).code(), 2);
        let report = check(&journal, 2).to_string();
        let because = "exit 2, because a prompt could not be read";
        assert!(report.contains(because), "{report}");
        call(&journal, "no id", &["1"]);
        count(&journal);
        assert_eq!(check(&journal, 3).code(), 1);
    }

    #[test]
    fn a_report_says_what_a_fault_is_and_what_to_do_about_a_wrong_path() {
        let journal = Journal::new(
            Log::with_limits(Limits::default().requests(2)),
            Rules::default(),
        );
        for _ in 0..3 {
            call(&journal, "no id", &["1"]);
            count(&journal);
        }
        let report = check(&journal, 3).to_string();
        for line in [
            "2 calls with a doubled or malformed session:\n",
            "\n1 more call with a fault is no longer kept.\n",
            "exit 1, because a call had a doubled or malformed session\n",
        ] {
            assert!(report.contains(line), "{report}");
        }

        let journal = Journal::new(Log::default(), Rules::default());
        let call = http::Request::post("/zen/go/messages").header("x-opencode-session", "one");
        let (head, ()) = call.body(()).unwrap().into_parts();
        let number = journal.log.record(&head, "{}");
        let mut answer = Answer::with_status(StatusCode::NOT_FOUND);
        answer.error_message = Some("The nearest path is another one.".to_owned());
        journal.log.answer(number, &answer);
        count(&journal);
        let report = check(&journal, 1).to_string();
        assert!(
            report.contains("\n    The nearest path is another one.\n"),
            "{report}"
        );
        assert!(
            report.ends_with("exit 2, because no call was answered\n"),
            "{report}"
        );
    }

    #[test]
    fn a_report_says_which_moves_may_be_forks() {
        let hint = "  If this is a fork, which is not a fault, use --allow-forks.";
        let journal = Journal::new(Log::default(), Rules::default());
        call(&journal, "one", &["1"]);
        count(&journal);
        assert!(!check(&journal, 1).to_string().contains("--allow-forks"));

        call(&journal, "two", &["1", "a", "2"]);
        count(&journal);
        let report = check(&journal, 2).to_string();
        assert!(report.contains(&format!("{hint}\n")), "{report}");

        call(&journal, "one", &["1", "a", "2", "b", "3"]);
        count(&journal);
        let report = check(&journal, 3).to_string();
        let hint = format!("{hint} A call that moved back is no fork.\n");
        assert!(report.contains(&hint), "{report}");
    }

    #[test]
    fn a_report_says_what_became_of_the_calls_of_a_process_that_was_left_behind() {
        let journal = Journal::new(Log::default(), Rules::default());
        call(&journal, "one", &["1"]);
        count(&journal);
        for (under_way, cut_off, told) in [
            (1, 0, ": after it ended, one call was still under way."),
            (3, 0, ": after it ended, 3 calls were still under way."),
            (
                2,
                1,
                ": after it ended, 2 calls were still under way, \
                and 1 had not ended 5 seconds later.",
            ),
            (
                0,
                2,
                ", which went on to make calls, and 2 had not ended 5 seconds later.",
            ),
        ] {
            let left = Left { under_way, cut_off };
            let check = Check {
                left,
                ..check(&journal, 1)
            };
            let told = format!("\nThe command left a process behind{told}\n");
            assert!(check.to_string().contains(&told), "{check}");
        }
        assert!(!check(&journal, 1).to_string().contains("left a process"));
    }

    #[test]
    fn calls_that_came_after_the_command_had_ended_leave_the_check_open() {
        let journal = Journal::new(Log::default(), Rules::default());
        call(&journal, "one", &["1"]);
        call(&journal, "one", &["1", "a", "2"]);
        call(&journal, "one", &["1", "a", "2", "b", "3"]);
        count(&journal);
        let late = Check {
            before_end: 1,
            ..check(&journal, 3)
        };
        assert_eq!(late.code(), 2);
        let because = "because 2 calls came after the command had ended, and perhaps more will\n";
        assert!(late.to_string().ends_with(because), "{late}");
        // A fault is certain.
        call(&journal, "no id", &["1"]);
        count(&journal);
        let late = Check {
            before_end: 1,
            ..check(&journal, 4)
        };
        assert_eq!(late.code(), 1);
    }

    #[test]
    fn many_unrelated_prompts_in_one_session_are_a_line_and_no_fault() {
        let journal = Journal::new(Log::default(), Rules::default());
        let prompts: Vec<String> = (0..MANY).map(|at| format!("Question {at}")).collect();
        let told = format!("\n{MANY} unrelated prompts in session one\n");
        // Those that are sent again, or go on, are no others.
        call(&journal, "one", &["Before"]);
        call(&journal, "one", &["Before", "Yes.", "After"]);
        for prompt in &prompts {
            assert!(!check(&journal, 100).to_string().contains("unrelated"));
            for _ in 0..2 {
                call(&journal, "one", &[prompt]);
            }
        }
        count(&journal);
        let last = journal.last();
        let report = check(&journal, last).to_string();
        assert!(report.contains(&told), "{report}");
        assert_eq!(check(&journal, last).code(), 0);
        let (first, next) = (&*prompts[0], "And then?");
        call(&journal, "one", &[first, "Yes.", next]);
        count(&journal);
        let report = check(&journal, journal.last()).to_string();
        assert!(!report.contains("unrelated"), "{report}");
    }
}
