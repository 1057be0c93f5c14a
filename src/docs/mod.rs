//! Guides, beside the reference.

// The pages name items of all features.
#![cfg_attr(
    not(all(
        feature = "blocking",
        feature = "reqwest-013",
        feature = "testing",
        feature = "tower"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

#[doc = include_str!("costs.md")]
pub mod costs {}

pub mod recipes;

#[doc = include_str!("sessions.md")]
pub mod sessions {}
