//! The bytes of a put on their way: read one time, hashed as they are read, watched as they leave.
//!
//! A body ends with an error in place of the last block when the bytes are not the right ones. The connection is cut
//! then with the request incomplete, so that no server makes an object of it. A file of one block is checked before a
//! connection is opened at all: of an empty one no server waits for a last block.
//!
//! What is in the system's memory is read and hashed where it is sent, a block at a time and others in between: it costs
//! less than to hand each block from one thread to another. What would wait for a disk is read on a thread that may, some
//! blocks at a time.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bubbaloop_storage_schemas::limits::BLOCK_BYTES;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use md5::{Digest as _, Md5};
use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{Sleep, sleep, timeout},
};

use super::settings::Patience;
use crate::{
    content::{self, ContentError, VerifiedBlocks},
    store::{
        port::{Body, FilePart, StoreError, StoreErrorKind},
        throttle::Throttle,
    },
};

/// Blocks that are read at a time where a disk may be waited for.
const BLOCKS_AT_ONCE: usize = 4;

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many bytes were given to the connection.
    Sending(u64),
    /// All were.
    Sent,
}

/// What is known once the bytes have left.
#[derive(Debug, Default)]
struct Report {
    failure: Option<ContentError>,
    md5: Option<String>,
}

/// What stays with the sender of a body.
#[derive(Debug)]
pub(super) struct Sending {
    stage: watch::Receiver<Stage>,
    report: Arc<Mutex<Report>>,
}

/// A body that is ready to be sent.
pub(super) struct Opened {
    pub stream: ByteStream,
    pub sending: Sending,
    pub size_bytes: u64,
}

fn report(of: &Mutex<Report>) -> MutexGuard<'_, Report> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sending {
    /// Takes the reason why the file could not be sent whole, if that is what happened.
    pub(super) fn failure(&self) -> Option<ContentError> {
        report(&self.report).failure.take()
    }

    /// Tells whether an ETag is the MD5 of the bytes that were sent; false where that was not found out.
    pub(super) fn is_md5(&self, etag: &str) -> bool {
        report(&self.report).md5.as_ref().is_some_and(|md5| etag.eq_ignore_ascii_case(md5))
    }

    /// Ends when too long no byte moved, or too long no answer came, and says which.
    pub(super) async fn stalled(&self, patience: Patience) -> &'static str {
        let mut stage = self.stage.clone();
        loop {
            let (limit, words) = match *stage.borrow_and_update() {
                Stage::Sending(_) => (patience.stall, "no byte got through in time"),
                Stage::Sent => (patience.reply, "all was sent and no answer came in time"),
            };
            match timeout(limit, stage.changed()).await {
                Ok(Ok(())) => {}
                Err(_) => return words,
                // The body is gone, so an answer or an error is being read.
                Ok(Err(_)) => {
                    sleep(patience.reply).await;
                    return words;
                }
            }
        }
    }
}

/// Returns the MD5 of bytes as an ETag shows it.
pub(super) fn md5_of(bytes: &[u8]) -> String {
    content::md5_text(Md5::new_with_prefix(bytes))
}

/// Opens a body for one request. Its MD5 is found out on the way where it is wanted.
///
/// # Errors
/// The file can't be had; or it is small and damaged.
pub(super) async fn open(body: &Body, wants_md5: bool, throttle: &Arc<Throttle>) -> Result<Opened, StoreError> {
    match body {
        Body::Bytes(bytes) => {
            let md5 = wants_md5.then(|| md5_of(bytes));
            Ok(opened(bytes.len() as u64, Some(bytes.clone()), None, Report { failure: None, md5 }, throttle))
        }
        Body::File { path, digest } => {
            let (path, digest) = (path.clone(), *digest);
            let cached = VerifiedBlocks::open_cached(&path, digest).map(|blocks| Reader::new(blocks, wants_md5));
            if let Some(mut reader) = cached
                && let Some(first) = reader.next_cached()
            {
                return Ok(Begun { first: first?, reader }.opened(throttle));
            }
            begin(move || VerifiedBlocks::open(&path, Some(digest)), wants_md5, throttle).await
        }
    }
}

/// Opens a part of a file for one request, as [`open`] does. Where the store finds out whether it is right, it is not
/// hashed here as well.
///
/// # Errors
/// As [`open`].
pub(super) async fn open_part(
    part: &FilePart,
    is_checked: bool,
    wants_md5: bool,
    throttle: &Arc<Throttle>,
) -> Result<Opened, StoreError> {
    let FilePart { path, range, digest, is_suspect } = part.clone();
    let wanted = (!is_checked || is_suspect).then_some(digest);
    begin(move || VerifiedBlocks::open_range(&path, &range, wanted), wants_md5, throttle).await
}

async fn begin(
    open: impl FnOnce() -> Result<VerifiedBlocks, ContentError> + Send + 'static,
    wants_md5: bool,
    throttle: &Arc<Throttle>,
) -> Result<Opened, StoreError> {
    let began = spawn_blocking(move || {
        let mut reader = Reader::new(open()?, wants_md5);
        Ok::<_, ContentError>(Begun { first: reader.next()?, reader })
    });
    let ended = |error| retry(format!("reading a file ended: {error}"));
    Ok(began.await.map_err(ended)??.opened(throttle))
}

/// A file of which the first block was read, and so all of it where it has no second one.
struct Begun {
    reader: Reader,
    first: Option<Bytes>,
}

impl Begun {
    fn opened(self, throttle: &Arc<Throttle>) -> Opened {
        let Self { mut reader, first } = self;
        let size_bytes = reader.size_bytes;
        if reader.is_done() {
            let md5 = reader.md5();
            return opened(size_bytes, first, None, Report { failure: None, md5 }, throttle);
        }
        opened(size_bytes, first, Some(reader), Report::default(), throttle)
    }
}

fn retry(message: String) -> StoreError {
    StoreError::new(StoreErrorKind::Retry { after: None }, message)
}

fn opened(
    size_bytes: u64,
    first: Option<Bytes>,
    rest: Option<Reader>,
    known: Report,
    throttle: &Arc<Throttle>,
) -> Opened {
    let report = Arc::new(Mutex::new(known));
    let begin = if size_bytes == 0 { Stage::Sent } else { Stage::Sending(0) };
    let (told, stage) = watch::channel(begin);
    let rest = rest.map_or(Rest::Nothing, |reader| Rest::ToRead(Box::new(reader)));
    let (throttle, to) = (Arc::clone(throttle), Arc::clone(&report));
    let blocks = Blocks {
        left: size_bytes,
        next: first,
        read: VecDeque::new(),
        rest,
        owes_turn: true,
        report: to,
        told,
        throttle,
        waits: None,
    };
    let stream = ByteStream::new(SdkBody::from_body_1_x(blocks));
    Opened { stream, sending: Sending { stage, report }, size_bytes }
}

/// Reads a file's blocks, never more bytes than it had when it was opened: what was promised to the server is whole
/// only with the block that is withheld until the digest is right.
struct Reader {
    blocks: VerifiedBlocks,
    size_bytes: u64,
    given: u64,
    /// It has another size than it had.
    is_changed: bool,
    md5: Option<Md5>,
}

impl Reader {
    fn new(blocks: VerifiedBlocks, wants_md5: bool) -> Self {
        let size_bytes = blocks.size_at_open();
        Self { blocks, size_bytes, given: 0, is_changed: false, md5: wants_md5.then(Md5::new) }
    }

    fn next(&mut self) -> Result<Option<Bytes>, ContentError> {
        if !self.is_changed {
            let block = self.blocks.next_block()?;
            if self.takes(block.as_ref()) {
                return Ok(block);
            }
        }
        while self.blocks.next_block()?.is_some() {}
        Err(self.blocks.changed())
    }

    /// Does as [`Reader::next`] does, and never waits for a disk: `None` where it would.
    fn next_cached(&mut self) -> Option<Result<Option<Bytes>, ContentError>> {
        match self.blocks.next_cached_block()? {
            Ok(block) => self.takes(block.as_ref()).then_some(Ok(block)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Reads some blocks, or up to the end, which may be an error.
    fn read_on(&mut self) -> VecDeque<Read> {
        let mut reads = VecDeque::new();
        loop {
            let read = self.next();
            let is_end = self.is_done() || !matches!(read, Ok(Some(_)));
            reads.push_back(read);
            if is_end || reads.len() == BLOCKS_AT_ONCE {
                return reads;
            }
        }
    }

    /// Takes in a block, and tells whether the file may still have the size that it had.
    fn takes(&mut self, block: Option<&Bytes>) -> bool {
        let Some(block) = block else { return true };
        self.given += block.len() as u64;
        let is_last = self.blocks.has_ended();
        self.is_changed = if is_last { self.given != self.size_bytes } else { self.given >= self.size_bytes };
        if let Some(md5) = &mut self.md5 {
            md5.update(block);
        }
        !self.is_changed
    }

    fn is_done(&self) -> bool {
        self.blocks.has_ended()
    }

    fn md5(&mut self) -> Option<String> {
        self.md5.take().map(content::md5_text)
    }
}

/// What came of reading a block.
type Read = Result<Option<Bytes>, ContentError>;

/// What comes behind the bytes that are at hand.
enum Rest {
    Nothing,
    ToRead(Box<Reader>),
    /// Some blocks are being waited for.
    BeingRead(JoinHandle<(Box<Reader>, VecDeque<Read>)>),
}

/// The body as the connection takes it.
struct Blocks {
    left: u64,
    /// What goes next, in pieces where it is large or the link is limited.
    next: Option<Bytes>,
    /// What was read and comes then.
    read: VecDeque<Read>,
    rest: Rest,
    /// A block was read here: what else this thread has to do comes before the next one.
    owes_turn: bool,
    report: Arc<Mutex<Report>>,
    told: watch::Sender<Stage>,
    throttle: Arc<Throttle>,
    /// A piece that was cut off, until its time has come.
    waits: Option<(Bytes, Pin<Box<Sleep>>)>,
}

impl Blocks {
    /// Reads the next block, where none is at hand.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(block) = self.next.take() {
            return Poll::Ready(Some(Ok(block)));
        }
        loop {
            if let Some(read) = self.read.pop_front() {
                return Poll::Ready(self.told(read));
            }
            match std::mem::replace(&mut self.rest, Rest::Nothing) {
                Rest::Nothing => return Poll::Ready(None),
                Rest::ToRead(reader) if std::mem::take(&mut self.owes_turn) => {
                    self.rest = Rest::ToRead(reader);
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Rest::ToRead(mut reader) => match reader.next_cached() {
                    Some(read) => {
                        self.owes_turn = true;
                        self.take_in(reader, VecDeque::from([read]));
                    }
                    None => {
                        self.rest = Rest::BeingRead(spawn_blocking(move || {
                            let reads = reader.read_on();
                            (reader, reads)
                        }));
                    }
                },
                Rest::BeingRead(mut reading) => match Pin::new(&mut reading).poll(context) {
                    Poll::Pending => {
                        self.rest = Rest::BeingRead(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok((reader, reads))) => self.take_in(reader, reads),
                    Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                },
            }
        }
    }

    fn take_in(&mut self, mut reader: Box<Reader>, reads: VecDeque<Read>) {
        if reader.is_done() {
            report(&self.report).md5 = reader.md5();
        } else if reads.back().is_some_and(Result::is_ok) {
            self.rest = Rest::ToRead(reader);
        }
        self.read = reads;
    }

    /// Hands on what was read, and keeps the reason where that failed.
    fn told(&self, read: Read) -> Option<io::Result<Bytes>> {
        read.map_err(|error| {
            let told = io::Error::other(error.to_string());
            report(&self.report).failure = Some(error);
            told
        })
        .transpose()
    }

    /// Cuts off what may go at a time. The watch sees what leaves, not what is still to be sent: so bytes in memory leave
    /// block by block too.
    fn cut(&mut self, mut block: Bytes) -> Bytes {
        let most = self.throttle.piece_bytes().min(BLOCK_BYTES);
        if block.len() <= most {
            return block;
        }
        let piece = block.split_to(most);
        self.next = Some(block);
        piece
    }

    fn give(&mut self, piece: Bytes) -> Frame<Bytes> {
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.told.send_replace(if self.left == 0 { Stage::Sent } else { Stage::Sending(self.left) });
        Frame::data(piece)
    }
}

impl HttpBody for Blocks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.waits.is_none() {
            match ready!(self.poll_next(context)) {
                Some(Ok(block)) => {
                    let piece = self.cut(block);
                    let wait = self.throttle.reserve(piece.len());
                    if wait.is_zero() {
                        return Poll::Ready(Some(Ok(self.give(piece))));
                    }
                    self.waits = Some((piece, Box::pin(sleep(wait))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.left > 0 => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                None => return Poll::Ready(None),
            }
        }
        if let Some((_, until)) = &mut self.waits {
            ready!(until.as_mut().poll(context));
        }
        let piece = self.waits.take().map(|(piece, _)| piece);
        Poll::Ready(piece.map(|piece| Ok(self.give(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make files")]
mod tests {
    use std::time::Duration;

    use bubbaloop_storage_schemas::Digest;

    use super::*;
    use crate::clock::SystemClock;

    fn throttle() -> Arc<Throttle> {
        Arc::new(Throttle::new(Arc::new(SystemClock::start())))
    }

    async fn sent(opened: Opened) -> (usize, Sending, bool) {
        let mut stream = opened.stream;
        let mut bytes = 0;
        loop {
            match stream.next().await {
                Some(Ok(block)) => bytes += block.len(),
                Some(Err(_)) => return (bytes, opened.sending, false),
                None => return (bytes, opened.sending, true),
            }
        }
    }

    async fn a_file_is_sent_whole_or_not_to_its_end(folder: &std::path::Path) {
        let path = folder.join("chunk");
        for size in [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 9 * BLOCK_BYTES + 7] {
            let content: Vec<u8> = (0..=250).cycle().take(size).collect();
            std::fs::write(&path, &content).unwrap();
            let right = Body::File { path: path.clone(), digest: Digest::of(&content) };
            let opened = open(&right, true, &throttle()).await.unwrap();
            assert_eq!(opened.size_bytes, size as u64);
            let (bytes, sending, is_whole) = sent(opened).await;
            assert_eq!((bytes, is_whole), (size, true));
            assert!(sending.is_md5(&md5_of(&content)) && !sending.is_md5(""), "{size}");

            let wrong = Body::File { path: path.clone(), digest: Digest::of(b"other") };
            match open(&wrong, false, &throttle()).await {
                Err(error) => assert!(size <= BLOCK_BYTES && matches!(error.kind, StoreErrorKind::Content(_))),
                Ok(opened) => {
                    let (bytes, sending, is_whole) = sent(opened).await;
                    assert!(bytes < size && !is_whole, "{size}: {bytes} bytes were sent");
                    assert!(matches!(sending.failure(), Some(ContentError::Damaged { .. })));
                }
            }
        }
    }

    #[tokio::test]
    async fn a_file_on_a_disk_is_sent_whole_or_not_to_its_end() {
        a_file_is_sent_whole_or_not_to_its_end(tempfile::tempdir().unwrap().path()).await;
    }

    #[tokio::test]
    async fn a_file_where_nobody_can_say_what_is_in_memory_is_sent_whole_or_not_to_its_end() {
        let in_memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        a_file_is_sent_whole_or_not_to_its_end(in_memory.path()).await;
    }

    #[tokio::test]
    async fn a_file_that_was_opened_before_it_was_whole_is_told_to_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chunk");
        let content = vec![7; 3 * BLOCK_BYTES];
        std::fs::write(&path, &content[..5 * BLOCK_BYTES / 2]).unwrap();
        let body = Body::File { path: path.clone(), digest: Digest::of(&content) };
        let opened = open(&body, false, &throttle()).await.unwrap();
        std::fs::write(&path, &content).unwrap();
        let (bytes, sending, is_whole) = sent(opened).await;
        assert!(bytes < 5 * BLOCK_BYTES / 2 && !is_whole, "{bytes} bytes were sent");
        assert!(matches!(sending.failure(), Some(ContentError::Unreadable { .. })));
    }

    #[tokio::test]
    async fn bytes_in_memory_leave_block_by_block() {
        let mut opened = open(&Body::Bytes(vec![7; 2 * BLOCK_BYTES + 1].into()), false, &throttle()).await.unwrap();
        let mut sizes = Vec::new();
        while let Some(block) = opened.stream.next().await {
            sizes.push(block.unwrap().len());
        }
        assert_eq!(sizes, [BLOCK_BYTES, BLOCK_BYTES, 1]);
    }

    #[tokio::test]
    async fn a_limited_link_is_given_small_pieces_and_all_of_them_in_the_end() {
        let throttle = throttle();
        throttle.set(Some(400_000));
        let mut opened = open(&Body::Bytes(vec![7; 250_000].into()), false, &throttle).await.unwrap();
        let mut sizes = Vec::new();
        while let Some(block) = opened.stream.next().await {
            sizes.push(block.unwrap().len());
        }
        assert_eq!(sizes, [100_000, 100_000, 50_000]);
        assert!(throttle.reserve(1) > Duration::ZERO);
    }

    #[tokio::test]
    async fn a_file_that_grows_meanwhile_is_not_sent_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chunk");
        let content = vec![7; 2 * BLOCK_BYTES];
        std::fs::write(&path, &content).unwrap();
        let mut reader = Reader::new(VerifiedBlocks::open(&path, Some(Digest::of(&content))).unwrap(), false);
        assert_eq!(reader.next().unwrap().unwrap().len(), BLOCK_BYTES);
        std::fs::write(&path, [content.clone(), vec![7; 10]].concat()).unwrap();
        assert!(matches!(reader.next(), Err(ContentError::Damaged { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_nothing_moves_and_starts_anew_with_every_block() {
        let patience = Patience::default();
        let (told, stage) = watch::channel(Stage::Sending(9));
        let sending = Sending { stage, report: Arc::default() };
        let mover = async {
            for left in [6, 3] {
                sleep(patience.stall / 2).await;
                told.send_replace(Stage::Sending(left));
            }
        };
        let moment = Duration::from_millis(1);
        let (ended, ()) = tokio::join!(timeout(2 * patience.stall - moment, sending.stalled(patience)), mover);
        assert!(ended.is_err(), "it ended while blocks moved");
        let in_time = timeout(patience.stall + moment, sending.stalled(patience)).await;
        assert!(in_time.unwrap().contains("no byte"));
        told.send_replace(Stage::Sent);
        let in_time = timeout(patience.reply + moment, sending.stalled(patience)).await;
        assert!(in_time.unwrap().contains("no answer"));
    }
}
