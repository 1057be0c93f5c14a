//! A turn that continues in other processes, and tenants behind a proxy.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use http::HeaderMap;
use reqwest_opencode_session::testing::{Gateway, SeenRequest};
use reqwest_opencode_session::{Session, SessionId};
use reqwest_opencode_session_shapes::after::job_queue::Job;
use reqwest_opencode_session_shapes::after::proxy::{Proxy, client};

use crate::support::{MODELS, both, requests_of, sole_session};

/// Does a job in a process of its own.
fn work(base_url: &str, job: &Job) -> Result<Option<Job>> {
    let mut worker = Command::new(env!("CARGO_BIN_EXE_worker"))
        .args([base_url, Gateway::KEY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = worker.stdin.take().expect("it is piped");
    input.write_all(&serde_json::to_vec(job)?)?;
    drop(input);
    let output = worker.wait_with_output()?;
    ensure!(output.status.success(), "{}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_goes_on_in_other_processes() {
    let gateway = Gateway::start().unwrap();
    let base_url = gateway.url("/zen/go/v1");
    let run = |model| {
        let base_url = base_url.clone();
        async move {
            let conversation = Session::new();
            let subagent = conversation.subagent();
            for session in [&conversation, &conversation, &subagent] {
                let prompts = ["Hello", "Use a tool.", "Use another one."];
                let mut job = Some(Job::new(session, model, &prompts));
                while let Some(now) = job {
                    job = work(&base_url, &now)?;
                }
            }
            Ok(())
        }
    };
    both(run).await.unwrap();
    let sessions = MODELS.map(|model| {
        let (subagent, own): (Vec<_>, Vec<_>) = requests_of(&gateway, model)
            .into_iter()
            .partition(|request| request.parent.is_some());
        let session = sole_session(&own);
        // Three jobs of two calls for each prompt.
        assert_eq!(turns(&own), [6, 6]);
        assert_eq!(turns(&subagent), [6]);
        assert_ne!(sole_session(&subagent), session);
        assert_eq!(subagent[0].parent.as_ref(), Some(&session));
        session
    });
    assert_ne!(sessions[0], sessions[1]);
}

/// The number of requests in each turn, in the order in which the turns began.
fn turns(requests: &[SeenRequest]) -> Vec<usize> {
    let mut turns: Vec<(&str, usize)> = vec![];
    for request in requests {
        let id = request.turn.as_deref().expect("a turn");
        match turns.iter_mut().find(|(turn, _)| *turn == id) {
            Some((_, count)) => *count += 1,
            None => turns.push((id, 1)),
        }
    }
    turns.into_iter().map(|(_, count)| count).collect()
}

fn proxy(gateway: &Gateway) -> Proxy {
    Proxy {
        http: client().unwrap(),
        url: gateway.url("/zen/go/v1/chat/completions"),
        key: Gateway::KEY.to_owned(),
        secret: "a secret".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_keeps_tenants_apart_that_name_the_same_session() {
    let gateway = Gateway::start().unwrap();
    let claimed = Session::from(SessionId::try_from("chat-1").unwrap());
    let run = |model: &'static str| {
        let proxy = proxy(&gateway);
        let (turn, subagent) = (claimed.turn(), claimed.subagent().turn());
        async move {
            // Each tenant has its own model.
            let body = format!(r#"{{"model": "{model}", "stream": true, "messages": []}}"#);
            let call = |headers| proxy.forward(model, headers, body.clone());
            let (turn, subagent) = (turn.headers(), subagent.headers());
            let (answer, title, research) =
                tokio::try_join!(call(&turn), call(&turn), call(&subagent))?;
            for answer in [answer, title, research] {
                answer.error_for_status()?.bytes().await?;
            }
            Ok(())
        }
    };
    both(run).await.unwrap();
    let sessions = MODELS.map(|model| {
        let (subagent, own): (Vec<_>, Vec<_>) = requests_of(&gateway, model)
            .into_iter()
            .partition(|request| request.parent.is_some());
        let session = sole_session(&own);
        assert_eq!(turns(&own), [2]);
        assert_eq!(subagent[0].parent.as_ref(), Some(&session));
        session
    });
    assert_ne!(sessions[0], sessions[1]);
    assert!(!sessions.contains(&"chat-1".to_owned()));
}

#[tokio::test]
async fn a_proxy_leaves_it_to_the_gateway_to_refuse_what_has_no_session() {
    let gateway = Gateway::start().unwrap();
    let proxy = proxy(&gateway);
    let body = r#"{"model": "kimi-k3", "messages": []}"#.to_owned();
    let answer = proxy.forward("ada", &HeaderMap::new(), body).await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("MissingSessionID"));
}
