//! Sessions in a compaction, in storage, and with a strict client.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use reqwest::Client;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession};
use reqwest_opencode_session_shapes::after::strict::{Provider, client, missing_session};
use reqwest_opencode_session_shapes::after::{compaction, resume};

use crate::support::{MODELS, both, requests_of, sole_session};

fn provider(gateway: &Gateway, model: &str) -> Provider {
    Provider {
        http: client().unwrap(),
        base_url: gateway.url("/zen/go/v1"),
        key: Gateway::KEY.to_owned(),
        model: model.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_is_a_turn_of_its_own_in_the_same_session() {
    let gateway = Gateway::start().unwrap();
    let run = |model: &'static str| {
        let http = OpencodeSessionMiddleware::new().into_client(Client::builder().no_proxy());
        let (http, url) = (http.unwrap(), gateway.url("/zen/go/v1/chat/completions"));
        let conversation = move |session| compaction::Conversation {
            http: http.clone(),
            url: url.clone(),
            key: Gateway::KEY.to_owned(),
            model: model.to_owned(),
            session,
            history: vec![],
        };
        async move {
            let session = Session::new();
            for session in [session.clone(), session.subagent()] {
                let mut conversation = conversation(session);
                for prompt in ["Hello", "More, please.", "And more."] {
                    conversation.prompt(prompt).await?;
                }
            }
            Ok(())
        }
    };
    both(run).await.unwrap();
    for model in MODELS {
        let (subagent, own): (Vec<_>, Vec<_>) = requests_of(&gateway, model)
            .into_iter()
            .partition(|request| request.parent.is_some());
        assert_eq!(subagent[0].parent, Some(sole_session(&own)));
        for requests in [own, subagent] {
            sole_session(&requests);
            let mut turns: Vec<_> = requests.iter().map(|request| &request.turn).collect();
            turns.sort();
            turns.dedup();
            // Three prompts, and a compaction before the third.
            assert_eq!((requests.len(), turns.len()), (4, 4));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_conversations_are_resumed_in_their_sessions() {
    let gateway = Arc::new(Gateway::start().unwrap());
    let run = |model: &'static str| {
        let gateway = gateway.clone();
        async move {
            let session = Session::new();
            let subagent = session.subagent();
            for (session, name) in [(&session, "conversation"), (&subagent, "subagent")] {
                let file = format!("{}/{model}-{name}.json", env!("CARGO_TARGET_TMPDIR"));
                let file = Path::new(&file);
                let (session, history) = (session.clone(), vec![]);
                resume::Conversation { session, history }.store(file)?;

                // The next process has its own client.
                let provider = provider(&gateway, model);
                let resumed = resume::Conversation::resume(file)?;
                let title = provider.clone().ask("A title.");
                let answer = provider.ask("Hello");
                async {
                    let title = tokio::spawn(title.with_current_session());
                    answer.await?;
                    title.await?
                }
                .with_session(resumed.session.turn())
                .await?;
                fs::remove_file(file)?;
            }
            let id = session.id().as_str();
            assert_eq!(resume::session(id, None)?, session);
            let (id, parent) = (subagent.id().as_str(), subagent.parent());
            assert_eq!(resume::session(id, parent.map(AsRef::as_ref))?, subagent);
            Ok(())
        }
    };
    both(run).await.unwrap();
    let sessions = MODELS.map(|model| {
        let (subagent, own): (Vec<_>, Vec<_>) = requests_of(&gateway, model)
            .into_iter()
            .partition(|request| request.parent.is_some());
        assert_eq!((own.len(), subagent.len()), (2, 2));
        assert_eq!(subagent[0].parent, Some(sole_session(&own)));
        sole_session(&own)
    });
    assert_ne!(sessions[0], sessions[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strictness_names_the_call_without_a_session_and_lets_the_list_of_models_pass() {
    let gateway = Gateway::start().unwrap();
    let provider = |model| provider(&gateway, model);
    provider(MODELS[0]).models().await.unwrap();
    gateway.assert_every_request_in(&Session::process());
    gateway.take_requests();

    let run = |model: &'static str| {
        let provider = provider(model);
        let conversation = async move {
            let title = provider.clone().ask("A title.");
            let alone = tokio::spawn(title).await?;
            let error = alone.expect_err("nothing gave it a session");
            let url = missing_session(&error).expect("that is the error").url();
            assert!(url.ends_with("/zen/go/v1/chat/completions"), "{url}");

            let title = provider.clone().ask("A title.");
            let title = tokio::spawn(title.with_current_session());
            let answer = provider.clone().ask("Hello");
            answer.await?;
            title.await??;

            let subagent = Session::current().map(|session| session.subagent());
            let research = provider.ask("Find out.");
            research.with_session(subagent).await?;
            Ok(())
        };
        conversation.with_session(Session::new())
    };
    both(run).await.unwrap();
    let sessions = MODELS.map(|model| {
        let (subagent, own): (Vec<_>, Vec<_>) = requests_of(&gateway, model)
            .into_iter()
            .partition(|request| request.parent.is_some());
        assert_eq!((own.len(), subagent.len()), (2, 1));
        assert_eq!(subagent[0].parent, Some(sole_session(&own)));
        sole_session(&own)
    });
    assert_ne!(sessions[0], sessions[1]);
}
