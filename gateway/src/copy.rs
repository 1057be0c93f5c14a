//! Bodies that are forwarded as they are, while the exchange is shown what they contain.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use reqwest_opencode_session::testing::record::End;
use tokio::sync::watch;

use crate::exchange::{self, Exchange};

/// An exchange that both directions report to.
#[derive(Clone)]
pub struct Watched(Arc<Mutex<Exchange>>);

impl Watched {
    pub fn new(exchange: Exchange) -> Self {
        Self(Arc::new(Mutex::new(exchange)))
    }

    pub fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends an exchange whose client has left.
pub struct Guard(pub Watched);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().ended(End::ClientLeft);
    }
}

/// Counts a call while it is under way.
pub struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    pub fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// What a body returned when polled: data, trailers without data, an error, or its end.
type Given = Option<Result<Frame<Bytes>, hyper::Error>>;

fn data_of(given: &Given) -> Option<Result<Option<&Bytes>, &hyper::Error>> {
    let frame = given.as_ref()?;
    Some(frame.as_ref().map(Frame::data_ref))
}

/// A request's body on its way to the upstream.
pub struct RequestCopy {
    /// `None` only once it is dropped.
    body: Option<Incoming>,
    watched: Option<Watched>,
    rest: Rest,
}

/// What is left of a request's body that could not be sent.
#[derive(Clone, Default)]
pub struct Rest(Arc<Mutex<Option<Incoming>>>);

impl Rest {
    /// Reads what is left, so that the exchange is shown all that was asked.
    pub async fn read(self, watched: Watched) {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(body) = body {
            let body = RequestCopy::new(body, Some(watched), Self::default());
            // If it cannot be read, the exchange is shown as far as it came.
            let _ = body.collect().await;
        }
    }
}

impl RequestCopy {
    pub fn new(body: Incoming, watched: Option<Watched>, rest: Rest) -> Self {
        // An empty body is never polled.
        if let Some(watched) = watched.as_ref().filter(|_| body.is_end_stream()) {
            watched.lock().request_ended();
        }
        Self {
            body: Some(body),
            watched,
            rest,
        }
    }
}

impl Drop for RequestCopy {
    fn drop(&mut self) {
        let mut rest = self.rest.0.lock().unwrap_or_else(PoisonError::into_inner);
        *rest = self.body.take();
    }
}

impl Body for RequestCopy {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Given> {
        let Self { body, watched, .. } = &mut *self;
        let Some(body) = body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        if let Some(watched) = watched {
            match data_of(&frame) {
                Some(Ok(Some(data))) => watched.lock().request_data(data),
                Some(Ok(None)) => {}
                Some(Err(_)) | None => _ = watched.lock().request_ended(),
            }
            // A body of known length is not polled for its end.
            if body.is_end_stream() {
                watched.lock().request_ended();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map(Incoming::size_hint)
            .unwrap_or_default()
    }
}

/// An answer's body on its way back.
pub struct AnswerCopy {
    body: Incoming,
    guard: Option<Guard>,
    _under_way: UnderWay,
}

impl AnswerCopy {
    pub fn new(head: &Parts, body: Incoming, guard: Option<Guard>, under_way: UnderWay) -> Self {
        if let Some(Guard(watched)) = &guard {
            let mut exchange = watched.lock();
            exchange.answer_began(head.status, &head.headers);
            // An empty body is never polled for its end.
            if body.is_end_stream() {
                exchange.ended(End::Whole);
            }
        }
        Self {
            body,
            guard,
            _under_way: under_way,
        }
    }
}

impl Body for AnswerCopy {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Given> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Guard(watched)) = &self.guard {
            let mut exchange = watched.lock();
            match data_of(&frame) {
                Some(Ok(Some(data))) => exchange.answer_data(data),
                Some(Ok(None)) => {}
                Some(Err(_)) => {
                    let message = "the connection was closed in the middle of the answer";
                    exchange.ended_by(End::Cut, exchange::error("Cut", message));
                }
                None => exchange.ended(End::Whole),
            }
            // A body of known length is not polled for its end.
            if self.body.is_end_stream() {
                exchange.ended(End::Whole);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
