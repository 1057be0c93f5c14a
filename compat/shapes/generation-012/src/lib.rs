//! The shapes of a plain client, from the same files, on reqwest 0.12.

pub mod after;
pub mod before;
