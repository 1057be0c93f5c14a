//! The default configuration with the real host names: over TLS, with either version of HTTP, and
//! through a proxy.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{StatusCode, Version};
use reqwest_middleware::ClientWithMiddleware;
use reqwest_opencode_session::testing::Gateway;
use reqwest_opencode_session::{OpencodeSessionMiddleware, Session, SessionId, WithSession};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::loopback::{Identity, serve, trusting};
use crate::support::{CHAT, PROMPT, alone};

const HOSTS: [&str; 2] = ["opencode.ai", "dev.opencode.ai"];

async fn pump(mut stream: impl AsyncRead + AsyncWrite + Unpin, to: SocketAddr) -> io::Result<()> {
    copy_bidirectional(&mut stream, &mut TcpStream::connect(to).await?).await?;
    Ok(())
}

/// A TLS front for the gateway.
async fn tls_front(gateway: &Gateway, acceptor: TlsAcceptor) -> SocketAddr {
    let gateway = gateway.address();
    serve(move |stream| {
        let accept = acceptor.accept(stream);
        async move { pump(accept.await?, gateway).await }
    })
    .await
}

/// Calls every host, and asserts that the answer has this version of HTTP.
async fn call_every_host(client: &ClientWithMiddleware, version: Version) {
    for host in HOSTS {
        let response = client
            .post(format!("https://{host}{CHAT}"))
            .bearer_auth(Gateway::KEY)
            .body(PROMPT)
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.version(), response.status()),
            (version, StatusCode::OK),
            "{host}"
        );
        assert!(response.text().await.unwrap().contains("kimi-k3"), "{host}");
    }
}

async fn the_real_names_carry_the_session(protocols: &[&str], version: Version) {
    let gateway = Gateway::start().unwrap();
    let identity = Identity::of(&HOSTS);
    let address = tls_front(&gateway, identity.acceptor(protocols)).await;
    let middleware = OpencodeSessionMiddleware::new();
    let session = Session::process();
    let client = middleware.into_client(identity.client(address)).unwrap();
    call_every_host(&client, version).await;
    assert_eq!(gateway.requests().len(), HOSTS.len());
    gateway.assert_every_request_in(&session);
}

#[tokio::test]
async fn the_real_names_carry_the_session_over_http_1() {
    the_real_names_carry_the_session(&["http/1.1"], Version::HTTP_11).await;
}

#[tokio::test]
async fn the_real_names_carry_the_session_over_http_2() {
    the_real_names_carry_the_session(&["h2", "http/1.1"], Version::HTTP_2).await;
}

/// The environment variable that tells the next test's child process which certificate to trust.
const CERTIFICATE: &str = "LOOPBACK_CERTIFICATE";
const SESSION: &str = "a-session-that-the-proxy-must-not-see";

/// Runs itself again in a child process, because reqwest reads the environment of the process.
#[tokio::test]
async fn a_proxy_of_the_environment_is_used_and_sees_no_session() {
    let session = Session::from(SessionId::try_from(SESSION).unwrap());
    if let Ok(certificate) = std::env::var(CERTIFICATE) {
        let client = OpencodeSessionMiddleware::new()
            .into_client(trusting(&certificate))
            .unwrap();
        let calls = call_every_host(&client, Version::HTTP_2);
        return calls.with_session(session).await;
    }

    let gateway = Gateway::start().unwrap();
    let identity = Identity::of(&HOSTS);
    let front = tls_front(&gateway, identity.acceptor(&["h2"])).await;
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    let proxy = serve(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            seen.lock().unwrap().push(String::from_utf8(head).unwrap());
            stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
            pump(stream, front).await
        }
    })
    .await;

    let mut again = alone("tls::a_proxy_of_the_environment_is_used_and_sees_no_session");
    again
        .env("HTTPS_PROXY", format!("http://{proxy}"))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env(CERTIFICATE, identity.pem());
    let output = tokio::task::spawn_blocking(move || again.output());
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");

    assert_eq!(gateway.requests().len(), HOSTS.len());
    gateway.assert_every_request_in(&session);
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), HOSTS.len());
    for (head, host) in heads.iter().zip(HOSTS) {
        assert!(head.starts_with(&format!("CONNECT {host}:443 ")), "{head}");
        assert!(
            !head.contains("opencode-") && !head.contains(SESSION),
            "{head}"
        );
    }
}
