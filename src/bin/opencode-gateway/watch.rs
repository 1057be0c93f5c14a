//! Follows the calls: counts them, prints them, and tells the page.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use reqwest_opencode_session::testing::SeenRequest;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::MissedTickBehavior;

use crate::journal::Journal;
use crate::output::Output;
use crate::page;

pub struct Watch {
    journal: Journal,
    output: Output,
    page: broadcast::Sender<Arc<str>>,
    failed: Option<oneshot::Sender<io::Error>>,
}

/// How often the page is told, at most.
const PERIOD: Duration = Duration::from_millis(100);

impl Watch {
    /// Begins, on a thread of its own, because a terminal may be slow to take what it gets.
    pub fn start(journal: Journal, output: Output, page: broadcast::Sender<Arc<str>>) -> Watching {
        let (stop, stopped) = oneshot::channel();
        let (failed, failure) = oneshot::channel();
        let watch = Self {
            journal,
            output,
            page,
            failed: Some(failed),
        };
        let handle = Handle::current();
        let task = tokio::task::spawn_blocking(move || handle.block_on(watch.run(stopped)));
        Watching {
            stop,
            failure,
            task,
        }
    }

    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut changes = self.journal.log.changes();
        let mut news = News::default();
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                requests = changes.next() => match requests {
                    Some(requests) => self.take(requests, &mut news),
                    None => return,
                },
                _ = tick.tick(), if !news.numbers.is_empty() => self.tell(std::mem::take(&mut news)),
                _ = &mut stop => break,
            }
        }
        while let Some(Some(requests)) = changes.next().now_or_never() {
            self.take(requests, &mut news);
        }
    }

    fn take(&mut self, requests: Vec<SeenRequest>, news: &mut News) {
        let taken = self.journal.take(requests);
        for request in &taken.ended {
            if let Err(error) = self.output.call(request) {
                // Calls are counted all the same.
                self.output = Output::Nothing;
                if let Some(failed) = self.failed.take() {
                    let _ = failed.send(error);
                }
            }
        }
        if self.page.receiver_count() > 0 {
            news.numbers.extend(taken.numbers);
            news.sessions.extend(taken.sessions);
        }
    }

    fn tell(&self, news: News) {
        let sessions: Vec<String> = news.sessions.into_iter().collect();
        let change = page::change(&self.journal, news.numbers, &sessions);
        // Where nobody listens any more, nobody misses it.
        let _ = self.page.send(change.to_string().into());
    }
}

/// What the page does not know yet.
#[derive(Default)]
struct News {
    numbers: Vec<u64>,
    sessions: BTreeSet<String>,
}

/// A watch that was started.
pub struct Watching {
    stop: oneshot::Sender<()>,
    failure: oneshot::Receiver<io::Error>,
    task: JoinHandle<()>,
}

impl Watching {
    /// Waits until the output takes no more, such as a pipe that was closed.
    pub async fn failed(&mut self) -> io::Error {
        match (&mut self.failure).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops after the last call that has come; tells whether the output took no more.
    pub async fn finish(mut self) -> Result<Option<io::Error>, JoinError> {
        let _ = self.stop.send(());
        self.task.await?;
        Ok(self.failure.try_recv().ok())
    }
}
