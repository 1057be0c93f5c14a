//! Fuzzes the code that reads strings from outside, by the same rules as the tests:
//! `cargo +nightly fuzz run targets`.

#[path = "../../tests/all/rules.rs"]
pub mod rules;

#[path = "../../src/testing/json.rs"]
#[allow(dead_code)] // It is read in other ways in the library.
mod json;

use json::{Json, Step, Value};

/// Checks that what serde_json reads is read in the same way, and that only what it has a reason
/// not to read is read besides.
pub fn check_json(input: &[u8]) {
    let json = Json::read(input);
    match serde_json::from_slice::<serde_json::Value>(input) {
        Ok(expected) => {
            let json = json.expect("serde_json reads it");
            assert!(is_like(json.value(), &expected), "it is not {expected}");
        }
        Err(error) => {
            assert!(json.is_none() || may_be_refused(input), "{error}");
        }
    }
}

fn is_like(value: Value<'_>, expected: &serde_json::Value) -> bool {
    match expected {
        serde_json::Value::Null => value.is_null(),
        serde_json::Value::Bool(expected) => value.as_bool() == Some(*expected),
        serde_json::Value::Number(expected) => value.as_f64() == expected.as_f64(),
        serde_json::Value::String(expected) => value.as_str() == Some(expected),
        serde_json::Value::Array(expected) => {
            let mut items = value.items();
            value.is_array()
                && (expected.iter()).all(|expected| {
                    let item = items.next();
                    item.is_some_and(|item| is_like(item, expected))
                })
                && items.next().is_none()
        }
        serde_json::Value::Object(expected) => {
            let mut entries = value.entries();
            value.is_object()
                && (expected.iter()).all(|(name, expected)| {
                    let entry = entries.next();
                    entry.is_some_and(|(key, value)| key == name && is_like(value, expected))
                })
                && entries.next().is_none()
        }
    }
}

/// Returns whether there may be something that JavaScript reads and serde_json does not: bytes that
/// are not UTF-8, half of a surrogate pair, a number that is not finite, or a depth of 128.
fn may_be_refused(input: &[u8]) -> bool {
    let has_surrogate = input
        .windows(3)
        .any(|at| at[0] == b'u' && at[1].eq_ignore_ascii_case(&b'd') && matches!(at[2], b'8'..));
    let has_exponent = input
        .windows(2)
        .any(|at| at[0].is_ascii_digit() && at[1].eq_ignore_ascii_case(&b'e'));
    let open = input.iter().filter(|byte| matches!(byte, b'[' | b'{'));
    has_surrogate
        || has_exponent
        || open.count() >= 128
        // A number of so many digits may be infinite.
        || input.len() > 308
        || input.starts_with("\u{feff}".as_bytes())
        || std::str::from_utf8(input).is_err()
}

/// Writes what is read so that it can be compared with what `json.mjs` writes, or returns `None`.
pub fn canonical_json(input: &[u8]) -> Option<String> {
    let json = Json::read(input)?;
    // What is written of each array and object that is open, around all of them an array.
    let mut open: Vec<Vec<Part>> = vec![vec![]];
    for step in json.value().walk(|_| true) {
        let text = match step {
            Step::Key(key) => {
                let index = array_index(key);
                let text = format!("{}:", string(key));
                open.last_mut()?.push(Part { index, text });
                continue;
            }
            Step::Value(value) if value.is_array() || value.is_object() => {
                open.push(vec![]);
                continue;
            }
            Step::Value(value) => match (value.as_bool(), value.as_f64(), value.as_str()) {
                (Some(value), ..) => value.to_string(),
                (_, Some(number), _) => format!("{:016x}", number.to_bits()),
                (.., Some(text)) => string(text),
                _ => "null".to_owned(),
            },
            Step::End(value) => {
                let mut parts = open.pop()?;
                // JavaScript puts the keys that are array indexes first.
                parts.sort_by_key(|part| (part.index.is_none(), part.index));
                let parts: Vec<_> = parts.into_iter().map(|part| part.text).collect();
                match value.is_object() {
                    true => format!("{{{}}}", parts.join(",")),
                    false => format!("[{}]", parts.join(",")),
                }
            }
        };
        let around = open.last_mut()?;
        match around.last_mut() {
            // It is the value of this key.
            Some(part) if part.text.ends_with(':') => part.text.push_str(&text),
            _ => around.push(Part { index: None, text }),
        }
    }
    open.pop()?.pop().map(|part| part.text)
}

/// An item of an array, or a key and its value.
struct Part {
    index: Option<u32>,
    text: String,
}

fn string(text: &str) -> String {
    let units = text.encode_utf16().map(|unit| format!("{unit:04x}"));
    format!("'{}'", units.collect::<String>())
}

fn array_index(key: &str) -> Option<u32> {
    let index: u32 = key.parse().ok()?;
    (index < u32::MAX && index.to_string() == key).then_some(index)
}
