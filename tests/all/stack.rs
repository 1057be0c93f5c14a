//! The generation of reqwest under test. The test target `reqwest_012` runs the same modules with
//! the other one.

pub use {reqwest, reqwest_middleware, reqwest_retry};
