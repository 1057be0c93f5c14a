//! What the benches measure: requests through every entry point, and the parts of this crate.

use std::fmt;
use std::future::pending;
use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::future::MapOk;
use futures::{FutureExt, TryFutureExt};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ORIGIN,
    PRAGMA, REFERER, TE, USER_AGENT, VIA,
};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri};
use reqwest::{Client, Request, RequestBuilder, Response, Url};
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next, Result};
use reqwest_opencode_session::{
    OpencodeSessionMiddleware, RequestBuilderExt, Session, SessionId, Target, WithSession, header,
};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use reqwest_tracing::TracingMiddleware;
use task_local_extensions::with_extensions;
use tower_http::set_header::SetRequestHeader;
use tower_layer::Layer;
use tower_service::Service;

const ID: &str = "01a20360-f6d2-7083-9a19-5a139a403ac6";
/// The name of the header that is inserted by hand.
static SESSION: HeaderName = header::SESSION;

pub const TARGET: &str = "https://opencode.ai/zen/go/v1/messages";
const STAGING_TARGET: &str = "https://dev.opencode.ai/zen/go/v1/messages";
const ADDED_TARGET: &str = "https://gateway-0.example/v1/messages";
const BODY: &str = r#"{"model":"glm-5.2"}"#;
const STRANGER: &str = "https://api.example.com/v1/messages";

/// The headers that a request has before the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Headers {
    /// Those that clients send: content type, key, accepted type and user agent.
    Four,
    None,
    Twelve,
    /// Four, in a map that was cloned for a retry, and has to grow.
    FourCloned,
}

impl Headers {
    pub const ALL: [Self; 4] = [Self::Four, Self::None, Self::Twelve, Self::FourCloned];

    pub fn name(self) -> &'static str {
        match self {
            Self::Four => "four headers",
            Self::None => "no headers",
            Self::Twelve => "twelve headers",
            Self::FourCloned => "four headers, cloned",
        }
    }

    /// Inserts them one by one, as clients do.
    fn insert_into(self, headers: &mut HeaderMap) {
        const TWELVE: [(HeaderName, HeaderValue); 12] = [
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (
                AUTHORIZATION,
                HeaderValue::from_static("Bearer sk-0123456789"),
            ),
            (ACCEPT, HeaderValue::from_static("text/event-stream")),
            (USER_AGENT, HeaderValue::from_static("my-agent/1.0")),
            (ACCEPT_ENCODING, HeaderValue::from_static("gzip, br")),
            (ACCEPT_LANGUAGE, HeaderValue::from_static("en")),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (PRAGMA, HeaderValue::from_static("no-cache")),
            (ORIGIN, HeaderValue::from_static("https://example.com")),
            (REFERER, HeaderValue::from_static("https://example.com/")),
            (TE, HeaderValue::from_static("trailers")),
            (VIA, HeaderValue::from_static("1.1 proxy")),
        ];
        let count = match self {
            Self::Four | Self::FourCloned => 4,
            Self::None => 0,
            Self::Twelve => 12,
        };
        for (name, value) in TWELVE.into_iter().take(count) {
            headers.insert(name, value);
        }
        if self == Self::FourCloned {
            *headers = headers.clone();
        }
    }
}

// Requests through a chain.
pub const BARE: &str = "no middleware";
pub const BARE_IN_SCOPE: &str = "no middleware, in a scope";
pub const BY_HAND: &str = "header inserted by hand";
pub const EMPTY: &str = "empty async_trait middleware";
/// What a middleware costs at least that inserts the header.
pub const CHAIN: &[&str] = &[EMPTY, BY_HAND];
pub const TEN_LINES: &str = "ten-line async_trait middleware";
pub const RETRY: &str = "reqwest-retry";
pub const TRACING: &str = "reqwest-tracing, no subscriber";
pub const EXISTING: &str = "ours: header already there";
pub const EXTENSIONS: &str = "ours: extensions";
pub const EXTENSIONS_ID: &str = "ours: an id in the extensions";
pub const BOUND: &str = "ours: bound to a session";
pub const SCOPE: &str = "ours: scope";
pub const OWN_SCOPE: &str = "ours: scope around this call alone";
pub const TASK_LOCAL: &str = "ours: the application's task-local";
pub const SESSION_FROM: &str = "ours: session_from";
pub const FALLBACK: &str = "ours: fallback";
pub const LATE_FALLBACK: &str = "ours: fallback, after a scope on the thread";
pub const STAGING: &str = "ours: fallback, dev.opencode.ai";
pub const ADDED: &str = "ours: fallback, a target that was added";
pub const FIRST_OF_100: &str = "ours: fallback, the first of 100 targets";
pub const EVERYTHING: &str = "ours: turn, parent, client, project";
pub const NO_TARGET: [(&str, usize); 3] = [
    ("ours: no target of 1", 1),
    ("ours: no target of 10", 10),
    ("ours: no target of 100", 100),
];

// Requests through the other entry points.
pub const BUILDER: &str = "RequestBuilder, dropped";
pub const BUILDER_BY_HAND: &str = "RequestBuilder: parts, insert, builder";
pub const BUILDER_FALLBACK: &str = "ours: RequestBuilder, fallback";
pub const BUILDER_BOUND: &str = "ours: RequestBuilder, bound";
pub const HTTP: &str = "http::Request, dropped";
pub const HTTP_BY_HAND: &str = "http::Request: header inserted by hand";
pub const HTTP_FALLBACK: &str = "ours: http::Request, fallback";
pub const HTTP_EXTENSIONS: &str = "ours: http::Request, extensions";
pub const HTTP_NO_TARGET: &str = "ours: http::Request, no target";
pub const LAYER: &str = "reqwest's Service";
pub const LAYER_SET_HEADER: &str = "tower-http's SetRequestHeader over it";
pub const LAYER_FALLBACK: &str = "ours: layer over it, fallback";

/// One way to send one request.
pub struct Case {
    pub name: &'static str,
    /// The case that does everything except what is measured.
    pub base: &'static str,
    /// The cases that together set the header by hand, or come closest to that.
    pub peers: &'static [&'static str],
    place: Place,
    prepare: Box<dyn Fn() -> Call + Send + Sync>,
}

/// What is measured. It drops whatever it makes.
pub type Call = Box<dyn FnOnce()>;

/// Where a request is sent from.
#[derive(Clone, Copy)]
enum Place {
    Outside,
    /// A scope that was entered long before.
    Scope,
    /// A thread that ran a scope before.
    AfterScope,
    /// The application's own `task_local_extensions`.
    TaskLocal,
}

impl Case {
    /// Makes a request as the caller would, and returns a call that sends it.
    pub fn prepare(&self) -> Call {
        (self.prepare)()
    }

    /// Runs `requests` in the place that this case's requests are sent from.
    pub fn around<T>(&self, requests: impl FnOnce() -> T) -> T {
        match self.place {
            Place::Outside => requests(),
            Place::Scope => session().in_scope(requests),
            Place::AfterScope => {
                session().in_scope(|| ());
                requests()
            }
            Place::TaskLocal => {
                let items = task_local_extensions::Extensions::new().with(session());
                let requests = with_extensions(items, async { requests() });
                requests.now_or_never().unwrap().1
            }
        }
    }

    fn from(self, place: Place) -> Self {
        Self { place, ..self }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All cases, for a request with these headers.
pub fn cases(headers: Headers) -> Vec<Case> {
    let mut cases = through_a_chain(headers);
    cases.extend(through_a_request_builder(headers));
    cases.extend(through_an_http_request(headers));
    cases.extend(through_a_layer(headers));
    if headers == Headers::Twelve {
        // These show the cost of looking through more names.
        let shown = [BARE, BY_HAND, EMPTY, TEN_LINES, EXISTING, FALLBACK];
        cases.retain(|case| shown.contains(&case.name));
    }
    cases
}

fn case(
    name: &'static str,
    base: &'static str,
    peers: &'static [&'static str],
    prepare: impl Fn() -> Call + Send + Sync + 'static,
) -> Case {
    Case {
        name,
        base,
        peers,
        place: Place::Outside,
        prepare: Box::new(prepare),
    }
}

fn through_a_chain(headers: Headers) -> Vec<Case> {
    let ours = || -> Arc<dyn Middleware> { Arc::new(OpencodeSessionMiddleware::new()) };
    let bound = OpencodeSessionMiddleware::new().bound_to(session());
    let asking = OpencodeSessionMiddleware::builder().session_from({
        let session = session();
        move || Some(session.clone())
    });
    let named = OpencodeSessionMiddleware::builder()
        .client_name("my-agent")
        .project("my-project");
    let one_more = OpencodeSessionMiddleware::builder().target("https://gateway-0.example");

    let retries = ExponentialBackoff::builder().build_with_max_retries(3);
    let retry = RetryTransientMiddleware::new_with_policy(retries);

    let chain = |name| Chain::new(name, headers);
    let mut cases = vec![
        chain(BARE),
        chain(BARE_IN_SCOPE).from(Place::Scope),
        chain(BY_HAND).by_hand(),
        chain(EMPTY).with(Arc::new(Empty)),
        chain(TEN_LINES).with(Arc::new(TenLines(value()))),
        chain(RETRY).with(Arc::new(retry)),
        chain(TRACING).with(Arc::new(TracingMiddleware::default())),
        chain(EXISTING).with(ours()).by_hand().over(BY_HAND),
        chain(EXTENSIONS).with(ours()).extension(session()),
        chain(EXTENSIONS_ID)
            .with(ours())
            .extension(session().id().clone()),
        chain(BOUND).with(Arc::new(bound)),
        chain(SCOPE)
            .with(ours())
            .from(Place::Scope)
            .over(BARE_IN_SCOPE),
        chain(OWN_SCOPE).with(ours()).in_scope(),
        chain(TASK_LOCAL).with(ours()).from(Place::TaskLocal),
        chain(SESSION_FROM).with(Arc::new(asking.build().unwrap())),
        chain(FALLBACK).with(ours()),
        chain(LATE_FALLBACK).with(ours()).from(Place::AfterScope),
        chain(STAGING).with(ours()).to(STAGING_TARGET),
        chain(ADDED)
            .with(Arc::new(one_more.build().unwrap()))
            .to(ADDED_TARGET),
        chain(FIRST_OF_100)
            .with(ours_with_targets(100))
            .to(ADDED_TARGET),
        chain(EVERYTHING)
            .with(Arc::new(named.build().unwrap()))
            .extension(session().subagent().turn()),
    ];
    cases.extend(
        NO_TARGET.map(|(name, count)| chain(name).with(ours_with_targets(count)).to(STRANGER)),
    );
    cases.into_iter().map(Chain::case).collect()
}

/// Half of the targets have their own session header.
fn ours_with_targets(count: usize) -> Arc<dyn Middleware> {
    let targets = (0..count).map(|number| {
        let target: Target = format!("https://gateway-{number}.example").parse().unwrap();
        match number % 2 {
            0 => target,
            _ => target.session_header("x-session-id").unwrap(),
        }
    });
    let builder = OpencodeSessionMiddleware::builder();
    Arc::new(builder.targets(targets).build().unwrap())
}

/// A case that sends a request through a client with a canned response.
struct Chain {
    name: &'static str,
    headers: Headers,
    base: &'static str,
    place: Place,
    url: Url,
    chain: Vec<Arc<dyn Middleware>>,
    extensions: Extensions,
    by_hand: bool,
    in_scope: bool,
}

impl Chain {
    fn new(name: &'static str, headers: Headers) -> Self {
        Self {
            name,
            headers,
            base: BARE,
            place: Place::Outside,
            url: TARGET.parse().unwrap(),
            chain: vec![],
            extensions: Extensions::new(),
            by_hand: false,
            in_scope: false,
        }
    }

    fn with(mut self, middleware: Arc<dyn Middleware>) -> Self {
        self.chain.push(middleware);
        self
    }

    fn extension<T: Clone + Send + Sync + 'static>(mut self, item: T) -> Self {
        self.extensions.insert(item);
        self
    }

    fn to(self, url: &str) -> Self {
        let url = url.parse().unwrap();
        Self { url, ..self }
    }

    fn from(self, place: Place) -> Self {
        Self { place, ..self }
    }

    fn over(self, base: &'static str) -> Self {
        Self { base, ..self }
    }

    fn by_hand(self) -> Self {
        Self {
            by_hand: true,
            ..self
        }
    }

    fn in_scope(self) -> Self {
        Self {
            in_scope: true,
            ..self
        }
    }

    fn case(self) -> Case {
        // One for the whole program, so that a call can borrow it.
        let client: &ClientWithMiddleware = Box::leak(Box::new(client(self.chain)));
        let (session, value) = (session(), value());
        case(self.name, self.base, CHAIN, move || {
            let mut request = request(self.headers, self.url.clone());
            let mut extensions = self.extensions.clone();
            let (by_hand, in_scope) = (self.by_hand, self.in_scope);
            let (session, value) = (session.clone(), value.clone());
            Box::new(move || {
                if by_hand {
                    request.headers_mut().insert(&SESSION, value.clone());
                }
                let call = client.execute_with_extensions(request, &mut extensions);
                let response = if in_scope {
                    call.with_session(session).now_or_never()
                } else {
                    call.now_or_never()
                };
                drop(black_box(response.expect("nothing waits")));
            })
        })
        .from(self.place)
    }
}

fn through_a_request_builder(headers: Headers) -> [Case; 4] {
    let case = |name, edit: fn(RequestBuilder, &'static Given) -> RequestBuilder| {
        let given = Given::new();
        let client = Client::new();
        case(name, BUILDER, &[BUILDER_BY_HAND], move || {
            let request = request(headers, TARGET.parse().unwrap());
            let builder = RequestBuilder::from_parts(client.clone(), request);
            Box::new(move || drop(black_box(edit(builder, given))))
        })
    };
    [
        case(BUILDER, |builder, _| builder),
        case(BUILDER_BY_HAND, |builder, given| {
            let (client, request) = builder.build_split();
            let mut request = request.unwrap();
            given.insert_by_hand(request.headers_mut());
            RequestBuilder::from_parts(client, request)
        }),
        case(BUILDER_FALLBACK, |builder, given| {
            builder.opencode_session(&given.middleware).unwrap()
        }),
        case(BUILDER_BOUND, |builder, given| {
            builder.opencode_session(&given.bound).unwrap()
        }),
    ]
}

fn through_an_http_request(headers: Headers) -> [Case; 5] {
    let case = |name, edit: fn(&mut http::Request<&'static str>, &'static Given)| {
        let given = Given::new();
        let url = if name == HTTP_NO_TARGET {
            STRANGER
        } else {
            TARGET
        };
        let extended = name == HTTP_EXTENSIONS;
        case(name, HTTP, &[HTTP_BY_HAND], move || {
            let mut request = http_request(headers, BODY, url);
            if extended {
                request.extensions_mut().insert(session());
            }
            Box::new(move || {
                edit(&mut request, given);
                drop(black_box(request));
            })
        })
    };
    [
        case(HTTP, |_, _| ()),
        case(HTTP_BY_HAND, |request, given| {
            given.insert_by_hand(request.headers_mut())
        }),
        case(HTTP_FALLBACK, |request, given| {
            drop(given.middleware.apply(request))
        }),
        case(HTTP_NO_TARGET, |request, given| {
            drop(given.middleware.apply(request))
        }),
        case(HTTP_EXTENSIONS, |request, given| {
            drop(given.middleware.apply(request))
        }),
    ]
}

fn through_a_layer(headers: Headers) -> [Case; 3] {
    fn case<S>(name: &'static str, headers: Headers, service: S) -> Case
    where
        S: Service<http::Request<reqwest::Body>> + Clone + Send + Sync + 'static,
    {
        self::case(name, LAYER, &[LAYER_SET_HEADER], move || {
            let request = http_request(headers, reqwest::Body::from(BODY), TARGET);
            let mut service = service.clone();
            Box::new(move || drop(black_box(service.call(request))))
        })
    }
    let reqwest = Reqwest(Client::new());
    let name = header::SESSION;
    [
        case(LAYER, headers, reqwest.clone()),
        case(
            LAYER_SET_HEADER,
            headers,
            SetRequestHeader::overriding(reqwest.clone(), name, value()),
        ),
        case(
            LAYER_FALLBACK,
            headers,
            OpencodeSessionMiddleware::new().layer().layer(reqwest),
        ),
    ]
}

/// What a case without a chain needs.
struct Given {
    value: HeaderValue,
    middleware: OpencodeSessionMiddleware,
    bound: OpencodeSessionMiddleware,
}

impl Given {
    fn new() -> &'static Self {
        let middleware = OpencodeSessionMiddleware::new();
        Box::leak(Box::new(Self {
            value: value(),
            bound: middleware.bound_to(session()),
            middleware,
        }))
    }

    fn insert_by_hand(&self, headers: &mut HeaderMap) {
        headers.insert(&SESSION, self.value.clone());
    }
}

fn session() -> Session {
    ID.parse::<SessionId>().unwrap().into()
}

/// A header value whose clones share its bytes.
fn value() -> HeaderValue {
    let value = HeaderValue::from_str(ID).unwrap();
    drop(value.clone());
    value
}

/// A client whose chain ends in a canned response.
pub fn client(mut chain: Vec<Arc<dyn Middleware>>) -> ClientWithMiddleware {
    chain.push(Arc::new(Canned));
    ClientWithMiddleware::new(Client::new(), chain)
}

pub fn request(headers: Headers, url: Url) -> Request {
    let mut request = Request::new(Method::POST, url);
    *request.body_mut() = Some(BODY.into());
    headers.insert_into(request.headers_mut());
    request
}

fn http_request<B>(headers: Headers, body: B, url: &'static str) -> http::Request<B> {
    let mut request = http::Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(url);
    headers.insert_into(request.headers_mut());
    request
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

/// The middleware that one would write without knowing this crate or its rules.
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
                .insert(header::SESSION, self.0.clone());
        }
        next.run(request, extensions).await
    }
}

/// The end of every chain: a canned response.
struct Canned;

#[async_trait]
impl Middleware for Canned {
    async fn handle(&self, _: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        Ok(http::Response::new("").into())
    }
}

/// reqwest's client as a service for `http::Request`. Its responses are never awaited.
#[derive(Clone)]
struct Reqwest(Client);

impl Service<http::Request<reqwest::Body>> for Reqwest {
    type Response = http::Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = MapOk<<Client as Service<Request>>::Future, fn(Response) -> Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<reqwest::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<reqwest::Body>) -> Self::Future {
        let request = request.try_into().expect("its URL is valid");
        self.0.call(request).map_ok(Into::into)
    }
}

pub const GROWTH: &str = "first insert into a HeaderMap";
pub const POLL: &str = "one poll in a scope";

/// The name of a part, and a function that prepares runs of it.
pub type Part = (&'static str, fn() -> Box<dyn FnMut()>);

pub const BUILD: [(&str, usize); 2] = [
    ("build with 100 targets", 100),
    ("build with 1,000 targets", 1000),
];

pub const PARTS: [Part; 8] = [
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
    (BUILD[0].0, || build(BUILD[0].1)),
    (BUILD[1].0, || build(BUILD[1].1)),
];

/// Builds a middleware with this many targets.
fn build(count: usize) -> Box<dyn FnMut()> {
    let targets = (0..count).map(|number| format!("https://gateway-{number}.example").parse());
    let targets: Vec<Target> = targets.map(|target| target.unwrap()).collect();
    Box::new(move || {
        let builder = OpencodeSessionMiddleware::builder().targets(targets.iter().cloned());
        drop(black_box(builder.build()));
    })
}
