//! `--upstream`: calls and answers are forwarded as they come, and the program only observes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use reqwest::blocking::{Client, Response};
use reqwest_opencode_session::testing::{Failure, Gateway, Reply};
use serde_json::{Value, json};

use crate::program::{Program, chat, client, command};

const PATH: &str = "/zen/go/v1/chat/completions";
const SESSION: &str = "01a20360-f6d2-7083-9a19-5a139a403ac6";

/// An upstream that a test controls by hand, byte by byte.
struct Upstream(TcpListener);

/// A request to it.
struct Received {
    stream: TcpStream,
    /// Its first line and headers.
    head: Vec<String>,
    body: Vec<u8>,
}

impl Upstream {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    fn proxy(&self) -> Program {
        Program::proxy(&format!("http://{}", self.address()))
    }

    /// Accepts the next request, and reads its head.
    fn head(&self) -> Received {
        let (mut stream, _) = self.0.accept().unwrap();
        let text = read_to(&mut stream, b"\r\n\r\n");
        let head = text.trim_end().lines().map(str::to_owned).collect();
        let body = vec![];
        Received { stream, head, body }
    }

    /// Accepts the next request, and reads all of it.
    fn request(&self) -> Received {
        let mut received = self.head();
        let length = received
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        received.body.resize(length, 0);
        received.stream.read_exact(&mut received.body).unwrap();
        received
    }
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        let values = self.head.iter().filter_map(|line| line.split_once(": "));
        values
            .into_iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn answer(mut self, head: &str, body: &[u8]) {
        let length = body.len();
        let head = format!("{head}connection: close\r\ncontent-length: {length}\r\n\r\n");
        self.send(head.as_bytes());
        self.send(body);
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn send_chunk(&mut self, bytes: &[u8]) {
        self.send(format!("{:x}\r\n", bytes.len()).as_bytes());
        self.send(bytes);
        self.send(b"\r\n");
    }

    /// Waits until the other side has closed the connection.
    fn wait_for_its_end(&mut self) {
        let mut rest = vec![];
        // It may be reset or closed cleanly.
        let _ = self.stream.read_to_end(&mut rest);
    }
}

fn read_to(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut bytes = vec![];
    while !bytes.ends_with(end) {
        let mut byte = [0];
        assert_eq!(
            stream.read(&mut byte).unwrap(),
            1,
            "it ended after {bytes:?}"
        );
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// Opens a connection to the program, and sends a request on it.
fn send_raw(program: &Program, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(program.address()).unwrap();
    stream.write_all(request).unwrap();
    stream
}

fn post(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}

fn ask(program: &Program, body: &Value) -> reqwest::Result<Response> {
    let call = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()?
        .post(program.url(PATH));
    let call = call
        .bearer_auth(Gateway::KEY)
        .header("x-opencode-session", SESSION);
    call.body(body.to_string()).send()
}

#[test]
fn a_request_goes_on_with_all_but_its_host_and_its_hop_by_hop_headers() {
    let upstream = Upstream::new();
    let program = upstream.proxy();
    let request = format!(
        "POST {PATH}?trace=1 HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: Bearer secret\r\n\
        X-OpenCode-Session: {SESSION}\r\nX-Twice: one\r\nX-Twice: two\r\nX-Gone: 1\r\n\
        Connection: keep-alive, X-Gone\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n\
        Proxy-Authorization: Basic secret\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\n\x00\x01{{\"\n"
    );
    let mut client = send_raw(&program, request.as_bytes());
    let received = upstream.request();
    assert_eq!(received.head[0], format!("POST {PATH}?trace=1 HTTP/1.1"));
    let mut headers: Vec<String> = received.head[1..]
        .iter()
        .map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            format!("{}: {value}", name.to_ascii_lowercase())
        })
        .collect();
    headers.sort_unstable();
    assert_eq!(
        headers,
        [
            "authorization: Bearer secret".to_owned(),
            "content-length: 5".to_owned(),
            format!("host: {}", upstream.address()),
            format!("x-opencode-session: {SESSION}"),
            "x-twice: one".to_owned(),
            "x-twice: two".to_owned(),
        ]
    );
    assert_eq!(received.body, b"\x00\x01{\"\n");

    let head = "HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nRetry-After: 7\r\n\
        Keep-Alive: timeout=5\r\nServer: upstream\r\n";
    received.answer(head, b"\xff\x00short and stout");
    let answer = read_to(&mut client, b"\r\n\r\n").to_ascii_lowercase();
    let mut lines: Vec<&str> = answer.trim_end().lines().collect();
    // The program adds a date if the upstream sends none.
    lines.retain(|line| !line.starts_with("date: "));
    assert_eq!(lines[0], "http/1.1 418 i'm a teapot");
    lines[1..].sort_unstable();
    assert_eq!(
        lines[1..],
        [
            "content-length: 17",
            "retry-after: 7",
            "server: upstream",
            "set-cookie: a=1",
            "set-cookie: b=2",
        ]
    );
    let mut body = [0; 17];
    client.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"\xff\x00short and stout");
}

#[test]
fn a_stream_is_handed_on_piece_by_piece() {
    let upstream = Upstream::new();
    let program = upstream.proxy();
    let mut client = send_raw(&program, &post("{}"));
    let mut received = upstream.request();
    received.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    // The head arrives before there is a body.
    let head = read_to(&mut client, b"\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for piece in [
        "data: {\"a\":",
        "1}\n\n",
        "data: [DONE]\n\n",
        "data: {\"choices\":[],\"cost\":\"0\"}\n\n",
    ] {
        received.send_chunk(piece.as_bytes());
        // Each piece arrives before the next one is sent.
        let chunk = format!("{:X}\r\n{piece}\r\n", piece.len());
        assert_eq!(
            read_to(&mut client, b"\r\n").len() + piece.len() + 2,
            chunk.len()
        );
        let mut bytes = vec![0; piece.len() + 2];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, format!("{piece}\r\n").as_bytes());
    }
    received.send_chunk(b"");
    assert_eq!(read_to(&mut client, b"\r\n\r\n"), "0\r\n\r\n");
}

#[test]
fn a_request_is_handed_on_piece_by_piece() {
    let upstream = Upstream::new();
    let program = upstream.proxy();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8\r\n\r\n");
    let mut client = send_raw(&program, head.as_bytes());
    let mut received = upstream.head();
    for piece in [b"half", b"half"] {
        client.write_all(piece).unwrap();
        let mut bytes = [0; 4];
        received.stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, piece);
    }
    received.answer("HTTP/1.1 200 OK\r\n", b"done");
    assert!(read_to(&mut client, b"done").starts_with("HTTP/1.1 200"));
}

#[test]
fn every_wire_format_is_the_same_with_and_without_the_proxy() {
    // Two new gateways, so that they number their answers alike.
    let (direct, behind) = (Gateway::start().unwrap(), Gateway::start().unwrap());
    let program = Program::proxy(&behind.url(""));
    let text = json!({"role": "user", "content": "Where is the sea?"});
    let client = client();
    for (path, body) in [
        (
            "/zen/go/v1/chat/completions",
            json!({"model": "glm-5.2", "messages": [text]}),
        ),
        (
            "/zen/go/v1/responses",
            json!({"model": "glm-5.2", "input": "Where is the sea?"}),
        ),
        (
            "/inference/go/anthropic/v1/messages",
            json!({"model": "glm-5.2", "messages": [text]}),
        ),
        (
            "/inference/go/google/v1beta/models/gemini-3:streamGenerateContent",
            json!({"contents": [{"parts": [{"text": "Where is the sea?"}]}]}),
        ),
    ] {
        for stream in [false, true] {
            let mut body = body.clone();
            body["stream"] = stream.into();
            let [direct, proxied] = [direct.url(path), program.url(path)].map(|url| {
                let call = client.post(url).bearer_auth(Gateway::KEY);
                let call = call
                    .header("x-opencode-session", SESSION)
                    .body(body.to_string());
                let response = call.send().unwrap();
                let mut headers = response.headers().clone();
                headers.remove("date");
                (
                    response.status(),
                    headers,
                    without_times(&response.text().unwrap()),
                )
            });
            assert_eq!(direct, proxied, "{path}");
            assert_eq!(direct.0, 200, "{path}");
        }
    }
    for (number, own) in (1..).zip(behind.requests()) {
        let call = program.call(number, |call| call["cost"].is_number());
        assert_eq!(call["session"], SESSION);
        assert_eq!(call["model"], json!(own.model));
        assert_eq!(call["prompt"], "Where is the sea?");
        assert_eq!(call["prompt_tokens"], own.prompt_tokens, "{call}");
        assert_eq!(call["cached_tokens"], own.cached_tokens, "{call}");
        assert_eq!(call["output_tokens"], own.output_tokens, "{call}");
        // The answer of a model without a known price says 0.
        assert_eq!(call["cost"], json!(own.cost.unwrap_or_default()), "{call}");
    }
    assert_eq!(behind.requests().len(), 8);
}

/// Returns the text without its Unix timestamps.
fn without_times(text: &str) -> String {
    let parts = text.split_inclusive(|c: char| !c.is_ascii_digit());
    parts
        .map(
            |part| match part.trim_end_matches(|c: char| !c.is_ascii_digit()).len() {
                0..10 => part,
                digits => &part[digits..],
            },
        )
        .collect()
}

#[test]
fn marks_are_the_same_as_the_gateways_own() {
    let gateway = Gateway::start().unwrap();
    let program = Program::proxy(&gateway.url(""));
    let ask = |session: &str, said: &[&str]| {
        let call = client().post(program.url(PATH)).bearer_auth(Gateway::KEY);
        let call = call.header("x-opencode-session", session);
        let mut body = chat("You are a guide.", said);
        body["stream"] = true.into();
        call.body(body.to_string()).send().unwrap().text().unwrap();
    };
    for answer in ["There.", "There, too."] {
        gateway.reply_next(Reply::Text(answer.to_owned()));
    }
    ask("one", &["Where is the sea?"]);
    ask("two", &["Where is the sea?", "There.", "And the lake?"]);
    ask(
        "one",
        &[
            "Where is the sea?",
            "There.",
            "And the lake?",
            "There, too.",
            "And the river?",
        ],
    );
    for (number, own) in (1..).zip(gateway.requests()) {
        let call = program.call(number, |call| call["cost"].is_number());
        let shown = call["marks"].as_array().unwrap().iter();
        let shown: Vec<_> = shown
            .map(|mark| json!([mark["name"], mark["reason"]]))
            .collect();
        let marks = own.marks.iter();
        let marks: Vec<_> = marks
            .map(|mark| json!([mark.name(), mark.to_string()]))
            .collect();
        assert_eq!(shown, marks, "{number}");
        assert_eq!(call["continues"], json!(own.continues));
    }
    assert!(gateway.requests()[2].has_fault());
}

#[test]
fn refusals_come_back_as_they_are() {
    let gateway = Gateway::start().unwrap();
    let program = Program::proxy(&gateway.url(""));
    let body = chat("You are a guide.", &["Where is the sea?"]);
    let retry_after = std::time::Duration::from_secs(7);
    gateway.fail_next(1, Failure::RateLimit { retry_after });
    let response = ask(&program, &body).unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "7");
    assert!(response.text().unwrap().contains("RateLimitError"));
    let call = program.call(1, |call| call["error"].is_string());
    assert_eq!(call["error"], "RateLimitError");

    gateway.fail_next(1, Failure::Unavailable);
    assert_eq!(ask(&program, &body).unwrap().status(), 503);

    // A call without a session is refused by the upstream, and not by the program.
    let call = client().post(program.url(PATH)).bearer_auth(Gateway::KEY);
    let response = call.body(body.to_string()).send().unwrap();
    assert_eq!(response.status(), 400);
    assert!(response.text().unwrap().contains("MissingSessionID"));
    let call = program.call(3, |call| call["status"] == 400);
    assert_eq!(call["marks"][0]["name"], "missing");
    assert_eq!(gateway.requests().len(), 3);
}

#[test]
fn no_redirect_is_followed() {
    let gateway = Gateway::start().unwrap();
    let program = Program::proxy(&gateway.url(""));
    let location = gateway.elsewhere(PATH).unwrap();
    gateway.fail_next(
        1,
        Failure::Redirect {
            location: location.clone(),
        },
    );
    let response = ask(&program, &chat("You are a guide.", &["Where is the sea?"])).unwrap();
    assert_eq!(response.status(), 307);
    assert_eq!(response.headers()["location"], *location);
    gateway.assert_no_request_escaped();
}

#[test]
fn a_connection_that_is_cut_is_cut_for_the_client_too() {
    let gateway = Gateway::start().unwrap();
    let program = Program::proxy(&gateway.url(""));
    let mut body = chat("You are a guide.", &["Where is the sea?"]);
    gateway.fail_next(1, Failure::CloseBeforeAnswer);
    ask(&program, &body).unwrap_err();
    let call = program.call(1, |call| call["error"].is_string());
    assert_eq!(
        (&call["status"], &call["error"]),
        (&Value::Null, &json!("Closed"))
    );

    for (number, stream) in [(2, false), (3, true)] {
        body["stream"] = stream.into();
        gateway.fail_next(1, Failure::CloseMidAnswer);
        let response = ask(&program, &body).unwrap();
        assert_eq!(response.status(), 200);
        response.text().unwrap_err();
        let call = program.call(number, |call| call["error"].is_string());
        assert_eq!(
            (&call["status"], &call["error"]),
            (&json!(200), &json!("Cut"))
        );
    }
}

#[test]
fn a_client_that_leaves_ends_the_upstreams_call() {
    let upstream = Upstream::new();
    let program = upstream.proxy();
    // Before the answer
    let client = send_raw(&program, &post("{}"));
    let mut received = upstream.request();
    client.shutdown(Shutdown::Both).unwrap();
    received.wait_for_its_end();
    let call = program.call(1, |call| call["state"] == "left");
    assert_eq!(
        (&call["status"], &call["error"]),
        (&Value::Null, &Value::Null)
    );

    // In the middle of it
    let mut client = send_raw(&program, &post("{}"));
    let mut received = upstream.request();
    received.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    received.send_chunk(b"data: {}\n\n");
    read_to(&mut client, b"data: {}\n\n");
    client.shutdown(Shutdown::Both).unwrap();
    received.wait_for_its_end();
    let call = program.call(2, |call| call["state"] == "left");
    assert_eq!(
        (&call["status"], &call["error"]),
        (&json!(200), &Value::Null)
    );
    // A client may leave when it has read enough.
    assert_eq!(program.data("/api/state")["totals"]["refused"], 0);

    // In the middle of its own request
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 8\r\n\r\nhalf");
    let client = send_raw(&program, head.as_bytes());
    let mut received = upstream.head();
    client.shutdown(Shutdown::Both).unwrap();
    received.wait_for_its_end();
}

const STREAM: &str = concat!(
    r#"data: {"choices":[],"usage":{"prompt_tokens":85,"completion_tokens":16,"#,
    r#""prompt_tokens_details":{"cached_tokens":64}}}"#,
    "\n\ndata: [DONE]\n\n",
    r#"data: {"choices":[],"cost":"0.0001"}"#,
    "\n\n",
);

/// The same, compressed by Node's `zlib.brotliCompressSync`.
const BROTLI: &str = "1baa00001c07ceb92bc8f56010b4be67ed9c565dbbfe8b4fa6f5fb7e601561935460e90b9d4f17\
    222156049b4d898aca3a256be5dbddc6c695c03091fa7119353c5c5e815ab0fac3c3da73aceb79138f258f6d510a5976\
    b7bb3ccb4870d0bba4ff8c36fd93f8368c3cda3c17a048908c01";

fn compressed(coding: &str, text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    match coding {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        }
        "deflate" => {
            let mut writer =
                flate2::write::ZlibEncoder::new(vec![], flate2::Compression::default());
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        }
        "zstd" => zstd::encode_all(bytes, 0).unwrap(),
        "zstd with a window of 128 MB" => {
            let mut writer = zstd::Encoder::new(vec![], 0).unwrap();
            writer.window_log(27).unwrap();
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        }
        "br" => {
            assert_eq!(text, STREAM);
            let digits: Vec<u8> = BROTLI.bytes().filter(u8::is_ascii_hexdigit).collect();
            let pair =
                |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.chunks(2).map(pair).collect()
        }
        _ => bytes.to_owned(),
    }
}

#[test]
fn compressed_answers_pass_as_they_are_and_are_read_in_a_copy() {
    let upstream = Upstream::new();
    let program = upstream.proxy();
    for (number, coding) in (1..).zip(["gzip", "deflate", "br", "zstd", "identity"]) {
        let bytes = compressed(coding, STREAM);
        let mut client = send_raw(&program, &post("{}"));
        let received = upstream.request();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: {coding}\r\n"
        );
        received.answer(&head, &bytes);
        let head = read_to(&mut client, b"\r\n\r\n");
        assert!(
            head.contains(&format!("content-encoding: {coding}\r\n")),
            "{head}"
        );
        let mut passed = vec![0; bytes.len()];
        client.read_exact(&mut passed).unwrap();
        assert_eq!(passed, bytes, "{coding}");
        let call = program.call(number, |call| call["cost"].is_number());
        assert_eq!(call["prompt_tokens"], 85, "{coding}");
        assert_eq!(call["cached_tokens"], 64, "{coding}");
        assert_eq!(call["cost"], 0.0001, "{coding}");
    }
    // An answer that cannot be read is forwarded all the same.
    let wide = compressed("zstd with a window of 128 MB", STREAM);
    let unreadable: [(&str, &[u8]); 3] = [
        ("gzip", b"broken"),
        ("unheard-of", b"broken"),
        ("zstd", &wide),
    ];
    for (number, (coding, bytes)) in (6..).zip(unreadable) {
        let mut client = send_raw(&program, &post("{}"));
        let received = upstream.request();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\n");
        received.answer(&head, bytes);
        read_to(&mut client, b"\r\n\r\n");
        let mut passed = vec![0; bytes.len()];
        client.read_exact(&mut passed).unwrap();
        assert_eq!(passed, bytes, "{coding}");
        let call = program.call(number, |call| call["status"] == 200);
        assert_eq!(call["prompt_tokens"], 0, "{coding}");
    }
}

#[test]
fn a_compressed_request_passes_as_it_is_and_is_read_in_a_copy() {
    let gateway = Upstream::new();
    let program = gateway.proxy();
    let body = chat("You are a guide.", &["Where is the sea?"]).to_string();
    for (number, coding) in (1..).zip(["zstd", "gzip"]) {
        let bytes = compressed(coding, &body);
        let length = bytes.len();
        let mut request = format!(
            "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nx-opencode-session: {SESSION}\r\n\
            content-encoding: {coding}\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend_from_slice(&bytes);
        let mut client = send_raw(&program, &request);
        let received = gateway.request();
        assert_eq!(received.body, bytes);
        received.answer("HTTP/1.1 200 OK\r\n", b"{}");
        read_to(&mut client, b"{}");
        let call = program.call(number, |call| call["status"] == 200);
        assert_eq!(call["prompt"], "Where is the sea?");
        assert_eq!(call["model"], "glm-5.2");
    }
}

#[test]
fn a_request_is_read_in_a_copy_up_to_32_mib() {
    const LONGEST: usize = 32 << 20;
    let upstream = Upstream::new();
    let program = upstream.proxy();
    let body = chat("You are a guide.", &["Where is the sea?"]).to_string();
    let known = json!("Where is the sea?");
    for (number, (coding, length, prompt)) in (1..).zip([
        ("identity", LONGEST, &known),
        ("identity", LONGEST + 1, &Value::Null),
        ("gzip", LONGEST, &known),
        ("gzip", LONGEST + 1, &Value::Null),
    ]) {
        let spaces = " ".repeat(length - body.len());
        let bytes = compressed(coding, &format!("{body}{spaces}"));
        let mut request = format!(
            "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nx-opencode-session: {SESSION}\r\n\
            content-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
            bytes.len()
        )
        .into_bytes();
        request.extend_from_slice(&bytes);
        std::thread::scope(|threads| {
            let client = threads.spawn(|| send_raw(&program, &request));
            let received = upstream.request();
            assert!(received.body == bytes, "{coding}: {length}");
            received.answer("HTTP/1.1 200 OK\r\n", b"{}");
            read_to(&mut client.join().unwrap(), b"{}");
        });
        let call = program.call(number, |call| call["status"] == 200);
        assert_eq!(&call["prompt"], prompt, "{coding}: {length}");
    }
}

#[test]
fn a_call_is_printed_once_all_of_its_answer_has_passed() {
    let upstream = Upstream::new();
    let mut program = upstream.proxy();
    let mut client = send_raw(&program, &post("{}"));
    let mut received = upstream.request();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
        transfer-encoding: chunked\r\n\r\n";
    received.send(head.as_bytes());
    program.call(1, |call| call["status"] == 200);
    received.send_chunk(STREAM.as_bytes());
    received.send(b"0\r\n\r\n");
    read_to(&mut client, b"0\r\n\r\n");
    let line = program.call_line();
    assert!(line.contains("75 %"), "{line}");
}

#[test]
fn an_answer_without_a_body_is_one_that_has_ended() {
    let upstream = Upstream::new();
    let program = upstream.proxy();
    for (number, method, head) in [
        (
            1,
            "HEAD",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\n",
        ),
        (
            2,
            "GET",
            "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
        ),
        (
            3,
            "GET",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        ),
    ] {
        let request = format!("{method} /zen/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let mut client = send_raw(&program, request.as_bytes());
        upstream.request().send(head.as_bytes());
        read_to(&mut client, b"\r\n\r\n");
        drop(client);
        let call = program.call(number, |call| call["status"].is_number());
        assert_eq!(call["error"], Value::Null, "{call}");
    }
}

#[test]
fn the_welcome_names_the_proxy_on_the_way_without_its_credentials() {
    let mut command = command(["--upstream", "https://opencode.ai"]);
    command.env("HTTPS_PROXY", "http://user:secret@127.0.0.1:9");
    let program = Program::started(command);
    assert_eq!(
        program.greeting,
        "Forwarding calls to https://opencode.ai through the proxy at 127.0.0.1\n"
    );
}

#[test]
fn an_upstream_that_cannot_be_reached_is_named() {
    let closed = Upstream::new().address();
    let program = Program::proxy(&format!("http://{closed}"));
    let response = ask(&program, &chat("You are a guide.", &["Where is the sea?"])).unwrap();
    assert_eq!(response.status(), 502);
    let body: Value = serde_json::from_str(&response.text().unwrap()).unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    let told = format!("opencode-gateway cannot reach http://{closed}: ");
    let cause = message.strip_prefix(&told).unwrap();
    assert!(cause.contains("refused"), "{cause}");
    let call = program.call(1, |call| call["error"].is_string());
    assert_eq!(
        (&call["error"], &call["status"]),
        (&json!("Unreachable"), &json!(502))
    );
    assert_eq!(call["prompt"], "Where is the sea?");
    assert_eq!(call["model"], "glm-5.2");
    assert_eq!(call["state"], "refused");
}

#[test]
fn a_call_is_shown_while_it_is_under_way_and_then_how_it_ended() {
    let upstream = Upstream::new();
    let program = upstream.proxy();
    let body = chat("You are a guide.", &["Where is the sea?"]).to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
        transfer-encoding: chunked\r\n\r\n";
    for (number, end) in [(1, "done"), (2, "cut"), (3, "left")] {
        let client = send_raw(&program, &post(&body));
        let mut received = upstream.request();
        let call = program.call(number, |call| call["state"] == "waiting");
        assert_eq!(call["prompt"], "Where is the sea?");
        assert_eq!(
            (&call["status"], &call["answered_after_ms"]),
            (&Value::Null, &Value::Null)
        );
        received.send(head.as_bytes());
        received.send_chunk(b"data: {}\n\n");
        let call = program.call(number, |call| call["state"] == "streaming");
        assert_eq!(call["status"], 200);
        assert!(call["answered_after_ms"].is_u64() && call["ended_after_ms"].is_null());
        match end {
            "done" => received.send(b"0\r\n\r\n"),
            "cut" => drop(received),
            _ => drop(client),
        }
        let call = program.call(number, |call| call["ended_after_ms"].is_u64());
        assert_eq!(call["state"], end);
        assert_eq!(call["error"] == "Cut", end == "cut", "{call}");
    }
}

#[test]
fn keys_are_neither_shown_nor_kept() {
    let upstream = Upstream::new();
    let mut program = upstream.proxy();
    let body = chat("You are a guide.", &["Where is the sea?"]).to_string();
    let length = body.len();
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer secret-1\r\n\
        x-api-key: secret-2\r\nx-goog-api-key: secret-3\r\ncookie: secret-4\r\n\
        content-length: {length}\r\n\r\n{body}"
    );
    let mut client = send_raw(&program, request.as_bytes());
    let received = upstream.request();
    assert_eq!(received.header("x-api-key"), Some("secret-2"));
    received.answer(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n",
        b"{}",
    );
    read_to(&mut client, b"{}");
    program.call(1, |call| call["status"] == 200);
    let line = program.call_line();
    assert!(!line.contains("secret"), "{line}");
    let state = program.data("/api/state");
    assert_eq!(state["mode"], "upstream");
    for data in [state, program.data("/api/calls/1")] {
        assert!(!data.to_string().contains("secret"), "{data}");
    }
}

/// A key in the query, as early SDKs of Google's sent it.
#[test]
fn a_key_in_the_query_goes_on_and_is_not_shown() {
    let upstream = Upstream::new();
    let program = upstream.proxy();
    let request = b"GET /zen/v1/models?key=secret HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut client = send_raw(&program, request);
    let received = upstream.request();
    assert_eq!(received.head[0], "GET /zen/v1/models?key=secret HTTP/1.1");
    received.answer("HTTP/1.1 200 OK\r\n", b"{}");
    read_to(&mut client, b"{}");
    let call = program.call(1, |call| call["status"] == 200);
    assert!(!call.to_string().contains("secret"), "{call}");
}

#[test]
fn a_proxy_of_the_environment_leads_to_the_upstream_and_to_nothing_else() {
    let proxy = Upstream::new();
    let mut through = command(["--upstream", "https://gateway.example.com"]);
    through.env(
        "HTTPS_PROXY",
        format!("http://user:password@{}", proxy.address()),
    );
    let program = Program::started(through);
    let body = chat("You are a guide.", &["Where is the sea?"]);
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| ask(&program, &body).unwrap());
        let received = proxy.head();
        assert_eq!(received.head[0], "CONNECT gateway.example.com:443 HTTP/1.1");
        assert_eq!(
            received.header("proxy-authorization"),
            Some("Basic dXNlcjpwYXNzd29yZA==")
        );
        assert_eq!(received.header("authorization"), None);
        drop(received);
        call.join().unwrap()
    });
    assert_eq!(answer.status(), 502);

    let gateway = Gateway::start().unwrap();
    let mut direct = command(["--upstream", &gateway.url("")]);
    direct.env("HTTP_PROXY", format!("http://{}", proxy.address()));
    direct.env("ALL_PROXY", format!("http://{}", proxy.address()));
    assert_eq!(ask(&Program::started(direct), &body).unwrap().status(), 200);
}

#[test]
fn a_check_looks_on_while_the_real_gateway_answers() {
    let gateway = Gateway::builder().key("real-key").start().unwrap();
    let (agent, (name, value)) = crate::agent::command("right");
    let mut check = command(["--upstream", &gateway.url(""), "--check", "--"]);
    check
        .args(agent)
        .env(name, value)
        .env("OPENCODE_API_KEY", "real-key");
    let output = check.output().unwrap();
    let report = crate::program::stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("9 calls in 2 conversations"), "{report}");
    assert_eq!(gateway.requests().len(), 9);
}

/// On other systems, the system's own store decides which certificates are trusted.
#[cfg(target_os = "linux")]
mod tls {
    use std::sync::Arc;

    use rcgen::CertifiedKey;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    /// Answers one call over TLS. The thread returns whether a call arrived.
    fn serve(
        certificate: &CertifiedKey<rcgen::KeyPair>,
    ) -> (String, std::thread::JoinHandle<bool>) {
        let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.cert.der().clone()],
                PrivateKeyDer::from(key),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let served = std::thread::spawn(move || {
            runtime.block_on(async {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return false;
                };
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.unwrap_or_default() == 0 {
                    return false;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
                true
            })
        });
        (format!("https://localhost:{port}"), served)
    }

    #[test]
    fn an_upstream_is_reached_over_tls_where_its_certificate_is_trusted() {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        let trusted = directory.join(format!("trusted-{}.pem", std::process::id()));
        std::fs::write(&trusted, certificate.cert.pem()).unwrap();
        let body = chat("You are a guide.", &["Where is the sea?"]);
        for (trust, status) in [(true, 200), (false, 502)] {
            let (url, served) = serve(&certificate);
            let mut proxy = command(["--upstream", &url]);
            if trust {
                proxy.env("SSL_CERT_FILE", &trusted);
            }
            let program = Program::started(proxy);
            assert_eq!(ask(&program, &body).unwrap().status(), status);
            assert_eq!(served.join().unwrap(), trust);
        }
        std::fs::remove_file(trusted).unwrap();
    }
}
