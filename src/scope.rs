//! The ambient session: around a future or a stream, whatever runs inside.
//!
//! Built on `task-local-extensions`, none of whose hazards shows through: a panic leaves no session
//! on the thread, the application's own items stay visible, nothing is set outside a scope, and
//! what a future holds is dropped inside its session.

use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures_core::Stream;
use pin_project_lite::pin_project;
use task_local_extensions::{get_local_item, set_local_item};

use crate::session::{Session, SessionId};

/// Puts a session around a future or a stream.
///
/// Everything that a wrapped future does while it is polled or dropped sees the session: calls
/// through [`OpencodeSessionMiddleware`](crate::OpencodeSessionMiddleware) bear it, and
/// [`Session::current`] returns it.
///
/// ```
/// use reqwest_opencode_session::{Session, WithSession};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let session = Session::new();
/// let seen = async { Session::current() }.with_session(session.clone()).await;
/// assert_eq!(seen, Some(session));
/// assert_eq!(Session::current(), None);
/// # });
/// ```
pub trait WithSession: Sized {
    /// Runs inside `session`, whatever session is around the place where it is polled.
    fn with_session(self, session: impl Into<Session>) -> InSession<Self> {
        InSession {
            inner: Some(self),
            session: Some(session.into()),
        }
    }

    /// Runs inside the session that is around the caller now: [`Session::current`].
    ///
    /// A spawned task is polled outside every scope, and so is what runs inside a `with_extensions`
    /// of your own. This carries the session over. Where the caller has none, nothing changes.
    ///
    /// ```
    /// use reqwest_opencode_session::{Session, WithSession};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let session = Session::new();
    /// async {
    ///     let title = async { Session::current() };
    ///     let seen = tokio::spawn(title.with_current_session()).await.unwrap();
    ///     assert_eq!(seen, Session::current());
    /// }
    /// .with_session(session)
    /// .await;
    /// # });
    /// ```
    fn with_current_session(self) -> InSession<Self> {
        InSession {
            inner: Some(self),
            session: Session::current(),
        }
    }
}

impl<T> WithSession for T {}

pin_project! {
    /// A future or a stream inside a session. Made by [`WithSession`].
    ///
    /// It adds a pointer or two to the size of what it wraps, and no allocation to a poll. Like an
    /// `async` block, it panics when it is polled as a future after it was ready.
    ///
    /// It does nothing by itself, and the compiler says so:
    ///
    /// ```compile_fail
    /// #![deny(unused_must_use)]
    /// use reqwest_opencode_session::{Session, WithSession};
    ///
    /// async {}.with_session(Session::new());
    /// ```
    #[derive(Debug)]
    #[must_use = "futures and streams do nothing unless polled"]
    pub struct InSession<T> {
        // In an option, so that it can be dropped inside the session.
        #[pin]
        inner: Option<T>,
        // While `inner` runs, this holds what was around it.
        session: Option<Session>,
    }

    impl<T> PinnedDrop for InSession<T> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.inner.is_some() {
                let _scope = Scope::enter(this.session);
                this.inner.set(None);
            }
        }
    }
}

impl<T> InSession<T> {
    /// The session that it runs in.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
}

impl<F: Future> Future for InSession<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let _scope = Scope::enter(this.session);
        let output = ready!(running(this.inner.as_mut()).poll(context));
        // While the scope is there: so that drop need not enter it again.
        this.inner.set(None);
        Poll::Ready(output)
    }
}

impl<S: Stream> Stream for InSession<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let _scope = Scope::enter(this.session);
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
    /// The session around the caller: the innermost [`WithSession`] scope, or else a `Session` or
    /// `SessionId` that the application put into its own `task_local_extensions`.
    pub fn current() -> Option<Self> {
        scoped()
            .or_else(local)
            .or_else(|| local::<SessionId>().map(Self::from))
    }
}

/// The session of the innermost scope.
pub(crate) fn scoped() -> Option<Session> {
    local::<Slot>()?.lock().clone()
}

/// The item of this type in the current type map of `task_local_extensions`.
pub(crate) fn local<T: Clone + Send + Sync + 'static>() -> Option<T> {
    now(get_local_item())?
}

/// The output of a future that is `async` and never waits.
#[inline]
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Where a type map keeps the session of the innermost scope, and nothing between two polls.
///
/// It stays in the map: a scope swaps the session in and out instead of replacing the map, which
/// would hide the application's own items and allocate on each poll.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Option<Session>>>);

impl Slot {
    /// The slot of the current type map.
    fn current() -> Option<Self> {
        local().or_else(|| {
            let slot = Self::default();
            thread_is_alive().then(|| now(set_local_item(slot.clone())))?;
            Some(slot)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this thread's type map still takes items: in a thread that is ending, `set_local_item`
/// panics.
fn thread_is_alive() -> bool {
    struct Witness;

    impl Drop for Witness {
        fn drop(&mut self) {}
    }

    thread_local!(static WITNESS: Witness = const { Witness });

    // First touched after the type map, so destroyed before it.
    WITNESS.try_with(|_| ()).is_ok()
}

/// While it lives, the session is in the slot, and what was in the slot is in the session's place.
struct Scope<'a> {
    slot: Option<Slot>,
    session: &'a mut Option<Session>,
}

impl<'a> Scope<'a> {
    fn enter(session: &'a mut Option<Session>) -> Self {
        let slot = session.is_some().then(Slot::current).flatten();
        let mut scope = Self { slot, session };
        scope.swap();
        scope
    }

    fn swap(&mut self) {
        if let Some(slot) = &self.slot {
            mem::swap(&mut *slot.lock(), self.session);
        }
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        self.swap();
    }
}
