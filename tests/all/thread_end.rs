//! A thread that ends while sessions are left on it: the process goes on and exits with 0.
//!
//! A panic in a thread's last destructors aborts the process, so each case runs in a process of its
//! own: this test executable, run again.

use std::cell::RefCell;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;

use reqwest_opencode_session::{Session, WithSession};
use task_local_extensions::{Extensions, get_local_item, with_extensions};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::support::{alone, assert_carries, chat, client_with, middleware_for, only, start};

const TEST: &str = "thread_end::a_process_goes_on_after_a_thread_that_ended_with_a_session_on_it";

/// The environment variable that tells a child process which case to run.
const CASE: &str = "THREAD_END_CASE";

type Queue = Vec<Pin<Box<dyn Future<Output = ()>>>>;

thread_local! {
    static QUEUE: RefCell<Queue> = const { RefCell::new(vec![]) };
    static LOCAL_SET: LocalSet = LocalSet::new();
}

/// Reports the session that is current when it is dropped.
struct Witness(mpsc::Sender<Option<Session>>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.send(Session::current()).unwrap();
    }
}

/// An item of an application that enters a scope when it is dropped and when it is cloned.
struct Item {
    session: Session,
    dropped: mpsc::Sender<Option<Session>>,
}

impl Item {
    fn enter(&self) -> Option<Session> {
        let dropped = async { pending::<()>().await }.with_session(&self.session);
        drop(dropped);
        self.session.in_scope(Session::current)
    }
}

impl Clone for Item {
    fn clone(&self) -> Self {
        assert_eq!(self.enter().as_ref(), Some(&self.session));
        Self {
            session: self.session.clone(),
            dropped: self.dropped.clone(),
        }
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.dropped.send(self.enter()).unwrap();
    }
}

/// What the thread does first: this creates the thread-locals of the libraries.
fn look_at_the_session() {
    assert_eq!(Session::current(), None);
}

fn send_a_request() {
    let gateway = start();
    let session = Session::new();
    let client = client_with(middleware_for(&gateway).build().unwrap());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let call = chat(&client, &gateway).send().with_session(&session);
    runtime.block_on(call).unwrap();
    assert_carries(&only(&gateway), &session);
}

/// Leaves something in the session on the thread. It sends the session that it sees at the end.
type Leave = fn(Session, mpsc::Sender<Option<Session>>, before: fn());

/// A future that never ends, in the session.
fn endless(
    session: Session,
    dropped: mpsc::Sender<Option<Session>>,
) -> Pin<Box<dyn Future<Output = ()>>> {
    let witness = Witness(dropped);
    let future = async move {
        let _witness = witness;
        pending().await
    };
    Box::pin(future.with_session(session))
}

/// The same, after its first poll.
fn begun(
    session: Session,
    dropped: mpsc::Sender<Option<Session>>,
) -> Pin<Box<dyn Future<Output = ()>>> {
    let mut future = endless(session, dropped);
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    future
}

fn a_queue_of_futures(session: Session, dropped: mpsc::Sender<Option<Session>>, before: fn()) {
    // Used first, so destroyed last.
    QUEUE.with_borrow_mut(Vec::clear);
    before();
    let left = [
        begun(session.clone(), dropped.clone()),
        endless(session, dropped),
    ];
    QUEUE.with_borrow_mut(|queue| queue.extend(left));
}

fn a_local_set(session: Session, dropped: mpsc::Sender<Option<Session>>, before: fn()) {
    LOCAL_SET.with(|_| ());
    before();
    let task = begun(session, dropped);
    LOCAL_SET.with(|local| local.spawn_local(task));
}

/// Leaves an item in the application's type map, through a panic.
fn leave_item(session: Session, dropped: mpsc::Sender<Option<Session>>) {
    let items = Extensions::new().with(Item { session, dropped });
    let mut future = Box::pin(with_extensions(items, async {
        resume_unwind(Box::new("on purpose"))
    }));
    let mut context = Context::from_waker(Waker::noop());
    catch_unwind(AssertUnwindSafe(|| {
        let _: std::task::Poll<(_, ())> = future.as_mut().poll(&mut context);
    }))
    .unwrap_err();
}

fn an_item_that_is_dropped(session: Session, dropped: mpsc::Sender<Option<Session>>, before: fn()) {
    before();
    leave_item(session, dropped);
}

fn an_item_that_is_cloned(session: Session, dropped: mpsc::Sender<Option<Session>>, before: fn()) {
    before();
    leave_item(session.clone(), dropped);
    let runtime = Builder::new_current_thread().build().unwrap();
    let clone = runtime.block_on(get_local_item::<Item>().with_session(Session::new()));
    assert_eq!(clone.unwrap().session, session);
}

const LEFT: [(&str, Leave); 4] = [
    ("a queue of boxed futures", a_queue_of_futures),
    ("a LocalSet that holds a task", a_local_set),
    (
        "an item that enters a scope when it is dropped",
        an_item_that_is_dropped,
    ),
    (
        "an item that enters a scope when it is cloned",
        an_item_that_is_cloned,
    ),
];

const BEFORE: [(&str, fn()); 2] = [
    ("after a look at the session", look_at_the_session),
    ("after a request", send_a_request),
];

#[test]
fn a_process_goes_on_after_a_thread_that_ended_with_a_session_on_it() {
    let cases = LEFT
        .iter()
        .flat_map(|left| BEFORE.iter().map(move |before| (left, before)));
    let cases =
        cases.map(|((what, leave), (when, before))| (format!("{what}, {when}"), *leave, *before));
    if let Ok(name) = std::env::var(CASE) {
        let (_, leave, before) = cases.into_iter().find(|case| case.0 == name).unwrap();
        let session = Session::new();
        let (sender, dropped) = mpsc::channel();
        let on_thread = session.clone();
        let thread = thread::spawn(move || leave(on_thread, sender, before));
        thread.join().unwrap();
        let seen: Vec<_> = dropped.iter().collect();
        assert!(!seen.is_empty() && seen.iter().all(|seen| *seen == Some(session.clone())));
        return;
    }
    for (name, ..) in cases {
        let output = alone(TEST).env(CASE, &name).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
        assert!(ran, "{name}: {output:?}");
    }
}
