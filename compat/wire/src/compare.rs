//! Compares what is sent with what was captured: which headers, and which values are equal.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use http::HeaderMap;
use reqwest_opencode_session::testing::SeenRequest;
use serde_json::Value;

const FIXTURE: &str = include_str!("../../../tests/fixtures/captures.jsonl");

/// One call: what it is, and those of its headers that the fixture would contain.
#[derive(Debug, Clone)]
pub struct Call {
    what: String,
    status: Option<u64>,
    headers: BTreeMap<String, String>,
}

impl Call {
    /// The captured call of a client whose description begins with `what`.
    pub fn captured(client: &str, what: &str) -> Result<Self> {
        for line in FIXTURE.lines() {
            let line: Value = serde_json::from_str(line)?;
            let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            if !text("client").starts_with(client) || !text("what").starts_with(what) {
                continue;
            }
            let headers = line["headers"].as_object().into_iter().flatten();
            return Ok(Self {
                what: what.to_owned(),
                status: line["status"].as_u64(),
                headers: headers
                    .map(|(name, value)| (name.clone(), value.as_str().unwrap_or("").to_owned()))
                    .collect(),
            });
        }
        Err(anyhow::anyhow!("captures.jsonl"))
            .with_context(|| format!("no call of {client} is named '{what}'"))
    }

    /// A call that was sent.
    pub fn sent(request: &SeenRequest) -> Self {
        Self {
            what: request.name(),
            status: request.status.map(|status| status.as_u16().into()),
            headers: told(&request.headers),
        }
    }
}

/// The headers in which a client describes itself and its conversation, without keys and without
/// those of its SDK.
fn told(headers: &HeaderMap) -> BTreeMap<String, String> {
    const OTHERS: [&str; 3] = ["x-api-key", "x-goog-", "x-stainless-"];
    let told = headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        let own = name.starts_with("x-") || name.contains("session") || name == "user-agent";
        own && !OTHERS.iter().any(|other| name.starts_with(other))
    });
    told.map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name.to_string(), value.into_owned())
    })
    .collect()
}

/// Describes each difference between captured calls and those sent in their place.
pub fn differences(calls: &[(Call, Call)]) -> Vec<String> {
    let mut differences = vec![];
    for (captured, sent) in calls {
        let what = &captured.what;
        for name in captured.headers.keys() {
            if !sent.headers.contains_key(name) {
                differences.push(format!("{what}: {name} is no longer sent"));
            }
        }
        for name in sent.headers.keys() {
            if !captured.headers.contains_key(name) {
                differences.push(format!("{what}: {name} is new"));
            }
        }
        if let (Some(then), Some(now)) = (captured.status, sent.status)
            && then != now
        {
            differences.push(format!("{what}: answered {now}, and was answered {then}"));
        }
    }

    // A value is identified by the place where it first appears, in whichever header: the parent of
    // a subagent is the session of another call.
    let cells: Vec<_> = calls
        .iter()
        .flat_map(|(captured, sent)| {
            let names = captured.headers.iter();
            names.filter_map(|(name, then)| {
                let now = sent.headers.get(name)?;
                (name != "user-agent")
                    .then(|| (format!("{name} of '{}'", captured.what), then, now))
            })
        })
        .collect();
    for (index, (cell, then, now)) in cells.iter().enumerate() {
        let first_then = cells.iter().position(|(_, value, _)| value == then);
        let first_now = cells.iter().position(|(_, _, value)| value == now);
        if first_then == first_now {
            continue;
        }
        let said = |first: Option<usize>| match first {
            Some(first) if first != index => format!("that of {}", cells[first].0),
            _ => "a value of its own".to_owned(),
        };
        differences.push(format!(
            "{cell} is {}, and was {}",
            said(first_now),
            said(first_then)
        ));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(what: &str, headers: &[(&str, &str)]) -> Call {
        let headers = headers.iter();
        Call {
            what: what.to_owned(),
            status: None,
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn other_values_in_the_same_relations_are_no_difference() {
        let then = [
            call("a", &[("session", "1"), ("user-agent", "x")]),
            call(
                "b",
                &[("session", "2"), ("parent", "1"), ("user-agent", "x")],
            ),
        ];
        let now = [
            call("a", &[("session", "one"), ("user-agent", "x")]),
            call(
                "b",
                &[("session", "two"), ("parent", "one"), ("user-agent", "y")],
            ),
        ];
        let calls: Vec<_> = then.into_iter().zip(now).collect();
        assert_eq!(differences(&calls), Vec::<String>::new());
    }

    #[test]
    fn names_and_relations_that_changed_are_said() {
        let then = [
            call("a", &[("session", "1")]),
            call("b", &[("session", "1"), ("parent", "2")]),
        ];
        let now = [
            call("a", &[("session", "1"), ("turn", "3")]),
            call("b", &[("session", "2")]),
        ];
        let calls: Vec<_> = then.into_iter().zip(now).collect();
        assert_eq!(
            differences(&calls),
            [
                "a: turn is new",
                "b: parent is no longer sent",
                "session of 'b' is a value of its own, and was that of session of 'a'",
            ]
        );
    }
}
