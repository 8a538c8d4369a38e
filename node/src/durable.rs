//! The one door to durable writes.
//!
//! A crash at any instant leaves the old or the new content of a file whole: write a temporary file,
//! sync it, rename it, sync the folder. A journal is the exception: it only grows, by whole lines.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use bubbaloop_storage_schemas::limits::BLOCK_BYTES;
use rustix::{
    fs::{CWD, OFlags, RenameFlags, renameat_with},
    io::Errno,
};

/// Whether a file of that name may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It is replaced.
    Allowed,
    /// It is left alone, and the commit fails with `AlreadyExists`. Of several racing writers one wins.
    Refused,
}

/// A file that is being written and that nobody sees yet. Dropped without a commit, it is removed.
#[derive(Debug)]
pub struct Staged {
    file: File,
    temporary: PathBuf,
    committed: bool,
}

impl Staged {
    /// Begins to write `temporary`, over whatever an earlier crash left there.
    ///
    /// # Errors
    /// The folder is not there, or not writable.
    pub fn create(temporary: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
        Ok(Self { file, temporary, committed: false })
    }

    /// Begins to write `temporary`, a name that nobody else has.
    ///
    /// # Errors
    /// `AlreadyExists`, or the folder is not there, or not writable.
    pub fn create_new(temporary: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        Ok(Self { file, temporary, committed: false })
    }

    /// Begins to write `temporary` so that nobody else can ever read it.
    ///
    /// # Errors
    /// The folder is not there, or not writable.
    pub fn create_private(temporary: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        // What an earlier crash left may have had another mode.
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        Ok(Self { file, temporary, committed: false })
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// The disk is full or broken: drop the file.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Returns where it stands as long as it has no name.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Makes the content durable before it is visible, and returns the file's metadata as it will be.
    ///
    /// # Errors
    /// The disk is full or broken: drop the file.
    pub fn sync(&mut self) -> io::Result<fs::Metadata> {
        self.file.sync_all()?;
        self.file.metadata()
    }

    /// Gives the file its name, and makes the name durable. Call [`Staged::sync`] first.
    ///
    /// # Errors
    /// `AlreadyExists` where replacing is refused and the name is taken; otherwise the disk is broken, and
    /// the old or the new content stands.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn commit(mut self, target: &Path, replace: Replace) -> io::Result<()> {
        match replace {
            Replace::Allowed => fs::rename(&self.temporary, target)?,
            Replace::Refused => rename_new(&self.temporary, target)?,
        }
        self.committed = true;
        sync_parent(target)
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Staged {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Drop for Staged {
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    fn drop(&mut self) {
        if !self.committed {
            // What stays is swept or overwritten by the next writer of the same temporary name.
            fs::remove_file(&self.temporary).ok();
        }
    }
}

/// A file that is written over several tries and that nobody takes for whole. Dropped without a commit it stays, and the
/// next try goes on where this one ended.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Partial {
    /// Opens what an earlier try left, or begins. One writer at a time.
    ///
    /// # Errors
    /// `WouldBlock` where another writes to it; otherwise the folder is not there, or not writable.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path)?;
        let opened = file.metadata()?;
        let is_locked = file.try_lock().is_ok();
        // The one who held it may have given it its last name since it was opened here.
        let is_still_there = fs::symlink_metadata(&path).is_ok_and(|now| now.ino() == opened.ino());
        if !is_locked || !is_still_there {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "somebody else is writing it"));
        }
        let mut partial = Self { length: opened.len(), file, path };
        partial.file.seek(SeekFrom::End(0))?;
        Ok(partial)
    }

    /// Returns how much is there.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Gives what is there to `take`, block by block.
    ///
    /// # Errors
    /// The disk is broken.
    pub fn read(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut block = vec![0; BLOCK_BYTES];
        self.file.seek(SeekFrom::Start(0))?;
        loop {
            let length = self.file.read(&mut block)?;
            if length == 0 {
                return Ok(());
            }
            take(&block[..length]);
        }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Throws away what is there and begins again.
    ///
    /// # Errors
    /// The disk is broken.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.length = 0;
        Ok(())
    }

    /// Makes the content durable and gives it its name, which nothing may have yet.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken; otherwise the disk is full or broken. What was written stays.
    pub fn commit(self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        rename_new(&self.path, target)?;
        sync_parent(target)
    }

    /// Removes what was written.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn discard(self) -> io::Result<()> {
        remove(&self.path)
    }
}

/// Puts whatever has this name aside, under a name beside it that nobody takes for anything, and returns that name.
///
/// # Errors
/// There is nothing, or the folder is not writable.
pub fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    for number in 1_u32.. {
        let aside = parent(path)?.join(format!(".damaged-{}.{number}", name.display()));
        match rename_new(path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return sync_parent(&aside).map(|()| aside),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Gives a file that is there a second name on the same file system, durably; what it holds is not synced by this.
///
/// # Errors
/// `AlreadyExists` where the name is taken; `CrossesDevices` and others where a link is not possible.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    File::open(from)?.sync_all()?;
    fs::hard_link(from, to)?;
    sync_parent(to)
}

/// Renames without replacing. File systems that can't do that in one step (FAT, some network ones) get a
/// hard link, which fails on a taken name too; without either, a check comes first.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
        result => return Ok(result?),
    }
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if to.try_exists()? => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a folder"))
}

/// Makes the names in the folder of `path` durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    match OpenOptions::new().read(true).open(parent(path)?)?.sync_all() {
        // A file system that syncs no folder has nothing better to offer.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Replaces the content of `target`, which has one writer.
///
/// # Errors
/// The disk is full or not writable; the old content stands.
pub fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    finish(Staged::create(beside(target)?)?, target, bytes)
}

/// Replaces the content of `target`, which nobody else may read.
///
/// # Errors
/// The disk is full or not writable; the old content stands.
pub fn replace_private(target: &Path, bytes: &[u8]) -> io::Result<()> {
    finish(Staged::create_private(beside(target)?)?, target, bytes)
}

fn beside(target: &Path) -> io::Result<PathBuf> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(parent(target)?.join(format!(".{}.tmp", name.display())))
}

fn finish(mut staged: Staged, target: &Path, bytes: &[u8]) -> io::Result<()> {
    staged.write(bytes)?;
    staged.sync()?;
    staged.commit(target, Replace::Allowed)
}

/// Makes a folder and those above it, durably. A folder that is there is left alone.
///
/// # Errors
/// A parent is not writable, or something else has that name.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn create_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_folder(parent(path)?)?;
            // A file system without such folders says that all the same.
            made(path, fs::create_dir(path))
        }
        result => made(path, result),
    }
}

fn made(path: &Path, made: io::Result<()>) -> io::Result<()> {
    match made {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a folder and those between it and `base`, durably. `base` itself is never made.
///
/// # Errors
/// `NotFound` where `base` is not there; otherwise as [`create_folder`].
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn create_folder_below(base: &Path, path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.starts_with(base) && parent(path)? != base => {
            create_folder_below(base, parent(path)?)?;
            made(path, fs::create_dir(path))
        }
        result => made(path, result),
    }
}

/// Removes a file, durably. An absent one is no error.
///
/// # Errors
/// The folder is not writable.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a folder in which nothing is, durably. An absent one is no error.
///
/// # Errors
/// Something is in it, it is no folder, or the folder above is not writable.
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes what an earlier crash left in a folder of temporary files: files that were written to before `since`.
///
/// # Errors
/// The folder can't be read.
pub fn sweep(folder: &Path, since: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // One that vanishes meanwhile was another writer's.
        if entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|modified| modified < since) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Appends lines to a journal and syncs them together; a torn last line of an earlier crash is cut off first.
///
/// `lines` ends with a newline. The file's creation syncs its folder.
///
/// # Errors
/// The disk is full or not writable. What was written of the lines is cut off again, by the next append if not now: a
/// crash in between may leave some, and a torn one.
pub fn append_lines(path: &Path, lines: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let end = file.metadata()?.len();
    let whole = whole_lines_end(&file, end)?;
    if whole < end {
        file.set_len(whole)?;
    }
    // Of one without a whole line a crash may have come before its name was on the disk.
    if whole == 0 {
        sync_parent(path)?;
    }
    // What is told not to be written must not be read later.
    file.write_all_at(lines, whole).and_then(|()| file.sync_data()).inspect_err(|_| drop(file.set_len(whole)))
}

/// Returns where the last whole line ends.
fn whole_lines_end(file: &File, mut end: u64) -> io::Result<u64> {
    const STEP: usize = 4096;
    let mut last = [0];
    if end > 0 {
        file.read_exact_at(&mut last, end - 1)?;
    }
    if last == *b"\n" {
        return Ok(end);
    }
    let mut block = vec![0; STEP];
    while end > 0 {
        let length = usize::try_from(end).map_or(STEP, |end| end.min(STEP));
        let begin = end - length as u64;
        file.read_exact_at(&mut block[..length], begin)?;
        if let Some(place) = block[..length].iter().rposition(|&byte| byte == b'\n') {
            return Ok(begin + place as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// Opens a lock file and locks it for this process; the lock ends with the returned file.
///
/// # Errors
/// `WouldBlock` where another process holds it; otherwise the file can't be opened.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Rewrites the content of a locked file in place: it says who holds the lock and is worth nothing after a crash.
///
/// # Errors
/// The disk is full or broken.
pub fn describe_lock(file: &mut File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the files that crashes leave")]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_cut_off_before_the_next_append() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        append_lines(&path, b"one\n").unwrap();
        let long = "x".repeat(10_000);
        for torn in ["{\"torn", &long] {
            fs::write(&path, format!("one\n{torn}")).unwrap();
            append_lines(&path, b"two\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        }
        fs::write(&path, "torn from the start").unwrap();
        append_lines(&path, b"one\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
    }

    #[test]
    fn a_file_system_without_such_folders_is_an_error() {
        for path in ["/proc/x", "/proc/x/y"] {
            assert_eq!(create_folder(Path::new(path)).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(
            create_folder_below(Path::new("/"), Path::new("/proc/x/y")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let folder = tempfile::tempdir().unwrap();
        create_folder(&folder.path().join("a/b/c")).unwrap();
        create_folder(&folder.path().join("a/b/c")).unwrap();
    }

    #[test]
    fn of_writers_that_may_only_create_the_first_wins_and_nothing_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("t");
        for (number, wins) in [(1, true), (2, false)] {
            let mut staged = Staged::create(folder.path().join(format!("tmp{number}"))).unwrap();
            staged.write(format!("{number}").as_bytes()).unwrap();
            staged.sync().unwrap();
            let result = staged.commit(&target, Replace::Refused);
            assert_eq!(
                result.map_err(|error| error.kind()),
                if wins { Ok(()) } else { Err(io::ErrorKind::AlreadyExists) }
            );
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "1");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        replace(&target, b"3").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "3");
    }

    #[test]
    fn what_a_try_left_is_gone_on_with_by_one_writer_and_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let (part, target) = (folder.path().join(".part"), folder.path().join("t"));
        let mut first = Partial::open(part.clone()).unwrap();
        first.write(b"one ").unwrap();
        assert_eq!(Partial::open(part.clone()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        let mut second = Partial::open(part.clone()).unwrap();
        second.write(b"two").unwrap();
        let mut read = Vec::new();
        second.read(|block| read.extend_from_slice(block)).unwrap();
        assert_eq!((second.length(), &*read), (7, &b"one two"[..]));
        fs::write(&target, "taken").unwrap();
        assert_eq!(second.commit(&target).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&target).unwrap();
        Partial::open(part.clone()).unwrap().commit(&target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "one two");
        let mut third = Partial::open(part.clone()).unwrap();
        third.write(b"x").unwrap();
        third.restart().unwrap();
        assert_eq!(fs::metadata(&part).unwrap().len(), 0);
        third.discard().unwrap();
        std::os::unix::fs::symlink(&target, &part).unwrap();
        Partial::open(part).unwrap_err();
        assert_eq!(fs::read_to_string(&target).unwrap(), "one two", "no link is followed");
    }

    #[test]
    fn what_is_put_aside_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chunk.mcap");
        let mut asides = Vec::new();
        for number in ["1", "2"] {
            fs::write(&path, number).unwrap();
            asides.push(put_aside(&path).unwrap());
        }
        fs::create_dir(&path).unwrap();
        asides.push(put_aside(&path).unwrap());
        assert_eq!(asides[1], folder.path().join(".damaged-chunk.mcap.2"));
        assert_eq!((fs::read_to_string(&asides[0]).unwrap(), asides[2].is_dir()), ("1".into(), true));
        assert_eq!(put_aside(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn folders_below_one_that_is_not_there_are_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        let error = create_folder_below(&base, &base.join("a/b")).unwrap_err();
        assert_eq!((error.kind(), base.exists()), (io::ErrorKind::NotFound, false));
        fs::create_dir(&base).unwrap();
        for _ in 0..2 {
            create_folder_below(&base, &base.join("a/b")).unwrap();
        }
        assert!(base.join("a/b").is_dir());
    }

    #[test]
    fn a_lock_is_held_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path).unwrap();
        assert_eq!(lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        lock(&path).unwrap();
    }
}
