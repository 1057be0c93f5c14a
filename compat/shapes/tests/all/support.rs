//! Helpers for the tests of several shapes.

use anyhow::Result;
use reqwest_opencode_session::Session;
use reqwest_opencode_session::testing::{Gateway, SeenRequest};

/// One model for each conversation, so that a request's body shows where it belongs.
pub const MODELS: [&str; 2] = ["glm-5.2", "kimi-k3"];

/// The second prompt starts a subagent, which has two prompts of its own.
pub const PROMPTS: &[&str] = &["Hello", "Now research that.", "Thanks"];

/// Runs one conversation for each model, at the same time, each in its own task.
pub async fn both<F>(converse: impl Fn(&'static str) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let [one, another] = MODELS.map(|model| tokio::spawn(converse(model)));
    let (one, another) = tokio::try_join!(one, another)?;
    one.and(another)
}

/// Asserts that each conversation kept its own session, and its subagent another one that names it
/// as its parent, with this many calls for each prompt.
#[track_caller]
pub fn assert_kept_apart(gateway: &Gateway, calls: usize) {
    let sessions = MODELS.map(|model| {
        let (subagent, own): (Vec<_>, Vec<_>) = requests_of(gateway, model)
            .into_iter()
            .partition(|request| request.parent.is_some());
        assert_eq!(own.len(), calls * PROMPTS.len(), "{own:#?}");
        assert_eq!(subagent.len(), calls * 2, "{subagent:#?}");
        let (session, research) = (sole_session(&own), sole_session(&subagent));
        assert_ne!(session, research);
        for request in &subagent {
            assert_eq!(request.parent.as_ref(), Some(&session), "{request}");
        }
        session
    });
    assert_ne!(sessions[0], sessions[1]);
}

/// Asserts that all calls for a prompt are in one turn, and that each prompt has its own.
#[track_caller]
pub fn assert_turns(gateway: &Gateway, calls: usize) {
    for model in MODELS {
        let mut turns = vec![];
        for request in requests_of(gateway, model) {
            turns.push(request.turn.expect("a turn"));
        }
        turns.sort();
        for turn in turns.chunk_by(|one, other| one == other) {
            assert_eq!(turn.len(), calls, "{turn:?}");
        }
        // Including the two prompts of the subagent
        assert_eq!(turns.len(), calls * (PROMPTS.len() + 2));
    }
}

/// The requests for a model, which must all have been answered.
#[track_caller]
pub fn requests_of(gateway: &Gateway, model: &str) -> Vec<SeenRequest> {
    let mut requests = gateway.requests();
    requests.retain(|request| request.model.as_deref() == Some(model));
    for request in &requests {
        assert!(
            request.status.is_none_or(|status| status.is_success()),
            "{request}"
        );
    }
    requests
}

/// The only session of these requests, which must have one.
#[track_caller]
pub fn sole_session(requests: &[SeenRequest]) -> String {
    let session = requests[0].session.clone().expect("a session");
    for request in requests {
        assert_eq!(request.session.as_ref(), Some(&session), "{request}");
    }
    assert_ne!(session, Session::process().id().as_str());
    session
}

/// Asserts that the gateway refused, because there was no session.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(gateway: &Gateway, result: Result<T>) {
    let error = format!("{:#}", result.expect_err("the gateway did not refuse it"));
    assert!(error.contains("400"), "{error}");
    let requests = gateway.requests();
    assert!(!requests.is_empty());
    assert!(requests.iter().all(|request| request.session.is_none()));
}
