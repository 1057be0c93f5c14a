//! The input's lines are the headers of a request.

#![no_main]

use reqwest_opencode_session_fuzz::rules::{check_headers, headers};

libfuzzer_sys::fuzz_target!(|input: &[u8]| check_headers(&headers(input)));
