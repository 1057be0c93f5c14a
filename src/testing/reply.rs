//! What the gateway answers, in each wire format.

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, ToolCall, Usage};
use super::endpoint::{Family, Format};
use super::outcome::Frame;

/// The words of which default replies are made.
const WORDS: [&str; 32] = [
    "amber", "basalt", "cedar", "cobalt", "copper", "coral", "ember", "falcon", "fjord", "garnet",
    "glacier", "harbour", "heron", "indigo", "jasmine", "juniper", "lagoon", "lantern", "lichen",
    "maple", "marble", "meadow", "nutmeg", "orchid", "otter", "pebble", "plover", "quartz",
    "saffron", "thistle", "velvet", "willow",
];

/// What the model says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// A text.
    Text(String),
    /// A call to one of the client's tools.
    ToolCall {
        /// The tool's name.
        name: String,
        /// The call's arguments, as a JSON object.
        arguments: Value,
    },
}

impl Reply {
    /// Returns the reply to a call without one of its own: words that no other call is answered
    /// with, between two times the call's number.
    pub(super) fn of_call(number: u64) -> Self {
        // Five bits of a scrambled number (SplitMix64) for each word.
        let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let words = [0, 5, 10, 15, 20].map(|shift| WORDS[(bits >> shift) as usize % WORDS.len()]);
        Self::Text(format!("{number}: {}, {number}", words.join(" ")))
    }

    /// Returns how many tokens it has. OpenCode's prices do not say how tokens are counted.
    pub(super) fn tokens(&self) -> u64 {
        match self {
            Self::Text(text) => tokens(text),
            Self::ToolCall { name, arguments } => tokens(name) + tokens(&arguments.to_string()),
        }
    }
}

/// One answer, before it is put into a wire format.
pub(super) struct Completion<'a> {
    pub family: Family,
    pub format: Format,
    /// The call's number.
    pub number: u64,
    /// In seconds since 1970.
    pub created: u64,
    pub model: &'a str,
    pub reply: &'a Reply,
    pub usage: Usage,
    /// In US dollars.
    pub cost: String,
}

/// One server-sent event.
type Event = (Option<&'static str>, Value);

impl Completion<'_> {
    /// Returns the answer as one JSON document.
    pub fn json(&self) -> Value {
        let answer = match self.format {
            Format::ChatCompletions => self.chat_completion(),
            Format::Responses => self.response("completed"),
            Format::Messages => self.message(vec![self.content_block()], Some(self.stop_reason())),
            Format::GenerateContent => self.generated(self.parts(), true),
        };
        merged(answer, json!({"cost": self.cost}))
    }

    /// Returns the answer as a stream, in the pieces in which it is sent. The cost comes last, after
    /// the end for most clients.
    pub fn stream(&self) -> Vec<Frame> {
        let cost = &self.cost;
        let ping = |name| (name, json!({"type": "ping", "cost": cost}));
        let (events, last) = match self.format {
            Format::ChatCompletions => (
                self.chat_completion_chunks(),
                (None, json!({"choices": [], "cost": cost})),
            ),
            Format::Responses => (self.response_events(), ping(Some("ping"))),
            Format::Messages => (self.message_events(), ping(Some("ping"))),
            Format::GenerateContent => (self.generated_chunks(), ping(None)),
        };
        let mut frames: Vec<_> = events
            .into_iter()
            .map(|event| Frame {
                told: self.told_by(&event.1),
                bytes: sse(event),
            })
            .collect();
        if self.format == Format::ChatCompletions {
            if self.family == Family::Inference {
                frames.push(sse((None, self.inference_cost())).into());
            }
            frames.push(Bytes::from_static(b"data: [DONE]\n\n").into());
        }
        frames.push(sse(last).into());
        frames
    }

    /// Returns the answer's id.
    pub fn answer_id(&self) -> String {
        self.id(match self.format {
            Format::ChatCompletions => "chatcmpl-",
            Format::Responses => "resp_",
            Format::Messages => "message_",
            Format::GenerateContent => "response-",
        })
    }

    /// Returns the call of a tool that it consists of, if it is one.
    pub fn tool_call(&self) -> Option<ToolCall> {
        let Reply::ToolCall { name, arguments } = self.reply else {
            return None;
        };
        Some(ToolCall {
            id: Some(self.id("call_")).filter(|_| self.format != Format::GenerateContent),
            name: name.clone(),
            arguments: arguments.to_string(),
        })
    }

    /// Returns what a client learns from an event of a stream.
    fn told_by(&self, event: &Value) -> Answer {
        let (text, usage, call_ends) = match self.format {
            Format::ChatCompletions => (
                event.pointer("/choices/0/delta/content"),
                event.get("usage"),
                event
                    .pointer("/choices/0/finish_reason")
                    .is_some_and(Value::is_string),
            ),
            Format::Responses => (
                event
                    .get("delta")
                    .filter(|_| event["type"] == "response.output_text.delta"),
                event.pointer("/response/usage"),
                event["type"] == "response.output_item.done",
            ),
            Format::Messages => (
                event.pointer("/delta/text"),
                event.pointer("/message/usage"),
                event["type"] == "content_block_stop",
            ),
            Format::GenerateContent => {
                let part = "/candidates/0/content/parts/0";
                (
                    event.pointer(&format!("{part}/text")),
                    event.get("usageMetadata"),
                    event.pointer(&format!("{part}/functionCall")).is_some(),
                )
            }
        };
        let mut told = Answer {
            // The first event has it.
            id: Some(self.answer_id()),
            usage: usage.filter(|usage| usage.is_object()).map(|_| self.usage),
            tool_calls: self.tool_call().filter(|_| call_ends).into_iter().collect(),
            ..Answer::default()
        };
        told.say(text.and_then(Value::as_str).unwrap_or_default());
        told
    }

    fn id(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.number)
    }

    /// Returns the reply's text, or that of its arguments, in the pieces of a stream.
    fn pieces(&self) -> Vec<String> {
        let text = match &self.reply {
            Reply::Text(text) => text.clone(),
            Reply::ToolCall { arguments, .. } => arguments.to_string(),
        };
        text.split_inclusive(' ').map(str::to_owned).collect()
    }

    // Chat completions

    fn chat_completion(&self) -> Value {
        let message = match &self.reply {
            Reply::Text(text) => json!({"role": "assistant", "content": text}),
            Reply::ToolCall { name, arguments } => json!({
                "role": "assistant",
                "content": null,
                "tool_calls": [{
                    "id": self.id("call_"),
                    "type": "function",
                    "function": {"name": name, "arguments": arguments.to_string()},
                }],
            }),
        };
        json!({
            "id": self.answer_id(),
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason()}],
            "usage": self.chat_usage(),
        })
    }

    fn chat_completion_chunks(&self) -> Vec<Event> {
        let chunk = |choices: Value, usage: Value| {
            (
                None,
                json!({
                    "id": self.answer_id(),
                    "object": "chat.completion.chunk",
                    "created": self.created,
                    "model": self.model,
                    "choices": choices,
                    "usage": usage,
                }),
            )
        };
        let delta = |delta: Value| {
            chunk(
                json!([{"index": 0, "delta": delta, "finish_reason": null}]),
                Value::Null,
            )
        };
        let (first, piece): (Value, fn(String) -> Value) = match &self.reply {
            Reply::Text(_) => (
                json!({"role": "assistant", "content": ""}),
                |piece| json!({"content": piece}),
            ),
            Reply::ToolCall { name, .. } => (
                json!({"role": "assistant", "content": null, "tool_calls": [{
                    "index": 0,
                    "id": self.id("call_"),
                    "type": "function",
                    "function": {"name": name, "arguments": ""},
                }]}),
                |piece| json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}),
            ),
        };
        let end = json!([{"index": 0, "delta": {}, "finish_reason": self.finish_reason()}]);
        std::iter::once(delta(first))
            .chain(self.pieces().into_iter().map(|text| delta(piece(text))))
            .chain([chunk(end, Value::Null), chunk(json!([]), self.chat_usage())])
            .collect()
    }

    fn finish_reason(&self) -> &'static str {
        match self.reply {
            Reply::Text(_) => "stop",
            Reply::ToolCall { .. } => "tool_calls",
        }
    }

    fn chat_usage(&self) -> Value {
        json!({
            "prompt_tokens": self.usage.prompt,
            "completion_tokens": self.usage.output,
            "total_tokens": self.usage.prompt + self.usage.output,
            "prompt_tokens_details": {"cached_tokens": self.usage.cached},
        })
    }

    fn inference_cost(&self) -> Value {
        json!({
            "choices": [],
            "x-opencode-type": "inference-cost",
            "cost": self.cost,
            "normalizedUsage": {
                "inputTokens": self.usage.prompt,
                "outputTokens": self.usage.output,
            },
        })
    }

    // Responses

    fn response(&self, status: &str) -> Value {
        let done = status == "completed";
        json!({
            "id": self.answer_id(),
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": null,
            "incomplete_details": null,
            "instructions": null,
            "metadata": {},
            "model": self.model,
            "output": if done { vec![self.output_item(status)] } else { vec![] },
            "parallel_tool_calls": true,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": done.then(|| json!({
                "input_tokens": self.usage.prompt,
                "input_tokens_details": {"cached_tokens": self.usage.cached},
                "output_tokens": self.usage.output,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.usage.prompt + self.usage.output,
            })),
        })
    }

    fn output_item(&self, status: &str) -> Value {
        let done = status == "completed";
        match &self.reply {
            Reply::Text(text) => json!({
                "type": "message",
                "id": self.id("item_"),
                "status": status,
                "role": "assistant",
                "content": if done { vec![output_text(text)] } else { vec![] },
            }),
            Reply::ToolCall { name, arguments } => json!({
                "type": "function_call",
                "id": self.id("item_"),
                "call_id": self.id("call_"),
                "status": status,
                "name": name,
                "arguments": if done { arguments.to_string() } else { String::new() },
            }),
        }
    }

    fn response_events(&self) -> Vec<Event> {
        let at = json!({"item_id": self.id("item_"), "output_index": 0, "content_index": 0});
        let at = |fields: Value| merged(at.clone(), fields);
        let pieces = self.pieces();
        let whole = pieces.concat();
        let mut events = vec![
            (
                "response.created",
                json!({"response": self.response("in_progress")}),
            ),
            (
                "response.output_item.added",
                json!({"output_index": 0, "item": self.output_item("in_progress")}),
            ),
        ];
        match &self.reply {
            Reply::Text(text) => {
                events.push((
                    "response.content_part.added",
                    at(json!({"part": output_text("")})),
                ));
                events.extend(pieces.into_iter().map(|piece| {
                    (
                        "response.output_text.delta",
                        at(json!({"delta": piece, "logprobs": []})),
                    )
                }));
                events.push((
                    "response.output_text.done",
                    at(json!({"text": whole, "logprobs": []})),
                ));
                events.push((
                    "response.content_part.done",
                    at(json!({"part": output_text(text)})),
                ));
            }
            Reply::ToolCall { name, .. } => {
                events.extend(pieces.into_iter().map(|piece| {
                    (
                        "response.function_call_arguments.delta",
                        at(json!({"delta": piece})),
                    )
                }));
                events.push((
                    "response.function_call_arguments.done",
                    at(json!({"name": name, "arguments": whole})),
                ));
            }
        }
        events.push((
            "response.output_item.done",
            json!({"output_index": 0, "item": self.output_item("completed")}),
        ));
        events.push((
            "response.completed",
            json!({"response": self.response("completed")}),
        ));
        events
            .into_iter()
            .enumerate()
            .map(|(number, (name, fields))| {
                (
                    Some(name),
                    merged(json!({"type": name, "sequence_number": number}), fields),
                )
            })
            .collect()
    }

    // Messages

    fn message(&self, content: Vec<Value>, stop_reason: Option<&str>) -> Value {
        json!({
            "id": self.answer_id(),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "usage": {
                "input_tokens": self.usage.prompt - self.usage.cached,
                "cache_read_input_tokens": self.usage.cached,
                "cache_creation_input_tokens": 0,
                "output_tokens": self.usage.output,
            },
        })
    }

    fn content_block(&self) -> Value {
        match &self.reply {
            Reply::Text(text) => json!({"type": "text", "text": text}),
            Reply::ToolCall { name, arguments } => {
                let id = self.id("call_");
                json!({"type": "tool_use", "id": id, "name": name, "input": arguments})
            }
        }
    }

    fn message_events(&self) -> Vec<Event> {
        let (start, piece): (Value, fn(String) -> Value) = match &self.reply {
            Reply::Text(_) => (
                json!({"type": "text", "text": ""}),
                |piece| json!({"type": "text_delta", "text": piece}),
            ),
            Reply::ToolCall { .. } => (
                merged(self.content_block(), json!({"input": {}})),
                |piece| json!({"type": "input_json_delta", "partial_json": piece}),
            ),
        };
        let mut events = vec![
            (
                "message_start",
                json!({"message": self.message(vec![], None)}),
            ),
            (
                "content_block_start",
                json!({"index": 0, "content_block": start}),
            ),
        ];
        events.extend(self.pieces().into_iter().map(|text| {
            (
                "content_block_delta",
                json!({"index": 0, "delta": piece(text)}),
            )
        }));
        events.extend([
            ("content_block_stop", json!({"index": 0})),
            (
                "message_delta",
                json!({
                    "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null},
                    "usage": {"output_tokens": self.usage.output},
                }),
            ),
            ("message_stop", json!({})),
        ]);
        events
            .into_iter()
            .map(|(name, fields)| (Some(name), merged(json!({"type": name}), fields)))
            .collect()
    }

    fn stop_reason(&self) -> &'static str {
        match self.reply {
            Reply::Text(_) => "end_turn",
            Reply::ToolCall { .. } => "tool_use",
        }
    }

    // generateContent

    fn generated(&self, parts: Value, last: bool) -> Value {
        json!({
            "candidates": [{
                "content": {"role": "model", "parts": parts},
                "finishReason": last.then_some("STOP"),
                "index": 0,
            }],
            "usageMetadata": {
                "promptTokenCount": self.usage.prompt,
                "cachedContentTokenCount": self.usage.cached,
                "candidatesTokenCount": self.usage.output,
                "totalTokenCount": self.usage.prompt + self.usage.output,
            },
            "modelVersion": self.model,
            "responseId": self.answer_id(),
        })
    }

    fn parts(&self) -> Value {
        match &self.reply {
            Reply::Text(text) => json!([{"text": text}]),
            Reply::ToolCall { name, arguments } => {
                // The SDKs warn if a call has no signature of the thought behind it.
                json!([{
                    "functionCall": {"name": name, "args": arguments},
                    "thoughtSignature": "bG9vcGJhY2s=",
                }])
            }
        }
    }

    fn generated_chunks(&self) -> Vec<Event> {
        let mut parts: Vec<_> = match &self.reply {
            Reply::Text(_) => self
                .pieces()
                .into_iter()
                .map(|piece| json!([{"text": piece}]))
                .collect(),
            Reply::ToolCall { .. } => vec![self.parts()],
        };
        parts.push(json!([{"text": ""}]));
        let last = parts.len() - 1;
        parts
            .into_iter()
            .enumerate()
            .map(|(number, parts)| (None, self.generated(parts, number == last)))
            .collect()
    }
}

/// Returns a rough count of tokens: one for every four bytes, rounded up.
pub(super) fn tokens(text: &str) -> u64 {
    text.len().div_ceil(4) as u64
}

fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// Returns one object with the fields of both.
fn merged(mut object: Value, fields: Value) -> Value {
    if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
        object.extend(fields);
    }
    object
}

fn sse((name, data): Event) -> Bytes {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    }
    .into()
}
