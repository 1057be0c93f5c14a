//! What the library promises, under WebAssembly: ids, targets, scopes, the rule and its adapters.

use std::collections::HashSet;

use futures::FutureExt;
use http::{HeaderMap, Uri};
use reqwest_opencode_session::{
    Applied, Fallback, OpencodeSessionMiddleware, RequestBuilderExt, Session, SessionId, Source,
    Target, WithSession, header,
};
use wasm_bindgen_test::wasm_bindgen_test;

static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();

fn call() -> Uri {
    Uri::from_static("https://opencode.ai/zen/go/v1/messages")
}

#[wasm_bindgen_test]
fn ids_are_random_and_derived_ids_are_the_same_as_everywhere() {
    let ids: HashSet<_> = (0..1000).map(|_| SessionId::new()).collect();
    assert_eq!(ids.len(), 1000);
    let derived = SessionId::derive("my-agent", "notes");
    assert_eq!(derived, "d8a2bf09-907a-5042-b637-9eedce66b1af");
}

#[wasm_bindgen_test]
fn targets_are_whole_origins() {
    let target: Target = "https://*.example.com".parse().unwrap();
    for (url, matches) in [
        ("https://eu.example.com/v1", true),
        ("https://example.com/v1", false),
        ("https://example.com.evil.test/v1", false),
        ("http://eu.example.com/v1", false),
    ] {
        assert_eq!(target.matches(&Uri::from_static(url)), matches, "{url}");
        assert_eq!(
            target.matches(&url.parse::<reqwest::Url>().unwrap()),
            matches,
            "{url}"
        );
    }
}

#[wasm_bindgen_test]
fn a_request_to_a_target_carries_the_session_and_any_other_request_none() {
    let session = Session::new().subagent().turn();
    let headers = OPENCODE.bound_to(&session).headers_for(&call()).unwrap();
    assert_eq!(headers, session.headers());
    let elsewhere = Uri::from_static("https://example.com/");
    let headers = OPENCODE.bound_to(&session).headers_for(&elsewhere).unwrap();
    assert_eq!(headers, HeaderMap::new());
}

#[wasm_bindgen_test]
fn the_scope_around_a_future_is_in_place_while_it_is_polled_and_no_longer() {
    let session = Session::new();
    let sent = async { OPENCODE.headers_for(&call()).unwrap() };
    let sent = sent.with_session(&session).now_or_never().unwrap();
    assert_eq!(sent[header::SESSION], session.id().as_str());
    assert_eq!(Session::current(), None);
    assert_eq!(session.in_scope(Session::current), Some(session));
}

#[wasm_bindgen_test]
fn the_fallback_is_the_processs_session_or_a_refusal() {
    let mut request = http::Request::post(call()).body(()).unwrap();
    let applied = OPENCODE.apply(&mut request).unwrap();
    assert_eq!(applied, Applied::Session(Source::Fallback));
    let id = Session::process().id().clone();
    assert_eq!(request.headers()[header::SESSION], id.as_str());

    let strict = OpencodeSessionMiddleware::builder().fallback(Fallback::Reject);
    let refused = strict.build().unwrap().headers_for(&call()).unwrap_err();
    assert_eq!(refused.url(), call().to_string());
}

#[wasm_bindgen_test]
fn what_was_carried_out_of_no_session_runs_in_none() {
    let carried = async { Session::current() }.with_current_session();
    let inside = carried.with_session(Session::new());
    assert_eq!(inside.now_or_never().unwrap(), None);
    let carried = Session::carry(Session::current);
    assert_eq!(Session::new().in_scope(carried), None);
}

#[wasm_bindgen_test]
fn a_session_under_another_name_is_sent_before_the_fallback() {
    let mut request = http::Request::post(call()).body(()).unwrap();
    let theirs = http::HeaderValue::from_static("theirs");
    request.headers_mut().insert("session_id", theirs);
    let applied = OPENCODE.apply(&mut request).unwrap();
    assert_eq!(applied, Applied::Session(Source::OtherHeader));
    assert_eq!(request.headers()[header::SESSION], "theirs");
}

#[wasm_bindgen_test]
fn clients_and_request_builders_of_reqwest_have_their_entry_points() {
    let client = reqwest::Client::new();
    let session = Session::new();
    let request = client
        .post(call().to_string())
        .opencode_session(&OPENCODE.bound_to(&session))
        .unwrap();
    let request = request.build().unwrap();
    assert_eq!(request.headers()[header::SESSION], session.id().as_str());

    let _client: reqwest_middleware::ClientWithMiddleware = OPENCODE
        .clone()
        .into_client(reqwest::Client::builder())
        .unwrap();
}
