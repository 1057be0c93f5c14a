//! `opencode_session` in a chain of calls: what it keeps, and how it fails.

use std::error::Error as _;
use std::io::Cursor;
use std::time::Duration;

use futures::stream;
use http::Version;
use reqwest_opencode_session::{
    Fallback, MissingSession, OpencodeSessionMiddleware, RequestBuilderError, RequestBuilderExt,
    Session, header,
};

use crate::stack::reqwest::{self, Body, blocking};
use crate::stack::reqwest_middleware::Error;
use crate::support::{Elsewhere, plain_client};

const URL: &str = "https://opencode.ai/zen/v1/messages";
const NOT_A_URL: &str = "not a URL";

fn rejecting() -> OpencodeSessionMiddleware {
    let builder = OpencodeSessionMiddleware::builder().fallback(Fallback::Reject);
    builder.build().unwrap()
}

fn blocking_client() -> blocking::Client {
    blocking::Client::builder().no_proxy().build().unwrap()
}

// What it keeps

#[tokio::test]
async fn a_body_that_is_a_stream_and_cannot_be_cloned_arrives_whole() {
    let server = Elsewhere::quiet().await;
    let url = format!("http://{}", server.address);
    let middleware = OpencodeSessionMiddleware::builder()
        .target(&*url)
        .build()
        .unwrap();
    let pieces = ["one ", "two ", "three"].map(Ok::<_, std::io::Error>);
    let request = plain_client()
        .post(&url)
        .body(Body::wrap_stream(stream::iter(pieces)))
        .opencode_session(&middleware)
        .unwrap();
    assert!(request.try_clone().is_none());
    request.send().await.unwrap();
    let [seen] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(seen.body, "one two three");
    assert!(seen.headers.contains_key(header::SESSION));
}

#[tokio::test]
async fn a_blocking_body_that_is_read_arrives_whole() {
    let server = Elsewhere::quiet().await;
    let url = format!("http://{}", server.address);
    let middleware = OpencodeSessionMiddleware::builder()
        .target(&*url)
        .build()
        .unwrap();
    let send = move || {
        let request = blocking_client()
            .post(&url)
            .body(blocking::Body::new(Cursor::new("one two three")))
            .opencode_session(&middleware)
            .unwrap();
        request.send().unwrap();
    };
    tokio::task::spawn_blocking(send).await.unwrap();
    let [seen] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_eq!(seen.body, "one two three");
    assert!(seen.headers.contains_key(header::SESSION));
}

#[test]
fn method_url_headers_timeout_version_and_body_are_what_they_were() {
    let timeout = Duration::from_secs(7);
    let build = || {
        let request = plain_client()
            .put(URL)
            .header("x-own", "kept")
            .timeout(timeout);
        request.version(Version::HTTP_11).body("the body")
    };
    let before = build().build().unwrap();
    let session = Session::new();
    let middleware = OpencodeSessionMiddleware::new().bound_to(&session);
    let mut after = build()
        .opencode_session(&middleware)
        .unwrap()
        .build()
        .unwrap();
    assert_eq!(after.headers()[header::SESSION], session.id().as_str());
    after.headers_mut().remove(header::SESSION);
    assert_eq!(after.headers(), before.headers());
    assert_eq!(
        (after.method(), after.url()),
        (before.method(), before.url())
    );
    assert_eq!(after.timeout(), Some(&timeout));
    assert_eq!(after.version(), Version::HTTP_11);
    assert_eq!(after.body().unwrap().as_bytes(), Some(&b"the body"[..]));
}

#[test]
fn a_blocking_request_keeps_the_same() {
    let timeout = Duration::from_secs(7);
    let session = Session::new();
    let middleware = OpencodeSessionMiddleware::new().bound_to(&session);
    let request = blocking_client()
        .put(URL)
        .header("x-own", "kept")
        .timeout(timeout);
    let request = request.version(Version::HTTP_11).body("the body");
    let request = request
        .opencode_session(&middleware)
        .unwrap()
        .build()
        .unwrap();
    assert_eq!(request.headers()[header::SESSION], session.id().as_str());
    assert_eq!(request.headers()["x-own"], "kept");
    assert_eq!(
        (request.method().as_str(), request.url().as_str()),
        ("PUT", URL)
    );
    assert_eq!(request.timeout(), Some(&timeout));
    assert_eq!(request.version(), Version::HTTP_11);
    assert_eq!(request.body().unwrap().as_bytes(), Some(&b"the body"[..]));
}

// How it fails

#[test]
fn a_builders_own_error_is_told_from_a_missing_session() {
    fn assert_told<B>(of_builder: B, without_session: B)
    where
        B: RequestBuilderExt<BuildError = reqwest::Error>,
    {
        let refused = |builder: B| builder.opencode_session(&rejecting()).err().unwrap();
        let error = refused(of_builder);
        assert_eq!(
            error.to_string(),
            "reqwest could not build the request; check its URL and headers"
        );
        assert!(error.source().unwrap().is::<reqwest::Error>());
        let RequestBuilderError::Build(error) = error else {
            panic!("{error:?}");
        };
        assert!(error.is_builder());

        let error = refused(without_session);
        let message = error.to_string();
        let RequestBuilderError::MissingSession(missing) = error else {
            panic!("{error:?}");
        };
        // It says itself what to do.
        assert_eq!(message, missing.to_string());
        assert_eq!(missing.url(), URL);
    }

    let client = plain_client();
    assert_told(client.get(NOT_A_URL), client.get(URL));
    let client = blocking_client();
    assert_told(client.get(NOT_A_URL), client.get(URL));
}

#[test]
fn the_error_goes_by_a_question_mark_into_anyhow() {
    fn build(url: &str) -> anyhow::Result<reqwest::RequestBuilder> {
        Ok(plain_client().get(url).opencode_session(&rejecting())?)
    }

    let error = build(URL).unwrap_err();
    let error = error.downcast::<RequestBuilderError<reqwest::Error>>();
    assert!(matches!(error, Ok(RequestBuilderError::MissingSession(_))));
    let error = build(NOT_A_URL).unwrap_err();
    assert!(error.chain().any(|cause| cause.is::<reqwest::Error>()));
}

#[test]
fn the_error_goes_by_a_question_mark_into_that_of_its_generation_of_reqwest_middleware() {
    fn build(url: &str) -> Result<reqwest::RequestBuilder, Error> {
        Ok(plain_client().get(url).opencode_session(&rejecting())?)
    }

    // The same error as that of a chain.
    match build(URL).unwrap_err() {
        Error::Middleware(error) => assert!(error.is::<MissingSession>()),
        error => panic!("{error:?}"),
    }
    match build(NOT_A_URL).unwrap_err() {
        Error::Reqwest(error) => assert!(error.is_builder()),
        error => panic!("{error:?}"),
    }
}
