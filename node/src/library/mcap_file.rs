//! What an MCAP file holds: told by its summary section where it has one, by reading it through where it has none.
//!
//! Files may be larger than the memory, and may be anybody's: nothing is read whole, and no length that stands in a
//! file is believed beyond the file's own.

mod recover;

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Read, Seek},
    path::Path,
};

use bubbaloop_storage_schemas::{
    UnixNs,
    limits::{BLOCK_BYTES, MCAP_RECORD_BYTES_MAX},
};
use mcap::{
    MAGIC, McapError, Summary,
    records::{self, Record, op},
    sans_io::{
        LinearReadEvent, LinearReader, LinearReaderOptions, SummaryReadEvent, SummaryReader,
        summary_reader::SummaryReaderOptions,
    },
};

pub use self::recover::{Recovered, recover};
use crate::{
    content::{self, ContentError},
    policy::adopt::{ChannelFacts, FileFacts},
};

/// Why a file is not taken as it is.
#[derive(Debug, thiserror::Error)]
pub enum McapFault {
    /// It is none.
    #[error("it is no MCAP file")]
    NotMcap,
    /// Its end is missing.
    #[error("its end is missing: it was cut off, or is still being written")]
    Unfinished,
    /// It is one, and something in it is wrong.
    #[error("it is damaged: {0}")]
    Broken(String),
    /// It can't be read.
    #[error(transparent)]
    File(#[from] ContentError),
    /// A person stopped the reading.
    #[error("the reading was stopped")]
    Stopped,
    /// What was recovered can't be written.
    #[error("what is whole in it can't be written: {0}")]
    Write(io::Error),
}

impl McapFault {
    /// Tells whether what is whole in the file may be recovered.
    pub const fn is_recoverable(&self) -> bool {
        matches!(self, Self::Unfinished | Self::Broken(_))
    }

    fn of(error: McapError) -> Self {
        match error {
            McapError::BadMagic | McapError::BadFooter | McapError::UnexpectedEof => Self::Unfinished,
            error => Self::Broken(error.to_string()),
        }
    }
}

/// A file that begins as MCAP files do.
struct Opened<'a> {
    file: BufReader<std::fs::File>,
    size_bytes: u64,
    path: &'a Path,
    go_on: GoOn<'a>,
}

/// Tells whether to read on.
pub type GoOn<'a> = &'a dyn Fn() -> bool;

impl Opened<'_> {
    /// Puts the next bytes into a reader that asked for them.
    fn fill(&mut self, reader: &mut LinearReader, bytes: usize) -> Result<(), McapFault> {
        if !(self.go_on)() {
            return Err(McapFault::Stopped);
        }
        fill(reader, &mut self.file, bytes).map_err(unreadable(self.path))
    }
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> McapFault {
    let path = path.to_owned();
    move |source| McapFault::File(ContentError::Unreadable { path: path.clone(), source })
}

fn open<'a>(path: &'a Path, go_on: GoOn<'a>) -> Result<Opened<'a>, McapFault> {
    let file = content::open(path)?;
    let size_bytes = file.metadata().map_err(unreadable(path))?.len();
    let mut file = BufReader::with_capacity(BLOCK_BYTES, file);
    let mut magic = [0; MAGIC.len()];
    match file.read_exact(&mut magic) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(McapFault::NotMcap),
        result => result.map_err(unreadable(path))?,
    }
    if magic != MAGIC {
        return Err(McapFault::NotMcap);
    }
    file.rewind().map_err(unreadable(path))?;
    Ok(Opened { file, size_bytes, path, go_on })
}

/// The longest record that is believed: no longer than the file.
fn record_bytes_max(size_bytes: u64) -> usize {
    usize::try_from(size_bytes).unwrap_or(usize::MAX).min(MCAP_RECORD_BYTES_MAX)
}

/// Tells what a whole MCAP file holds.
///
/// # Errors
/// It is none, its end is missing, or what it says of itself can't be true.
pub fn facts(path: &Path, go_on: GoOn<'_>) -> Result<FileFacts, McapFault> {
    let mut opened = open(path, go_on)?;
    match summary(&mut opened)? {
        Some(summary) => match of_summary(&summary, opened.size_bytes)? {
            Some(facts) => Ok(facts),
            None => scan(path, go_on),
        },
        None => scan(path, go_on),
    }
}

/// Reads the summary section; `None` where the file has none.
fn summary(opened: &mut Opened<'_>) -> Result<Option<Summary>, McapFault> {
    let options = SummaryReaderOptions::default()
        .with_file_size(opened.size_bytes)
        .with_record_length_limit(record_bytes_max(opened.size_bytes));
    let mut reader = SummaryReader::new_with_options(options);
    while let Some(event) = reader.next_event() {
        match event.map_err(McapFault::of)? {
            SummaryReadEvent::ReadRequest(bytes) => {
                let read = opened.file.read(reader.insert(bytes)).map_err(unreadable(opened.path))?;
                reader.notify_read(read);
            }
            SummaryReadEvent::SeekRequest(to) => {
                reader.notify_seeked(opened.file.seek(to).map_err(unreadable(opened.path))?);
            }
        }
    }
    Ok(reader.finish())
}

/// Returns what a summary tells; `None` where it leaves out what is wanted.
fn of_summary(summary: &Summary, size_bytes: u64) -> Result<Option<FileFacts>, McapFault> {
    let beyond = summary
        .chunk_indexes
        .iter()
        .find(|chunk| chunk.chunk_start_offset.saturating_add(chunk.chunk_length) > size_bytes);
    if let Some(chunk) = beyond {
        let reason = format!("its summary names a chunk at byte {} that is not in it", chunk.chunk_start_offset);
        return Err(McapFault::Broken(reason));
    }
    let Some(stats) = &summary.stats else { return Ok(None) };
    if usize::try_from(stats.channel_count).ok() != Some(summary.channels.len()) {
        return Ok(None);
    }
    if stats.message_start_time > stats.message_end_time {
        return Err(McapFault::Broken("its summary says that it ends before it begins".into()));
    }
    let mut channels: Vec<_> = summary
        .channels
        .values()
        .map(|channel| ChannelFacts {
            topic: channel.topic.clone(),
            channel_id: channel.id,
            message_encoding: channel.message_encoding.clone(),
            zenoh_encoding: channel.metadata.get(ZENOH_ENCODING).cloned(),
            schema_name: schema_name(channel.schema.as_ref().map(|schema| schema.name.clone()), &channel.metadata),
            messages: stats.channel_message_counts.get(&channel.id).copied().unwrap_or(0),
            publish_times_ns: None,
        })
        .collect();
    channels.sort_by_key(|channel| channel.channel_id);
    let log_times_ns = (stats.message_count > 0).then_some((stats.message_start_time, stats.message_end_time));
    Ok(Some(FileFacts { log_times_ns, messages: stats.message_count, channels }))
}

/// Where Bubbaloop's recorder writes down how a topic's samples were encoded on the bus, and what they are.
const ZENOH_ENCODING: &str = "zenoh.encoding";
const SCHEMA_NAME: &str = "bubbaloop.schema_name";

fn schema_name(schema: Option<String>, metadata: &BTreeMap<String, String>) -> Option<String> {
    schema.filter(|name| !name.is_empty()).or_else(|| metadata.get(SCHEMA_NAME).cloned())
}

/// Puts the next bytes of a file into a reader that asked for them.
fn fill(reader: &mut LinearReader, file: &mut impl Read, bytes: usize) -> io::Result<()> {
    let read = file.read(reader.insert(bytes))?;
    reader.notify_read(read);
    Ok(())
}

/// Reads a whole file through, with all of its checksums.
fn scan(path: &Path, go_on: GoOn<'_>) -> Result<FileFacts, McapFault> {
    let mut opened = open(path, go_on)?;
    let options = LinearReaderOptions::default()
        .with_validate_chunk_crcs(true)
        .with_validate_data_section_crc(true)
        .with_validate_summary_section_crc(true)
        .with_check_finishes_after_end_magic(true)
        .with_record_length_limit(record_bytes_max(opened.size_bytes));
    let mut reader = LinearReader::new_with_options(options);
    let mut counted = Counted::default();
    while let Some(event) = reader.next_event() {
        match event.map_err(McapFault::of)? {
            LinearReadEvent::ReadRequest(bytes) => opened.fill(&mut reader, bytes)?,
            LinearReadEvent::Record { opcode: opcode @ (op::SCHEMA | op::CHANNEL | op::MESSAGE), data } => {
                counted.take(&mcap::parse_record(opcode, data).map_err(McapFault::of)?)?;
            }
            LinearReadEvent::Record { .. } => {}
        }
    }
    Ok(counted.facts())
}

/// What the records of a file were seen to be.
#[derive(Debug, Default)]
struct Counted {
    schemas: BTreeMap<u16, String>,
    channels: BTreeMap<u16, ChannelFacts>,
    log_times_ns: Option<(UnixNs, UnixNs)>,
    messages: u64,
}

fn widened(times_ns: Option<(UnixNs, UnixNs)>, at_ns: UnixNs) -> Option<(UnixNs, UnixNs)> {
    Some(times_ns.map_or((at_ns, at_ns), |(first, last)| (first.min(at_ns), last.max(at_ns))))
}

impl Counted {
    fn take(&mut self, record: &Record<'_>) -> Result<(), McapFault> {
        match record {
            Record::Schema { header, .. } => drop(self.schemas.insert(header.id, header.name.clone())),
            Record::Channel(channel) => self.channel(channel),
            Record::Message { header, .. } => {
                let Some(channel) = self.channels.get_mut(&header.channel_id) else {
                    return Err(McapFault::Broken(format!(
                        "a message names channel {}, which is none",
                        header.channel_id
                    )));
                };
                channel.messages += 1;
                channel.publish_times_ns = widened(channel.publish_times_ns, header.publish_time);
                self.log_times_ns = widened(self.log_times_ns, header.log_time);
                self.messages += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn channel(&mut self, channel: &records::Channel) {
        let schema = self.schemas.get(&channel.schema_id).cloned();
        self.channels.entry(channel.id).or_insert_with(|| ChannelFacts {
            topic: channel.topic.clone(),
            channel_id: channel.id,
            message_encoding: channel.message_encoding.clone(),
            zenoh_encoding: channel.metadata.get(ZENOH_ENCODING).cloned(),
            schema_name: schema_name(schema, &channel.metadata),
            messages: 0,
            publish_times_ns: None,
        });
    }

    fn facts(self) -> FileFacts {
        let Self { channels, log_times_ns, messages, .. } = self;
        FileFacts { log_times_ns, messages, channels: channels.into_values().collect() }
    }
}

#[cfg(test)]
mod tests;
