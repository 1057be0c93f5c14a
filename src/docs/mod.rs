//! Guides, beside the reference.
//!
//! | to | read |
//! |---|---|
//! | learn the words, make sessions of your own ids, and keep them over tasks and threads | [`sessions`] |
//! | change your own client: a page for each kind, with all its lines | [`recipes`] |
//! | know what a lost session costs, and what this crate costs | [`costs`] |
//! | test your client | [`recipes::testing`] |

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
