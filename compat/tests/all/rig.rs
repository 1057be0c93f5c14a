//! rig, through its own client for reqwest-middleware.

use futures::StreamExt;
use futures::future::join_all;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Extension};
use reqwest_opencode_session::testing::{Gateway, Reply};
use reqwest_opencode_session::{Session, WithSession};
use rig::completion::CompletionRequest;
use rig::core::serve::ServingPolicy;
use rig::prelude::*;
use rig::providers::openai::{OpenAI, OpenAIConfig};
use rig::rig_reqwest::ReqwestMiddlewareClient;
use rig::tool::{DynamicTool, ToolOutput};
use serde_json::json;

use crate::support::{MODEL, assert_every_request_in_turn, client, sessions};

fn openai(gateway: &Gateway, client: ClientWithMiddleware) -> OpenAI {
    OpenAIConfig::new(Gateway::KEY)
        .with_base_url(gateway.url("/zen/go/v1"))
        .connect(ReqwestMiddlewareClient::from(client))
}

#[tokio::test]
async fn a_completion_is_in_its_session() {
    let gateway = Gateway::start().unwrap();
    let openai = openai(&gateway, client(&gateway));
    let session = Session::new();
    async {
        let request = || CompletionRequest::new("Hello");
        openai.chat(MODEL).call(request()).await.unwrap();
        openai.responses(MODEL).call(request()).await.unwrap();
    }
    .with_session(session.clone())
    .await;

    assert_eq!(gateway.requests().len(), 2);
    gateway.assert_every_request_in(&session);
    gateway.assert_every_client_is("compat");
}

#[tokio::test]
async fn a_stream_is_in_the_session_that_is_around_it() {
    let gateway = Gateway::start().unwrap();
    let model = openai(&gateway, client(&gateway)).chat(MODEL);
    let agent = AgentBuilder::new(model.clone()).build();
    let session = Session::new();

    let stream = model.stream(CompletionRequest::new("Hello")).unwrap();
    let mut stream = stream.with_session(session.clone());
    while let Some(item) = stream.next().await {
        item.unwrap();
    }
    let mut stream = agent.prompt("Hello").stream().with_session(session.clone());
    while let Some(item) = stream.next().await {
        item.unwrap();
    }

    assert_eq!(gateway.requests().len(), 2);
    gateway.assert_every_request_in(&session);
}

#[tokio::test]
async fn an_agent_keeps_session_and_turn_through_its_tools() {
    let gateway = Gateway::start().unwrap();
    let model = openai(&gateway, client(&gateway)).chat(MODEL);
    let inner = model.clone();
    let summarize = DynamicTool::new(
        "summarize".try_into().unwrap(),
        "Summarizes a text by a call of its own.",
        json!({"type": "object", "properties": {}}),
        move |_| {
            let model = inner.clone();
            Box::pin(async move {
                model
                    .call(CompletionRequest::new("Summarize"))
                    .await
                    .unwrap();
                Ok(ToolOutput::text("a summary"))
            })
        },
    );
    let agent = AgentBuilder::new(model).dynamic_tool(summarize).build();
    gateway.reply_next(Reply::ToolCall {
        name: "summarize".to_owned(),
        arguments: json!({}),
    });

    let turn = Session::new().turn();
    let run = agent.prompt("Summarize the text").max_turns(2).run();
    run.with_session(turn.clone()).await.unwrap();

    assert_eq!(gateway.requests().len(), 3);
    assert_every_request_in_turn(&gateway, &turn);
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_at_once_stay_apart_where_each_has_an_agent() {
    let gateway = Gateway::start().unwrap();
    let openai = openai(&gateway, client(&gateway));
    at_once(|session| {
        let agent = AgentBuilder::new(openai.chat(session.id().as_str())).build();
        async move {
            for _ in 0..5 {
                agent.prompt("Hello").await.unwrap();
            }
        }
        .with_session(session)
    })
    .await;
    assert_eq!(mixed_up(&gateway), 0);
}

/// A request whose session is pinned to its client needs no ambient one, wherever rig polls it.
#[tokio::test(flavor = "multi_thread")]
async fn conversations_at_once_stay_apart_on_one_agent_where_each_has_a_client() {
    let gateway = Gateway::start().unwrap();
    let client = client(&gateway);
    let agent = AgentBuilder::new(openai(&gateway, client.clone()).chat(MODEL)).build();
    at_once(|session| {
        let name = session.id().to_string();
        let pinned = ClientBuilder::from_client(client.clone()).with_init(Extension(session));
        let model = openai(&gateway, pinned.build()).chat(name);
        let agent = agent.clone();
        async move {
            for _ in 0..5 {
                let run = agent.prompt("Hello").using_model_value(model.clone());
                run.await.unwrap();
            }
        }
    })
    .await;
    assert_eq!(mixed_up(&gateway), 0);
}

/// What is lost: whichever run of an agent is polled serves the requests of all its runs at once,
/// so the ambient session is that run's. Here the second run waits in line for the first one.
#[tokio::test]
async fn the_ambient_session_of_one_run_reaches_the_others_of_its_agent() {
    let gateway = Gateway::start().unwrap();
    let one_by_one = ServingPolicy {
        serial_per_handler: true,
        ..ServingPolicy::default()
    };
    let agent = AgentBuilder::new(openai(&gateway, client(&gateway)).chat(MODEL))
        .configure_bus(one_by_one)
        .build();
    let [first, second] = [Session::new(), Session::new()];
    let runs = [&first, &second].map(|session| {
        let run = agent.prompt("Hello").run();
        run.with_session(session.clone())
    });
    for answer in join_all(runs).await {
        answer.unwrap();
    }
    let first = Some(first.id().to_string());
    assert_eq!(sessions(&gateway), [first.clone(), first]);
}

/// Holds many conversations at once, each on a task of its own.
async fn at_once<F>(conversation: impl Fn(Session) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let tasks = (0..20).map(|_| tokio::spawn(conversation(Session::new())));
    for ended in join_all(tasks).await {
        ended.unwrap();
    }
}

/// How many requests were not in the session that their model is named after.
fn mixed_up(gateway: &Gateway) -> usize {
    let requests = gateway.requests();
    assert_eq!(requests.len(), 100);
    let mixed_up = requests
        .iter()
        .filter(|request| request.session != request.model);
    mixed_up.count()
}
