//! The checked-in JSON Schemas are those of the types.
#![allow(clippy::disallowed_methods, reason = "a blessed file is written where and when a person asks for it")]
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::collections::BTreeMap;

use bubbaloop_storage_schemas::{
    ErrorReply,
    event::{FinalizeEvent, StorageEvent},
    journal::JournalLine,
    manifest::Manifest,
    reply::{AdoptResult, AdoptedFrom, ReconcileResult, RemovalResult},
    verbs::table,
};
use schemars::schema_for;

fn snake_case(name: &str) -> String {
    name.chars().fold(String::new(), |mut text, letter| {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
        text
    })
}

#[test]
fn the_checked_in_json_schemas_are_those_of_the_types() {
    let others = [
        ("manifest", schema_for!(Manifest)),
        ("finalize_event", schema_for!(FinalizeEvent)),
        ("storage_event", schema_for!(StorageEvent)),
        ("journal_line", schema_for!(JournalLine)),
        ("error_reply", schema_for!(ErrorReply)),
        ("reconcile_result", schema_for!(ReconcileResult)),
        ("adopt_result", schema_for!(AdoptResult)),
        ("removal_result", schema_for!(RemovalResult)),
        ("adopted_from", schema_for!(AdoptedFrom)),
    ];
    let replies = table::reply_schemas().into_iter().map(|(name, schema)| (snake_case(&name), schema));
    let schemas = others.into_iter().map(|(name, schema)| (name.to_owned(), schema)).chain(replies);
    let files: BTreeMap<_, _> =
        schemas.map(|(name, schema)| (format!("{name}.schema.json"), support::pretty(&schema))).collect();
    support::assert_checked_in("json", &files);
}
