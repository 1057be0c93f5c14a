//! A pool of threads that steal each other's work: rayon.

use std::sync::Barrier;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use reqwest_opencode_session::{
    Fallback, OpencodeSessionMiddleware, Session, SessionId, header,
};

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
    let pool = pool();
    let (sender, results) = std::sync::mpsc::channel();
    pool.in_place_scope(|scope| {
        for number in 0..CONVERSATIONS * CALLS {
            // Every other piece of work is carried out of no session.
            let session = (number % 2 == 0).then(Session::new);
            let (sender, opencode) = (sender.clone(), &opencode);
            let expected = session.as_ref().map(|session| session.id().clone());
            let call = move || {
                work();
                sender.send(sent(opencode) == expected).unwrap();
            };
            let carried = match &session {
                Some(session) => session.in_scope(|| Session::carry(call)),
                // Both are `impl FnOnce()`, of the same type.
                None => Session::carry(call),
            };
            // From inside a conversation: whoever waits there may run it.
            scope.spawn(move |_| carried());
        }
        let stranger = Session::new();
        stranger.in_scope(|| {
            rayon::join(work, work);
        });
    });
    drop(sender);
    let results: Vec<_> = results.iter().collect();
    assert_eq!(results.len(), CONVERSATIONS * CALLS);
    assert!(results.into_iter().all(|right| right));
}

#[test]
fn a_scope_around_a_parallel_iterator_reaches_the_wrong_calls() {
    // On a pool of one thread, the conversation's own thread waits for its items, and runs what
    // another conversation has left in the queue meanwhile.
    let pool = ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let session = Session::new();
    let (sender, seen) = std::sync::mpsc::channel();
    let barrier = Barrier::new(1);
    pool.install(|| {
        session.in_scope(|| {
            rayon::scope(|scope| {
                scope.spawn(|_| {
                    barrier.wait();
                    sender.send(Session::current()).unwrap();
                });
            });
        });
    });
    // It ran inside, though it was none of the conversation's business.
    assert_eq!(seen.recv().unwrap(), Some(session));
}
