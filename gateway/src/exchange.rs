//! A call on its way to the upstream and back, and what the log is told about it.

use http::request::Parts;
use http::{HeaderMap, StatusCode};
use reqwest_opencode_session::testing::record::{Answer, End, Log};

use crate::answer::AnswerReader;
use crate::decode::{self, Decoder};

/// Writes the log of the forwarded calls.
#[derive(Debug, Clone)]
pub struct Recorder {
    log: Log,
}

impl Recorder {
    pub fn new(log: Log) -> Self {
        Self { log }
    }

    /// Begins an exchange with a request whose body is still to come.
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

/// One call. It is told what is forwarded, in any order, and tells the log.
pub struct Exchange {
    recorder: Recorder,
    head: Parts,
    /// `None` once it is recorded, or if it is too long.
    body: Option<Vec<u8>>,
    number: Option<u64>,
    decoder: Option<Decoder>,
    ended: bool,
}

impl Exchange {
    /// The longest request body that is copied, in bytes.
    const LONGEST_BODY: usize = 32 << 20;

    /// Takes a piece of the request's body.
    pub fn request_data(&mut self, data: &[u8]) {
        let fits = |body: &Vec<u8>| body.len() + data.len() <= Self::LONGEST_BODY;
        self.body = self.body.take().filter(fits);
        if let Some(body) = &mut self.body {
            body.extend_from_slice(data);
        }
    }

    /// Records the request, once it is complete or will get no further; returns its number.
    pub fn request_ended(&mut self) -> u64 {
        if let Some(number) = self.number {
            return number;
        }
        let body = self.body.take().unwrap_or_default();
        let body = decode::whole(&self.head.headers, body, Self::LONGEST_BODY);
        let number = self.recorder.log.record(&self.head, body);
        self.number = Some(number);
        number
    }

    /// Takes the head of the answer.
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

    /// Takes a piece of the answer's body.
    pub fn answer_data(&mut self, data: &[u8]) {
        if let Some(decoder) = &mut self.decoder {
            decoder.read(data);
        }
    }

    /// Records how the call ended.
    pub fn ended(&mut self, end: End) {
        self.ended_by(end, Answer::default());
    }

    /// Records how the call ended, with what is known besides what came from the upstream.
    pub fn ended_by(&mut self, end: End, own: Answer) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let number = self.request_ended();
        let answer = self.decoder.take().map(Decoder::finish);
        let mut answer = answer.unwrap_or_default();
        answer.status = own.status.or(answer.status);
        answer.error = own.error.or(answer.error);
        answer.error_message = own.error_message.or(answer.error_message);
        answer.end = Some(end);
        self.recorder.log.answer(number, &answer);
    }
}

/// Returns an answer of which only an error is known.
pub fn error(kind: &str, message: &str) -> Answer {
    let mut answer = Answer::default();
    answer.error = Some(kind.to_owned());
    answer.error_message = Some(message.to_owned());
    answer
}
