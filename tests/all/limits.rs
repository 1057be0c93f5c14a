//! Limits that cannot be avoided, so they are documented: a test for each sentence.

use http::{Extensions, HeaderMap, HeaderValue, Uri};
use reqwest_opencode_session::{
    Applied, ExistingHeader, Fallback, OpencodeSessionMiddleware, Session, WithSession, header,
};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

use crate::stack::reqwest::{self, Request, Response, Url};
use crate::stack::reqwest_middleware::{ClientBuilder, Middleware, Next, Result};
use crate::support::{
    CHAT, assert_carries, middleware_for, only, plain_client, start, start_stranger, values,
};

#[test]
fn a_local_set_that_is_driven_inside_a_scope_runs_its_tasks_inside() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let session = Session::new();
    let local = LocalSet::new();
    let before = local.spawn_local(async { Session::current() });
    let inside = async {
        let task = spawn_local(async { Session::current() });
        [before.await.unwrap(), task.await.unwrap()]
    };
    let seen = runtime.block_on(local.run_until(inside).with_session(&session));
    assert_eq!(seen, [Some(session.clone()), Some(session)]);
}

#[test]
fn a_runtime_that_is_driven_inside_a_scope_runs_its_tasks_inside() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let session = Session::new();
    let spawned = async { tokio::spawn(async { Session::current() }).await.unwrap() };
    let seen = session.in_scope(|| runtime.block_on(spawned));
    assert_eq!(seen, Some(session));
    // A runtime that is driven outside does not.
    let spawned = async { tokio::spawn(async { Session::current() }).await.unwrap() };
    assert_eq!(runtime.block_on(spawned), None);
}

#[test]
fn a_uri_without_scheme_and_host_is_for_no_target_even_where_sessions_are_demanded() {
    let middleware = OpencodeSessionMiddleware::builder()
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    for path in ["/zen/go/v1/messages", "opencode.ai:443", "*"] {
        let mut request = http::Request::post(path)
            .header("host", "opencode.ai")
            .body(())
            .unwrap();
        assert_eq!(
            middleware.apply(&mut request),
            Ok(Applied::NoTarget),
            "{path}"
        );
        // With its whole URI, the same request is for a target.
        let whole = Uri::from_static("https://opencode.ai/zen/go/v1/messages");
        let (mut parts, ()) = request.into_parts();
        let refused = middleware.apply_parts(&whole, &mut parts.headers, &mut parts.extensions);
        assert!(refused.is_err());
    }
}

#[tokio::test]
async fn under_omit_a_session_that_is_pinned_in_the_default_headers_goes_out() {
    let gateway = start();
    let pinned = HeaderMap::from_iter([(header::SESSION, HeaderValue::from_static("pinned"))]);
    let client = reqwest::Client::builder()
        .no_proxy()
        .default_headers(pinned);
    let client = client.build().unwrap();
    for existing in [ExistingHeader::Keep, ExistingHeader::Replace] {
        let middleware = middleware_for(&gateway)
            .fallback(Fallback::Omit)
            .existing_header(existing)
            .build()
            .unwrap();
        let client = ClientBuilder::new(client.clone()).with(middleware).build();
        client.post(gateway.url(CHAT)).send().await.unwrap();
        let request = gateway.take_requests().remove(0);
        assert_eq!(values(&request, "x-opencode-session"), [b"pinned"]);
    }
}

/// Sends every request to another server, as a failover does.
struct Failover(Url);

#[async_trait::async_trait]
impl Middleware for Failover {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        *request.url_mut() = self.0.clone();
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn a_failover_stands_above_the_middleware_for_below_it_the_session_would_go_along() {
    let (gateway, stranger) = (start(), start_stranger());
    let session = Session::new().turn();
    let call = async |from: String, above: Option<Failover>, below: Option<Failover>| {
        let mut client = ClientBuilder::new(plain_client());
        if let Some(failover) = above {
            client = client.with(failover);
        }
        client = client.with(middleware_for(&gateway).build().unwrap());
        if let Some(failover) = below {
            client = client.with(failover);
        }
        client
            .build()
            .post(from)
            .send()
            .with_session(&session)
            .await
            .unwrap();
    };
    let to = |gateway: &reqwest_opencode_session::testing::Gateway| {
        Some(Failover(gateway.url(CHAT).parse().unwrap()))
    };

    // With a failover above, the address that the request really goes to decides.
    call(gateway.url(CHAT), to(&stranger), None).await;
    assert_eq!(stranger.take_requests()[0].session, None);
    call(stranger.url(CHAT), to(&gateway), None).await;
    assert_carries(&only(&gateway), &session);
    // With one below, the address that the request was meant for decides.
    call(gateway.url(CHAT), None, to(&stranger)).await;
    assert_carries(&only(&stranger), &session);
}
