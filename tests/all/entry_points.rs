//! Every entry point × every source of a session × a target or another host, over
//! the socket.
//!
//! The names of the tests form a table: `entry_points::request_builder::scope::on_a_target`. If a
//! cell is impossible, `table!` says why, and its test proves that the entry point does not take that
//! source.

use futures::future::LocalBoxFuture;
use http::HeaderName;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use reqwest_opencode_session::testing::{Gateway, SeenRequest};
use reqwest_opencode_session::{
    Applied, MissingSession, OpencodeSessionMiddleware, OpencodeSessionMiddlewareBuilder,
    RequestBuilderError, RequestBuilderExt,
};
use tokio::runtime::Builder;
use tower::{BoxError, Layer, ServiceExt};

use crate::sources::{Given, Sources};
use crate::stack::reqwest::{self, Url, blocking};
use crate::stack::reqwest_middleware::Error;
use crate::support::{
    CHAT, PROMPT, assert_carries, client_with, is_opencode_header, middleware_for, only,
    plain_client, start, start_stranger, values,
};

/// A call that goes through an entry point.
struct Call {
    sources: Sources<'static>,
    middleware: OpencodeSessionMiddleware,
    url: String,
}

/// What the entry point did, if it reports that.
type Answer = Result<Option<Applied>, MissingSession>;

impl Call {
    fn headers(&self) -> http::HeaderMap {
        let mut headers = self.sources.headers();
        let key = format!("Bearer {}", Gateway::KEY);
        headers.insert(http::header::AUTHORIZATION, key.parse().unwrap());
        headers
    }

    fn request(&self) -> reqwest::RequestBuilder {
        plain_client()
            .post(&self.url)
            .headers(self.headers())
            .body(PROMPT)
    }

    fn blocking_client(&self) -> blocking::Client {
        blocking::Client::builder().no_proxy().build().unwrap()
    }

    fn blocking_request(&self) -> blocking::RequestBuilder {
        let request = self.blocking_client().post(&self.url);
        request.headers(self.headers()).body(PROMPT)
    }

    fn http_request(&self) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::post(&self.url).body(PROMPT.into()).unwrap();
        *request.headers_mut() = self.headers();
        *request.extensions_mut() = self.sources.extensions();
        request
    }
}

// The entry points

async fn client_with_middleware(call: &Call) -> Answer {
    let client = client_with(call.middleware.clone());
    let request = call.request().build().unwrap();
    let mut extensions = call.sources.extensions();
    match client
        .execute_with_extensions(request, &mut extensions)
        .await
    {
        Ok(_) => Ok(None),
        Err(Error::Middleware(error)) => Err(error.downcast().unwrap()),
        Err(error) => panic!("{error}"),
    }
}

async fn request_builder(call: &Call) -> Answer {
    match call.request().opencode_session(&call.middleware) {
        Ok(request) => request
            .send()
            .await
            .map(|_| None)
            .map_err(|error| panic!("{error}")),
        Err(RequestBuilderError::MissingSession(missing)) => Err(missing),
        Err(error) => panic!("{error}"),
    }
}

async fn request(call: &Call) -> Answer {
    let mut request = call.request().build().unwrap();
    let applied = call.middleware.apply(&mut request)?;
    plain_client().execute(request).await.unwrap();
    Ok(Some(applied))
}

async fn blocking_request_builder(call: &Call) -> Answer {
    match call.blocking_request().opencode_session(&call.middleware) {
        Ok(request) => request
            .send()
            .map(|_| None)
            .map_err(|error| panic!("{error}")),
        Err(RequestBuilderError::MissingSession(missing)) => Err(missing),
        Err(error) => panic!("{error}"),
    }
}

async fn blocking_request(call: &Call) -> Answer {
    let mut request = call.blocking_request().build().unwrap();
    let applied = call.middleware.apply(&mut request)?;
    call.blocking_client().execute(request).unwrap();
    Ok(Some(applied))
}

fn hyper_client() -> HyperClient<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>> {
    HyperClient::builder(TokioExecutor::new()).build_http()
}

async fn http_request(call: &Call) -> Answer {
    let mut request = call.http_request();
    let applied = call.middleware.apply(&mut request)?;
    hyper_client().request(request).await.unwrap();
    Ok(Some(applied))
}

async fn http_parts(call: &Call) -> Answer {
    let (mut parts, body) = call.http_request().into_parts();
    let applied = call.middleware.apply(&mut parts)?;
    let request = http::Request::from_parts(parts, body);
    hyper_client().request(request).await.unwrap();
    Ok(Some(applied))
}

async fn apply_parts(call: &Call) -> Answer {
    let url: Url = call.url.parse().unwrap();
    let (mut headers, mut extensions) = (call.headers(), call.sources.extensions());
    let applied = call
        .middleware
        .apply_parts(&url, &mut headers, &mut extensions)?;
    let request = plain_client().post(url).headers(headers).body(PROMPT);
    request.send().await.unwrap();
    Ok(Some(applied))
}

async fn headers_for(call: &Call) -> Answer {
    let url: Url = call.url.parse().unwrap();
    let headers = call.middleware.headers_for(&url)?;
    assert!(!headers.contains_key(http::header::USER_AGENT));
    let request = call.request().headers(headers);
    request.send().await.unwrap();
    Ok(None)
}

async fn layer_over_reqwest(call: &Call) -> Answer {
    let service = call.middleware.layer().layer(plain_client());
    let answer = service.oneshot(call.request().build().unwrap()).await;
    answer.map(|_| None).map_err(missing)
}

async fn layer_over_hyper_util(call: &Call) -> Answer {
    let service = call.middleware.layer().layer(hyper_client());
    let answer = service.oneshot(call.http_request()).await;
    answer.map(|_| None).map_err(missing)
}

fn missing(error: BoxError) -> MissingSession {
    *error.downcast().unwrap()
}

// The table

struct EntryPoint {
    send: fn(&Call) -> LocalBoxFuture<'_, Answer>,
    /// Whether it blocks, which is not allowed inside a runtime.
    blocks: bool,
    /// The sources that it cannot have, and why.
    cannot: &'static [(&'static [Given], &'static str)],
}

const EXTENSIONS: &[Given] = &[Given::SessionInExtensions, Given::IdInExtensions];
const KEPT: &str = "a request of reqwest keeps its extensions to itself";

impl EntryPoint {
    /// Why it cannot take its session from this source, if it cannot.
    fn why_not(&self, given: Given) -> Option<&str> {
        let cells = self.cannot.iter();
        let mut whys = cells.filter(|(sources, _)| sources.contains(&given));
        whys.next().map(|(_, why)| *why)
    }

    /// Makes a call with this source of a session.
    fn call(
        &self,
        given: &'static [Given],
        settings: OpencodeSessionMiddlewareBuilder,
        gateway: &Gateway,
    ) -> Answer {
        let sources = Sources(given);
        let call = Call {
            sources,
            middleware: sources.middleware(settings.client_name("me").user_agent("me/1.0")),
            url: gateway.url(CHAT),
        };
        let calling = sources.around((self.send)(&call));
        if self.blocks {
            return futures::executor::block_on(calling);
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(calling)
    }

    fn on_a_target(&self, given: &'static [Given; 1]) {
        let gateway = start();
        let answer = self.call(given, middleware_for(&gateway), &gateway);
        let [given] = *given;
        if let Some(why) = self.why_not(given) {
            assert_eq!(answer.expect_err(why).url(), gateway.url(CHAT));
            return assert!(gateway.requests().is_empty());
        }
        if let Some(applied) = answer.unwrap() {
            assert_eq!(applied, Applied::Session(given.source()));
        }
        let seen = only(&gateway);
        assert_carries(&seen, &given.session());
        assert_eq!(seen.client.as_deref(), Some("me"));
        assert_eq!(seen.status.unwrap(), 200);
    }

    fn elsewhere(&self, given: &'static [Given; 1]) {
        let stranger = start_stranger();
        let settings = OpencodeSessionMiddleware::builder();
        let answer = self.call(given, settings, &stranger).unwrap();
        assert_eq!(answer.unwrap_or(Applied::NoTarget), Applied::NoTarget);
        let seen = only(&stranger);
        // A header that the caller set goes out unchanged.
        let own: &[&str] = match given {
            [Given::Header] => &["x-opencode-session"],
            [Given::OtherHeader] => &["x-opencode-request", "x-parent-session-id"],
            _ => &[],
        };
        assert_eq!(opencode_headers(&seen), own);
        assert!(!seen.headers.contains_key("user-agent"));
    }

    fn on_a_target_with_a_header_of_its_own(&self) {
        let gateway = start();
        let target = gateway.target().session_header("x-own-session").unwrap();
        let settings = OpencodeSessionMiddleware::builder().targets([target]);
        self.call(&[Given::Bound], settings, &gateway).unwrap();
        let seen = only(&gateway);
        let session = Given::Bound.session();
        assert_eq!(
            values(&seen, "x-own-session"),
            [session.id().as_str().as_bytes()]
        );
        assert_eq!(opencode_headers(&seen), [""; 0]);
        assert!(!seen.headers.contains_key("user-agent"));
    }
}

fn opencode_headers(seen: &SeenRequest) -> Vec<&str> {
    let names = seen.headers.keys().map(HeaderName::as_str);
    let mut names: Vec<_> = names.filter(|name| is_opencode_header(name)).collect();
    names.sort_unstable();
    names
}

macro_rules! table {
    ($($entry_point:ident $(blocks $blocks:literal)? $(, no $given:ident: $why:expr)*;)*) => {$(
        mod $entry_point {
            use super::*;

            const ENTRY_POINT: EntryPoint = EntryPoint {
                send: |call| Box::pin(super::$entry_point(call)),
                blocks: false $(|| $blocks)?,
                cannot: &[$(($given, $why)),*],
            };

            #[test]
            fn with_a_header_of_its_own() {
                ENTRY_POINT.on_a_target_with_a_header_of_its_own();
            }

            cells! {
                existing_header: Header;
                session_in_extensions: SessionInExtensions;
                id_in_extensions: IdInExtensions;
                bound: Bound;
                scope: Scope;
                session_in_task_locals: SessionInTaskLocals;
                id_in_task_locals: IdInTaskLocals;
                session_from: SessionFrom;
                other_header: OtherHeader;
                fallback: Fallback;
            }
        }
    )*};
}

macro_rules! cells {
    ($($source:ident: $given:ident;)*) => {$(
        mod $source {
            use super::*;

            #[test]
            fn on_a_target() {
                ENTRY_POINT.on_a_target(&[Given::$given]);
            }

            #[test]
            fn elsewhere() {
                ENTRY_POINT.elsewhere(&[Given::$given]);
            }
        }
    )*};
}

const HEADERS: &[Given] = &[Given::Header, Given::OtherHeader];

table! {
    client_with_middleware;
    request_builder, no EXTENSIONS: KEPT;
    request, no EXTENSIONS: KEPT;
    blocking_request_builder blocks true, no EXTENSIONS: KEPT;
    blocking_request blocks true, no EXTENSIONS: KEPT;
    http_request;
    http_parts;
    apply_parts;
    headers_for, no HEADERS: "it cannot see what the caller will set",
        no EXTENSIONS: "it is given only a URL";
    layer_over_reqwest, no EXTENSIONS: KEPT;
    layer_over_hyper_util;
}
