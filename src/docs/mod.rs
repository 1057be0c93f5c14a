//! Pages to read, beside the reference.

#[doc = include_str!("costs.md")]
pub mod costs {}

pub mod recipes;

#[doc = include_str!("sessions.md")]
pub mod sessions {}
