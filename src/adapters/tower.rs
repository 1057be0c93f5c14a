//! The entry point for tower: a layer that applies the middleware to each request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::middleware::OpencodeSessionMiddleware;
use crate::request::HttpRequest;
use crate::rule::MissingSession;

/// The error of a service that has an [`OpencodeSessionLayer`]: the same as `tower::BoxError`.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl OpencodeSessionMiddleware {
    /// Returns a tower layer that applies the middleware to each request.
    ///
    /// It wraps services of `reqwest::Request`, such as `reqwest::Client` itself, and of
    /// [`http::Request<B>`], such as hyper-util's client. It reads the session when the service is
    /// called, as tower's layers do, and not when the future is polled. So a layer above it that puts
    /// calls into a session puts both inside:
    /// `session.in_scope(|| inner.call(request)).with_session(session)`. A `buffer` above it calls
    /// it from a worker outside every scope: put the session into the extensions of an
    /// `http::Request`, or use a middleware that is [bound](Self::bound_to) to it.
    ///
    /// A tower `retry` above the layer sends clones of the original request, without what
    /// `session_from` returned, so each attempt asks again. Put the layer above the retry, or put
    /// the session into the request's extensions.
    ///
    /// # Redirects
    ///
    /// Give a `reqwest::Client` the `redirect_policy`. tower-http's `FollowRedirect` above the layer
    /// is safe: each hop is a request that gets what its own address may have. But it sends the
    /// second hop without the first one's extensions, so name the session by a scope or by
    /// [`bound_to`](Self::bound_to). Below the layer, it needs a policy made of
    /// [`check_redirect`](Self::check_redirect):
    ///
    /// ```
    /// use reqwest_opencode_session::OpencodeSessionMiddleware;
    /// use tower::BoxError;
    /// use tower_http::follow_redirect::policy::{Action, Attempt, redirect_fn};
    ///
    /// let middleware = OpencodeSessionMiddleware::new();
    /// let policy = redirect_fn(move |attempt: &Attempt<'_>| {
    ///     middleware.check_redirect(&[attempt.previous().clone()], attempt.location())?;
    ///     Ok::<_, BoxError>(Action::Follow)
    /// });
    /// ```
    ///
    /// # Errors
    ///
    /// The service's error is the inner service's, boxed, or a boxed [`MissingSession`]. After a
    /// `MissingSession`, the inner service keeps what it had reserved when it became ready, such as
    /// the permit of a `concurrency_limit`, for the next call of this service, or until this service
    /// is dropped.
    ///
    /// ```
    /// use reqwest_opencode_session::OpencodeSessionMiddleware;
    /// use tower::ServiceBuilder;
    ///
    /// let middleware = OpencodeSessionMiddleware::new();
    /// let client = reqwest::Client::builder().redirect(middleware.redirect_policy()).build()?;
    /// let service = ServiceBuilder::new().layer(middleware.layer()).service(client);
    /// # Ok::<(), reqwest::Error>(())
    /// ```
    pub fn layer(&self) -> OpencodeSessionLayer {
        OpencodeSessionLayer {
            middleware: self.clone(),
        }
    }
}

/// A layer that applies a middleware to each request. Created by
/// [`OpencodeSessionMiddleware::layer`].
#[derive(Debug, Clone)]
pub struct OpencodeSessionLayer {
    middleware: OpencodeSessionMiddleware,
}

impl<S> Layer<S> for OpencodeSessionLayer {
    type Service = OpencodeSessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OpencodeSessionService {
            inner,
            middleware: self.middleware.clone(),
        }
    }
}

/// A service that gives its requests a session. Created by [`OpencodeSessionLayer`].
#[derive(Debug, Clone)]
pub struct OpencodeSessionService<S> {
    inner: S,
    middleware: OpencodeSessionMiddleware,
}

impl<S, R> Service<R> for OpencodeSessionService<S>
where
    S: Service<R, Error: Into<BoxError>>,
    R: HttpRequest,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let state = match self.middleware.apply(&mut request) {
            Ok(_) => State::Sent {
                response: self.inner.call(request),
            },
            Err(missing) => State::Refused {
                missing: Some(missing),
            },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The response of an [`OpencodeSessionService`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = Projected]
    enum State<F> {
        Sent {
            #[pin]
            response: F,
        },
        Refused {
            missing: Option<MissingSession>,
        },
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            Projected::Sent { response } => {
                Poll::Ready(ready!(response.poll(context)).map_err(Into::into))
            }
            Projected::Refused { missing } => {
                let missing = missing.take().expect("polled after it was ready");
                Poll::Ready(Err(missing.into()))
            }
        }
    }
}
