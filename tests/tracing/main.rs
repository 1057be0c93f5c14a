//! What the feature `tracing` reports, and what it does not.
//!
//! An executable of its own, because `tracing` caches for the whole process whether anyone listens
//! to an event.

#[path = "../all/stack.rs"]
#[allow(dead_code, reason = "redirects are tested elsewhere")]
mod stack;
#[path = "../all/support.rs"]
#[allow(dead_code, reason = "not every helper is needed here")]
mod support;

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{
    Fallback, OpencodeSessionMiddleware, Session, SessionId, WithSession, header,
};
use task_local_extensions::{Extensions, with_extensions};
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::support::{CHAT, Elsewhere, chat, client_with, middleware_for};

/// The middleware's events on this thread.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<Told>>>);

/// One event: its level, and its fields as text.
#[derive(Debug, Clone)]
struct Told {
    level: Level,
    fields: Vec<(&'static str, String)>,
}

/// Only one test at a time listens.
static LISTENING: Mutex<()> = Mutex::new(());

impl Events {
    fn listen() -> (Self, (DefaultGuard, MutexGuard<'static, ()>)) {
        let alone = LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
        let events = Self::default();
        let subscriber = registry().with(events.clone());
        (
            events,
            (tracing::subscriber::set_default(subscriber), alone),
        )
    }

    /// Where the sessions came from, in the order of the requests.
    fn sources(&self) -> Vec<String> {
        self.at(Level::DEBUG)
            .iter()
            .map(|event| event.field("session_from"))
            .collect()
    }

    fn at(&self, level: Level) -> Vec<Told> {
        let mut events = self.0.lock().unwrap().clone();
        events.retain(|event| event.level == level);
        events
    }
}

impl Told {
    fn field(&self, name: &str) -> String {
        let (_, value) = self.fields.iter().find(|field| field.0 == name).unwrap();
        value.clone()
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event
            .metadata()
            .target()
            .starts_with("reqwest_opencode_session")
        {
            let level = *event.metadata().level();
            let mut told = Told {
                level,
                fields: vec![],
            };
            event.record(&mut told);
            self.0.lock().unwrap().push(told);
        }
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name(), value.to_owned()));
    }
}

#[tokio::test]
async fn each_request_to_a_target_tells_where_its_session_came_from() {
    let gateway = Gateway::start().unwrap();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let call = || chat(&client, &gateway);
    let (events, _listening) = Events::listen();

    let of_header = call().header(header::SESSION, "its-own");
    of_header.send().await.unwrap();
    let of_extensions = call().with_extension(Session::new());
    of_extensions.send().await.unwrap();
    let of_extensions = call().with_extension(SessionId::new());
    of_extensions.send().await.unwrap();
    call().send().with_session(Session::new()).await.unwrap();
    let mut items = Extensions::new();
    items.insert(Session::new());
    with_extensions(items, call().send()).await.1.unwrap();
    let mut items = Extensions::new();
    items.insert(SessionId::new());
    with_extensions(items, call().send()).await.1.unwrap();
    let of_another_header = call().header("session_id", "its-own");
    of_another_header.send().await.unwrap();
    call().send().await.unwrap();
    let source = || Some(Session::new());
    let asking = middleware_for(&gateway)
        .session_from(source)
        .build()
        .unwrap();
    let bound = asking.bound_to(Session::new());
    for middleware in [asking, bound] {
        let client = client_with(middleware);
        chat(&client, &gateway).send().await.unwrap();
    }

    let expected = [
        "header",
        "extensions",
        "extensions",
        "scope",
        "task-local",
        "task-local",
        "other-header",
        "fallback",
        "session-from",
        "bound",
    ];
    assert_eq!(events.sources(), expected);
    for event in events.at(Level::DEBUG) {
        assert_eq!(event.field("host"), "127.0.0.1");
    }
}

#[tokio::test]
async fn each_fallback_tells_what_it_does() {
    let gateway = Gateway::start().unwrap();
    let (events, _listening) = Events::listen();
    for (fallback, source, level) in [
        (
            Fallback::Session(Session::new()),
            "fallback",
            Some(Level::INFO),
        ),
        (Fallback::Process, "fallback", Some(Level::INFO)),
        (Fallback::Omit, "nothing", Some(Level::WARN)),
        // The error says so itself.
        (Fallback::Reject, "nothing", None),
    ] {
        events.0.lock().unwrap().clear();
        let reject = fallback == Fallback::Reject;
        let client = client_with(middleware_for(&gateway).fallback(fallback).build().unwrap());
        assert_eq!(chat(&client, &gateway).send().await.is_err(), reject);
        assert_eq!(events.sources(), [source]);
        for told in [Level::INFO, Level::WARN] {
            assert_eq!(events.at(told).len(), usize::from(level == Some(told)));
        }
    }
}

#[tokio::test]
async fn the_first_fallback_of_a_middleware_and_its_clones_is_told() {
    let gateway = Gateway::start().unwrap();
    let middleware = middleware_for(&gateway).build().unwrap();
    let clients = [client_with(middleware.clone()), client_with(middleware)];
    let (events, _listening) = Events::listen();

    let in_session = chat(&clients[0], &gateway).with_extension(Session::new());
    in_session.send().await.unwrap();
    assert!(events.at(Level::INFO).is_empty());
    for client in clients.iter().chain(&clients) {
        chat(client, &gateway).send().await.unwrap();
    }
    assert_eq!(events.at(Level::INFO).len(), 1);
    assert_eq!(events.at(Level::DEBUG).len(), 5);

    let another = client_with(middleware_for(&gateway).build().unwrap());
    chat(&another, &gateway).send().await.unwrap();
    assert_eq!(events.at(Level::INFO).len(), 2);
}

#[tokio::test]
async fn all_that_new_makes_are_one_middleware_and_its_clones() {
    let gateway = Gateway::start().unwrap();
    let (events, _listening) = Events::listen();
    for _ in 0..2 {
        let client = client_with(OpencodeSessionMiddleware::new());
        chat(&client, &gateway).send().await.unwrap();
    }
    assert_eq!(events.at(Level::DEBUG).len(), 2);
    assert_eq!(events.at(Level::INFO).len(), 1);
}

#[tokio::test]
async fn other_hosts_are_not_spoken_of() {
    let elsewhere = Elsewhere::quiet().await;
    let gateway = Gateway::start().unwrap();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let (events, _listening) = Events::listen();
    let url = format!("http://{}", elsewhere.address);
    client.get(&url).send().await.unwrap();
    assert_eq!(elsewhere.requests().len(), 1);
    assert!(events.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn no_event_holds_a_key_or_a_session() {
    let gateway = Gateway::start().unwrap();
    let middleware = middleware_for(&gateway).build().unwrap();
    let own = Session::process().id().to_string();
    let client = client_with(middleware);
    let (events, _listening) = Events::listen();

    let url = gateway.url(CHAT).replace("//", "//user:password@") + "?key=secret";
    client.post(&url).send().await.unwrap();
    let call = chat(&client, &gateway).header(header::SESSION, "its-own");
    call.send().await.unwrap();

    let told = format!("{:?}", events.0.lock().unwrap());
    assert_eq!(events.sources(), ["fallback", "header"]);
    for secret in [Gateway::KEY, "password", "secret", "its-own", &own] {
        assert!(!told.contains(secret), "{secret} is in {told}");
    }
}
