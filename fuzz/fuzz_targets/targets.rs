//! The input's first line is a target, and what follows is a URL.

#![no_main]

use reqwest_opencode_session_fuzz::rules::check_target;

libfuzzer_sys::fuzz_target!(|input: &str| {
    let (target, url) = input.split_once('\n').unwrap_or((input, input));
    check_target(target, url);
});
