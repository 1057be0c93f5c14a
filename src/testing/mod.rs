//! A loopback gateway to test a client against.
//!
//! [`Gateway`] answers like OpenCode Zen and Go, on a free port of the loopback interface. It
//! refuses what the real one refuses, picks providers as the real one does, and tells afterwards
//! which request came in which session. So a test of your own client finds the call path that
//! forgets the session:
//!
//! ```
//! use reqwest_opencode_session::testing::Gateway;
//! use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, WithSession};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gateway = Gateway::start()?;
//! let client = OpencodeSessionMiddleware::builder()
//!     .client_name("my-agent")
//!     .target(gateway.target())
//!     .build()?
//!     .into_client(reqwest::Client::builder())?;
//!
//! let session = Session::new();
//! async {
//!     // Here your agent does all that it does in a conversation.
//!     let response = client
//!         .post(gateway.url("/zen/go/v1/chat/completions"))
//!         .bearer_auth(Gateway::KEY)
//!         .body(r#"{"model": "kimi-k3", "messages": [{"role": "user", "content": "Hello"}]}"#)
//!         .send()
//!         .await?;
//!     assert_eq!(response.status(), 200);
//!     Ok::<(), reqwest_middleware::Error>(())
//! }
//! .with_session(session.clone())
//! .await?;
//!
//! gateway.assert_every_request_in(&session);
//! gateway.assert_every_client_is("my-agent");
//! # Ok(())
//! # }
//! ```
//!
//! # What it is faithful to
//!
//! - **Endpoints**: chat completions, responses and messages of Zen and Go, `generateContent` and
//!   `streamGenerateContent` of Zen, and the list of models. JSON, and streams that come in several
//!   pieces.
//! - **Refusals**: `AuthError` for a key that it does not know, then `MissingSessionID` where
//!   OpenCode Go is asked without a session.
//! - **Routing**: the session picks a provider by the gateway's own hash; a provider that answered
//!   a session before is picked again. Without a session, the key's workspace decides.
//! - **Usage**: the start of a prompt is cached where the provider has seen it in this conversation
//!   before. Tokens are counted roughly, one for four bytes.
//!
//! It takes any model, says nothing of substance, and knows nothing of prices and rate limits.

mod answer;
mod continuity;
mod endpoint;
mod log;
mod prompt;
mod reply;
mod routing;
mod server;
mod state;

use std::io;
use std::iter::repeat_n;
use std::net::{Ipv4Addr, SocketAddr};

pub use self::answer::{Answer, AnswerReader, Usage};
pub use self::log::{Changes, Limits, Log, Mark, SeenRequest};
pub use self::reply::Reply;
pub use self::routing::Provider;
pub use self::state::Fault;

use self::server::Server;
use self::state::State;
use crate::session::Session;
use crate::target::Target;

/// A gateway on a free port of the loopback interface. It stops when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    log: Log,
    server: Server,
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
            state: State::new(
                Self::KEY,
                ["north", "east", "south"].map(Provider::new).into(),
            ),
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

    /// The gateway as a target, for the [builder](crate::OpencodeSessionMiddlewareBuilder::target) of
    /// a plugin.
    pub fn target(&self) -> Target {
        self.url("")
            .parse()
            .expect("an address with its port is an origin")
    }

    /// Lets this go wrong with the next `count` requests that are otherwise in order.
    ///
    /// Faults wait in line: what is told first happens first.
    pub fn fail_next(&self, count: usize, fault: Fault) {
        self.server.state().faults.extend(repeat_n(fault, count));
    }

    /// Answers the next request that is in order with this. Replies wait in line.
    pub fn reply_next(&self, reply: Reply) {
        self.server.state().replies.push_back(reply);
    }

    /// Gives this model other providers. A session that one has answered stays with it.
    pub fn set_providers(
        &self,
        model: impl Into<String>,
        providers: impl IntoIterator<Item = Provider>,
    ) {
        self.server
            .state()
            .models
            .insert(model.into(), providers.into_iter().collect());
    }

    /// Every request that it has seen, in the order in which they came.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.log().requests()
    }

    /// The record of its calls.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The same, and forgets them. None that comes meanwhile is lost.
    pub fn take_requests(&self) -> Vec<SeenRequest> {
        self.log().take()
    }

    /// Forgets the requests that it has seen. Providers keep their caches.
    pub fn forget_requests(&self) {
        self.take_requests();
    }

    /// Asserts that there were requests and that all were in this session, whatever the turn.
    ///
    /// # Panics
    ///
    /// With a list of the requests that were not.
    #[track_caller]
    pub fn assert_every_request_in(&self, session: &Session) {
        let id = session.id().as_str();
        assert_each(&self.requests(), &format!("in session {id}"), |request| {
            request.session.as_deref() == Some(id)
        });
    }

    /// Asserts that there were requests and that all were in a session.
    ///
    /// # Panics
    ///
    /// With a list of the requests that were not.
    #[track_caller]
    pub fn assert_no_session_missing(&self) {
        assert_each(&self.requests(), "in a session", |request| {
            request.session.is_some()
        });
    }

    /// Asserts that there were requests and that all named this client.
    ///
    /// # Panics
    ///
    /// With a list of the requests that did not.
    #[track_caller]
    pub fn assert_every_client_is(&self, name: &str) {
        assert_each(
            &self.requests(),
            &format!("from client {name}"),
            |request| request.client.as_deref() == Some(name),
        );
    }
}

/// Settings for a [`Gateway`]. Made by [`Gateway::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct GatewayBuilder {
    address: SocketAddr,
    state: State,
}

impl GatewayBuilder {
    /// The address to listen on, instead of a free port of the loopback interface.
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// Takes another key, too, of another workspace.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.state.keys.push(key.into());
        self
    }

    /// How much the gateway and its log keep.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.state.log = Log::with_limits(limits);
        self
    }

    /// The providers of this model, instead of those that every model has.
    pub fn providers(
        mut self,
        model: impl Into<String>,
        providers: impl IntoIterator<Item = Provider>,
    ) -> Self {
        self.state
            .models
            .insert(model.into(), providers.into_iter().collect());
        self
    }

    /// Starts the gateway.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on, or the system gives no thread.
    pub fn start(self) -> io::Result<Gateway> {
        Ok(Gateway {
            log: self.state.log.clone(),
            server: Server::start(self.address, self.state)?,
        })
    }
}

/// Panics with the requests that miss what all must have, or where there is no request at all.
#[track_caller]
fn assert_each(requests: &[SeenRequest], expectation: &str, meets: impl Fn(&SeenRequest) -> bool) {
    assert!(
        !requests.is_empty(),
        "the gateway saw no request, expected some {expectation}"
    );
    let missed: Vec<_> = requests.iter().filter(|request| !meets(request)).collect();
    let list: String = missed
        .iter()
        .map(|request| format!("\n  {request}"))
        .collect();
    assert!(
        missed.is_empty(),
        "{} of {} requests were not {expectation}:{list}",
        missed.len(),
        requests.len(),
    );
}
