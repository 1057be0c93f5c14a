use genai::ServiceTarget;
use genai::adapter::AdapterKind;
use genai::resolver::{AuthData, Error};
use reqwest::Url;
use reqwest_opencode_session::OpencodeSessionMiddleware;

/// Adds the caller's session to the target of a call.
pub fn in_session(
    opencode: &OpencodeSessionMiddleware,
    mut target: ServiceTarget,
) -> Result<ServiceTarget, Error> {
    if target.model.adapter_kind != AdapterKind::OpenCodeGo {
        return Ok(target);
    }

    // The override replaces genai's own path and key, so both are written out.
    let (_, model) = target.model.model_name.namespace_and_name();
    let key = target.auth.single_key_value()?;
    let (path, key) = if model.starts_with("minimax-") {
        ("messages", ("x-api-key".to_owned(), key))
    } else {
        let key = format!("Bearer {key}");
        ("chat/completions", ("authorization".to_owned(), key))
    };

    let url = target.endpoint.base_url().to_owned() + path;
    let session = opencode
        .headers_for(&Url::parse(&url).map_err(text)?)
        .map_err(text)?;
    let mut headers = vec![key];
    for (name, value) in &session {
        let value = value.to_str().map_err(text)?;
        headers.push((name.to_string(), value.to_owned()));
    }
    target.auth = AuthData::RequestOverride {
        url,
        headers: headers.into(),
    };
    Ok(target)
}

fn text(error: impl std::error::Error) -> Error {
    Error::Custom(error.to_string())
}
