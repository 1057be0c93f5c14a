//! Ten thousand conversations at once, some of which panic or are cancelled. A middleware above puts
//! their calls into their tenant's session; one in three names its session in another header.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier as ThreadBarrier};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use http::Extensions;
use reqwest_opencode_session::testing::{Gateway, Limits, SeenRequest};
use reqwest_opencode_session::{Fallback, Session, WithSession, header};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::yield_now;

use crate::stack::reqwest::{Request, Response};
use crate::stack::reqwest_middleware::{
    ClientBuilder, ClientWithMiddleware, Middleware, Next, Result,
};
use crate::support::{chat, middleware_for, plain_client};

const CONVERSATIONS: usize = 10_000;
const WORKERS: usize = 4;
const CONNECTIONS: usize = 64;

/// How a conversation ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Normally,
    Panic,
    Cancelled,
}

impl End {
    fn of(conversation: usize) -> Self {
        match conversation % 10 {
            0 => Self::Panic,
            5 => Self::Cancelled,
            _ => Self::Normally,
        }
    }
}

/// How a conversation's calls get its session.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Scope,
    /// From a middleware above, inside another session.
    Tenant,
    /// From another header, as a proxy copies it.
    OtherName,
}

impl Way {
    fn of(conversation: usize) -> Self {
        [Self::Scope, Self::Tenant, Self::OtherName][conversation % 3]
    }

    async fn around<F: Future>(self, session: &Session, future: F) -> F::Output {
        match self {
            Self::Scope => future.with_session(session).await,
            Self::Tenant => {
                let strangers = future.with_session(Session::new().turn());
                TENANT.scope(session.clone(), strangers).await
            }
            Self::OtherName => future.await,
        }
    }
}

tokio::task_local!(static TENANT: Session);

/// Puts each call into the session of its tenant, if it has one.
struct Tenants;

#[async_trait::async_trait]
impl Middleware for Tenants {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let tenant = TENANT.try_with(Session::clone).ok();
        next.run(request, extensions).with_session(tenant).await
    }
}

struct World {
    gateway: Gateway,
    client: ClientWithMiddleware,
    /// Limits the calls at one time to the connections that can be reused.
    connections: Semaphore,
    /// Every conversation, and the task that waits for its end.
    begun: Barrier,
    answered: AtomicUsize,
}

impl World {
    /// A call that also says, in headers of its own, which session and turn it should be in.
    async fn call(&self, way: Way, session: &Session) {
        let permit = self.connections.acquire().await.unwrap();
        let around = Session::current();
        let parent = session.parent().map_or("", |id| id.as_str()).to_owned();
        let mut call = chat(&self.client, &self.gateway)
            .header("x-expected-session", session.id().as_str())
            .header("x-expected-turn", session.turn_id().unwrap().as_str())
            .header("x-expected-parent", parent);
        if way == Way::OtherName {
            let mut headers = session.headers();
            let id = headers.remove(header::SESSION).unwrap();
            call = call.headers(headers).header("session_id", id);
        }
        let response = call.send().await.unwrap();
        drop(permit);
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
        assert_eq!(Session::current(), around);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// A subagent that has a subagent, and so on.
    fn subagents(&self, way: Way, session: Session, depth: usize) -> BoxFuture<'_, ()> {
        async move {
            if depth > 0 {
                let around = Session::current();
                let subagent = session.subagent().turn();
                let work = self.subagents(way, subagent.clone(), depth - 1);
                way.around(&subagent, work).await;
                assert_eq!(Session::current(), around);
            }
            self.call(way, &session).await;
        }
        .boxed()
    }

    async fn conversation(&self, number: usize) {
        self.begun.wait().await;
        let (way, session) = (Way::of(number), Session::new());
        let turns = async {
            for turn in 0..3 {
                pause(number, turn).await;
                let around = Session::current();
                let in_turn = session.turn();
                match turn {
                    // Every hundredth conversation has subagents, three deep.
                    1 if number % 100 == 1 => {
                        let work = self.subagents(way, in_turn.clone(), 3);
                        way.around(&in_turn, work).await;
                    }
                    _ => way.around(&in_turn, self.call(way, &in_turn)).await,
                }
                if turn == 1 && End::of(number) == End::Panic {
                    resume_unwind(Box::new("on purpose"));
                }
                assert_eq!(Session::current(), around);
            }
        };
        way.around(&session, turns).await
    }
}

/// Yields to the others a few times, depending on the conversation and the turn.
async fn pause(number: usize, turn: usize) {
    let pauses = (number.wrapping_mul(0x9e37_79b9) >> (8 + turn)) % 7;
    for _ in 0..pauses {
        yield_now().await;
    }
}

#[test]
fn ten_thousand_conversations_at_once_are_each_in_their_own_session() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .unwrap();
    // All of them are checked in the end.
    let limits = Limits::default().requests(usize::MAX);
    let gateway = Gateway::builder().limits(limits).start().unwrap();
    // A call without a session fails.
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let world = Arc::new(World {
        client: ClientBuilder::new(plain_client())
            .with(Tenants)
            .with(middleware)
            .build(),
        gateway,
        connections: Semaphore::new(CONNECTIONS),
        begun: Barrier::new(2 * CONVERSATIONS),
        answered: AtomicUsize::default(),
    });
    let all = async {
        let conversations = (0..CONVERSATIONS).map(|number| {
            let world = Arc::clone(&world);
            async move {
                let conversation = {
                    let world = Arc::clone(&world);
                    async move { world.conversation(number).await }
                };
                let mut task = tokio::spawn(conversation);
                world.begun.wait().await;
                if End::of(number) == End::Cancelled {
                    // In the middle of a wait, a call or an answer.
                    let patience = Duration::from_millis(number as u64 % 1000);
                    if let Ok(ended) = tokio::time::timeout(patience, &mut task).await {
                        return ended;
                    }
                    task.abort();
                }
                task.await
            }
        });
        join_all(conversations).await
    };
    let ends = runtime.block_on(async {
        let limit = Duration::from_secs(120);
        tokio::time::timeout(limit, all)
            .await
            .expect("the conversations have not ended in time")
    });

    let mut cancelled = 0;
    for (number, end) in ends.iter().enumerate() {
        match (End::of(number), end) {
            (End::Panic, Err(error)) if error.is_panic() => {
                let panic = end.as_ref().unwrap_err().to_string();
                assert!(panic.contains("on purpose"), "{panic}");
            }
            (End::Cancelled, Err(error)) if error.is_cancelled() => cancelled += 1,
            (End::Normally | End::Cancelled, Ok(())) => {}
            (expected, end) => panic!("conversation {number}: {end:?}, expected {expected:?}"),
        }
    }
    assert!(cancelled > 0);

    let requests = world.gateway.requests();
    assert!(requests.len() >= world.answered.load(Ordering::Relaxed));
    assert!(world.answered.load(Ordering::Relaxed) > 2 * CONVERSATIONS);
    for request in &requests {
        let expected = |name: &str| {
            request.headers[name]
                .to_str()
                .ok()
                .filter(|id| !id.is_empty())
        };
        assert_eq!(request.session.as_deref(), expected("x-expected-session"));
        assert_eq!(request.turn.as_deref(), expected("x-expected-turn"));
        assert_eq!(request.parent.as_deref(), expected("x-expected-parent"));
    }
    assert!(requests.iter().any(|request| request.parent.is_some()));
    let named_otherwise = |request: &&SeenRequest| request.headers.contains_key("session_id");
    assert!(requests.iter().filter(named_otherwise).count() > requests.len() / 4);

    // A probe on every worker: the barrier lets none continue before all have started.
    let every_worker = Arc::new(ThreadBarrier::new(WORKERS));
    let probe = || {
        let every_worker = Arc::clone(&every_worker);
        async move {
            every_worker.wait();
            Session::current()
        }
    };
    let left =
        runtime.block_on(async { join_all((0..WORKERS).map(|_| tokio::spawn(probe()))).await });
    for session in left {
        assert_eq!(session.unwrap(), None);
    }
}
