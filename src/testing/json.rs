//! Reads JSON as the gateway does, which is written in JavaScript: what `TextDecoder` and
//! `JSON.parse` accept is accepted, and nothing else.
//!
//! Real clients send what other readers refuse:
//!
//! - **Half of a surrogate pair**, which is what `slice` leaves of an emoji, is read as U+FFFD. So
//!   any two halves are equal, also in keys.
//! - **Depth** has no limit: nothing here is recursive, not even a destructor.
//! - **A number** is the nearest 64-bit one, and `1e999` is infinite.
//! - **A key that is repeated** has its last value, at its first place. Keys stay in the order of
//!   the text; JavaScript would move those that are array indexes to the front.
//! - **Bytes that are not UTF-8** are read as U+FFFD, and a byte order mark is skipped.
//!
//! No crate on crates.io does all this: readers that have no limit of depth refuse lone surrogates,
//! or free what they have read by recursion.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};
use std::ops::Range;

/// A JSON text that was read.
#[derive(Debug)]
pub(super) struct Json<'t> {
    text: Cow<'t, str>,
    /// The strings that contain escapes, without them.
    unescaped: String,
    /// All values and keys in the order of the text, so that each value is followed by what it
    /// contains.
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Number(Range<usize>),
    String(Text),
    /// Ends before this node.
    Array(usize),
    Object(usize),
    /// `None` if the key was there before.
    Key(Text, Option<usize>),
}

#[derive(Debug)]
enum Text {
    AsWritten(Range<usize>),
    Unescaped(Range<usize>),
}

impl<'t> Json<'t> {
    /// Reads a body; returns `None` if it is not JSON.
    pub fn read(body: &'t [u8]) -> Option<Self> {
        const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let text = String::from_utf8_lossy(body);
        let mut reader = Reader {
            text: &text,
            at: 0,
            unescaped: String::new(),
            nodes: vec![],
        };
        reader.read()?;
        let Reader {
            unescaped, nodes, ..
        } = reader;
        Some(Self {
            text,
            unescaped,
            nodes,
        })
    }

    /// Returns the outermost value.
    pub fn value(&self) -> Value<'_> {
        Value { json: self, at: 0 }
    }

    fn text(&self, text: &Text) -> &str {
        match text {
            Text::AsWritten(range) => &self.text[range.clone()],
            Text::Unescaped(range) => &self.unescaped[range.clone()],
        }
    }

    fn end(&self, at: usize) -> usize {
        end(&self.nodes, at)
    }
}

/// Returns where the node after a value is.
fn end(nodes: &[Node], at: usize) -> usize {
    match nodes[at] {
        Node::Array(end) | Node::Object(end) => end,
        _ => at + 1,
    }
}

/// What is read, and how far.
struct Reader<'t> {
    text: &'t str,
    at: usize,
    unescaped: String,
    nodes: Vec<Node>,
}

impl Reader<'_> {
    fn read(&mut self) -> Option<()> {
        // The arrays and objects that are open.
        let mut open = vec![];
        loop {
            // A value begins here.
            self.skip_space();
            let number = self.nodes.len();
            match self.peek()? {
                b'[' => {
                    self.at += 1;
                    self.nodes.push(Node::Array(number));
                    self.skip_space();
                    open.push(number);
                    if self.peek()? != b']' {
                        continue;
                    }
                }
                b'{' => {
                    self.at += 1;
                    self.nodes.push(Node::Object(number));
                    self.skip_space();
                    open.push(number);
                    if self.peek()? != b'}' {
                        self.read_key()?;
                        continue;
                    }
                }
                b'"' => {
                    let string = self.read_string()?;
                    self.nodes.push(Node::String(string));
                }
                b't' => self.read_word("true", Node::Bool(true))?,
                b'f' => self.read_word("false", Node::Bool(false))?,
                b'n' => self.read_word("null", Node::Null)?,
                _ => self.read_number()?,
            }
            // A value has ended here, and maybe those around it.
            loop {
                self.skip_space();
                let Some(&container) = open.last() else {
                    return (self.at == self.text.len()).then_some(());
                };
                let is_array = matches!(self.nodes[container], Node::Array(_));
                let byte = self.peek()?;
                self.at += 1;
                match (byte, is_array) {
                    (b',', true) => break,
                    (b',', false) => {
                        self.skip_space();
                        self.read_key()?;
                        break;
                    }
                    (b']', true) => self.nodes[container] = Node::Array(self.nodes.len()),
                    (b'}', false) => {
                        self.nodes[container] = Node::Object(self.nodes.len());
                        self.unite_keys(container);
                    }
                    _ => return None,
                }
                open.pop();
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn read_word(&mut self, word: &str, node: Node) -> Option<()> {
        self.text[self.at..].strip_prefix(word)?;
        self.at += word.len();
        self.nodes.push(node);
        Some(())
    }

    fn read_number(&mut self) -> Option<()> {
        let from = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.read_digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.read_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.read_digits()?;
        }
        self.nodes.push(Node::Number(from..self.at));
        Some(())
    }

    fn read_digits(&mut self) -> Option<()> {
        let digits = self.text.as_bytes()[self.at..].iter();
        let count = digits.take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }

    fn read_key(&mut self) -> Option<()> {
        if self.peek()? != b'"' {
            return None;
        }
        let key = self.read_string()?;
        let value = self.nodes.len() + 1;
        self.nodes.push(Node::Key(key, Some(value)));
        self.skip_space();
        let colon = self.peek()? == b':';
        self.at += 1;
        colon.then_some(())
    }

    /// Reads a string, from its first quotation mark to behind its last.
    fn read_string(&mut self) -> Option<Text> {
        self.at += 1;
        let start = self.at;
        let unescaped = self.unescaped.len();
        let mut copied = start;
        loop {
            let rest = self.text.as_bytes()[self.at..].iter();
            let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            self.at += rest.take_while(|byte| !is_special(byte)).count();
            let written = copied..self.at;
            match self.peek()? {
                b'"' if copied == start => {
                    self.at += 1;
                    return Some(Text::AsWritten(written));
                }
                b'"' => {
                    self.at += 1;
                    self.unescaped.push_str(&self.text[written]);
                    return Some(Text::Unescaped(unescaped..self.unescaped.len()));
                }
                b'\\' => {
                    self.unescaped.push_str(&self.text[written]);
                    let character = self.read_escape()?;
                    self.unescaped.push(character);
                    copied = self.at;
                }
                _ => return None,
            }
        }
    }

    fn read_escape(&mut self) -> Option<char> {
        self.at += 1;
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => byte.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.read_unit()?;
                let first = self.at;
                let pair = match self.text.as_bytes()[first..] {
                    [b'\\', b'u', ..] => {
                        self.at += 2;
                        [unit, self.read_unit()?]
                    }
                    // Two of the first half are no pair.
                    _ => [unit, unit],
                };
                let mut characters = char::decode_utf16(pair);
                let character = characters.next()?.unwrap_or(char::REPLACEMENT_CHARACTER);
                if character.len_utf16() == 1 {
                    // The second escape is a character of its own.
                    self.at = first;
                }
                character
            }
            _ => return None,
        })
    }

    fn read_unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        // `from_str_radix` would take a sign.
        let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.at += 4;
        u16::from_str_radix(digits, 16).ok().filter(|_| are_digits)
    }

    /// Gives the last value of each key of an object to its first place.
    fn unite_keys(&mut self, object: usize) {
        let mut first = HashMap::new();
        let mut united = vec![];
        let mut at = object + 1;
        while at < self.nodes.len() {
            if let Node::Key(key, _) = &self.nodes[at] {
                let key = match key {
                    Text::AsWritten(range) => &self.text[range.clone()],
                    Text::Unescaped(range) => &self.unescaped[range.clone()],
                };
                match first.entry(key) {
                    Entry::Vacant(entry) => _ = entry.insert(at),
                    Entry::Occupied(entry) => united.push((*entry.get(), at)),
                }
            }
            at = end(&self.nodes, at + 1);
        }
        for (first, again) in united {
            if let Node::Key(_, value) = &mut self.nodes[again] {
                *value = None;
            }
            if let Node::Key(_, value) = &mut self.nodes[first] {
                *value = Some(again + 1);
            }
        }
    }
}

/// A value of a JSON text. What is not there is null.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'j> {
    json: &'j Json<'j>,
    at: usize,
}

/// A step on the way through a value. An array or object is followed by what it contains, and then
/// by its end.
#[derive(Debug)]
pub(super) enum Step<'j> {
    Key(&'j str),
    Value(Value<'j>),
    End(Value<'j>),
}

static NOTHING: Json<'static> = Json {
    text: Cow::Borrowed(""),
    unescaped: String::new(),
    nodes: vec![],
};

impl<'j> Value<'j> {
    /// Returns the value of a key.
    pub fn get(self, key: &str) -> Self {
        let mut entries = self.entries();
        let found = entries.find(|(name, _)| *name == key);
        found.map_or(
            Self {
                json: &NOTHING,
                at: 0,
            },
            |(_, value)| value,
        )
    }

    pub fn is_null(self) -> bool {
        matches!(self.node(), Node::Null)
    }

    pub fn is_array(self) -> bool {
        matches!(self.node(), Node::Array(_))
    }

    pub fn is_object(self) -> bool {
        matches!(self.node(), Node::Object(_))
    }

    pub fn as_bool(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_f64(self) -> Option<f64> {
        match self.node() {
            Node::Number(number) => self.json.text[number.clone()].parse().ok(),
            _ => None,
        }
    }

    pub fn as_str(self) -> Option<&'j str> {
        match self.node() {
            Node::String(text) => Some(self.json.text(text)),
            _ => None,
        }
    }

    /// Returns what an array contains; anything else contains nothing.
    pub fn items(self) -> impl Iterator<Item = Self> {
        let (json, mut at) = (self.json, self.at + 1);
        let end = if self.is_array() {
            json.end(self.at)
        } else {
            0
        };
        std::iter::from_fn(move || {
            let item = (at < end).then_some(Self { json, at })?;
            at = json.end(at);
            Some(item)
        })
    }

    /// Returns the keys and values of an object; anything else has none.
    pub fn entries(self) -> impl Iterator<Item = (&'j str, Self)> {
        let (json, mut at) = (self.json, self.at + 1);
        let end = if self.is_object() {
            json.end(self.at)
        } else {
            0
        };
        std::iter::from_fn(move || {
            while at < end {
                let key = &json.nodes[at];
                at = json.end(at + 1);
                if let Node::Key(key, Some(at)) = key {
                    return Some((json.text(key), Self { json, at: *at }));
                }
            }
            None
        })
    }

    /// Goes through it, without the keys that are not to be kept, and their values.
    pub fn walk<F: Fn(&str) -> bool>(self, keep: F) -> Walk<'j, F> {
        Walk {
            next: Some(self),
            open: vec![],
            keep,
        }
    }

    /// Writes it without white space, and without the keys that are not to be kept.
    pub fn write(self, text: &mut String, keep: impl Fn(&str) -> bool) {
        // Whether one comes before the next key or value.
        let mut comma = false;
        for step in self.walk(keep) {
            match step {
                Step::Key(key) => {
                    if comma {
                        text.push(',');
                    }
                    comma = false;
                    text.push_str(&serde_json::Value::from(key).to_string());
                    text.push(':');
                }
                Step::Value(value) => {
                    if comma {
                        text.push(',');
                    }
                    match value.node() {
                        Node::Array(_) => text.push('['),
                        Node::Object(_) => text.push('{'),
                        Node::String(string) => {
                            let string = value.json.text(string);
                            text.push_str(&serde_json::Value::from(string).to_string());
                        }
                        Node::Number(number) => text.push_str(&value.json.text[number.clone()]),
                        Node::Bool(true) => text.push_str("true"),
                        Node::Bool(false) => text.push_str("false"),
                        Node::Null | Node::Key(..) => text.push_str("null"),
                    }
                    comma = !matches!(value.node(), Node::Array(_) | Node::Object(_));
                }
                Step::End(value) => {
                    text.push(if value.is_array() { ']' } else { '}' });
                    comma = true;
                }
            }
        }
    }

    /// Returns a hash of it, without the keys that are not to be kept. It does not depend on the
    /// order of keys, and is stable within one process.
    pub fn fingerprint(self, keep: impl Fn(&str) -> bool) -> u64 {
        // Around all are the items of an array that is never closed.
        let mut open: Vec<(u64, Option<&str>)> = vec![(0, None)];
        for step in self.walk(keep) {
            let hash = match step {
                Step::Key(key) => {
                    if let Some((_, last)) = open.last_mut() {
                        *last = Some(key);
                    }
                    continue;
                }
                Step::Value(value) => match value.node() {
                    Node::Array(_) | Node::Object(_) => {
                        open.push((0, None));
                        continue;
                    }
                    Node::Bool(value) => hash_of(value),
                    // Zero has two signs.
                    Node::Number(_) => hash_of(&value.as_f64().map(|n| (n + 0.0).to_bits())),
                    Node::String(text) => hash_of(value.json.text(text)),
                    Node::Null | Node::Key(..) => hash_of(&()),
                },
                Step::End(value) => {
                    let contents = open.pop().map(|(hash, _)| hash);
                    hash_of(&(value.is_array(), contents))
                }
            };
            if let Some((around, key)) = open.last_mut() {
                *around = match key.take() {
                    // In any order.
                    Some(key) => around.wrapping_add(hash_of(&(key, hash))),
                    None => hash_of(&(*around, hash)),
                };
            }
        }
        open.pop().map_or(0, |(hash, _)| hash)
    }

    fn node(self) -> &'j Node {
        self.json.nodes.get(self.at).unwrap_or(&Node::Null)
    }
}

/// Created by [`Value::walk`].
#[derive(Debug)]
pub(super) struct Walk<'j, F> {
    next: Option<Value<'j>>,
    /// The arrays and objects that were entered, and how far each one is read.
    open: Vec<(Value<'j>, usize)>,
    keep: F,
}

impl<'j, F: Fn(&str) -> bool> Iterator for Walk<'j, F> {
    type Item = Step<'j>;

    fn next(&mut self) -> Option<Step<'j>> {
        while self.next.is_none() {
            let (container, at) = self.open.last_mut()?;
            let (container, json) = (*container, container.json);
            if *at == json.end(container.at) {
                self.open.pop();
                return Some(Step::End(container));
            }
            match &json.nodes[*at] {
                Node::Key(key, value) => {
                    *at = json.end(*at + 1);
                    let key = json.text(key);
                    if let (Some(at), true) = (*value, (self.keep)(key)) {
                        self.next = Some(Value { json, at });
                        return Some(Step::Key(key));
                    }
                }
                _ => {
                    self.next = Some(Value { json, at: *at });
                    *at = json.end(*at);
                }
            }
        }
        let value = self.next.take()?;
        if value.is_array() || value.is_object() {
            self.open.push((value, value.at + 1));
        }
        Some(Step::Value(value))
    }
}

fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(_: &str) -> bool {
        true
    }

    /// Returns what a text is read as, without white space and escapes that are not needed.
    fn read(text: impl AsRef<[u8]>) -> Option<String> {
        let json = Json::read(text.as_ref())?;
        let mut written = String::new();
        json.value().write(&mut written, all);
        Some(written)
    }

    fn fingerprint(text: &str) -> u64 {
        Json::read(text.as_bytes())
            .unwrap()
            .value()
            .fingerprint(all)
    }

    #[test]
    fn json_is_read_and_nothing_else() {
        for (text, written) in [
            (" \t\r\n null ", "null"),
            ("[ ]", "[]"),
            ("{ }", "{}"),
            (
                r#"[ true , false,-0.5E+1 , {"a" : [ 0 ] , "b": "" } ]"#,
                r#"[true,false,-0.5E+1,{"a":[0],"b":""}]"#,
            ),
            (
                r#""\"\\\/\b\f\n\r\t\u00e9\uFFFF""#,
                "\"\\\"\\\\/\\b\\f\\n\\r\\té\u{ffff}\"",
            ),
            ("\"\u{7f}\u{2028}\"", "\"\u{7f}\u{2028}\""),
            ("\u{feff}1", "1"),
        ] {
            assert_eq!(read(text).as_deref(), Some(written), "{text}");
        }
        for text in [
            "",
            " ",
            "nul",
            "nulll",
            "NULL",
            "undefined",
            "NaN",
            "Infinity",
            "1 2",
            "[",
            "]",
            "{",
            "}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{]",
            "{,}",
            r#"{"a":1,}"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a" 1}"#,
            r#"{"a",1}"#,
            "{1:1}",
            "{a:1}",
            "'a'",
            "\"",
            r#""\"#,
            r#""\""#,
            r#""\x""#,
            r#""\u12""#,
            r#""\u+123""#,
            r#""\u12g4""#,
            r#""\ud83d\u12g4""#,
            "\"\t\"",
            "\"\n\"",
            "\"\0\"",
            "01",
            "-",
            "-01",
            "+1",
            ".5",
            "1.",
            "1.e1",
            "1e",
            "1e+",
            "0x1",
            "1_0",
            "/**/1",
            "\u{a0}1",
            "\u{feff}\u{feff}1",
            " \u{feff}1",
            "1\0",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn half_of_a_surrogate_pair_is_replaced_and_a_whole_one_is_a_character() {
        for (text, written) in [
            (r#""a\ud83d""#, "\"a\u{fffd}\""),
            (r#""\ud83db""#, "\"\u{fffd}b\""),
            (r#""\uDE00""#, "\"\u{fffd}\""),
            (r#""\ud83d\n""#, "\"\u{fffd}\\n\""),
            (r#""\ud83d\u0041""#, "\"\u{fffd}A\""),
            (r#""\ude00\ud83d""#, "\"\u{fffd}\u{fffd}\""),
            (r#""\ud83d\ud83d\ude00""#, "\"\u{fffd}\u{1f600}\""),
            (r#""\uD83D\uDE00""#, "\"\u{1f600}\""),
        ] {
            assert_eq!(read(text).as_deref(), Some(written), "{text}");
        }
        assert_eq!(fingerprint(r#""\ud83d""#), fingerprint(r#""\ude00""#));
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced() {
        assert_eq!(
            read(b"\"\xf0\x9f\x98\xff\"").as_deref(),
            Some("\"\u{fffd}\u{fffd}\"")
        );
        assert_eq!(read(b"\xff1"), None);
    }

    #[test]
    fn any_number_is_one() {
        for (text, number) in [
            ("1e999", f64::INFINITY),
            ("-1e999", f64::NEG_INFINITY),
            ("1e-999", 0.0),
            ("18446744073709551617", 18_446_744_073_709_551_616.0),
            ("0.1", 0.1),
        ] {
            let json = Json::read(text.as_bytes()).unwrap();
            assert_eq!(json.value().as_f64(), Some(number), "{text}");
        }
        assert_eq!(fingerprint("[-0, 1.0]"), fingerprint("[0, 1]"));
        assert_ne!(fingerprint("1e999"), fingerprint("-1e999"));
    }

    #[test]
    fn the_last_of_repeated_keys_counts_at_the_place_of_the_first() {
        let text = r#"{"a":{"b":1,"b":2},"c":3,"\u0061":4,"d":[],"a":{"e":5,"b":6,"e":7}}"#;
        let written = r#"{"a":{"e":7,"b":6},"c":3,"d":[]}"#;
        assert_eq!(read(text).as_deref(), Some(written));
        let json = Json::read(text.as_bytes()).unwrap();
        assert_eq!(json.value().get("a").get("e").as_f64(), Some(7.0));
        assert_eq!(json.value().entries().count(), 3);
        assert_eq!(fingerprint(text), fingerprint(written));
        // As deep as it is long, and in no time.
        let depth = 100_000;
        let text = format!("{}1{}", r#"{"a":0,"a":"#.repeat(depth), "}".repeat(depth));
        let written = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert!(read(text) == Some(written));
    }

    #[test]
    fn depth_has_no_limit() {
        let depth = 1_000_000;
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&text).as_ref() == Some(&text));
        assert_ne!(fingerprint(&text), fingerprint("[]"));
        for wrong in [&text[1..], &text[..2 * depth - 1], &format!("{text}x")] {
            assert!(read(wrong).is_none());
        }
    }

    #[test]
    fn a_value_is_asked_for_what_it_contains() {
        let json = Json::read(br#"{"a": [1, {"b": "c"}, true], "d": null}"#).unwrap();
        let value = json.value();
        let a = value.get("a");
        assert!(value.is_object() && a.is_array() && !a.is_object() && !a.is_null());
        let items: Vec<_> = a.items().collect();
        assert_eq!(items.len(), 3);
        assert_eq!(items[1].get("b").as_str(), Some("c"));
        assert_eq!(
            (items[0].as_f64(), items[2].as_bool()),
            (Some(1.0), Some(true))
        );
        assert_eq!(
            (items[2].as_f64(), items[0].as_bool(), items[0].as_str()),
            (None, None, None)
        );
        // What is not there is null, and contains nothing.
        for nothing in [
            value.get("d"),
            value.get("x"),
            value.get("x").get("a"),
            a.get("b"),
        ] {
            assert!(nothing.is_null() && !nothing.is_array() && !nothing.is_object());
            assert_eq!((nothing.items().count(), nothing.entries().count()), (0, 0));
        }
        assert_eq!((value.items().count(), a.entries().count()), (0, 0));
    }

    #[test]
    fn keys_that_are_not_kept_are_left_out_everywhere() {
        let text = r#"{"x":1,"a":[{"x":{"b":2}},{"c":3,"x":4}]}"#;
        let json = Json::read(text.as_bytes()).unwrap();
        let keep = |key: &str| key != "x";
        let mut written = String::new();
        json.value().write(&mut written, keep);
        assert_eq!(written, r#"{"a":[{},{"c":3}]}"#);
        assert_eq!(json.value().fingerprint(keep), fingerprint(&written));
        assert_ne!(json.value().fingerprint(all), fingerprint(&written));
    }

    #[test]
    fn values_that_differ_have_other_fingerprints_and_the_order_of_keys_makes_no_difference() {
        let different = [
            "null",
            "false",
            "true",
            "0",
            "1",
            r#""""#,
            r#""0""#,
            "[]",
            "{}",
            "[0]",
            "[[]]",
            "[{}]",
            "[0,1]",
            "[1,0]",
            "[[0],1]",
            "[[0,1]]",
            r#"{"a":0}"#,
            r#"{"a":[0]}"#,
            r#"{"a":1}"#,
            r#"{"b":0}"#,
            r#"["a",0]"#,
            r#"{"a":0,"b":1}"#,
            r#"{"a":1,"b":0}"#,
            r#"{"a":{"b":0}}"#,
            r#"[{"a":0},{"b":1}]"#,
        ];
        let prints: std::collections::HashSet<_> = different.map(fingerprint).into();
        assert_eq!(prints.len(), different.len());
        assert_eq!(
            fingerprint(r#"{"a":0,"b":{"c":1,"d":2}}"#),
            fingerprint(r#"{"b":{"d":2,"c":1},"a":0}"#),
        );
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 50, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_another_writer_has_written_is_read(value in values()) {
            for text in [value.to_string(), format!("{value:#}")] {
                let written = read(&text).unwrap();
                prop_assert_eq!(&written, &value.to_string());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(prop::sample::select(&b"[]{}:,\"\\ud8e0019.-+eE tfn\xf0\x9f\0"[..]), 0..12),
        ) {
            if let Some(written) = read(&bytes) {
                prop_assert_eq!(read(&written), Some(written));
            }
        }
    }
}
