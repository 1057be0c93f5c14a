//! What a request asks of a model, read from its body in any wire format.

use super::json::{Json, Value};
use super::outline::{Outline, Outliner};

/// The longest excerpt of a prompt that is kept, in characters without its ellipsis.
const WORDS: usize = 120;

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
    /// The first words of the model's last message.
    pub recalls: Option<String>,
    /// Everything that the provider reads, as text, without markers for its cache. A message has
    /// the same text whether its content is a string or a list of one text.
    pub text: String,
    pub outline: Outline,
}

impl Prompt {
    /// Reads a body; returns `None` if it is not JSON. One that is not an object asks for nothing.
    pub fn read(body: &[u8]) -> Option<Self> {
        Some(Self::of(Json::read(body)?.value()))
    }

    fn of(body: Value<'_>) -> Self {
        let tools = body.get("tools");
        let system = [
            "system",
            "instructions",
            "systemInstruction",
            "system_instruction",
        ];
        let system = system.map(|name| body.get(name)).into_iter();
        let mut system: Vec<Value<'_>> = system.filter(|value| !value.is_null()).collect();
        let messages = ["messages", "input", "contents"];
        let messages = messages.map(|name| body.get(name));
        let messages: Vec<_> = match messages.into_iter().find(|value| !value.is_null()) {
            Some(list) if list.is_array() => list.items().collect(),
            one => one.into_iter().collect(),
        };
        let instructions = messages
            .iter()
            .take_while(|message| speaker(**message) == Speaker::System);
        let (instructions, said) = messages.split_at(instructions.count());
        system.extend(instructions);

        let mut text = String::new();
        if !tools.is_null() {
            tools.write(&mut text, is_compared);
        }
        for part in system.iter().chain(said) {
            write_message(*part, &mut text);
        }
        let mut outliner = Outliner::new(tools, &system);
        if let Some(id) = body.get("previous_response_id").as_str() {
            outliner.goes_on_after(id);
        }
        said.iter().for_each(|message| outliner.add(*message));

        let by = |speaker_: Speaker| {
            let said = said.iter().rev().copied();
            said.filter(move |message| speaker(*message) == speaker_)
        };
        let typed = |message| first_words(texts(message).flat_map(typed));
        let user = by(Speaker::User).find_map(typed);
        let user = user.or_else(|| by(Speaker::User).find_map(|it| first_words(texts(it))));
        Self {
            model: body.get("model").as_str().map(str::to_owned),
            stream: body.get("stream").as_bool() == Some(true),
            tools: tool_names(tools),
            messages: messages.len(),
            system: system.iter().find_map(|part| first_words(texts(*part))),
            user,
            recalls: by(Speaker::Assistant).find_map(|message| first_words(texts(message))),
            text,
            outline: outliner.outline(),
        }
    }
}

/// Who a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    System,
    User,
    Assistant,
    Tool,
}

/// Returns who a message, or an item of the Responses format, is from. One without a role is the
/// user's, unless it is an item of another type.
pub(super) fn speaker(message: Value<'_>) -> Speaker {
    match message.get("role").as_str().unwrap_or_default() {
        "system" | "developer" => Speaker::System,
        "assistant" | "model" => Speaker::Assistant,
        "tool" | "function" => Speaker::Tool,
        "user" => Speaker::User,
        _ => match message.get("type").as_str() {
            None | Some("message") => Speaker::User,
            Some(kind) if kind == "reasoning" || kind.ends_with("_call") => Speaker::Assistant,
            Some(_) => Speaker::Tool,
        },
    }
}

/// Returns whether a key is compared, and read by the model.
pub(super) fn is_compared(key: &str) -> bool {
    key != "cache_control"
}

/// Returns the content of a message.
pub(super) fn content(message: Value<'_>) -> Value<'_> {
    let content = message.get("content");
    match content.is_null() {
        true => message.get("parts"),
        false => content,
    }
}

/// Returns the text of a list that contains one text and nothing else.
pub(super) fn sole_text(content: Value<'_>) -> Option<&str> {
    let mut blocks = content.items();
    let (block, None) = (blocks.next()?, blocks.next()) else {
        return None;
    };
    let plain = |(name, value): (&str, Value<'_>)| match name {
        "type" => matches!(value.as_str(), Some("text" | "input_text" | "output_text")),
        "text" => true,
        name => !is_compared(name),
    };
    let text = block.get("text").as_str()?;
    block.entries().all(plain).then_some(text)
}

/// Returns the texts of a message, without thoughts, calls of tools, and what tools answered.
pub(super) fn texts(message: Value<'_>) -> impl Iterator<Item = &str> {
    let content = match message.is_object() {
        true => content(message),
        // A list of blocks, such as a system prompt.
        false => message,
    };
    let is_silent = speaker(message) == Speaker::Tool || is_thought(message);
    let texts = [content.as_str(), message.get("text").as_str()].into_iter();
    let blocks = content.items().filter(|block| !is_thought(*block));
    let blocks = blocks.filter_map(|block| block.as_str().or(block.get("text").as_str()));
    let texts = texts.flatten().chain(blocks);
    texts.filter(move |text| !is_silent && !text.is_empty() && !is_of_billing(text))
}

/// Returns whether a text of the system prompt is Claude Code's note for billing, which differs
/// from call to call.
pub(super) fn is_of_billing(text: &str) -> bool {
    text.starts_with("x-anthropic-billing-header")
}

/// Returns whether a message or a block is a thought of the model, or was found by a tool.
fn is_thought(block: Value<'_>) -> bool {
    let kind = block.get("type").as_str().unwrap_or_default();
    kind.contains("thinking")
        || kind.starts_with("reasoning")
        || kind.ends_with("tool_result")
        || kind == "search_result"
        || block.get("thought").as_bool() == Some(true)
}

/// Writes a message as text: its role, its content, then its other fields, so that the text of a
/// message that grows begins with its earlier text.
fn write_message(message: Value<'_>, text: &mut String) {
    if let Some(string) = message.as_str() {
        text.push_str("user\n");
        text.push_str(string);
    } else if message.is_object() {
        let role = message.get("role").as_str().filter(|role| !role.is_empty());
        text.push_str(role.or(message.get("type").as_str()).unwrap_or("user"));
        text.push('\n');
        let content = content(message);
        match content.as_str().or_else(|| sole_text(content)) {
            Some(content) => text.push_str(content),
            None if content.is_null() => {}
            None => content.write(text, is_compared),
        }
        for (name, field) in message.entries().filter(|(name, _)| is_own(name)) {
            text.push_str(name);
            field.write(text, is_compared);
        }
    } else {
        message.write(text, is_compared);
    }
    text.push('\n');
}

/// Returns whether a message's field says something, apart from its role and its content. In the
/// Responses format, a message may or may not have a type, an id and a status.
pub(super) fn is_own(name: &str) -> bool {
    is_compared(name)
        && !matches!(
            name,
            "role" | "content" | "parts" | "type" | "id" | "status"
        )
}

/// Returns what a user typed of a text: what is outside of the blocks that a client adds, such as
/// `<system-reminder>`, `<environment_details>` or `<session_context>`.
fn typed(text: &str) -> impl Iterator<Item = &str> {
    /// How many blocks of a text are left out.
    const BLOCKS: usize = 64;

    let mut rest = text;
    let mut blocks = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut from = 0;
        while let Some(at) = rest[from..].find('<').filter(|_| blocks < BLOCKS) {
            let begin = from + at;
            blocks += 1;
            if let Some(length) = block(&rest[begin..]) {
                let before = &rest[..begin];
                rest = &rest[begin + length..];
                return Some(before);
            }
            from = begin + 1;
        }
        Some(std::mem::take(&mut rest))
    })
}

/// Returns the length of the block that a text begins with, if it does.
fn block(text: &str) -> Option<usize> {
    let (name, _) = text.strip_prefix('<')?.split_once('>')?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    // What a user may have typed, such as `<div>`, has one word.
    if !name.contains(['-', '_']) || !name.chars().all(is_name) {
        return None;
    }
    let end = format!("</{name}>");
    Some(text.find(&end)? + end.len())
}

/// Returns the beginning of texts on one line.
pub(super) fn first_words<'t>(texts: impl Iterator<Item = &'t str>) -> Option<String> {
    let mut words = String::new();
    let mut count = 0;
    let is_gap = |character: char| character.is_whitespace() || character.is_control();
    let texts = texts.flat_map(|text| text.split(is_gap));
    for word in texts.filter(|word| !word.is_empty()) {
        let gap = (!words.is_empty()).then_some(' ');
        for character in gap.into_iter().chain(word.chars()) {
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

fn tool_names(tools: Value<'_>) -> Vec<String> {
    let name = |tool: Value<'_>| {
        let name = [
            tool.get("name"),
            tool.get("function").get("name"),
            tool.get("type"),
        ];
        let name = name.into_iter().find_map(Value::as_str);
        name.unwrap_or("?").to_owned()
    };
    let names = |tool: Value<'_>| {
        let declared = ["functionDeclarations", "function_declarations"];
        let declared = declared.map(|name| tool.get(name));
        match declared.into_iter().find(|functions| functions.is_array()) {
            Some(functions) => functions.items().map(name).collect(),
            None => vec![name(tool)],
        }
    };
    tools.items().flat_map(names).collect()
}
