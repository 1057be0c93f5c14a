//! Serves the program's address: requests for the page, and all others for the gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::options::{ip_of, is_loopback};
use crate::page;
use crate::upstream::Forward;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub struct Server {
    /// The page and its data.
    pub page: Router,
    pub forward: Forward,
    /// Names of this machine, besides those of the loopback interface.
    pub names: Vec<String>,
}

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

impl Server {
    pub async fn run(self, listener: TcpListener) {
        let server = Arc::new(self);
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Most likely out of file descriptors, until some connections end.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            // Otherwise, an answer's small pieces wait for each other.
            let _ = stream.set_nodelay(true);
            tokio::spawn(Arc::clone(&server).connection(stream));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let local = stream.local_addr().ok();
        let service = service_fn(move |request| Arc::clone(&self).answer(request, local));
        let mut connection = auto::Builder::new(TokioExecutor::new());
        connection
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        // It fails if a client leaves, or if an answer is meant to be cut off.
        let _ = connection
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        local: Option<SocketAddr>,
    ) -> Result<Response<Body>, BoxError> {
        if !self.is_ours(&request, local.map(|address| address.ip().to_canonical())) {
            return Ok(refuse(
                StatusCode::MISDIRECTED_REQUEST,
                "opencode-gateway answers only to localhost and its own address, so that no web \
                page can read the calls; allow another name with --allow-host\n",
            ));
        }
        if request.method() == Method::CONNECT {
            let message = "opencode-gateway is not a proxy for other addresses\n";
            return Ok(refuse(StatusCode::METHOD_NOT_ALLOWED, message));
        }
        if page::is_for_the_page(request.uri().path()) {
            let answer = self.page.clone().oneshot(request.map(Body::new)).await;
            return answer.map_err(|infallible| match infallible {});
        }
        self.forward.send(request).await
    }

    /// Returns whether a request calls this machine by one of its own names.
    fn is_ours(&self, request: &Request<Incoming>, local: Option<IpAddr>) -> bool {
        let mut hosts = request.headers().get_all(HOST).iter().map(|host| {
            let host: Option<Authority> = host.to_str().ok().and_then(|host| host.parse().ok());
            host.is_some_and(|host| self.is_our_name(host.host(), local))
        });
        match request.uri().host() {
            Some(host) => self.is_our_name(host, local) && hosts.all(|ours| ours),
            None => hosts.next() == Some(true) && hosts.next().is_none(),
        }
    }

    fn is_our_name(&self, host: &str, local: Option<IpAddr>) -> bool {
        is_loopback(host)
            || ip_of(host).is_some_and(|address| Some(address) == local)
            || self
                .names
                .iter()
                .any(|name| name.eq_ignore_ascii_case(host))
    }
}

fn refuse(status: StatusCode, message: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(message));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
