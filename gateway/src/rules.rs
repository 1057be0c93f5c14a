//! What this run adds and accepts, and what stands out in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use http::header::USER_AGENT;
use reqwest_opencode_session::testing::{Mark, SeenRequest};

use crate::add_session::Added;

/// A mark that is accepted, of every call or only of some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    mark: String,
    only: Option<Only>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Only {
    Client(String),
    /// A path, and those below it.
    Path(String),
}

impl Allow {
    /// The marks that can be allowed.
    const MARKS: [&str; 6] = [
        "missing",
        "doubled",
        "malformed",
        "moved",
        "shared",
        "quotes",
    ];

    pub fn parse(value: &str) -> Result<Self> {
        let (mark, only) = match value.split_once(':') {
            Some((mark, only)) => (mark, Some(only)),
            None => (value, None),
        };
        ensure!(
            Self::MARKS.contains(&mark),
            "expected a mark, which is one of {}",
            Self::MARKS.join(", ")
        );
        ensure!(
            only != Some(""),
            "expected a client or a path after the colon, such as {mark}:my-agent"
        );
        let only = only.map(|only| match only.starts_with('/') {
            true => Only::Path(only.trim_end_matches('/').to_owned()),
            false => Only::Client(only.to_owned()),
        });
        Ok(Self {
            mark: mark.to_owned(),
            only,
        })
    }

    fn covers(&self, call: &SeenRequest, mark: &Mark) -> bool {
        mark.name() == self.mark
            && match &self.only {
                None => true,
                Some(Only::Client(name)) => {
                    client(call).is_some_and(|client| is_named(&client, name))
                }
                Some(Only::Path(path)) => {
                    let rest = call.path.strip_prefix(path.as_str());
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }
            }
    }
}

/// What stands out in a run.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    allowed: Arc<[Allow]>,
    /// The calls that this program added a session to.
    added: Arc<Mutex<BTreeMap<u64, Added>>>,
    /// The names of marks that are no fault by themselves, but count as one.
    denied: Arc<[String]>,
}

impl Rules {
    pub fn new(allowed: &[Allow]) -> Self {
        Self {
            allowed: allowed.into(),
            added: Arc::default(),
            denied: Arc::default(),
        }
    }

    /// Notes that a session was added to the call with this number.
    pub fn note_added(&self, number: u64, how: Added) {
        /// How many of these calls are known.
        const ADDED: usize = 20_000;
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.insert(number, how);
        if added.len() > ADDED {
            added.pop_first();
        }
    }

    /// Returns where the session of a call comes from, if this program added it.
    pub fn added(&self, call: &SeenRequest) -> Option<Added> {
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.get(&call.number).copied()
    }

    /// Counts these marks as faults.
    pub fn denying(self, marks: &[String]) -> Self {
        let denied = marks.into();
        Self { denied, ..self }
    }

    /// Returns whether a mark with this name counts as a fault, though it is none by itself.
    pub fn denies(&self, mark: &str) -> bool {
        self.denied.iter().any(|denied| denied == mark)
    }

    /// Returns whether a mark of this call is accepted.
    pub fn allows(&self, call: &SeenRequest, mark: &Mark) -> bool {
        self.allowed.iter().any(|allow| allow.covers(call, mark))
    }

    /// Returns the faults of a call that are not accepted.
    pub fn faults<'a>(&self, call: &'a SeenRequest) -> impl Iterator<Item = &'a Mark> {
        let is_fault = |mark: &&Mark| mark.is_fault() || self.denies(mark.name());
        let faults = call.marks.iter().filter(is_fault);
        faults.filter(|mark| !self.allows(call, mark))
    }

    /// Returns the marks because of which a call stands out, if any: its faults, and quotations.
    pub fn reasons<'a>(&self, call: &'a SeenRequest) -> impl Iterator<Item = &'a Mark> {
        let marks = call.marks.iter();
        let count = |mark: &&Mark| mark.is_fault() || matches!(mark, Mark::Quotes { .. });
        marks.filter(count).filter(|mark| !self.allows(call, mark))
    }

    pub fn has_fault(&self, call: &SeenRequest) -> bool {
        self.faults(call).next().is_some()
    }

    /// Returns whether a mark of this call was accepted.
    pub fn has_allowed(&self, call: &SeenRequest) -> bool {
        call.marks.iter().any(|mark| self.allows(call, mark))
    }

    /// Returns whether a call stands out: like [`SeenRequest::stands_out`], but for what is
    /// accepted.
    pub fn stands_out(&self, call: &SeenRequest) -> bool {
        call.stands_out() && (call.is_refused() || self.reasons(call).next().is_some())
    }
}

/// Returns the client's name: that of `x-opencode-client`, or else the beginning of the user agent.
pub fn client(call: &SeenRequest) -> Option<String> {
    let named = call.client.clone();
    named.or_else(|| {
        let agent = call.headers.get(USER_AGENT)?;
        let agent = String::from_utf8_lossy(agent.as_bytes());
        agent.split_whitespace().next().map(str::to_owned)
    })
}

/// Returns whether a client has this name, in any version.
fn is_named(client: &str, name: &str) -> bool {
    let unversioned = client.split('/').next();
    client.eq_ignore_ascii_case(name)
        || unversioned.is_some_and(|client| client.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use reqwest_opencode_session::testing::record::Log;

    use super::*;

    fn call(path: &str, headers: &[(&str, &str)]) -> SeenRequest {
        let log = Log::default();
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let number = log.record(&head, "{}");
        log.get(number).unwrap()
    }

    #[test]
    fn a_mark_is_allowed_everywhere_or_for_one_client_or_below_one_path() {
        let claude = ("user-agent", "claude-cli/2.1.332 (external, cli)");
        for (allow, path, header, allowed) in [
            ("missing", "/zen/v1/messages", claude, true),
            ("moved", "/zen/v1/messages", claude, false),
            ("missing:claude-cli", "/zen/v1/messages", claude, true),
            (
                "missing:Claude-CLI/2.1.332",
                "/zen/v1/messages",
                claude,
                true,
            ),
            ("missing:claude", "/zen/v1/messages", claude, false),
            (
                "missing:my-agent",
                "/zen/v1/messages",
                ("x-opencode-client", "my-agent"),
                true,
            ),
            ("missing:/zen", "/zen/v1/messages", claude, true),
            ("missing:/zen/v1/", "/zen/v1/messages", claude, true),
            ("missing:/zen/v", "/zen/v1/messages", claude, false),
            ("missing:/inference", "/zen/v1/messages", claude, false),
        ] {
            let rules = Rules::new(&[Allow::parse(allow).unwrap()]);
            let call = call(path, &[header]);
            assert_eq!(rules.has_allowed(&call), allowed, "{allow}");
            assert_eq!(rules.has_fault(&call), !allowed, "{allow}");
            assert_eq!(rules.stands_out(&call), !allowed, "{allow}");
        }
    }

    #[test]
    fn a_quotation_is_a_fault_where_it_is_denied_and_stands_out_unless_it_is_allowed() {
        let mut call = call("/zen/v1/messages", &[("x-opencode-session", "s")]);
        call.marks = vec![Mark::Quotes {
            call: 1,
            session: "t".to_owned(),
        }];
        let quotes = ["quotes".to_owned()];
        for (rules, fault, stands_out) in [
            (Rules::default(), false, true),
            (Rules::default().denying(&quotes), true, true),
            (Rules::new(&[Allow::parse("quotes").unwrap()]), false, false),
        ] {
            assert_eq!(
                (rules.has_fault(&call), rules.stands_out(&call)),
                (fault, stands_out)
            );
        }
    }

    #[test]
    fn what_is_no_mark_or_names_nothing_is_refused() {
        for value in ["", "forks", "process", "missing:", "Missing"] {
            assert!(Allow::parse(value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_client_without_a_name_is_named_by_its_user_agent() {
        let call = |headers: &[_]| client(&call("/zen/v1/messages", headers));
        let agent = ("user-agent", "OpenAI/JS 6.49.0");
        assert_eq!(call(&[agent]).as_deref(), Some("OpenAI/JS"));
        let named = call(&[agent, ("x-opencode-client", "my-agent")]);
        assert_eq!(named.as_deref(), Some("my-agent"));
        assert_eq!(call(&[]), None);
    }
}
