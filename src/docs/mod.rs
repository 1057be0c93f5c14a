//! Pages to read, beside the reference.

pub mod recipes;

#[doc = include_str!("sessions.md")]
pub mod sessions {}
