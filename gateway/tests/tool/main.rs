//! The program `opencode-gateway`, run as its users run it.

mod add_session;
mod agent;
mod arguments;
mod check;
mod hosts;
mod output;
mod page_data;
mod program;
mod upstream;
