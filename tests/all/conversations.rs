//! Whole conversations, held as real clients hold them, against what those clients sent.

use std::collections::BTreeSet;

use http::HeaderMap;
use reqwest_opencode_session::testing::{Fault, Gateway, SeenRequest};
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, SessionId, WithSession};
use serde_json::Value;

use crate::stack::reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use crate::support::{chat, is_opencode_header, middleware_for, plain_client, retries};

/// How a call gets its session.
#[derive(Debug, Clone, Copy)]
enum Way {
    Extensions,
    Scope,
}

/// One process of a client that tries a call again after a 503.
struct Process<'a> {
    gateway: &'a Gateway,
    client: ClientWithMiddleware,
    way: Way,
}

impl<'a> Process<'a> {
    fn new(gateway: &'a Gateway, way: Way, middleware: OpencodeSessionMiddleware) -> Self {
        let client = ClientBuilder::new(plain_client())
            .with(retries(1))
            .with(middleware)
            .build();
        Self {
            gateway,
            client,
            way,
        }
    }

    async fn call(&self, session: &Session) {
        let request = chat(&self.client, self.gateway);
        let response = match self.way {
            Way::Extensions => request.with_extension(session.clone()).send().await,
            Way::Scope => request.send().with_session(session.clone()).await,
        };
        assert_eq!(response.unwrap().status(), 200);
    }
}

/// What a process that ends leaves for the next one.
fn stored(session: &Session) -> SessionId {
    session.id().to_string().parse().unwrap()
}

#[tokio::test]
async fn an_agent_with_turns_and_subagents_sends_what_opencode_sends() {
    for way in [Way::Extensions, Way::Scope] {
        let gateway = Gateway::start().unwrap();
        let process = |project: &str| {
            let middleware = middleware_for(&gateway)
                .client_name("my-agent")
                .user_agent("my-agent/1.0")
                .project(project)
                .build()
                .unwrap();
            Process::new(&gateway, way, middleware)
        };

        let a = Session::new().turn();
        let first = process("global");
        first.call(&a).await; // the title
        first.call(&a).await;
        let project = SessionId::derive("my-agent", "the first commit");
        process(project.as_str())
            .call(&Session::from(stored(&a)).turn())
            .await;

        let b = Session::new().turn();
        let second = process(project.as_str());
        second.call(&b).await; // the title
        second.call(&b).await;

        let c = Session::new().turn();
        let third = process(project.as_str());
        third.call(&c).await; // the title
        gateway.fail_next(1, Fault::Status(http::StatusCode::SERVICE_UNAVAILABLE));
        third.call(&c).await; // two attempts
        third.call(&c.subagent().turn()).await;
        third.call(&c).await; // after the tool's answer

        process(project.as_str()).call(&Session::new().turn()).await;

        let project = SessionId::derive("my-agent", "another first commit");
        let e = Session::new().turn();
        let fifth = process(project.as_str());
        fifth.call(&e).await; // the title
        fifth.call(&e).await;
        let sixth = process(project.as_str());
        let e = Session::from(stored(&e));
        sixth.call(&e.turn()).await;
        sixth.call(&e.turn()).await; // the compaction

        assert_same_relations("opencode", &gateway.requests());
    }
}

#[tokio::test]
async fn an_agent_with_a_session_alone_sends_what_pi_sends() {
    for way in [Way::Extensions, Way::Scope] {
        let gateway = Gateway::start().unwrap();
        let process = || {
            let middleware = middleware_for(&gateway)
                .client_name("my-agent")
                .user_agent("my-agent")
                .build();
            Process::new(&gateway, way, middleware.unwrap())
        };
        let p = Session::new();
        process().call(&p).await;
        process().call(&Session::from(stored(&p))).await;

        assert_same_relations("pi", &gateway.requests());
    }
}

/// Checks requests against the captured ones of a client, as far as they are chat completions, one
/// by one and in the same order: the same headers, and between any two values of them the same relation, equal or not.
fn assert_same_relations(client: &str, requests: &[SeenRequest]) {
    let captures: Vec<Value> = include_str!("../fixtures/captures.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|capture: &Value| capture["client"].as_str().unwrap().starts_with(client))
        .filter(|capture| {
            capture["path"]
                .as_str()
                .unwrap()
                .ends_with("/chat/completions")
        })
        .collect();
    assert_eq!(requests.len(), captures.len());

    for (request, capture) in requests.iter().zip(&captures) {
        let what = capture["what"].as_str().unwrap();
        let captured = capture["headers"].as_object().unwrap();
        let names: BTreeSet<_> = captured.keys().map(String::as_str).collect();
        assert_eq!(opencode_names(&request.headers), names, "{what}");
        assert_eq!(
            Some(u64::from(request.status.unwrap().as_u16())),
            capture["status"].as_u64()
        );
    }

    // The parent's value is a session's, so all values are compared with all.
    let ours: Vec<&str> = requests
        .iter()
        .zip(&captures)
        .flat_map(|(request, capture)| {
            let captured = capture["headers"].as_object().unwrap();
            captured
                .keys()
                .map(|name| request.headers[name].to_str().unwrap())
        })
        .collect();
    let theirs: Vec<(&str, &str)> = captures
        .iter()
        .flat_map(|capture| capture["headers"].as_object().unwrap())
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    for (i, (name, value)) in theirs.iter().enumerate() {
        for (j, (other_name, other_value)) in theirs.iter().enumerate() {
            assert_eq!(
                ours[i] == ours[j],
                value == other_value,
                "{name} of {} and {other_name} of {}",
                ours[i],
                ours[j],
            );
        }
    }
}

fn opencode_names(headers: &HeaderMap) -> BTreeSet<&str> {
    let ours = |name: &&str| is_opencode_header(name) || *name == "user-agent";
    headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(ours)
        .collect()
}
