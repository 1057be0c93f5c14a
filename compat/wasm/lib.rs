//! Tests alone: see `rule.rs`.
