//! What both benches measure: whole requests, and the parts that ours is made of.

use std::fmt;
use std::future::{pending, ready};
use std::hint::black_box;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use http::{Extensions, HeaderMap, HeaderValue, Method};
use reqwest::{Client, Request, Response, Url};
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next, Result};
use reqwest_opencode_session::{
    OpencodeSessionMiddleware, Session, SessionId, WithSession, header,
};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use reqwest_tracing::TracingMiddleware;
use task_local_extensions::with_extensions;

const ID: &str = "01a20360-f6d2-7083-9a19-5a139a403ac6";

pub const BARE: &str = "no middleware";
pub const BY_HAND: &str = "header inserted by hand";
pub const EMPTY: &str = "empty async_trait middleware";
pub const TEN_LINES: &str = "ten-line async_trait middleware";
pub const RETRY: &str = "reqwest-retry";
pub const TRACING: &str = "reqwest-tracing, no subscriber";
pub const EXISTING: &str = "ours: header already there";
pub const EXTENSIONS: &str = "ours: extensions";
pub const SCOPE: &str = "ours: scope";
pub const OWN_SCOPE: &str = "ours: scope around this call alone";
pub const TASK_LOCAL: &str = "ours: the application's task-local";
pub const FALLBACK: &str = "ours: fallback";
pub const LATE_FALLBACK: &str = "ours: fallback, after a scope on the thread";
pub const EVERYTHING: &str = "ours: turn, parent, client, project";
pub const NO_TARGET: [(&str, usize); 3] = [
    ("ours: no target of 1", 1),
    ("ours: no target of 10", 10),
    ("ours: no target of 100", 100),
];

/// One way to send a request, through a client that answers by itself.
pub struct Case {
    pub name: &'static str,
    source: Source,
    url: Url,
    client: ClientWithMiddleware,
    session: Session,
    value: HeaderValue,
}

/// Where the request's session comes from.
#[derive(PartialEq)]
enum Source {
    /// The middleware, if at all.
    Middleware,
    /// The caller, who inserts the header.
    Header,
    /// The request's extensions.
    Extensions,
    /// The same, with a turn and a parent.
    SubagentsTurn,
    /// A scope that was entered long before.
    Scope,
    /// A scope around this one request.
    OwnScope,
    /// The middleware, on a thread that held a scope before.
    AfterScope,
    /// The application's own `task_local_extensions`.
    TaskLocal,
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case(BARE, Source::Middleware, []),
        case(BY_HAND, Source::Header, []),
        case(EMPTY, Source::Middleware, [Arc::new(Empty)]),
        case(TEN_LINES, Source::Middleware, [ten_lines()]),
        case(RETRY, Source::Middleware, [retry()]),
        case(TRACING, Source::Middleware, [tracing()]),
        case(EXISTING, Source::Header, [ours()]),
        case(EXTENSIONS, Source::Extensions, [ours()]),
        case(SCOPE, Source::Scope, [ours()]),
        case(OWN_SCOPE, Source::OwnScope, [ours()]),
        case(TASK_LOCAL, Source::TaskLocal, [ours()]),
        case(FALLBACK, Source::Middleware, [ours()]),
        case(LATE_FALLBACK, Source::AfterScope, [ours()]),
        case(EVERYTHING, Source::SubagentsTurn, [ours_with_names()]),
    ];
    cases.extend(NO_TARGET.map(|(name, targets)| Case {
        url: "https://api.example.com/v1/messages".parse().unwrap(),
        ..case(name, Source::Middleware, [ours_with_targets(targets)])
    }));
    cases
}

fn case<const N: usize>(
    name: &'static str,
    source: Source,
    chain: [Arc<dyn Middleware>; N],
) -> Case {
    let mut chain = Vec::from(chain);
    chain.push(Arc::new(Canned));
    Case {
        name,
        source,
        url: "https://opencode.ai/zen/go/v1/messages".parse().unwrap(),
        client: ClientWithMiddleware::new(Client::new(), chain),
        session: Session::from(ID.parse::<SessionId>().unwrap()),
        value: value(),
    }
}

/// A header's value that is ready for use: its clones share its bytes.
fn value() -> HeaderValue {
    let value = HeaderValue::from_str(ID).unwrap();
    drop(value.clone());
    value
}

fn ten_lines() -> Arc<dyn Middleware> {
    Arc::new(TenLines(value()))
}

fn retry() -> Arc<dyn Middleware> {
    let policy = ExponentialBackoff::builder().build_with_max_retries(3);
    Arc::new(RetryTransientMiddleware::new_with_policy(policy))
}

fn tracing() -> Arc<dyn Middleware> {
    Arc::new(TracingMiddleware::default())
}

fn ours() -> Arc<dyn Middleware> {
    Arc::new(OpencodeSessionMiddleware::new())
}

fn ours_with_names() -> Arc<dyn Middleware> {
    let builder = OpencodeSessionMiddleware::builder();
    Arc::new(
        builder
            .client_name("my-agent")
            .project("my-project")
            .build()
            .unwrap(),
    )
}

fn ours_with_targets(count: usize) -> Arc<dyn Middleware> {
    let targets = (0..count).map(|n| format!("https://gateway-{n}.example").parse().unwrap());
    let builder = OpencodeSessionMiddleware::builder();
    Arc::new(builder.targets(targets).build().unwrap())
}

impl Case {
    /// A request and its extensions, as the caller makes them.
    pub fn input(&self) -> (Request, Extensions) {
        let mut request = Request::new(Method::POST, self.url.clone());
        *request.body_mut() = Some(r#"{"model":"glm-5.2"}"#.to_owned().into());
        let mut extensions = Extensions::new();
        match self.source {
            Source::Extensions => drop(extensions.insert(self.session.clone())),
            Source::SubagentsTurn => drop(extensions.insert(self.session.subagent().turn())),
            _ => {}
        }
        (request, extensions)
    }

    /// What is measured. It returns all that there is to drop.
    pub fn send(
        &self,
        (mut request, mut extensions): (Request, Extensions),
    ) -> (Response, Extensions) {
        if self.source == Source::Header {
            request
                .headers_mut()
                .insert("x-opencode-session", self.value.clone());
        }
        let call = self
            .client
            .execute_with_extensions(request, &mut extensions);
        let response = if self.source == Source::OwnScope {
            call.with_session(self.session.clone()).now_or_never()
        } else {
            call.now_or_never()
        };
        (
            response.expect("nothing waits").expect("nothing fails"),
            extensions,
        )
    }

    /// Runs `requests` where this case's requests are sent from.
    pub fn around<T>(&self, requests: impl FnOnce() -> T) -> T {
        let session = self.session.clone();
        match self.source {
            Source::Scope => async { requests() }
                .with_session(session)
                .now_or_never()
                .unwrap(),
            Source::AfterScope => {
                ready(()).with_session(session).now_or_never().unwrap();
                requests()
            }
            Source::TaskLocal => {
                let items = task_local_extensions::Extensions::new().with(session);
                let requests = with_extensions(items, async { requests() });
                requests.now_or_never().unwrap().1
            }
            _ => requests(),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

struct Empty;

#[async_trait]
impl Middleware for Empty {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        next.run(request, extensions).await
    }
}

/// What anyone would write who knows neither this crate nor its rules.
struct TenLines(HeaderValue);

#[async_trait]
impl Middleware for TenLines {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        if request.url().host_str() == Some("opencode.ai") {
            request
                .headers_mut()
                .insert("x-opencode-session", self.0.clone());
        }
        next.run(request, extensions).await
    }
}

/// The end of every chain.
struct Canned;

#[async_trait]
impl Middleware for Canned {
    async fn handle(&self, _: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        Ok(http::Response::new("").into())
    }
}

pub const GROWTH: &str = "first insert into a HeaderMap";
pub const POLL: &str = "one poll in a scope";

/// A part's name, and what makes a run of it.
pub type Part = (&'static str, fn() -> Box<dyn FnMut()>);

pub const PARTS: [Part; 6] = [
    (GROWTH, || {
        let value = value();
        Box::new(move || {
            HeaderMap::new().insert(header::SESSION, black_box(&value).clone());
        })
    }),
    ("SessionId::new", || {
        Box::new(|| drop(black_box(SessionId::new())))
    }),
    ("SessionId::derive", || {
        Box::new(|| drop(SessionId::derive("my-agent", black_box("notes"))))
    }),
    ("SessionId from a string", || {
        Box::new(|| drop(black_box(ID).parse::<SessionId>()))
    }),
    (POLL, || {
        let mut scope = Box::pin(pending::<()>().with_session(Session::new()));
        Box::new(move || assert!(scope.as_mut().now_or_never().is_none()))
    }),
    ("one poll in with_extensions", || {
        let items = task_local_extensions::Extensions::new().with(Session::new());
        let mut scope = Box::pin(with_extensions(items, pending::<()>()));
        Box::new(move || assert!(scope.as_mut().now_or_never().is_none()))
    }),
];
