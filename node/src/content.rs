//! Reading files of the library: regular ones only, block by block, hashed on the way.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, IoSliceMut, Read},
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use bubbaloop_storage_schemas::{
    Digest,
    limits::{BLOCK_BYTES, BLOCKS_SPARE_MAX},
};
use bytes::Bytes;
use md5::Md5;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    io::{ReadWriteFlags, preadv2},
};
use sha2::{Digest as _, Sha256};

use crate::policy::parts::composite;

/// Why a file's bytes can't be had or are not the right ones.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// There is no such file.
    #[error("{} is not there", .0.display())]
    Gone(PathBuf),
    /// It can't be read.
    #[error("{} can't be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It has other bytes than it should.
    #[error("{} is damaged: its {size_bytes} bytes have digest {found}, not {wanted}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How many bytes were read.
        size_bytes: u64,
        /// What they hash to.
        found: Digest,
        /// What they should hash to.
        wanted: Digest,
    },
    /// It has other bytes than the digits in its name say, which is all that is known of it.
    #[error("{} is damaged: its {size_bytes} bytes have digest {found}, which its name does not fit", path.display())]
    Misnamed {
        /// The file.
        path: PathBuf,
        /// How many bytes were read.
        size_bytes: u64,
        /// What they hash to.
        found: Digest,
    },
}

impl ContentError {
    fn of(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Gone(path.to_owned()),
            _ => Self::Unreadable { path: path.to_owned(), source },
        }
    }
}

/// Opens a regular file for reading; never follows a last symbolic link and never hangs on a pipe.
///
/// # Errors
/// `Gone` or `Unreadable`; what is no regular file is `Unreadable`.
pub fn open(path: &Path) -> Result<File, ContentError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let open = || {
        let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::Unsupported, "not a regular file"))
        }
    };
    open().map_err(|error| ContentError::of(path, error))
}

/// Reads a whole small file.
///
/// # Errors
/// As [`open`]; a file of more than `bytes_max` is `Unreadable`.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, ContentError> {
    let mut bytes = Vec::new();
    open(path)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .and_then(|_| match bytes.len() as u64 > bytes_max {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {bytes_max} bytes"))),
            false => Ok(()),
        })
        .map_err(|error| ContentError::of(path, error))?;
    Ok(bytes)
}

/// Memory of blocks that nobody uses at the moment.
static SPARE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// One block, in memory that is used again. The system clears what it gives out: with new memory for each block that
/// would cost half as much as the hashing.
#[derive(Debug)]
struct Block {
    memory: Box<[u8]>,
    length: usize,
}

impl Block {
    fn take() -> Self {
        let spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { memory: spare.unwrap_or_else(|| vec![0; BLOCK_BYTES].into()), length: 0 }
    }

    /// Reads as much as there is from `at` on, at most a whole block and `most`.
    fn read(file: &File, at: u64, most: u64) -> io::Result<Self> {
        let (mut block, wanted) = (Self::take(), Self::fit(most));
        while block.length < wanted {
            match file.read_at(&mut block.memory[block.length..wanted], at + block.length as u64) {
                Ok(0) => break,
                Ok(read) => block.length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(block)
    }

    /// Does as [`Block::read`] does where all of it is in the system's memory; `None` where not, or where the file does not
    /// end at `end`. It never waits for a disk.
    fn read_cached(file: &File, at: u64, most: u64, end: u64) -> Option<Self> {
        let (mut block, wanted) = (Self::take(), Self::fit(most));
        let mut memory = [IoSliceMut::new(&mut block.memory[..wanted])];
        block.length = preadv2(file, &mut memory, at, ReadWriteFlags::NOWAIT).ok()?;
        (block.length == wanted || at + block.length as u64 == end).then_some(block)
    }

    fn fit(most: u64) -> usize {
        usize::try_from(most).map_or(BLOCK_BYTES, |most| most.min(BLOCK_BYTES))
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < BLOCKS_SPARE_MAX {
            spare.push(std::mem::take(&mut self.memory));
        }
    }
}

/// The blocks of a file, the last one withheld until all bytes have the wanted digest.
///
/// A reader that sends each block as it comes has not sent the whole file when it turns out to be
/// damaged, changed or cut short meanwhile. The file is read one time.
#[derive(Debug)]
pub struct VerifiedBlocks {
    path: PathBuf,
    file: File,
    /// What is still to be read of the file, as far as it is looked at.
    left: Range<u64>,
    /// `None` where somebody else finds out whether the bytes are right.
    hasher: Option<Sha256>,
    wanted: Option<Digest>,
    opened_bytes: u64,
    size_bytes: u64,
    withheld: Option<Bytes>,
    has_ended: bool,
    found: Option<Digest>,
}

impl VerifiedBlocks {
    /// Opens the file; without a wanted digest it is only found out.
    ///
    /// # Errors
    /// `Gone` or `Unreadable`.
    pub fn open(path: &Path, wanted: Option<Digest>) -> Result<Self, ContentError> {
        let file = open(path)?;
        let opened_bytes = file.metadata().map_err(|error| ContentError::of(path, error))?.len();
        Ok(Self::of_file(path, file, wanted, opened_bytes))
    }

    /// Opens a file; `None` where that would wait for a disk, or where something is wrong with the file:
    /// [`VerifiedBlocks::open`] tells. It never blocks.
    pub fn open_cached(path: &Path, wanted: Digest) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED).ok()?);
        let metadata = file.metadata().ok().filter(Metadata::is_file)?;
        Some(Self::of_file(path, file, Some(wanted), metadata.len()))
    }

    fn of_file(path: &Path, file: File, wanted: Option<Digest>, opened_bytes: u64) -> Self {
        Self {
            path: path.to_owned(),
            file,
            left: 0..u64::MAX,
            hasher: Some(Sha256::new()),
            wanted,
            opened_bytes,
            size_bytes: 0,
            withheld: None,
            has_ended: false,
            found: None,
        }
    }

    /// Opens some bytes of the file, as if they were all of it. Without a wanted digest they are not hashed: whoever gets
    /// them finds out whether they are right.
    ///
    /// # Errors
    /// `Gone` or `Unreadable`.
    pub fn open_range(path: &Path, range: &Range<u64>, wanted: Option<Digest>) -> Result<Self, ContentError> {
        let mut whole = Self::open(path, wanted)?;
        whole.hasher = whole.hasher.filter(|_| wanted.is_some());
        whole.left = range.clone();
        whole.opened_bytes = range.end.saturating_sub(range.start);
        Ok(whole)
    }

    /// Returns the size that the file had when it was opened; it may change while it is read.
    pub const fn size_at_open(&self) -> u64 {
        self.opened_bytes
    }

    /// Says that the file has another size than when it was opened.
    pub fn changed(&self) -> ContentError {
        let source = io::Error::other("its size changed while it was read");
        ContentError::Unreadable { path: self.path.clone(), source }
    }

    /// Tells whether all was read and, where that is found out here, is right: no block comes behind those taken.
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns the digest and the size, once all blocks were taken.
    pub fn finished(&self) -> Option<(Digest, u64)> {
        self.found.map(|digest| (digest, self.size_bytes))
    }

    /// Returns the next block; `None` at the end.
    ///
    /// # Errors
    /// `Unreadable`, or `Damaged` in place of the last block.
    pub fn next_block(&mut self) -> Result<Option<Bytes>, ContentError> {
        while !self.has_ended {
            let most = self.left.end.saturating_sub(self.left.start);
            let read = Block::read(&self.file, self.left.start, most);
            let block = read.map_err(|error| ContentError::of(&self.path, error))?;
            if let Some(earlier) = self.take_in(block)? {
                return Ok(Some(earlier));
            }
        }
        Ok(self.withheld.take())
    }

    /// Does as [`VerifiedBlocks::next_block`] does, and never waits for a disk: `None` where it would. Two blocks at most are
    /// read and hashed at a time.
    ///
    /// # Errors
    /// `Damaged` in place of the last block.
    pub fn next_cached_block(&mut self) -> Option<Result<Option<Bytes>, ContentError>> {
        while !self.has_ended {
            let most = self.left.end.saturating_sub(self.left.start);
            let end = self.left.start + self.opened_bytes.saturating_sub(self.size_bytes);
            let block = Block::read_cached(&self.file, self.left.start, most, end)?;
            match self.take_in(block) {
                Ok(None) => {}
                taken => return Some(taken),
            }
        }
        Some(Ok(self.withheld.take()))
    }

    /// Takes in what comes next, nothing at the end, and returns what need not be withheld any more.
    fn take_in(&mut self, block: Block) -> Result<Option<Bytes>, ContentError> {
        if block.length > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&block);
            }
            self.size_bytes += block.length as u64;
            self.left.start += block.length as u64;
            return Ok(self.withheld.replace(Bytes::from_owner(block)));
        }
        self.has_ended = true;
        let Some(hasher) = self.hasher.take() else { return Ok(None) };
        let found = Digest::from_bytes(hasher.finalize().into());
        self.found = Some(found);
        let Some(wanted) = self.wanted.filter(|wanted| *wanted != found) else { return Ok(None) };
        self.withheld = None;
        Err(ContentError::Damaged { path: self.path.clone(), size_bytes: self.size_bytes, found, wanted })
    }
}

/// The digests of a file's parts, one after the other, and then that of all of it.
#[derive(Debug)]
pub struct PartDigests {
    path: PathBuf,
    file: File,
    whole: Sha256,
    size_bytes: u64,
}

impl PartDigests {
    /// Opens the file.
    ///
    /// # Errors
    /// `Gone` or `Unreadable`.
    pub fn open(path: &Path) -> Result<Self, ContentError> {
        Ok(Self { path: path.to_owned(), file: open(path)?, whole: Sha256::new(), size_bytes: 0 })
    }

    /// Reads on and returns the digest and the MD5 of the next `part_bytes`, or of what is left of them; nothing at the end.
    /// The MD5 is found out only where it is wanted.
    ///
    /// # Errors
    /// `Unreadable`.
    pub fn next_part(
        &mut self,
        part_bytes: u64,
        wants_md5: bool,
    ) -> Result<Option<(Digest, Option<Md5>)>, ContentError> {
        let (mut part, mut md5) = (Sha256::new(), wants_md5.then(Md5::new));
        let mut block = vec![0; BLOCK_BYTES];
        let mut left = part_bytes;
        while left > 0 {
            let wanted = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
            let read = match self.file.read(&mut block[..wanted]) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(ContentError::of(&self.path, error)),
            };
            part.update(&block[..read]);
            self.whole.update(&block[..read]);
            if let Some(md5) = &mut md5 {
                md5.update(&block[..read]);
            }
            left -= read as u64;
        }
        self.size_bytes += part_bytes - left;
        Ok((left < part_bytes).then(|| (Digest::from_bytes(part.finalize().into()), md5)))
    }

    /// Ends the reading: all that was read is the whole file and has this digest.
    ///
    /// # Errors
    /// `Damaged`: it has another one.
    pub fn finish(self, wanted: Digest) -> Result<(), ContentError> {
        let found = Digest::from_bytes(self.whole.finalize().into());
        if found == wanted {
            return Ok(());
        }
        Err(ContentError::Damaged { path: self.path, size_bytes: self.size_bytes, found, wanted })
    }
}

/// Hashes a file.
///
/// # Errors
/// `Gone` or `Unreadable`.
pub fn hash(path: &Path) -> Result<(Digest, u64), ContentError> {
    let mut blocks = VerifiedBlocks::open(path, None)?;
    while blocks.next_block()?.is_some() {}
    Ok(blocks.finished().unwrap_or((Digest::of(b""), 0)))
}

/// Returns the MD5 of a file that has the wanted digest, as 32 lower-case hexadecimal digits: what many stores give
/// as the ETag.
///
/// # Errors
/// `Gone`, `Unreadable` or `Damaged`.
pub fn md5(path: &Path, wanted: Digest) -> Result<String, ContentError> {
    let mut blocks = VerifiedBlocks::open(path, Some(wanted))?;
    let mut md5 = Md5::new();
    while let Some(block) = blocks.next_block()? {
        md5.update(&block);
    }
    Ok(md5_text(md5))
}

/// Shows a finished MD5 as 32 lower-case hexadecimal digits.
pub fn md5_text(md5: Md5) -> String {
    md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the ETag that a store gives an object of parts with these MD5s, when it makes ETags of MD5s.
pub fn md5_of_parts(md5s: &[[u8; 16]]) -> String {
    format!("{}-{}", md5_text(Md5::new_with_prefix(md5s.concat())), md5s.len())
}

/// Returns what a store that checks parts tells of a file that has the wanted digest and went up in parts: the digest
/// over the parts' digests, and the ETag by their MD5s.
///
/// # Errors
/// `Gone`, `Unreadable` or `Damaged`.
pub fn digests_of_parts(path: &Path, wanted: Digest, part_bytes: u64) -> Result<(Digest, String), ContentError> {
    let mut digests = PartDigests::open(path)?;
    let (mut sha256s, mut md5s) = (Vec::new(), Vec::new());
    while let Some((sha256, md5)) = digests.next_part(part_bytes, true)? {
        sha256s.push(sha256);
        md5s.extend(md5.map(|md5| <[u8; 16]>::from(md5.finalize())));
    }
    digests.finish(wanted)?;
    Ok((composite(sha256s), md5_of_parts(&md5s)))
}

/// Reads an MD5 as an ETag shows it; `None` where it is none.
pub fn md5_bytes(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make files")]
mod tests {
    use super::*;

    fn blocks(path: &Path, wanted: Digest) -> (Vec<u8>, Option<ContentError>) {
        let mut reader = VerifiedBlocks::open(path, Some(wanted)).unwrap();
        let mut sent = Vec::new();
        loop {
            match reader.next_block() {
                Ok(Some(block)) => sent.extend_from_slice(&block),
                Ok(None) => return (sent, None),
                Err(error) => return (sent, Some(error)),
            }
        }
    }

    #[test]
    fn the_last_block_of_a_damaged_file_is_never_given_away() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            let path = folder.path().join(size.to_string());
            let content: Vec<u8> = (0..=250).cycle().take(size).collect();
            std::fs::write(&path, &content).unwrap();
            let (sent, error) = blocks(&path, Digest::of(&content));
            assert!(error.is_none() && sent == content, "{size}");
            let (sent, error) = blocks(&path, Digest::of(b"other"));
            assert!(matches!(error, Some(ContentError::Damaged { .. })), "{size}");
            assert!(sent.len() < size.max(1), "{size}: {} bytes were sent", sent.len());
            assert_eq!(hash(&path).unwrap(), (Digest::of(&content), size as u64));
        }
    }

    #[test]
    fn blocks_that_are_held_keep_their_bytes_while_others_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..40).flat_map(|number| vec![number; BLOCK_BYTES]).collect();
        std::fs::write(&path, &content).unwrap();
        for keep in [1, 2, 40] {
            let mut reader = VerifiedBlocks::open(&path, Some(Digest::of(&content))).unwrap();
            let mut held = std::collections::VecDeque::new();
            for number in 0..40_u8 {
                held.push_back((number, reader.next_block().unwrap().unwrap()));
                if held.len() == keep {
                    let (number, block) = held.pop_front().unwrap();
                    assert!(block.len() == BLOCK_BYTES && block.iter().all(|byte| *byte == number), "{number}");
                }
            }
            assert!(held.iter().all(|(number, block)| block.iter().all(|byte| byte == number)));
        }
        assert!(SPARE.lock().unwrap().len() <= BLOCKS_SPARE_MAX);
    }

    #[test]
    fn the_md5_of_nothing_is_the_known_one_and_a_damaged_file_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert_eq!(md5(&path, Digest::of(b"")).unwrap(), "d41d8cd98f00b204e9800998ecf8427e");
        assert!(matches!(md5(&path, Digest::of(b"x")), Err(ContentError::Damaged { .. })));
    }

    #[test]
    fn parts_have_digests_of_their_own_and_the_whole_file_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..=250).cycle().take(3 * BLOCK_BYTES + 5).collect();
        std::fs::write(&path, &content).unwrap();
        let part_bytes = BLOCK_BYTES + 7;
        let mut digests = PartDigests::open(&path).unwrap();
        for part in content.chunks(part_bytes) {
            let (digest, md5) = digests.next_part(part_bytes as u64, true).unwrap().unwrap();
            assert_eq!(digest, Digest::of(part));
            assert_eq!(md5_text(md5.unwrap()), md5_text(Md5::new_with_prefix(part)));
        }
        assert!(digests.next_part(part_bytes as u64, false).unwrap().is_none());
        digests.finish(Digest::of(&content)).unwrap();
        let mut digests = PartDigests::open(&path).unwrap();
        while digests.next_part(part_bytes as u64, false).unwrap().is_some() {}
        assert!(matches!(digests.finish(Digest::of(b"")), Err(ContentError::Damaged { .. })));

        let range = 10..20 + BLOCK_BYTES as u64;
        let part = &content[10..20 + BLOCK_BYTES];
        let mut blocks = VerifiedBlocks::open_range(&path, &range, Some(Digest::of(part))).unwrap();
        let mut read = Vec::new();
        while let Some(block) = blocks.next_block().unwrap() {
            read.extend_from_slice(&block);
        }
        assert_eq!((read.as_slice(), blocks.size_at_open()), (part, part.len() as u64));
        let mut blocks = VerifiedBlocks::open_range(&path, &range, Some(Digest::of(b""))).unwrap();
        assert_eq!(blocks.next_block().unwrap().map(|block| block.len()), Some(BLOCK_BYTES));
        assert!(matches!(blocks.next_block(), Err(ContentError::Damaged { .. })));
    }

    #[test]
    fn a_range_that_somebody_else_checks_is_read_as_it_stands_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..=250).cycle().take(2 * BLOCK_BYTES).collect();
        std::fs::write(&path, &content).unwrap();
        let range = 5..BLOCK_BYTES as u64 + 9;
        let mut blocks = VerifiedBlocks::open_range(&path, &range, None).unwrap();
        let mut read = Vec::new();
        while let Some(block) = blocks.next_block().unwrap() {
            read.extend_from_slice(&block);
        }
        assert_eq!(read, content[5..BLOCK_BYTES + 9]);
        assert_eq!((blocks.has_ended(), blocks.finished()), (true, None));
    }

    /// All that is had without waiting, and how it ended, if it did.
    fn cached(blocks: &mut VerifiedBlocks) -> (Vec<u8>, Option<Result<(), ContentError>>) {
        let mut had = Vec::new();
        loop {
            match blocks.next_cached_block() {
                None => return (had, None),
                Some(Ok(Some(block))) => had.extend_from_slice(&block),
                Some(Ok(None)) => return (had, Some(Ok(()))),
                Some(Err(error)) => return (had, Some(Err(error))),
            }
        }
    }

    #[test]
    fn what_is_in_memory_is_read_without_waiting_and_checked_as_all_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for size in [0, 1, 65_536, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            let content: Vec<u8> = (0..=250).cycle().take(size).collect();
            std::fs::write(&path, &content).unwrap();
            // Not every file system can say whether a file is in memory, and none has to.
            let opened = |wanted| VerifiedBlocks::open_cached(&path, wanted);
            let (Some(mut right), Some(mut wrong), Some(mut changed)) =
                (opened(Digest::of(&content)), opened(Digest::of(b"other")), opened(Digest::of(&content)))
            else {
                continue;
            };
            let (had, Some(ended)) = cached(&mut right) else { continue };
            assert!(ended.is_ok() && had == content, "{size}: {ended:?}");
            assert_eq!(right.finished(), Some((Digest::of(&content), size as u64)));
            let (had, ended) = cached(&mut wrong);
            assert!(matches!(ended, Some(Err(ContentError::Damaged { .. }))) && had.len() < size.max(1), "{size}");
            std::fs::write(&path, [content.as_slice(), b"more"].concat()).unwrap();
            let (had, ended) = cached(&mut changed);
            assert!(
                ended.is_none() && had.len() < size.max(1),
                "{size}: whether it ends elsewhere is not found out here"
            );
            let ended = std::iter::from_fn(|| changed.next_block().transpose()).find_map(Result::err);
            assert!(matches!(ended, Some(ContentError::Damaged { .. })), "{size}");
        }
        let content = std::fs::read(&path).unwrap();
        let mut part = VerifiedBlocks::open_range(&path, &(5..BLOCK_BYTES as u64 + 9), None).unwrap();
        if let (had, Some(ended)) = cached(&mut part) {
            assert!(ended.is_ok() && had == content[5..BLOCK_BYTES + 9]);
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for other in [&link, &folder.path().join("none"), folder.path()] {
            assert!(VerifiedBlocks::open_cached(other, Digest::of(b"")).is_none(), "{}", other.display());
        }
    }

    #[test]
    fn an_md5_is_read_as_it_is_shown() {
        assert_eq!(md5_bytes(&md5_text(Md5::new_with_prefix("x"))), Some(Md5::digest("x").into()));
        for other in [
            "",
            "d41d8cd98f00b204e9800998ecf8427",
            "d41d8cd98f00b204e9800998ecf8427e-2",
            &"g".repeat(32),
            &"é".repeat(16),
        ] {
            assert_eq!(md5_bytes(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        std::fs::write(&target, "x").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(matches!(open(&link), Err(ContentError::Unreadable { .. })));
        assert!(matches!(open(folder.path()), Err(ContentError::Unreadable { .. })));
        assert!(matches!(open(&folder.path().join("none")), Err(ContentError::Gone(_))));
        assert!(matches!(read(&target, 0), Err(ContentError::Unreadable { .. })));
        assert_eq!(read(&target, 1).unwrap(), b"x");
    }
}
