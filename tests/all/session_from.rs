//! The application's own idea of the current session: when it is asked, and what is remembered.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};

use http::{Extensions, HeaderMap, StatusCode, Uri};
use reqwest_opencode_session::testing::{Failure, Gateway};
use reqwest_opencode_session::{
    Applied, ExistingHeader, Fallback, OpencodeSessionMiddleware, Session, SessionId, Source,
    WithSession,
};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::stack::reqwest::{Request, Response};
use crate::stack::reqwest_middleware::{
    ClientBuilder, ClientWithMiddleware, Middleware, Next, Result,
};
use crate::support::{
    assert_carries, chat, client_with, middleware_for, plain_client, retries, start, start_stranger,
};

const URL: &str = "https://opencode.ai/zen/v1/messages";

/// An application that is in a new turn each time it is asked.
#[derive(Clone, Default)]
struct Application {
    asked: Arc<AtomicUsize>,
}

impl Application {
    fn session(number: usize) -> Session {
        let id: SessionId = format!("session-{number}").parse().unwrap();
        Session::from(id).turn()
    }

    fn source(&self) -> impl Fn() -> Option<Session> + Send + Sync + 'static {
        let asked = Arc::clone(&self.asked);
        move || Some(Self::session(asked.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn times_asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

// Asked once, and only if nothing else names a session

#[tokio::test]
async fn every_attempt_keeps_the_session_though_the_application_moves_on() {
    let gateway = start();
    for existing in [ExistingHeader::Keep, ExistingHeader::Replace] {
        let application = Application::default();
        let middleware = middleware_for(&gateway)
            .session_from(application.source())
            .existing_header(existing)
            .build()
            .unwrap();
        let client = || ClientBuilder::new(plain_client());
        let clients = [
            client().with(middleware.clone()).with(retries(2)),
            client().with(retries(2)).with(middleware.clone()),
            client()
                .with(middleware.clone())
                .with(retries(2))
                .with(middleware),
        ];
        for (number, client) in clients.into_iter().enumerate() {
            gateway.take_requests();
            gateway.fail_next(2, Failure::Status(StatusCode::SERVICE_UNAVAILABLE));
            let response = chat(&client.build(), &gateway).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let requests = gateway.requests();
            assert_eq!(requests.len(), 3);
            assert_eq!(requests[0].session, Some(format!("session-{}", number + 1)));
            for attempt in &requests[1..] {
                assert_eq!(attempt.headers, requests[0].headers);
            }
            assert_eq!(application.times_asked(), number + 1, "it was asked again");
        }
    }
}

#[test]
fn the_source_is_not_asked_where_the_request_is_not_for_a_target_or_has_a_session() {
    let application = Application::default();
    let middleware = OpencodeSessionMiddleware::builder().session_from(application.source());
    let middleware = middleware.build().unwrap();
    let [target, stranger] = [URL, "https://example.com/"].map(Uri::from_static);
    assert!(middleware.headers_for(&stranger).unwrap().is_empty());
    Session::new().in_scope(|| middleware.headers_for(&target).unwrap());
    let bound = middleware.bound_to(Session::new());
    bound.headers_for(&target).unwrap();
    assert_eq!(Session::current(), None);
    assert_eq!(application.times_asked(), 0);
    middleware.headers_for(&target).unwrap();
    assert_eq!(application.times_asked(), 1);
}

#[test]
fn where_the_source_has_no_session_the_fallback_decides() {
    let url = Uri::from_static(URL);
    let builder = || OpencodeSessionMiddleware::builder().session_from(|| None);
    let middleware = builder().build().unwrap();
    let headers = middleware.headers_for(&url).unwrap();
    assert_eq!(headers, Session::process().headers());
    let middleware = builder().fallback(Fallback::Reject).build().unwrap();
    middleware.headers_for(&url).unwrap_err();
}

#[test]
fn what_is_remembered_has_the_rank_of_the_source() {
    let application = Application::default();
    let middleware = OpencodeSessionMiddleware::builder()
        .session_from(application.source())
        .existing_header(ExistingHeader::Replace)
        .build()
        .unwrap();
    let (url, mut headers, mut extensions) =
        (Uri::from_static(URL), HeaderMap::new(), Extensions::new());
    let mut apply = |middleware: &OpencodeSessionMiddleware| {
        let applied = middleware.apply_parts(&url, &mut headers, &mut extensions);
        match applied.unwrap() {
            Applied::Session(source) => source,
            applied => panic!("{applied:?}"),
        }
    };
    assert_eq!(apply(&middleware), Source::SessionFrom);
    let ambient = Session::new();
    assert_eq!(ambient.in_scope(|| apply(&middleware)), Source::Scope);
    let bound = middleware.bound_to(Session::new());
    assert_eq!(apply(&bound), Source::Bound);
    assert_eq!(apply(&middleware), Source::SessionFrom);
    assert_eq!(headers["x-opencode-session"], "session-1");
    assert_eq!(application.times_asked(), 1);
}

#[tokio::test]
async fn two_middlewares_on_one_chain_each_remember_their_own_sources_answer() {
    let (one, two) = (start_stranger(), start_stranger());
    let sources = [Application::default(), Application::default()];
    // They share a chain, below a failover between two gateways.
    let middleware = |gateway: &Gateway, name: &'static str, application: &Application| {
        let source = application.source();
        let session = move || Some(source()?.derived(name));
        middleware_for(gateway)
            .session_from(session)
            .build()
            .unwrap()
    };
    let [of_one, of_two] = [
        middleware(&one, "one", &sources[0]),
        middleware(&two, "two", &sources[1]),
    ];
    let client = ClientBuilder::new(plain_client())
        .with(of_one)
        .with(of_two)
        .build();
    let mut extensions = Extensions::new();
    for gateway in [&one, &two, &one, &two] {
        let request = chat(&client, gateway).build().unwrap();
        client
            .execute_with_extensions(request, &mut extensions)
            .await
            .unwrap();
    }
    for (gateway, application, name) in [(&one, &sources[0], "one"), (&two, &sources[1], "two")] {
        gateway.assert_every_request_in(&Application::session(1).derived(name));
        assert_eq!(gateway.requests().len(), 2);
        assert_eq!(application.times_asked(), 1);
    }
}

#[test]
fn a_source_that_had_no_session_is_asked_again_by_the_next_attempt() {
    let asked = AtomicUsize::default();
    let middleware = OpencodeSessionMiddleware::builder().session_from(move || {
        let before = asked.fetch_add(1, Ordering::Relaxed);
        (before > 0).then(|| Application::session(before))
    });
    let middleware = middleware.fallback(Fallback::Omit).build().unwrap();
    let (url, mut extensions) = (Uri::from_static(URL), Extensions::new());
    let mut attempt = || {
        let mut headers = HeaderMap::new();
        middleware
            .apply_parts(&url, &mut headers, &mut extensions)
            .unwrap()
    };
    assert_eq!(attempt(), Applied::NoSession);
    assert_eq!(attempt(), Applied::Session(Source::SessionFrom));
}

// While it runs

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_sends_a_request_is_not_asked_for_that_one() {
    let gateway = Arc::new(start());
    let client = Arc::<OnceLock<ClientWithMiddleware>>::default();
    let asked = Application::default();
    let source = {
        let (gateway, client) = (Arc::clone(&gateway), Arc::clone(&client));
        let source = asked.source();
        move || {
            let session = source();
            block_in_place(|| {
                // For example, a source that looks its session up.
                let request = chat(client.get().unwrap(), &gateway);
                Handle::current().block_on(request.send()).unwrap();
            });
            session
        }
    };
    let middleware = middleware_for(&gateway)
        .session_from(source)
        .build()
        .unwrap();
    let client = client.get_or_init(|| client_with(middleware));
    // Spawned, so that each call runs on a worker thread.
    for number in [1, 2] {
        let task = tokio::spawn(chat(client, &gateway).send());
        task.await.unwrap().unwrap();
        assert_eq!(asked.times_asked(), number);
        let requests = gateway.take_requests();
        assert_eq!(requests.len(), 2);
        assert_carries(&requests[0], &Session::process());
        assert_eq!(requests[1].session, Some(format!("session-{number}")));
    }
}

#[test]
fn a_source_that_panics_is_asked_again_by_the_next_request() {
    let application = Application::default();
    let source = application.source();
    let middleware = OpencodeSessionMiddleware::builder().session_from(move || {
        let session = source()?;
        if *session.id() == "session-1" {
            resume_unwind(Box::new("on purpose"));
        }
        Some(session)
    });
    let middleware = middleware.build().unwrap();
    let mut request = http::Request::post(URL).extension(7_u32).body(()).unwrap();
    catch_unwind(AssertUnwindSafe(|| middleware.apply(&mut request))).unwrap_err();
    // The request is intact.
    assert_eq!(request.extensions().get(), Some(&7_u32));
    middleware.apply(&mut request).unwrap();
    assert_eq!(request.headers()["x-opencode-session"], "session-2");
}

#[test]
fn nothing_is_locked_or_borrowed_while_the_source_runs() {
    let middleware = OpencodeSessionMiddleware::builder().session_from(|| {
        let session = Session::new();
        assert_eq!(Session::current(), None);
        assert_eq!(session.in_scope(Session::current), Some(session.clone()));
        drop(Gateway::start().unwrap());
        let url = Uri::from_static(URL);
        let inner = OpencodeSessionMiddleware::new().bound_to(&session);
        assert_eq!(inner.headers_for(&url).unwrap(), session.headers());
        Some(session)
    });
    let middleware = middleware.build().unwrap();
    assert!(middleware.is_target(&Uri::from_static(URL)));
    middleware.headers_for(&Uri::from_static(URL)).unwrap();
}

// What a request's extensions contain

/// Reports how many items a request's extensions contain when it is sent.
struct Items(mpsc::Sender<usize>);

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
async fn nothing_but_the_sources_answer_is_stored_in_a_requests_extensions() {
    let gateway = start();
    let builder = || middleware_for(&gateway);
    for (builder, expected) in [
        (builder(), 0),
        (builder().fallback(Fallback::Session(Session::new())), 0),
        (builder().fallback(Fallback::Omit), 0),
        (builder().session_from(|| None), 0),
        (builder().session_from(|| Some(Session::new())), 1),
    ] {
        let middleware = builder.build().unwrap();
        let (sender, items) = mpsc::channel();
        let client = ClientBuilder::new(plain_client())
            .with(middleware.clone())
            .with(middleware)
            .with(Items(sender))
            .build();
        chat(&client, &gateway).send().await.unwrap();
        assert_eq!(items.recv().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_scopes_session_is_not_stored_for_the_sources_answer() {
    let gateway = start();
    let middleware = middleware_for(&gateway).session_from(|| Some(Session::new()));
    let (sender, items) = mpsc::channel();
    let client = ClientBuilder::new(plain_client())
        .with(middleware.build().unwrap())
        .with(Items(sender))
        .build();
    let call = chat(&client, &gateway).send();
    call.with_session(Session::new()).await.unwrap();
    assert_eq!(items.recv().unwrap(), 0);
}

#[tokio::test]
async fn a_middleware_that_stands_twice_on_the_chain_changes_nothing() {
    let gateway = start();
    for session in [None, Some(Session::new().turn())] {
        for existing in [ExistingHeader::Keep, ExistingHeader::Replace] {
            gateway.take_requests();
            let middleware = middleware_for(&gateway)
                .client_name("my-agent")
                .session_from({
                    let session = session.clone();
                    move || session.clone()
                })
                .existing_header(existing)
                .build()
                .unwrap();
            let once = ClientBuilder::new(plain_client())
                .with(middleware.clone())
                .build();
            let twice = ClientBuilder::from_client(once.clone())
                .with(middleware)
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
