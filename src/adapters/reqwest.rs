//! The entry points for reqwest, written once and expanded for each of its versions.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use http::{Extensions, HeaderMap};
use thiserror::Error;
use url::Url;

use crate::middleware::OpencodeSessionMiddleware;
use crate::request::{self, HttpRequest};
use crate::rule::MissingSession;

impl OpencodeSessionMiddleware {
    /// Builds a client with this middleware and its [redirect policy](Self::redirect_policy).
    ///
    /// The policy replaces the one that the builder has, even `Policy::none()`. To keep one of your
    /// own, build the client yourself, with [`redirect_policy_over`](Self::redirect_policy_over).
    /// Also build it yourself to put other middlewares on the chain, and append this one last,
    /// because everything that changes a request's URL must be above it.
    ///
    /// In the browser there is no policy: the browser itself follows redirects.
    ///
    /// # Errors
    ///
    /// Returns the error of reqwest's `ClientBuilder::build`.
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

    /// Returns a redirect policy that keeps a session on its targets.
    ///
    /// It is like reqwest's default policy, which follows at most ten redirects, except that a
    /// redirect from a target to a non-target is an error that names both origins: `is_redirect` is
    /// true for it, and its source is a [`RedirectRefused`](crate::RedirectRefused). A redirect to
    /// a target that takes other headers is refused in the same way. (reqwest-retry wraps errors;
    /// with it, look further down the sources.)
    ///
    /// Without this policy, reqwest sends the session, and the body if the status asks for it, to
    /// any host that the gateway names: redirects happen below every middleware, and only
    /// credentials are removed.
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

    /// Returns [`redirect_policy`](Self::redirect_policy) in front of a policy of your own, or of
    /// another middleware on the same client, which decides what this one does not refuse.
    ///
    /// This middleware's check comes first, so over `Policy::none()`, a redirect from a target to a
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

/// A `ClientBuilder` of reqwest, for [`into_client`](OpencodeSessionMiddleware::into_client).
///
/// This trait is sealed: it is implemented for the `ClientBuilder` of reqwest 0.13 and, with the
/// feature `reqwest-012`, of reqwest 0.12.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the `ClientBuilder` of a reqwest version whose feature is on",
    note = "turn on `reqwest-013` for the `reqwest::ClientBuilder` of 0.13, or `reqwest-012` for \
            that of 0.12; a blocking client takes no middleware"
)]
pub trait ReqwestClientBuilder: sealed::ReqwestClientBuilder {
    /// That version's `ClientWithMiddleware`.
    type Client;
    /// That version's `reqwest::Error`.
    type Error: Error + Send + Sync + 'static;

    #[doc(hidden)]
    fn build_with(self, middleware: OpencodeSessionMiddleware)
    -> Result<Self::Client, Self::Error>;
}

/// A `redirect::Policy` of reqwest, from
/// [`redirect_policy`](OpencodeSessionMiddleware::redirect_policy).
///
/// This trait is sealed: it is implemented for the `Policy` of reqwest 0.13 and, with the feature
/// `reqwest-012`, of reqwest 0.12.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the redirect policy of a reqwest version whose feature is on",
    note = "turn on `reqwest-013` for the `reqwest::redirect::Policy` of 0.13, or `reqwest-012` \
            for that of 0.12"
)]
#[cfg(not(target_arch = "wasm32"))]
pub trait RedirectPolicy: Default + sealed::RedirectPolicy {}

/// Adds the session in a chain of calls that ends in `send`.
///
/// Implemented for the `RequestBuilder` of reqwest 0.13; with the feature `reqwest-012`, of 0.12;
/// and of their `blocking::RequestBuilder` with the features `blocking` and `blocking-012`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `RequestBuilder` of reqwest",
    note = "use the builder of reqwest 0.13, that of 0.12 with the feature `reqwest-012`, or that \
            of `reqwest::blocking` with `blocking` (of 0.12 with `blocking-012`); a \
            `ClientWithMiddleware` needs no such call"
)]
pub trait RequestBuilderExt: Sized + sealed::RequestBuilder {
    /// That version's `reqwest::Error`.
    type BuildError: Error + Send + Sync + 'static;

    /// Applies the middleware to the request that is being built, as
    /// [`apply`](OpencodeSessionMiddleware::apply) does.
    ///
    /// The session is read immediately: put the scope around the function that calls this, or name
    /// the session with [`bound_to`](OpencodeSessionMiddleware::bound_to). Call it last, when the
    /// request has its headers. Body, timeouts and version stay as they are.
    ///
    /// The client needs [`redirect_policy`](OpencodeSessionMiddleware::redirect_policy). Without it,
    /// reqwest carries the session to any host that a redirect points to.
    ///
    /// # Errors
    ///
    /// Returns a [`RequestBuilderError`], which `?` converts into `anyhow::Error` or that version's
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
/// `E` is the `reqwest::Error` of that version.
#[derive(Error)]
#[non_exhaustive]
pub enum RequestBuilderError<E: Error + 'static> {
    /// The builder itself contains an error, such as an invalid URL.
    #[error("reqwest could not build the request; check its URL and headers")]
    Build(#[source] E),
    /// Nothing gave the request a session, and the fallback is `Reject`.
    #[error(transparent)]
    MissingSession(MissingSession),
}

impl<E: Error> fmt::Debug for RequestBuilderError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(error) => f
                .debug_tuple("RequestBuilderError")
                .field(&format_args!("{self}"))
                .field(error)
                .finish(),
            Self::MissingSession(missing) => missing.fmt(f),
        }
    }
}

mod sealed {
    pub trait ReqwestClientBuilder {}

    pub trait RequestBuilder {}

    #[cfg(not(target_arch = "wasm32"))]
    pub trait RedirectPolicy {
        /// Returns this policy for all that the middleware does not refuse.
        fn behind(self, middleware: super::OpencodeSessionMiddleware) -> Self;
    }
}

/// A request on its way through a chain, whose extensions are those of the chain.
struct Chained<'a, R> {
    request: &'a mut R,
    extensions: &'a mut Extensions,
}

/// A request of reqwest, whose own extensions are private.
macro_rules! impl_request {
    ($version:literal, $request:ty) => {
        #[doc = concat!("For reqwest ", $version, ".")]
        impl HttpRequest for $request {}

        impl request::sealed::HttpRequest for $request {
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

        #[doc = concat!("For reqwest ", $version, ".")]
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

/// All entry points for one version of reqwest.
macro_rules! impl_generation {
    ($version:literal, $blocking:tt, $reqwest:ident, $reqwest_middleware:ident) => {
        impl_request!($version, $reqwest::Request);
        impl_request_builder!($version, $reqwest, $reqwest::RequestBuilder);
        #[cfg(feature = $blocking)]
        impl_request!($version, $reqwest::blocking::Request);
        #[cfg(feature = $blocking)]
        impl_request_builder!($version, $reqwest, $reqwest::blocking::RequestBuilder);

        #[cfg_attr(not(target_arch = "wasm32"), async_trait)]
        #[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
        impl $reqwest_middleware::Middleware for OpencodeSessionMiddleware {
            async fn handle(
                &self,
                mut request: $reqwest::Request,
                extensions: &mut Extensions,
                next: $reqwest_middleware::Next<'_>,
            ) -> $reqwest_middleware::Result<$reqwest::Response> {
                let chained = &mut Chained {
                    request: &mut request,
                    extensions,
                };
                self.rule()
                    .apply(chained)
                    .map_err($reqwest_middleware::Error::middleware)?;
                next.run(request, extensions).await
            }
        }

        impl request::sealed::HttpRequest for Chained<'_, $reqwest::Request> {
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

        #[doc = concat!("For reqwest ", $version, ".")]
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

        #[doc = concat!("For reqwest ", $version, ".")]
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
impl_generation!("0.13", "blocking", reqwest, reqwest_middleware);
#[cfg(feature = "reqwest-012")]
impl_generation!("0.12", "blocking-012", reqwest_012, reqwest_middleware_04);
