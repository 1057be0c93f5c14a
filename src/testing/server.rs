//! The gateway's sockets.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem, vec};

use http::header::EXPECT;
use http::request::Parts;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::answer::{Answer, End};
use super::log::{Log, Unrecorded};
use super::outcome::{Frame, Outcome};
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

    /// Also answers on another address, until the server stops.
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

type Body = Either<Full<Bytes>, Pieces>;

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
    let (head, unrecorded, whole) = read(head, body).await?;
    let number = service.log.number();
    let mut outcome = match &service.state {
        // A server that is not the gateway.
        None => Outcome::json(&serde_json::json!({})),
        Some(state) if whole => lock(state).decide(number, &head, &unrecorded),
        Some(_) => Outcome::too_large(service.body),
    };
    outcome.answer.end = Some(match outcome.answer.status {
        Some(_) => End::Whole,
        None => End::Cut,
    });
    let mut sent = Sent {
        log: service.log.clone(),
        number,
        so_far: Answer {
            provider: outcome.answer.provider.clone(),
            failure: outcome.answer.failure.clone(),
            ..Answer::default()
        },
        whole: mem::take(&mut outcome.answer),
        is_recorded: false,
    };
    let in_pieces = outcome.frames.len() > 1 || outcome.cut;
    // Even a sleep of no time takes up to a millisecond.
    if outcome.delay.is_zero() {
        let answer = sent.head(in_pieces);
        service.log.push(number, unrecorded, Some(&answer));
    } else {
        service.log.push(number, unrecorded, Some(&sent.so_far));
        // If the client leaves, this is as far as it comes.
        tokio::time::sleep(outcome.delay).await;
        let answer = sent.head(in_pieces);
        service.log.answer(number, &answer);
    }
    let mut response = Response::new(());
    *response.status_mut() = sent.whole.status.ok_or(Closed::OnPurpose)?;
    *response.headers_mut() = mem::take(&mut outcome.headers);
    Ok(response.map(|()| body_of(outcome, in_pieces.then_some(sent))))
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

/// Returns a body that is sent in pieces, with a record of them, or as a whole.
fn body_of(
    Outcome {
        mut frames, cut, ..
    }: Outcome,
    sent: Option<Sent>,
) -> Body {
    let Some(sent) = sent else {
        let frame = frames.pop().unwrap_or_default();
        return Either::Left(Full::new(frame.bytes));
    };
    if cut {
        halve(&mut frames);
    }
    Either::Right(Pieces {
        frames: frames.into_iter(),
        cut,
        pause: false,
        sent,
    })
}

/// A body that is sent in pieces.
struct Pieces {
    frames: vec::IntoIter<Frame>,
    /// Whether the connection is closed at the end.
    cut: bool,
    /// Whether to wait, so that the connection sends one piece before the next one comes.
    pause: bool,
    sent: Sent,
}

/// What was sent of an answer, and where it is recorded.
struct Sent {
    log: Log,
    number: u64,
    whole: Answer,
    so_far: Answer,
    is_recorded: bool,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Closed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Closed>>> {
        if mem::replace(&mut self.pause, false) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.frames.next() {
            Some(frame) => {
                self.pause = true;
                // The last one has the cost alone. Clients that stop at the one before it, such as
                // `[DONE]`, have the whole answer.
                let is_whole = self.frames.len() <= 1 && !self.cut;
                self.sent.add(frame.told);
                if is_whole {
                    self.sent.record(End::Whole);
                }
                Poll::Ready(Some(Ok(hyper::body::Frame::data(frame.bytes))))
            }
            None if self.cut => {
                self.sent.record(End::Cut);
                Poll::Ready(Some(Err(Closed::OnPurpose)))
            }
            None => Poll::Ready(None),
        }
    }
}

impl Sent {
    /// Returns what is known once the head is sent: all, unless the body is sent in pieces.
    fn head(&mut self, in_pieces: bool) -> Answer {
        if in_pieces && self.whole.status.is_some() {
            self.so_far.status = self.whole.status;
            return self.so_far.clone();
        }
        self.is_recorded = true;
        self.whole.clone()
    }

    fn add(&mut self, told: Answer) {
        let so_far = &mut self.so_far;
        so_far.say(told.text.as_deref().unwrap_or_default());
        so_far.usage = told.usage.or(so_far.usage);
        so_far.id = told.id.or(so_far.id.take());
        so_far.tool_calls.extend(told.tool_calls);
    }

    fn record(&mut self, end: End) {
        if !mem::replace(&mut self.is_recorded, true) {
            let answer = match end {
                End::Whole => &mut self.whole,
                End::ClientLeft | End::Cut => &mut self.so_far,
            };
            answer.end = Some(end);
            self.log.answer(self.number, answer);
        }
    }
}

impl Drop for Sent {
    /// If the client left in the middle, it has what was sent so far.
    fn drop(&mut self) {
        self.record(End::ClientLeft);
    }
}

/// Leaves half of the pieces of a body, after splitting a body of one piece.
fn halve(frames: &mut Vec<Frame>) {
    if let [whole] = &mut frames[..] {
        let second = whole.bytes.split_off(whole.bytes.len() / 2);
        frames.push(second.into());
    }
    frames.truncate(frames.len() / 2);
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};
    use std::task::Waker;

    use http::Request;
    use hyper::body::Body as _;

    use super::super::answer::Usage;
    use super::*;

    #[test]
    fn what_was_sent_of_a_stream_is_recorded_and_its_cost_is_no_part_of_it() {
        let usage = Usage {
            prompt: 7,
            ..Usage::default()
        };
        let frame = |text: &str, usage| Frame {
            bytes: Bytes::from_static(b"data: "),
            told: Answer {
                text: Some(text.to_owned()),
                usage,
                ..Answer::default()
            },
        };
        for (cut, sent, recorded, cost) in [
            (false, 0, 0, None),
            (false, 1, 0, None),
            (false, 2, 7, None),
            (false, 3, 7, Some(0.5)),
            (false, 4, 7, Some(0.5)),
            (true, 4, 7, None),
        ] {
            let log = Log::default();
            let (head, body) = Request::post("/zen/v1/messages")
                .body("{}")
                .unwrap()
                .into_parts();
            let number = log.record(&head, body);
            let frames = vec![
                frame("Yes.", None),
                frame("", Some(usage)),
                frame("", None),
                frame("", None),
            ];
            let mut pieces = Pieces {
                frames: frames.into_iter(),
                cut,
                pause: false,
                sent: Sent {
                    log: log.clone(),
                    number,
                    whole: Answer {
                        usage: Some(usage),
                        cost: Some(0.5),
                        ..Answer::default()
                    },
                    so_far: Answer::default(),
                    is_recorded: false,
                },
            };
            let mut context = Context::from_waker(Waker::noop());
            let mut polled = 0;
            while polled < sent {
                let frame = Pin::new(&mut pieces).poll_frame(&mut context);
                polled += usize::from(frame.is_ready());
            }
            drop(pieces);
            let seen = log.get(number).unwrap();
            let told = (seen.prompt_tokens, seen.cost);
            assert_eq!(told, (recorded, cost), "{sent}, {cut}");
        }
    }

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
