//! Calls and marks as JSON, for `--json` and for the page.

use std::time::{Duration, SystemTime};

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest_opencode_session::testing::record::End;
use reqwest_opencode_session::testing::{Mark, SeenRequest};
use serde_json::{Map, Value, json};

use crate::rules::Rules;

/// Returns a call without its body, and with headers that may carry a key hidden.
pub fn of_call(call: &SeenRequest, rules: &Rules) -> Value {
    let headers: Map<String, Value> = (call.headers.keys())
        .map(|name| (name.as_str().to_owned(), shown(&call.headers, name).into()))
        .collect();
    let marks = call.marks.iter().map(|mark| {
        let mut json = of_mark(mark);
        json["allowed"] = rules.allows(call, mark).into();
        json
    });
    let marks: Vec<Value> = marks.collect();
    let since = call.at.duration_since(SystemTime::UNIX_EPOCH);
    json!({
        "number": call.number,
        "at": since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        "method": call.method.as_str(),
        "path": call.path,
        "headers": headers,
        "session": call.session,
        "turn": call.turn,
        "client": call.client,
        "user_agent": call.headers.get(USER_AGENT).map(|_| shown(&call.headers, &USER_AGENT)),
        "project": call.project,
        "parent": call.parent,
        "kind": call.kind(),
        "name": call.name(),
        "model": call.model,
        "stream": call.stream,
        "tools": call.tools,
        "messages": call.messages,
        "system": call.system,
        "prompt": call.prompt,
        "recalls": call.recalls,
        "said": call.said,
        "provider": call.provider,
        "state": state(call),
        "answered_after_ms": call.answered_after.map(milliseconds),
        "ended_after_ms": call.ended_after.map(milliseconds),
        "failure": call.failure,
        "status": call.status.map(|status| status.as_u16()),
        "error": call.error,
        "error_message": call.error_message,
        "prompt_tokens": call.prompt_tokens,
        "cached_tokens": call.cached_tokens,
        "output_tokens": call.output_tokens,
        "cost": call.cost,
        "unread": call.unread,
        "continues": call.continues,
        "added": rules.added(call).map(|added| added.to_string()),
        "stands_out": rules.stands_out(call),
    "marks": marks,
    })
}

/// Returns how far a call is, or how it ended.
fn state(call: &SeenRequest) -> &'static str {
    match (call.end, call.status) {
        (None, None) => "waiting",
        (None, Some(_)) => "streaming",
        (Some(End::ClientLeft), _) => "left",
        (Some(End::Whole), _) if call.is_refused() => "refused",
        (Some(End::Whole), _) => "done",
        (Some(_), _) => "cut",
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a mark's `name`, the `reason` in words, and its fields.
fn of_mark(mark: &Mark) -> Value {
    let mut json = json!({"name": mark.name(), "reason": mark.to_string()});
    match mark {
        Mark::Moved {
            continues,
            from,
            back,
        } => {
            json["continues"] = (*continues).into();
            json["from"] = from.as_str().into();
            json["back"] = (*back).into();
        }
        Mark::Shared {
            conversation,
            other,
            back,
        } => {
            json["conversation"] = (*conversation).into();
            json["other"] = (*other).into();
            json["back"] = (*back).into();
        }
        Mark::Quotes { call, session } => {
            json["call"] = (*call).into();
            json["from"] = session.as_str().into();
        }
        _ => {}
    }
    json
}

/// Returns a header as the gateway reads it, with several values joined by commas, but not a key.
fn shown(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = || headers.get_all(name).iter();
    if values().any(HeaderValue::is_sensitive) {
        return "(hidden)".to_owned();
    }
    let values = values().map(|value| value.as_bytes().iter().copied().map(char::from).collect());
    values.collect::<Vec<String>>().join(", ")
}

#[cfg(test)]
mod tests {
    use http::Request;
    use reqwest_opencode_session::testing::record::Log;

    use super::*;

    fn json_of(call: http::request::Builder) -> Value {
        let log = Log::default();
        let body =
            r#"{"model": "m", "messages": [{"role": "user", "content": "A title, please."}]}"#;
        let (head, ()) = call.body(()).unwrap().into_parts();
        let number = log.record(&head, body);
        of_call(&log.get(number).unwrap(), &Rules::default())
    }

    #[test]
    fn a_call_has_no_key() {
        for key in [
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "cookie",
            "api-key",
            "x-auth-token",
            "x-litellm-api-key",
            "helicone-auth",
            "x-csrf-token",
        ] {
            let call = Request::post("/inference/go/openai/v1/chat/completions")
                .header(key, "Bearer sk-secret")
                .header("x-opencode-client", "my-agent");
            let json = json_of(call);
            assert!(!json.to_string().contains("sk-secret"), "{json}");
            assert_eq!(json["headers"]["x-opencode-client"], "my-agent");
            assert_eq!(json["headers"][key], "(hidden)");
            assert_eq!(json["kind"], "title");
            assert_eq!(json["marks"][0]["name"], "missing");
        }
    }

    #[test]
    fn several_values_of_a_header_are_shown_as_the_gateway_reads_them() {
        let call = Request::post("/zen/v1/chat/completions")
            .header("accept", "text/html")
            .header("accept", "*/*");
        assert_eq!(json_of(call)["headers"]["accept"], "text/html, */*");
    }

    #[test]
    fn a_mark_has_its_name_its_reason_and_its_fields() {
        let moved = Mark::Moved {
            continues: 1,
            from: "x".to_owned(),
            back: true,
        };
        let shared = Mark::Shared {
            conversation: 4,
            other: 1,
            back: false,
        };
        let quotes = Mark::Quotes {
            call: 1,
            session: "x".to_owned(),
        };
        for (mark, mut expected) in [
            (Mark::Missing, json!({"name": "missing"})),
            (Mark::Doubled, json!({"name": "doubled"})),
            (Mark::Malformed, json!({"name": "malformed"})),
            (
                moved,
                json!({"name": "moved", "continues": 1, "from": "x", "back": true}),
            ),
            (
                shared,
                json!({"name": "shared", "conversation": 4, "other": 1, "back": false}),
            ),
            (quotes, json!({"name": "quotes", "call": 1, "from": "x"})),
            (Mark::ProcessSession, json!({"name": "process"})),
        ] {
            expected["reason"] = mark.to_string().into();
            assert_eq!(of_mark(&mark), expected);
        }
    }
}
