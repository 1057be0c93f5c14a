#[path = "../../src/after/client_per_call.rs"]
pub mod client_per_call;
#[path = "../../src/after/many_sends.rs"]
pub mod many_sends;
#[path = "../../src/after/one_function.rs"]
pub mod one_function;
