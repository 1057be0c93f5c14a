//! What users meet, over real sockets. One module for each part of the promise.

mod api;
mod conversations;
mod gateway;
mod ids;
mod faults;
mod injection;
mod loopback;
mod precedence;
mod proxy;
mod redirects;
mod scope;
mod stack;
mod stacks;
mod stress;
mod properties;
mod redirects;
mod rules;
mod support;
mod targets;
mod tls;
