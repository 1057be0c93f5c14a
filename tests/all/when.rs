//! When each entry point reads the session.

use std::future::Ready;
use std::task::{Context, Poll};

use futures::FutureExt;
use http::{Extensions, Uri};
use reqwest_opencode_session::{
    Fallback, OpencodeSessionMiddleware, RequestBuilderExt, Session, WithSession,
};
use tower::buffer::Buffer;
use tower::limit::ConcurrencyLimit;
use tower::{BoxError, Layer, Service, ServiceExt};

use crate::stack::reqwest::{Request, Response};
use crate::stack::reqwest_middleware::{ClientBuilder, Middleware, Next, Result};
use crate::support::{
    CHAT, PROMPT, assert_carries, chat, client_with, middleware_for, only, plain_client, start,
};

fn rejecting() -> OpencodeSessionMiddleware {
    let builder = OpencodeSessionMiddleware::builder().fallback(Fallback::Reject);
    builder.build().unwrap()
}

#[tokio::test]
async fn an_entry_point_that_takes_a_request_reads_the_session_at_once() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let (session, later) = (Session::new().turn(), Session::new());
    let client = plain_client();
    let builder = || client.post(gateway.url(CHAT)).body(PROMPT);

    // The scope must be around the call of `opencode_session`, and not around `send`.
    let in_time = session
        .in_scope(|| builder().opencode_session(&middleware))
        .unwrap();
    in_time.send().with_session(&later).await.unwrap();
    assert_carries(&only(&gateway), &session);
    let too_late = async { builder().opencode_session(&middleware) };
    assert!(too_late.await.is_err());

    let middleware = rejecting();
    let uri = Uri::from_static("https://opencode.ai/zen/v1/messages");
    let mut request = http::Request::post(uri.clone()).body(()).unwrap();
    middleware.apply(&mut request).unwrap_err();
    middleware.headers_for(&uri).unwrap_err();
    let headers = session.in_scope(|| {
        middleware.apply(&mut request).unwrap();
        middleware.headers_for(&uri).unwrap()
    });
    assert_eq!(headers, session.headers());
    assert_eq!(*request.headers(), headers);
}

#[tokio::test]
async fn a_chain_and_a_layer_read_the_session_when_the_future_that_sends_is_polled() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let (early, session) = (Session::new(), Session::new().turn());
    let client = client_with(middleware.clone());
    let service = middleware.layer().layer(plain_client());

    // Built in one session, sent in another.
    let sending = early.in_scope(|| chat(&client, &gateway).send());
    sending.with_session(&session).await.unwrap();
    assert_carries(&gateway.take_requests()[0], &session);
    let request = || plain_client().post(gateway.url(CHAT)).build().unwrap();
    let sending = early.in_scope(|| service.clone().oneshot(request()));
    sending.with_session(&session).await.unwrap();
    assert_carries(&gateway.take_requests()[0], &session);

    // A service reads the session in `call`; its future does not.
    let mut service = service;
    let ready = ServiceExt::<Request>::ready(&mut service).await.unwrap();
    let called = session.in_scope(|| ready.call(request()));
    called.with_session(&early).await.unwrap();
    assert_carries(&only(&gateway), &session);
}

/// Puts whatever is below it into its tenant's session, as an application would write it.
struct Tenant(Session);

#[async_trait::async_trait]
impl Middleware for Tenant {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        next.run(request, extensions).with_session(&self.0).await
    }
}

#[tokio::test]
async fn a_middleware_above_may_put_the_call_into_a_session() {
    let gateway = start();
    let tenant = Session::new().turn();
    for fallback in [Fallback::Process, Fallback::Reject] {
        let middleware = middleware_for(&gateway).fallback(fallback);
        let client = ClientBuilder::new(plain_client())
            .with(Tenant(tenant.clone()))
            .with(middleware.build().unwrap())
            .build();
        // Outside every conversation, and inside another one.
        for around in [None, Some(Session::new().turn())] {
            let call = chat(&client, &gateway).send();
            call.with_session(around).await.unwrap();
            assert_carries(&gateway.take_requests()[0], &tenant);
        }
    }
}

#[tokio::test]
async fn after_a_refusal_the_service_below_keeps_what_it_had_reserved_for_its_next_call() {
    let gateway = start();
    let middleware = middleware_for(&gateway).fallback(Fallback::Reject);
    let middleware = middleware.build().unwrap();
    let mut service = middleware
        .layer()
        .layer(ConcurrencyLimit::new(plain_client(), 1));
    let request = || plain_client().post(gateway.url(CHAT)).build().unwrap();

    let ready = ServiceExt::<Request>::ready(&mut service).await.unwrap();
    ready.call(request()).await.unwrap_err();
    // The only permit is still taken.
    let mut clone = service.clone();
    assert!(
        ServiceExt::<Request>::ready(&mut clone)
            .now_or_never()
            .is_none()
    );
    // The service itself may go on with it.
    let session = Session::new();
    let ready = ServiceExt::<Request>::ready(&mut service).now_or_never();
    let called = session.in_scope(|| ready.unwrap().unwrap().call(request()));
    called.await.unwrap();
    assert_carries(&only(&gateway), &session);
    assert!(
        ServiceExt::<Request>::ready(&mut clone)
            .now_or_never()
            .is_some()
    );
}

#[tokio::test]
async fn a_buffer_above_the_layer_calls_it_outside_every_scope() {
    let gateway = start();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let session = Session::new().turn();
    let call = async |middleware: &OpencodeSessionMiddleware| {
        let service = Buffer::new(middleware.layer().layer(plain_client()), 1);
        let request = plain_client().post(gateway.url(CHAT)).build().unwrap();
        service.oneshot(request).with_session(&session).await
    };
    assert!(call(&middleware).boxed_local().await.is_err());
    // A bound middleware helps.
    call(&middleware.bound_to(&session)).await.unwrap();
    assert_carries(&only(&gateway), &session);
}

#[tokio::test]
async fn a_service_that_never_gets_ready_says_so_through_the_layer() {
    struct Broken;

    impl Service<http::Request<()>> for Broken {
        type Response = ();
        type Error = BoxError;
        type Future = Ready<std::result::Result<(), BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
            Poll::Ready(Err("broken".into()))
        }

        fn call(&mut self, _: http::Request<()>) -> Self::Future {
            unreachable!("it was not ready")
        }
    }

    let service = OpencodeSessionMiddleware::new().layer().layer(Broken);
    let error = service.oneshot(http::Request::new(())).await.unwrap_err();
    assert_eq!(error.to_string(), "broken");
}
