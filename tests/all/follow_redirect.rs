//! tower-http's `FollowRedirect`, above the layer and below it.

use axum::body::Body;
use axum::response::Response;
use http::header::LOCATION;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reqwest_opencode_session::{
    Fallback, OpencodeSessionMiddleware, RedirectRefused, Session, WithSession,
};
use tower::{BoxError, Layer, ServiceExt};
use tower_http::follow_redirect::FollowRedirect;
use tower_http::follow_redirect::policy::{Action, Attempt, RedirectFn, redirect_fn};

use crate::support::Elsewhere;

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A server that answers `/to/ADDRESS` with a redirect to the root of that server.
async fn server() -> Elsewhere {
    Elsewhere::start(|head| match head.uri.path().strip_prefix("/to/") {
        None => Response::default(),
        Some(address) => Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(LOCATION, format!("http://{address}/"))
            .body(Body::empty())
            .unwrap(),
    })
    .await
}

fn request(from: &Elsewhere, to: &Elsewhere) -> Request<Full<Bytes>> {
    let url = format!("http://{}/to/{}", from.address, to.address);
    Request::post(url).body(Full::default()).unwrap()
}

fn middleware(targets: &[&Elsewhere]) -> OpencodeSessionMiddleware {
    let targets = targets
        .iter()
        .map(|server| format!("http://{}", server.address));
    let builder = OpencodeSessionMiddleware::builder().targets(targets);
    builder.fallback(Fallback::Reject).build().unwrap()
}

/// The sessions that a server has seen, and one `None` for each request without.
fn sessions(server: &Elsewhere) -> Vec<Option<String>> {
    let seen = server.requests();
    let session = |headers: &http::HeaderMap| headers.get("x-opencode-session").cloned();
    let sessions = seen.iter().map(|seen| session(&seen.headers));
    sessions
        .map(|id| id.map(|id| id.to_str().unwrap().to_owned()))
        .collect()
}

#[tokio::test]
async fn above_the_layer_each_hop_is_a_request_that_gets_what_its_own_address_may_have() {
    let (target, other, stranger) = (server().await, server().await, server().await);
    let middleware = middleware(&[&target, &other]);
    let service = FollowRedirect::new(middleware.layer().layer(client()));
    let session = Session::new();
    let id = Some(session.id().to_string());

    for to in [&other, &stranger] {
        let call = service.clone().oneshot(request(&target, to));
        call.with_session(&session).await.unwrap();
    }
    assert_eq!(sessions(&target), [id.clone(), id.clone()]);
    assert_eq!(sessions(&other), [id]);
    assert_eq!(sessions(&stranger), [None]);
}

#[tokio::test]
async fn above_the_layer_the_second_hop_has_no_extensions() {
    let (target, other) = (server().await, server().await);
    let middleware = middleware(&[&target, &other]);
    let service = FollowRedirect::new(middleware.layer().layer(client()));
    let session = Session::new();

    let mut in_extensions = request(&target, &other);
    in_extensions.extensions_mut().insert(session.clone());
    // Nothing else gives the second hop a session.
    service.oneshot(in_extensions).await.unwrap_err();
    assert_eq!(sessions(&target), [Some(session.id().to_string())]);
    assert_eq!(sessions(&other), [None; 0]);

    // A bound middleware helps, as a scope does.
    let bound = middleware.bound_to(&session);
    let service = FollowRedirect::new(bound.layer().layer(client()));
    service.oneshot(request(&target, &other)).await.unwrap();
    assert_eq!(sessions(&other), [Some(session.id().to_string())]);
}

/// The policy that the documentation of `layer` shows.
fn policy(
    middleware: OpencodeSessionMiddleware,
) -> RedirectFn<impl FnMut(&Attempt<'_>) -> Result<Action, BoxError> + Clone> {
    redirect_fn(move |attempt: &Attempt<'_>| {
        middleware.check_redirect(&[attempt.previous().clone()], attempt.location())?;
        Ok(Action::Follow)
    })
}

#[tokio::test]
async fn below_the_layer_a_policy_made_of_check_redirect_keeps_the_session_on_its_targets() {
    let (target, other, stranger) = (server().await, server().await, server().await);
    let middleware = middleware(&[&target, &other]);
    let client = client().map_err(BoxError::from);
    let client = FollowRedirect::with_policy(client, policy(middleware.clone()));
    let service = middleware.layer().layer(client);
    let session = Session::new();
    let id = Some(session.id().to_string());

    let call = service.clone().oneshot(request(&target, &other));
    call.with_session(&session).await.unwrap();
    assert_eq!(sessions(&other), [id]);

    for from in [&target, &other] {
        let call = service.clone().oneshot(request(from, &stranger));
        let refused = call.with_session(&session).await.unwrap_err();
        assert!(refused.is::<RedirectRefused>(), "{refused}");
    }
    // A chain that began elsewhere carries nothing.
    service
        .oneshot(request(&stranger, &stranger))
        .await
        .unwrap();
    assert_eq!(sessions(&stranger), [None, None]);
}

#[tokio::test]
async fn below_the_layer_without_that_policy_the_session_goes_along() {
    let (target, stranger) = (server().await, server().await);
    let service = middleware(&[&target])
        .layer()
        .layer(FollowRedirect::new(client()));
    let session = Session::new();
    let call = service.oneshot(request(&target, &stranger));
    call.with_session(&session).await.unwrap();
    assert_eq!(sessions(&stranger), [Some(session.id().to_string())]);
}
