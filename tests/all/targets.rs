//! Which requests get a session, and which only look as if they should.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_opencode_session::{
    Fallback, InvalidTarget, OpencodeSessionMiddleware, RequestUrl, Session, Target, WithSession,
    header,
};
use tower::{Layer, ServiceExt};

use crate::stack::reqwest::dns::{Addrs, Name, Resolve, Resolving};
use crate::stack::reqwest::{self, Url};
use crate::stack::reqwest_middleware::ClientBuilder;
use crate::support::Elsewhere;

/// URLs of the gateway, whatever they look like. `{port}` is its port.
const THE_GATEWAY: &[&str] = &[
    "http://opencode.ai:{port}",
    "http://opencode.ai:{port}/",
    "http://OpenCode.AI:{port}/zen/v1/models",
    "HTTP://OPENCODE.AI:{port}/",
    "http://opencode.ai.:{port}/",
    "http://dev.opencode.ai:{port}/",
    "http://DEV.opencode.ai.:{port}/",
    "http://stage.dev.opencode.ai:{port}/",
    "http://user@opencode.ai:{port}/",
    "http://user:evil.test@opencode.ai:{port}/",
    "http://evil.test%40@opencode.ai:{port}/",
    "http://opencode.ai:{port}/inference?next=https://evil.test#evil.test",
    "http://opencode.ai:{port}\\@evil.test/",
    "http:\\\\opencode.ai:{port}/",
    "http:opencode.ai:{port}/",
    "http:////opencode.ai:{port}/",
    "http://opencode%2Eai:{port}/",
    "http://o%70encode.ai:{port}/",
    "http://open\tcode.ai:{port}/",
    " http://opencode.ai:{port}/ ",
    // Characters that name preparation (UTS #46) maps to the ASCII ones.
    "http://opencode\u{3002}ai:{port}/",
    "http://\u{ff4f}pencode.ai:{port}/",
    "http://opencode\u{ff0e}ai:{port}/",
    "http://open\u{ad}code.ai:{port}/",
    "http://open\u{200b}code.ai:{port}/",
];

/// URLs that look like the gateway's but are not. `{other}` is another port.
const LOOK_ALIKES: &[&str] = &[
    // A longer name in front
    "http://badopencode.ai:{port}/",
    "http://bad-opencode.ai:{port}/",
    "http://-opencode.ai:{port}/",
    "http://_opencode.ai:{port}/",
    "http://1opencode.ai:{port}/",
    "http://devopencode.ai:{port}/",
    "http://opencode.aiopencode.ai:{port}/",
    "http://https-opencode.ai:{port}/",
    "http://dev.xopencode.ai:{port}/",
    // A longer name behind
    "http://opencode.ai.evil.test:{port}/",
    "http://opencode.ai.evil.test.:{port}/",
    "http://dev.opencode.ai.evil.test:{port}/",
    "http://opencode.ai-evil.test:{port}/",
    "http://opencode.ai.opencode.evil.test:{port}/",
    "http://opencode.aix:{port}/",
    "http://opencode.ai.ai:{port}/",
    "http://opencode.ai.com:{port}/",
    "http://opencode.ai.localhost:{port}/",
    // Almost the same
    "http://opencode.a:{port}/",
    "http://opencode.io:{port}/",
    "http://opencode:{port}/",
    "http://ai:{port}/",
    "http://pencode.ai:{port}/",
    "http://open.code.ai:{port}/",
    "http://opencode-ai:{port}/",
    "http://opencode.-ai:{port}/",
    "http://openc0de.ai:{port}/",
    "http://opencodee.ai:{port}/",
    "http://opncode.ai:{port}/",
    "http://open-code.ai:{port}/",
    "http://opencode.al:{port}/",
    "http://ai.opencode:{port}/",
    // User info
    "http://opencode.ai@evil.test:{port}/",
    "http://opencode.ai:{port}@evil.test:{port}/",
    "http://https%3A%2F%2Fopencode.ai@evil.test:{port}/",
    "http://user:opencode.ai@evil.test:{port}/",
    "http://opencode.ai%2F@evil.test:{port}/",
    "http://opencode.ai%00@evil.test:{port}/",
    "http://a@opencode.ai@evil.test:{port}/",
    "http://evil.test:{port}\\@opencode.ai/",
    // Path, query and fragment
    "http://evil.test:{port}/opencode.ai",
    "http://evil.test:{port}/https://opencode.ai/zen/go/v1/messages",
    "http://evil.test:{port}/@opencode.ai/",
    "http://evil.test:{port}//opencode.ai/",
    "http://evil.test:{port}?https://opencode.ai",
    "http://evil.test:{port}#https://opencode.ai",
    "http://evil.test:{port}#@opencode.ai/",
    "http://evil.test:{port}/zen/go/v1/chat/completions?host=opencode.ai",
    // Another port, another scheme
    "http://opencode.ai:{other}/",
    "http://dev.opencode.ai:{other}/",
    "http://opencode.ai:{other}\\@opencode.ai/",
    "https://opencode.ai:{port}/",
    "https://dev.opencode.ai:{port}/",
    "ws://opencode.ai:{port}/",
    "ftp://opencode.ai:{port}/",
    "opencode.ai:{port}/",
    "//opencode.ai:{port}/",
    // Unicode
    "http://\u{43e}pencode.ai:{port}/",
    "http://opencod\u{435}.ai:{port}/",
    "http://opencode.\u{430}i:{port}/",
    "http://\u{3bf}pencode.ai:{port}/",
    "http://opencode.a\u{131}:{port}/",
    "http://\u{f6}pencode.ai:{port}/",
    "http://open\u{200d}code.ai:{port}/",
    "http://xn--opencode-9jg.ai:{port}/",
    // Dots and encoded ones
    "http://opencode..ai:{port}/",
    "http://.opencode.ai:{port}/",
    "http://..opencode.ai:{port}/",
    "http://dev..opencode.ai:{port}/",
    "http://.dev.opencode.ai:{port}/",
    "http://opencode.ai..:{port}/",
    "http://dev.opencode.ai..:{port}/",
    "http://opencode%252Eai:{port}/",
    "http://opencode.ai%2Eevil.test:{port}/",
    "http://opencode.ai%00.evil.test:{port}/",
    "http://opencode.ai%20.evil.test:{port}/",
    "http://opencode.ai%40evil.test:{port}/",
    "http://evil.test%2Fopencode.ai:{port}/",
    "http://evil.test%23.opencode.ai:{port}/",
    "http://*.opencode.ai%2f.evil.test:{port}/",
    // Addresses
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://opencode.ai.127.0.0.1:{port}/",
    "http://127.0.0.1.opencode.ai.evil.test:{port}/",
];

/// Resolves every name to loopback. The port comes from the URL.
struct Everywhere;

impl Resolve for Everywhere {
    fn resolve(&self, _: Name) -> Resolving {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Box::pin(async move { Ok(Box::new([address].into_iter()) as Addrs) })
    }
}

#[tokio::test]
async fn the_session_reaches_every_spelling_of_the_gateway_and_none_of_its_look_alikes() {
    assert!(LOOK_ALIKES.len() >= 60);
    let [server, other] = [Elsewhere::quiet().await, Elsewhere::quiet().await];
    let ports = [server.address.port(), other.address.port()];
    let url = |template: &str| {
        let [port, other] = ports.map(|port| port.to_string());
        template.replace("{port}", &port).replace("{other}", &other)
    };
    let targets = ["http://opencode.ai:{port}", "http://*.opencode.ai:{port}"].map(url);
    let middleware = OpencodeSessionMiddleware::builder()
        .client_name("me")
        .targets(targets)
        .build()
        .unwrap();
    let client = reqwest::Client::builder()
        .no_proxy()
        .dns_resolver(Arc::new(Everywhere))
        .build()
        .unwrap();
    let client = ClientBuilder::new(client).with(middleware).build();
    let arrived = || server.requests().len() + other.requests().len();

    for template in THE_GATEWAY {
        client
            .post(url(template))
            .body("{}")
            .send()
            .await
            .unwrap_or_else(|error| {
                panic!("{template} did not arrive: {error:?}");
            });
        let seen = server.requests().pop().unwrap();
        assert!(seen.headers.contains_key(header::SESSION), "{template}");
    }
    let before = arrived();
    let mut failed = vec![];
    for template in LOOK_ALIKES {
        if client.post(url(template)).body("{}").send().await.is_err() {
            failed.push(template);
        }
    }
    let look_alikes = arrived() - before;
    assert_eq!(look_alikes + failed.len(), LOOK_ALIKES.len());
    // Most arrive, so their headers can be checked. The others are no URLs, or lead nowhere.
    assert!(
        look_alikes >= 60,
        "{look_alikes} arrived; these did not: {failed:#?}"
    );
    for seen in server.requests()[THE_GATEWAY.len()..]
        .iter()
        .chain(&other.requests())
    {
        assert_eq!(seen.opencode_headers(), [""; 0], "{:?}", seen.headers);
    }
}

#[test]
fn the_default_targets_match_the_gateway_as_url_and_as_uri_and_none_of_its_look_alikes() {
    let middleware = OpencodeSessionMiddleware::new();
    let url = |template: &str| {
        let url = template
            .replace("http:", "https:")
            .replace("HTTP:", "https:");
        url.replace(":{port}", "").replace("{other}", "8443")
    };
    fn is_target<U: RequestUrl>(middleware: &OpencodeSessionMiddleware, url: &U) -> bool {
        let headers = middleware.headers_for(url).unwrap();
        let is_target = middleware.is_target(url);
        assert_eq!(headers.contains_key(header::SESSION), is_target);
        assert_eq!(headers.is_empty(), !is_target);
        is_target
    }

    let by_url = |url: &Url| is_target(&middleware, url);
    let by_uri = |uri: &Uri| is_target(&middleware, uri);

    for template in THE_GATEWAY {
        let parsed = Url::parse(&url(template)).unwrap();
        assert!(by_url(&parsed), "{template}");
        // The same, as an HTTP stack with `http::Uri` would get it.
        assert!(by_uri(&parsed.as_str().parse().unwrap()), "{template}");
    }
    let http = LOOK_ALIKES
        .iter()
        .filter(|template| !template.starts_with("https:"));
    for template in http.clone() {
        assert!(
            !Url::parse(&url(template)).is_ok_and(|url| by_url(&url)),
            "{template}"
        );
        assert!(
            !url(template).parse().is_ok_and(|uri| by_uri(&uri)),
            "{template}"
        );
    }
    for cleartext in [
        "http://opencode.ai/",
        "http://opencode.ai:443/",
        "http://dev.opencode.ai/",
    ] {
        assert!(!by_url(&cleartext.parse().unwrap()), "{cleartext}");
        assert!(!by_uri(&cleartext.parse().unwrap()), "{cleartext}");
    }
}

#[test]
fn an_address_in_a_uri_is_the_same_in_all_its_spellings() {
    for (target, spellings, others) in [
        (
            "http://127.0.0.1:8080",
            &[
                "127.0.0.1",
                "127.0.0.1.",
                "127.1",
                "127.0.1",
                "2130706433",
                "0x7f.1",
                "0X7F000001",
                "0177.0.0.1",
            ][..],
            &[
                "127.0.0.2",
                "127.2",
                "127.0.0.1.test",
                "0x7f",
                "127.1.evil.test",
            ][..],
        ),
        (
            "http://[::1]:8080",
            &[
                "[::1]",
                "[0::1]",
                "[0:0:0:0:0:0:0:1]",
                "[::0001]",
                "[::0.0.0.1]",
            ],
            &["[::2]", "[::]", "127.0.0.1"],
        ),
        (
            "http://[fe80::a]:8080",
            &["[FE80::A]", "[fe80:0::a]"],
            &["[fe80::b]"],
        ),
    ] {
        let target: Target = target.parse().unwrap();
        let matches = |host: &str| {
            let uri: Uri = format!("http://{host}:8080/v1").parse().unwrap();
            target.matches(&uri)
        };
        for host in spellings {
            assert!(matches(host), "{target} and {host}");
        }
        for host in others {
            assert!(!matches(host), "{target} and {host}");
        }
    }
}

#[tokio::test]
async fn a_call_to_an_address_in_another_spelling_is_refused_without_a_session() {
    let server = Elsewhere::quiet().await;
    let middleware = OpencodeSessionMiddleware::builder()
        .targets([format!("http://{}", server.address)])
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let service = middleware.layer().layer(client);
    let request = || {
        let uri = format!("http://127.1:{}/", server.address.port());
        http::Request::post(uri).body(Full::default()).unwrap()
    };
    service.clone().oneshot(request()).await.unwrap_err();
    assert!(server.requests().is_empty());
    // It is an address that a client reaches.
    let call = service.oneshot(request());
    call.with_session(Session::new()).await.unwrap();
    assert_eq!(
        server.requests()[0].opencode_headers(),
        ["x-opencode-session"]
    );
}

#[test]
fn a_uri_without_scheme_or_host_is_no_target() {
    let target: Target = "https://opencode.ai".parse().unwrap();
    for uri in ["/zen/v1/models", "opencode.ai:443", "*"] {
        assert!(!target.matches(&uri.parse::<Uri>().unwrap()), "{uri}");
    }
}

#[test]
fn a_target_matches_its_own_scheme_host_and_port_and_no_other() {
    for (target, matched, not_matched) in [
        (
            "https://opencode.ai",
            &[
                "https://opencode.ai/x",
                "https://opencode.ai:443",
                "https://OPENCODE.ai./",
            ][..],
            &[
                "https://opencode.ai:444",
                "http://opencode.ai:443",
                "https://dev.opencode.ai",
            ][..],
        ),
        (
            "http://127.0.0.1:8080",
            &["http://127.0.0.1:8080/v1", "http://user@127.0.0.1:8080"],
            &[
                "http://127.0.0.1",
                "http://127.0.0.2:8080",
                "http://127.0.0.11:8080",
            ],
        ),
        (
            "http://[::1]:8080",
            &["http://[::1]:8080/"],
            &[
                "http://[::2]:8080/",
                "http://[::1]/",
                "http://127.0.0.1:8080/",
            ],
        ),
        (
            "https://*.Example.com:8443/",
            &[
                "https://a.example.com:8443",
                "https://a.b.EXAMPLE.com.:8443/x",
            ],
            &[
                "https://example.com:8443",
                "https://aexample.com:8443",
                "https://a.example.com",
            ],
        ),
        (
            "HTTPS://example.com.",
            &["https://example.com", "https://example.com."],
            &[],
        ),
        (
            "http://localhost",
            &["http://localhost:80/"],
            &["http://localhost:81/"],
        ),
        (
            "http://xn--mnchen-3ya.test",
            &["http://m\u{fc}nchen.test/"],
            &["http://munchen.test/"],
        ),
    ] {
        let target: Target = target.parse().unwrap();
        for url in matched {
            assert!(
                target.matches(&Url::parse(url).unwrap()),
                "{target} and {url}"
            );
        }
        for url in not_matched {
            assert!(
                !target.matches(&Url::parse(url).unwrap()),
                "{target} and {url}"
            );
        }
    }
}

/// A host name of this many characters, with labels as long as they may be.
fn name_of(length: usize) -> String {
    let [label, last] = [63, length - 3 * 64].map(|length| "x".repeat(length));
    format!("{label}.{label}.{label}.{last}")
}

#[test]
fn a_target_is_written_as_it_is_read() {
    for target in [
        "https://opencode.ai",
        "http://127.0.0.1:8080",
        "https://*.example.com:8443",
        "https://[fe80::]",
        "https://[fe80::]:8443",
        &format!("https://{}", name_of(253)),
    ] {
        assert_eq!(target.parse::<Target>().unwrap().to_string(), target);
    }
    let target = |text: &str| Target::try_from(text).unwrap();
    assert_eq!(
        target("HTTPS://Example.COM.:443/"),
        target("https://example.com")
    );
    assert_eq!(
        target("http://example.com:80").to_string(),
        "http://example.com"
    );
}

/// The variant and its fields.
fn described(error: &InvalidTarget) -> String {
    match error {
        InvalidTarget::NoScheme => "NoScheme".to_owned(),
        InvalidTarget::UnknownScheme { scheme, .. } => {
            format!("UnknownScheme {{ scheme: {scheme:?} }}")
        }
        InvalidTarget::IllegalCharacter {
            position,
            character,
            ..
        } => {
            format!("IllegalCharacter {{ position: {position}, character: {character:?} }}")
        }
        InvalidTarget::UserInfo => "UserInfo".to_owned(),
        InvalidTarget::EmptyHost => "EmptyHost".to_owned(),
        InvalidTarget::BadWildcard => "BadWildcard".to_owned(),
        InvalidTarget::InvalidPort { port, .. } => format!("InvalidPort {{ port: {port:?} }}"),
        InvalidTarget::NotAnOrigin { position, .. } => {
            format!("NotAnOrigin {{ position: {position} }}")
        }
        other => other.to_string(),
    }
}

#[test]
fn what_is_no_target_is_refused_with_the_rule_and_the_place() {
    for (text, expected) in [
        ("", "NoScheme"),
        ("opencode.ai", "NoScheme"),
        ("//opencode.ai", "NoScheme"),
        ("://opencode.ai", "NoScheme"),
        ("https:opencode.ai", "NoScheme"),
        ("ftp://opencode.ai", r#"UnknownScheme { scheme: "ftp" }"#),
        ("*://opencode.ai", r#"UnknownScheme { scheme: "*" }"#),
        ("https://", "EmptyHost"),
        ("https:///", "EmptyHost"),
        ("https://:443", "EmptyHost"),
        ("https://*.", "EmptyHost"),
        ("https://user@opencode.ai", "UserInfo"),
        ("https://user:key@opencode.ai", "UserInfo"),
        ("https://opencode.ai/zen", "NotAnOrigin { position: 19 }"),
        ("https://opencode.ai//", "NotAnOrigin { position: 19 }"),
        ("https://opencode.ai?key", "NotAnOrigin { position: 19 }"),
        ("https://opencode.ai#part", "NotAnOrigin { position: 19 }"),
        ("https://opencode.ai\\zen", "NotAnOrigin { position: 19 }"),
        ("https://*", "BadWildcard"),
        ("https://*opencode.ai", "BadWildcard"),
        ("https://dev.*.opencode.ai", "BadWildcard"),
        ("https://*.*.opencode.ai", "BadWildcard"),
        ("https://opencode.*", "BadWildcard"),
        ("https://*.127.0.0.1", "BadWildcard"),
        ("https://*.[::1]", "BadWildcard"),
        ("https://opencode.ai:", r#"InvalidPort { port: "" }"#),
        ("https://opencode.ai:0", r#"InvalidPort { port: "0" }"#),
        (
            "https://opencode.ai:65536",
            r#"InvalidPort { port: "65536" }"#,
        ),
        ("https://opencode.ai:+80", r#"InvalidPort { port: "+80" }"#),
        (
            "https://opencode.ai:https",
            r#"InvalidPort { port: "https" }"#,
        ),
        ("https://[::1]:x", r#"InvalidPort { port: "x" }"#),
        (
            " https://opencode.ai",
            r"IllegalCharacter { position: 0, character: ' ' }",
        ),
        (
            "https://open\ncode.ai",
            r"IllegalCharacter { position: 12, character: '\n' }",
        ),
        (
            "https://m\u{fc}nchen.test",
            r"IllegalCharacter { position: 9, character: 'ü' }",
        ),
    ] {
        let error = text.parse::<Target>().unwrap_err();
        assert_eq!(described(&error), expected, "{text:?}");
        assert_eq!(Target::try_from(text), Err(error));
    }
}

#[test]
fn a_host_that_no_url_can_have_is_refused_with_the_reason() {
    let (long_label, long_name) = ("x".repeat(64), name_of(254));
    for host in [
        "open..code.ai",
        "..",
        "[::1",
        "[zz]",
        "1.2.3.4.5",
        "a%00b",
        "xn--a",
        "::1",
        &long_label,
        &long_name,
    ] {
        let target = format!("https://{host}");
        let error = target.parse::<Target>().unwrap_err();
        assert!(
            matches!(
                error,
                InvalidTarget::InvalidHost { .. } | InvalidTarget::InvalidPort { .. }
            ),
            "{host}: {error:?}"
        );
    }
}

#[test]
fn the_errors_say_what_to_do() {
    let message = |text: &str| text.parse::<Target>().unwrap_err().to_string();
    assert_eq!(
        message("opencode.ai"),
        "the target has no scheme; write it as in `https://opencode.ai`"
    );
    assert_eq!(
        message("https://opencode.ai/zen"),
        "the target continues after host and port, at character 20; \
         leave out path, query and fragment"
    );
    // A part that may be a password is not repeated.
    assert!(!message("https://user:key@opencode.ai").contains("key"));
}
