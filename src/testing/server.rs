//! The gateway's sockets.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::sync::oneshot;

use super::state::{Outcome, State};

/// A server on a thread of its own, so that it serves clients of any runtime, and of none.
#[derive(Debug)]
pub(super) struct Server {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(address: SocketAddr, state: State) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let mut address = listener.local_addr()?;
        if let SocketAddr::V6(address) = &mut address {
            // A URL has no place for it.
            address.set_scope_id(0);
        }
        let state = Arc::new(Mutex::new(state));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, Arc::clone(&state));
        let thread = thread::Builder::new()
            .name("opencode-gateway".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let serving = tokio::spawn(serving);
                    // Nothing is ever sent: the sender is dropped when the server is.
                    let _ = stopped.await;
                    serving.abort();
                });
            })?;
        Ok(Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // Its panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: connections that end give some back.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Without it an answer's small pieces wait for each other.
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&state)));
            // It fails where a client leaves, and where an answer is to be cut.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

type Body = Either<Full<Bytes>, Channel<Bytes, Closed>>;

/// The error that makes hyper close a connection.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("the gateway was told to close the connection")]
    OnPurpose,
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    #[error(transparent)]
    Http(#[from] http::Error),
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Body>, Closed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let outcome = lock(&state).receive(&head, &body);
    // Even a sleep of no time takes up to a millisecond.
    if !outcome.delay.is_zero() {
        tokio::time::sleep(outcome.delay).await;
    }
    let Some(status) = outcome.status else {
        return Err(Closed::OnPurpose);
    };
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, outcome.content_type);
    Ok(response.body(body_of(outcome))?)
}

fn body_of(
    Outcome {
        mut frames, cut, ..
    }: Outcome,
) -> Body {
    if frames.len() == 1 && !cut {
        return Either::Left(Full::new(frames.remove(0)));
    }
    let half = if cut {
        half_of(&mut frames)
    } else {
        frames.len()
    };
    let (mut sender, channel) = Channel::new(1);
    tokio::spawn(async move {
        for frame in frames.into_iter().take(half) {
            // Fails where the client has left.
            if sender.send_data(frame).await.is_err() {
                return;
            }
            // Lets the connection send this piece before the next one comes.
            tokio::task::yield_now().await;
        }
        if cut {
            sender.abort(Closed::OnPurpose);
        }
    });
    Either::Right(channel)
}

/// How many pieces are half of the body. A body of one piece is split.
fn half_of(frames: &mut Vec<Bytes>) -> usize {
    if let [whole] = &mut frames[..] {
        let second = whole.split_off(whole.len() / 2);
        frames.push(second);
    }
    frames.len() / 2
}
