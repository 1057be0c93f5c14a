//! Typical clients: each shape before and after it adopts sessions.

/// Without the library: OpenCode Go refuses the calls.
pub mod before {
    pub mod blocking;
    pub mod client_per_call;
    pub mod engine;
    pub mod error_type;
    pub mod http_trait;
    pub mod many_sends;
    pub mod one_function;
    pub mod own_session;
    pub mod string_headers;
}

/// With the library. The recipes show these files, whole or in part.
pub mod after {
    pub mod blocking;
    pub mod client_per_call;
    pub mod compaction;
    pub mod engine;
    pub mod error_type;
    pub mod http_trait;
    pub mod job_queue;
    pub mod many_sends;
    pub mod one_function;
    pub mod own_session;
    pub mod proxy;
    pub mod proxy_without_sessions;
    pub mod reqwest_fork;
    pub mod resume;
    pub mod sdk_with_ids;
    pub mod session_in_body;
    pub mod several_gateways;
    pub mod strict;
    pub mod string_headers;
}
