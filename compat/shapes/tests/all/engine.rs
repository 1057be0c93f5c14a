//! An engine whose conversation changes while it lives.

use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{Session, SessionId};
use reqwest_opencode_session_shapes::{after, before};

use crate::support::{MODELS, assert_refused, both, requests_of};

/// Runs an engine for each model, at the same time, each through the same inputs.
macro_rules! run {
    ($shape:ident, $gateway:expr) => {{
        let url = $gateway.url("/zen/go/v1/chat/completions");
        both(move |model| {
            use $shape::engine::{Engine, Input, client};

            let file = |name: &str| format!("/home/user/{model}/{name}.json");
            let mut engine = Engine {
                http: client().unwrap(),
                url: url.clone(),
                key: Gateway::KEY.to_owned(),
                model: model.to_owned(),
                file: file("one"),
                history: vec![],
            };
            let inputs = vec![
                Input::Prompt("Hello"),
                Input::Prompt("Thanks"),
                Input::Open(file("two")),
                Input::Prompt("Hello"),
                Input::Delegate(file("two/research"), "Find out."),
                Input::Open(file("one")),
                Input::Prompt("Hello again"),
            ];
            async move { engine.run(inputs).await }
        })
        .await
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_in_the_conversation_that_it_has_open_and_a_subagent_names_it() {
    let gateway = Gateway::start().unwrap();
    run!(after, gateway).unwrap();
    gateway.assert_no_fallback();
    for model in MODELS {
        let requests = requests_of(&gateway, model);
        let id =
            |name: &str| SessionId::derive("my-agent", format!("/home/user/{model}/{name}.json"));
        let two = id("two");
        // The session, its parent, and the turns: two calls for each prompt.
        for (id, parent, prompts) in [
            (id("one"), None, 3),
            (two.clone(), None, 2),
            (id("two/research"), Some(&two), 1),
        ] {
            let own = |request: &&_| -> bool {
                let request: &reqwest_opencode_session::testing::SeenRequest = request;
                request.session.as_deref() == Some(id.as_str())
            };
            let own: Vec<_> = requests.iter().filter(own).collect();
            assert_eq!(own.len(), 2 * prompts, "{id}");
            let mut turns: Vec<_> = own.iter().map(|request| &request.turn).collect();
            turns.sort();
            turns.dedup();
            assert_eq!(turns.len(), prompts, "{id}");
            for request in own {
                assert_eq!(request.parent.as_deref(), parent.map(SessionId::as_str));
            }
        }
    }
    assert_eq!(Session::current(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_refused_without_sessions() {
    let gateway = Gateway::start().unwrap();
    let result = run!(before, gateway);
    assert_refused(&gateway, result);
}
