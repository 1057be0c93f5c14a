//! The ambient session, with everything that may run inside and around it.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::{future, thread};

use futures::future::{BoxFuture, FusedFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt, stream};
use reqwest_opencode_session::{Fallback, InSession, IntoSession, Session, SessionId, WithSession};
use task_local_extensions::{Extensions, get_local_item, set_local_item, with_extensions};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, LocalSet, yield_now};

use crate::support::{chat, client_with, middleware_for};

/// A runtime of each kind. The one with threads has a single worker, so that a probe finds whatever
/// was left on it.
fn runtimes() -> [Runtime; 2] {
    let one_worker = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let current_thread = Builder::new_current_thread().enable_all().build();
    [one_worker.unwrap(), current_thread.unwrap()]
}

/// Runs a future as a task of each kind of runtime, on a new thread.
fn on_each_runtime<F: Future<Output = ()> + Send + 'static>(future: impl Fn() -> F) {
    for runtime in runtimes() {
        let task = future();
        let thread = thread::spawn(move || {
            let result = runtime.block_on(async { tokio::spawn(task).await });
            result.unwrap();
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic));
    }
}

/// How a session is put around a future.
#[derive(Clone, Copy)]
enum Way {
    /// With this crate.
    WithSession,
    /// By the application, in its own type map, with all the hazards of that map.
    WithExtensions,
}

impl Way {
    fn around(
        self,
        session: Session,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        match self {
            Self::WithSession => future.with_session(session).boxed(),
            Self::WithExtensions => with_extensions(Extensions::new().with(session), future)
                .map(|_| ())
                .boxed(),
        }
    }
}

/// Checks that a scenario succeeds with this crate, and that it fails with the application's type
/// map: otherwise it would prove nothing.
fn sealed<F: Future<Output = bool> + Send + 'static>(scenario: impl Fn(Way) -> F) {
    for (way, expected) in [(Way::WithSession, true), (Way::WithExtensions, false)] {
        for runtime in runtimes() {
            let task = scenario(way);
            let thread =
                thread::spawn(move || runtime.block_on(async { tokio::spawn(task).await }));
            assert_eq!(thread.join().unwrap().unwrap(), expected);
        }
    }
}

/// Panics without printing a message.
fn panic_quietly() -> ! {
    resume_unwind(Box::new("on purpose"))
}

/// Returns whether the future panicked.
async fn panics(future: impl Future) -> bool {
    AssertUnwindSafe(future).catch_unwind().await.is_err()
}

/// Reports the session that is current when it is dropped.
struct Witness(mpsc::Sender<Option<Session>>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.send(Session::current()).unwrap();
    }
}

fn witness() -> (Witness, mpsc::Receiver<Option<Session>>) {
    let (sender, receiver) = mpsc::channel();
    (Witness(sender), receiver)
}

// The hazards of `with_extensions`

#[test]
fn a_panic_in_the_first_poll_leaves_no_session_on_the_thread() {
    sealed(|way| async move {
        assert!(panics(way.around(Session::new(), async { panic_quietly() })).await);
        Session::current().is_none()
    });
}

#[test]
fn a_panic_in_a_later_poll_leaves_no_session_on_the_thread() {
    sealed(|way| async move {
        let future = way.around(Session::new(), async {
            yield_now().await;
            yield_now().await;
            panic_quietly()
        });
        assert!(panics(future).await);
        Session::current().is_none()
    });
}

#[test]
fn a_task_that_panics_leaves_no_session_to_the_next_one() {
    sealed(|way| async move {
        let task = tokio::spawn(way.around(Session::new(), async { panic_quietly() }));
        assert!(task.await.unwrap_err().is_panic());
        tokio::spawn(async { Session::current() })
            .await
            .unwrap()
            .is_none()
    });
}

#[test]
fn a_panic_in_a_nested_scope_leaves_the_outer_session() {
    sealed(|way| async move {
        let outer = Session::new();
        let (expected, (sender, seen)) = (outer.clone(), mpsc::channel());
        let nested = async move {
            assert!(panics(way.around(Session::new(), async { panic_quietly() })).await);
            sender.send(Session::current()).unwrap();
        };
        way.around(outer, nested).await;
        seen.recv().unwrap() == Some(expected)
    });
}

#[test]
fn the_applications_items_are_visible_inside_a_scope() {
    sealed(|way| async move {
        let (sender, seen) = mpsc::channel();
        let inside = async move { sender.send(get_local_item::<u32>().await).unwrap() };
        with_extensions(
            Extensions::new().with(7_u32),
            way.around(Session::new(), inside),
        )
        .await;
        seen.recv().unwrap() == Some(7)
    });
}

#[test]
fn what_the_application_sets_inside_a_scope_stays_set() {
    sealed(|way| async move {
        let inside = set_local_item("kept");
        let (items, ()) =
            with_extensions(Extensions::new(), way.around(Session::new(), inside)).await;
        items.get::<&str>() == Some(&"kept")
    });
}

#[test]
fn a_cancelled_future_is_dropped_inside_its_session() {
    sealed(|way| async move {
        let session = Session::new();
        let (witness, dropped) = witness();
        let mut future = way.around(session.clone(), async move {
            let _witness = witness;
            future::pending().await
        });
        assert!(futures::poll!(&mut future).is_pending());
        drop(future);
        dropped.recv().unwrap() == Some(session)
    });
}

#[test]
fn a_future_that_panics_on_drop_leaves_no_session_on_the_thread() {
    struct PanicsOnDrop {
        _witness: Witness,
    }

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic_quietly()
        }
    }

    sealed(|way| async move {
        let session = Session::new();
        let (witness, dropped) = witness();
        let bomb = PanicsOnDrop { _witness: witness };
        let future = way.around(session.clone(), async move {
            let _bomb = bomb;
            future::pending().await
        });
        assert!(panics(async { drop(future) }).await);
        dropped.recv().unwrap() == Some(session) && Session::current().is_none()
    });
}

// Streams

/// Yields the current session again and again, with a pause before each.
fn sessions() -> impl Stream<Item = Option<Session>> {
    stream::unfold((), |()| async {
        yield_now().await;
        Some((Session::current(), ()))
    })
}

#[test]
fn a_stream_sees_its_session_wherever_it_is_polled() {
    on_each_runtime(|| async {
        let session = Session::new();
        let made = async { sessions().with_current_session() }
            .with_session(session.clone())
            .await;
        let mut polled = Box::pin(made.take(3));
        assert_eq!(polled.next().await, Some(Some(session.clone())));
        let elsewhere = async { polled.next().await }.with_session(Session::new());
        assert_eq!(elsewhere.await, Some(Some(session.clone())));
        let spawned = tokio::spawn(async move { polled.next().await });
        assert_eq!(spawned.await.unwrap(), Some(Some(session)));
    });
}

#[test]
fn a_stream_without_a_scope_of_its_own_sees_the_session_of_the_place_where_it_is_polled() {
    on_each_runtime(|| async {
        let made = async { sessions() }.with_session(Session::new()).await;
        let mut polled = Box::pin(made);
        assert_eq!(polled.next().await, Some(None));
        let session = Session::new();
        let next = async { polled.next().await }.with_session(session.clone());
        assert_eq!(next.await, Some(Some(session)));
    });
}

#[test]
fn a_panic_in_a_stream_leaves_no_session_on_the_thread() {
    on_each_runtime(|| async {
        for good_items in [0, 2] {
            let stream = stream::iter(0..).map(move |item| match item < good_items {
                true => item,
                false => panic_quietly(),
            });
            let stream = stream.with_session(Session::new());
            assert!(panics(stream.collect::<Vec<_>>()).await);
            assert_eq!(Session::current(), None);
        }
    });
}

#[test]
fn a_stream_is_dropped_inside_its_session() {
    on_each_runtime(|| async {
        let session = Session::new();
        let (witness, dropped) = witness();
        let stream = stream::pending::<()>().chain(stream::once(async move {
            let _witness = witness;
        }));
        drop(stream.with_session(session.clone()));
        assert_eq!(dropped.recv().unwrap(), Some(session));
    });
}

#[test]
fn a_stream_in_a_session_has_the_size_hint_of_the_stream() {
    let stream = stream::iter([1, 2, 3]).with_session(Session::new());
    assert_eq!(stream.size_hint(), (3, Some(3)));
}

// Several scopes

/// Checks that the session is the same before and after each of a few pauses.
async fn steady(session: Option<Session>) {
    for _ in 0..5 {
        assert_eq!(Session::current(), session);
        yield_now().await;
    }
    assert_eq!(Session::current(), session);
}

fn steady_in_its_own() -> InSession<impl Future<Output = ()>> {
    let session = Session::new();
    steady(Some(session.clone())).with_session(session)
}

#[test]
fn nested_scopes_restore_the_outer_session() {
    on_each_runtime(|| async {
        let outer = Session::new();
        let nested = async {
            let outer = Session::current();
            assert!(outer.is_some());
            steady_in_its_own().await;
            assert_eq!(Session::current(), outer);
            steady_in_its_own().await;
            steady(outer).await;
        };
        nested.with_session(outer).await;
        assert_eq!(Session::current(), None);
    });
}

#[test]
fn scopes_interleave_under_join() {
    on_each_runtime(|| async {
        let outer = Session::new();
        let joined = async {
            futures::join!(
                steady_in_its_own(),
                steady(Session::current()),
                steady_in_its_own(),
                async { futures::join!(steady_in_its_own(), steady_in_its_own()) },
            )
        };
        joined.with_session(outer).await;
        futures::join!(steady_in_its_own(), steady(None), steady_in_its_own());
    });
}

#[test]
fn scopes_interleave_under_select() {
    on_each_runtime(|| async {
        let forever = Session::new();
        let (witness, dropped) = witness();
        let lost = async {
            let _witness = witness;
            loop {
                steady(Session::current()).await;
            }
        };
        tokio::select! {
            () = lost.with_session(forever.clone()) => unreachable!(),
            () = steady_in_its_own() => {}
        }
        assert_eq!(dropped.recv().unwrap(), Some(forever));
        assert_eq!(Session::current(), None);
    });
}

#[test]
fn scopes_interleave_in_unordered_futures_and_streams() {
    on_each_runtime(|| async {
        let futures: FuturesUnordered<_> = (0..50).map(|_| steady_in_its_own()).collect();
        assert_eq!(futures.count().await, 50);

        let calls = stream::iter(0..50)
            .map(|_| steady_in_its_own())
            .buffer_unordered(7);
        assert_eq!(calls.count().await, 50);

        // Without scopes of their own, they run in that of the stream.
        let outer = Session::new();
        let session = outer.clone();
        let calls = stream::iter(0..50).map(move |_| steady(Some(session.clone())));
        assert_eq!(
            calls.buffer_unordered(7).with_session(outer).count().await,
            50
        );
    });
}

#[test]
fn one_future_polled_on_different_threads_keeps_its_session() {
    let mut future = Box::pin(steady_in_its_own());
    let mut polls = 0;
    loop {
        let (polled, returned) = thread::spawn(move || {
            let mut context = Context::from_waker(Waker::noop());
            let polled = future.as_mut().poll(&mut context);
            assert_eq!(Session::current(), None);
            (polled, future)
        })
        .join()
        .unwrap();
        future = returned;
        polls += 1;
        if polled.is_ready() {
            break;
        }
    }
    assert!(polls > 1);
}

#[test]
fn the_scope_wins_over_the_applications_items_and_no_type_map_of_its_hides_it() {
    on_each_runtime(|| async {
        let session = Session::new();
        let items = || {
            [
                Extensions::new(),
                Extensions::new().with(Session::new().turn()),
            ]
        };
        for items in items() {
            let nested = with_extensions(items, steady(Some(session.clone())));
            nested.with_session(&session).await;
        }
        for items in items() {
            with_extensions(items, steady(Some(session.clone())).with_session(&session)).await;
        }
    });
}

#[test]
fn a_caught_panic_in_a_type_map_of_the_application_leaves_the_session_in_place() {
    on_each_runtime(|| async {
        let session = Session::new();
        let around = session.clone();
        let inside = async move {
            let stranger = Extensions::new().with(Session::new());
            assert!(panics(with_extensions(stranger, async { panic_quietly() })).await);
            // In the same poll, and in later ones.
            steady(Some(session)).await;
        };
        inside.with_session(around).await;
    });
}

#[test]
fn the_applications_own_session_is_current_where_there_is_no_scope() {
    on_each_runtime(|| async {
        let (session, id) = (Session::new().turn(), SessionId::new());
        let current = || async { Session::current() };
        let items = || Extensions::new().with(id.clone());
        assert_eq!(
            with_extensions(items(), current()).await.1,
            Some(Session::from(id.clone()))
        );
        let both = items().with(session.clone());
        assert_eq!(with_extensions(both, current()).await.1, Some(session));
    });
}

#[test]
fn nothing_is_left_in_a_type_map_of_the_application() {
    on_each_runtime(|| async {
        let (items, ()) = with_extensions(Extensions::new(), steady_in_its_own()).await;
        let (_, current) = with_extensions(items, async { Session::current() }).await;
        assert_eq!(current, None);
    });
}

// Tasks

#[test]
fn a_spawned_task_sees_the_session_only_where_it_is_carried_over() {
    on_each_runtime(|| async {
        let session = Session::new().turn();
        let spawning = async {
            let current = || async { Session::current() };
            assert_eq!(tokio::spawn(current()).await.unwrap(), None);
            let carried = current().with_current_session();
            assert_eq!(tokio::spawn(carried).await.unwrap(), Session::current());

            let mut set = JoinSet::new();
            set.spawn(current());
            assert_eq!(set.join_next().await.unwrap().unwrap(), None);
            set.spawn(current().with_current_session());
            assert_eq!(set.join_next().await.unwrap().unwrap(), Session::current());
        };
        spawning.with_session(session).await;
    });
}

#[test]
fn a_task_spawned_locally_sees_the_session_only_where_it_is_carried_over() {
    for runtime in runtimes() {
        let local = LocalSet::new();
        let session = Session::new();
        let spawning = async {
            let current = || async { Session::current() };
            assert_eq!(tokio::task::spawn_local(current()).await.unwrap(), None);
            let carried = current().with_current_session();
            let seen = tokio::task::spawn_local(carried).await.unwrap();
            assert_eq!(seen, Session::current());
            assert!(seen.is_some());
        };
        local.block_on(&runtime, spawning.with_session(session));
    }
}

#[test]
fn what_is_carried_out_of_no_session_runs_in_none_wherever_it_is_polled() {
    on_each_runtime(|| async {
        let carried = async { Session::current() }.with_current_session();
        let session = Session::new();
        let around = async {
            assert_eq!(carried.await, None);
            assert_eq!(Session::current().as_ref(), Some(&session));
        };
        around.with_session(&session).await;
        // `None` says nothing about a session, so it changes nothing.
        let unchanged = async { Session::current() }.with_session(None::<Session>);
        assert_eq!(unchanged.with_session(&session).await, Some(session));
    });
}

#[test]
fn a_stream_carried_out_of_no_session_runs_and_is_dropped_in_none() {
    let carried = stream::iter([()]).map(|()| Session::current());
    let (witness, dropped) = witness();
    let carried = carried.chain(stream::once(async move {
        let _witness = witness;
        future::pending().await
    }));
    let mut carried = Box::pin(carried.with_current_session());
    Session::new().in_scope(|| {
        assert_eq!(carried.next().now_or_never().unwrap(), Some(None));
        assert!(carried.next().now_or_never().is_none());
        drop(carried);
    });
    assert_eq!(dropped.recv().unwrap(), None);
}

#[test]
fn a_local_task_that_was_carried_out_of_no_session_is_in_none_inside_another_conversation() {
    for runtime in runtimes() {
        let tasks = LocalSet::new();
        let carried = tasks.spawn_local(async { Session::current() }.with_current_session());
        let left_alone = tasks.spawn_local(async { Session::current() });
        let session = Session::new();
        // A set that is driven inside a conversation polls its tasks there.
        runtime.block_on(tasks.with_session(&session));
        assert_eq!(runtime.block_on(carried).unwrap(), None);
        assert_eq!(runtime.block_on(left_alone).unwrap(), Some(session));
    }
}

#[test]
fn no_session_hides_a_scope_and_not_the_applications_own_items() {
    let own = Session::new().turn();
    let items = Extensions::new().with(own.clone());
    let carried = async { Session::current() }.with_current_session();
    let inside = with_extensions(items, carried).with_session(Session::new());
    assert_eq!(inside.now_or_never().unwrap().1, Some(own));
}

#[test]
fn an_aborted_task_is_dropped_inside_its_session_and_leaves_nothing() {
    on_each_runtime(|| async {
        let session = Session::new();
        let (witness, dropped) = witness();
        let endless = async move {
            let _witness = witness;
            future::pending::<()>().await;
        };
        let task = tokio::spawn(endless.with_session(session.clone()));
        yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(dropped.recv().unwrap(), Some(session));
        assert_eq!(
            tokio::spawn(async { Session::current() }).await.unwrap(),
            None
        );
    });
}

#[test]
fn a_future_may_outlive_the_thread_that_polled_it_first() {
    let session = Session::new();
    let (witness, dropped) = witness();
    let mut future = Box::pin(
        async move {
            let _witness = witness;
            future::pending::<()>().await;
        }
        .with_session(session.clone()),
    );
    let future = thread::spawn(move || {
        let mut context = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        future
    });
    drop(future.join().unwrap());
    assert_eq!(dropped.recv().unwrap(), Some(session));
}

// Closures

#[test]
fn in_scope_nests_and_returns_what_the_closure_returns() {
    let (outer, inner) = (Session::new(), Session::new().turn());
    let seen = outer.in_scope(|| {
        let before = Session::current();
        let nested = inner.in_scope(Session::current);
        [before, nested, Session::current()]
    });
    assert_eq!(seen, [Some(outer.clone()), Some(inner), Some(outer)]);
    assert_eq!(Session::current(), None);
}

#[test]
fn in_scope_restores_what_was_there_after_a_panic() {
    let (outer, inner) = (Session::new(), Session::new());
    let panic_inside = || {
        catch_unwind(AssertUnwindSafe(|| inner.in_scope(|| panic_quietly()))).unwrap_err();
        Session::current()
    };
    assert_eq!(panic_inside(), None);
    assert_eq!(outer.in_scope(panic_inside), Some(outer));
}

#[test]
fn a_future_that_is_made_in_a_closure_and_returned_is_outside() {
    on_each_runtime(|| async {
        let session = Session::new();
        let returned = session.in_scope(|| async { Session::current() });
        assert_eq!(returned.await, None);
        let wrapped = session.in_scope(|| async { Session::current() }.with_current_session());
        assert_eq!(wrapped.await, Some(session));
    });
}

#[test]
fn a_closure_is_carried_to_blocking_tasks_and_threads() {
    on_each_runtime(|| async {
        let session = Session::new().turn();
        let expected = Some(session.clone());
        async move {
            let blocking = tokio::task::spawn_blocking(Session::carry(Session::current));
            assert_eq!(blocking.await.unwrap(), expected);
            let thread = thread::spawn(Session::carry(Session::current));
            assert_eq!(thread.join().unwrap(), expected);
            let lost = tokio::task::spawn_blocking(Session::current).await;
            assert_eq!(lost.unwrap(), None);
        }
        .with_session(session)
        .await;
    });
}

#[test]
fn a_carried_closure_goes_before_the_session_of_the_place_where_it_is_called() {
    let (session, elsewhere) = (Session::new(), Session::new());
    let carried = session.in_scope(|| Session::carry(Session::current));
    assert_eq!(elsewhere.in_scope(carried), Some(session));
}

#[test]
fn a_closure_that_was_carried_out_of_no_session_runs_in_none_wherever_it_is_called() {
    let carried = Session::carry(Session::current);
    assert_eq!(Session::new().in_scope(carried), None);
}

#[test]
fn what_a_carried_closure_holds_is_dropped_inside_its_session_whether_it_was_called_or_not() {
    for call in [true, false] {
        let session = Session::new();
        let (witness, dropped) = witness();
        let carried = session.in_scope(|| Session::carry(move || drop(witness)));
        match call {
            true => carried(),
            false => drop(carried),
        }
        assert_eq!(dropped.recv().unwrap(), Some(session));
        assert_eq!(Session::current(), None);
    }
}

// The wrapper

#[test]
fn a_future_that_borrows_what_holds_its_session_runs_in_it() {
    struct Agent {
        session: Session,
        seen: Option<Session>,
    }

    impl Agent {
        async fn run(&mut self) {
            self.seen = Session::current();
        }

        async fn prompt(&mut self) {
            self.session.turn().scope(self.run()).await;
        }
    }

    let session = Session::new();
    let mut agent = Agent {
        session: session.clone(),
        seen: None,
    };
    agent.prompt().now_or_never().unwrap();
    let seen = agent.seen.unwrap();
    assert_eq!(seen.id(), session.id());
    assert!(seen.turn_id().is_some());

    let stream = session.scope(stream::iter([()]).map(|()| Session::current()));
    assert_eq!(
        stream.collect::<Vec<_>>().now_or_never().unwrap(),
        [Some(session)]
    );
}

#[test]
fn what_was_put_into_a_session_comes_out_of_it_unless_it_has_completed() {
    let mut future = Box::pin(async { Session::current() }).with_session(Session::new());
    let inner = async { Session::current() }
        .with_session(Session::new())
        .into_inner();
    assert_eq!(inner.unwrap().now_or_never().unwrap(), None);
    assert!((&mut future).now_or_never().unwrap().is_some());
    assert!(future.into_inner().is_none());
}

#[test]
fn a_future_in_a_session_says_when_it_has_completed() {
    let mut future = Box::pin(yield_now().with_session(Session::new()));
    assert!(!future.is_terminated());
    assert!((&mut future).now_or_never().is_none());
    assert!(!future.is_terminated());
    assert!((&mut future).now_or_never().is_some());
    assert!(future.is_terminated());
}

#[test]
fn a_scope_is_made_of_whatever_names_a_session() {
    fn seen(name: impl IntoSession) -> Option<Session> {
        let outer = Session::from("outer".parse::<SessionId>().unwrap());
        let current = async { Session::current() }.with_session(name);
        current.with_session(outer).now_or_never().unwrap()
    }

    let turn = Session::new().turn();
    let session = Session::from(turn.id());
    let to_reference = &&turn;
    let some_reference = &Some(to_reference);
    let (some_turn, some_id) = (Some(turn.clone()), Some(turn.id().clone()));
    for seen in [
        seen(turn.clone()),
        seen(&turn),
        seen(Some(turn.clone())),
        seen(Some(&turn)),
        seen(&some_turn),
        seen(to_reference),
        seen(some_reference),
    ] {
        assert_eq!(seen.as_ref(), Some(&turn));
    }
    for seen in [
        seen(turn.id().clone()),
        seen(turn.id()),
        seen(Some(turn.id().clone())),
        seen(Some(turn.id())),
        seen(&some_id),
    ] {
        assert_eq!(seen.as_ref(), Some(&session));
    }
    // Nothing changes.
    for seen in [
        seen(None::<Session>),
        seen(None::<&Session>),
        seen(None::<SessionId>),
        seen(None::<&SessionId>),
        seen(&None::<Session>),
    ] {
        assert_eq!(seen.unwrap().id(), &"outer");
    }
}

// Over the socket

#[tokio::test]
async fn calls_of_many_conversations_on_one_client_are_each_in_their_own() {
    let gateway = reqwest_opencode_session::testing::Gateway::start().unwrap();
    let middleware = middleware_for(&gateway)
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let client = client_with(middleware);
    let sessions: Vec<_> = (0..20).map(|_| Session::new().turn()).collect();
    let calls = sessions.iter().map(|session| {
        let call = async {
            for _ in 0..3 {
                let expected = Session::current().unwrap().id().to_string();
                let call = chat(&client, &gateway).header("x-expected", expected);
                call.send().await.unwrap();
                yield_now().await;
            }
        };
        call.with_session(session.clone())
    });
    futures::future::join_all(calls).await;
    let requests = gateway.requests();
    assert_eq!(requests.len(), 60);
    for request in requests {
        assert_eq!(
            request.session.as_deref(),
            request.headers["x-expected"].to_str().ok()
        );
    }
}

#[test]
fn the_size_of_a_future_in_a_session_is_its_own_and_two_pointers_or_three() {
    fn sizes<F: Future>(future: F) -> (usize, usize) {
        (
            size_of_val(&future.with_session(Session::new())),
            size_of::<F>(),
        )
    }
    let bytes = [0_u8; 1000];
    let (wrapped, bare) = sizes(async move {
        yield_now().await;
        assert_eq!(bytes[0], 0);
    });
    assert!(
        wrapped <= bare + 3 * size_of::<usize>(),
        "{wrapped} and {bare}"
    );
}

// Random trees against a plain stack

mod model {
    use std::sync::LazyLock;

    use http::HeaderMap;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};
    use reqwest_opencode_session::{ExistingHeader, OpencodeSessionMiddleware, Source};

    use super::*;
    use crate::rules;
    use crate::stack::reqwest::{Client, Request, Response};
    use crate::stack::reqwest_middleware::{ClientBuilder, Middleware, Next, Result};
    use crate::support::{cases, map, plain_client};

    /// One step of a program. Its children, if any, are a program of their own.
    #[derive(Debug, Clone)]
    enum Step {
        Yield,
        Panic,
        /// A call through a chain.
        Call(Call),
        /// In a scope of its own.
        Scope(Vec<Step>),
        /// In a scope that names no session, and so changes nothing.
        NoScope(Vec<Step>),
        /// Run as a task, with the current session if it is carried.
        Spawn {
            carried: bool,
            steps: Vec<Step>,
        },
        /// Carried out of here, and polled inside another session.
        Elsewhere(Vec<Step>),
        /// Inside an application's own `with_extensions`, whose hazards must have no effect.
        Extensions(Vec<Step>),
        /// Inside a closure.
        InScope {
            panics: bool,
        },
        /// A closure that is carried out of here, and called inside another session.
        Carry,
        Join(Vec<Step>, Vec<Step>),
        /// Catches a panic inside.
        Catch(Vec<Step>),
        /// Dropped after this many polls.
        Cancel {
            polls: usize,
            steps: Vec<Step>,
        },
    }

    /// A call with these headers, and the settings of the middleware.
    #[derive(Debug, Clone)]
    struct Call {
        headers: Vec<(&'static str, &'static str)>,
        existing: ExistingHeader,
        fallback: Fallback,
        /// Whether a middleware above puts it into a session.
        has_tenant: bool,
    }

    /// Headers that say something of a session, each in some of the forms that it may have.
    const HEADERS: [(&str, &str); 12] = [
        ("x-opencode-session", "own"),
        ("x-opencode-session", "another"),
        ("x-opencode-session", "two words"),
        ("session_id", "theirs"),
        ("session_id", "theirs"),
        ("session-id", ""),
        ("x-session-id", "by-another-name"),
        ("x-claude-code-session-id", "of-claude"),
        ("x-session-affinity", "of-no-gateway"),
        ("x-opencode-request", "a-turn"),
        ("x-opencode-request-id", "a-turn"),
        ("x-parent-session-id", "a-parent"),
    ];

    fn call() -> impl Strategy<Value = Call> {
        let headers = subsequence(HEADERS.to_vec(), 0..=5);
        let existing = select(&[ExistingHeader::Keep, ExistingHeader::Replace][..]);
        let fallback = select(vec![
            Fallback::Process,
            Fallback::Session(Session::new().subagent().turn()),
            Fallback::Omit,
            Fallback::Reject,
        ]);
        (headers, existing, fallback, any::<bool>()).prop_map(
            |(headers, existing, fallback, has_tenant)| Call {
                headers,
                existing,
                fallback,
                has_tenant,
            },
        )
    }

    fn program() -> impl Strategy<Value = Vec<Step>> {
        let leaf = prop_oneof![
            3 => Just(Step::Yield),
            1 => Just(Step::Panic),
            3 => call().prop_map(Step::Call),
            1 => any::<bool>().prop_map(|panics| Step::InScope { panics }),
            1 => Just(Step::Carry),
        ];
        let step = leaf.prop_recursive(5, 60, 4, |step| {
            let steps = || prop::collection::vec(step.clone(), 0..4);
            prop_oneof![
                4 => steps().prop_map(Step::Scope),
                1 => steps().prop_map(Step::NoScope),
                1 => (any::<bool>(), steps())
                    .prop_map(|(carried, steps)| Step::Spawn { carried, steps }),
                1 => steps().prop_map(Step::Elsewhere),
                1 => steps().prop_map(Step::Extensions),
                2 => (steps(), steps()).prop_map(|(one, two)| Step::Join(one, two)),
                2 => steps().prop_map(Step::Catch),
                2 => (0..6_usize, steps()).prop_map(|(polls, steps)| Step::Cancel { polls, steps }),
            ]
        });
        prop::collection::vec(step, 0..6)
    }

    /// The sessions around a place in the program, the innermost last, and what went wrong so far.
    #[derive(Clone)]
    struct Stack {
        sessions: Vec<Option<Session>>,
        failures: Arc<Mutex<Vec<String>>>,
    }

    impl Stack {
        fn with(&self, session: Option<Session>) -> Self {
            let mut stack = self.clone();
            stack.sessions.push(session);
            stack
        }

        /// The stack of a new task.
        fn empty(&self) -> Self {
            Self {
                sessions: vec![],
                ..self.clone()
            }
        }

        fn session(&self) -> Option<Session> {
            self.sessions.last().cloned().flatten()
        }

        fn check(&self, place: &str) {
            let (expected, seen) = (self.session(), Session::current());
            if seen != expected {
                self.fail(format!("{place}: saw {seen:?}, expected {expected:?}"));
            }
        }

        fn fail(&self, failure: String) {
            self.failures.lock().unwrap().push(failure);
        }

        /// Makes a call, and checks what it sends against the rules.
        async fn call(&self, call: Call) {
            const URL: &str = "https://opencode.ai/zen/v1/messages";
            static HTTP: LazyLock<Client> = LazyLock::new(plain_client);

            let tenant = call.has_tenant.then(|| Session::new().turn());
            let given = tenant.clone().or_else(|| self.session());
            let given = given.as_ref().map(|session| (session, Source::Scope));
            let headers = map(&call.headers);
            let (applied, expected) =
                rules::sent(None, &headers, call.existing, given, &call.fallback);

            let sent = Sent::default();
            let middleware = OpencodeSessionMiddleware::builder()
                .existing_header(call.existing)
                .fallback(call.fallback.clone());
            let client = ClientBuilder::new(HTTP.clone())
                .with(Tenant(tenant))
                .with(middleware.build().unwrap())
                .with(sent.clone())
                .build();
            let _ = client.post(URL).headers(headers).send().await;
            let sent = sent.0.lock().unwrap().take();
            if sent != applied.map(|_| expected.clone()) {
                self.fail(format!("{call:?}: sent {sent:?}, expected {expected:?}"));
            }
        }
    }

    /// Puts what is below it into a session, if it has one.
    struct Tenant(Option<Session>);

    #[async_trait::async_trait]
    impl Middleware for Tenant {
        async fn handle(
            &self,
            request: Request,
            extensions: &mut http::Extensions,
            next: Next<'_>,
        ) -> Result<Response> {
            next.run(request, extensions).with_session(&self.0).await
        }
    }

    /// The end of a chain: the headers of the request, which is answered after a pause.
    #[derive(Clone, Default)]
    struct Sent(Arc<Mutex<Option<HeaderMap>>>);

    #[async_trait::async_trait]
    impl Middleware for Sent {
        async fn handle(
            &self,
            request: Request,
            _: &mut http::Extensions,
            _: Next<'_>,
        ) -> Result<Response> {
            *self.0.lock().unwrap() = Some(request.headers().clone());
            yield_now().await;
            Ok(http::Response::new("").into())
        }
    }

    /// Checks the session wherever a program is dropped.
    struct Dropped(Stack);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.check("on drop");
        }
    }

    fn run(steps: Vec<Step>, stack: Stack) -> BoxFuture<'static, ()> {
        async move {
            let dropped = Dropped(stack);
            let stack = &dropped.0;
            for step in steps {
                stack.check("before a step");
                match step {
                    Step::Yield => yield_now().await,
                    Step::Panic => panic_quietly(),
                    Step::Call(call) => stack.call(call).await,
                    Step::Scope(steps) => {
                        let session = Session::new();
                        let inside = stack.with(Some(session.clone()));
                        session.scope(run(steps, inside)).await;
                    }
                    Step::NoScope(steps) => {
                        run(steps, stack.clone())
                            .with_session(None::<Session>)
                            .await;
                    }
                    Step::Spawn { carried, steps } => {
                        let task = match carried {
                            true => {
                                let inside = stack.empty().with(stack.session());
                                tokio::spawn(run(steps, inside).with_current_session())
                            }
                            false => tokio::spawn(run(steps, stack.empty())),
                        };
                        let _ = task.await;
                    }
                    Step::Elsewhere(steps) => {
                        let inside = stack.with(stack.session());
                        let carried = run(steps, inside).with_current_session();
                        carried.with_session(Session::new()).await;
                    }
                    Step::Extensions(steps) => {
                        with_extensions(Extensions::new(), run(steps, stack.clone())).await;
                    }
                    Step::InScope { panics } => {
                        let session = Session::new();
                        let inside = stack.with(Some(session.clone()));
                        let closure = || {
                            inside.check("in a closure");
                            if panics {
                                panic_quietly();
                            }
                        };
                        let _ = catch_unwind(AssertUnwindSafe(|| session.in_scope(closure)));
                    }
                    Step::Carry => {
                        let carried = Session::carry(|| stack.check("in a carried closure"));
                        Session::new().in_scope(carried);
                    }
                    Step::Join(one, two) => {
                        futures::join!(run(one, stack.clone()), run(two, stack.clone()));
                    }
                    Step::Catch(steps) => {
                        panics(run(steps, stack.clone())).await;
                    }
                    Step::Cancel { polls, steps } => {
                        let mut cancelled = pin!(Some(run(steps, stack.clone())));
                        for _ in 0..polls {
                            let poll = poll_fn(|context| {
                                let inner = cancelled.as_mut().as_pin_mut().unwrap();
                                Poll::Ready(inner.poll(context))
                            });
                            if poll.await.is_ready() {
                                break;
                            }
                            yield_now().await;
                            stack.check("between the polls of a step that will be cancelled");
                        }
                        cancelled.set(None);
                    }
                }
                stack.check("after a step");
            }
        }
        .boxed()
    }

    /// Each kind of runtime. Whatever a program leaves on a worker, the next one finds.
    static RUNTIMES: LazyLock<Vec<Runtime>> = LazyLock::new(|| {
        let many_workers = Builder::new_multi_thread().worker_threads(2).build();
        runtimes()
            .into_iter()
            .chain([many_workers.unwrap()])
            .collect()
    });

    proptest! {
        #![proptest_config(cases(1000))]

        #[test]
        fn random_programs_see_and_send_what_a_plain_stack_and_the_rules_say(steps in program()) {
            for runtime in &*RUNTIMES {
                let stack = Stack { sessions: vec![], failures: Arc::default() };
                let failures = Arc::clone(&stack.failures);
                let task = run(steps.clone(), stack.clone());
                runtime.block_on(async {
                    let _ = tokio::spawn(task).await;
                    // A probe finds whatever was left on the worker.
                    tokio::spawn(async move { stack.check("afterwards") }).await.unwrap();
                });
                prop_assert_eq!(&*failures.lock().unwrap(), &[""; 0]);
            }
        }
    }
}
