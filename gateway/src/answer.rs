//! Reads what an answer contains, in any wire format.

use http::StatusCode;
use reqwest_opencode_session::testing::record::{Answer, ToolCall};
use serde_json::Value;

/// More tokens, and a higher cost, than one answer can have; these bounds keep sums finite.
const MOST_TOKENS: u64 = u32::MAX as u64;
const MOST_COST: f64 = 1e6;

/// Reads id, text, tool calls, usage, cost and error from an answer as it comes, in JSON or as a
/// stream, in each wire format.
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
    /// The calls of tools, each with its index in the answer, if that has one.
    calls: Vec<(Option<u64>, ToolCall)>,
}

impl AnswerReader {
    const LONGEST: usize = 16 << 20;

    /// How many calls of tools are kept.
    const CALLS: usize = 64;

    /// Creates a reader for an answer with this status and this `Content-Type`.
    pub fn new(status: StatusCode, content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        Self {
            answer: Answer::with_status(status),
            is_stream: essence.eq_ignore_ascii_case("text/event-stream"),
            unread: vec![],
            overlong: false,
            text: String::new(),
            calls: vec![],
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
        answer.tool_calls = self.calls.iter().map(|(_, call)| call.clone()).collect();
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
        self.read_id(json);
        self.read_text(json);
        self.read_calls(json);
    }

    fn read_id(&mut self, json: &Value) {
        let ids = [
            &json["id"],
            &json["response"]["id"],
            &json["message"]["id"],
            &json["responseId"],
        ];
        // Events have ids of their own only where the answer's comes first.
        if self.answer.id.is_none() {
            self.answer.id = ids.into_iter().find_map(Value::as_str).map(str::to_owned);
        }
    }

    fn read_calls(&mut self, json: &Value) {
        // Chat completions: whole, and in pieces.
        let choice = &json["choices"][0];
        for calls in [
            &choice["message"]["tool_calls"],
            &choice["delta"]["tool_calls"],
        ] {
            for call in calls.as_array().into_iter().flatten() {
                let function = [&call["function"], &call["custom"]];
                let function = function.into_iter().find(|function| function.is_object());
                self.add_call(
                    call["index"].as_u64(),
                    &call["id"],
                    function.unwrap_or(call),
                );
            }
        }
        // Responses: whole, and at the end of each item.
        let item = (json["type"] == "response.output_item.done").then_some(&json["item"]);
        let items = json["output"].as_array().into_iter().flatten().chain(item);
        for item in items {
            if item["type"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("_call"))
            {
                let ids = [&item["call_id"], &item["id"]];
                let id = ids.into_iter().find(|id| id.is_string());
                self.add_call(None, id.unwrap_or(&Value::Null), item);
            }
        }
        // Messages: whole, and in pieces.
        let blocks = json["content"].as_array().into_iter().flatten();
        for block in blocks.chain([&json["content_block"]]) {
            if block["type"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("tool_use"))
            {
                self.add_call(json["index"].as_u64(), &block["id"], block);
            }
        }
        if let Some(piece) = json["delta"]["partial_json"].as_str() {
            self.add_arguments(json["index"].as_u64(), piece);
        }
        // generateContent
        let parts = json["candidates"][0]["content"]["parts"].as_array();
        for part in parts.into_iter().flatten() {
            let call = &part["functionCall"];
            if call.is_object() {
                self.add_call(None, &call["id"], call);
            }
        }
    }

    /// Adds a call of a tool, or the next piece of the one with this index.
    fn add_call(&mut self, index: Option<u64>, id: &Value, function: &Value) {
        let arguments = ["arguments", "input", "args", "action"];
        let arguments = arguments.iter().map(|name| &function[*name]);
        let arguments = arguments.into_iter().find(|value| !value.is_null());
        let arguments = match arguments {
            Some(Value::String(text)) => text.clone(),
            // It comes in pieces.
            Some(Value::Object(fields)) if fields.is_empty() && index.is_some() => String::new(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        // Some servers repeat the name with each piece.
        let is_known = index.is_some() && self.calls.iter().any(|(other, _)| *other == index);
        let name = function["name"].as_str().filter(|_| !is_known);
        if let (Some(name), true) = (name, self.calls.len() < Self::CALLS) {
            let mut call = ToolCall::default();
            call.id = id.as_str().map(str::to_owned);
            call.name = name.to_owned();
            self.calls.push((index, call));
        }
        if is_known || name.is_some() {
            self.add_arguments(index, &arguments);
        }
    }

    /// Appends to the arguments of the last call with this index.
    fn add_arguments(&mut self, index: Option<u64>, piece: &str) {
        let call = self
            .calls
            .iter_mut()
            .rev()
            .find(|(other, _)| *other == index);
        if let Some((_, call)) = call {
            append(&mut call.arguments, piece);
        }
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
        let output = json["output"].as_array().into_iter().flatten();
        let output = output.filter(|item| item["type"] != "reasoning");
        let blocks = listed
            .into_iter()
            .chain(output.map(|item| &item["content"]));
        let blocks = blocks.filter_map(Value::as_array).flatten();
        let blocks = blocks.filter(|block| block["thought"] != true);
        let texts = one.into_iter().chain(blocks.map(|block| &block["text"]));
        for text in texts.filter_map(Value::as_str) {
            append(&mut self.text, text);
        }
    }
}

/// Appends a text, as far as it counts.
fn append(text: &mut String, more: &str) {
    let room = Answer::LONGEST_TEXT.saturating_sub(text.len());
    let fits = |(at, _): &(usize, char)| *at < room;
    text.extend(
        more.char_indices()
            .take_while(fits)
            .map(|(_, character)| character),
    );
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

    /// The id, the name and the arguments of a tool call.
    type Called = (Option<String>, String, String);

    /// Returns an answer's id, and the id, name and arguments of each call of a tool.
    fn called(body: &str) -> (Option<String>, Vec<Called>) {
        let is_stream = body.starts_with("data:");
        let content_type = match is_stream {
            true => "text/event-stream",
            false => "application/json",
        };
        let answer = read(content_type, body);
        let calls = answer.tool_calls.into_iter();
        (
            answer.id,
            calls
                .map(|call| (call.id, call.name, call.arguments))
                .collect(),
        )
    }

    #[test]
    fn ids_and_tool_calls_of_each_wire_format_are_read_whole_and_streamed() {
        let stream = |events: &[&str]| -> String {
            events
                .iter()
                .map(|event| format!("data: {event}\n\n"))
                .collect()
        };
        let read = |id: &str, arguments: &str| {
            let id = Some(id.to_owned()).filter(|id| !id.is_empty());
            (id, "read".to_owned(), arguments.to_owned())
        };
        let two =
            |first: &str, second: &str| vec![read(first, r#"{"path":"a"}"#), read(second, "{}")];
        for (body, id, calls) in [
            (
                r#"{"id":"chatcmpl-1","choices":[{"message":{"content":null,"tool_calls":[
                {"id":"c1","function":{"name":"read","arguments":"{\"path\":\"a\"}"}},
                {"id":"c2","function":{"name":"read","arguments":"{}"}}]}}]}"#
                    .to_owned(),
                "chatcmpl-1",
                two("c1", "c2"),
            ),
            (
                stream(&[
                    r#"{"id":"chatcmpl-1","choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"name":"read","arguments":""}}]}}]}"#,
                    r#"{"id":"chatcmpl-1","choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"read","arguments":"{\"path\""}}]}}]}"#,
                    r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"c2","function":{"name":"read","arguments":"{}"}}]}}]}"#,
                    r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":":\"a\"}"}}]}}]}"#,
                    "[DONE]",
                ]),
                "chatcmpl-1",
                two("c1", "c2"),
            ),
            (
                r#"{"id":"resp_1","output":[{"type":"reasoning","id":"rs_1","summary":[]},
                {"type":"function_call","id":"fc_1","call_id":"c1","name":"read","arguments":"{\"path\":\"a\"}"},
                {"type":"function_call","id":"fc_2","call_id":"c2","name":"read","arguments":"{}"}]}"#
                    .to_owned(),
                "resp_1",
                two("c1", "c2"),
            ),
            (
                stream(&[
                    r#"{"type":"response.created","response":{"id":"resp_1","output":[]}}"#,
                    r#"{"type":"response.output_item.added","item":{"type":"function_call","call_id":"c1","name":"read","arguments":""}}"#,
                    r#"{"type":"response.output_item.done","item":{"type":"function_call","call_id":"c1","name":"read","arguments":"{\"path\":\"a\"}"}}"#,
                    r#"{"type":"response.output_item.done","item":{"type":"function_call","call_id":"c2","name":"read","arguments":"{}"}}"#,
                    r#"{"type":"response.completed","response":{"id":"resp_1","output":[{"type":"function_call","call_id":"c1","name":"read","arguments":"{}"}]}}"#,
                ]),
                "resp_1",
                two("c1", "c2"),
            ),
            (
                r#"{"id":"msg_1","content":[{"type":"text","text":"Yes."},
                {"type":"tool_use","id":"c1","name":"read","input":{"path":"a"}},
                {"type":"tool_use","id":"c2","name":"read","input":{}}]}"#
                    .to_owned(),
                "msg_1",
                two("c1", "c2"),
            ),
            (
                stream(&[
                    r#"{"type":"message_start","message":{"id":"msg_1","content":[]}}"#,
                    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
                    r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"c1","name":"read","input":{}}}"#,
                    r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"path\":"}}"#,
                    r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"\"a\"}"}}"#,
                    r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"c2","name":"read","input":{}}}"#,
                    r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
                ]),
                "msg_1",
                two("c1", "c2"),
            ),
            (
                r#"{"responseId":"r1","candidates":[{"content":{"parts":[
                {"functionCall":{"name":"read","args":{"path":"a"}}},
                {"functionCall":{"name":"read","args":{}}}]}}]}"#
                    .to_owned(),
                "r1",
                two("", ""),
            ),
            (
                stream(&[
                    r#"{"responseId":"r1","candidates":[{"content":{"parts":[{"functionCall":{"name":"read","args":{"path":"a"}}}]}}]}"#,
                    r#"{"responseId":"r1","candidates":[{"content":{"parts":[{"functionCall":{"id":"c2","name":"read","args":{}}}]}}]}"#,
                ]),
                "r1",
                two("", "c2"),
            ),
        ] {
            assert_eq!(called(&body), (Some(id.to_owned()), calls), "{body}");
        }
    }

    #[test]
    fn thoughts_are_no_text() {
        for body in [
            r#"{"choices":[{"message":{"content":"Yes.","reasoning_content":"Hm."}}]}"#,
            r#"{"output":[{"type":"reasoning","content":[{"type":"reasoning_text","text":"Hm."}]},
            {"type":"message","content":[{"type":"output_text","text":"Yes."}]}]}"#,
            r#"{"content":[{"type":"thinking","thinking":"Hm."},{"type":"text","text":"Yes."}]}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":"Hm.","thought":true},{"text":"Yes."}]}}]}"#,
        ] {
            let answer = read("application/json", body);
            assert_eq!(answer.text.as_deref(), Some("Yes."), "{body}");
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

        let said = "x".repeat(Answer::LONGEST_TEXT);
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
