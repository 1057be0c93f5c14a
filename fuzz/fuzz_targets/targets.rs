//! The input's first line is a target, the second a session header, and the rest a URL.

#![no_main]

use reqwest_opencode_session_fuzz::rules::{check_session_header, check_target};

libfuzzer_sys::fuzz_target!(|input: &str| {
    let mut lines = input.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or(input);
    let (target, header, url) = (line(), line(), line());
    check_target(target, url);
    check_session_header(target, header, url);
});
