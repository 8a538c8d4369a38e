//! Parameters in the selector of a query.

use serde_json::Value;

use crate::{
    digest::shorten,
    error::{ErrorCode, Refusal},
    params::Params,
    verb::Verb,
};

/// Returns whether a text begins like a parameter of any verb.
fn begins_parameter(text: &str) -> bool {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    name.starts_with('_') || Verb::ALL.iter().flat_map(|verb| verb.parameters()).any(|param| param.name == name)
}

/// Returns whether a text names the token, which must never be visible.
fn names_token(text: &str) -> bool {
    text.split(['=', '&']).any(|name| name.trim().eq_ignore_ascii_case("token"))
}

/// Reads the parameters of a selector. Names that begin with `_` belong to Zenoh and are skipped.
///
/// # Errors
/// - It contains a token: routers and logs would show it.
/// - A name is given twice with different values.
/// - Parameters are joined with `&`, as in URLs. Such a parameter would become part of the value before it, and a
///   request about one recording would become a request about all.
pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Params, Refusal> {
    let mut params = Params::default();
    for (name, text) in pairs {
        if names_token(name) || text.split('&').skip(1).any(names_token) {
            let refusal = Refusal::new(ErrorCode::InvalidParams, "a token never goes into a selector");
            return Err(refusal.hint("send it as the query's attachment, or as the field token of the payload"));
        }
        if name.contains('&') || text.split('&').skip(1).any(begins_parameter) {
            let message = format!("{}: & does not separate parameters", shorten(&format!("{name}={text}")));
            return Err(Refusal::new(ErrorCode::InvalidParams, message).hint("put ; between parameters"));
        }
        if name.is_empty() && text.is_empty() || name.starts_with('_') {
            continue;
        }
        let value = Value::from(text);
        if let Some(earlier) = params.insert(name, value.clone())
            && earlier != value
        {
            let message = format!("{} is given twice", shorten(name));
            return Err(Refusal::new(ErrorCode::InvalidParams, message).hint("give each parameter once"));
        }
    }
    Ok(params)
}
