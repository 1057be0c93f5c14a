//! What a log keeps, and how to find it.

use http::{Method, StatusCode};
use reqwest_opencode_session::testing::Limits;
use reqwest_opencode_session::testing::record::{Answer, Log};
use serde_json::json;

use super::support::{record, user};
use crate::support::CHAT;

#[test]
fn the_latest_call_is_kept_though_every_earlier_one_stands_out() {
    let log = Log::with_limits(Limits::default().requests(2));
    let body = json!({"model": "m", "messages": [user("Hello")]}).to_string();
    let refused = || {
        let number = record(&log, Method::POST, CHAT, &body);
        log.answer(number, &Answer::with_status(StatusCode::BAD_REQUEST));
        number
    };
    let refusals = [refused(), refused(), refused()];
    let kept = || -> Vec<u64> { log.requests().iter().map(|call| call.number).collect() };
    assert_eq!(kept(), refusals[1..]);
    assert_eq!((log.dropped(), log.dropped_faults()), (1, 0));

    let models = record(&log, Method::GET, "/zen/v1/models", "");
    assert_eq!(kept(), [refusals[2], models]);
    // A later refusal is kept instead of it.
    let refusal = refused();
    assert_eq!(kept(), [refusals[2], refusal]);
    assert_eq!((log.dropped(), log.dropped_faults()), (3, 0));
}

#[test]
fn a_request_is_found_by_its_number_and_the_latest_by_a_condition() {
    let log = Log::default();
    for path in ["/1", "/2", "/3", "/4", "/5"] {
        record(&log, Method::GET, path, "");
    }
    assert_eq!(log.get(2).unwrap().path, "/2");
    assert!(log.get(6).is_none());
    let latest = |before, count| {
        let latest = log.latest(before, count, |seen| seen.path != "/3");
        let numbers = latest.iter().map(|seen| seen.number);
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(latest(u64::MAX, 2), [5, 4]);
    assert_eq!(latest(5, 2), [4, 2]);
    assert_eq!(latest(5, 10), [4, 2, 1]);
    assert_eq!(log.take().len(), 5);
    assert!(log.get(2).is_none());
}
