//! What a finalize event is worth: it is a hint, and the disk is the truth.

use bubbaloop_storage_schemas::{
    MachineId, RecordingName,
    event::FinalizeEvent,
    manifest::{Chunk, ChunkError},
    reply::RefusedEvents,
};

/// Why an event is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It is of another machine.
    Foreign,
    /// It has an illegal name or digest.
    Illegal,
    /// Its chunk is not there.
    Missing,
    /// Its chunk has other bytes or another name.
    Mismatch,
    /// It is not an event at all.
    Undecodable,
}

/// An event whose words hold; whether the disk agrees is seen next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The machine as the recorder spells it.
    pub machine_id: MachineId,
    /// The chunk's recording.
    pub recording: RecordingName,
    /// The chunk.
    pub chunk: Chunk,
}

/// What the disk says of an announced chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisk {
    /// There is no file of its name.
    Absent,
    /// There is one.
    Present {
        /// Its size.
        size_bytes: u64,
        /// The readable manifest names another digest for it.
        is_other_digest: bool,
        /// The readable manifest is of another machine.
        is_foreign: bool,
    },
}

/// Checks an event's words.
///
/// # Errors
/// `Illegal`, `Mismatch` where name, index and digest contradict each other, or `Foreign`.
pub fn check(event: &FinalizeEvent, machine: &MachineId) -> Result<Announced, Refused> {
    let recording = event.recording.parse().map_err(|_| Refused::Illegal)?;
    let sender: MachineId = event.machine_id.parse().map_err(|_| Refused::Illegal)?;
    let chunk = event.chunk.check().map_err(|error| match error {
        ChunkError::Illegal(_) | ChunkError::Large { .. } => Refused::Illegal,
        ChunkError::Mismatch { .. } => Refused::Mismatch,
    })?;
    if sender.is_same_machine(machine) {
        Ok(Announced { machine_id: sender, recording, chunk })
    } else {
        Err(Refused::Foreign)
    }
}

/// Compares an announced chunk with the disk.
///
/// # Errors
/// `Missing`: it may only be early; `Foreign` or `Mismatch`: the disk says otherwise.
pub const fn compare(chunk: &Chunk, disk: OnDisk) -> Result<(), Refused> {
    match disk {
        OnDisk::Absent => Err(Refused::Missing),
        OnDisk::Present { is_foreign: true, .. } => Err(Refused::Foreign),
        OnDisk::Present { is_other_digest: true, .. } => Err(Refused::Mismatch),
        OnDisk::Present { size_bytes, .. } if size_bytes != chunk.size_bytes => Err(Refused::Mismatch),
        OnDisk::Present { .. } => Ok(()),
    }
}

/// Counts a refused event.
pub const fn count(counters: &mut RefusedEvents, refused: Refused) {
    counters.total += 1;
    let counter = match refused {
        Refused::Foreign => &mut counters.foreign,
        Refused::Illegal => &mut counters.illegal,
        Refused::Missing => &mut counters.missing,
        Refused::Mismatch => &mut counters.mismatch,
        Refused::Undecodable => &mut counters.undecodable,
    };
    *counter += 1;
}

#[cfg(test)]
mod tests {
    use bubbaloop_storage_schemas::{ChunkName, Digest, manifest::ManifestChunk};

    use super::*;

    fn event() -> FinalizeEvent {
        let digest = Digest::of(b"x");
        let name = ChunkName::new(0, &digest).to_string();
        let chunk = ManifestChunk { name, index: 0, size_bytes: 1, sha256: digest.to_string(), ..Default::default() };
        FinalizeEvent { recording: "drive".into(), machine_id: "robot-1".into(), chunk }
    }

    fn check_with(change: impl FnOnce(&mut FinalizeEvent)) -> Result<Announced, Refused> {
        let mut event = event();
        change(&mut event);
        check(&event, &"robot_1".parse().unwrap())
    }

    #[test]
    fn a_good_event_is_taken_in_either_spelling_of_the_machine() {
        assert!(check_with(|_| ()).is_ok());
        assert!(check_with(|event| event.machine_id = "robot_1".into()).is_ok());
    }

    #[test]
    fn what_is_wrong_with_an_event_is_told_apart() {
        assert_eq!(check_with(|event| event.machine_id = "robot_2".into()), Err(Refused::Foreign));
        assert_eq!(check_with(|event| event.recording = "../../x".into()), Err(Refused::Illegal));
        assert_eq!(check_with(|event| event.machine_id = "a/b".into()), Err(Refused::Illegal));
        assert_eq!(check_with(|event| event.chunk.name = "../x.mcap".into()), Err(Refused::Illegal));
        assert_eq!(check_with(|event| event.chunk.sha256 = "00".into()), Err(Refused::Illegal));
        assert_eq!(check_with(|event| event.chunk.index = 7), Err(Refused::Mismatch));
        let other = Digest::of(b"y").to_string();
        assert_eq!(check_with(|event| event.chunk.sha256 = other), Err(Refused::Mismatch));
    }

    #[test]
    fn the_disk_is_the_truth() {
        let chunk = check_with(|_| ()).unwrap().chunk;
        let present = |size_bytes, is_other_digest, is_foreign| {
            compare(&chunk, OnDisk::Present { size_bytes, is_other_digest, is_foreign })
        };
        assert_eq!(compare(&chunk, OnDisk::Absent), Err(Refused::Missing));
        assert_eq!(present(1, false, false), Ok(()));
        assert_eq!(present(2, false, false), Err(Refused::Mismatch));
        assert_eq!(present(1, true, false), Err(Refused::Mismatch));
        assert_eq!(present(1, false, true), Err(Refused::Foreign));
    }

    #[test]
    fn every_refusal_is_counted_once_in_its_place() {
        let mut counters = RefusedEvents::default();
        let all = [Refused::Foreign, Refused::Illegal, Refused::Missing, Refused::Mismatch, Refused::Undecodable];
        for refused in all {
            count(&mut counters, refused);
        }
        let each = RefusedEvents { total: 5, foreign: 1, illegal: 1, missing: 1, mismatch: 1, undecodable: 1 };
        assert_eq!(counters, each);
    }
}
