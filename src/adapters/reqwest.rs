//! The doors for reqwest, written once and stamped for each generation of it.

use std::error::Error;
use std::future::ready;
use std::pin::Pin;

use http::{Extensions, HeaderMap};
use thiserror::Error;
use url::Url;

use crate::middleware::OpencodeSessionMiddleware;
use crate::rule::{self, HttpRequest, MissingSession};

impl OpencodeSessionMiddleware {
    /// A client with this middleware and its [redirect policy](Self::redirect_policy) in place.
    ///
    /// The policy replaces the one that the builder has, `Policy::none()` too. To keep one of your
    /// own, build the client yourself, with [`redirect_policy_over`](Self::redirect_policy_over).
    /// To put other middlewares on the chain, do the same, and append this one last: whatever
    /// changes a request's URL must stand above it.
    ///
    /// In the browser there is no policy: redirects are the browser's.
    ///
    /// # Errors
    ///
    /// What reqwest's `ClientBuilder::build` fails with.
    ///
    /// ```
    /// use reqwest_opencode_session::OpencodeSessionMiddleware;
    ///
    /// let client = OpencodeSessionMiddleware::new().into_client(reqwest::Client::builder())?;
    /// # Ok::<(), reqwest::Error>(())
    /// ```
    pub fn into_client<B: ReqwestClientBuilder>(self, builder: B) -> Result<B::Client, B::Error> {
        builder.build_with(self)
    }

    /// A redirect policy that never carries a session off its targets.
    ///
    /// Like reqwest's default policy, which follows at most ten redirects, except that a redirect
    /// from a target to a non-target is an error that names both origins: `is_redirect` is true of
    /// it, and its source is a [`RedirectRefused`](crate::RedirectRefused). A redirect to a target
    /// that takes the session in another header is refused in the same way. (A reqwest-retry that
    /// stands outside wraps errors; there, look further down the sources.)
    ///
    /// Without this policy reqwest sends the session, and the body where the status asks for it, to
    /// any host that the gateway names: redirects happen below every middleware, and only
    /// credentials are taken away.
    ///
    /// ```
    /// use reqwest_middleware::ClientBuilder;
    /// use reqwest_opencode_session::OpencodeSessionMiddleware;
    ///
    /// let middleware = OpencodeSessionMiddleware::new();
    /// let client = reqwest::Client::builder().redirect(middleware.redirect_policy()).build()?;
    /// let client = ClientBuilder::new(client).with(middleware).build();
    /// # Ok::<(), reqwest::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn redirect_policy<P: RedirectPolicy>(&self) -> P {
        self.redirect_policy_over(P::default())
    }

    /// [`redirect_policy`](Self::redirect_policy) in front of a policy of your own, or of another
    /// middleware on the same client: what this one does not refuse, that one decides.
    ///
    /// This middleware's check comes first, so under `Policy::none()` a redirect from a target to a
    /// non-target is an error, and any other one is returned as it is.
    ///
    /// ```
    /// use reqwest::redirect::Policy;
    /// use reqwest_opencode_session::OpencodeSessionMiddleware;
    ///
    /// let policy = OpencodeSessionMiddleware::new().redirect_policy_over(Policy::limited(3));
    /// let client = reqwest::Client::builder().redirect(policy).build()?;
    /// # Ok::<(), reqwest::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn redirect_policy_over<P: RedirectPolicy>(&self, policy: P) -> P {
        policy.behind(self.clone())
    }
}

/// A `ClientBuilder` of reqwest: what [`into_client`](OpencodeSessionMiddleware::into_client) takes.
///
/// This trait is sealed: it is implemented for the `ClientBuilder` of reqwest 0.13 and, with the
/// feature `reqwest-012`, of reqwest 0.12.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `ClientBuilder` of a reqwest whose feature is on",
    note = "the feature `reqwest-013` takes the `reqwest::ClientBuilder` of 0.13, and \
            `reqwest-012` that of 0.12; a blocking client has no middleware"
)]
pub trait ReqwestClientBuilder: sealed::ReqwestClientBuilder {
    /// That generation's `ClientWithMiddleware`.
    type Client;
    /// That generation's `reqwest::Error`.
    type Error: Error + Send + Sync + 'static;

    #[doc(hidden)]
    fn build_with(self, middleware: OpencodeSessionMiddleware)
    -> Result<Self::Client, Self::Error>;
}

/// A `redirect::Policy` of reqwest: what
/// [`redirect_policy`](OpencodeSessionMiddleware::redirect_policy) makes.
///
/// This trait is sealed: it is implemented for the `Policy` of reqwest 0.13 and, with the feature
/// `reqwest-012`, of reqwest 0.12.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a redirect policy of a reqwest whose feature is on",
    note = "the feature `reqwest-013` takes the `reqwest::redirect::Policy` of 0.13, and \
            `reqwest-012` that of 0.12"
)]
#[cfg(not(target_arch = "wasm32"))]
pub trait RedirectPolicy: Default + sealed::RedirectPolicy {}

/// The session in a chain of calls that ends in `send`.
///
/// Implemented for the `RequestBuilder` of reqwest 0.13, with the feature `reqwest-012` of 0.12, and
/// with the feature `blocking` of `reqwest::blocking`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `RequestBuilder` of reqwest",
    note = "that of 0.13 is one, with the feature `reqwest-012` that of 0.12, and with the feature \
            `blocking` that of `reqwest::blocking`; a `ClientWithMiddleware` needs no such call"
)]
pub trait RequestBuilderExt: Sized + sealed::RequestBuilder {
    /// That generation's `reqwest::Error`.
    type BuildError: Error + Send + Sync + 'static;

    /// Applies the whole rule to the request that is being built, as
    /// [`apply`](OpencodeSessionMiddleware::apply) does.
    ///
    /// It reads the session now: the scope goes around the function that calls it, or
    /// [`bound_to`](OpencodeSessionMiddleware::bound_to) names the session. Call it last, when the
    /// request has its headers. Body, timeouts and version stay what they are.
    ///
    /// The client needs [`redirect_policy`](OpencodeSessionMiddleware::redirect_policy): reqwest
    /// carries a session along to whatever host it is sent to.
    ///
    /// # Errors
    ///
    /// [`RequestBuilderError`], which goes by `?` into `anyhow::Error` and that generation's
    /// `reqwest_middleware::Error`.
    ///
    /// ```
    /// use reqwest_opencode_session::{OpencodeSessionMiddleware, RequestBuilderExt, Session};
    ///
    /// static OPENCODE: OpencodeSessionMiddleware = OpencodeSessionMiddleware::new();
    ///
    /// # fn call(session: &Session) -> Result<(), Box<dyn std::error::Error>> {
    /// let client = reqwest::Client::builder().redirect(OPENCODE.redirect_policy()).build()?;
    /// let request = client
    ///     .post("https://opencode.ai/zen/go/v1/messages")
    ///     .body(r#"{"model": "kimi-k3"}"#)
    ///     .opencode_session(&OPENCODE.bound_to(session))?;
    /// # Ok(())
    /// # }
    /// # call(&Session::new()).unwrap();
    /// ```
    fn opencode_session(
        self,
        middleware: &OpencodeSessionMiddleware,
    ) -> Result<Self, RequestBuilderError<Self::BuildError>>;
}

/// Why a `RequestBuilder` got no session.
///
/// `E` is the `reqwest::Error` of that generation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestBuilderError<E: Error + 'static> {
    /// The builder itself holds an error, such as a URL that is none.
    #[error("the request could not be built")]
    Build(#[source] E),
    /// Nothing gave the request a session, and the fallback is to refuse it.
    #[error("the request carries no session")]
    MissingSession(#[source] MissingSession),
}

mod sealed {
    pub trait ReqwestClientBuilder {}

    pub trait RequestBuilder {}

    #[cfg(not(target_arch = "wasm32"))]
    pub trait RedirectPolicy {
        /// This policy, where the middleware does not refuse.
        fn behind(self, middleware: super::OpencodeSessionMiddleware) -> Self;
    }
}

#[cfg(not(target_arch = "wasm32"))]
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
#[cfg(target_arch = "wasm32")]
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A request that is on its way through a chain: its own extensions are those of the chain.
struct Chained<'a, R> {
    request: &'a mut R,
    extensions: &'a mut Extensions,
}

/// A request of reqwest, which keeps its extensions to itself.
macro_rules! impl_request {
    ($version:literal, $request:ty) => {
        #[doc = concat!("Of reqwest ", $version, ".")]
        impl HttpRequest for $request {}

        impl rule::sealed::HttpRequest for $request {
            type Url = Url;

            fn url(&self) -> &Url {
                self.url()
            }

            fn edit<T>(
                &mut self,
                edit: impl FnOnce(&mut HeaderMap, Option<&mut Extensions>) -> T,
            ) -> T {
                edit(self.headers_mut(), None)
            }
        }
    };
}

macro_rules! impl_request_builder {
    ($version:literal, $reqwest:ident, $request_builder:ty) => {
        impl sealed::RequestBuilder for $request_builder {}

        #[doc = concat!("Of reqwest ", $version, ".")]
        impl RequestBuilderExt for $request_builder {
            type BuildError = $reqwest::Error;

            fn opencode_session(
                self,
                middleware: &OpencodeSessionMiddleware,
            ) -> Result<Self, RequestBuilderError<$reqwest::Error>> {
                let (client, request) = self.build_split();
                let mut request = request.map_err(RequestBuilderError::Build)?;
                middleware
                    .apply(&mut request)
                    .map_err(RequestBuilderError::MissingSession)?;
                Ok(Self::from_parts(client, request))
            }
        }
    };
}

/// All doors of one generation of reqwest.
macro_rules! impl_generation {
    ($version:literal, $reqwest:ident, $reqwest_middleware:ident) => {
        impl_request!($version, $reqwest::Request);
        impl_request_builder!($version, $reqwest, $reqwest::RequestBuilder);
        #[cfg(feature = "blocking")]
        impl_request!($version, $reqwest::blocking::Request);
        #[cfg(feature = "blocking")]
        impl_request_builder!($version, $reqwest, $reqwest::blocking::RequestBuilder);

        impl $reqwest_middleware::Middleware for OpencodeSessionMiddleware {
            // What `#[async_trait]` would write, but for its box: there is nothing to await before
            // `next`.
            fn handle<'a, 'b, 'c, 'future>(
                &'a self,
                mut request: $reqwest::Request,
                extensions: &'b mut Extensions,
                next: $reqwest_middleware::Next<'c>,
            ) -> BoxFuture<'future, $reqwest_middleware::Result<$reqwest::Response>>
            where
                Self: 'future,
                'a: 'future,
                'b: 'future,
                'c: 'future,
            {
                let chained = &mut Chained {
                    request: &mut request,
                    extensions,
                };
                match self.rule().apply(chained) {
                    Ok(_) => next.run(request, extensions),
                    Err(missing) => {
                        Box::pin(ready(Err($reqwest_middleware::Error::middleware(missing))))
                    }
                }
            }
        }

        impl rule::sealed::HttpRequest for Chained<'_, $reqwest::Request> {
            type Url = Url;

            fn url(&self) -> &Url {
                self.request.url()
            }

            fn edit<T>(
                &mut self,
                edit: impl FnOnce(&mut HeaderMap, Option<&mut Extensions>) -> T,
            ) -> T {
                edit(self.request.headers_mut(), Some(self.extensions))
            }
        }

        impl From<RequestBuilderError<$reqwest::Error>> for $reqwest_middleware::Error {
            fn from(error: RequestBuilderError<$reqwest::Error>) -> Self {
                match error {
                    RequestBuilderError::Build(error) => error.into(),
                    RequestBuilderError::MissingSession(missing) => Self::middleware(missing),
                }
            }
        }

        impl sealed::ReqwestClientBuilder for $reqwest::ClientBuilder {}

        #[doc = concat!("Of reqwest ", $version, ".")]
        impl ReqwestClientBuilder for $reqwest::ClientBuilder {
            type Client = $reqwest_middleware::ClientWithMiddleware;
            type Error = $reqwest::Error;

            fn build_with(
                self,
                middleware: OpencodeSessionMiddleware,
            ) -> Result<Self::Client, $reqwest::Error> {
                #[cfg(not(target_arch = "wasm32"))]
                let builder = self.redirect(middleware.redirect_policy());
                #[cfg(target_arch = "wasm32")]
                let builder = self;
                Ok($reqwest_middleware::ClientBuilder::new(builder.build()?)
                    .with(middleware)
                    .build())
            }
        }

        #[doc = concat!("Of reqwest ", $version, ".")]
        #[cfg(not(target_arch = "wasm32"))]
        impl RedirectPolicy for $reqwest::redirect::Policy {}

        #[cfg(not(target_arch = "wasm32"))]
        impl sealed::RedirectPolicy for $reqwest::redirect::Policy {
            fn behind(self, middleware: OpencodeSessionMiddleware) -> Self {
                Self::custom(move |attempt| {
                    match middleware.check_redirect(attempt.previous(), attempt.url()) {
                        Ok(()) => self.redirect(attempt),
                        Err(refused) => attempt.error(refused),
                    }
                })
            }
        }
    };
}

#[cfg(feature = "reqwest-013")]
impl_generation!("0.13", reqwest, reqwest_middleware);
#[cfg(feature = "reqwest-012")]
impl_generation!("0.12", reqwest_012, reqwest_middleware_04);
