//! The gateway under load: it serves several calls at once, and its memory is bounded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http::StatusCode;
use reqwest_opencode_session::testing::{Gateway, Limits, Mark};
use serde_json::json;

use super::support::{chat_in, client, message_of, post, start};
use crate::support::{CHAT, PROMPT};

/// A prompt of a few more bytes than this.
fn long_prompt(bytes: usize) -> String {
    let text = "x".repeat(bytes);
    format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "{text}"}}]}}"#)
}

#[tokio::test]
async fn others_are_answered_while_a_long_body_comes_in() {
    let gateway = start();
    let mut slow = TcpStream::connect(gateway.address()).unwrap();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: gateway\r\ncontent-length: 1000000\r\n\r\n");
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(&[b' '; 1000]).unwrap();
    for _ in 0..10 {
        let response = chat_in(&gateway, "s", &json!({"model": "m"})).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    // The slow call has not arrived as a request yet.
    assert_eq!(gateway.requests().len(), 10);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_and_seen() {
    let gateway = Gateway::builder()
        .limits(Limits::default().body(200_000))
        .start()
        .unwrap();
    for (bytes, status) in [(199_000, 200), (201_000, 413), (5_000_000, 413)] {
        let request = post(&gateway, CHAT).bearer_auth(Gateway::KEY);
        let request = request.header("x-opencode-session", "s");
        let response = request.body(long_prompt(bytes)).send().await.unwrap();
        assert_eq!(response.status(), status, "{bytes}");
        let seen = gateway.requests().pop().unwrap();
        assert_eq!(seen.status.unwrap(), status);
        assert_eq!(seen.body.is_some(), status == 200);
    }
    // With `expect: 100-continue`, a body that is too long is refused before it is sent.
    for (bytes, answered) in [(200_000, "100"), (200_001, "413")] {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {bytes}\r\n\
             expect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *format!("HTTP/1.1 {answered}").as_bytes());
    }
}

#[test]
fn a_body_without_end_is_refused_after_a_gibibyte() {
    let gateway = Gateway::builder()
        .limits(Limits::default().body(1000))
        .start()
        .unwrap();
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_write_timeout(limit).unwrap();
    stream.set_read_timeout(limit).unwrap();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\ncontent-length: {}\r\n\r\n",
        u64::MAX / 2
    );
    stream.write_all(head.as_bytes()).unwrap();
    // One byte more than the gateway reads and discards, in pieces of a mebibyte.
    let piece = [b' '; 1 << 20];
    for _ in 0..1 << 10 {
        stream.write_all(&piece).unwrap();
    }
    stream.write_all(&piece[..1001]).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn what_is_kept_has_bounds_and_what_is_dropped_is_said() {
    let limits = Limits::default().requests(10).bodies(3 * PROMPT.len());
    let gateway = Gateway::builder().limits(limits).start().unwrap();
    let call = async |session: Option<&str>| {
        let mut request = post(&gateway, CHAT).bearer_auth(Gateway::KEY).body(PROMPT);
        if let Some(session) = session {
            request = request.header("x-opencode-session", session);
        }
        request.send().await.unwrap();
    };
    call(None).await;
    for _ in 0..20 {
        call(Some("s")).await;
    }
    let requests = gateway.requests();
    assert_eq!(requests.len(), 10);
    // A call that stands out is dropped last.
    assert_eq!((requests[0].number, requests[1].number), (1, 13));
    assert_eq!(requests[0].marks, [Mark::Missing]);
    let bodies = requests.iter().filter(|request| request.body.is_some());
    assert_eq!(bodies.count(), 3);
    assert_eq!(gateway.log().dropped(), 11);
    assert_eq!(gateway.log().dropped_faults(), 0);

    gateway.take_requests();
    for _ in 0..11 {
        call(None).await;
    }
    assert_eq!(gateway.log().dropped_faults(), 1);
    assert!(message_of(|| gateway.assert_no_session_missing()).starts_with("10 of 10 calls"));
}

#[tokio::test]
async fn changes_are_told_once_each_and_in_their_order() {
    let gateway = start();
    let mut changes = gateway.log().changes();
    let call = async || chat_in(&gateway, "s", &json!({"model": "m"})).await;
    for number in 1..=3 {
        call().await;
        let batch = changes.next().await.unwrap();
        assert_eq!(batch.len(), 1);
        assert_eq!(batch[0].number, number);
        assert_eq!(batch[0].status, Some(StatusCode::OK));
    }
    for _ in 0..3 {
        call().await;
    }
    gateway.take_requests();
    call().await;
    let numbers: Vec<_> = changes.next().await.unwrap();
    let numbers: Vec<_> = numbers.iter().map(|seen| seen.number).collect();
    assert_eq!(numbers, [7]);

    let mut late = gateway.log().changes();
    assert_eq!(late.next().await.unwrap().len(), 1);
    drop(gateway);
    assert!(late.next().await.is_none());
}

#[tokio::test]
async fn many_calls_at_once_are_all_seen() {
    let gateway = start();
    let calls = (0..200).map(async |number| {
        let session = format!("session-{number}");
        let request = client().post(gateway.url(CHAT)).bearer_auth(Gateway::KEY);
        let request = request.header("x-opencode-session", session).body(PROMPT);
        request.send().await.unwrap().status()
    });
    let statuses = futures::future::join_all(calls).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK));
    let requests = gateway.requests();
    assert_eq!(requests.len(), 200);
    assert!(
        requests
            .iter()
            .enumerate()
            .all(|(at, seen)| seen.number == at as u64 + 1)
    );
}
