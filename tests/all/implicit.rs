//! A running gateway is a target of every middleware in the process, so applications are tested
//! unchanged.

use http::Uri;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session};

use crate::support::{
    CHAT, assert_carries, chat, client_with, only, start, start_stranger, values,
};

/// The middleware of an application that knows nothing of the test.
static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

fn is_target(url: &str) -> bool {
    let url: Uri = url.parse().unwrap();
    let headers = OPENCODE.headers_for(&url).unwrap();
    assert_eq!(headers.is_empty(), !OPENCODE.is_target(&url));
    OPENCODE.is_target(&url)
}

#[tokio::test]
async fn an_application_that_names_no_target_is_in_its_session_at_a_running_gateway() {
    let gateway = start();
    let session = Session::new().turn();
    let client = client_with(OPENCODE.bound_to(&session));
    chat(&client, &gateway).send().await.unwrap();
    assert_carries(&only(&gateway), &session);
}

#[tokio::test]
async fn localhost_is_the_same_gateway() {
    let gateway = start();
    let session = Session::new().turn();
    let client = client_with(OPENCODE.bound_to(&session));
    let port = gateway.address().port();
    let url = format!("http://localhost:{port}{CHAT}");
    assert!(is_target(&url) && is_target(&format!("http://LOCALHOST.:{port}/")));
    client.post(url).send().await.unwrap();
    assert_carries(&only(&gateway), &session);
}

#[test]
fn only_the_gateways_own_origin_is_a_target() {
    let gateway = start();
    let port = gateway.address().port();
    assert!(is_target(&gateway.url("/")));
    for other in [
        format!("https://127.0.0.1:{port}/"),
        format!("http://127.0.0.2:{port}/"),
        format!("http://gateway.localhost:{port}/"),
        "http://127.0.0.1/".to_owned(),
    ] {
        assert!(!is_target(&other), "{other}");
    }
}

#[test]
fn the_gateway_is_no_target_any_more_when_drop_returns() {
    // On an address where no other test's gateway can take the port.
    let start = || {
        let address = ([127, 77, 0, 1], 0).into();
        Gateway::builder().address(address).start().unwrap()
    };
    let [first, second] = [start(), start()];
    let [first_url, second_url] = [first.url("/"), second.url("/")];
    assert!(is_target(&first_url) && is_target(&second_url));
    drop(first);
    assert!(!is_target(&first_url) && is_target(&second_url));
    drop(second);
    assert!(!is_target(&first_url) && !is_target(&second_url));
}

#[test]
fn a_gateway_that_ends_takes_no_other_gateways_localhost_along() {
    let start = |address: [u8; 4], port| {
        let address = (address, port).into();
        Gateway::builder().address(address).start().unwrap()
    };
    // On addresses of their own, with one port, so that `localhost` is both.
    let first = start([127, 77, 0, 2], 0);
    let port = first.address().port();
    let second = start([127, 77, 0, 3], port);
    let localhost = format!("http://localhost:{port}/");
    assert!(is_target(&localhost));
    drop(first);
    assert!(is_target(&localhost) && is_target(&second.url("/")));
    drop(second);
    assert!(!is_target(&localhost));
}

#[tokio::test]
async fn a_target_that_the_middleware_names_itself_goes_first() {
    let gateway = start();
    let target = gateway.target().session_header("x-own-session").unwrap();
    let middleware = OpencodeSessionMiddleware::builder().targets([target]);
    let session = Session::new().turn();
    let client = client_with(middleware.build().unwrap().bound_to(&session));
    chat(&client, &gateway).send().await.unwrap();
    let seen = only(&gateway);
    assert_eq!(
        values(&seen, "x-own-session"),
        [session.id().as_str().as_bytes()]
    );
    assert_eq!(values(&seen, "x-opencode-session"), [b""; 0]);
    assert_eq!(seen.turn, None);
}

#[tokio::test]
async fn a_gateway_that_plays_the_stranger_is_a_target_only_where_it_is_named() {
    let stranger = start_stranger();
    let session = Session::new();
    assert!(!is_target(&stranger.url("/")));
    let client = client_with(OPENCODE.bound_to(&session));
    chat(&client, &stranger).send().await.unwrap();
    assert_eq!(stranger.take_requests()[0].session, None);

    let middleware = OpencodeSessionMiddleware::builder().target(stranger.target());
    let client = client_with(middleware.build().unwrap().bound_to(&session));
    chat(&client, &stranger).send().await.unwrap();
    assert_carries(&only(&stranger), &session);
}

#[test]
fn a_gateway_on_an_address_of_its_own_is_a_target_there() {
    let address = start().address();
    let gateway = Gateway::builder().address(address).start().unwrap();
    assert!(is_target(&gateway.url("/")));
}
