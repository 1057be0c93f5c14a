//! The input is a body, which serde_json reads as well. `tests/json.rs` asks Node.

#![no_main]

use reqwest_opencode_session_fuzz::check_json;

libfuzzer_sys::fuzz_target!(|input: &[u8]| check_json(input));
