//! One client for several gateways.

use reqwest_opencode_session::testing::{Gateway, SeenRequest};
use reqwest_opencode_session::{Session, header};
use reqwest_opencode_session_shapes::after::several_gateways::{Provider, answer, client};

use crate::support::both;

fn provider(name: &str, gateway: &Gateway) -> Provider {
    Provider {
        name: name.to_owned(),
        url: gateway.url("/zen/go/v1/chat/completions"),
        key: Gateway::KEY.to_owned(),
    }
}

/// The session of a request, in the header of OpenCode and in that of OpenRouter.
fn named(request: &SeenRequest) -> [Option<&str>; 2] {
    [header::SESSION.as_str(), "x-session-id"]
        .map(|name| request.headers.get(name).map(|id| id.to_str().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_gateway_sees_ids_of_its_own_in_its_own_header() {
    let opencode = Gateway::start().unwrap();
    // It plays a gateway that is not OpenCode, so it must not be a target unless it is named.
    let openrouter = Gateway::builder().implicit_target(false).start().unwrap();
    let http = client(&openrouter.url("")).unwrap();
    let run = |_| {
        let http = http.clone();
        let providers = [
            provider("opencode", &opencode),
            provider("openrouter", &openrouter),
        ];
        async move {
            let session = Session::new();
            for provider in providers {
                let (title, turn, to) = (http.clone(), session.turn(), provider.clone());
                let title = async move { answer(&title, &to, &turn, "a secret", "Title").await };
                let title = tokio::spawn(title);
                for session in [session.turn(), session.subagent()] {
                    answer(&http, &provider, &session, "a secret", "Hello").await?;
                }
                title.await??;
            }
            Ok(())
        }
    };
    both(run).await.unwrap();

    let (mut at_opencode, mut at_openrouter) = (vec![], vec![]);
    for request in opencode.requests() {
        let [session, other] = named(&request);
        assert_eq!(other, None);
        at_opencode.push(session.unwrap().to_owned());
    }
    for request in openrouter.requests() {
        let [session, other] = named(&request);
        assert_eq!(session, None);
        assert_eq!((&request.turn, &request.parent), (&None, &None));
        at_openrouter.push(other.unwrap().to_owned());
    }
    for ids in [&mut at_opencode, &mut at_openrouter] {
        assert_eq!(ids.len(), 6);
        ids.sort();
        ids.dedup();
        // Two conversations, and a subagent of each
        assert_eq!(ids.len(), 4);
    }
    assert!(at_opencode.iter().all(|id| !at_openrouter.contains(id)));
}
