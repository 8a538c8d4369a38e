//! From a query's bytes to parameters, and from a reply to bytes.

use bubbaloop_storage_schemas::{
    codec::{self, Format},
    error::{ErrorCode, ErrorReply, Refusal},
    limits::{REPLY_BYTES_MAX, REQUEST_BYTES_MAX, TOKEN_BYTES_MAX},
    params::Params,
    selector,
};
use serde_json::{Map, Value};
use zenoh::query::Query;

use crate::{library::identity::Identity, secret::Secret, service::Reply};

/// What was asked, and how the answer is to be encoded, whatever it is.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) params: Result<Params, Refusal>,
    pub(super) format: Format,
    /// What was shown to be let do what an admin may: taken out of the parameters, which are told.
    pub(super) token: Option<Secret>,
    /// It stood in the payload, where a verb that needs none does not take it.
    pub(super) has_token_field: bool,
}

fn refused(message: impl Into<String>, hint: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidParams, message).hint(hint)
}

/// A query's payload as it arrived.
struct Payload<'a> {
    bytes: std::borrow::Cow<'a, [u8]>,
    /// The format that its encoding names; `None` where that says nothing.
    format: Result<Option<Format>, String>,
}

impl Request {
    /// Reads the parameters of selector and payload. What is wrong with them is part of the result, because the
    /// answer's format is known all the same.
    pub(super) fn of(query: &Query) -> Self {
        let payload = query.payload().filter(|payload| !payload.is_empty());
        let too_large = payload.map_or(0, zenoh::bytes::ZBytes::len).max(query.parameters().as_str().len());
        let payload = payload.map(|payload| {
            let encoding = query.encoding().map(ToString::to_string).unwrap_or_default();
            let format = Format::of_encoding(&encoding).map_err(str::to_owned);
            Payload { bytes: payload.to_bytes(), format }
        });
        let mut format = payload.as_ref().map_or(Format::Json, Payload::format);
        let params = if too_large > REQUEST_BYTES_MAX {
            let message = format!("the request has {too_large} bytes");
            Err(refused(message, &format!("a request has at most {REQUEST_BYTES_MAX} bytes")))
        } else {
            read(query.parameters().as_str(), payload.as_ref())
        };
        let mut params = params;
        let field = params.as_mut().ok().map(Params::take_token);
        let (field, params) = match field {
            Some(Err(refusal)) => (None, Err(refusal)),
            Some(Ok(field)) => (field, params),
            None => (None, params),
        };
        let has_token_field = field.is_some();
        let token = field.or_else(|| attached(query)).map(Secret::new);
        let asked = params.as_ref().map(|params| params.text("format").map(|text| text.map(str::to_owned)));
        let wrong = match asked {
            Ok(Ok(None)) | Err(_) => None,
            Ok(Ok(Some(text))) => match text.as_str() {
                "json" => {
                    format = Format::Json;
                    None
                }
                "cbor" => {
                    format = Format::Cbor;
                    None
                }
                _ => Some(refused("format: there is no such format", "the formats are json and cbor")),
            },
            Ok(Err(refusal)) => Some(refusal),
        };
        Self { params: wrong.map_or(params, Err), format, token, has_token_field }
    }
}

impl Payload<'_> {
    fn format(&self) -> Format {
        match self.format {
            Ok(Some(format)) => format,
            Ok(None) => codec::sniff(&self.bytes[..self.bytes.len().min(REQUEST_BYTES_MAX)]),
            Err(_) => Format::Json,
        }
    }
}

/// Returns the token that is attached to a query.
fn attached(query: &Query) -> Option<String> {
    let attachment = query.attachment().filter(|attachment| attachment.len() <= TOKEN_BYTES_MAX)?;
    String::from_utf8(attachment.to_bytes().into_owned()).ok()
}

fn read(selector: &str, payload: Option<&Payload<'_>>) -> Result<Params, Refusal> {
    let pairs = selector.split(';').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut params = selector::parse(pairs)?;
    let Some(payload) = payload else { return Ok(params) };
    let wanted = "send a JSON or CBOR object whose fields are the parameters";
    let format = match &payload.format {
        Ok(format) => *format,
        Err(encoding) => return Err(refused(format!("the payload's encoding {encoding:?} is not known"), wanted)),
    };
    match codec::decode_value(&payload.bytes, format) {
        Ok(Value::Object(fields)) => params.overlay(fields),
        Ok(_) => return Err(refused("the payload is not an object", wanted)),
        Err(error) => return Err(refused(format!("the payload is {error}"), wanted)),
    }
    Ok(params)
}

/// Reads the payload of a command; `None` where there is none.
///
/// # Errors
/// What is wrong with it, for the in-band answer.
pub(super) fn command(query: &Query) -> Result<Option<Map<String, Value>>, String> {
    let Some(payload) = query.payload().filter(|payload| !payload.is_empty()) else { return Ok(None) };
    if payload.len() > REQUEST_BYTES_MAX {
        return Err(format!("the command has {} bytes; at most {REQUEST_BYTES_MAX} are read", payload.len()));
    }
    let encoding = query.encoding().map(ToString::to_string).unwrap_or_default();
    // Askers name encodings loosely: what is neither is looked at.
    let format = Format::of_encoding(&encoding).ok().flatten();
    match codec::decode_value(&payload.to_bytes(), format) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err("the command is not an object".into()),
        Err(error) => Err(format!("the command is {error}")),
    }
}

/// Encodes a reply; one that is too large or can't be encoded becomes a refusal.
pub(super) fn encode(reply: &Reply, format: Format) -> Result<Vec<u8>, Refusal> {
    let bytes = reply
        .encode(format)
        .map_err(|error| Refusal::new(ErrorCode::Internal, format!("the reply can't be encoded: {error}")))?;
    if bytes.len() > REPLY_BYTES_MAX {
        let refusal = Refusal::new(ErrorCode::Limit, format!("the reply has {} bytes", bytes.len()));
        return Err(refusal.hint("ask for less: a smaller limit, or one recording"));
    }
    Ok(bytes)
}

/// Encodes a refusal; `verb` is the one that was asked for, if any was met.
pub(super) fn encode_refusal(identity: &Identity, verb: Option<&str>, refusal: Refusal, format: Format) -> Vec<u8> {
    let reply = ErrorReply {
        machine_id: identity.machine_id.to_string(),
        library_id: identity.library_id.clone(),
        verb: verb.map(str::to_owned),
        refusal,
    };
    codec::encode(&reply, format).unwrap_or_default()
}
