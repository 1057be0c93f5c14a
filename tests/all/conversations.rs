//! Whole conversations, held as real clients hold them, and compared with what those clients sent.

use std::collections::BTreeSet;

use http::HeaderMap;
use http::header::USER_AGENT;
use reqwest_opencode_session::testing::{Failure, Gateway, SeenRequest};
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, SessionId, WithSession};
use serde_json::Value;

use crate::stack::reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use crate::support::{CHAT, PROMPT, is_opencode_header, middleware_for, plain_client, retries};

/// The other wire formats.
const FORMATS: [&str; 3] = [
    "/zen/go/v1/responses",
    "/zen/go/v1/messages",
    "/zen/v1/models/kimi-k3:streamGenerateContent",
];

/// How a call gets its session.
#[derive(Debug, Clone, Copy)]
enum Way {
    Extensions,
    Scope,
}

/// One process of a client that retries a call after a 503.
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
        self.call_at(CHAT, session).await;
    }

    async fn call_at(&self, path: &str, session: &Session) {
        let request = self
            .client
            .post(self.gateway.url(path))
            .header("x-api-key", Gateway::KEY)
            .header("x-goog-api-key", Gateway::KEY)
            .bearer_auth(Gateway::KEY)
            .body(PROMPT);
        let response = match self.way {
            Way::Extensions => request.with_extension(session.clone()).send().await,
            Way::Scope => request.send().with_session(session.clone()).await,
        };
        assert_eq!(response.unwrap().status(), 200);
    }
}

/// The id that a process stores for the next one.
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
        gateway.fail_next(1, Failure::Status(http::StatusCode::SERVICE_UNAVAILABLE));
        third.call(&c).await; // two attempts
        third.call(&c.subagent().turn()).await;
        third.call(&c).await; // after the tool's answer

        process(project.as_str()).call(&Session::new().turn()).await;

        // Another project
        let project = SessionId::derive("my-agent", "another first commit");
        let e = Session::new().turn();
        let fourth = process(project.as_ref());
        fourth.call_at("/zen/v1/chat/completions", &e).await; // the title, on Zen
        fourth.call(&e).await;
        let resumed = Session::from(stored(&e));
        process(project.as_ref()).call(&resumed.turn()).await;
        process(project.as_ref()).call(&resumed.turn()).await; // the compaction
        for path in FORMATS {
            let conversation = Session::new().turn();
            process(project.as_ref()).call_at(path, &conversation).await;
        }

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
        for path in FORMATS {
            process().call_at(path, &Session::new()).await;
        }

        assert_same_relations("pi", &gateway.requests());
    }
}

/// Compares requests with the captured ones of a client, in the same order: they have the same
/// headers, and any two values are equal exactly if the captured values are.
fn assert_same_relations(client: &str, requests: &[SeenRequest]) {
    let captures: Vec<Value> = include_str!("../fixtures/captures.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|capture: &Value| capture["client"].as_str().unwrap().starts_with(client))
        .collect();
    assert_eq!(requests.len(), captures.len());

    for (request, capture) in requests.iter().zip(&captures) {
        let what = capture["what"].as_str().unwrap();
        let captured: BTreeSet<_> = ours(capture).map(|(name, _)| name).collect();
        assert_eq!(opencode_names(&request.headers), captured, "{what}");
        // A client uses several user agents, so only the presence of one is compared.
        assert!(request.headers.contains_key(USER_AGENT), "{what}");
        assert_eq!(
            Some(u64::from(request.status.unwrap().as_u16())),
            capture["status"].as_u64()
        );
    }

    // A parent's value is that of a session, so each value is compared with every other.
    let sent: Vec<&str> = requests
        .iter()
        .zip(&captures)
        .flat_map(|(request, capture)| {
            ours(capture).map(|(name, _)| request.headers[name].to_str().unwrap())
        })
        .collect();
    let captured: Vec<_> = captures.iter().flat_map(ours).collect();
    for (i, (name, value)) in captured.iter().enumerate() {
        for (j, (other_name, other_value)) in captured.iter().enumerate() {
            assert_eq!(
                sent[i] == sent[j],
                value == other_value,
                "{name} of {} and {other_name} of {}",
                sent[i],
                sent[j],
            );
        }
    }
}

/// The captured headers that this crate sets.
fn ours(capture: &Value) -> impl Iterator<Item = (&str, &str)> {
    let headers = capture["headers"].as_object().unwrap();
    let ours = headers.iter().filter(|(name, _)| is_opencode_header(name));
    ours.map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
}

fn opencode_names(headers: &HeaderMap) -> BTreeSet<&str> {
    headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| is_opencode_header(name))
        .collect()
}
