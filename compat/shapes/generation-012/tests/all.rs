//! Two conversations at once through each shape of a plain client, on reqwest 0.12.

#[path = "../../tests/all/plain.rs"]
mod plain;
#[path = "../../tests/all/support.rs"]
mod support;
