//! What a prompt is recognised by, as hashes. None of them is ever stored.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::answer::{Answer, ToolCall};
use super::json::{Json, Step, Value};
use super::prompt::{Speaker, content, is_compared, is_own, sole_text, speaker, texts};
use super::quotes::{self, SEARCHED, SHORTEST, append_letters, pieces, with};

/// How many places of a prompt, the last ones, are compared with the ends of earlier prompts. No
/// conversation grows by more messages from one call to the next.
const PLACES: usize = 4096;

/// How many calls of tools are compared at one place.
const TOOL_CALLS: usize = 16;

/// The shortest id of a tool call that no other conversation has, in letters and digits, and how
/// many of them are digits: ids such as `functions.read:0` are counted from the start of each.
const LONG_ID: usize = 16;
const DIGITS: usize = 2;

/// The longest prompt of one string, in bytes, that is compared word by word.
const LONGEST_STRING: usize = SEARCHED;

/// How much of a prompt is searched for short answers, in bytes of letters and digits.
const OPENING: usize = 4096;

/// What a prompt is recognised by.
#[derive(Debug, Clone, Default)]
pub(super) struct Outline {
    /// Tools and system prompt.
    pub head: u64,
    /// All messages, without an answer that the model is to go on with.
    pub messages: u64,
    /// Whether there is a message that the model did not say.
    pub asked: bool,
    /// Whether the model has said something in them.
    pub answered: bool,
    /// The places where earlier prompts may have ended, the latest last.
    pub places: Vec<Place>,
    /// The id of the answer that it goes on after.
    pub previous: Option<u64>,
    pub words: Words,
    pub pieces: Pieces,
    /// The beginning of what the user and the model say, in letters and digits.
    pub opening: Box<str>,
}

/// A place within a prompt where an earlier one may have ended.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// All messages before it.
    pub messages: u64,
    /// Whether the model has said something in them.
    pub answered: bool,
    /// What the model says there.
    pub said: Said,
    /// Whether the prompt goes on after that.
    pub goes_on: bool,
}

/// What the model said in one answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Said(Vec<Sign>);

/// Something that an answer is recognised by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    pub hash: u64,
    pub weight: Weight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// It is enough where the messages before are the same: a short text, or the beginning or the
    /// end of one.
    InPlace,
    /// Two of them are enough anywhere: the name and the arguments of a tool call.
    Half,
    /// It is enough anywhere: a text, or the long id of a tool call.
    Anywhere,
}

/// A prompt of one string, which grows from call to call.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    text: Box<str>,
    /// Its beginnings, each of which ends where a word or a gap does, as hashes, and their lengths.
    pub beginnings: Vec<(u64, usize)>,
}

/// What answers are looked for in: each piece once.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces {
    /// Those of what the user and the model say.
    pub quotable: Arc<[u64]>,
    /// Those of all else, in which an answer is no quotation.
    pub rest: Arc<[u64]>,
}

impl Pieces {
    pub fn size(&self) -> usize {
        (self.quotable.len() + self.rest.len()) * size_of::<u64>()
    }
}

/// Makes an outline of one message after another.
#[derive(Debug)]
pub(super) struct Outliner<'j> {
    outline: Outline,
    /// How many messages there are, and how many of them the model did not say.
    count: usize,
    asked: usize,
    /// What the model says since the last of those.
    speech: Speech,
    /// The first message, if it is a string.
    string: Option<&'j str>,
    /// What answers are looked for in, and all else, in letters and digits.
    quotable: String,
    rest: String,
}

impl<'j> Outliner<'j> {
    pub fn new(tools: Value<'j>, system: &[Value<'j>]) -> Self {
        let mut head = tools.fingerprint(is_compared);
        let mut rest = String::new();
        for part in system {
            for text in texts(*part) {
                head = with(head, hash_of(text));
                append_letters(text, &mut rest, SEARCHED);
            }
        }
        Self {
            outline: Outline {
                head,
                ..Outline::default()
            },
            count: 0,
            asked: 0,
            speech: Speech::default(),
            string: None,
            quotable: String::new(),
            rest,
        }
    }

    /// Notes that the messages to come follow an answer with this id.
    pub fn goes_on_after(&mut self, id: &str) {
        let id = hash_of(id);
        self.outline.previous = Some(id);
        self.outline.messages = id;
    }

    /// Adds a message.
    pub fn add(&mut self, message: Value<'j>) {
        self.string = message.as_str().filter(|_| self.count == 0);
        self.count += 1;
        let speaker = speaker(message);
        if speaker == Speaker::Assistant {
            for text in texts(message) {
                append_letters(text, &mut self.quotable, SEARCHED);
            }
            self.speech.add(message);
            return;
        }
        if self.asked > 0 {
            self.add_place(true);
        }
        let speech = std::mem::take(&mut self.speech);
        if let Some(hash) = speech.hash() {
            self.outline.answered = true;
            self.outline.messages = with(self.outline.messages, hash);
        }
        let letters = match speaker {
            Speaker::User => &mut self.quotable,
            _ => &mut self.rest,
        };
        for text in texts(message) {
            append_letters(text, letters, SEARCHED);
        }
        for text in results(message) {
            append_letters(text, &mut self.rest, SEARCHED);
        }
        self.asked += 1;
        self.outline.messages = with(self.outline.messages, of_message(message));
    }

    fn add_place(&mut self, goes_on: bool) {
        self.outline.places.push(Place {
            messages: self.outline.messages,
            answered: self.outline.answered,
            said: self.speech.said(true),
            goes_on,
        });
    }

    pub fn outline(mut self) -> Outline {
        if self.asked > 0 && self.speech.hash().is_some() {
            self.add_place(false);
        }
        let mut outline = self.outline;
        let first = outline.places.len().saturating_sub(PLACES);
        outline.places.drain(..first);
        if let Some(text) = self.string {
            outline.words = Words::of(outline.head, text);
        }
        let opening = self.quotable.char_indices();
        let opening = opening.take_while(|(at, _)| *at < OPENING);
        outline.opening = opening.map(|(_, character)| character).collect();
        outline.pieces = Pieces {
            quotable: each_once(&self.quotable),
            rest: each_once(&self.rest),
        };
        outline.asked = self.asked > 0;
        outline
    }
}

fn each_once(letters: &str) -> Arc<[u64]> {
    let mut pieces = pieces(letters);
    // By their low bits, and so in the order of the table in which they are looked up.
    pieces.sort_unstable_by_key(|piece| piece.rotate_left(46));
    pieces.dedup();
    pieces.into()
}

impl Outline {
    /// Returns roughly how many bytes it takes.
    pub fn size(&self) -> usize {
        let signs = self.places.iter().map(|place| place.said.signs().len());
        size_of::<Self>()
            + self.places.len() * size_of::<Place>()
            + signs.sum::<usize>() * size_of::<Sign>()
            + self.words.text.len()
            + self.words.beginnings.len() * size_of::<(u64, usize)>()
            + self.pieces.size()
            + self.opening.len()
    }
}

/// What the model says, in one or more messages.
#[derive(Debug, Default)]
struct Speech {
    /// Its letters and digits, and where those of each message end.
    letters: String,
    ends: Vec<usize>,
    /// The signs of its calls of tools: the id, if it is a long one, and the name with the
    /// arguments.
    calls: Vec<(Option<u64>, u64)>,
}

impl Speech {
    /// How many messages are compared each by itself.
    const MESSAGES: usize = 8;

    fn add(&mut self, message: Value<'_>) {
        for text in texts(message) {
            append_letters(spoken(text), &mut self.letters, usize::MAX);
        }
        if self.ends.last().copied().unwrap_or_default() < self.letters.len() {
            self.ends.push(self.letters.len());
        }
        tool_calls(message, |id, name, arguments| {
            let arguments = match arguments.as_str() {
                Some(text) => of_arguments(text),
                None if arguments.is_null() => of_arguments(""),
                None => arguments.fingerprint(|_| true),
            };
            self.calls.push((of_id(id), hash_of(&(name, arguments))));
        });
    }

    /// Returns a hash of what it says, if that is anything.
    fn hash(&self) -> Option<u64> {
        let calls: Vec<u64> = self.calls.iter().map(|(_, call)| *call).collect();
        let says_something = !self.letters.is_empty() || !calls.is_empty();
        says_something.then(|| hash_of(&(&self.letters, calls)))
    }

    fn said(&self, is_whole: bool) -> Said {
        let mut said = Said::default();
        if is_whole {
            said.add_whole(&self.letters);
        }
        said.add_ends(&self.letters, is_whole);
        if self.ends.len() > 1 {
            let starts = [0].iter().chain(&self.ends);
            for (start, end) in starts.zip(&self.ends).take(Self::MESSAGES) {
                said.add_whole(&self.letters[*start..*end]);
            }
        }
        for (id, call) in self.calls.iter().take(TOOL_CALLS) {
            said.0.extend(id.map(|hash| Sign {
                hash,
                weight: Weight::Anywhere,
            }));
            said.0.push(Sign {
                hash: *call,
                weight: Weight::Half,
            });
        }
        said
    }
}

impl Said {
    pub fn signs(&self) -> &[Sign] {
        &self.0
    }

    fn add_whole(&mut self, letters: &str) {
        if letters.is_empty() {
            return;
        }
        let weight = match letters.chars().nth(SHORTEST - 1) {
            Some(_) => Weight::Anywhere,
            None => Weight::InPlace,
        };
        let hash = hash_of(&("whole", letters));
        self.0.push(Sign { hash, weight });
    }

    /// Adds the beginning and the end, because clients take away thoughts, and cut.
    fn add_ends(&mut self, letters: &str, is_whole: bool) {
        let Some((last, _)) = letters.char_indices().nth_back(SHORTEST - 1) else {
            return;
        };
        let first = letters.char_indices().nth(SHORTEST);
        let first = first.map_or(letters.len(), |(at, _)| at);
        let beginning = hash_of(&("beginning", &letters[..first]));
        let end = is_whole.then(|| hash_of(&("end", &letters[last..])));
        self.0
            .extend([beginning].into_iter().chain(end).map(|hash| Sign {
                hash,
                weight: Weight::InPlace,
            }));
    }
}

/// An answer that was given, and what it is recognised by.
#[derive(Debug, Clone, Default)]
pub(super) struct GivenAnswer {
    pub id: Option<u64>,
    pub said: Said,
    /// A few pieces of its text.
    pub sketch: Vec<u64>,
    /// The beginning of its text, and all of it if that is short, in letters and digits.
    pub beginning: Box<str>,
    pub short: Option<Box<str>>,
}

impl GivenAnswer {
    /// The shortest answer that is looked for in its own session, in letters and digits.
    const SHORTEST: usize = 4;

    /// Returns what an answer to a prompt is recognised by, if it says anything.
    pub fn of(answer: &Answer, prompt: &Pieces) -> Option<Self> {
        let text = answer.text.as_deref().unwrap_or_default();
        // Of a longer one, it is not known where it ends.
        let is_whole = text.len() < Answer::LONGEST_TEXT;
        let mut ends = (0..=Answer::LONGEST_TEXT.min(text.len())).rev();
        let end = ends.find(|end| text.is_char_boundary(*end));
        let text = &text[..end.unwrap_or_default()];
        let mut letters = String::new();
        append_letters(spoken(text), &mut letters, usize::MAX);
        let calls = answer.tool_calls.iter().take(TOOL_CALLS);
        let calls = calls.map(|call| (of_id(call.id.as_deref()), of_call(call)));
        let speech = Speech {
            ends: vec![],
            calls: calls.collect(),
            letters,
        };
        let id = answer.id.as_deref().map(hash_of);
        if speech.hash().is_none() && id.is_none() {
            return None;
        }
        let letters = &speech.letters;
        let beginning = letters.chars().take(SHORTEST).collect::<String>();
        let length = beginning.chars().count();
        Some(Self {
            id,
            sketch: quotes::sketch(letters, [&*prompt.quotable, &*prompt.rest]),
            short: (Self::SHORTEST..SHORTEST)
                .contains(&length)
                .then(|| letters.as_str().into()),
            beginning: match length >= Self::SHORTEST {
                true => beginning.into(),
                false => Box::default(),
            },
            said: speech.said(is_whole),
        })
    }
}

impl Words {
    fn of(head: u64, text: &str) -> Self {
        if text.len() > LONGEST_STRING {
            return Self::default();
        }
        let mut beginnings = vec![];
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
            beginnings.push((hash, end));
            from = end;
        }
        Self {
            text: text.into(),
            beginnings,
        }
    }

    /// Returns whether an answer that begins so follows a beginning of this length, perhaps after
    /// the name of the one who says it.
    pub fn has_answer(&self, after: usize, answer: &str) -> bool {
        const NAME: usize = 16;
        let mut next = String::new();
        append_letters(&self.text[after..], &mut next, NAME + answer.len());
        !answer.is_empty() && next.contains(answer)
    }
}

/// Returns a hash of a message that the model did not say, whatever the order of its keys.
fn of_message(message: Value<'_>) -> u64 {
    let is_string = message.as_str().is_some();
    let kind = match message.get("role").as_str() {
        Some("") | None => message.get("type").as_str(),
        role => role,
    };
    let content = if is_string { message } else { content(message) };
    let content = match content.as_str().or_else(|| sole_text(content)) {
        Some(text) => hash_of(text),
        None if content.is_array() => content.items().map(of_block).fold(0, with),
        None => content.fingerprint(is_compared),
    };
    let fields = message.entries().filter(|(name, _)| is_own(name));
    let fields = fields.map(|(name, field)| with(hash_of(name), field.fingerprint(is_compared)));
    let fields = fields.fold(0, u64::wrapping_add);
    let kind = kind.filter(|kind| *kind != "message").unwrap_or("user");
    hash_of(&(kind, content, fields))
}

/// Returns a hash of a block of a message's content. What a tool answered may be a string, or a list
/// of one text.
fn of_block(block: Value<'_>) -> u64 {
    let content = block.get("content");
    let Some(text) = content.as_str().or_else(|| sole_text(content)) else {
        return block.fingerprint(is_compared);
    };
    let fields = block.entries();
    let fields = fields.filter(|(name, _)| is_compared(name) && *name != "content");
    let fields = fields.map(|(name, field)| with(hash_of(name), field.fingerprint(is_compared)));
    with(fields.fold(0, u64::wrapping_add), hash_of(text))
}

/// Returns the texts that tools have answered in a message.
fn results(message: Value<'_>) -> impl Iterator<Item = &str> {
    let is_result = |block: &Value<'_>| {
        let kind = block.get("type").as_str().unwrap_or_default();
        kind.ends_with("tool_result")
            || kind == "search_result"
            || !block.get("functionResponse").is_null()
    };
    let whole = (speaker(message) == Speaker::Tool).then_some(message);
    let blocks = content(message).items().filter(is_result);
    let found = whole.into_iter().chain(blocks);
    let steps = found.flat_map(|found| found.walk(is_compared));
    steps.filter_map(|step| match step {
        Step::Value(value) => value.as_str(),
        Step::Key(_) | Step::End(_) => None,
    })
}

/// Passes each call of a tool in a message: its id, its name and its arguments.
fn tool_calls<'j>(message: Value<'j>, mut pass: impl FnMut(Option<&'j str>, &'j str, Value<'j>)) {
    let first = |value: Value<'j>, names: &[&str]| {
        let fields = names.iter().map(|name| value.get(name));
        let mut fields = fields.filter(|field| !field.is_null());
        fields.next().unwrap_or(value.get(""))
    };
    let mut take = |call: Value<'j>, id: Value<'j>| {
        let name = call.get("name").as_str().unwrap_or_default();
        let arguments = first(call, &["arguments", "input", "args", "action"]);
        pass(id.as_str(), name, arguments);
    };
    // Chat completions
    for call in message.get("tool_calls").items() {
        take(first(call, &["function", "custom"]), call.get("id"));
    }
    let function = message.get("function_call");
    if function.is_object() {
        take(function, message.get(""));
    }
    // Responses
    if message
        .get("type")
        .as_str()
        .is_some_and(|kind| kind.ends_with("_call"))
    {
        take(message, first(message, &["call_id", "id"]));
    }
    for block in content(message).items() {
        // Messages
        if block
            .get("type")
            .as_str()
            .is_some_and(|kind| kind.ends_with("tool_use"))
        {
            take(block, block.get("id"));
        }
        // generateContent
        let function = first(block, &["functionCall", "function_call"]);
        if function.is_object() {
            take(function, function.get("id"));
        }
    }
}

fn of_call(call: &ToolCall) -> u64 {
    hash_of(&(call.name.as_str(), of_arguments(&call.arguments)))
}

/// Returns a hash of a tool call's arguments in JSON. Some clients write none as no text.
fn of_arguments(text: &str) -> u64 {
    let text = if text.trim().is_empty() { "{}" } else { text };
    match Json::read(text.as_bytes()) {
        Some(json) => json.value().fingerprint(|_| true),
        None => hash_of(text),
    }
}

/// Returns a hash of a tool call's id, if no other conversation has the same.
fn of_id(id: Option<&str>) -> Option<u64> {
    let id = id.filter(|id| !id.contains(':'))?;
    let letters = id.chars().filter(char::is_ascii_alphanumeric).count();
    let digits = id.chars().filter(char::is_ascii_digit).count();
    (letters >= LONG_ID && digits >= DIGITS).then(|| hash_of(&("id", id)))
}

/// Returns a text of the model without the thoughts before it.
fn spoken(text: &str) -> &str {
    const END: &str = "</think>";
    text.rfind(END).map_or(text, |at| &text[at + END.len()..])
}

/// Returns a hash that is stable within one process.
pub(super) fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
