//! Which session a request gets: each rank, over the socket.

use http::StatusCode;
use reqwest_opencode_session::{
    Fallback, IntoSession, MissingSession, OpencodeSessionMiddleware, Session, SessionId,
    WithSession,
};

use crate::sources::{Given, Sources};
use crate::stack::reqwest_middleware::Error;
use crate::support::{CHAT, alone, assert_carries, chat, client_with, middleware_for, only, start};

// The ranks

/// Makes a call with these sources, and asserts that it carries the session of the first one.
async fn assert_the_first_decides(given: &[Given]) {
    let gateway = start();
    let sources = Sources(given);
    let client = client_with(sources.middleware(middleware_for(&gateway)));
    let request = chat(&client, &gateway).headers(sources.headers());
    let request = request.build().unwrap();
    let mut extensions = sources.extensions();
    let call = sources.around(client.execute_with_extensions(request, &mut extensions));
    assert_eq!(call.await.unwrap().status(), StatusCode::OK, "{given:?}");
    assert_carries(&only(&gateway), &given[0].session());
}

#[tokio::test]
async fn each_source_comes_before_all_that_stand_below_it() {
    for (rank, _) in Given::ALL.iter().enumerate() {
        assert_the_first_decides(&Given::ALL[rank..]).await;
    }
}

#[tokio::test]
async fn of_any_two_sources_the_one_above_decides() {
    for (rank, &above) in Given::ALL.iter().enumerate() {
        for &below in &Given::ALL[rank + 1..] {
            assert_the_first_decides(&[above, below]).await;
        }
    }
}

// The session that the middleware is bound to

#[tokio::test]
async fn an_ambient_turn_of_the_bound_session_is_the_turn_that_is_sent() {
    let gateway = start();
    let session = Session::new();
    let (older, newer) = (session.turn(), session.turn());
    let client = client_with(middleware_for(&gateway).build().unwrap().bound_to(&older));
    let call = chat(&client, &gateway).send();
    call.with_session(&newer).await.unwrap();
    assert_carries(&only(&gateway), &newer);
}

#[tokio::test]
async fn the_ambient_conversation_alone_does_not_take_the_bound_turn_away() {
    let gateway = start();
    let turn = Session::new().subagent().turn();
    let middleware = middleware_for(&gateway).build().unwrap();
    let client = client_with(middleware.bound_to(&turn));
    let call = chat(&client, &gateway).send();
    call.with_session(turn.id()).await.unwrap();
    assert_carries(&only(&gateway), &turn);
}

#[tokio::test]
async fn an_ambient_subagent_of_the_bound_session_is_not_what_is_sent() {
    let gateway = start();
    let session = Session::new().turn();
    let client = client_with(middleware_for(&gateway).build().unwrap().bound_to(&session));
    let call = chat(&client, &gateway).send();
    call.with_session(session.subagent().turn()).await.unwrap();
    assert_carries(&only(&gateway), &session);
}

#[tokio::test]
async fn a_turn_in_the_applications_own_items_does_not_win_over_the_bound_session() {
    let gateway = start();
    let session = Session::new();
    let client = client_with(middleware_for(&gateway).build().unwrap().bound_to(&session));
    let items = task_local_extensions::Extensions::new().with(session.turn());
    let call = chat(&client, &gateway).send();
    let (_, answer) = task_local_extensions::with_extensions(items, call).await;
    answer.unwrap();
    assert_carries(&only(&gateway), &session);
}

#[tokio::test]
async fn a_bound_client_carries_its_session_through_execute_and_on_tasks_of_an_sdk() {
    let gateway = start();
    let session = Session::new().turn();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let client = client_with(middleware.bound_to(&session));
    let request = chat(&client, &gateway).build().unwrap();
    let task = tokio::spawn(async move { client.execute(request).await });
    task.await.unwrap().unwrap();
    assert_carries(&only(&gateway), &session);
}

#[test]
fn a_middleware_is_bound_to_whatever_names_a_session() {
    fn assert_bound(session: &Session, name: impl IntoSession) {
        let bound = OpencodeSessionMiddleware::new().bound_to(name);
        let url = http::Uri::from_static("https://opencode.ai/");
        assert_eq!(bound.headers_for(&url).unwrap(), session.headers());
    }

    let turn = Session::new().turn();
    let session = Session::from(turn.id());
    assert_bound(&turn, turn.clone());
    assert_bound(&turn, &turn);
    assert_bound(&turn, Some(turn.clone()));
    assert_bound(&turn, Some(&turn));
    assert_bound(&turn, Some(Some(&turn)));
    assert_bound(&session, turn.id().clone());
    assert_bound(&session, turn.id());
    assert_bound(&session, Some(turn.id().clone()));
    assert_bound(&session, Some(turn.id()));
}

#[tokio::test]
async fn bound_to_none_a_middleware_is_what_it_was_and_bound_again_it_is_another() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Omit)
        .build()
        .unwrap();
    let sent = |middleware: OpencodeSessionMiddleware| {
        let url: http::Uri = gateway.url(CHAT).parse().unwrap();
        middleware.headers_for(&url).unwrap()
    };
    let (one, two) = (Session::new(), Session::new());
    let bound = middleware.bound_to(&one);
    assert_eq!(sent(bound.bound_to(None::<Session>)), one.headers());
    assert_eq!(sent(bound.bound_to(&two)), two.headers());
    assert_eq!(sent(bound), one.headers());
    assert!(sent(middleware.bound_to(None::<SessionId>)).is_empty());
}

// The fallback

#[tokio::test]
async fn three_clients_of_one_process_are_in_one_session() {
    let gateway = start();
    for middleware in [
        OpencodeSessionMiddleware::new(),
        OpencodeSessionMiddleware::builder().build().unwrap(),
        middleware_for(&gateway)
            .client_name("my-agent")
            .build()
            .unwrap(),
    ] {
        let client = client_with(middleware);
        for _ in 0..2 {
            chat(&client, &gateway).send().await.unwrap();
        }
    }
    assert_eq!(gateway.requests().len(), 6);
    gateway.assert_every_request_in(&Session::process());
}

#[test]
fn threads_that_need_the_processs_session_first_and_at_once_get_the_same() {
    const NEEDED_FIRST: &str = "PROCESS_SESSION_NEEDED_FIRST";
    if std::env::var_os(NEEDED_FIRST).is_none() {
        // In this process, another test may have been first.
        let test = "precedence::\
            threads_that_need_the_processs_session_first_and_at_once_get_the_same";
        let output = alone(test).env(NEEDED_FIRST, "").output().unwrap();
        let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
        return assert!(output.status.success() && ran, "{output:?}");
    }
    let together = std::sync::Barrier::new(8);
    let sessions: Vec<_> = std::thread::scope(|scope| {
        let first_need = || {
            together.wait();
            Session::process()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(first_need)).collect();
        let sessions = threads.into_iter().map(|thread| thread.join().unwrap());
        sessions.collect()
    });
    assert!(
        sessions.iter().all(|session| *session == sessions[0]),
        "{sessions:?}"
    );
    assert_eq!(sessions[0].turn_id(), None);
}

#[tokio::test]
async fn a_session_can_be_named_as_the_fallback() {
    let gateway = start();
    let session = Session::new().turn();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Session(session.clone()))
        .build()
        .unwrap();
    chat(&client_with(middleware), &gateway)
        .send()
        .await
        .unwrap();
    assert_carries(&only(&gateway), &session);
}

#[tokio::test]
async fn a_source_that_makes_a_session_makes_another_one_for_each_request() {
    let gateway = start();
    let middleware = middleware_for(&gateway).session_from(|| Some(Session::new()));
    let client = client_with(middleware.build().unwrap());
    for _ in 0..2 {
        chat(&client, &gateway).send().await.unwrap();
    }
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
    let client = client_with(middleware.clone());
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
    let uri = gateway.url("/zen/v1/models?key=secret");
    let mut request = http::Request::get(uri).body(()).unwrap();
    assert_eq!(middleware.apply(&mut request).as_ref(), Err(missing));

    // A request that has a session goes out.
    let session = Session::new();
    chat(&client, &gateway)
        .with_extension(session.clone())
        .send()
        .await
        .unwrap();
    gateway.assert_every_request_in(&session);
}
