//! The gateway that tests hold, and what they assert of it.

use std::fmt;
use std::io;
use std::iter::repeat_n;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Method;

use super::log::{Limits, Log, Mark, SeenRequest};
use super::outcome::Fault;
use super::reply::Reply;
use super::routing::Provider;
use super::server::{Server, Service};
use super::state::{Rule, State};
use crate::session::Session;
use crate::target::{Target, implicit};

/// A gateway on a free port of the loopback interface. It stops when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    // Dropped first: its port may be another server's as soon as it is free.
    _implicit_target: Option<implicit::Guard>,
    log: Log,
    server: Server,
    /// The port that is no target, once it is asked for.
    elsewhere: Mutex<Option<SocketAddr>>,
    /// What came there.
    left: Log,
    limits: Limits,
}

impl Gateway {
    /// The key that a gateway takes.
    pub const KEY: &str = "loopback-key";

    /// A gateway with three providers of equal weight, which takes [`Gateway::KEY`].
    ///
    /// # Errors
    ///
    /// Where the system gives no socket or no thread.
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Starts from the settings of [`start`](Self::start).
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            implicit_target: true,
            keys: vec![Self::KEY.to_owned()],
            models: None,
            providers: vec![],
            limits: Limits::default(),
            header_timeout: Duration::from_secs(60),
        }
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The URL of a path, such as `/zen/go/v1/chat/completions`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// The gateway as a target, for the [builder](crate::OpencodeSessionMiddlewareBuilder::target)
    /// of a middleware.
    pub fn target(&self) -> Target {
        origin(self.address())
    }

    /// The URL of a path on another port of this gateway, which is no target: what a redirect off
    /// the gateway leads to.
    ///
    /// It answers each request with 200 and keeps it in [`left`](Self::left).
    ///
    /// ```
    /// # use reqwest_opencode_session::OpencodeSessionMiddleware;
    /// use reqwest_opencode_session::testing::{Fault, Gateway};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = Gateway::start()?;
    /// # let client = OpencodeSessionMiddleware::builder()
    /// #     .target(gateway.target())
    /// #     .build()?
    /// #     .into_client(reqwest::Client::builder().no_proxy())?;
    /// let location = gateway.elsewhere("/zen/go/v1/chat/completions")?;
    /// gateway.fail_next(1, Fault::Redirect { location });
    ///
    /// let call = client
    ///     .post(gateway.url("/zen/go/v1/chat/completions"))
    ///     .bearer_auth(Gateway::KEY)
    ///     .body(r#"{"model": "kimi-k3", "messages": []}"#);
    /// call.send().await.unwrap_err();
    /// gateway.assert_no_request_left();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Where the system gives no socket.
    pub fn elsewhere(&self, path: &str) -> io::Result<String> {
        let mut elsewhere = self
            .elsewhere
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let address = match *elsewhere {
            Some(address) => address,
            None => {
                let service = Service {
                    log: self.left.clone(),
                    state: None,
                    body: self.limits.body,
                    header_timeout: Duration::from_secs(60),
                };
                let address = (self.address().ip(), 0).into();
                *elsewhere.insert(self.server.serve_also(address, service)?)
            }
        };
        Ok(format!("http://{address}{path}"))
    }

    /// Lets this go wrong with the next `count` calls of a model that are otherwise in order.
    ///
    /// Faults wait in line: what is told first happens first.
    pub fn fail_next(&self, count: usize, fault: Fault) {
        self.server.state().faults.extend(repeat_n(fault, count));
    }

    /// Answers the next call that is in order with this. Replies wait in line.
    pub fn reply_next(&self, reply: Reply) {
        self.server.state().replies.push_back(reply);
    }

    /// Answers each call that is in order and meets a condition with this, and leaves the line of
    /// [`reply_next`](Self::reply_next) alone. Where several conditions are met, the one that was
    /// told first counts.
    ///
    /// The condition sees what the call asks; its number and its marks are not known yet.
    ///
    /// ```
    /// use reqwest_opencode_session::testing::{Gateway, Reply};
    ///
    /// let gateway = Gateway::start()?;
    /// let title = Reply::Text("The weather in Lisbon".to_owned());
    /// gateway.reply_to(|call| call.kind() == "title", title);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reply_to(
        &self,
        condition: impl Fn(&SeenRequest) -> bool + Send + 'static,
        reply: Reply,
    ) {
        let meets = Box::new(condition);
        self.server.state().rules.push(Rule { meets, reply });
    }

    /// Gives this model other providers. A session that one has answered stays with it.
    pub fn set_providers(
        &self,
        model: impl Into<String>,
        providers: impl IntoIterator<Item = Provider>,
    ) {
        self.server
            .state()
            .providers
            .insert(model.into(), providers.into_iter().collect());
    }

    /// The record of its calls.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The requests that it has seen, in the order in which they came: all of them, or the latest
    /// of its [limits](Limits::requests).
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.log.requests()
    }

    /// The same, and forgets them. None that comes meanwhile is lost.
    pub fn take_requests(&self) -> Vec<SeenRequest> {
        self.log.take()
    }

    /// Forgets the requests that it has seen. Providers keep their caches, and a later call is
    /// still known to continue one of them.
    pub fn forget_requests(&self) {
        self.take_requests();
    }

    /// The requests that came [elsewhere](Self::elsewhere).
    pub fn left(&self) -> Vec<SeenRequest> {
        self.left.requests()
    }

    /// How many conversations its providers had to forget, the least recently used first, because
    /// there were more than its [limits](Limits::prompts).
    pub fn forgotten_conversations(&self) -> u64 {
        self.server.state().forgotten()
    }

    /// Declares that `fork` is a fork of `original`, both of them ids of sessions. It does not
    /// matter whether this is said before or after.
    pub fn expect_fork(&self, original: impl AsRef<str>, fork: impl AsRef<str>) {
        self.log.expect_fork(original, fork);
    }

    /// Asserts that there were requests and that all were in this session, whatever the turn.
    ///
    /// # Panics
    ///
    /// With a list of the requests that were not.
    #[track_caller]
    pub fn assert_every_request_in(&self, session: &Session) {
        let id = session.id().as_ref();
        let expectation = format!("in session {id}");
        self.assert_each(&expectation, Scope::Requests, |request| {
            request.session.as_deref() == Some(id)
        });
    }

    /// Asserts that there were calls of a model and that each was in a session: one id of 1 to 128
    /// visible ASCII characters. Requests that ask no model, such as one for the list of models,
    /// need none.
    ///
    /// # Panics
    ///
    /// With a list of the calls that were not.
    #[track_caller]
    pub fn assert_no_session_missing(&self) {
        self.assert_each("in a session", Scope::Calls, |request| {
            !request
                .marks
                .iter()
                .any(|mark| matches!(mark, Mark::Missing | Mark::Doubled | Mark::Malformed))
        });
    }

    /// Asserts that there were calls of a model, that each conversation stayed in its session, and
    /// that no two shared one.
    ///
    /// [`Log`] says by which rules. A fork is a move unless it is
    /// [expected](Self::expect_fork).
    ///
    /// # Panics
    ///
    /// With a list of the calls that moved, or whose session is shared.
    #[track_caller]
    pub fn assert_conversations_keep_their_session(&self) {
        self.assert_each(
            "in their conversation's own session",
            Scope::Calls,
            |request| {
                !request
                    .marks
                    .iter()
                    .any(|mark| matches!(mark, Mark::Moved { .. } | Mark::Shared { .. }))
            },
        );
    }

    /// Asserts that there were calls of a model and that none was in the session of the whole
    /// process: what a server asserts, where each conversation has a session of its own.
    ///
    /// # Panics
    ///
    /// With a list of the calls that were.
    #[track_caller]
    pub fn assert_no_fallback(&self) {
        self.assert_each("in a session of their own", Scope::AllCalls, |request| {
            !request.marks.contains(&Mark::ProcessSession)
        });
    }

    /// Asserts that there were requests and that all named this client.
    ///
    /// # Panics
    ///
    /// With a list of the requests that did not.
    #[track_caller]
    pub fn assert_every_client_is(&self, name: &str) {
        let expectation = format!("from client {name}");
        self.assert_each(&expectation, Scope::Requests, |request| {
            request.client.as_deref() == Some(name)
        });
    }

    /// Asserts that requests were [redirected](Fault::Redirect), and that none came
    /// [elsewhere](Self::elsewhere).
    ///
    /// # Panics
    ///
    /// With a list of those that came there, or where nothing was redirected.
    #[track_caller]
    pub fn assert_no_request_left(&self) {
        assert!(
            self.server.state().redirected > 0,
            "the gateway redirected no request, so none could leave: \
            tell it to by `fail_next(1, Fault::Redirect {{ location: gateway.elsewhere(path)? }})`",
        );
        let left = self.left();
        assert!(
            left.is_empty(),
            "{} followed a redirect off the gateway:{}",
            requests(left.len()),
            list(left.iter()),
        );
    }

    /// Panics with the requests that miss what all must have, or where there is none at all.
    #[track_caller]
    fn assert_each(&self, expectation: &str, scope: Scope, meets: impl Fn(&SeenRequest) -> bool) {
        let seen = self.requests();
        let in_scope = |request: &&SeenRequest| match scope {
            Scope::Requests => request.method != Method::OPTIONS,
            Scope::Calls | Scope::AllCalls => request.asks_a_model(),
        };
        let judged: Vec<_> = seen.iter().filter(in_scope).collect();
        assert!(
            !judged.is_empty(),
            "the gateway saw no {}, expected some {expectation}",
            match scope {
                Scope::Requests => "request",
                Scope::Calls | Scope::AllCalls => "call of a model",
            },
        );
        let missed: Vec<_> = judged.iter().filter(|request| !meets(request)).collect();
        assert!(
            missed.is_empty(),
            "{} of {} not {expectation}:{}",
            missed.len(),
            match judged.len() {
                1 => "1 request was".to_owned(),
                count => format!("{count} requests were"),
            },
            list(missed.iter().map(|request| **request)),
        );
        let dropped = match scope {
            Scope::Requests | Scope::AllCalls => self.log.dropped(),
            // Those with a fault are the last to go.
            Scope::Calls => 0,
        };
        assert!(
            dropped == 0,
            "the gateway no longer has {} and cannot tell whether they were {expectation}: \
            let it keep more by `Gateway::builder().limits(Limits::default().requests(…))`",
            requests(usize::try_from(dropped).unwrap_or(usize::MAX)),
        );
    }
}

/// What an assertion is about.
#[derive(Debug, Clone, Copy)]
enum Scope {
    /// Every request but a browser's preflight.
    Requests,
    /// Calls of a model, for what shows in a fault.
    Calls,
    /// Calls of a model, for what is no fault, so that those that were dropped matter.
    AllCalls,
}

fn requests(count: usize) -> String {
    match count {
        1 => "1 request".to_owned(),
        _ => format!("{count} requests"),
    }
}

/// The most requests that a failed assertion names.
const LISTED: usize = 50;

fn list<'a>(requests: impl ExactSizeIterator<Item = &'a SeenRequest>) -> String {
    let more = requests.len().saturating_sub(LISTED);
    let mut list: String = requests
        .take(LISTED)
        .map(|request| format!("\n  {request}"))
        .collect();
    if more > 0 {
        list.push_str(&format!("\n  and {more} more"));
    }
    list
}

/// The gateway at an address, or a name, with its port.
fn origin(address: impl fmt::Display) -> Target {
    format!("http://{address}")
        .parse()
        .expect("an address with its port is an origin")
}

/// Settings for a [`Gateway`]. Made by [`Gateway::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct GatewayBuilder {
    address: SocketAddr,
    implicit_target: bool,
    keys: Vec<String>,
    models: Option<Vec<String>>,
    providers: Vec<(String, Vec<Provider>)>,
    limits: Limits,
    header_timeout: Duration,
}

impl GatewayBuilder {
    /// The address to listen on, instead of a free port of the loopback interface.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Takes another key, too, of another workspace.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// The models that there are: another one is refused with `ModelError`. Unless this is said,
    /// there is every model.
    pub fn models(mut self, models: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.models = Some(models.into_iter().map(Into::into).collect());
        self
    }

    /// The providers of this model, instead of those that every model has.
    pub fn providers(
        mut self,
        model: impl Into<String>,
        providers: impl IntoIterator<Item = Provider>,
    ) -> Self {
        let providers = providers.into_iter().collect();
        self.providers.push((model.into(), providers));
        self
    }

    /// How much the gateway and its log keep, and how long a body may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long a connection may take to bring a request's headers before it is closed, the wait
    /// for the first request and for the next one included: a minute unless set.
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Whether the gateway's origin is a target of every middleware in this process while it runs,
    /// under `localhost`, too. It is, unless this says otherwise: then the gateway plays a stranger.
    pub fn implicit_target(mut self, implicit: bool) -> Self {
        self.implicit_target = implicit;
        self
    }

    /// Starts the gateway.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on, or the system gives no thread.
    pub fn start(self) -> io::Result<Gateway> {
        let providers = ["north", "east", "south"].map(Provider::new).into();
        let mut state = State::new(self.keys, providers, &self.limits);
        state.models = self.models.map(FromIterator::from_iter);
        state.providers.extend(self.providers);
        let log = Log::with_limits(self.limits.clone());
        let service = Service {
            log: log.clone(),
            state: Some(Mutex::new(state)),
            body: self.limits.body,
            header_timeout: self.header_timeout,
        };
        let server = Server::start(self.address, service)?;
        let origins = [
            server.address.to_string(),
            format!("localhost:{}", server.address.port()),
        ];
        Ok(Gateway {
            _implicit_target: self
                .implicit_target
                .then(|| implicit::Guard::new(origins.map(origin).into())),
            log,
            server,
            elsewhere: Mutex::new(None),
            left: Log::with_limits(self.limits.clone()),
            limits: self.limits,
        })
    }
}
