//! The gateway for tests, and its assertions.

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

/// A gateway on a free port of the loopback interface, which stops when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    // Dropped first: once the port is free, another server may take it.
    _implicit_target: Option<implicit::Guard>,
    log: Log,
    server: Server,
    /// The address of `elsewhere`, once it is asked for.
    elsewhere: Mutex<Option<SocketAddr>>,
    /// The requests that came there.
    left: Log,
    limits: Limits,
}

impl Gateway {
    /// The key that every gateway accepts.
    pub const KEY: &str = "loopback-key";

    /// Starts a gateway that accepts [`Gateway::KEY`] and has three providers of equal weight.
    ///
    /// # Errors
    ///
    /// Returns an error if the system provides no socket or no thread.
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Returns a builder with the settings of [`start`](Self::start).
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

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Returns the URL of a path, such as `/zen/go/v1/chat/completions`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Returns the gateway as a target, for the
    /// [builder](crate::OpencodeSessionMiddlewareBuilder::target) of a middleware.
    pub fn target(&self) -> Target {
        origin(self.address())
    }

    /// Returns the URL of a path on another port of this gateway, a non-target, for a redirect off
    /// the gateway.
    ///
    /// That port answers each request with 200 and records it in [`left`](Self::left).
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
    /// Returns an error if the system provides no socket.
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

    /// Applies a fault to each of the next `count` calls to a model that would otherwise succeed.
    ///
    /// Faults are queued: the first one added happens first.
    pub fn fail_next(&self, count: usize, fault: Fault) {
        self.server.state().faults.extend(repeat_n(fault, count));
    }

    /// Answers the next call that succeeds with this reply. Replies are queued.
    pub fn reply_next(&self, reply: Reply) {
        self.server.state().replies.push_back(reply);
    }

    /// Answers each call that succeeds and meets a condition with this reply, and leaves the queue
    /// of [`reply_next`](Self::reply_next) as it is. If a call meets several conditions, the first
    /// one added counts.
    ///
    /// The condition sees what the call asks for, but not yet its number and its marks.
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

    /// Gives this model other providers. A session stays with the provider that last answered it.
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

    /// Returns the record of its calls.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Returns the requests that it has seen, in the order in which they came: as many as its
    /// [limits](Limits::requests) allow.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.log.requests()
    }

    /// Returns the requests that it has seen, and forgets them. None that comes meanwhile is lost.
    pub fn take_requests(&self) -> Vec<SeenRequest> {
        self.log.take()
    }

    /// Forgets the requests that it has seen. Providers keep their caches, and a later call is
    /// still known to continue one of these requests.
    pub fn forget_requests(&self) {
        self.take_requests();
    }

    /// Returns the requests that came [elsewhere](Self::elsewhere).
    pub fn left(&self) -> Vec<SeenRequest> {
        self.left.requests()
    }

    /// Returns how many conversations its providers had to forget because of its limits on
    /// [prompts](Limits::prompts) and [cache](Limits::cache). The least recently used is forgotten
    /// first.
    pub fn forgotten_conversations(&self) -> u64 {
        self.server.state().forgotten()
    }

    /// Declares that the session with the id `fork` is a fork of the one with the id `original`,
    /// before or after the fork is made.
    pub fn expect_fork(&self, original: impl AsRef<str>, fork: impl AsRef<str>) {
        self.log.expect_fork(original, fork);
    }

    /// Asserts that there were requests and that all were in this session, whatever the turn.
    ///
    /// # Panics
    ///
    /// Panics with a list of the requests that were not, or if there were none or some are no longer
    /// [kept](Limits::requests).
    #[track_caller]
    pub fn assert_every_request_in(&self, session: &Session) {
        let id = session.id().as_ref();
        let expectation = format!("in session {id}");
        self.assert_each(&expectation, Scope::Requests, |request| {
            request.session.as_deref() == Some(id)
        });
    }

    /// Asserts that there were calls to a model and that each was in a session: one id of 1 to 128
    /// visible ASCII characters. Requests that do not ask a model, such as one for the list of
    /// models, need none.
    ///
    /// # Panics
    ///
    /// Panics with a list of the calls that were not, or if there were none or some that stand out
    /// are no longer [kept](Limits::requests).
    #[track_caller]
    pub fn assert_no_session_missing(&self) {
        self.assert_each("in a session", Scope::Calls, |request| {
            !request
                .marks
                .iter()
                .any(|mark| matches!(mark, Mark::Missing | Mark::Doubled | Mark::Malformed))
        });
    }

    /// Asserts that there were calls to a model, that each conversation stayed in its session, and
    /// that no two shared one.
    ///
    /// [`Log`] describes the rules. A fork is a move unless it is [expected](Self::expect_fork).
    ///
    /// # Panics
    ///
    /// Panics with a list of the calls that moved, or whose session is shared, or if there were none
    /// or some that stand out are no longer [kept](Limits::requests).
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

    /// Asserts that there were calls to a model and that none was in the process's session: for a
    /// server, whose conversations each need a session of their own.
    ///
    /// # Panics
    ///
    /// Panics with a list of the calls that were, or if there were none or some are no longer
    /// [kept](Limits::requests).
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
    /// Panics with a list of the requests that did not, or if there were none or some are no longer
    /// [kept](Limits::requests).
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
    /// Panics with a list of the requests that came there, or if nothing was redirected.
    #[track_caller]
    pub fn assert_no_request_left(&self) {
        assert!(
            self.server.state().redirected > 0,
            "the gateway redirected no request, so none could leave: make it redirect one with \
            `fail_next(1, Fault::Redirect {{ location: gateway.elsewhere(path)? }})`",
        );
        let left = self.left();
        assert!(
            left.is_empty(),
            "{} followed a redirect off the gateway:{}",
            requests(left.len()),
            list(left.iter()),
        );
    }

    /// Panics unless the scope contains requests, and all of them meet the condition.
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
            "expected {} {expectation}, but the gateway saw none",
            match scope {
                Scope::Requests => "requests",
                Scope::Calls | Scope::AllCalls => "calls to a model",
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
            // One without a fault has met it.
            Scope::Calls => self.log.dropped_faults(),
        };
        assert!(
            dropped == 0,
            "the gateway no longer has {} and cannot tell whether all were {expectation}: \
            let it keep more with `Gateway::builder().limits(Limits::default().requests(…))`",
            requests(usize::try_from(dropped).unwrap_or(usize::MAX)),
        );
    }
}

/// What an assertion is about.
#[derive(Debug, Clone, Copy)]
enum Scope {
    /// Every request except a browser's preflight.
    Requests,
    /// Calls to a model, for a condition whose failure is a fault.
    Calls,
    /// Calls to a model, for any other condition: a dropped call may have failed it.
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

/// Returns the target at an address, or at a name, with its port.
fn origin(address: impl fmt::Display) -> Target {
    format!("http://{address}")
        .parse()
        .expect("an address with its port is an origin")
}

/// Settings for a [`Gateway`]. Created by [`Gateway::builder`].
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
    /// Sets the address to listen on, instead of a free port of the loopback interface.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Accepts another key as well, of another workspace.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Sets the models that the gateway has; any other one is refused with `ModelError`. Without
    /// this setting, the gateway has every model.
    pub fn models(mut self, models: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.models = Some(models.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the providers of this model, instead of those that every model has.
    pub fn providers(
        mut self,
        model: impl Into<String>,
        providers: impl IntoIterator<Item = Provider>,
    ) -> Self {
        let providers = providers.into_iter().collect();
        self.providers.push((model.into(), providers));
        self
    }

    /// Sets how much the gateway and its log keep, and how long a body may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long a connection may take to bring a request's headers before it is closed,
    /// including the wait for the first request and for the next one. The default is a minute.
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Sets whether the gateway's origin is a target of every middleware in this process while it
    /// runs, under `localhost` as well. The default is `true`; otherwise, it is a non-target.
    pub fn implicit_target(mut self, implicit: bool) -> Self {
        self.implicit_target = implicit;
        self
    }

    /// Starts the gateway.
    ///
    /// # Errors
    ///
    /// Returns an error if the gateway cannot listen on the address, or if the system provides no
    /// thread.
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
