//! Fuzzes the code that reads strings from outside, by the same rules as the tests:
//! `cargo +nightly fuzz run targets`.

#[path = "../../tests/all/rules.rs"]
pub mod rules;
