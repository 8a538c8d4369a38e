//! Takes files in: each becomes a chunk, by a second name where that is possible.

use std::{collections::HashSet, io, path::Path};

use bubbaloop_storage_schemas::{
    ChunkName, Digest,
    adopt::{AdoptActionKind, AdoptFindingKind, AdoptedFile, AdoptedFrom},
    limits::MANIFEST_BYTES_MAX,
    manifest::{Indices, Manifest},
};

use super::run::{AdoptError, Run};
use crate::{
    content::{self, ContentError, VerifiedBlocks},
    durable::{self, Replace, Staged},
    library::{
        disk, fold,
        mcap_file::{self, McapFault, Recovered},
        scan::Folder,
        source::{SourceFile, Stamp},
    },
    policy::{
        adopt::{self, NewChunk, SourceMatch},
        fetch,
    },
};

/// What a file that is being written in a folder of chunks is named after; what a crash leaves is swept.
const TEMPORARY: &str = ".adopt-";

/// A file whose content is known.
struct Ready {
    file: SourceFile,
    /// Its own digest.
    digest: Digest,
    /// The chunk that it becomes.
    chunk: NewChunk,
    /// What was whole in it, written anew.
    recovered: Option<Staged>,
}

impl Run<'_> {
    /// Makes a recording of files, or finds the one that was made of them.
    pub(super) fn import(&mut self, files: Vec<SourceFile>) -> Result<(), AdoptError> {
        let folder = self.folder();
        let was_there = folder.root().exists();
        let imported = self.import_into(&folder, files);
        // What was made for it and has nothing in it would look like a recording; what was there is a recorder's.
        if imported.is_err() && !was_there {
            durable::remove_folder(&folder.chunks()).and_then(|()| durable::remove_folder(folder.root())).ok();
        }
        imported
    }

    fn import_into(&mut self, folder: &Folder, files: Vec<SourceFile>) -> Result<(), AdoptError> {
        let known = self.known(folder)?;
        if let Some(manifest) = known.as_ref().filter(|manifest| self.is_made_of(manifest, folder, &files)) {
            self.result.adopted(&self.name, manifest.chunks.len() as u64);
            self.begin(files.iter().map(|_| 0));
            return Ok(());
        }
        let files = self.without_open(files)?;
        let chunks = folder.chunks();
        durable::create_folder(&chunks).map_err(AdoptError::disk(&chunks))?;
        sweep(&chunks).map_err(AdoptError::disk(&chunks))?;
        self.begin(files.iter().map(|file| file.stamp.size_bytes));
        let ready = self.look_at_all(&chunks, files)?;
        self.is_free(folder, known.as_ref(), &ready)?;
        self.has_room(folder, &ready)?;
        let mut fallback_ns = 0;
        let (mut new_chunks, mut adopted) = (Vec::new(), Vec::new());
        for (index, ready) in (0_u32..).zip(ready) {
            if self.watch.is_cancelled() {
                return Err(AdoptError::Cancelled);
            }
            fallback_ns = ready.file.stamp.mtime_ns.max(fallback_ns);
            adopted.push(AdoptedFile {
                file: ready.file.label.clone(),
                size_bytes: ready.file.stamp.size_bytes,
                mtime_ns: ready.file.stamp.mtime_ns,
                sha256: ready.digest,
                outside: ready.file.is_outside,
                recovered: ready.recovered.is_some(),
            });
            new_chunks.push(self.place(folder, index, ready)?);
        }
        let from =
            AdoptedFrom { source: self.source.clone(), machine_id: None, adopted_at_ns: self.now_ns(), files: adopted };
        let mut manifest = adopt::manifest(&self.name, &self.library.machine_id, &new_chunks, &from, fallback_ns);
        keep_marks(&mut manifest, known.as_ref());
        self.write_manifest(folder, &manifest)
    }

    pub(super) fn write_manifest(&mut self, folder: &Folder, manifest: &Manifest) -> Result<(), AdoptError> {
        let path = folder.manifest();
        fold::write(&path, manifest).map_err(AdoptError::disk(&path))?;
        let chunks = manifest.chunks.len();
        self.act(AdoptActionKind::WriteManifest, None, format!("the manifest names {chunks} chunks"));
        self.result.adopted(&self.name, chunks as u64);
        Ok(())
    }

    /// Returns the manifest that stands under the wanted name; only one that was adopted may be gone on with.
    fn known(&self, folder: &Folder) -> Result<Option<Manifest>, AdoptError> {
        let text = match content::read(&folder.manifest(), MANIFEST_BYTES_MAX) {
            Ok(text) => text,
            Err(ContentError::Gone(_)) => return Ok(None),
            Err(_) => return Err(self.taken("its manifest can't be read")),
        };
        match Manifest::parse(&text, Indices::Contiguous) {
            Ok((manifest, checked)) if checked.machine_id.is_same_machine(&self.library.machine_id) => {
                if AdoptedFrom::of(&manifest).is_some_and(|from| !from.files.is_empty()) {
                    Ok(Some(manifest))
                } else {
                    Err(self.taken("it was not adopted"))
                }
            }
            Ok(_) => Err(self.taken("another machine recorded it")),
            Err(_) => Err(self.taken("its manifest is refused")),
        }
    }

    fn taken(&self, why: &str) -> AdoptError {
        let message = format!("there is another recording {}: {why}", self.name);
        AdoptError::Conflict { message, hint: "give the new recording another name=" }
    }

    /// Tells whether a recording was made of just these files as they are, and has all of its chunks.
    fn is_made_of(&self, manifest: &Manifest, folder: &Folder, files: &[SourceFile]) -> bool {
        let Some(from) = AdoptedFrom::of(manifest) else { return false };
        let entries = std::fs::read_dir(folder.chunks()).into_iter().flatten().flatten();
        let inodes: HashSet<_> =
            entries.filter_map(|entry| Stamp::of(&entry.path()).ok()).map(|stamp| stamp.inode).collect();
        let is_same = |(known, file): (&AdoptedFile, &SourceFile)| {
            known.file == file.label
                && known.outside == file.is_outside
                && known.size_bytes == file.stamp.size_bytes
                && known.mtime_ns == file.stamp.mtime_ns
                // Names, sizes and whole seconds are equal by chance, too: the bytes are not.
                && (inodes.contains(&file.stamp.inode)
                    || content::hash(&file.path).is_ok_and(|(digest, _)| digest == known.sha256))
        };
        let is_here = |name: &str| name.parse().is_ok_and(|name| Stamp::of(&folder.chunk(name)).is_ok());
        from.files.len() == files.len()
            && from.files.iter().zip(files).all(is_same)
            && manifest.chunks.iter().all(|chunk| is_here(&chunk.name))
    }

    /// Leaves out files that a crash left open, unless they are to be recovered.
    fn without_open(&mut self, files: Vec<SourceFile>) -> Result<Vec<SourceFile>, AdoptError> {
        if self.options.recover {
            return Ok(files);
        }
        let (open, whole): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.is_open);
        if whole.is_empty() {
            let file = open.first().map(|file| file.label.clone()).unwrap_or_default();
            return Err(AdoptError::unfit(&file, McapFault::Unfinished, false));
        }
        for file in open {
            let message = "a recorder did not finish it: recover=true takes what is whole in it".to_owned();
            self.find(AdoptFindingKind::LeftOut, Some(&file.label), message);
        }
        Ok(whole)
    }

    /// Finds out what the files hold. What is to be recovered and holds nothing whole is left out, as long as another one
    /// holds something: a cut of the power leaves such a file behind good ones.
    fn look_at_all(&mut self, chunks: &Path, files: Vec<SourceFile>) -> Result<Vec<Ready>, AdoptError> {
        let (mut ready, mut unfit) = (Vec::with_capacity(files.len()), None);
        for file in files {
            let (label, index) = (file.label.clone(), u32::try_from(ready.len()).unwrap_or(u32::MAX));
            match self.look_at(chunks, index, file) {
                Ok(found) => ready.push(found),
                Err(error @ AdoptError::Unfit { .. }) if self.options.recover => {
                    let message = format!("nothing in it is whole, so that it is left where it is: {error}");
                    self.find(AdoptFindingKind::LeftOut, Some(&label), message);
                    unfit.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match unfit.filter(|_| ready.is_empty()) {
            Some(error) => Err(error),
            None => Ok(ready),
        }
    }

    /// Finds out what a file holds, and its digest.
    fn look_at(&mut self, chunks: &Path, index: u32, file: SourceFile) -> Result<Ready, AdoptError> {
        let is_recovering = self.options.recover;
        let unfit = |fault| AdoptError::unfit(&file.label, fault, is_recovering);
        let watch = self.watch;
        let go_on = || !watch.is_cancelled();
        let (facts, recovered) = match mcap_file::facts(&file.path, &go_on) {
            Ok(facts) => (facts, None),
            Err(fault) if is_recovering && fault.is_recoverable() => {
                let path = chunks.join(format!("{TEMPORARY}{index:06}.tmp"));
                let mut staged = Staged::create(path.clone()).map_err(AdoptError::disk(&path))?;
                let recovered = mcap_file::recover(&file.path, &mut staged, &go_on).map_err(unfit)?;
                (recovered.facts.clone(), Some((staged, recovered)))
            }
            Err(fault) => return Err(unfit(fault)),
        };
        let digest = self.hash(&file.path, &file.label, file.stamp)?;
        let Some((staged, recovered)) = recovered else {
            let chunk = NewChunk { digest, size_bytes: file.stamp.size_bytes, facts: Some(facts) };
            return Ok(Ready { file, digest, chunk, recovered: None });
        };
        self.tell_lost(&file, &recovered);
        let written = content::hash(staged.path());
        let (of_chunk, size_bytes) = written.map_err(|fault| AdoptError::file(&file.label, fault))?;
        let chunk = NewChunk { digest: of_chunk, size_bytes, facts: Some(facts) };
        Ok(Ready { file, digest, chunk, recovered: Some(staged) })
    }

    /// Says what of a file could not be recovered.
    fn tell_lost(&mut self, file: &SourceFile, recovered: &Recovered) {
        self.result.counts.recovered_messages += recovered.facts.messages;
        self.result.counts.lost_bytes += recovered.lost_bytes;
        if recovered.broken_at.is_some() {
            self.result.counts.lost_bytes += recovered.tail_bytes;
            let (bytes, messages) = (recovered.tail_bytes, recovered.tail_messages);
            let message = match bytes {
                0 => "its end is missing; every message that was written is recovered".to_owned(),
                _ => format!(
                    "its last {bytes} bytes are not whole: {messages} messages of them are recovered, the rest is lost"
                ),
            };
            self.find(AdoptFindingKind::Lost, Some(&file.label), message);
        }
        if recovered.lost_groups > 0 {
            let (groups, bytes) = (recovered.lost_groups, recovered.lost_bytes);
            let message = format!("{groups} groups of messages ({bytes} bytes) are damaged and lost");
            self.find(AdoptFindingKind::Lost, Some(&file.label), message);
        }
    }

    /// Refuses to copy what the disk has not the room for: a recorder goes on writing.
    fn has_room(&self, folder: &Folder, ready: &[Ready]) -> Result<(), AdoptError> {
        let chunks = folder.chunks();
        let (Ok(space), Ok(device)) = (disk::space(&chunks), disk::device(&chunks)) else { return Ok(()) };
        let is_copied = |(index, ready): &(u32, &Ready)| {
            let is_linked = !self.options.copy && ready.file.stamp.inode.0 == device;
            let target = folder.chunk(ChunkName::new(*index, &ready.chunk.digest));
            ready.recovered.is_none() && !is_linked && Stamp::of(&target).is_err()
        };
        let needed_bytes = (0_u32..).zip(ready).filter(is_copied).map(|(_, ready)| ready.chunk.size_bytes).sum();
        fetch::room(needed_bytes, space.free_bytes, space.disk_bytes).map_err(AdoptError::NoRoom)
    }

    /// Refuses a name under which something else stands.
    fn is_free(&self, folder: &Folder, known: Option<&Manifest>, ready: &[Ready]) -> Result<(), AdoptError> {
        let wanted: Vec<_> = ready.iter().map(|ready| ready.digest).collect();
        if let Some(from) = known.and_then(AdoptedFrom::of) {
            return match adopt::standing(&from, &wanted) {
                SourceMatch::Same | SourceMatch::Begun => Ok(()),
                SourceMatch::Other => Err(self.taken("it was adopted from other files")),
            };
        }
        let chunks = folder.chunks();
        let is_own =
            |name: ChunkName| ready.get(name.index() as usize).is_some_and(|ready| name.fits(&ready.chunk.digest));
        for entry in std::fs::read_dir(&chunks).map_err(AdoptError::disk(&chunks))? {
            let entry = entry.map_err(AdoptError::disk(&chunks))?;
            let name = entry.file_name();
            let is_other = name.to_str().is_some_and(|name| match name.parse::<ChunkName>() {
                Ok(name) => !is_own(name),
                Err(_) => name.ends_with(".mcap"),
            });
            if is_other {
                return Err(self.taken("its chunks are others"));
            }
        }
        Ok(())
    }

    /// Gives a file its name as a chunk.
    fn place(&mut self, folder: &Folder, index: u32, ready: Ready) -> Result<NewChunk, AdoptError> {
        let Ready { file, chunk, recovered, .. } = ready;
        let name = ChunkName::new(index, &chunk.digest);
        let target = folder.chunk(name);
        if let Ok(there) = Stamp::of(&target) {
            let is_it =
                there.inode == file.stamp.inode || content::hash(&target).is_ok_and(|(found, _)| found == chunk.digest);
            return if is_it { Ok(chunk) } else { Err(self.taken("one of its chunks is damaged")) };
        }
        let (kind, message) = if let Some(staged) = recovered {
            staged.commit(&target, Replace::Refused).map_err(AdoptError::disk(&target))?;
            let messages = chunk.facts.as_ref().map_or(0, |facts| facts.messages);
            (AdoptActionKind::Recover, format!("{name} holds the {messages} messages that are whole in it"))
        } else if !self.options.copy && self.link(&file, &target)? {
            (AdoptActionKind::Link, format!("{name} is a second name of it"))
        } else {
            copy(&file, &target, chunk.digest)?;
            (AdoptActionKind::Copy, format!("{name} is a copy of it"))
        };
        self.act(kind, Some(&file.label), message);
        Ok(chunk)
    }

    /// Gives a file a second name; `false` where its file system does not allow that.
    fn link(&self, file: &SourceFile, target: &Path) -> Result<bool, AdoptError> {
        if let Err(error) = durable::link(&file.path, target) {
            tracing::debug!(file = file.label, %error, "no second name is possible: it is copied");
            return Ok(false);
        }
        // The file that has the name now must be the one that was hashed.
        if Stamp::of(target).is_ok_and(|now| now == file.stamp) {
            return Ok(true);
        }
        durable::remove(target).map_err(AdoptError::disk(target))?;
        Err(AdoptError::Changed(file.label.clone()))
    }
}

/// Copies a file that must have a digest.
fn copy(file: &SourceFile, target: &Path, wanted: Digest) -> Result<(), AdoptError> {
    let fault = |fault: ContentError| match fault {
        ContentError::Damaged { .. } => AdoptError::Changed(file.label.clone()),
        fault => AdoptError::file(&file.label, fault),
    };
    let disk = AdoptError::disk(target);
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut staged = Staged::create(target.with_file_name(format!("{TEMPORARY}{name}.tmp"))).map_err(&disk)?;
    let mut blocks = VerifiedBlocks::open(&file.path, Some(wanted)).map_err(fault)?;
    while let Some(block) = blocks.next_block().map_err(fault)? {
        staged.write(&block).map_err(&disk)?;
    }
    staged.sync().map_err(&disk)?;
    staged.commit(target, Replace::Refused).map_err(&disk)
}

/// Removes what an adoption that was killed left in a folder of chunks.
fn sweep(chunks: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(chunks)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
            durable::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Keeps what was known of a recording that is gone on with: marks of uploads, and what others wrote into it.
fn keep_marks(manifest: &mut Manifest, known: Option<&Manifest>) {
    let Some(known) = known else { return };
    for (chunk, before) in manifest.chunks.iter_mut().zip(&known.chunks) {
        if chunk.name == before.name {
            (chunk.uploaded_at_ns, chunk.remote_etag) = (before.uploaded_at_ns, before.remote_etag.clone());
        }
    }
    manifest.tags.clone_from(&known.tags);
    for (field, value) in &known.other {
        if field != bubbaloop_storage_schemas::adopt::ADOPTED_FROM {
            manifest.other.entry(field.clone()).or_insert_with(|| value.clone());
        }
    }
}
