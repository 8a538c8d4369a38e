//! Property tests of names, keys and payloads.
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

use std::str::FromStr;

use bubbaloop_storage_schemas::{
    ChunkName, Digest, ErrorCode, MachineId, RecordingName, Verb,
    codec::{self, Format},
    error::Refusal,
    event::FinalizeEvent,
    keys::ObjectKey,
    manifest::{Indices, Manifest, ManifestChunk},
    parameter::{Limit, Param, ParameterField},
    params::Params,
    selector,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

fn name<T: FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[A-Za-z0-9._-]{1,128}".prop_filter_map("a dot or two", |text| text.parse().ok())
}

fn chunk_name() -> impl Strategy<Value = ChunkName> {
    (any::<u32>(), digest()).prop_map(|(index, digest)| ChunkName::new(index, &digest))
}

fn object_key() -> impl Strategy<Value = ObjectKey> {
    (name(), name(), option::of(chunk_name()), option::of(any::<u64>())).prop_map(
        |(machine, recording, chunk, started): (MachineId, RecordingName, _, _)| match (chunk, started) {
            (Some(chunk), _) => ObjectKey::chunk(&machine, &recording, chunk),
            (None, None) => ObjectKey::manifest(&machine, &recording),
            (None, Some(started)) => ObjectKey::manifest_of_capture(&machine, &recording, started),
        },
    )
}

/// Changes text by a few characters that parsers often handle wrongly.
fn near(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), option::of(select(b"0aA9-_+./ \n".to_vec())), any::<bool>());
    (text, vec(edit, 0..3)).prop_map(|(mut text, edits)| {
        for (place, letter, replaces) in edits {
            let place = place.index(text.len() + 1);
            let end = if replaces || letter.is_none() { (place + 1).min(text.len()) } else { place };
            text.replace_range(place..end, letter.map(char::from).as_slice().iter().collect::<String>().as_str());
        }
        text
    })
}

/// Any JSON, partly with the names and values that a decoder expects.
fn json_value() -> impl Strategy<Value = Value> {
    let field = select(vec![
        "schema_version",
        "name",
        "machine_id",
        "started_at_ns",
        "selection",
        "channels",
        "chunks",
        "index",
        "sha256",
        "size_bytes",
        "topic",
        "recording",
        "chunk",
        "header",
        "body",
        "limit",
        "wait",
        "since",
        "until",
        "all",
        "tag",
        "state",
        "after",
        "format",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1)),
        any::<String>().prop_map(Value::from),
        "[0-9]{0,25}(ns|s|h|y)?|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]{1,18}Z)?".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        let name = prop_oneof![3 => field.clone().prop_map(str::to_owned), 1 => any::<String>()];
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((name, inner), 0..8).prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

fn event() -> Value {
    let digest = Digest::of(b"x");
    let chunk =
        json!({"name": ChunkName::new(3, &digest), "index": 3, "size_bytes": 4.0, "sha256": digest, "new": [1]});
    json!({"header": {"monotonic_seq": 1}, "body": {"recording": "r", "machine_id": "m", "chunk": chunk}})
}

/// Reads a parameter with every reader. Returns the refusals.
fn refusals(params: &Params, name: &str) -> Vec<Refusal> {
    let readings = [
        params.text(name).map(drop),
        params.number(name).map(drop),
        params.flag(name).map(drop),
        params.duration(name).map(drop),
        params.time(name).map(drop),
        params.recording(name).map(drop),
        Limit::read(params, &Param::new("limit")).map(drop),
    ];
    readings.into_iter().filter_map(Result::err).collect()
}

proptest! {
    #[test]
    fn a_chunk_name_is_read_back_whatever_its_index_and_digest(index: u32, digest in digest()) {
        let name = ChunkName::new(index, &digest);
        prop_assert_eq!(name.to_string().parse(), Ok(name));
        prop_assert!(name.index() == index && name.fits(&digest));
        prop_assert!(RecordingName::from_str(&name.to_string()).is_ok(), "a chunk's file name is a legal name");
        let listed = ManifestChunk {
            name: name.to_string(), index, sha256: digest.to_string(), ..ManifestChunk::default()
        };
        prop_assert_eq!(listed.check().map(|chunk| chunk.name), Ok(name));
    }

    #[test]
    fn a_chunk_name_has_one_spelling(text in near(chunk_name().prop_map(|name| name.to_string()))) {
        if let Ok(name) = ChunkName::from_str(&text) {
            prop_assert_eq!(name.to_string(), text);
        }
    }

    #[test]
    fn a_digest_has_one_spelling(digest in digest(), text in near(digest().prop_map(|digest| digest.to_string()))) {
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        if let Ok(digest) = Digest::from_str(&text) {
            prop_assert_eq!(digest.to_string(), text);
        }
    }

    #[test]
    fn an_object_key_is_read_back_whatever_its_parts(key in object_key()) {
        prop_assert_eq!(key.as_str().parse(), Ok(key.clone()));
    }

    #[test]
    fn no_object_key_is_read_that_is_not_built_here(text in near(object_key().prop_map(|key| key.to_string()))) {
        if let Ok(key) = ObjectKey::from_str(&text) {
            let parts: Vec<_> = text.split('/').collect();
            let (machine, recording) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
            let built = match parts[2..] {
                ["chunks", chunk] => ObjectKey::chunk(&machine, &recording, chunk.parse().unwrap()),
                ["manifest.json"] => ObjectKey::manifest(&machine, &recording),
                [file] => {
                    let started = file.split('.').nth(1).unwrap().parse().unwrap();
                    ObjectKey::manifest_of_capture(&machine, &recording, started)
                }
                _ => return Err(TestCaseError::fail(format!("{text} is no key"))),
            };
            prop_assert_eq!(key, built);
        }
    }

    #[test]
    fn a_manifest_is_refused_or_saved_as_it_was_loaded(value in json_value(), bytes in vec(any::<u8>(), 0..256)) {
        let mut fields = json!({"schema_version": 1, "name": "r", "machine_id": "m", "started_at_ns": 1});
        if let (Some(fields), Some(more)) = (fields.as_object_mut(), value.as_object()) {
            fields.extend(more.clone());
        }
        let texts = [bytes, value.to_string().into_bytes(), fields.to_string().into_bytes()];
        for text in texts {
            for indices in [Indices::Contiguous, Indices::Rising] {
                match Manifest::parse(&text, indices) {
                    Ok((manifest, checked)) => {
                        prop_assert_eq!(manifest.chunks.len(), checked.chunks.len());
                        let saved = serde_json::to_vec(&manifest).unwrap();
                        prop_assert_eq!(Manifest::parse(&saved, indices), Ok((manifest, checked)));
                    }
                    Err(reasons) => prop_assert!(!reasons.is_empty()),
                }
            }
        }
    }

    #[test]
    fn a_fraction_of_another_writer_survives_a_load_and_a_save(number in any::<f64>()) {
        let text = json!({
            "schema_version": 1, "name": "r", "machine_id": "m", "started_at_ns": 1, "chunks": [], "x": number
        }).to_string();
        let (manifest, _) = Manifest::parse(text.as_bytes(), Indices::Contiguous).unwrap();
        prop_assert_eq!(manifest.other["x"].as_f64(), Some(number));
    }

    #[test]
    fn an_event_is_read_or_refused_whatever_arrives(
        value in json_value(), edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        for format in [Format::Json, Format::Cbor] {
            let mut bytes = codec::encode(&event(), format).unwrap();
            prop_assert!(FinalizeEvent::decode(&bytes, Some(format)).is_ok());
            for (place, byte) in &edits {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            for bytes in [bytes, codec::encode(&value, format).unwrap()] {
                let named = FinalizeEvent::decode(&bytes, Some(format));
                if named.is_ok() {
                    prop_assert_eq!(FinalizeEvent::decode(&bytes, None), named, "the format need not be named");
                }
            }
        }
    }

    #[test]
    fn a_parameter_is_read_or_refused_in_few_words(value in json_value(), name in any::<String>()) {
        let mut params = Params::default();
        params.overlay(Map::from_iter([(name.clone(), value.clone()), ("limit".into(), value.clone())]));
        let mut refused = refusals(&params, &name);
        if !value.is_null() {
            prop_assert!(!refused.is_empty(), "nothing is a name, a number and a flag at once");
            refused.push(Verb::Help.normalize(&params).unwrap_err());
        }
        for refusal in refused {
            prop_assert_eq!(refusal.code, ErrorCode::InvalidParams);
            prop_assert!(refusal.message.chars().count() < 400, "{}", refusal);
        }
    }

    #[test]
    fn a_selector_says_what_it_was_given(pairs in vec((any::<String>(), any::<String>()), 0..6)) {
        if let Ok(params) = selector::parse(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str()))) {
            for (name, text) in pairs.iter().filter(|(name, text)| !name.starts_with('_') && !text.is_empty()) {
                prop_assert_eq!(params.text(name), Ok(Some(text.as_str())));
            }
        }
    }
}
