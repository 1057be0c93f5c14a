//! rig, through its own client for reqwest-middleware.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_opencode_session::testing::{Failure, Gateway, Reply};
use reqwest_opencode_session::{Session, WithSession};
use reqwest_opencode_session_compat::rig::Sessions;
use rig::agent::AgentRunner;
use rig::completion::CompletionRequest;
use rig::prelude::*;
use rig::providers::openai::{OpenAI, OpenAIConfig};
use rig::rig_reqwest::ReqwestMiddlewareClient;
use rig::serve::ServingPolicy;
use rig::serve::adapters::ModelAdapter;
use rig::tool::server::ToolServer;
use rig::tool::{DynamicTool, RegisteredTool, ToolOutput};
use serde_json::{Map, json};
use tokio::time::{sleep, timeout};

use crate::support::{
    MANY, MODEL, assert_every_request_in_turn, assert_none_in_another_session, assert_shown,
    client, count_in_another_session, hold_many, http, opencode,
};

fn openai(gateway: &Gateway, client: ClientWithMiddleware) -> OpenAI {
    OpenAIConfig::new(Gateway::KEY)
        .with_base_url(gateway.url("/zen/go/v1"))
        .connect(ReqwestMiddlewareClient::from(client))
}

/// The name of the model that a tool's call asks for, in the tool's context.
struct Name(String);

/// The context of a tool that asks for a model that is named after the session.
fn named(session: &Session) -> ToolContext {
    ToolContext::new().with_scope(Arc::new(Name(session.id().to_string())))
}

/// A tool that calls a model itself, in the session of its context, if any.
fn summarize(openai: OpenAI) -> DynamicTool {
    DynamicTool::new_with_context(
        "summarize".try_into().unwrap(),
        "Summarizes a text by a call of its own.",
        json!({"type": "object", "properties": {}}),
        move |context: &mut ToolContext, _| {
            let name = context.scope::<Name>();
            let model = openai.chat(name.map_or(MODEL.to_owned(), |name| name.0.clone()));
            let session = context.scope::<Session>();
            Box::pin(async move {
                let call = model.call(CompletionRequest::new("Summarize"));
                call.with_session(session.as_deref()).await.unwrap();
                Ok(ToolOutput::text("a summary"))
            })
        },
    )
}

/// One agent for all conversations, as the page builds it, with a tool that calls a model itself.
fn shared_agent(gateway: &Gateway, sessions: &Sessions) -> Agent {
    let openai = openai(gateway, client());
    let model = openai.chat(MODEL);
    let tool = sessions.around(summarize(openai).into_parts().1);
    let tools = ToolServer::new().registered_tool(RegisteredTool::from_handler(tool).unwrap());
    AgentBuilder::new(model.clone())
        .model_route_handler(
            "default",
            sessions.around(ModelAdapter::new("default", model)),
        )
        .tool_server_handle(tools.run())
        .add_hook(sessions.clone())
        .build()
}

/// A run whose requests ask for a model that is named after the session.
fn prompt(agent: &Agent, session: &Session) -> AgentRunner {
    let model = Map::from_iter([("model".to_owned(), session.id().as_str().into())]);
    agent
        .prompt("Hello")
        .merge_additional_params(model)
        .tool_context(named(session))
        .max_turns(2 * MANY)
}

fn summary() -> Reply {
    Reply::ToolCall {
        name: "summarize".to_owned(),
        arguments: json!({}),
    }
}

fn is_empty(sessions: &Sessions) -> bool {
    format!("{sessions:?}").contains("data: {}")
}

#[test]
fn the_page_shows_the_code_that_is_tested_here() {
    let page = include_str!("../../../src/docs/recipes/rig.md");
    assert_shown(page, include_str!("../../src/rig.rs"));
}

#[tokio::test]
async fn a_completion_is_in_its_session() {
    let gateway = Gateway::start().unwrap();
    let openai = openai(&gateway, client());
    let session = Session::new();
    async {
        let request = || CompletionRequest::new("Hello");
        openai.chat(MODEL).call(request()).await.unwrap();
        openai.responses(MODEL).call(request()).await.unwrap();
    }
    .with_session(&session)
    .await;

    assert_eq!(gateway.requests().len(), 2);
    gateway.assert_every_request_in(&session);
    gateway.assert_every_client_is("compat");
}

#[tokio::test]
async fn a_stream_is_in_the_session_that_is_around_it() {
    let gateway = Gateway::start().unwrap();
    let model = openai(&gateway, client()).chat(MODEL);
    let agent = AgentBuilder::new(model.clone()).build();
    let session = Session::new();

    let stream = model.stream(CompletionRequest::new("Hello")).unwrap();
    let mut stream = stream.with_session(&session);
    while let Some(item) = stream.next().await {
        item.unwrap();
    }
    let mut stream = agent.prompt("Hello").stream().with_session(&session);
    while let Some(item) = stream.next().await {
        item.unwrap();
    }

    assert_eq!(gateway.requests().len(), 2);
    gateway.assert_every_request_in(&session);
}

#[tokio::test]
async fn an_agent_keeps_session_and_turn_through_its_tools() {
    let gateway = Gateway::start().unwrap();
    let openai = openai(&gateway, client());
    let agent = AgentBuilder::new(openai.chat(MODEL)).dynamic_tool(summarize(openai));
    let agent = agent.build();
    gateway.reply_next(summary());

    let turn = Session::new().turn();
    let run = agent.prompt("Summarize the text").max_turns(2).run();
    run.with_session(&turn).await.unwrap();

    assert_eq!(gateway.requests().len(), 3);
    assert_every_request_in_turn(&gateway, &turn);
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_at_once_stay_apart_where_each_has_an_agent() {
    let gateway = Gateway::start().unwrap();
    let openai = openai(&gateway, client());
    hold_many(|session| {
        let agent = AgentBuilder::new(openai.chat(session.id().as_str())).build();
        async move {
            for _ in 0..3 {
                agent.prompt("Hello").await.unwrap();
            }
        }
        .with_session(session)
    })
    .await;
    assert_none_in_another_session(&gateway, 3 * MANY);
}

/// If a client is bound to its session, a request needs no ambient one, wherever rig polls it.
#[tokio::test(flavor = "multi_thread")]
async fn conversations_at_once_stay_apart_on_one_agent_where_each_has_a_client() {
    let gateway = Gateway::start().unwrap();
    let http = http();
    let agent = AgentBuilder::new(openai(&gateway, client()).chat(MODEL)).build();
    hold_many(|session| {
        let bound = opencode().bound_to(&session);
        let client = ClientBuilder::new(http.clone()).with(bound).build();
        let model = openai(&gateway, client).chat(session.id().as_str());
        let agent = agent.clone();
        async move {
            for _ in 0..3 {
                let run = agent.prompt("Hello").using_model_value(model.clone());
                run.await.unwrap();
            }
        }
        .with_session(session)
    })
    .await;
    assert_none_in_another_session(&gateway, 3 * MANY);
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_at_once_stay_apart_on_one_agent_through_streams_and_tools() {
    let gateway = Gateway::start().unwrap();
    let sessions = Sessions::default();
    let agent = shared_agent(&gateway, &sessions);
    // Which runs are asked to use the tool is random.
    for _ in 0..MANY {
        gateway.reply_next(summary());
    }
    hold_many(|session| {
        let agent = agent.clone();
        async move {
            let session = Session::current().unwrap();
            prompt(&agent, &session).await.unwrap();
            let mut stream = prompt(&agent, &session).stream();
            while let Some(item) = stream.next().await {
                item.unwrap();
            }
            prompt(&agent, &session).await.unwrap();
        }
        .with_session(session)
    })
    .await;

    // Three prompts each, and two more requests for each use of the tool: the tool's own call,
    // which may be told to use the tool to no effect, and the one with its answer.
    assert!(gateway.requests().len() >= 4 * MANY);
    assert_eq!(count_in_another_session(&gateway), 0);
    assert!(
        gateway
            .requests()
            .iter()
            .all(|request| request.turn.is_some())
    );
    assert!(is_empty(&sessions));
}

/// A tool that is not wrapped in `around` is served in any session.
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_of_a_shared_agent_may_take_its_session_from_its_context() {
    let gateway = Gateway::start().unwrap();
    let openai = openai(&gateway, client());
    let model = openai.chat(MODEL);
    let sessions = Sessions::default();
    let agent = AgentBuilder::new(model.clone())
        .model_route_handler(
            "default",
            sessions.around(ModelAdapter::new("default", model)),
        )
        .add_hook(sessions)
        .dynamic_tool(summarize(openai))
        .build();
    for _ in 0..MANY {
        gateway.reply_next(summary());
    }
    hold_many(|session| {
        let context = named(&session).with_scope(Arc::new(session.clone()));
        prompt(&agent, &session)
            .tool_context(context)
            .run()
            .map(Result::unwrap)
            .map(drop)
            .with_session(session)
    })
    .await;

    assert!(gateway.requests().len() >= 2 * MANY);
    assert_eq!(count_in_another_session(&gateway), 0);
}

#[tokio::test]
async fn runs_that_are_cut_off_leave_nothing_behind() {
    let gateway = Gateway::start().unwrap();
    let sessions = Sessions::default();
    let agent = shared_agent(&gateway, &sessions);

    // Some are dropped before anything was sent,
    for _ in 0..MANY {
        let session = Session::new();
        let run = prompt(&agent, &session).run().with_session(&session);
        assert!(run.now_or_never().is_none());
    }
    assert!(is_empty(&sessions));

    // and some while they wait for an answer.
    gateway.fail_next(MANY, Failure::Delay(Duration::from_secs(60)));
    let tasks = (0..MANY).map(|_| {
        let session = Session::new();
        tokio::spawn(prompt(&agent, &session).run().with_session(&session))
    });
    let tasks: Vec<_> = tasks.collect();
    let all_wait = async {
        while gateway.requests().len() < MANY {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = timeout(Duration::from_secs(60), all_wait).await;
    waited.expect("every run sends its request");
    assert!(!is_empty(&sessions));
    for task in tasks {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert!(is_empty(&sessions));

    let session = Session::new();
    let run = prompt(&agent, &session).run();
    run.with_session(&session).await.unwrap();
    assert_eq!(count_in_another_session(&gateway), 0);
}

#[tokio::test]
async fn a_run_of_a_shared_agent_in_no_session_sends_nothing() {
    let gateway = Gateway::start().unwrap();
    let sessions = Sessions::default();
    let agent = shared_agent(&gateway, &sessions);
    let [inside, outside] = [Session::new(), Session::new()];
    let inside = prompt(&agent, &inside).run().with_session(&inside);
    let (inside, outside) = futures::join!(inside, prompt(&agent, &outside).run());

    inside.unwrap();
    let refused = outside.unwrap_err().to_string();
    assert!(refused.contains("the run is in no session"), "{refused}");
    assert_none_in_another_session(&gateway, 1);
}

/// Why a shared agent needs more: whichever run of an agent is polled serves the requests of all
/// its runs, so the ambient session is that run's. Here the second run waits for the first.
#[tokio::test]
async fn the_ambient_session_of_one_run_reaches_the_others_of_its_agent() {
    let gateway = Gateway::start().unwrap();
    let one_by_one = ServingPolicy {
        serial_per_handler: true,
        ..ServingPolicy::default()
    };
    let agent = AgentBuilder::new(openai(&gateway, client()).chat(MODEL))
        .configure_bus(one_by_one)
        .build();
    let [first, second] = [Session::new(), Session::new()];
    let runs = [&first, &second].map(|session| agent.prompt("Hello").run().with_session(session));
    for answer in join_all(runs).await {
        answer.unwrap();
    }
    assert_eq!(gateway.requests().len(), 2);
    gateway.assert_every_request_in(&first);
}
