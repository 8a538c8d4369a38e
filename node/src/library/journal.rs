//! `uploads.jsonl`: the authority for uploads, one JSON line per fact, append-only.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, UnixNs,
    journal::{JournalEntry, JournalLine},
    limits::JOURNAL_LINE_BYTES_MAX,
    reply::Proof,
};

use crate::{
    content::{self, ContentError},
    durable,
    policy::parts::{BegunUpload, PART_BYTES_MAX, SentPart},
};

/// Largest journal that is read: room for a line on each of a million chunks.
const JOURNAL_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How the upload of one chunk is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The digest that was proven.
    pub digest: Digest,
    /// How.
    pub proof: Proof,
    /// When.
    pub at_ns: UnixNs,
    /// The object's ETag.
    pub etag: String,
    /// The object's key, where the line tells it.
    pub key: Option<String>,
}

/// The remote manifest that was written last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its key.
    pub key: String,
    /// The digest of its text.
    pub digest: Digest,
    /// The digest of the text that this library wanted; another one where more chunks stood there already.
    pub wanted: Digest,
    /// Its ETag.
    pub etag: String,
}

/// What a journal says of one store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fold {
    /// The chunks that are proven there.
    pub marks: BTreeMap<ChunkName, Mark>,
    /// The uploads in parts that were begun and have not ended.
    pub begun: BTreeMap<ChunkName, BegunUpload>,
    /// The chunks whose files were removed to make room, unless they are there again.
    pub evicted: BTreeSet<ChunkName>,
    /// The remote manifest that was written last.
    pub published: Option<Published>,
    /// When chunks were fetched that a person wanted here. It holds whatever the store is.
    pub restored: BTreeMap<ChunkName, UnixNs>,
    /// Whether it is corrupt, where a line says so, and when that was written. It is the recording's, not a store's.
    pub corrupt: Option<(bool, UnixNs)>,
    /// Whether a person removed it from the store, and when that was written; later wanted there again it is not. It is
    /// the recording's, not a store's.
    pub withdrawn: Option<(bool, UnixNs)>,
    /// When a person began to remove its files.
    pub removal_begun_at_ns: Option<UnixNs>,
    /// Lines that can't be read, the torn last one of a crash aside.
    pub bad_lines: usize,
}

impl Fold {
    /// Reads a journal's lines as far as they are about `store_id`, one at a time. A torn last line is passed over, and one
    /// that is too long to be ours counts as bad.
    ///
    /// # Errors
    /// As the text's reader.
    pub fn read(mut text: impl io::BufRead, store_id: &str) -> io::Result<Self> {
        let mut fold = Self::default();
        let (mut line, mut is_rest) = (Vec::new(), false);
        loop {
            line.clear();
            if text.by_ref().take(JOURNAL_LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)? == 0 {
                return Ok(fold);
            }
            let has_ended = line.pop_if(|last| *last == b'\n').is_some();
            if std::mem::replace(&mut is_rest, !has_ended) {
                fold.bad_lines += usize::from(has_ended);
            } else if has_ended && !line.is_empty() {
                match serde_json::from_slice::<JournalLine>(&line) {
                    Ok(line) => fold.add(line, store_id),
                    Err(_) => fold.bad_lines += 1,
                }
            }
        }
    }

    fn add(&mut self, line: JournalLine, store_id: &str) {
        let is_of_this_store = line.store_id == store_id;
        match line.entry {
            JournalEntry::Corrupt { .. } => self.corrupt = Some((true, line.at_ns)),
            JournalEntry::Healed => self.corrupt = Some((false, line.at_ns)),
            JournalEntry::Evicted { chunk, .. } => {
                self.evicted.insert(chunk);
            }
            JournalEntry::Withdrawn => {
                self.withdrawn = Some((true, line.at_ns));
                if is_of_this_store {
                    self.marks.clear();
                    self.published = None;
                }
            }
            JournalEntry::Offered => self.withdrawn = Some((false, line.at_ns)),
            JournalEntry::RemovalBegun => self.removal_begun_at_ns = Some(line.at_ns),
            JournalEntry::Unknown => {}
            JournalEntry::Restored { chunk } => {
                self.restored.insert(chunk, line.at_ns);
                self.evicted.remove(&chunk);
            }
            _ if !is_of_this_store => {}
            JournalEntry::Uploaded { chunk, sha256, proof, etag, key, .. } => {
                self.marks.insert(chunk, Mark { digest: sha256, proof, at_ns: line.at_ns, etag, key });
            }
            JournalEntry::Gone { chunk } => {
                self.marks.remove(&chunk);
            }
            JournalEntry::UploadBegun { chunk, key, upload_id, part_bytes } => {
                self.begun.insert(chunk, BegunUpload { upload_id, key, part_bytes, sent: BTreeMap::new() });
            }
            JournalEntry::PartSent { chunk, upload_id, number, size_bytes, sha256: digest, etag, etag_is_md5 } => {
                let begun = self.begun.get_mut(&chunk).filter(|begun| begun.upload_id == upload_id);
                // A part that S3 takes from nobody was sent by nobody.
                if let Some(begun) = begun.filter(|_| size_bytes <= PART_BYTES_MAX) {
                    begun.sent.insert(number, SentPart { size_bytes, digest, etag, etag_is_md5 });
                }
            }
            JournalEntry::UploadEnded { chunk, upload_id } => {
                if self.begun.get(&chunk).is_some_and(|begun| begun.upload_id == upload_id) {
                    self.begun.remove(&chunk);
                }
            }
            JournalEntry::Published { key, sha256, wanted, etag, .. } => {
                self.published = Some(Published { key, digest: sha256, wanted, etag });
            }
        }
    }
}

/// Reads a journal; an absent one says nothing.
///
/// # Errors
/// `Unreadable`: nothing is known to be uploaded then.
pub fn load(path: &Path, store_id: &str) -> Result<Fold, ContentError> {
    let file = match content::open(path) {
        Ok(file) => file,
        Err(ContentError::Gone(_)) => return Ok(Fold::default()),
        Err(error) => return Err(error),
    };
    let unreadable = |source| ContentError::Unreadable { path: path.to_owned(), source };
    if file.metadata().map_err(unreadable)?.len() > JOURNAL_BYTES_MAX {
        return Err(unreadable(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {JOURNAL_BYTES_MAX} bytes"),
        )));
    }
    Fold::read(BufReader::new(file.take(JOURNAL_BYTES_MAX)), store_id).map_err(unreadable)
}

/// A fact as it stands in a journal, with its line's end.
#[derive(Debug, Clone)]
pub struct Line(Vec<u8>);

impl Line {
    /// Writes a fact out.
    ///
    /// # Errors
    /// It is longer than a line that is read back: no try writes it.
    pub fn of(line: &JournalLine) -> io::Result<Self> {
        let mut text = serde_json::to_vec(line)?;
        if text.len() > JOURNAL_LINE_BYTES_MAX {
            let message = format!("a journal line of {} bytes, over {JOURNAL_LINE_BYTES_MAX}", text.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        text.push(b'\n');
        Ok(Self(text))
    }
}

/// Appends facts, durably: after one sync they are all there.
///
/// # Errors
/// The disk is full or not writable: the facts are found again at the store after a restart. The first of them may be there.
pub fn append(path: &Path, lines: &[Line]) -> io::Result<()> {
    let texts: Vec<_> = lines.iter().map(|Line(text)| text.as_slice()).collect();
    durable::append_lines(path, &texts.concat())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the files that crashes leave")]
mod tests {
    use super::*;

    fn of_text(text: &[u8], store_id: &str) -> Fold {
        Fold::read(text, store_id).unwrap()
    }

    fn uploaded(index: u32, store_id: &str, at_ns: UnixNs) -> JournalLine {
        let sha256 = Digest::of(&index.to_be_bytes());
        let chunk = ChunkName::new(index, &sha256);
        let entry = JournalEntry::Uploaded {
            chunk,
            sha256,
            size_bytes: 4,
            proof: Proof::Enforced,
            etag: at_ns.to_string(),
            key: None,
        };
        JournalLine { at_ns, store_id: store_id.into(), entry }
    }

    fn chunk(index: u32) -> ChunkName {
        ChunkName::new(index, &Digest::of(&index.to_be_bytes()))
    }

    #[test]
    fn another_bucket_means_not_uploaded_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uploads.jsonl");
        assert_eq!(load(&path, "a").unwrap(), Fold::default());
        for line in [uploaded(0, "a", 1), uploaded(1, "b", 2), uploaded(0, "a", 3)] {
            append(&path, &[Line::of(&line).unwrap()]).unwrap();
        }
        let fold = load(&path, "a").unwrap();
        assert_eq!(fold.marks.keys().copied().collect::<Vec<_>>(), [chunk(0)]);
        assert_eq!(fold.marks[&chunk(0)].at_ns, 3, "the later line holds");
        assert_eq!(load(&path, "b").unwrap().marks.len(), 1);
        assert_eq!(load(&path, "c").unwrap().marks.len(), 0);
    }

    #[test]
    fn a_chunk_that_was_found_gone_is_not_uploaded_any_more() {
        let gone = JournalLine { entry: JournalEntry::Gone { chunk: chunk(0) }, ..uploaded(0, "a", 2) };
        let text = [uploaded(0, "a", 1), gone].map(|line| serde_json::to_string(&line).unwrap() + "\n").concat();
        assert!(of_text(text.as_bytes(), "a").marks.is_empty());
    }

    #[test]
    fn an_upload_in_parts_is_gone_on_with_until_it_ends() {
        let line = |entry| JournalLine { entry, ..uploaded(0, "a", 1) };
        let begun = |id: &str| {
            line(JournalEntry::UploadBegun { chunk: chunk(0), key: "k".into(), upload_id: id.into(), part_bytes: 9 })
        };
        let part = |id: &str, number| {
            line(JournalEntry::PartSent {
                chunk: chunk(0),
                upload_id: id.into(),
                number,
                size_bytes: 9,
                sha256: Digest::of(b"p"),
                etag: "e".into(),
                etag_is_md5: number == 1,
            })
        };
        let ended = |id: &str| line(JournalEntry::UploadEnded { chunk: chunk(0), upload_id: id.into() });
        let lines = [part("u", 1), begun("u"), part("u", 1), part("old", 2), part("u", 3), ended("old"), ended("u")];
        let fold = |count: usize, store_id| {
            let text: String = lines[..count].iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
            of_text(text.as_bytes(), store_id)
        };
        let sent =
            |count| fold(count, "a").begun.get(&chunk(0)).map(|begun| begun.sent.keys().copied().collect::<Vec<_>>());
        assert_eq!((sent(1), sent(2), sent(3)), (None, Some(vec![]), Some(vec![1])));
        assert_eq!((sent(6), sent(7)), (Some(vec![1, 3]), None));
        assert!(fold(6, "a").begun[&chunk(0)].sent[&1].etag_is_md5);
        assert!(fold(6, "b").begun.is_empty(), "another store knows nothing of it");
    }

    #[test]
    fn a_chunk_that_was_fetched_is_so_whatever_the_store_is() {
        let line = |at_ns| JournalLine { entry: JournalEntry::Restored { chunk: chunk(0) }, ..uploaded(0, "a", at_ns) };
        let text = [line(1), line(3)].map(|line| serde_json::to_string(&line).unwrap() + "\n").concat();
        assert_eq!(of_text(text.as_bytes(), "b").restored, BTreeMap::from([(chunk(0), 3)]));
    }

    #[test]
    fn what_is_corrupt_is_so_in_every_store_until_it_is_healed() {
        let line = |store_id, entry| JournalLine { entry, ..uploaded(0, store_id, 7) };
        let text = |lines: &[JournalLine]| {
            lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect::<String>()
        };
        let corrupt = line("a", JournalEntry::Corrupt { reason: "lost".into() });
        let healed = line("b", JournalEntry::Healed);
        let lines = [corrupt, healed];
        for store_id in ["a", "b", "c"] {
            assert_eq!(of_text(text(&lines[..0]).as_bytes(), store_id).corrupt, None);
            assert_eq!(of_text(text(&lines[..1]).as_bytes(), store_id).corrupt, Some((true, 7)));
            assert_eq!(of_text(text(&lines).as_bytes(), store_id).corrupt, Some((false, 7)));
        }
    }

    #[test]
    fn what_a_person_removed_from_the_store_is_proven_there_no_more_and_waits_until_it_is_wanted_again() {
        let line = |store_id, at_ns, entry| JournalLine { entry, ..uploaded(0, store_id, at_ns) };
        let lines = [
            uploaded(0, "a", 1),
            uploaded(1, "b", 2),
            line("a", 3, JournalEntry::Withdrawn),
            line("a", 4, JournalEntry::Offered),
            uploaded(0, "a", 5),
        ];
        let fold = |count: usize, store_id| {
            let text: String = lines[..count].iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
            let fold = of_text(text.as_bytes(), store_id);
            (fold.marks.len(), fold.withdrawn)
        };
        assert_eq!((fold(2, "a"), fold(3, "a")), ((1, None), (0, Some((true, 3)))));
        assert_eq!(fold(3, "b"), (1, Some((true, 3))), "another store was not touched, and gets nothing by itself");
        assert_eq!((fold(4, "a"), fold(5, "a")), ((0, Some((false, 4))), (1, Some((false, 4)))));
    }

    #[test]
    fn a_torn_line_costs_that_line_and_garbage_is_counted() {
        let line = serde_json::to_string(&uploaded(0, "a", 1)).unwrap();
        let text = format!("{line}\nnot json\n{{\"at_ns\":1}}\n\n{}", &line[..20]);
        let fold = of_text(text.as_bytes(), "a");
        assert_eq!((fold.marks.len(), fold.bad_lines), (1, 2));
        let long = "x".repeat(JOURNAL_LINE_BYTES_MAX + 1);
        for (text, bad_lines) in [
            (format!("{long}\n{line}\n"), 1),
            (format!("{long}{long}{long}\n{line}\n"), 1),
            (format!("{}\n{line}\n{long}", &long[1..]), 1),
        ] {
            let fold = of_text(text.as_bytes(), "a");
            assert_eq!((fold.marks.len(), fold.bad_lines), (1, bad_lines), "{} bytes", text.len());
        }
        for end in 0..line.len() {
            assert!(of_text(&line.as_bytes()[..end], "a").marks.is_empty());
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uploads.jsonl");
        std::fs::write(&path, &text).unwrap();
        append(&path, &[Line::of(&uploaded(1, "a", 2)).unwrap()]).unwrap();
        assert_eq!(load(&path, "a").unwrap().marks.len(), 2, "a line after a torn one is whole");
    }
}
