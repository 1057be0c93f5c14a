//! Follows the calls: counts them, prints them, and updates the page.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use reqwest_opencode_session::testing::SeenRequest;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::MissedTickBehavior;

use crate::journal::Journal;
use crate::output::Output;
use crate::page;

pub struct Watch {
    journal: Journal,
    lines: mpsc::Sender<SeenRequest>,
    page: broadcast::Sender<Arc<str>>,
}

/// The shortest time between two updates of the page.
const PERIOD: Duration = Duration::from_millis(100);

/// How many calls may wait for a slow reader of the output before the page also waits.
const WAITING: usize = 10_000;

impl Watch {
    /// Starts to watch, and writes on a thread of its own, because a terminal may be slow.
    pub fn start(journal: Journal, output: Output, page: broadcast::Sender<Arc<str>>) -> Watching {
        let (stop, stopped) = oneshot::channel();
        let (lines, waiting) = mpsc::channel(WAITING);
        let watch = Self {
            journal,
            lines,
            page,
        };
        Watching {
            stop,
            watch: tokio::spawn(watch.run(stopped)),
            output: tokio::task::spawn_blocking(|| write(output, waiting)),
        }
    }

    /// Follows the calls until it is told to stop; returns the number of the last one by then.
    async fn run(self, mut stop: oneshot::Receiver<()>) -> u64 {
        let mut changes = self.journal.log.changes();
        let mut news = News::default();
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                requests = changes.next() => match requests {
                    Some(requests) => self.take(requests, &mut news).await,
                    None => break,
                },
                _ = tick.tick(), if !news.numbers.is_empty() => self.tell(std::mem::take(&mut news)),
                _ = &mut stop => break,
            }
        }
        let last = self.journal.last();
        while let Some(Some(requests)) = changes.next().now_or_never() {
            // Later calls are left out: they may never stop coming.
            if requests.iter().all(|request| request.number > last) {
                break;
            }
            self.take(requests, &mut news).await;
        }
        last
    }

    async fn take(&self, requests: Vec<SeenRequest>, news: &mut News) {
        let taken = self.journal.take(requests);
        for request in taken.ended {
            // Calls are still counted when none can be written any more.
            let _ = self.lines.send(request).await;
        }
        if self.page.receiver_count() > 0 {
            news.numbers.extend(taken.numbers);
            news.conversations.extend(taken.conversations);
        }
    }

    fn tell(&self, news: News) {
        let conversations: Vec<u64> = news.conversations.into_iter().collect();
        let change = page::change(&self.journal, news.numbers, &conversations);
        // It fails if no page is open any more.
        let _ = self.page.send(change.to_string().into());
    }
}

/// What the page has not been told yet.
#[derive(Default)]
struct News {
    numbers: Vec<u64>,
    conversations: BTreeSet<u64>,
}

/// Writes the calls until there are no more, or until the output fails.
fn write(mut output: Output, mut waiting: mpsc::Receiver<SeenRequest>) -> io::Result<()> {
    while let Some(request) = waiting.blocking_recv() {
        output.call(&request)?;
    }
    Ok(())
}

/// A running watch.
pub struct Watching {
    stop: oneshot::Sender<()>,
    watch: JoinHandle<u64>,
    output: JoinHandle<io::Result<()>>,
}

impl Watching {
    /// Waits until the output fails, such as a pipe that was closed.
    pub async fn failed(&mut self) -> io::Error {
        match (&mut self.output).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => std::future::pending().await,
            Err(panicked) => io::Error::other(panicked),
        }
    }

    /// Stops after the last call that has come; returns its number, and the output's error, if any.
    pub async fn finish(self) -> Result<(u64, Option<io::Error>), JoinError> {
        let _ = self.stop.send(());
        let last = self.watch.await?;
        Ok((last, self.output.await?.err()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use http::Request;
    use reqwest_opencode_session::testing::record::Log;
    use tokio::time::timeout;

    use super::*;
    use crate::rules::Rules;

    fn record(log: &Log) -> u64 {
        let call = Request::post("/zen/v1/messages");
        let (head, ()) = call.body(()).unwrap().into_parts();
        log.record(&head, "{}")
    }

    fn watch(log: &Log) -> (Journal, Watching) {
        let journal = Journal::new(log.clone(), Rules::default());
        let (page, _) = broadcast::channel(16);
        let watching = Watch::start(journal.clone(), Output::default(), page);
        (journal, watching)
    }

    #[tokio::test]
    async fn every_call_up_to_the_end_is_counted() {
        // Whether the end or a call is noticed first varies.
        for _ in 0..8 {
            let log = Log::default();
            let (journal, watching) = watch(&log);
            for _ in 0..1001 {
                record(&log);
            }
            assert_eq!(watching.finish().await.unwrap().0, 1001);
            assert_eq!(journal.totals().calls, 1001);
        }
    }

    #[tokio::test]
    async fn it_stops_while_calls_go_on_coming() {
        let log = Log::default();
        let (_, watching) = watch(&log);
        let has_stopped = Arc::new(AtomicBool::new(false));
        let calls = {
            let has_stopped = has_stopped.clone();
            thread::spawn(move || {
                while !has_stopped.load(Ordering::Relaxed) {
                    record(&log);
                }
            })
        };
        let finished = timeout(Duration::from_secs(20), watching.finish()).await;
        has_stopped.store(true, Ordering::Relaxed);
        calls.join().unwrap();
        assert!(finished.is_ok());
    }
}
