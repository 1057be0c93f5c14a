//! Where a session and a body go when a server redirects: every case, with and without the policy.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_opencode_session::header::{CLIENT, PARENT_SESSION, PROJECT, SESSION, TURN};
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, RedirectRefused, Session};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::loopback::{Identity, serve};
use crate::support::Seen;

const STATUSES: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];
const BODY: &str = "the prompt";

const OPENCODE: &str = "https://opencode.ai";
const STAGING: &str = "https://dev.opencode.ai";
const LOOKALIKE: &str = "https://opencode.ai.example.com";
const OTHER: &str = "https://example.com";
const PLAIN: &str = "http://opencode.ai";
/// `PORT` stands for the port that the system assigned.
const OTHER_PORT: &str = "https://opencode.ai:PORT";

/// Those of these origins that are targets by default.
const DEFAULT: &[&str] = &[OPENCODE, STAGING];

struct Case {
    name: &'static str,
    targets: &'static [&'static str],
    /// The origins that redirect, each to the next one.
    route: &'static [&'static str],
    end: End,
}

enum End {
    Followed,
    Refused(&'static str, &'static str),
    TooMany,
    /// As `TooMany`, because the end of the route leads back to its start.
    Loop,
}

const fn case(
    name: &'static str,
    targets: &'static [&'static str],
    route: &'static [&'static str],
    end: End,
) -> Case {
    Case {
        name,
        targets,
        route,
        end,
    }
}

#[rustfmt::skip]
const CASES: [Case; 14] = {
    use End::{Followed, Loop, Refused, TooMany};
    [
        case("same origin", DEFAULT, &[OPENCODE, OPENCODE], Followed),
        case("subdomain", DEFAULT, &[OPENCODE, STAGING], Followed),
        case("subdomain, no target", &[OPENCODE], &[OPENCODE, STAGING], Refused(OPENCODE, STAGING)),
        case("other host", DEFAULT, &[OPENCODE, LOOKALIKE], Refused(OPENCODE, LOOKALIKE)),
        case("other port", DEFAULT, &[OPENCODE, OTHER_PORT], Refused(OPENCODE, OTHER_PORT)),
        case("other port, a target", &[OPENCODE, OTHER_PORT], &[OPENCODE, OTHER_PORT], Followed),
        case("https to http", DEFAULT, &[OPENCODE, PLAIN], Refused(OPENCODE, PLAIN)),
        case("https to http, a target", &[OPENCODE, PLAIN], &[OPENCODE, PLAIN], Followed),
        case("target, target, other", DEFAULT, &[OPENCODE, STAGING, OTHER],
            Refused(STAGING, OTHER)),
        case("other, target", DEFAULT, &[OTHER, OPENCODE], Followed),
        case("other, target, other", DEFAULT, &[OTHER, OPENCODE, OTHER], Followed),
        case("loop", DEFAULT, &[OPENCODE, STAGING], Loop),
        case("ten hops", DEFAULT, &[OPENCODE; 11], Followed),
        case("eleven hops", DEFAULT, &[OPENCODE; 12], TooMany),
    ]
};

#[tokio::test]
async fn no_redirect_takes_a_session_or_a_body_off_its_targets() {
    let internet = Internet::start().await;
    println!("| status | method | case | end | others saw | without the policy | others saw |");
    println!("|---|---|---|---|---|---|---|");
    for case in &CASES {
        // The first request goes where the caller sends it. A chain that began elsewhere carries
        // nothing, so it may go anywhere.
        let redirected_elsewhere = |visits: &[Visit]| {
            let began_at_a_target = internet.is_target(case, &visits[0]);
            let visits = visits[1..].iter().filter(|_| began_at_a_target);
            let elsewhere = visits.filter(|visit| !internet.is_target(case, visit));
            let seen: Vec<_> = elsewhere.map(Visit::summary).collect();
            if seen.is_empty() {
                "nothing".to_owned()
            } else {
                seen.join("; ")
            }
        };
        let middleware = internet.middleware(case);
        let without_policy = internet.client_without_policy(&middleware);
        let client = middleware.into_client(internet.client()).unwrap();
        for status in STATUSES {
            for method in [Method::GET, Method::POST] {
                let (end, visits) = internet.send(&client, case, status, &method).await;
                let (default_end, default_visits) =
                    internet.send(&without_policy, case, status, &method).await;
                let leaked = redirected_elsewhere(&visits);
                let row = format!(
                    "| {} | {method} | {} | {end} | {leaked} | {default_end} | {} |",
                    status.as_u16(),
                    case.name,
                    redirected_elsewhere(&default_visits),
                );
                println!("{row}");

                assert_eq!(leaked, "nothing", "{row}");
                let carries_session = internet.is_target(case, &visits[0]);
                let headers = if carries_session { 5 } else { 0 };
                for visit in &visits {
                    assert_eq!(visit.seen.opencode_headers().len(), headers, "{row}");
                }
                assert_eq!(end, internet.expected_end(case), "{row}");
                if matches!(case.end, End::Refused(..)) {
                    assert_eq!(visits, default_visits[..visits.len()], "{row}");
                } else {
                    assert_eq!((end, visits), (default_end, default_visits), "{row}");
                }
            }
        }
    }
}

#[tokio::test]
async fn redirects_that_have_nothing_to_do_with_targets_are_followed() {
    let internet = Internet::start().await;
    let case = case("other, other", DEFAULT, &[OTHER, LOOKALIKE], End::Followed);
    let middleware = internet.middleware(&case);
    let client = middleware.into_client(internet.client()).unwrap();
    let status = StatusCode::PERMANENT_REDIRECT;
    let (end, visits) = internet.send(&client, &case, status, &Method::POST).await;
    assert_eq!((&*end, visits.len()), ("followed", 2));
    for visit in visits {
        assert_eq!(
            (visit.seen.opencode_headers(), &*visit.seen.body),
            (vec![], BODY.as_bytes())
        );
    }
}

#[tokio::test]
async fn without_the_policy_a_redirect_takes_both_along() {
    let internet = Internet::start().await;
    let case = case("other host", DEFAULT, &[OPENCODE, OTHER], End::Followed);
    let client = internet.client_without_policy(&internet.middleware(&case));
    let status = StatusCode::TEMPORARY_REDIRECT;
    let (_, visits) = internet.send(&client, &case, status, &Method::POST).await;
    let [at_target, elsewhere] = &visits[..] else {
        panic!("{visits:?}");
    };
    let mut names = elsewhere.seen.opencode_headers();
    names.sort_unstable();
    let all = [CLIENT, PROJECT, TURN, SESSION, PARENT_SESSION];
    assert_eq!(names, all);
    for name in all {
        assert_eq!(elsewhere.seen.headers[&name], at_target.seen.headers[&name]);
    }
    assert_eq!(elsewhere.seen.body, BODY);
    // What reqwest does remove.
    assert!(at_target.seen.headers.contains_key(AUTHORIZATION));
    assert!(!elsewhere.seen.headers.contains_key(AUTHORIZATION));
}

/// Every origin of the cases: all names resolve to one port, which speaks both TLS and plain HTTP,
/// and there is a second such port.
struct Internet {
    identity: Identity,
    address: SocketAddr,
    other_port: String,
    state: Arc<Mutex<State>>,
}

/// What the origins do, and what they have seen.
#[derive(Default)]
struct State {
    status: StatusCode,
    /// The URLs that redirect, each to the next one.
    route: Vec<String>,
    repeats: bool,
    visits: Vec<Visit>,
}

/// A request that arrived at an origin.
#[derive(Debug, Clone, PartialEq)]
struct Visit {
    url: String,
    method: Method,
    seen: Seen,
}

impl Visit {
    /// How much of a session and a prompt arrived.
    fn summary(&self) -> String {
        let headers = self.seen.opencode_headers().len();
        let body = if self.seen.body.is_empty() {
            "no"
        } else {
            "the"
        };
        format!("{headers} headers, {body} body")
    }
}

impl Internet {
    async fn start() -> Self {
        let origins = [OPENCODE, STAGING, LOOKALIKE, OTHER];
        let identity = Identity::of(&origins.map(|origin| &origin["https://".len()..]));
        let acceptor = identity.acceptor(&["http/1.1"]);
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let handle = move |stream| handle(stream, acceptor.clone(), Arc::clone(&shared));
        Self {
            identity,
            address: serve(handle.clone()).await,
            other_port: serve(handle).await.port().to_string(),
            state,
        }
    }

    fn origin(&self, origin: &str) -> String {
        origin.replace("PORT", &self.other_port)
    }

    fn is_target(&self, case: &Case, visit: &Visit) -> bool {
        let mut targets = case.targets.iter().map(|origin| self.origin(origin) + "/");
        targets.any(|target| visit.url.starts_with(&target))
    }

    fn expected_end(&self, case: &Case) -> String {
        match case.end {
            End::Followed => "followed".to_owned(),
            End::Refused(from, to) => refused(&self.origin(from), &self.origin(to)),
            End::TooMany | End::Loop => "too many redirects".to_owned(),
        }
    }

    fn middleware(&self, case: &Case) -> OpencodeSessionMiddleware {
        let builder = OpencodeSessionMiddleware::builder()
            .client_name("my-agent")
            .project("my-project")
            .fallback(Fallback::Session(Session::new().subagent().turn()));
        let targets = case.targets.iter().map(|origin| self.origin(origin));
        let builder = if case.targets == DEFAULT {
            builder
        } else {
            builder.targets(targets)
        };
        builder.build().unwrap()
    }

    fn client(&self) -> reqwest::ClientBuilder {
        self.identity.client(self.address)
    }

    fn client_without_policy(
        &self,
        middleware: &OpencodeSessionMiddleware,
    ) -> ClientWithMiddleware {
        ClientBuilder::new(self.client().build().unwrap())
            .with(middleware.clone())
            .build()
    }

    /// Sends a request along the route of a case. Returns how it ended, and every visit.
    async fn send(
        &self,
        client: &ClientWithMiddleware,
        case: &Case,
        status: StatusCode,
        method: &Method,
    ) -> (String, Vec<Visit>) {
        let hops = case.route.iter().enumerate();
        let route: Vec<_> = hops
            .map(|(hop, origin)| format!("{}/{hop}", self.origin(origin)))
            .collect();
        let mut request = client.request(method.clone(), &route[0]).bearer_auth("key");
        if method == Method::POST {
            request = request.body(BODY);
        }
        *self.state.lock().unwrap() = State {
            status,
            route,
            repeats: matches!(case.end, End::Loop),
            visits: vec![],
        };
        let end = match request.send().await {
            Ok(response) => {
                assert_eq!(response.status(), StatusCode::OK);
                "followed".to_owned()
            }
            Err(error) => {
                assert!(error.is_redirect(), "{error:?}");
                let source = error.source().expect("a reason");
                match source.downcast_ref::<RedirectRefused>() {
                    Some(refusal) => refused(refusal.from_origin(), refusal.to_origin()),
                    None => source.to_string(),
                }
            }
        };
        (end, self.state.lock().unwrap().visits.clone())
    }
}

fn refused(from: &str, to: &str) -> String {
    format!("refused, {from} to {to}")
}

async fn handle(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    state: Arc<Mutex<State>>,
) -> io::Result<()> {
    const TLS_HANDSHAKE: u8 = 22;
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first == [TLS_HANDSHAKE] {
        redirect("https", acceptor.accept(stream).await?, &state).await
    } else {
        redirect("http", stream, &state).await
    }
}

async fn redirect(
    scheme: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    state: &Mutex<State>,
) -> io::Result<()> {
    let service = service_fn(async |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        let host = head.headers[HOST].to_str().unwrap();
        let url = format!("{scheme}://{host}{}", head.uri);
        let body = body.collect().await?.to_bytes();

        let mut state = state.lock().unwrap();
        let mut next = state.route.iter().position(|hop| *hop == url).unwrap() + 1;
        if state.repeats {
            next %= state.route.len();
        }
        let mut response = Response::new(Empty::<Bytes>::new());
        if let Some(location) = state.route.get(next) {
            response
                .headers_mut()
                .insert(LOCATION, location.parse().unwrap());
            *response.status_mut() = state.status;
        }
        state.visits.push(Visit {
            url,
            method: head.method,
            seen: Seen {
                headers: head.headers,
                body,
            },
        });
        Ok::<_, hyper::Error>(response)
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    connection.await.map_err(io::Error::other)
}
