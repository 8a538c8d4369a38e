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
    reply::{
        AdoptResult, AdoptedFrom, ConfigReply, HelpReply, InfoReply, JobReply, ListReply, ReconcileResult,
        RemovalResult, StatusReply,
    },
};
use schemars::schema_for;

#[test]
fn the_checked_in_json_schemas_are_those_of_the_types() {
    let files: BTreeMap<_, _> = [
        ("manifest", schema_for!(Manifest)),
        ("finalize_event", schema_for!(FinalizeEvent)),
        ("storage_event", schema_for!(StorageEvent)),
        ("journal_line", schema_for!(JournalLine)),
        ("error_reply", schema_for!(ErrorReply)),
        ("help_reply", schema_for!(HelpReply)),
        ("list_reply", schema_for!(ListReply)),
        ("info_reply", schema_for!(InfoReply)),
        ("status_reply", schema_for!(StatusReply)),
        ("config_reply", schema_for!(ConfigReply)),
        ("job_reply", schema_for!(JobReply)),
        ("reconcile_result", schema_for!(ReconcileResult)),
        ("adopt_result", schema_for!(AdoptResult)),
        ("removal_result", schema_for!(RemovalResult)),
        ("adopted_from", schema_for!(AdoptedFrom)),
    ]
    .into_iter()
    .map(|(name, schema)| (format!("{name}.schema.json"), support::pretty(&schema)))
    .collect();
    support::assert_checked_in("json", &files);
}
