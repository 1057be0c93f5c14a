//! The gateway's sockets.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::header::EXPECT;
use http::request::Parts;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::log::{Log, Unrecorded};
use super::outcome::Outcome;
use super::state::State;

/// How long a connection may take to bring a request's headers before it is closed, including the
/// wait for the first request and for the next one.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// How many bytes more than the limit are read and discarded before a body is refused: few clients
/// read an answer before they have sent everything.
const DRAINED: usize = 1 << 30;

/// A body longer than this, in bytes, is parsed on another thread, so that no other call waits.
const LONG: usize = 128 << 10;

/// A server on a thread of its own, for clients on any runtime or none.
#[derive(Debug)]
pub(super) struct Server {
    pub address: SocketAddr,
    service: Arc<Service>,
    runtime: Handle,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// What answers on a port.
#[derive(Debug)]
pub(super) struct Service {
    pub log: Log,
    /// `None` if this is not the gateway, but a stranger.
    pub state: Option<Mutex<State>>,
    /// The longest body that it accepts, in bytes.
    pub body: usize,
    pub header_timeout: Duration,
}

impl Server {
    pub fn start(address: SocketAddr, service: Service) -> io::Result<Self> {
        let (listener, address) = listen(address)?;
        let service = Arc::new(service);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, Arc::clone(&service));
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
            service,
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Answers on another address as well, until the server stops.
    pub fn serve_also(&self, address: SocketAddr, service: Service) -> io::Result<SocketAddr> {
        let (listener, address) = listen(address)?;
        self.runtime.spawn(serve(listener, Arc::new(service)));
        Ok(address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(self.service.state.as_ref().expect("it is a gateway"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let mut address = listener.local_addr()?;
    if let SocketAddr::V6(address) = &mut address {
        // A URL cannot contain it.
        address.set_scope_id(0);
    }
    Ok((listener, address))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, service: Arc<Service>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let timeout = service.header_timeout;
    let mut connections = auto::Builder::new(TokioExecutor::new());
    connections
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout);
    let connections = Arc::new(connections);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely out of file descriptors, until some connections end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Otherwise, an answer's small pieces wait for each other.
        let _ = stream.set_nodelay(true);
        let (connections, service) = (Arc::clone(&connections), Arc::clone(&service));
        tokio::spawn(async move {
            let begun = &AtomicBool::new(false);
            let service = service_fn(move |request| {
                begun.store(true, Ordering::Relaxed);
                answer(request, Arc::clone(&service))
            });
            // It fails if a client leaves, or if an answer is meant to be cut off.
            let connection = connections.serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            // hyper's own timeout begins only once it knows the HTTP version.
            let ended = tokio::time::timeout(timeout, &mut connection).await;
            if ended.is_err() && begun.load(Ordering::Relaxed) {
                let _ = connection.await;
            }
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
    #[error("a request cannot be read: {0}")]
    Reading(#[from] tokio::task::JoinError),
}

async fn answer(
    request: Request<Incoming>,
    service: Arc<Service>,
) -> Result<Response<Body>, Closed> {
    let (head, body) = request.into_parts();
    let body = receive(&head, body, service.body).await?;
    let outcome = match &service.state {
        None => stranger(head, body, &service),
        Some(state) => {
            let (head, unrecorded, whole) = read(head, body).await?;
            let outcome = match whole {
                true => lock(state).decide(&head, &unrecorded),
                false => Outcome::too_large(service.body),
            };
            service.log.push(unrecorded, Some(&outcome.answer));
            outcome
        }
    };
    // Even a sleep of no time takes up to a millisecond.
    if !outcome.delay.is_zero() {
        tokio::time::sleep(outcome.delay).await;
    }
    let status = outcome.answer.status.ok_or(Closed::OnPurpose)?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = outcome.headers.clone();
    Ok(response.map(|()| body_of(outcome)))
}

/// Receives a body in the pieces in which it comes; returns `None` if it is longer than the limit.
async fn receive(
    head: &Parts,
    mut body: Incoming,
    limit: usize,
) -> hyper::Result<Option<Vec<Bytes>>> {
    let waits = head.headers.contains_key(EXPECT);
    if waits && body.size_hint().lower() > limit as u64 {
        return Ok(None);
    }
    let (mut pieces, mut length) = (vec![], 0);
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else {
            continue;
        };
        length += piece.len();
        if length <= limit {
            pieces.push(piece);
        } else {
            pieces.clear();
        }
        if length > limit.saturating_add(DRAINED) {
            break;
        }
    }
    Ok((length <= limit).then_some(pieces))
}

/// Reads a request, and returns it with whether its body is whole.
async fn read(head: Parts, body: Option<Vec<Bytes>>) -> Result<(Parts, Unrecorded, bool), Closed> {
    let Some(pieces) = body else {
        let unrecorded = Unrecorded::read(&head, None);
        return Ok((head, unrecorded, false));
    };
    let long = pieces.iter().map(Bytes::len).sum::<usize>() > LONG;
    let read = move || {
        let unrecorded = Unrecorded::read(&head, Some(pieces.concat().into()));
        (head, unrecorded, true)
    };
    Ok(match long {
        true => tokio::task::spawn_blocking(read).await?,
        false => read(),
    })
}

/// Returns the answer of a server that is not the gateway.
fn stranger(head: Parts, body: Option<Vec<Bytes>>, service: &Service) -> Outcome {
    let outcome = Outcome::json(&serde_json::json!({}));
    let body = body.map(|pieces| pieces.concat().into());
    let unrecorded = Unrecorded::read(&head, body);
    service.log.push(unrecorded, Some(&outcome.answer));
    outcome
}

fn body_of(
    Outcome {
        mut frames, cut, ..
    }: Outcome,
) -> Body {
    if frames.len() <= 1 && !cut {
        return Either::Left(Full::new(frames.pop().unwrap_or_default()));
    }
    let half = if cut {
        half_of(&mut frames)
    } else {
        frames.len()
    };
    let (mut sender, channel) = Channel::new(1);
    tokio::spawn(async move {
        for frame in frames.into_iter().take(half) {
            // It fails if the client has left.
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

/// Returns how many pieces are half of the body, after splitting a body of one piece.
fn half_of(frames: &mut Vec<Bytes>) -> usize {
    if let [whole] = &mut frames[..] {
        let second = whole.split_off(whole.len() / 2);
        frames.push(second);
    }
    frames.len() / 2
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    #[test]
    fn a_connection_that_brings_no_headers_is_closed() {
        let service = Service {
            log: Log::default(),
            state: None,
            body: 0,
            header_timeout: Duration::from_millis(100),
        };
        let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), service).unwrap();
        for begun in ["", "PRI", "POST / HTTP/1.1\r\nhost:"] {
            let mut stream = TcpStream::connect(server.address).unwrap();
            // Without this, a gateway that closes nothing would block the test.
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            stream.write_all(begun.as_bytes()).unwrap();
            let mut rest = vec![];
            // It is closed, with or without an answer.
            stream
                .read_to_end(&mut rest)
                .unwrap_or_else(|error| panic!("{begun:?}: {error}"));
        }
    }
}
