//! What a test may claim of the calls that a gateway saw.

use http::Method;

use super::gateway::Gateway;
use super::seen::{Mark, SeenRequest};
use crate::session::Session;

impl Gateway {
    /// Asserts that there were requests and that all were in this session, in any turn of it.
    ///
    /// # Panics
    ///
    /// Panics with a list of the requests that were not, or if there were none or some are no longer
    /// [kept](super::Limits::requests).
    #[track_caller]
    pub fn assert_every_request_in(&self, session: &Session) {
        let id = session.id().as_ref();
        let expectation = format!("in session {id}");
        let hint = "run each inside `.with_session(&session)`";
        self.assert_each(&expectation, hint, Judged::Requests, |request| {
            request.session.as_deref() == Some(id)
        });
    }

    /// Asserts that there were calls to a model and that each was in a session: one id of 1 to 128
    /// visible ASCII characters. Requests that do not ask a model, such as one for the list of
    /// models, need none.
    ///
    /// # Panics
    ///
    /// Panics with a list of the calls that were not, or if there were none or some with a fault
    /// are no longer [kept](super::Limits::requests).
    #[track_caller]
    pub fn assert_no_session_missing(&self) {
        let hint = "run each inside `.with_session(session)`";
        self.assert_each("in a session", hint, Judged::Calls, |request| {
            !request
                .marks
                .iter()
                .any(|mark| matches!(mark, Mark::Missing | Mark::Doubled | Mark::Malformed))
        });
    }

    /// Asserts that there were calls to a model, that each conversation stayed in its session, and
    /// that no two shared one.
    ///
    /// [`Log`](super::record::Log) states the rules.
    ///
    /// # Panics
    ///
    /// Panics with a list of the calls that moved, whose session is shared, or whose prompt could
    /// not be [read](SeenRequest::unread), or if there were none or some with a fault are no longer
    /// [kept](super::Limits::requests).
    #[track_caller]
    pub fn assert_conversations_keep_their_session(&self) {
        self.assert_each(
            "in the session of their conversation",
            "keep one session for each conversation; a fork is declared by `expect_fork`",
            Judged::Conversations,
            |request| {
                let is_elsewhere =
                    |mark: &Mark| matches!(mark, Mark::Moved { .. } | Mark::Shared { .. });
                !request.unread && !request.marks.iter().any(is_elsewhere)
            },
        );
    }

    /// Asserts that there were calls to a model, and that none [quotes](Mark::Quotes) another
    /// session: for a client that passes no answer on from one conversation to another, so that a
    /// quotation can only be a helper call outside of its conversation's session.
    ///
    /// # Panics
    ///
    /// Panics with a list of the calls that do, or if there were none or some are no longer
    /// [kept](super::Limits::requests).
    #[track_caller]
    pub fn assert_no_quotes(&self) {
        let expectation = "free of other sessions' answers";
        let hint = "run helper calls in the session of the conversation that they quote";
        self.assert_each(expectation, hint, Judged::AllCalls, |request| {
            let quotes = |mark: &Mark| matches!(mark, Mark::Quotes { .. });
            !request.unread && !request.marks.iter().any(quotes)
        });
    }

    /// Asserts that there were calls to a model and that none was in the process-wide session: for a
    /// server, where each conversation needs a session of its own.
    ///
    /// # Panics
    ///
    /// Panics with a list of the calls that were, or if there were none or some are no longer
    /// [kept](super::Limits::requests).
    #[track_caller]
    pub fn assert_no_fallback(&self) {
        let expectation = "in a session other than the process-wide one";
        let hint = "run each conversation inside `.with_session(session)`";
        self.assert_each(expectation, hint, Judged::AllCalls, |request| {
            !request.marks.contains(&Mark::ProcessSession)
        });
    }

    /// Asserts that there were requests and that all named this client.
    ///
    /// # Panics
    ///
    /// Panics with a list of the requests that did not, or if there were none or some are no longer
    /// [kept](super::Limits::requests).
    #[track_caller]
    pub fn assert_every_client_is(&self, name: &str) {
        let expectation = format!("from client {name}");
        let hint = "set it with `client_name`";
        self.assert_each(&expectation, hint, Judged::Requests, |request| {
            request.client.as_deref() == Some(name)
        });
    }

    /// Asserts that requests were [redirected](super::Failure::Redirect), and that none followed to
    /// [elsewhere](Self::elsewhere).
    ///
    /// # Panics
    ///
    /// Panics with a list of the requests that escaped, or if nothing was redirected.
    #[track_caller]
    pub fn assert_no_request_escaped(&self) {
        assert!(
            self.server.state().redirected > 0,
            "the gateway redirected no request, so none could escape: make it redirect one with \
            `fail_next(1, Failure::Redirect {{ location: gateway.elsewhere(path)? }})`",
        );
        let escaped = self.escaped();
        assert!(
            escaped.is_empty(),
            "give the client `redirect_policy`: {} followed a redirect to another address:{}",
            counted(escaped.len(), "request"),
            list(escaped.iter()),
        );
    }

    /// Asserts that calls met every failure and every reply that the test set by
    /// [`fail_next`](Self::fail_next), [`reply_next`](Self::reply_next) and
    /// [`reply_to`](Self::reply_to): a test of a retry proves nothing if no call failed.
    ///
    /// # Panics
    ///
    /// Panics with a list of those that no call has met, with the lines that set them.
    #[track_caller]
    pub fn assert_every_failure_used(&self) {
        let unused = self.server.state().unused();
        assert!(
            unused.is_empty(),
            "make calls that meet these, or set fewer: no call met\n  {}",
            unused.join("\n  "),
        );
    }

    /// Panics unless the scope contains requests, and all of them meet the condition.
    #[track_caller]
    fn assert_each(
        &self,
        expectation: &str,
        hint: &str,
        scope: Judged,
        meets: impl Fn(&SeenRequest) -> bool,
    ) {
        let what = match scope {
            Judged::Requests => "request",
            Judged::Calls | Judged::Conversations | Judged::AllCalls => "call",
        };
        let seen = self.requests();
        let in_scope = |request: &&SeenRequest| match scope {
            Judged::Requests => request.method != Method::OPTIONS,
            Judged::Calls | Judged::Conversations | Judged::AllCalls => request.asks_a_model(),
        };
        let judged: Vec<_> = seen.iter().filter(in_scope).collect();
        assert!(
            !judged.is_empty(),
            "the gateway saw no {what}, where some {expectation} were expected; \
            take the client's base URL from `gateway.url(…)`",
        );
        let missed: Vec<_> = judged.iter().filter(|request| !meets(request)).collect();
        assert!(
            missed.is_empty(),
            "{} of {} {} not {expectation}; {hint}:{}",
            missed.len(),
            counted(judged.len(), what),
            match missed.len() {
                1 => "was",
                _ => "were",
            },
            list(missed.iter().map(|request| **request)),
        );
        let dropped = match scope {
            Judged::Requests | Judged::AllCalls => self.log.dropped(),
            // One without a fault has met it.
            Judged::Calls => self.log.dropped_faults(),
            Judged::Conversations => self.log.dropped_faults() + self.log.dropped_unread(),
        };
        assert!(
            dropped == 0,
            "the gateway no longer has {} and cannot tell whether all were {expectation}: \
            let it keep more with `Gateway::builder().limits(Limits::default().requests(…))`",
            counted(usize::try_from(dropped).unwrap_or(usize::MAX), what),
        );
    }
}

/// What an assertion judges.
#[derive(Debug, Clone, Copy)]
enum Judged {
    /// Every request except a browser's preflight.
    Requests,
    /// Calls to a model, for a condition whose failure is a fault.
    Calls,
    /// The same, for a condition that a call whose prompt could not be read does not meet either.
    Conversations,
    /// Calls to a model, for any other condition: a dropped call may have failed it.
    AllCalls,
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// The most requests that a failed assertion names.
const LISTED: usize = 50;

fn list<'a>(requests: impl ExactSizeIterator<Item = &'a SeenRequest>) -> String {
    let more = requests.len().saturating_sub(LISTED);
    let mut list: String = requests
        .take(LISTED)
        .map(|request| format!("\n  {request}"))
        .collect();
    if more > 0 {
        list.push_str(&format!("\n  and {more} more"));
    }
    list
}
