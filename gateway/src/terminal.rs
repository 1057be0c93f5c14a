//! The line that the terminal shows for a call.

use std::collections::HashMap;
use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use reqwest_opencode_session::testing::record::End;
use reqwest_opencode_session::testing::{Mark, SeenRequest};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::rules::Rules;

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const DIM: Style = Style::new().dimmed();

/// Returns the names of the columns.
pub fn heading(width: Option<usize>) -> String {
    let columns = format!(
        "{:>6} {:8} {:6} {:9} {:>6}  {}",
        "call", "time", "status", "session", "cached", "what it is"
    );
    format!("{DIM}{}{DIM:#}", fit(&columns, width))
}

/// The lines of calls, in which ids with the same end are told apart.
pub struct Lines {
    zone: TimeZone,
    /// The first id with each end.
    ends: HashMap<String, String>,
}

impl Lines {
    /// How many ends of ids are kept.
    const ENDS: usize = 20_000;

    pub fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            ends: HashMap::new(),
        }
    }

    /// Formats a call that has ended as a line of at most this many columns.
    pub fn line(&mut self, request: &SeenRequest, rules: &Rules, width: Option<usize>) -> String {
        let session = request.session.as_deref();
        let session = session.map_or("–".to_owned(), |id| self.short(id));
        line(request, &session, rules, &self.zone, width)
    }

    /// Returns the end of an id, with its beginning if another id has the same end.
    fn short(&mut self, id: &str) -> String {
        const LENGTH: usize = 4;
        let end = short(id);
        if !self.ends.contains_key(&end) && self.ends.len() >= Self::ENDS {
            self.ends.clear();
        }
        let first = self
            .ends
            .entry(end.clone())
            .or_insert_with(|| id.to_owned());
        if first == id {
            return end;
        }
        let begin: String = id.chars().take(LENGTH).collect();
        match first.starts_with(&begin) {
            true => id.to_owned(),
            false => format!("{begin}{end}"),
        }
    }
}

fn line(
    request: &SeenRequest,
    session: &str,
    rules: &Rules,
    zone: &TimeZone,
    width: Option<usize>,
) -> String {
    let at = Timestamp::try_from(request.at).unwrap_or_default();
    let at = at.to_zoned(zone.clone()).strftime("%H:%M:%S");
    let status = request
        .status
        .map_or("none".to_owned(), |status| status.as_u16().to_string());
    let share = (request.cached_tokens * 100).checked_div(request.prompt_tokens);
    let share = share.map_or(String::new(), |share| format!("{share} %"));
    let mut line = format!(
        "{:>6} {at} {status:<6} {session:<9} {share:>6}  ",
        format!("#{}", request.number),
    );
    line = fit(&line, width);
    let columns = line.width();
    let left = width.map(|width| width.saturating_sub(columns));
    let what = match request.asks_a_model() {
        true => request.name(),
        false => format!("{} {}", request.method, request.path),
    };
    let Some((reason, style)) = reason(request, rules) else {
        line.push_str(&fit(&what, left));
        return line;
    };
    let reason = fit(&reason, left);
    let left = left.map(|left| left.saturating_sub(reason.width()));
    let what = fit(&format!(" · {what}"), left);
    write!(line, "{style}{reason}{style:#}{what}").expect("a string takes all");
    line
}

/// Returns why a call stands out, or a note about how it ended, if there is anything to say.
fn reason(request: &SeenRequest, rules: &Rules) -> Option<(String, Style)> {
    let mut reasons: Vec<String> = rules.reasons(request).map(of_mark).collect();
    if request.is_refused() {
        let status = request.status.and_then(|status| status.canonical_reason());
        let error = request.error.as_deref().or(status).unwrap_or("refused");
        // Its mark already says so.
        if error != "MissingSessionID" || reasons.is_empty() {
            reasons.push(error.to_owned());
        }
    }
    // What may be a fork, or a text that was passed on, may be right.
    let may_be_right = |mark: &Mark| mark.may_be_fork() || !mark.is_fault();
    let only_a_fork = rules.reasons(request).all(may_be_right) && !request.is_refused();
    let style = match (reasons.is_empty() || !request.asks_a_model(), only_a_fork) {
        (true, _) => DIM,
        (false, true) => YELLOW,
        (false, false) => RED,
    };
    let allowed = request
        .marks
        .iter()
        .filter(|mark| rules.allows(request, mark));
    reasons.extend(allowed.map(|mark| format!("{}, which is allowed", mark.name())));
    reasons.extend(rules.added(request).map(|added| added.to_string()));
    if request.end == Some(End::ClientLeft) {
        reasons.push("the client left before the end of the answer".to_owned());
    }
    reasons.extend(
        request
            .failure
            .iter()
            .map(|failure| format!("as told: {failure}")),
    );
    (!reasons.is_empty()).then(|| (reasons.join(", "), style))
}

fn of_mark(mark: &Mark) -> String {
    match mark {
        Mark::Moved {
            continues,
            from,
            back: false,
        } => {
            format!(
                "moved: continues #{continues} of {}, or is its fork",
                short(from)
            )
        }
        Mark::Moved {
            continues, from, ..
        } => {
            format!("moved back: continues #{continues} of {}", short(from))
        }
        Mark::Shared { other, .. } => {
            format!("shared: #{other} began another conversation in its session")
        }
        Mark::Quotes { call, session } => {
            format!("quotes the answer to #{call} of {}", short(session))
        }
        Mark::Doubled => "session header doubled".to_owned(),
        Mark::Malformed => "malformed session".to_owned(),
        mark => mark.to_string(),
    }
}

/// Returns the last characters of an id, which are the ones that tell it from others.
pub fn short(id: &str) -> String {
    const LENGTH: usize = 8;
    match id.char_indices().rev().nth(LENGTH) {
        None => id.to_owned(),
        Some((at, character)) => format!("…{}", &id[at + character.len_utf8()..]),
    }
}

/// Replaces characters that control the terminal, reverse text or are invisible.
pub fn harmless(text: &str) -> String {
    let commands = |character: char| {
        let turns_or_hides = matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        );
        character.is_control() || turns_or_hides
    };
    text.replace(commands, "\u{fffd}")
}

/// Returns a [`harmless`] text of at most this many columns.
fn fit(text: &str, width: Option<usize>) -> String {
    let text = harmless(text);
    let Some(width) = width.filter(|width| text.width() > *width) else {
        return text;
    };
    let mut fitted = String::new();
    let mut left = width.saturating_sub(1);
    for character in text.chars() {
        let columns = character.width().unwrap_or_default();
        if columns > left {
            break;
        }
        left -= columns;
        fitted.push(character);
    }
    if width > 0 {
        fitted.push('…');
    }
    fitted
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};
    use reqwest_opencode_session::testing::record::{Answer, Log};
    use serde_json::json;

    use super::*;
    use crate::rules::Allow;

    #[test]
    fn texts_are_cut_by_columns_and_not_by_bytes() {
        assert_eq!(fit("abcdef", Some(6)), "abcdef");
        assert_eq!(fit("abcdefg", Some(6)), "abcde…");
        assert_eq!(fit("日本語", Some(5)), "日本…");
        assert_eq!(fit("日本語", Some(4)), "日…");
        assert_eq!(fit("a\x1b[31m\n", None), "a\u{fffd}[31m\u{fffd}");
        assert_eq!(fit("a", Some(0)), "");
    }

    /// Returns the lines for calls of a conversation that changes and loses its session.
    fn lines(width: Option<usize>) -> Vec<String> {
        let log = Log::default();
        let said = [
            "Where is the sea?",
            "There.",
            "And where is the lake, which is not so wide?",
            "There, too.",
            "And the river?",
        ];
        for (session, count) in [("one", 1), ("two-of-a-long-name", 3), ("", 3), ("one", 5)] {
            let messages = said[..count].iter().enumerate().map(|(at, text)| {
                let role = if at % 2 == 0 { "user" } else { "assistant" };
                json!({"role": role, "content": text})
            });
            let body = json!({"model": "glm-5.2", "messages": messages.collect::<Vec<_>>()});
            let request =
                Request::post("/zen/go/v1/chat/completions").header("x-opencode-session", session);
            let (head, ()) = request.body(()).unwrap().into_parts();
            let number = log.record(&head, body.to_string());
            let status = if session.is_empty() { 400 } else { 200 };
            let mut answer = Answer::with_status(StatusCode::from_u16(status).unwrap());
            answer.error = session.is_empty().then(|| "MissingSessionID".to_owned());
            log.answer(number, &answer);
        }
        let requests = log.requests();
        let mut output = Lines::new(TimeZone::UTC);
        let rules = Rules::default();
        let lines = requests
            .iter()
            .map(|request| output.line(request, &rules, width));
        lines
            .map(|line| anstream::adapter::strip_str(&line).to_string())
            .collect()
    }

    #[test]
    fn a_line_says_why_a_call_stands_out_before_what_it_is() {
        let lines = lines(None);
        assert!(lines[0].ends_with("  call: 'Where is the sea?', glm-5.2, 1 message, no tools"));
        let moved = "moved: continues #1 of one, or is its fork · call: 'And where is the lake,";
        assert!(lines[1].contains(moved), "{}", lines[1]);
        assert!(
            lines[2].contains(" 400    –                 no session · call: 'And"),
            "{}",
            lines[2]
        );
        let back = "moved back: continues #2 of …ong-name · call: 'And the river?'";
        assert!(lines[3].contains(back), "{}", lines[3]);
    }

    /// Returns a call in the session "one", with this answer.
    fn answered(answer: &Answer) -> SeenRequest {
        let log = Log::default();
        let call = Request::post("/zen/v1/messages").header("x-opencode-session", "one");
        let (head, ()) = call.body(()).unwrap().into_parts();
        let number = log.record(&head, "{}");
        log.answer(number, answer);
        log.get(number).unwrap()
    }

    #[test]
    fn a_refusal_is_a_reason_of_its_own_unless_a_mark_says_it() {
        let mut limit = Answer::with_status(StatusCode::TOO_MANY_REQUESTS);
        let mut request = answered(&limit);
        let of = |request: &SeenRequest| reason(request, &Rules::default()).unwrap();
        assert_eq!(of(&request), ("Too Many Requests".to_owned(), RED));
        limit.error = Some("GoUsageLimitError".to_owned());
        request = answered(&limit);
        assert_eq!(of(&request), ("GoUsageLimitError".to_owned(), RED));
        request.marks = vec![Mark::Missing];
        assert_eq!(of(&request).0, "no session, GoUsageLimitError");

        request.error = Some("MissingSessionID".to_owned());
        assert_eq!(of(&request), ("no session".to_owned(), RED));
        // The gateway may find no session in a call in which the log finds one.
        request.marks = vec![];
        assert_eq!(of(&request), ("MissingSessionID".to_owned(), RED));
    }

    #[test]
    fn what_may_be_a_fork_is_yellow_unless_it_was_refused_and_every_other_fault_is_red() {
        let mut request = answered(&Answer::with_status(StatusCode::OK));
        assert_eq!(reason(&request, &Rules::default()), None);
        let moved = |back| Mark::Moved {
            continues: 1,
            from: "two".to_owned(),
            back,
        };
        for (marks, style) in [
            (vec![moved(false)], YELLOW),
            (vec![moved(true)], RED),
            (vec![moved(false), Mark::Malformed], RED),
        ] {
            request.marks = marks;
            assert_eq!(
                reason(&request, &Rules::default()).unwrap().1,
                style,
                "{:?}",
                request.marks
            );
        }
        request.marks = vec![moved(false)];
        request.status = Some(StatusCode::BAD_GATEWAY);
        assert_eq!(reason(&request, &Rules::default()).unwrap().1, RED);
    }

    #[test]
    fn a_call_that_ended_in_good_order_before_its_answer_did_has_a_dim_note() {
        let mut request = answered(&Answer::with_status(StatusCode::OK));
        let left = "the client left before the end of the answer";
        request.end = Some(End::ClientLeft);
        assert_eq!(
            reason(&request, &Rules::default()),
            Some((left.to_owned(), DIM))
        );
        request.marks = vec![Mark::Malformed];
        assert_eq!(
            reason(&request, &Rules::default()),
            Some((format!("malformed session, {left}"), RED))
        );
    }

    #[test]
    fn what_is_allowed_and_what_was_told_to_fail_is_said() {
        let mut request = answered(&Answer::with_status(StatusCode::OK));
        request.marks = vec![Mark::Malformed];
        let rules = Rules::new(&[Allow::parse("malformed").unwrap()]);
        let allowed = "malformed, which is allowed";
        assert_eq!(reason(&request, &rules), Some((allowed.to_owned(), DIM)));
        request.failure = Some("delayed by 2 seconds".to_owned());
        let told = format!("{allowed}, as told: delayed by 2 seconds");
        assert_eq!(reason(&request, &rules), Some((told, DIM)));
    }

    #[test]
    fn a_line_is_never_wider_than_the_terminal() {
        for width in [0, 1, 20, 39, 40, 80, 120] {
            for line in lines(Some(width)) {
                assert!(line.width() <= width, "{width}: {line}");
            }
            assert!(
                anstream::adapter::strip_str(&heading(Some(width)))
                    .to_string()
                    .width()
                    <= width
            );
        }
    }

    #[test]
    fn ids_are_told_apart_by_their_tails() {
        assert_eq!(short("12345678"), "12345678");
        assert_eq!(short("123456789"), "…23456789");
        let mut lines = Lines::new(TimeZone::UTC);
        for _ in 0..2 {
            for (id, shown) in [
                ("north-402eeb79", "…402eeb79"),
                ("south-402eeb79", "sout…402eeb79"),
                ("north-2-402eeb79", "north-2-402eeb79"),
            ] {
                assert_eq!(lines.short(id), shown);
            }
        }
    }
}
