//! A pool of threads that steal each other's work: rayon.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use reqwest_opencode_session::{Fallback, OpencodeSessionMiddleware, Session, SessionId, header};

const CONVERSATIONS: usize = 20;
const CALLS: usize = 100;

fn pool() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(4).build().unwrap()
}

/// The session of a call that is made here.
fn sent(opencode: &OpencodeSessionMiddleware) -> Option<SessionId> {
    let url = http::Uri::from_static("https://opencode.ai/zen/go/v1/messages");
    let headers = opencode.headers_for(&url).unwrap();
    let id = headers.get(header::SESSION)?;
    Some(id.try_into().unwrap())
}

/// A little work, during which other threads look for some.
fn work() {
    for _ in 0..100 {
        std::thread::yield_now();
    }
}

#[test]
fn a_scope_inside_each_item_is_right_whoever_runs_it() {
    let opencode = OpencodeSessionMiddleware::builder()
        .fallback(Fallback::Reject)
        .build()
        .unwrap();
    let right: usize = pool().install(|| {
        let conversations = (0..CONVERSATIONS).into_par_iter();
        let right = conversations.map(|_| {
            let session = Session::new();
            let calls = (0..CALLS).into_par_iter().map(|_| {
                session.in_scope(|| {
                    work();
                    sent(&opencode).as_ref() == Some(session.id())
                })
            });
            calls.filter(|right| *right).count()
        });
        right.sum()
    });
    assert_eq!(right, CONVERSATIONS * CALLS);
}

#[test]
fn work_that_was_carried_is_right_whoever_runs_it() {
    let opencode = OpencodeSessionMiddleware::builder()
        .fallback(Fallback::Omit)
        .build()
        .unwrap();
    let right = AtomicUsize::new(0);
    let call = |expected: Option<SessionId>| {
        let (right, opencode) = (&right, &opencode);
        move || {
            work();
            right.fetch_add(usize::from(sent(opencode) == expected), Relaxed);
        }
    };
    pool().in_place_scope(|scope| {
        for number in 0..CONVERSATIONS * CALLS {
            // Every other piece of work is carried out of no session.
            let session = (number % 2 == 0).then(Session::new);
            let call = call(session.as_ref().map(|session| session.id().clone()));
            let carried = match &session {
                Some(session) => session.in_scope(|| Session::carry(call)),
                None => Session::carry(call),
            };
            // A worker that waits inside another conversation runs it there.
            scope.spawn(move |_| Session::new().in_scope(carried));
        }
    });
    assert_eq!(right.into_inner(), CONVERSATIONS * CALLS);
}

#[test]
fn a_worker_that_waits_inside_a_scope_runs_other_work_inside() {
    // With one thread, it is certain which one that is.
    let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let session = Session::new();
    let (sender, seen) = channel();
    pool.install(|| {
        rayon::spawn(move || sender.send(Session::current()).unwrap());
        session.in_scope(rayon::yield_now);
    });
    assert_eq!(seen.recv().unwrap(), Some(session));
}
