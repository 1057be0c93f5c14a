//! A call on its way to the upstream and back, and what the log is told about it.

use http::request::Parts;
use http::{HeaderMap, StatusCode};
use hyper::body::Bytes;
use reqwest_opencode_session::testing::record::{Answer, End, Log};

use crate::add_session::{AddSession, Added, Evidence};
use crate::answer::AnswerReader;
use crate::decode::{self, Decoder};
use crate::rules::Rules;

/// Writes the log of the forwarded calls.
#[derive(Clone)]
pub struct Recorder {
    log: Log,
    rules: Rules,
    /// What adds a session to calls that carry none, if they are to have one.
    add_session: Option<AddSession>,
}

impl Recorder {
    pub fn new(log: Log, rules: Rules, add_session: Option<AddSession>) -> Self {
        Self {
            log,
            rules,
            add_session,
        }
    }

    /// Returns whether calls that carry no session get one.
    pub fn adds_sessions(&self) -> bool {
        self.add_session.is_some()
    }

    /// Begins an exchange with a whole request, to which a session is added if it carries none.
    pub fn begin_whole(&self, head: &mut Parts, body: &Bytes) -> Exchange {
        let mut begun = None;
        let record = |head: &Parts, added: Option<Added>| {
            let mut exchange = self.begin(head);
            exchange.request_data(body);
            let number = exchange.request_ended();
            if let Some(added) = added {
                self.rules.note_added(number, added);
            }
            begun = Some(exchange);
            number
        };
        let plain = decode::whole(&head.headers, body.to_vec(), Exchange::LONGEST_BODY);
        let evidence = (self.add_session.as_ref())
            .and_then(|add_session| add_session.apply(head, &plain.into(), record));
        let mut exchange = begun.unwrap_or_else(|| self.begin(head));
        exchange.evidence = evidence;
        exchange
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
            evidence: None,
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
    /// What learns of the answer, so that the next calls get the session of this one.
    pub evidence: Option<Evidence>,
    decoder: Option<Decoder>,
    ended: bool,
}

impl Exchange {
    /// The longest request body that is copied, in bytes.
    pub const LONGEST_BODY: usize = 32 << 20;

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
        let answer = Answer::with_status(status);
        self.recorder.log.answer(number, &answer);
        if let Some(evidence) = &self.evidence {
            evidence.answer(&answer);
        }
    }

    /// Takes a piece of the answer's body.
    pub fn answer_data(&mut self, data: &[u8]) {
        let Some(decoder) = &mut self.decoder else {
            return;
        };
        decoder.read(data);
        // The client may go on before the connection is known to be at its end.
        let contains = |mark: &&[u8]| data.windows(mark.len()).any(|part| part == *mark);
        if let (Some(evidence), true) = (&self.evidence, LAST.iter().any(contains)) {
            evidence.answer(&decoder.so_far());
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
        if let Some(evidence) = &self.evidence {
            evidence.ended(&answer, end);
        }
    }
}

/// What the last frames of streams contain, in each wire format.
const LAST: [&[u8]; 5] = [
    b"finish_reason\":\"",
    b"[DONE]",
    b"message_stop",
    b"response.completed",
    b"finishReason",
];

/// Returns an answer of which only an error is known.
pub fn error(kind: &str, message: &str) -> Answer {
    let mut answer = Answer::default();
    answer.error = Some(kind.to_owned());
    answer.error_message = Some(message.to_owned());
    answer
}
