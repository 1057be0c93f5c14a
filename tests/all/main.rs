//! What users meet, over real sockets. One module for each part of the promise.

mod api;
mod conversations;
mod faults;
mod gateway;
mod gateway_cache;
mod gateway_continuity;
mod gateway_load;
mod gateway_support;
mod ids;
mod injection;
mod loopback;
mod precedence;
mod properties;
mod proxy;
mod redirects;
mod rules;
mod scope;
mod stack;
mod stacks;
mod stress;
mod support;
mod targets;
mod tls;
