//! The generation of reqwest under test. The target `reqwest_012` runs the same modules with
//! another.

pub use {reqwest, reqwest_middleware, reqwest_retry};
