//! Reads what an answer contains, in any wire format.

use http::StatusCode;
use reqwest_opencode_session::testing::record::Answer;
use serde_json::Value;

/// More tokens, and a higher cost, than one answer can have; these bounds keep sums finite.
const MOST_TOKENS: u64 = u32::MAX as u64;
const MOST_COST: f64 = 1e6;

/// Reads usage, cost, error and text from an answer as it comes, in JSON or as a stream, in each
/// wire format.
///
/// It is for a proxy that forwards the bytes and reads a copy of them. It keeps one line of a
/// stream, or one JSON document, and at most 16 MiB of either.
#[derive(Debug)]
pub struct AnswerReader {
    answer: Answer,
    is_stream: bool,
    /// What is not parsed yet: the beginning of a line, or of a document.
    unread: Vec<u8>,
    /// Whether the line or document became too long.
    overlong: bool,
    text: String,
}

impl AnswerReader {
    const LONGEST: usize = 16 << 20;
    const LONGEST_TEXT: usize = 64 << 10;

    /// Creates a reader for an answer with this status and this `Content-Type`.
    pub fn new(status: StatusCode, content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        Self {
            answer: Answer::with_status(status),
            is_stream: essence.eq_ignore_ascii_case("text/event-stream"),
            unread: vec![],
            overlong: false,
            text: String::new(),
        }
    }

    /// Reads the next bytes of the body, after any compression.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while self.is_stream {
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                break;
            };
            self.keep(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.read_line();
        }
        self.keep(bytes);
    }

    /// Returns what is known of the answer so far.
    pub fn answer(&self) -> Answer {
        let mut answer = self.answer.clone();
        answer.text = (!self.text.is_empty()).then(|| self.text.clone());
        answer
    }

    /// Returns what is known of the answer at its end.
    pub fn finish(mut self) -> Answer {
        if self.is_stream {
            self.read_line();
        } else if let (false, Ok(document)) = (self.overlong, serde_json::from_slice(&self.unread))
        {
            self.read_json(&document);
        }
        self.answer()
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.overlong |= self.unread.len() + bytes.len() > Self::LONGEST;
        if !self.overlong {
            self.unread.extend_from_slice(bytes);
        }
    }

    fn read_line(&mut self) {
        let data = self.unread.strip_prefix(b"data:");
        let event = data.and_then(|data| serde_json::from_slice(data).ok());
        self.unread.clear();
        if let (false, Some(event)) = (std::mem::take(&mut self.overlong), event) {
            self.read_json(&event);
        }
    }

    fn read_json(&mut self, json: &Value) {
        for part in [json, &json["message"], &json["response"]] {
            self.read_usage(&part["usage"]);
        }
        self.read_google_usage(&json["usageMetadata"]);
        let cost = &json["cost"];
        let cost = cost.as_f64().or_else(|| cost.as_str()?.parse().ok());
        let cost = cost.filter(|cost| (0.0..=MOST_COST).contains(cost));
        self.answer.cost = cost.or(self.answer.cost);
        let error = [&json["error"], &json["response"]["error"]];
        if let Some(error) = error.into_iter().find(|error| error.is_object()) {
            // Google's errors have a `status` instead.
            let kind = error["type"].as_str().or(error["status"].as_str());
            self.answer.error = kind.map(str::to_owned);
            self.answer.error_message = error["message"].as_str().map(str::to_owned);
        }
        self.read_text(json);
    }

    fn read_usage(&mut self, usage: &Value) {
        if !usage.is_object() {
            return;
        }
        let known = self.answer.usage.get_or_insert_default();
        let number = |path: &str| tokens(usage.pointer(path)?);
        let cached = number("/prompt_tokens_details/cached_tokens")
            .or(number("/input_tokens_details/cached_tokens"));
        if let Some(prompt) = number("/prompt_tokens") {
            known.prompt = prompt;
            known.cached = cached.unwrap_or_default();
        } else if let Some(input) = number("/input_tokens") {
            // In messages, it excludes the tokens that were read from the cache or written to it.
            let read = number("/cache_read_input_tokens");
            let written = number("/cache_creation_input_tokens");
            known.prompt = input + read.unwrap_or_default() + written.unwrap_or_default();
            known.cached = cached.or(read).unwrap_or_default();
        }
        let output = number("/completion_tokens").or(number("/output_tokens"));
        known.output = output.unwrap_or(known.output);
    }

    fn read_google_usage(&mut self, usage: &Value) {
        let number = |name: &str| tokens(&usage[name]);
        if let Some(prompt) = number("promptTokenCount") {
            let thoughts = number("thoughtsTokenCount").unwrap_or_default();
            let known = self.answer.usage.get_or_insert_default();
            known.prompt = prompt;
            known.cached = number("cachedContentTokenCount").unwrap_or_default();
            known.output = number("candidatesTokenCount").unwrap_or_default() + thoughts;
        }
    }

    fn read_text(&mut self, json: &Value) {
        let choice = &json["choices"][0];
        let one = [
            &choice["delta"]["content"],
            &choice["message"]["content"],
            &json["delta"]["text"],
            match json["type"].as_str() {
                Some("response.output_text.delta") => &json["delta"],
                _ => &Value::Null,
            },
        ];
        let listed = [&json["content"], &json["candidates"][0]["content"]["parts"]];
        let output = json["output"].as_array();
        let output = output.into_iter().flatten().map(|item| &item["content"]);
        let blocks = listed.into_iter().chain(output);
        let blocks = blocks.filter_map(Value::as_array).flatten();
        let texts = one.into_iter().chain(blocks.map(|block| &block["text"]));
        for text in texts.filter_map(Value::as_str) {
            for character in text.chars() {
                if self.text.len() < Self::LONGEST_TEXT {
                    self.text.push(character);
                }
            }
        }
    }
}

fn tokens(count: &Value) -> Option<u64> {
    count.as_u64().filter(|&count| count <= MOST_TOKENS)
}

#[cfg(test)]
mod tests {
    use reqwest_opencode_session::testing::record::Usage;

    use super::*;

    fn read(content_type: &str, body: &str) -> Answer {
        // Byte by byte, because a stream may be split anywhere.
        let mut reader = AnswerReader::new(StatusCode::OK, content_type);
        body.bytes().for_each(|byte| reader.read(&[byte]));
        reader.finish()
    }

    fn usage(prompt: u64, cached: u64, output: u64) -> Option<Usage> {
        let mut usage = Usage::default();
        (usage.prompt, usage.cached, usage.output) = (prompt, cached, output);
        Some(usage)
    }

    #[test]
    fn whole_answers_of_each_wire_format_are_read() {
        for (body, expected) in [
            (
                r#"{"choices":[{"message":{"content":"Yes."}}],"cost":"0.5","usage":{
                "prompt_tokens":9,"completion_tokens":2,
                "prompt_tokens_details":{"cached_tokens":4}}}"#,
                usage(9, 4, 2),
            ),
            (
                r#"{"output":[{"content":[{"type":"output_text","text":"Yes."}]}],"cost":0.5,
                "usage":{"input_tokens":9,"output_tokens":2,
                "input_tokens_details":{"cached_tokens":4}}}"#,
                usage(9, 4, 2),
            ),
            (
                r#"{"content":[{"type":"text","text":"Yes."}],"cost":"0.5","usage":{
                "input_tokens":3,"cache_read_input_tokens":4,
                "cache_creation_input_tokens":2,"output_tokens":2}}"#,
                usage(9, 4, 2),
            ),
            (
                r#"{"candidates":[{"content":{"parts":[{"text":"Yes."}]}}],"cost":"0.5",
                "usageMetadata":{"promptTokenCount":9,"cachedContentTokenCount":4,
                "candidatesTokenCount":1,"thoughtsTokenCount":1}}"#,
                usage(9, 4, 2),
            ),
        ] {
            let answer = read("application/json; charset=utf-8", body);
            assert_eq!(answer.usage, expected, "{body}");
            assert_eq!(answer.text.as_deref(), Some("Yes."), "{body}");
            assert_eq!(answer.cost, Some(0.5), "{body}");
        }
    }

    #[test]
    fn streams_of_each_wire_format_are_read() {
        for (body, expected) in [
            (
                "data: {\"choices\":[{\"delta\":{\"content\":\"Ye\"}}]}\n\n\
                data: {\"choices\":[{\"delta\":{\"content\":\"s.\"}}],\"usage\":null}\r\n\r\n\
                data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n\
                data: [DONE]\n\ndata: {\"choices\":[],\"cost\":\"0.5\"}\n\n",
                usage(9, 0, 2),
            ),
            (
                "event: a\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Yes.\"}\n\n\
                data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":9,\
                \"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":2}}}\n\n\
                event: ping\ndata: {\"type\":\"ping\",\"cost\":\"0.5\"}",
                usage(9, 4, 2),
            ),
            (
                "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\
                \"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\n\
                data: {\"delta\":{\"type\":\"text_delta\",\"text\":\"Yes.\"}}\n\n\
                data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":2}}\n\n\
                event: ping\ndata: {\"type\":\"ping\",\"cost\":\"0.5\"}\n\n",
                usage(9, 4, 2),
            ),
            (
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Yes.\"}]}}],\
                \"usageMetadata\":{\"promptTokenCount\":9,\"candidatesTokenCount\":2}}\n\n\
                data: {\"type\":\"ping\",\"cost\":\"0.5\"}\n\n",
                usage(9, 0, 2),
            ),
        ] {
            let answer = read("Text/Event-Stream", body);
            assert_eq!(answer.usage, expected, "{body}");
            assert_eq!(answer.text.as_deref(), Some("Yes."), "{body}");
            assert_eq!(answer.cost, Some(0.5), "{body}");
        }
    }

    #[test]
    fn refusals_are_read() {
        let body = r#"{"type":"error","error":{"type":"AuthError","message":"Invalid API key."}}"#;
        let answer = read("application/json", body);
        assert_eq!(answer.error.as_deref(), Some("AuthError"));
        assert_eq!(answer.error_message.as_deref(), Some("Invalid API key."));
    }

    #[test]
    fn what_is_no_json_is_passed_over() {
        assert_eq!(
            read("text/html", "<html>"),
            Answer::with_status(StatusCode::OK)
        );
    }

    #[test]
    fn lines_and_documents_are_read_up_to_their_bound_and_text_to_its_own() {
        let longest = AnswerReader::LONGEST;
        for (content_type, json) in [
            ("application/json", r#"{"cost":"1"}"#),
            ("text/event-stream", r#"data: {"cost":"1"}"#),
        ] {
            for (length, cost) in [(longest, Some(1.0)), (longest + 1, None)] {
                let mut body = json.as_bytes().to_vec();
                body.resize(length, b' ');
                let mut reader = AnswerReader::new(StatusCode::OK, content_type);
                for piece in body.chunks(length / 3) {
                    reader.read(piece);
                }
                if reader.is_stream {
                    // A line that was too long does not affect the next one.
                    reader.read(b"\n");
                    assert_eq!(reader.answer().cost, cost, "{content_type}: {length}");
                    reader.read(b"data: {\"cost\":\"2\"}\n");
                    assert_eq!(reader.finish().cost, Some(2.0));
                } else {
                    assert_eq!(reader.finish().cost, cost, "{content_type}: {length}");
                }
            }
        }

        let said = "x".repeat(AnswerReader::LONGEST_TEXT);
        let body = format!(r#"{{"content":[{{"text":"{said}"}},{{"text":"more"}}]}}"#);
        assert!(read("application/json", &body).text == Some(said));
    }

    #[test]
    fn numbers_that_no_answer_can_have_are_passed_over() {
        let mut reader = AnswerReader::new(StatusCode::OK, "application/json");
        reader.read(br#"{"cost":"1e308","usage":{"prompt_tokens":18446744073709551615}}"#);
        let answer = reader.finish();
        assert_eq!(
            (answer.cost, answer.usage.unwrap_or_default().prompt),
            (None, 0)
        );
    }
}
