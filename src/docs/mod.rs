//! Pages to read, beside the reference.

#[doc = include_str!("sessions.md")]
pub mod sessions {}
