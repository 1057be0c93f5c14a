//! Forwards calls as they came, and passes answers back as they come.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Json;
use axum::body::Body;
use axum::response::IntoResponse;
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reqwest_opencode_session::testing::record::End;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::copy::{AnswerCopy, Guard, RequestCopy, Rest, UnderWay, Watched};
use crate::exchange::{self, Exchange, Recorder};
use crate::options::Upstream;

type BoxError = Box<dyn Error + Send + Sync>;
type Connector = BoxCloneSyncService<Uri, TokioIo<TcpStream>, BoxError>;

/// How long to wait for the rest of a request that cannot be forwarded.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client of a gateway that forwards calls to it, and may record them.
pub struct Forward {
    upstream: Upstream,
    client: Client<HttpsConnector<Connector>, Body>,
    recorder: Option<Recorder>,
    /// The environment's proxy for the upstream.
    proxy: Option<Uri>,
    under_way: watch::Sender<usize>,
}

impl Forward {
    pub fn new(upstream: Upstream, recorder: Option<Recorder>) -> Result<Self> {
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_nodelay(true);
        let is_https = upstream.scheme == Scheme::HTTPS;
        // An upstream on this machine needs no proxy.
        let proxy = match is_https {
            true => Matcher::from_env().intercept(&upstream.to_string().parse()?),
            false => None,
        };
        let connector = match &proxy {
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
                if let Some(credentials) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(credentials.clone());
                }
                Connector::new(tunnel.map_err(Into::into))
            }
            None => Connector::new(direct.map_err(Into::into)),
        };
        let tls = HttpsConnectorBuilder::new();
        let tls = match is_https {
            true => tls.try_with_platform_verifier()?,
            // None is needed, so the system may have no certificates.
            false => tls.with_tls_config(no_tls()?),
        };
        let connector = tls.https_or_http().enable_http1().wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            upstream,
            client,
            recorder,
            proxy: proxy.map(|proxy| proxy.uri().clone()),
            under_way: watch::Sender::default(),
        })
    }

    /// Returns the proxy on the way to the upstream.
    pub fn proxy(&self) -> Option<&Uri> {
        self.proxy.as_ref()
    }

    /// Returns how many calls are under way.
    pub fn under_way(&self) -> watch::Receiver<usize> {
        self.under_way.subscribe()
    }

    /// Forwards a request. An error closes the client's connection without an answer.
    pub async fn send(&self, request: Request<Incoming>) -> Result<Response<Body>, BoxError> {
        let under_way = UnderWay::new(&self.under_way);
        let (head, body) = request.into_parts();
        let rest = Rest::default();
        let (request, watched) = match &self.recorder {
            Some(recorder) if recorder.adds_sessions() => {
                let mut head = self.readdressed(head)?;
                let Some(body) = whole(body).await? else {
                    return Ok(too_long());
                };
                // A long body takes long to read.
                let exchange =
                    tokio::task::block_in_place(|| recorder.begin_whole(&mut head, &body));
                let watched = Watched::new(exchange);
                (Request::from_parts(head, Body::from(body)), Some(watched))
            }
            recorder => {
                let recorder = recorder.as_ref();
                let watched = recorder.map(|recorder| Watched::new(recorder.begin(&head)));
                let body = RequestCopy::new(body, watched.clone(), rest.clone());
                let head = self.readdressed(head)?;
                (Request::from_parts(head, Body::new(body)), watched)
            }
        };
        // From here on, the exchange ends if the client leaves.
        let guard = watched.map(Guard);
        let answered = self.client.request(request).await;
        match answered {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                remove_hop_by_hop(&mut head.headers);
                head.extensions.clear();
                let body = AnswerCopy::new(&head, body, guard, under_way);
                Ok(Response::from_parts(head, Body::new(body)))
            }
            Err(error) if error.is_connect() => {
                let message = format!("cannot reach {}: {}", self.upstream, cause(&error));
                if let Some(Guard(watched)) = &guard {
                    let rest = rest.read(watched.clone());
                    // A client that sends no more of it is not waited for.
                    let _ = tokio::time::timeout(PATIENCE, rest).await;
                    let mut error = exchange::error("Unreachable", &message);
                    error.status = Some(StatusCode::BAD_GATEWAY);
                    watched.lock().ended_by(End::Whole, error);
                }
                Ok(bad_gateway(&message))
            }
            Err(error) => {
                if let Some(Guard(watched)) = &guard {
                    let message = "the connection was closed without an answer";
                    let error = exchange::error("Closed", message);
                    watched.lock().ended_by(End::Cut, error);
                }
                Err(error.into())
            }
        }
    }

    /// Readdresses a request's head to the upstream.
    fn readdressed(&self, mut head: Parts) -> Result<Parts, http::Error> {
        remove_hop_by_hop(&mut head.headers);
        let Upstream { scheme, authority } = self.upstream.clone();
        if self.recorder.is_some() {
            let host = HeaderValue::from_str(authority.as_str())?;
            head.headers.insert(HOST, host);
        }
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query(path)
            .build()?;
        head.version = Version::HTTP_11;
        head.extensions.clear();
        Ok(head)
    }
}

/// Reads a whole body, or returns `None` if it is too long.
async fn whole(body: Incoming) -> hyper::Result<Option<Bytes>> {
    let mut body = body;
    let mut whole = vec![];
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if whole.len() + data.len() > Exchange::LONGEST_BODY {
                return Ok(None);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(Some(whole.into()))
}

fn too_long() -> Response<Body> {
    let message = "opencode-gateway --add-session takes at most 32 MiB";
    let error = json!({"type": "TooLong", "message": message});
    let error = Json(json!({"type": "error", "error": error}));
    (StatusCode::PAYLOAD_TOO_LARGE, error).into_response()
}

/// Returns the answer for a client if the upstream cannot be reached.
fn bad_gateway(message: &str) -> Response<Body> {
    let error = json!({"type": "Unreachable", "message": format!("opencode-gateway {message}")});
    let error = Json(json!({"type": "error", "error": error}));
    (StatusCode::BAD_GATEWAY, error).into_response()
}

fn no_tls() -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    Ok(config
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

/// Removes the headers that are meant only for the next hop.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let always = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in named.iter().chain(&always) {
        headers.remove(name);
    }
}

/// Returns the root cause of an error.
fn cause(mut error: &dyn Error) -> String {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
