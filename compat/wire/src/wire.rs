//! The gateway with one client: the conversations, and what stands out in them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use reqwest_opencode_session::testing::{Gateway, Mark, Reply, SeenRequest};

use crate::client::Client;
use crate::compare::{Call, differences};

/// The conversations of one client, and the gateway that it calls.
pub struct Wire {
    name: &'static str,
    pub client: Client,
    pub gateway: Gateway,
    /// Captured calls, each with the one sent in its place.
    calls: Vec<(Call, Call)>,
    /// What failed, or cannot be compared.
    faults: Vec<String>,
}

impl Wire {
    pub fn new(name: &'static str, client: Client, gateway: Gateway) -> Self {
        Self {
            name,
            client,
            gateway,
            calls: vec![],
            faults: vec![],
        }
    }

    /// Holds a part of a conversation, and pairs its calls with the captured ones of these
    /// descriptions: titles first, because they are sent in the background. If none of them is a
    /// title, titles are left out. If there are no descriptions, only the gateway judges the calls.
    pub async fn hold(
        &mut self,
        what: &str,
        captured: &[&str],
        part: impl AsyncFnOnce(&Client, &Gateway) -> Result<()>,
    ) {
        let before = self.gateway.requests().len();
        let held = part(&self.client, &self.gateway).await;
        let mut sent = self.gateway.requests().split_off(before);
        sent.retain(SeenRequest::asks_a_model);
        if !captured
            .iter()
            .any(|captured| captured.starts_with("title"))
        {
            sent.retain(|call| call.kind() != "title");
        }
        sent.sort_by_key(|call| call.kind() != "title");
        if let Err(error) = held {
            self.faults
                .push(format!("{what} could not be held: {error:#}"));
        } else if sent.is_empty() {
            self.faults.push(format!("{what}: no call came"));
        } else if captured.is_empty() {
            println!("  {what}: {}, judged only by the gateway", count(&sent));
        } else if sent.len() != captured.len() {
            let names: Vec<_> = sent.iter().map(SeenRequest::name).collect();
            let names = names.join("; ");
            let expected = captured.len();
            self.faults.push(format!(
                "{what}: {expected} calls were captured, and now: {names}"
            ));
        } else {
            println!("  {what}: {}", count(&sent));
            for (captured, sent) in captured.iter().zip(&sent) {
                match Call::captured(self.name, captured) {
                    Ok(captured) => self.calls.push((captured, Call::sent(sent))),
                    Err(error) => self.faults.push(format!("{error:#}")),
                }
            }
        }
    }

    /// The same for a part that is one run of the client.
    pub async fn run(&mut self, what: &str, captured: &[&str], folder: &str, arguments: &[&str]) {
        let run = async |client: &Client, _: &Gateway| client.run(folder, arguments).await;
        self.hold(what, captured, run).await;
    }

    /// The session of the latest call.
    pub fn latest_session(&self) -> Result<String> {
        let requests = self.gateway.requests();
        let latest = requests.last().and_then(|call| call.session.clone());
        latest.context("the latest call has no session")
    }

    /// Declares that the latest call is in a fork of this session. The gateway must have marked it
    /// as one, which proves that it looks for forks.
    pub fn declare_fork(&mut self, original: &str) -> Result<()> {
        let fork = self.latest_session()?;
        let forked = |call: &SeenRequest| {
            call.session.as_ref() == Some(&fork) && call.marks.iter().any(Mark::may_be_fork)
        };
        if !self.gateway.requests().iter().any(forked) {
            let fault = "the gateway takes no call for a fork";
            self.faults.push(fault.to_owned());
        }
        self.gateway.expect_fork(original, fork);
        Ok(())
    }

    /// Prints what stands out, and returns whether nothing does.
    pub fn report(self) -> bool {
        let requests = self.gateway.requests();
        let marked: Vec<_> = requests.iter().filter(|call| call.has_fault()).collect();
        let differences = differences(&self.calls);
        let clean = self.faults.is_empty() && differences.is_empty() && marked.is_empty();
        for fault in &self.faults {
            println!("  fails: {fault}");
        }
        for difference in &differences {
            println!("  differs: {difference}");
        }
        println!(
            "  {} calls compared with the captured ones, headers and relations: {} differences",
            self.calls.len(),
            differences.len()
        );
        for call in &marked {
            println!("  marked: {call}");
        }
        println!(
            "  {} calls judged by the gateway, with the fork declared: {} marked",
            requests.len(),
            marked.len()
        );
        let agents = requests
            .iter()
            .filter_map(|call| call.headers.get("user-agent"));
        let agents: BTreeSet<_> = agents.filter_map(|agent| agent.to_str().ok()).collect();
        for agent in agents {
            println!("  user agent: {agent}");
        }
        let refused = self.client.refused();
        if !refused.is_empty() {
            println!("  kept from reaching: {}", refused.join(", "));
        }
        clean
    }
}

/// Describes how many calls these are, and where they went.
fn count(calls: &[SeenRequest]) -> String {
    let paths: BTreeSet<_> = calls.iter().map(|call| call.path.as_str()).collect();
    let paths = paths.into_iter().collect::<Vec<_>>().join(" and ");
    match calls.len() {
        1 => format!("1 call to {paths}"),
        count => format!("{count} calls to {paths}"),
    }
}

/// A gateway that returns a title when it is asked for one.
pub fn gateway() -> Result<Gateway> {
    let gateway = Gateway::start()?;
    let title = Reply::Text("A title".to_owned());
    gateway.reply_to(|call| call.kind() == "title", title);
    Ok(gateway)
}
