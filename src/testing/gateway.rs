//! The test gateway: what a test tells it, and asks of it.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::Location;
use std::sync::{Mutex, PoisonError};

use super::failure::Failure;
use super::log::{Limits, Log};
use super::reply::Reply;
use super::routing::Provider;
use super::seen::SeenRequest;
use super::server::{HEADER_TIMEOUT, Server, Service};
use super::state::State;
use crate::target::{Target, implicit};

/// A gateway on a free port of the loopback interface, which stops when it is dropped.
///
/// Give your client its [`url`](Self::url) as the base URL and [`KEY`](Self::KEY) as the key, run
/// what the client does, and then ask the gateway:
///
/// ```
/// use reqwest_opencode_session::testing::Gateway;
/// use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession as _};
///
/// #[tokio::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let gateway = Gateway::start()?;
///     let builder = reqwest::Client::builder().no_proxy();
///     let client = OpencodeSessionMiddleware::builder()
///         .client_name("my-agent")
///         .build()?
///         .into_client(builder)?;
///
///     let session = Session::new();
///     let call = client
///         .post(gateway.url("/zen/go/v1/chat/completions"))
///         .bearer_auth(Gateway::KEY)
///         .body(r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#);
///     let answer = call.send().with_session(&session).await?;
///
///     assert_eq!(answer.status(), 200);
///     gateway.assert_every_request_in(&session);
///     gateway.assert_every_client_is("my-agent");
///     Ok(())
/// }
/// ```
///
/// While it runs, its origin is a target of every middleware in the process, so the application
/// under test needs no setting but the base URL. A client that uses a proxy from the environment
/// needs `no_proxy()`, because the gateway is on this machine.
///
/// | to | call |
/// |---|---|
/// | see what came | [`requests`](Self::requests), [`take_requests`](Self::take_requests), [`escaped`](Self::escaped) |
/// | let calls fail | [`fail_next`](Self::fail_next), [`fail_to`](Self::fail_to) |
/// | script answers | [`reply_next`](Self::reply_next), [`reply_to`](Self::reply_to) |
/// | declare a fork or an edit | [`expect_fork`](Self::expect_fork), [`expect_edit`](Self::expect_edit) |
/// | choose models, keys, limits | [`builder`](Self::builder) |
#[derive(Debug)]
pub struct Gateway {
    // Dropped first: once the port is free, another server may take it.
    _implicit_target: Option<implicit::Guard>,
    pub(super) log: Log,
    pub(super) server: Server,
    /// The address of `elsewhere`, once it is asked for.
    elsewhere: Mutex<Option<SocketAddr>>,
    /// The requests that came there.
    escaped: Log,
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
            limits: Limits::default(),
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

    /// Returns the URL of a path on another port of this gateway, which is no target, for a redirect
    /// to another address.
    ///
    /// That port answers each request with 200 and records it in [`escaped`](Self::escaped).
    ///
    /// ```
    /// # use reqwest_opencode_session::OpencodeSessionMiddleware;
    /// use reqwest_opencode_session::testing::{Failure, Gateway};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = Gateway::start()?;
    /// # let client = OpencodeSessionMiddleware::builder()
    /// #     .target(gateway.target())
    /// #     .build()?
    /// #     .into_client(reqwest::Client::builder().no_proxy())?;
    /// let location = gateway.elsewhere("/zen/go/v1/chat/completions")?;
    /// gateway.fail_next(1, Failure::Redirect { location });
    ///
    /// let call = client
    ///     .post(gateway.url("/zen/go/v1/chat/completions"))
    ///     .bearer_auth(Gateway::KEY)
    ///     .body(r#"{"model": "kimi-k3", "messages": []}"#);
    /// call.send().await.unwrap_err();
    /// gateway.assert_no_request_escaped();
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
                    log: self.escaped.clone(),
                    state: None,
                    body: self.limits.body,
                    header_timeout: HEADER_TIMEOUT,
                };
                let address = (self.address().ip(), 0).into();
                *elsewhere.insert(self.server.serve_also(address, service)?)
            }
        };
        Ok(format!("http://{address}{path}"))
    }

    /// Applies a failure to each of the next `count` calls to a model that would otherwise succeed.
    ///
    /// Failures are queued: the first one added happens first.
    #[track_caller]
    pub fn fail_next(&self, count: usize, failure: Failure) {
        let by = Location::caller();
        self.server.state().fail(count, None, failure, by);
    }

    /// Applies a failure to each of the next `count` calls to a model that would otherwise succeed
    /// and that meet a condition. It stands in the same queue as those of
    /// [`fail_next`](Self::fail_next), and other calls leave it there.
    ///
    /// The condition sees what the call asks for, but not yet its number and its marks.
    ///
    /// ```
    /// use reqwest_opencode_session::testing::{Failure, Gateway};
    ///
    /// let gateway = Gateway::start()?;
    /// gateway.fail_to(1, |call| call.kind() == "title", Failure::ModelUnavailable);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn fail_to(
        &self,
        count: usize,
        condition: impl Fn(&SeenRequest) -> bool + Send + 'static,
        failure: Failure,
    ) {
        let by = Location::caller();
        let condition = Box::new(condition);
        let mut state = self.server.state();
        state.fail(count, Some(condition), failure, by);
    }

    /// Answers the next call that succeeds with this reply. Replies are queued.
    #[track_caller]
    pub fn reply_next(&self, reply: Reply) {
        let by = Location::caller();
        self.server.state().reply_next(reply, by);
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
    #[track_caller]
    pub fn reply_to(
        &self,
        condition: impl Fn(&SeenRequest) -> bool + Send + 'static,
        reply: Reply,
    ) {
        let by = Location::caller();
        let condition = Box::new(condition);
        self.server.state().reply_to(condition, reply, by);
    }

    /// Gives this model other providers. A session stays with the provider that last answered it, as
    /// long as that is one of them.
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

    /// Returns the requests that it has seen, and removes them in the same step, so that a request
    /// that comes meanwhile is returned by the next call. Providers keep their caches, and a later
    /// call is still known to continue one of these.
    pub fn take_requests(&self) -> Vec<SeenRequest> {
        self.log.take()
    }

    /// Returns the requests that escaped: those that came [elsewhere](Self::elsewhere).
    pub fn escaped(&self) -> Vec<SeenRequest> {
        self.escaped.requests()
    }

    /// Declares that the first message of a conversation in this session is edited, before or after
    /// the edit is made.
    pub fn expect_edit(&self, session: impl AsRef<str>) {
        self.log.expect_edit(session);
    }

    /// Declares that the session with the id `fork` is a fork of the one with the id `original`,
    /// before or after the fork is made.
    pub fn expect_fork(&self, original: impl AsRef<str>, fork: impl AsRef<str>) {
        self.log.expect_fork(original, fork);
    }
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
    limits: Limits,
}

impl GatewayBuilder {
    /// Sets the address to listen on, instead of a free port of the loopback interface.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Also accepts another key, of another workspace.
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

    /// Sets how much the gateway and its log keep, and how long a body may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets whether the gateway's origin is a target of every middleware in this process while it
    /// runs, also under `localhost`. The default is `true`. With `false`, it plays a stranger.
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
        let log = Log::with_limits(self.limits.clone());
        let service = Service {
            log: log.clone(),
            state: Some(Mutex::new(state)),
            body: self.limits.body,
            header_timeout: HEADER_TIMEOUT,
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
            escaped: Log::with_limits(self.limits.clone()),
            limits: self.limits,
        })
    }
}
