//! The one builder of keys: on the bus in both spaces, and in the object store.

use std::{fmt, str::FromStr};

use crate::{
    names::{ChunkName, MachineId, RecordingName},
    time::UnixNs,
    verb::Verb,
};

/// The two forms under which a node is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// `bubbaloop/<machine>/storage`.
    Short,
    /// `bubbaloop/global/<machine>/storage`: the form of Bubbaloop's dashboard, daemon and SDK.
    Global,
}

impl Space {
    /// Both, in the order in which events are published.
    pub const ALL: [Self; 2] = [Self::Short, Self::Global];

    const fn base(self) -> &'static str {
        match self {
            Self::Short => "bubbaloop",
            Self::Global => "bubbaloop/global",
        }
    }
}

/// Returns the root of a node's space.
pub fn root(space: Space, machine: &MachineId) -> String {
    format!("{}/{machine}/storage", space.base())
}

/// Returns the key expression of all that a node answers in a space.
pub fn all(space: Space, machine: &MachineId) -> String {
    format!("{}/**", root(space, machine))
}

/// Returns the concrete key of a verb.
pub fn verb(space: Space, machine: &MachineId, verb: Verb) -> String {
    format!("{}/{verb}", root(space, machine))
}

/// Returns the key expression of a verb on every machine; `None` stands for all machines.
pub fn verb_of(space: Space, machine: Option<&MachineId>, verb: Verb) -> String {
    match machine {
        Some(machine) => self::verb(space, machine, verb),
        None => format!("{}/*/storage/{verb}", space.base()),
    }
}

/// Returns the key of an event of the node.
pub fn event(space: Space, machine: &MachineId, kind: &str) -> String {
    format!("{}/events/{kind}", root(space, machine))
}

/// Returns the key expression of a node's events; `None` stands for all machines.
pub fn events_of(space: Space, machine: Option<&MachineId>) -> String {
    match machine {
        Some(machine) => format!("{}/events/*", root(space, machine)),
        None => format!("{}/*/storage/events/*", space.base()),
    }
}

/// Returns the key of the node's liveliness token.
pub fn liveliness(space: Space, machine: &MachineId) -> String {
    format!("{}/liveliness", root(space, machine))
}

/// Returns the key expression of all nodes' liveliness tokens.
pub fn liveliness_of_all(space: Space) -> String {
    format!("{}/*/storage/liveliness", space.base())
}

/// Returns the key of the token by which libraries of one machine id find each other; `None` stands for all of them.
pub fn library(machine: &MachineId, library_id: Option<&str>) -> String {
    format!("{}/library/{}", root(Space::Short, machine), library_id.unwrap_or("*"))
}

/// Returns a key of the node contract, by which Bubbaloop's daemon and dashboard know nodes: `manifest`, `health` or
/// `command`, on the global form alone.
pub fn contract(machine: &MachineId, name: &str) -> String {
    format!("{}/{name}", root(Space::Global, machine))
}

/// Returns the key expression of the manifests of all nodes of a fleet, those of other projects too.
pub const fn manifests() -> &'static str {
    "bubbaloop/**/manifest"
}

/// Returns the key on which an instance of a recorder publishes its finalize events.
pub fn chunk_finalized(space: Space, machine: &MachineId, instance: &str) -> String {
    format!("{}/{machine}/{instance}/chunk_finalized", space.base())
}

/// Returns what a node subscribes to for finalize events: both forms, the machine in every spelling.
pub fn finalize_subscriptions(machine: &MachineId) -> Vec<String> {
    let spellings = machine.spellings();
    Space::ALL
        .iter()
        .flat_map(|&space| spellings.iter().map(move |machine| chunk_finalized(space, machine, "*")))
        .collect()
}

/// The key of an object, without the bucket's prefix: built from validated parts only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

/// A key of the bucket is not one that this project builds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key of a storage node")]
pub struct ObjectKeyError(String);

impl ObjectKey {
    /// Returns the key of a chunk.
    pub fn chunk(machine: &MachineId, recording: &RecordingName, chunk: ChunkName) -> Self {
        Self(format!("{machine}/{recording}/chunks/{chunk}"))
    }

    /// Returns the key of a recording's manifest.
    pub fn manifest(machine: &MachineId, recording: &RecordingName) -> Self {
        Self(format!("{machine}/{recording}/manifest.json"))
    }

    /// Returns the key of the manifest of a capture whose name another capture took first.
    pub fn manifest_of_capture(machine: &MachineId, recording: &RecordingName, started_at_ns: UnixNs) -> Self {
        Self(format!("{machine}/{recording}/manifest.{started_at_ns}.json"))
    }

    /// Returns the recording that it is of, and the chunk; a manifest's key has none.
    pub fn parts(&self) -> Option<(RecordingName, Option<ChunkName>)> {
        let mut parts = self.0.split('/').skip(1);
        let recording = parts.next()?.parse().ok()?;
        Some((recording, parts.nth(1).and_then(|chunk| chunk.parse().ok())))
    }

    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ObjectKey {
    type Err = ObjectKeyError;

    /// Reads a key that a store listed or a journal names: only what the builders above give is taken.
    fn from_str(text: &str) -> Result<Self, ObjectKeyError> {
        let parse = || {
            let mut parts = text.split('/');
            MachineId::from_str(parts.next()?).ok()?;
            RecordingName::from_str(parts.next()?).ok()?;
            match (parts.next()?, parts.next(), parts.next()) {
                ("chunks", Some(chunk), None) => ChunkName::from_str(chunk).is_ok().then_some(()),
                ("manifest.json", None, None) => Some(()),
                (file, None, None) => {
                    let started = file.strip_prefix("manifest.")?.strip_suffix(".json")?;
                    (started.parse::<UnixNs>().ok()?.to_string() == started).then_some(())
                }
                _ => None,
            }
        };
        parse().map(|()| Self(text.to_owned())).ok_or_else(|| ObjectKeyError(crate::digest::shorten(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn keys_are_as_the_design_spells_them() {
        let machine: MachineId = "robot_1".parse().unwrap();
        assert_eq!(verb(Space::Short, &machine, Verb::List), "bubbaloop/robot_1/storage/list");
        assert_eq!(verb_of(Space::Global, None, Verb::Info), "bubbaloop/global/*/storage/info");
        assert_eq!(event(Space::Global, &machine, "blocked"), "bubbaloop/global/robot_1/storage/events/blocked");
        assert_eq!(
            finalize_subscriptions(&machine),
            [
                "bubbaloop/robot_1/*/chunk_finalized",
                "bubbaloop/robot-1/*/chunk_finalized",
                "bubbaloop/global/robot_1/*/chunk_finalized",
                "bubbaloop/global/robot-1/*/chunk_finalized",
            ]
        );
    }

    #[test]
    fn only_keys_that_are_built_here_are_read_back() {
        let (machine, recording) = ("robot_1".parse().unwrap(), "drive".parse().unwrap());
        let chunk = ChunkName::new(3, &Digest::of(b"x"));
        for key in [
            ObjectKey::chunk(&machine, &recording, chunk),
            ObjectKey::manifest(&machine, &recording),
            ObjectKey::manifest_of_capture(&machine, &recording, 17),
        ] {
            assert_eq!(key.as_str().parse::<ObjectKey>().unwrap(), key);
            let named = key.as_str().contains("/chunks/").then_some(chunk);
            assert_eq!(key.parts(), Some((recording.clone(), named)));
        }
        for text in [
            "",
            "a",
            "a/b",
            "a/b/c",
            "../b/manifest.json",
            "a/b/chunks/x",
            "a/b/manifest.x.json",
            "a/b/manifest.01.json",
            "/a/b/manifest.json",
            "a/b/manifest.json/",
        ] {
            assert!(text.parse::<ObjectKey>().is_err(), "{text}");
        }
    }
}
