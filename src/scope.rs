//! The ambient session: the one around a future, a stream or a closure.
//!
//! Each thread has one slot, and a scope keeps its session there only while it is polled, called or
//! dropped. A guard swaps it in and out, so that neither a panic nor a cancelled future leaves
//! anything behind.

use std::cell::Cell;
use std::mem::{self, ManuallyDrop};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use futures_core::Stream;
use futures_core::future::FusedFuture;
use pin_project_lite::pin_project;
use task_local_extensions::get_local_item;

use crate::session::{IntoSession, Session, SessionId};

/// Runs a future or a stream inside a session.
///
/// Everything that a wrapped future does while it is polled or dropped sees the session: calls
/// through [`OpencodeSessionMiddleware`](crate::OpencodeSessionMiddleware) carry it, and
/// [`Session::current`] returns it.
///
/// For synchronous code, use [`Session::in_scope`]; for a closure that runs on another thread,
/// [`Session::carry`].
///
/// ```
/// use reqwest_opencode_session::{Session, WithSession};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let session = Session::new();
/// let seen = async { Session::current() }.with_session(&session).await;
/// assert_eq!(seen, Some(session));
/// assert_eq!(Session::current(), None);
/// # });
/// ```
///
/// # What runs inside
///
/// Everything that the future itself polls runs inside. A task that it spawns does not, because the
/// runtime polls that; [`with_current_session`](Self::with_current_session) carries the session
/// over. A `LocalSet` or a runtime that the future *drives* runs its tasks inside, because they are
/// polled there.
///
/// Wrap the future that is spawned, and not its handle: `tokio::spawn(f).with_session(&session)`
/// compiles, and only the waiting is in the session.
///
/// If a value can be awaited but is not a future itself, such as a builder that is `IntoFuture`,
/// put it into an `async` block, or call `into_future()` on it.
pub trait WithSession: Sized {
    /// Runs `self` inside `session`, even if the code that polls it is in another one.
    ///
    /// Takes a [`Session`], a [`SessionId`], a reference to either, or an [`Option`] of them.
    /// `None` changes nothing. Where `self` borrows what holds the session, put the session first:
    /// [`Session::scope`].
    fn with_session(self, session: impl IntoSession) -> InSession<Self> {
        InSession {
            inner: Some(self),
            swapped: session.into_session().map(Some),
        }
    }

    /// Runs `self` inside the session that is around the caller now: [`Session::current`].
    ///
    /// A spawned task is polled outside every scope; this carries the session over to it. If the
    /// caller has no session, it runs in none, wherever it is polled.
    ///
    /// ```
    /// use reqwest_opencode_session::{Session, WithSession};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let session = Session::new();
    /// async {
    ///     let task = tokio::spawn(WithSession::with_current_session(async {
    ///         Session::current()
    ///     }));
    ///     assert_eq!(task.await.unwrap(), Session::current());
    /// }
    /// .with_session(session)
    /// .await;
    /// # });
    /// ```
    fn with_current_session(self) -> InSession<Self> {
        InSession {
            inner: Some(self),
            swapped: Some(Session::current()),
        }
    }
}

impl<T> WithSession for T {}

pin_project! {
    /// A future or a stream inside a session. Created by [`WithSession`].
    ///
    /// It adds two pointers or three to the size of what it wraps, and allocates nothing when
    /// polled. Like an `async` block, it panics if it is polled as a future again after it has
    /// completed.
    #[derive(Debug)]
    #[must_use = "futures and streams do nothing unless polled"]
    pub struct InSession<T> {
        // In an option, so that it can be dropped inside the session.
        #[pin]
        inner: Option<T>,
        // What it runs in: a session, or none, or what is around it. While it runs, what was
        // around it.
        swapped: Option<Option<Session>>,
    }

    impl<T> PinnedDrop for InSession<T> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.inner.is_some() {
                let _scope = Scope::enter(this.swapped);
                this.inner.set(None);
            }
        }
    }
}

impl<T> InSession<T> {
    /// Returns what it wraps, or `None` if that is a future that has completed.
    pub fn into_inner(mut self) -> Option<T> {
        self.inner.take()
    }
}

impl<F: Future> Future for InSession<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let _scope = Scope::enter(this.swapped);
        let output = ready!(running(this.inner.as_mut()).poll(context));
        // Still inside the scope, so that `drop` need not enter it again.
        this.inner.set(None);
        Poll::Ready(output)
    }
}

impl<F: Future> FusedFuture for InSession<F> {
    fn is_terminated(&self) -> bool {
        self.inner.is_none()
    }
}

impl<S: Stream> Stream for InSession<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let _scope = Scope::enter(this.swapped);
        running(this.inner).poll_next(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, None), Stream::size_hint)
    }
}

fn running<T>(inner: Pin<&mut Option<T>>) -> Pin<&mut T> {
    inner.as_pin_mut().expect("polled after it was ready")
}

impl Session {
    /// Runs a future or a stream inside this session: [`with_session`](WithSession::with_session),
    /// with the session first.
    ///
    /// So that the future may borrow what holds the session:
    ///
    /// ```
    /// use reqwest_opencode_session::Session;
    ///
    /// struct Agent {
    ///     session: Session,
    ///     answers: Vec<String>,
    /// }
    ///
    /// impl Agent {
    ///     async fn prompt(&mut self) {
    ///         self.session.turn().scope(self.answer()).await
    ///     }
    ///
    ///     async fn answer(&mut self) {
    ///         self.answers.push("Hello".to_owned());
    ///     }
    /// }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let mut agent = Agent { session: Session::new(), answers: vec![] };
    /// # agent.prompt().await;
    /// # });
    /// ```
    pub fn scope<T>(&self, work: T) -> InSession<T> {
        work.with_session(self)
    }

    /// Runs a closure inside this session.
    ///
    /// Use it for code that does not wait. A future that the closure returns is polled outside, so
    /// `in_scope(|| async { … }).await` compiles and its calls are in no session: use
    /// [`scope`](Self::scope). A thread that runs other work while it waits, as a worker of rayon
    /// does, runs that work inside: enter the scope inside each piece of work.
    ///
    /// ```
    /// use reqwest_opencode_session::Session;
    ///
    /// let session = Session::new();
    /// assert_eq!(session.in_scope(Session::current), Some(session));
    /// ```
    pub fn in_scope<T>(&self, f: impl FnOnce() -> T) -> T {
        let mut swapped = Some(Some(self.clone()));
        let _scope = Scope::enter(&mut swapped);
        f()
    }

    /// Wraps a closure, to run inside the session that is around the caller now:
    /// [`Session::current`].
    ///
    /// Use it for `spawn_blocking` and threads. If the caller has no session, the closure runs in
    /// none, wherever it is called.
    ///
    /// ```
    /// use reqwest_opencode_session::Session;
    ///
    /// let session = Session::new();
    /// let thread = session.in_scope(|| std::thread::spawn(Session::carry(Session::current)));
    /// assert_eq!(thread.join().unwrap(), Some(session));
    /// ```
    pub fn carry<F: FnOnce() -> T, T>(f: F) -> impl FnOnce() -> T + use<F, T> {
        // If it is never called, what the closure holds is still dropped inside the session.
        let mut carried = f.with_current_session();
        move || {
            let f = carried.inner.take().expect("called once");
            let _scope = Scope::enter(&mut carried.swapped);
            f()
        }
    }

    /// Returns the session around the caller: that of the innermost scope, or else a `Session` or
    /// `SessionId` that the application put into its own `task_local_extensions`.
    ///
    /// The source of [`session_from`] is not asked.
    ///
    /// [`session_from`]: crate::OpencodeSessionMiddlewareBuilder::session_from
    pub fn current() -> Option<Self> {
        scoped()
            .or_else(local)
            .or_else(|| local::<SessionId>().map(Self::from))
    }
}

thread_local! {
    /// The session of the innermost scope; empty between polls.
    ///
    /// A type that needs no drop has no destructor to run while the thread ends, so a scope may be
    /// entered until the very end of the thread.
    static SLOT: Cell<ManuallyDrop<Option<Session>>> = const { Cell::new(ManuallyDrop::new(None)) };
}

/// Puts a session into the slot, and returns what was there.
fn swap(session: Option<Session>) -> Option<Session> {
    // This cannot fail: see `SLOT`.
    SLOT.try_with(|slot| slot.replace(ManuallyDrop::new(session)))
        .map_or(None, ManuallyDrop::into_inner)
}

/// Returns the session of the innermost scope.
pub(crate) fn scoped() -> Option<Session> {
    let session = swap(None);
    swap(session.clone());
    session
}

/// Returns the item of this type in the application's own `task_local_extensions`, which this crate
/// never writes.
pub(crate) fn local<T: Clone + Send + Sync + 'static>() -> Option<T> {
    // An `async fn` that never waits.
    match pin!(get_local_item()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(item) => item,
        Poll::Pending => None,
    }
}

/// While this lives, a session or none is in the slot, and what was there is in its place.
struct Scope<'a>(Option<&'a mut Option<Session>>);

impl<'a> Scope<'a> {
    /// Enters a session or none, or changes nothing.
    fn enter(swapped: &'a mut Option<Option<Session>>) -> Self {
        let mut scope = Self(swapped.as_mut());
        scope.swap();
        scope
    }

    fn swap(&mut self) {
        if let Some(session) = &mut self.0 {
            **session = swap(mem::take(*session));
        }
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.swap();
    }
}
