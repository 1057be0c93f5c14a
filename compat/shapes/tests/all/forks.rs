//! A process that forks, in a program that has turned on `uuid/fast-rng`.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use fork::{Fork, fork, waitpid};
use reqwest_opencode_session::{Session, SessionId};

/// The random parts of a few new ids.
fn tails() -> Vec<String> {
    let ids = (0..10).map(|_| SessionId::new());
    ids.map(|id| id.as_str()[24..].to_owned()).collect()
}

/// What the closure returns in a child of this process.
fn in_a_child(work: impl FnOnce() -> String) -> String {
    let (mut here, mut there) = UnixStream::pair().unwrap();
    match fork().unwrap() {
        Fork::Child => {
            there.write_all(work().as_bytes()).ok();
            // Without destructors, which belong to the threads of the parent.
            std::process::abort()
        }
        Fork::Parent(child) => {
            drop(there);
            let mut answer = String::new();
            here.read_to_string(&mut answer).unwrap();
            waitpid(child).ok();
            answer
        }
    }
}

#[test]
fn the_ids_of_a_forked_process_are_not_its_parents() {
    // Whatever state there is, it exists now.
    let mut all: Vec<_> = tails();
    for _ in 0..20 {
        let childs = in_a_child(|| tails().join(" "));
        all.extend(childs.split(' ').map(str::to_owned));
        all.extend(tails());
    }
    let different: HashSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
}

#[test]
fn a_forked_process_shares_the_processs_session_if_that_was_needed_before() {
    let own = Session::process();
    let childs = in_a_child(|| Session::process().id().to_string());
    assert_eq!(own.id(), childs.as_str());
}
