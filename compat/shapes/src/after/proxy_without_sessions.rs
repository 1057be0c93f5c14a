//! A proxy whose clients send no session: each conversation is told by its first message.

use http::HeaderMap;
use reqwest_opencode_session::Session;
use serde_json::Value;

/// Returns the session of a tenant's request: the one that it names, or else one for the
/// conversation that its body holds.
pub fn session(scope: &str, headers: &HeaderMap, body: &Value) -> Option<Session> {
    if let Some(named) = Session::from_headers(headers) {
        return Some(named.derived(scope));
    }
    // A client sends the whole conversation each time, so its first message is always there.
    Some(Session::derive(scope, first_prompt(body)?.to_string()))
}

/// Returns the first message of the user, in any of the gateway's four formats.
fn first_prompt(body: &Value) -> Option<&Value> {
    let lists = ["messages", "input", "contents"];
    let mut messages = lists
        .iter()
        .filter_map(|list| body[list].as_array())
        .flatten();
    messages.find(|message| message["role"] == "user")
}
