//! The input is a session id.

#![no_main]

use reqwest_opencode_session_fuzz::rules::check_session_id;

libfuzzer_sys::fuzz_target!(|input: &[u8]| check_session_id(input));
