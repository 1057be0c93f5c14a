use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use async_openai::middleware::retry::OpenAIRetryLayer;
use reqwest_opencode_session::OpencodeSessionMiddleware;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

/// Returns a client that retries like async-openai's own, with each attempt in its session.
pub fn openai(
    config: OpenAIConfig,
    opencode: &OpencodeSessionMiddleware,
    http: reqwest::Client,
) -> Client<OpenAIConfig> {
    let http = opencode.layer().layer(http);
    let send = service_fn(move |request: HttpRequestFactory| {
        let http = http.clone();
        async move {
            let sent = http.oneshot(request.build().await?).await;
            // Unboxed, because the retry layer looks at it.
            sent.map_err(|error| match error.downcast::<reqwest::Error>() {
                Ok(error) => OpenAIError::Reqwest(*error),
                Err(error) => OpenAIError::Boxed(error),
            })
        }
    });
    let service = ServiceBuilder::new()
        .layer(OpenAIRetryLayer::default())
        .service(send);
    Client::with_config(config).with_http_service(service)
}
