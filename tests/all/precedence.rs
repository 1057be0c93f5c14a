//! Which session a request gets, and what else is set on it: each rule over the socket.

use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use reqwest_opencode_session::testing::{Fault, Gateway, SeenRequest};
use reqwest_opencode_session::{
    BuildError, ExistingHeader, Fallback, MissingSession, OpencodeSessionMiddleware, Session,
    SessionId, WithSession, header,
};
use task_local_extensions::with_extensions;

use crate::stack::reqwest::{self, Request, Response};
use crate::stack::reqwest_middleware::{ClientBuilder, Error, Middleware, Next, Result};
use crate::support::{Elsewhere, chat, client_with, middleware_for, plain_client, retries};

fn start() -> Gateway {
    Gateway::start().unwrap()
}

/// The only request that the gateway saw.
fn only(gateway: &Gateway) -> SeenRequest {
    let [request] = <[SeenRequest; 1]>::try_from(gateway.requests()).unwrap();
    request
}

/// The values of one header, as they came over the wire.
fn values<'a>(request: &'a SeenRequest, name: &str) -> Vec<&'a [u8]> {
    request
        .headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect()
}

// Which session

#[tokio::test]
async fn a_valid_header_on_the_request_comes_first() {
    let gateway = start();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let request = chat(&client, &gateway)
        .header(header::SESSION, "the-callers-own")
        .with_extension(Session::new())
        .send()
        .with_session(Session::new());
    request.await.unwrap();
    assert_eq!(
        values(&only(&gateway), "x-opencode-session"),
        [b"the-callers-own"]
    );
}

#[tokio::test]
async fn a_session_in_the_extensions_comes_before_the_ambient_one() {
    let gateway = start();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let session = Session::new().subagent().turn();
    let request = chat(&client, &gateway)
        .with_extension(session.clone())
        .send();
    request.with_session(Session::new().turn()).await.unwrap();

    let seen = only(&gateway);
    assert_eq!(seen.session.as_deref(), Some(session.id().as_str()));
    assert_eq!(seen.turn.as_deref(), session.request_id());
    assert_eq!(
        seen.parent.as_deref(),
        session.parent().map(SessionId::as_str)
    );
}

#[tokio::test]
async fn an_id_in_the_extensions_comes_before_the_ambient_session() {
    let gateway = start();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let id = SessionId::new();
    let request = chat(&client, &gateway).with_extension(id.clone()).send();
    request.with_session(Session::new().turn()).await.unwrap();

    let seen = only(&gateway);
    assert_eq!(seen.session.as_deref(), Some(id.as_str()));
    assert_eq!(seen.turn, None);
}

#[tokio::test]
async fn a_session_in_the_extensions_comes_before_an_id_there() {
    let gateway = start();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let session = Session::new();
    let request = chat(&client, &gateway)
        .with_extension(SessionId::new())
        .with_extension(session.clone());
    request.send().await.unwrap();
    gateway.assert_every_request_in(&session);
}

#[tokio::test]
async fn the_ambient_session_comes_before_the_applications_own_and_the_fallback() {
    let gateway = start();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let session = Session::new().turn();
    let mut items = task_local_extensions::Extensions::new();
    items.insert(Session::new());
    items.insert(SessionId::new());
    let request = chat(&client, &gateway).send().with_session(session.clone());
    with_extensions(items, request).await.1.unwrap();

    gateway.assert_every_request_in(&session);
    assert_eq!(only(&gateway).turn.as_deref(), session.request_id());
}

#[tokio::test]
async fn the_applications_own_session_comes_before_its_own_id_and_the_fallback() {
    let gateway = start();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let session = Session::new();
    let mut items = task_local_extensions::Extensions::new();
    items.insert(session.clone());
    items.insert(SessionId::new());
    with_extensions(items, chat(&client, &gateway).send())
        .await
        .1
        .unwrap();
    gateway.assert_every_request_in(&session);
}

#[tokio::test]
async fn the_applications_own_id_comes_before_the_fallback() {
    let gateway = start();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let id = SessionId::new();
    let items = task_local_extensions::Extensions::new().with(id.clone());
    with_extensions(items, chat(&client, &gateway).send())
        .await
        .1
        .unwrap();
    gateway.assert_every_request_in(&id.into());
}

#[tokio::test]
async fn the_default_fallback_is_one_session_for_all_requests_and_all_clones_of_a_plugin() {
    let gateway = start();
    let middleware = middleware_for(&gateway).build().unwrap();
    for _ in 0..2 {
        let client = client_with(middleware.clone());
        chat(&client, &gateway).send().await.unwrap();
        chat(&client, &gateway).send().await.unwrap();
    }
    assert_eq!(gateway.requests().len(), 4);
    gateway.assert_every_request_in(middleware.session().unwrap());
}

#[tokio::test]
async fn two_plugins_have_two_sessions() {
    let (one, two) = (
        OpencodeSessionMiddleware::new(),
        OpencodeSessionMiddleware::new(),
    );
    assert_ne!(one.session(), two.session());
}

#[tokio::test]
async fn a_session_can_be_named_as_the_fallback() {
    let gateway = start();
    let session = Session::new().turn();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Session(session.clone()))
        .build()
        .unwrap();
    assert_eq!(middleware.session(), Some(&session));
    chat(&client_with(middleware), &gateway)
        .send()
        .await
        .unwrap();
    gateway.assert_every_request_in(&session);
    assert_eq!(only(&gateway).turn.as_deref(), session.request_id());
}

#[tokio::test]
async fn the_fallback_per_request_makes_another_session_for_each_request() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::PerRequest)
        .build()
        .unwrap();
    assert_eq!(middleware.session(), None);
    let client = client_with(middleware);
    chat(&client, &gateway).send().await.unwrap();
    chat(&client, &gateway).send().await.unwrap();
    let requests = gateway.requests();
    gateway.assert_no_session_missing();
    assert_ne!(requests[0].session, requests[1].session);
}

#[tokio::test]
async fn the_fallback_omit_sends_no_session_and_the_gateway_refuses_the_request() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Omit)
        .build()
        .unwrap();
    let response = chat(&client_with(middleware), &gateway)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.text().await.unwrap().contains("MissingSessionID"));
    assert_eq!(only(&gateway).session, None);
}

#[tokio::test]
async fn the_fallback_reject_fails_with_a_typed_error_before_anything_is_sent() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .client_name("my-agent")
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let client = client_with(middleware);
    let url = gateway
        .url("/zen/v1/models?key=secret#part")
        .replace("//", "//user:secret@");
    let error = client.get(url).send().await.unwrap_err();

    let Error::Middleware(error) = &error else {
        panic!("{error:?}")
    };
    let missing = error.downcast_ref::<MissingSession>().unwrap();
    assert_eq!(missing.url(), gateway.url("/zen/v1/models"));
    for text in [missing.to_string(), format!("{missing:?}")] {
        assert!(!text.contains("secret") && !text.contains("user"), "{text}");
    }
    assert!(missing.to_string().contains("with_session"), "{missing}");
    assert!(gateway.requests().is_empty());

    // A request that has a session goes out.
    let session = Session::new();
    chat(&client, &gateway)
        .with_extension(session.clone())
        .send()
        .await
        .unwrap();
    gateway.assert_every_request_in(&session);
}

#[test]
fn a_rejected_request_keeps_its_headers() {
    let middleware = OpencodeSessionMiddleware::builder()
        .client_name("my-agent")
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(header::SESSION, HeaderValue::from_static("two words"));
    let before = headers.clone();
    let url: http::Uri = "https://opencode.ai/zen/v1/models".parse().unwrap();
    middleware
        .apply(&url, &mut headers, &mut Extensions::new())
        .unwrap_err();
    assert_eq!(headers, before);
}

// A header that is already there

#[tokio::test]
async fn an_existing_header_that_is_empty_malformed_or_doubled_is_replaced() {
    let gateway = start();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let long = "x".repeat(129);
    for bad in [
        &[&b""[..]][..],
        &[b" "],
        &[b"two words"],
        &["caf\u{e9}".as_bytes()],
        &[b"\xff"],
        &[b"tab\tbed"],
        &[long.as_bytes()],
        &[b"one", b"two"],
        &[b"one", b"one"],
        &[b"", b"one"],
    ] {
        gateway.forget_requests();
        let session = Session::new();
        let request = bad.iter().fold(chat(&client, &gateway), |request, value| {
            request.header(header::SESSION, *value)
        });
        let response = request
            .with_extension(session.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            values(&only(&gateway), "x-opencode-session"),
            [session.id().as_str().as_bytes()],
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn a_malformed_header_is_taken_away_where_the_session_is_omitted() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Omit)
        .build()
        .unwrap();
    let request = chat(&client_with(middleware), &gateway).header(header::SESSION, "two words");
    request.send().await.unwrap();
    assert_eq!(values(&only(&gateway), "x-opencode-session"), [b""; 0]);
}

#[tokio::test]
async fn where_the_callers_header_stays_turn_and_parent_are_left_alone_and_the_rest_is_set() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .client_name("my-agent")
        .project("my-project")
        .user_agent("my-agent/1.0")
        .build()
        .unwrap();
    let request = chat(&client_with(middleware), &gateway)
        .header(header::SESSION, "the-callers-own")
        .with_extension(Session::new().subagent().turn());
    request.send().await.unwrap();

    let seen = only(&gateway);
    assert_eq!((seen.turn, seen.parent), (None, None));
    assert_eq!(seen.client.as_deref(), Some("my-agent"));
    assert_eq!(seen.project.as_deref(), Some("my-project"));
    assert_eq!(seen.headers["user-agent"], "my-agent/1.0");
}

#[tokio::test]
async fn replace_puts_the_applications_session_in_the_place_of_the_callers_header() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .existing_header(ExistingHeader::Replace)
        .build()
        .unwrap();
    let client = client_with(middleware.clone());
    let own = || chat(&client, &gateway).header(header::SESSION, "the-callers-own");
    let session = Session::new().turn();
    own().with_extension(session.clone()).send().await.unwrap();
    own().send().await.unwrap();

    let requests = gateway.requests();
    assert_eq!(
        values(&requests[0], "x-opencode-session"),
        [session.id().as_str().as_bytes()]
    );
    assert_eq!(requests[0].turn.as_deref(), session.request_id());
    let fallback = middleware.session().unwrap().id().as_str();
    assert_eq!(
        values(&requests[1], "x-opencode-session"),
        [fallback.as_bytes()]
    );
}

#[tokio::test]
async fn replace_takes_the_callers_header_for_absent_where_nothing_gives_a_session() {
    let gateway = start();
    for (fallback, reaches) in [(Fallback::Omit, true), (Fallback::Reject, false)] {
        gateway.forget_requests();
        let middleware = middleware_for(&gateway)
            .existing_header(ExistingHeader::Replace)
            .fallback(fallback)
            .build()
            .unwrap();
        let request = chat(&client_with(middleware), &gateway).header(header::SESSION, "own");
        assert_eq!(request.send().await.is_ok(), reaches);
        assert!(
            gateway
                .requests()
                .iter()
                .all(|request| request.session.is_none())
        );
    }
}

// Default headers

#[tokio::test]
async fn a_session_pinned_in_the_default_headers_gives_way_to_the_conversations_own() {
    let gateway = start();
    let pinned = HeaderMap::from_iter([(header::SESSION, HeaderValue::from_static("pinned"))]);
    let pinned = reqwest::Client::builder()
        .no_proxy()
        .default_headers(pinned)
        .build()
        .unwrap();
    let plugin = middleware_for(&gateway).build().unwrap();
    let client = ClientBuilder::new(pinned).with(plugin).build();
    let session = Session::new();
    chat(&client, &gateway)
        .send()
        .with_session(session.clone())
        .await
        .unwrap();
    assert_eq!(
        values(&only(&gateway), "x-opencode-session"),
        [session.id().as_str().as_bytes()]
    );
}

#[tokio::test]
async fn the_plugins_user_agent_wins_over_the_clients_own() {
    let gateway = start();
    let client = reqwest::Client::builder()
        .no_proxy()
        .user_agent("the-clients/1")
        .build()
        .unwrap();
    let plugin = middleware_for(&gateway)
        .user_agent("the-plugins/1")
        .build()
        .unwrap();
    let client = ClientBuilder::new(client).with(plugin).build();
    chat(&client, &gateway).send().await.unwrap();
    assert_eq!(values(&only(&gateway), "user-agent"), [b"the-plugins/1"]);
}

// Client, project, user agent

#[tokio::test]
async fn client_project_and_user_agent_are_set_only_where_they_were_given() {
    let gateway = start();
    chat(
        &client_with(middleware_for(&gateway).build().unwrap()),
        &gateway,
    )
    .send()
    .await
    .unwrap();
    let seen = only(&gateway);
    assert_eq!((seen.client, seen.project), (None, None));
    assert!(!seen.headers.contains_key("user-agent"));
}

#[tokio::test]
async fn the_callers_own_client_project_and_user_agent_stay() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .client_name("my-agent")
        .project("my-project")
        .user_agent("my agent/1.0")
        .build()
        .unwrap();
    let request = chat(&client_with(middleware), &gateway)
        .header(header::CLIENT, "own-client")
        .header(header::PROJECT, "own-project")
        .header("user-agent", "own/1");
    request.send().await.unwrap();
    let seen = only(&gateway);
    assert_eq!(seen.client.as_deref(), Some("own-client"));
    assert_eq!(seen.project.as_deref(), Some("own-project"));
    assert_eq!(values(&seen, "user-agent"), [b"own/1"]);
}

#[tokio::test]
async fn replace_and_malformed_headers_put_the_plugins_client_and_project_in_place() {
    let gateway = start();
    for (existing, value) in [
        (ExistingHeader::Replace, "own"),
        (ExistingHeader::Keep, "two words"),
    ] {
        gateway.forget_requests();
        let middleware = middleware_for(&gateway)
            .client_name("my-agent")
            .project("my-project")
            .existing_header(existing)
            .build()
            .unwrap();
        let request = chat(&client_with(middleware), &gateway)
            .header(header::CLIENT, value)
            .header(header::PROJECT, value);
        request.send().await.unwrap();
        let seen = only(&gateway);
        assert_eq!(values(&seen, "x-opencode-client"), [b"my-agent"]);
        assert_eq!(values(&seen, "x-opencode-project"), [b"my-project"]);
    }
}

#[test]
fn the_builder_refuses_bad_values_and_says_which() {
    let builder = OpencodeSessionMiddleware::builder;
    assert_eq!(
        builder().client_name("").build().unwrap_err(),
        BuildError::Empty {
            setting: "client_name"
        }
    );
    assert_eq!(
        builder().project("/home/me\n").build().unwrap_err(),
        BuildError::IllegalCharacter {
            setting: "project",
            position: 8,
            character: '\n'
        }
    );
    assert_eq!(
        builder().user_agent("x".repeat(129)).build().unwrap_err(),
        BuildError::TooLong {
            setting: "user_agent",
            length: 129
        }
    );
    assert_eq!(
        builder().user_agent("agent/1 ").build().unwrap_err(),
        BuildError::IllegalCharacter {
            setting: "user_agent",
            position: 7,
            character: ' '
        }
    );
    assert_eq!(
        builder().targets([]).build().unwrap_err(),
        BuildError::NoTargets
    );
    // The first one that is wrong is named, and a later good one does not hide it.
    let error = builder()
        .client_name("")
        .project("")
        .client_name("fine")
        .build()
        .unwrap_err();
    assert_eq!(
        error,
        BuildError::Empty {
            setting: "client_name"
        }
    );
    assert!(
        error.to_string().contains("`client_name` is empty"),
        "{error}"
    );

    assert!(
        builder()
            .user_agent("my-agent/1.0 (Linux; x86)")
            .build()
            .is_ok()
    );
}

// Which requests

#[tokio::test]
async fn nothing_is_set_on_a_request_to_another_host_even_inside_a_session() {
    let elsewhere = Elsewhere::quiet().await;
    let middleware = OpencodeSessionMiddleware::builder()
        .client_name("my-agent")
        .project("my-project")
        .user_agent("my-agent/1.0")
        .build()
        .unwrap();
    let request = client_with(middleware)
        .post(format!("http://{}/", elsewhere.address))
        .body("Hello")
        .with_extension(Session::new())
        .send();
    request.with_session(Session::new()).await.unwrap();
    let seen = elsewhere.requests();
    assert_eq!(seen[0].opencode_headers(), [""; 0]);
    assert!(!seen[0].headers.contains_key("user-agent"));
    assert_eq!(seen[0].body, "Hello");
}

// Once is enough

/// Says how many items a request's extensions hold when it goes out.
struct Items(std::sync::mpsc::Sender<usize>);

#[async_trait::async_trait]
impl Middleware for Items {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        self.0.send(extensions.len()).unwrap();
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn only_an_id_made_for_one_request_is_stored_in_its_extensions() {
    let gateway = start();
    for (fallback, expected) in [
        (Fallback::Session(Session::new()), 0),
        (Fallback::Omit, 0),
        (Fallback::PerRequest, 1),
    ] {
        let (sender, items) = std::sync::mpsc::channel();
        let plugin = middleware_for(&gateway).fallback(fallback).build().unwrap();
        let client = ClientBuilder::new(plain_client())
            .with(plugin)
            .with(Items(sender))
            .build();
        chat(&client, &gateway).send().await.unwrap();
        assert_eq!(items.recv().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_plugin_that_stands_twice_on_the_chain_changes_nothing() {
    let gateway = start();
    for fallback in [
        Fallback::Session(Session::new().turn()),
        Fallback::PerRequest,
    ] {
        for existing in [ExistingHeader::Keep, ExistingHeader::Replace] {
            gateway.forget_requests();
            let plugin = middleware_for(&gateway)
                .client_name("my-agent")
                .fallback(fallback.clone())
                .existing_header(existing)
                .build()
                .unwrap();
            let once = ClientBuilder::new(plain_client())
                .with(plugin.clone())
                .build();
            let twice = ClientBuilder::from_client(once.clone())
                .with(plugin)
                .build();
            for client in [once, twice] {
                let request = chat(&client, &gateway).with_extension(SessionId::derive("", ""));
                request.send().await.unwrap();
            }
            let requests = gateway.requests();
            assert_eq!(requests[0].headers, requests[1].headers);
        }
    }
}

#[tokio::test]
async fn a_plugin_twice_on_the_chain_makes_one_id_per_request() {
    let gateway = start();
    for existing in [ExistingHeader::Keep, ExistingHeader::Replace] {
        gateway.forget_requests();
        let plugin = middleware_for(&gateway)
            .fallback(Fallback::PerRequest)
            .existing_header(existing)
            .build()
            .unwrap();
        let (sender, items) = std::sync::mpsc::channel();
        let client = ClientBuilder::new(plain_client())
            .with(plugin.clone())
            .with(plugin)
            .with(Items(sender))
            .build();
        chat(&client, &gateway).send().await.unwrap();
        assert_eq!(values(&only(&gateway), "x-opencode-session").len(), 1);
        assert_eq!(items.recv().unwrap(), 1);
    }
}

#[tokio::test]
async fn every_attempt_of_a_request_bears_the_same_session_on_either_side_of_a_retry() {
    let gateway = start();
    for fallback in [
        Fallback::PerRequest,
        Fallback::Session(Session::new().turn()),
    ] {
        for existing in [ExistingHeader::Keep, ExistingHeader::Replace] {
            let plugin = middleware_for(&gateway)
                .fallback(fallback.clone())
                .existing_header(existing)
                .build()
                .unwrap();
            let client = || ClientBuilder::new(plain_client());
            for client in [
                client().with(plugin.clone()).with(retries(2)).build(),
                client().with(retries(2)).with(plugin.clone()).build(),
                client()
                    .with(plugin.clone())
                    .with(retries(2))
                    .with(plugin.clone())
                    .build(),
            ] {
                gateway.forget_requests();
                gateway.fail_next(2, Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
                let response = chat(&client, &gateway).send().await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                let requests = gateway.requests();
                assert_eq!(requests.len(), 3);
                gateway.assert_no_session_missing();
                for attempt in &requests[1..] {
                    assert_eq!(attempt.headers, requests[0].headers);
                }
            }
        }
    }
}
