#[path = "../../src/before/client_per_call.rs"]
pub mod client_per_call;
#[path = "../../src/before/many_sends.rs"]
pub mod many_sends;
#[path = "../../src/before/one_function.rs"]
pub mod one_function;
