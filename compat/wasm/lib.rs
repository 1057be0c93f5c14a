//! Only tests: see `rule.rs`.
