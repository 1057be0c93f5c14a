use opentelemetry::Context;
use reqwest_opencode_session::{BuildError, Fallback, OpencodeSessionMiddleware, Session};

pub fn middleware() -> Result<OpencodeSessionMiddleware, BuildError> {
    OpencodeSessionMiddleware::builder()
        .session_from(|| Context::map_current(|context| context.get::<Session>().cloned()))
        .fallback(Fallback::Reject)
        .build()
}
