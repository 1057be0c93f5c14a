//! What a request asks of a model, read from its body in any wire format.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use serde_json::{Map, Value};

/// The longest excerpt of a prompt that is kept, in characters.
const WORDS: usize = 120;

/// The longest prompt of one string, in bytes, that is compared word by word.
const LONGEST_STRING: usize = 1 << 20;

/// How many of a prompt's longest beginnings are compared, one for each message. No conversation
/// grows by more messages from one call to the next.
const BEGINNINGS: usize = 4096;

/// How much of a prompt's messages, in bytes, is searched for an earlier answer.
const SEARCHED: usize = 64 << 10;

/// How many of a prompt's last answers are read.
const ANSWERS: usize = 8;

/// One prompt, in the order in which a provider reads it: tools, system prompt, messages.
#[derive(Debug, Clone, Default)]
pub(super) struct Prompt {
    pub model: Option<String>,
    pub stream: bool,
    /// The names of the tools.
    pub tools: Vec<String>,
    pub messages: usize,
    /// The first words of the system prompt.
    pub system: Option<String>,
    /// The first words of the user's last message.
    pub user: Option<String>,
    /// Everything that the provider reads, as text, without markers for its cache. A message has
    /// the same text whether its content is a string or a list of one text.
    pub text: String,
    /// The position in the text where the messages begin.
    pub messages_at: usize,
    pub outline: Outline,
}

/// The hashes of a prompt's beginnings, by which another prompt finds the one that it continues.
#[derive(Debug, Clone, Default)]
pub(super) struct Outline {
    /// Tools and system prompt.
    pub head: u64,
    /// One for each of the last messages: everything from the head to that message.
    pub beginnings: Vec<u64>,
    /// The same without the head, from the first answer of the model on: a history that contains an
    /// answer is recognised under another system prompt.
    pub histories: Vec<Option<u64>>,
    /// If the prompt is one string: its beginnings, word by word.
    pub words: Vec<u64>,
    /// The last answers of the model in the prompt, the latest last.
    pub answers: Vec<Excerpt>,
}

/// A few pieces of a text, by which it is found in another text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt(Vec<Box<str>>);

impl Excerpt {
    /// The largest number of pieces, and the longest piece, in characters.
    const PIECES: usize = 4;
    const LENGTH: usize = 48;
    /// Shorter pieces occur in any text.
    const SHORTEST: usize = 4;

    /// Takes pieces from all over a text: a client may trim a summary at both ends.
    pub fn of(text: &str) -> Option<Self> {
        // These characters look different inside JSON.
        let apart = |character: char| character.is_control() || matches!(character, '"' | '\\');
        let lines = || text.split(apart).map(str::trim);
        let mut long: Vec<&str> = lines()
            .filter(|line| line.len() >= Self::LENGTH / 4)
            .collect();
        if long.is_empty() {
            let longest = lines().max_by_key(|line| line.len())?;
            long.extend((longest.len() >= Self::SHORTEST).then_some(longest));
        }
        let step = long.len().div_ceil(Self::PIECES).max(1);
        let pieces: Vec<Box<str>> = long
            .into_iter()
            .step_by(step)
            .map(|line| line.chars().take(Self::LENGTH).collect::<String>().into())
            .collect();
        (!pieces.is_empty()).then_some(Self(pieces))
    }

    pub fn is_in(&self, text: &str) -> bool {
        self.0.iter().any(|piece| text.contains(&**piece))
    }
}

impl Prompt {
    /// Reads a body; returns `None` if it is not JSON. One that is not an object asks for nothing.
    pub fn read(body: &[u8]) -> Option<Self> {
        let Value::Object(body) = serde_json::from_slice(body).ok()? else {
            return Some(Self::default());
        };
        Some(Self::of(body))
    }

    /// Keeps only the beginning of its messages' text, which is searched for an answer.
    pub fn shorten(&mut self) {
        self.text.drain(..self.messages_at);
        self.messages_at = 0;
        // A prompt of one string is kept whole, because the answer comes after the earlier prompt.
        if self.outline.words.is_empty() {
            let end = (0..=SEARCHED.min(self.text.len()))
                .rev()
                .find(|&at| self.text.is_char_boundary(at));
            self.text.truncate(end.unwrap_or_default());
        }
        self.text.shrink_to_fit();
    }

    fn of(mut body: Map<String, Value>) -> Self {
        let mut tools = body.remove("tools").unwrap_or_default();
        let mut system: Vec<Value> = [
            "system",
            "instructions",
            "systemInstruction",
            "system_instruction",
        ]
        .iter()
        .filter_map(|name| body.remove(*name))
        .filter(|value| !value.is_null())
        .collect();
        let mut messages = ["messages", "input", "contents"]
            .iter()
            .find_map(|name| body.remove(*name).filter(|value| !value.is_null()))
            .map_or_else(Vec::new, |messages| match messages {
                Value::Array(messages) => messages,
                one => vec![one],
            });
        let one_string = matches!(messages[..], [Value::String(_)]);

        std::iter::once(&mut tools)
            .chain(&mut system)
            .chain(&mut messages)
            .for_each(normalize);
        let instructions = messages
            .iter()
            .take_while(|message| matches!(role(message), "system" | "developer"))
            .count();
        let mut text = String::new();
        if !tools.is_null() {
            text.push_str(&tools.to_string());
        }
        system.extend(messages.drain(..instructions));
        for part in &system {
            write_message(part, &mut text);
        }
        let head = hash_of(&text);
        let messages_at = text.len();

        let mut outline = Outline {
            head,
            ..Outline::default()
        };
        let (mut beginning, mut history, mut answered) = (head, 0, false);
        for message in &messages {
            let from = text.len();
            write_message(message, &mut text);
            answered |= is_answer(message);
            let own = hash_of(&text[from..]);
            beginning = hash_of(&(beginning, own));
            history = hash_of(&(history, own));
            outline.beginnings.push(beginning);
            outline.histories.push(answered.then_some(history));
        }
        let shorter = messages.len().saturating_sub(BEGINNINGS);
        outline.beginnings.drain(..shorter);
        outline.histories.drain(..shorter);
        if let (true, [Value::String(input)]) = (one_string, &messages[..]) {
            outline.words = word_hashes(head, input);
        }
        let answers = messages.iter().rev().filter(|message| is_answer(message));
        outline.answers = answers
            .filter_map(|message| Excerpt::of(&plain_text(message)))
            .take(ANSWERS)
            .collect();
        outline.answers.reverse();

        let user = messages.iter().rev().filter(|message| is_users(message));
        Self {
            model: body.get("model").and_then(Value::as_str).map(str::to_owned),
            stream: body.get("stream") == Some(&Value::Bool(true)),
            tools: tool_names(&tools),
            messages: instructions + messages.len(),
            system: system
                .iter()
                .find_map(|part| first_words(&plain_text(part))),
            user: user.map(plain_text).find_map(|text| first_words(&text)),
            text,
            messages_at,
            outline,
        }
    }
}

/// Removes differences that make no difference to the model.
fn normalize(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Object(fields) => {
            fields.remove("cache_control");
            for (name, field) in fields.iter_mut() {
                normalize(field);
                if matches!(name.as_str(), "content" | "parts") {
                    if let Some(text) = sole_text(field) {
                        *field = Value::String(text);
                    }
                }
            }
        }
        _ => {}
    }
}

/// Returns the text of a list that contains one text and nothing else.
fn sole_text(content: &Value) -> Option<String> {
    let [Value::Object(block)] = &content.as_array()?[..] else {
        return None;
    };
    let kind = block.get("type").map(Value::as_str);
    let is_text = matches!(
        kind,
        None | Some(Some("text" | "input_text" | "output_text"))
    );
    let text = block.get("text")?.as_str()?;
    (is_text && block.len() == 1 + usize::from(kind.is_some())).then(|| text.to_owned())
}

fn role(message: &Value) -> &str {
    message["role"].as_str().unwrap_or_default()
}

/// Returns whether the model said it.
fn is_answer(message: &Value) -> bool {
    matches!(role(message), "assistant" | "model")
        || matches!(
            message["type"].as_str(),
            Some("function_call" | "reasoning" | "custom_tool_call")
        )
}

/// Returns whether it is a message of the user. One without a role is, unless it is an item of
/// another type.
fn is_users(message: &Value) -> bool {
    match role(message) {
        "user" => true,
        "" => matches!(message["type"].as_str(), None | Some("message")),
        _ => false,
    }
}

/// Returns whether it is the result of a tool or a search inside a message.
fn is_result(block: &Value) -> bool {
    let kind = block["type"].as_str();
    kind.is_some_and(|kind| kind.ends_with("tool_result") || kind == "search_result")
}

/// Writes a message as text: its role, its content, then its other fields, so that the text of a
/// message that grows begins with its earlier text.
fn write_message(message: &Value, text: &mut String) {
    match message {
        Value::String(string) => {
            text.push_str("user\n");
            text.push_str(string);
        }
        Value::Object(fields) => {
            text.push_str(match role(message) {
                "" => message["type"].as_str().unwrap_or("user"),
                role => role,
            });
            text.push('\n');
            for (name, field) in fields {
                match (name.as_str(), field) {
                    ("content" | "parts", Value::String(content)) => text.push_str(content),
                    ("content" | "parts", content) => text.push_str(&content.to_string()),
                    _ => {}
                }
            }
            for (name, field) in fields {
                // In the Responses format, a message may or may not have a type.
                if !matches!(
                    name.as_str(),
                    "role" | "content" | "parts" | "type" | "id" | "status"
                ) {
                    text.push_str(name);
                    text.push_str(&field.to_string());
                }
            }
        }
        other => text.push_str(&other.to_string()),
    }
    text.push('\n');
}

/// Returns the texts of a message, without tool calls and their results.
fn plain_text(message: &Value) -> String {
    match message {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<_> = parts
                .iter()
                .map(plain_text)
                .filter(|text| !text.is_empty())
                .collect();
            texts.join("\n")
        }
        Value::Object(_) if is_result(message) => String::new(),
        Value::Object(fields) => ["content", "parts", "text"]
            .iter()
            .find_map(|name| fields.get(*name))
            .map(plain_text)
            .unwrap_or_default(),
        _ => String::new(),
    }
}

/// Returns the beginning of a text, on one line.
fn first_words(text: &str) -> Option<String> {
    let mut words = String::new();
    let mut count = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !words.is_empty() {
            words.push(' ');
            count += 1;
        }
        for character in word.chars() {
            if count == WORDS {
                words.push('…');
                return Some(words);
            }
            words.push(character);
            count += 1;
        }
    }
    (!words.is_empty()).then_some(words)
}

fn tool_names(tools: &Value) -> Vec<String> {
    let name = |tool: &Value| {
        let name = [&tool["name"], &tool["function"]["name"], &tool["type"]];
        name.into_iter()
            .find_map(Value::as_str)
            .unwrap_or("?")
            .to_owned()
    };
    let tools = tools.as_array().map_or(&[][..], Vec::as_slice);
    tools
        .iter()
        .flat_map(|tool| {
            let declared = [
                &tool["functionDeclarations"],
                &tool["function_declarations"],
            ];
            match declared.into_iter().find_map(Value::as_array) {
                Some(functions) => functions.iter().map(name).collect(),
                None => vec![name(tool)],
            }
        })
        .collect()
}

/// Returns the hashes of a string's beginnings, each of which ends where a word or a gap does.
fn word_hashes(head: u64, text: &str) -> Vec<u64> {
    if text.len() > LONGEST_STRING {
        return vec![];
    }
    let mut hashes = vec![];
    let (mut hash, mut from) = (head, 0);
    let mut before = None;
    let ends = text.char_indices().filter_map(|(at, character)| {
        let now = Some(character.is_alphanumeric());
        let end = before != now;
        before = now;
        end.then_some(at)
    });
    for end in ends.chain([text.len()]) {
        hash = hash_of(&(hash, &text[from..end]));
        hashes.push(hash);
        from = end;
    }
    hashes
}

/// Returns a hash that is stable within one process; it is never stored.
fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
