//! A call that passes through, and what the log learns of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::request::Parts;
use http::{HeaderMap, StatusCode};
use reqwest_opencode_session::testing::{Answer, AnswerReader, Log};

use crate::decode::{self, Decoder};

/// The log of what passes through, and which calls are still under way.
#[derive(Debug, Clone)]
pub struct Recorder {
    log: Log,
    open: Arc<Mutex<HashSet<u64>>>,
}

impl Recorder {
    pub fn new(log: Log) -> Self {
        Self {
            log,
            open: Arc::default(),
        }
    }

    /// Whether more is to come of this call.
    pub fn is_open(&self, number: u64) -> bool {
        lock(&self.open).contains(&number)
    }

    /// Begins with a request whose body is still to come.
    pub fn begin(&self, head: &Parts) -> Exchange {
        let mut copy = http::Request::new(()).into_parts().0;
        copy.method = head.method.clone();
        copy.uri = head.uri.clone();
        copy.headers = head.headers.clone();
        Exchange {
            recorder: self.clone(),
            head: copy,
            body: Some(vec![]),
            number: None,
            decoder: None,
            ended: false,
        }
    }
}

/// One call. It is told what passes, in whichever order, and tells the log.
pub struct Exchange {
    recorder: Recorder,
    head: Parts,
    /// None once it is recorded, or where it is too long.
    body: Option<Vec<u8>>,
    number: Option<u64>,
    decoder: Option<Decoder>,
    ended: bool,
}

/// How a call ends.
pub enum End<'a> {
    Whole,
    ClientLeft,
    /// In an error of this kind, with this message.
    Failed(&'a str, &'a str),
}

/// What is said of a call whose client has left.
const CLIENT_LEFT: &str = "the client left before the end of the answer";

impl Exchange {
    /// The most of a request's body that is copied, in bytes.
    const LONGEST_BODY: usize = 32 << 20;

    /// A piece of the request's body.
    pub fn request_data(&mut self, data: &[u8]) {
        let fits = |body: &Vec<u8>| body.len() + data.len() <= Self::LONGEST_BODY;
        self.body = self.body.take().filter(fits);
        if let Some(body) = &mut self.body {
            body.extend_from_slice(data);
        }
    }

    /// The request is whole, or as whole as it will be.
    pub fn request_ended(&mut self) -> u64 {
        if let Some(number) = self.number {
            return number;
        }
        let body = self.body.take().unwrap_or_default();
        let body = decode::whole(&self.head.headers, body, Self::LONGEST_BODY);
        // Locked meanwhile, so that nobody sees the call in the log and takes it for ended.
        let mut open = lock(&self.recorder.open);
        let number = self.recorder.log.record(&self.head, body);
        open.insert(number);
        self.number = Some(number);
        number
    }

    /// The answer has begun.
    pub fn answer_began(&mut self, status: StatusCode, headers: &HeaderMap) {
        let number = self.request_ended();
        let content_type = headers.get(http::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let reader = AnswerReader::new(status, content_type.unwrap_or_default());
        self.decoder = Some(Decoder::new(headers, reader));
        self.recorder
            .log
            .answer(number, &Answer::with_status(status));
    }

    /// A piece of the answer's body.
    pub fn answer_data(&mut self, data: &[u8]) {
        if let Some(decoder) = &mut self.decoder {
            decoder.read(data);
        }
    }

    /// Nothing more will come.
    pub fn ended(&mut self, end: End<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let number = self.request_ended();
        let answer = self.decoder.take().map(Decoder::finish);
        let mut answer = answer.unwrap_or_default();
        match end {
            End::Whole => {}
            // No error: one who has read enough may leave.
            End::ClientLeft => answer.error_message = Some(CLIENT_LEFT.to_owned()),
            End::Failed(kind, message) => {
                answer.error = Some(kind.to_owned());
                answer.error_message = Some(message.to_owned());
            }
        }
        // Locked meanwhile: whoever finds that it has ended finds its end in the log.
        let mut open = lock(&self.recorder.open);
        self.recorder.log.answer(number, &answer);
        open.remove(&number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
