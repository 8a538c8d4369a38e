//! Takes what is whole out of an MCAP file that was cut off or damaged.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, BufWriter, Read, Seek, SeekFrom},
    path::Path,
};

use bubbaloop_storage_schemas::limits::{BLOCK_BYTES, MCAP_RECORD_BYTES_MAX};
use mcap::{
    Attachment, Compression, MAGIC, McapError, WriteOptions, Writer,
    records::{MessageHeader, Record, op},
    sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions},
};

use super::{GoOn, McapFault, Opened, fill, open, record_bytes_max, scan, unreadable};
use crate::{durable::Staged, policy::adopt::FileFacts};

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// What the new file holds.
    pub facts: FileFacts,
    /// From this byte on the old file is not whole; `None` where its data goes through to the end.
    pub broken_at: Option<u64>,
    /// The bytes from there to the end.
    pub tail_bytes: u64,
    /// Messages of those bytes that were whole all the same.
    pub tail_messages: u64,
    /// Groups of messages before it that were damaged and are lost.
    pub lost_groups: u64,
    /// Their bytes in the old file.
    pub lost_bytes: u64,
}

/// The opcode and the length before each record.
const RECORD_HEAD_BYTES: u64 = 9;

/// Writes what is whole in a file into a new one, and reads that back before it is believed.
///
/// # Errors
/// It is no MCAP file, nothing in it is whole, or the new file can't be written or does not hold what was written.
pub fn recover(path: &Path, staged: &mut Staged, go_on: GoOn<'_>) -> Result<Recovered, McapFault> {
    let written = write(path, staged, go_on)?;
    staged.sync().map_err(McapFault::Write)?;
    let facts = scan(staged.path(), go_on)?;
    if facts.messages != written.facts.messages {
        let reason = format!("{} messages were written and {} read back", written.facts.messages, facts.messages);
        return Err(McapFault::Write(io::Error::other(reason)));
    }
    Ok(Recovered { facts, ..written })
}

fn write(path: &Path, staged: &mut Staged, go_on: GoOn<'_>) -> Result<Recovered, McapFault> {
    let opened = open(path, go_on)?;
    let size_bytes = opened.size_bytes;
    let library = concat!("bubbaloop-storage/", env!("CARGO_PKG_VERSION"), " recover");
    let options =
        WriteOptions::new().compression(Some(Compression::Zstd)).profile(profile(path, go_on)?).library(library);
    // One thread: the same bytes come out each time.
    let options = options.compression_threads(0);
    let out = BufWriter::with_capacity(BLOCK_BYTES, staged);
    let mut rescue = Rescue::new(options.create(out).map_err(write_fault)?);
    let broken_at = rescue.whole_records(opened)?;
    let whole_messages = rescue.messages;
    if let Some(broken_at) = broken_at {
        rescue.tail(open(path, go_on)?, broken_at)?;
    }
    let Rescue { mut writer, messages, lost_groups, lost_bytes, .. } = rescue;
    writer.finish().map_err(write_fault)?;
    writer.into_inner().into_inner().map_err(|error| McapFault::Write(error.into_error()))?;
    if messages == 0 {
        return Err(McapFault::Broken("no message in it is whole".into()));
    }
    Ok(Recovered {
        facts: FileFacts { messages, ..FileFacts::default() },
        broken_at,
        tail_bytes: broken_at.map_or(0, |at| size_bytes - at),
        tail_messages: messages - whole_messages,
        lost_groups,
        lost_bytes,
    })
}

fn write_fault(error: McapError) -> McapFault {
    McapFault::Write(match error {
        McapError::Io(error) => error,
        error => io::Error::other(error),
    })
}

/// Returns the profile that the file's header names.
fn profile(path: &Path, go_on: GoOn<'_>) -> Result<String, McapFault> {
    let mut opened = open(path, go_on)?;
    let options = LinearReaderOptions::default().with_record_length_limit(record_bytes_max(opened.size_bytes));
    let mut reader = LinearReader::new_with_options(options);
    loop {
        match reader.next_event() {
            Some(Ok(LinearReadEvent::ReadRequest(bytes))) => {
                opened.fill(&mut reader, bytes)?;
            }
            Some(Ok(LinearReadEvent::Record { opcode: op::HEADER, data })) => {
                let Ok(Record::Header(header)) = mcap::parse_record(op::HEADER, data) else { return Ok(String::new()) };
                return Ok(header.profile);
            }
            Some(_) | None => return Ok(String::new()),
        }
    }
}

/// Hands out the records in a chunk, with its checksum; no length that stands in it is believed beyond the limit.
fn in_group(data: &[u8], mut take: impl FnMut(&Record<'_>) -> Result<(), McapFault>) -> Result<(), McapFault> {
    let options = LinearReaderOptions::default()
        .with_skip_start_magic(true)
        .with_skip_end_magic(true)
        .with_validate_chunk_crcs(true)
        .with_record_length_limit(MCAP_RECORD_BYTES_MAX);
    let mut reader = LinearReader::new_with_options(options);
    let head: Vec<_> = [op::CHUNK].into_iter().chain((data.len() as u64).to_le_bytes()).collect();
    let mut bytes = head.as_slice().chain(data);
    while let Some(event) = reader.next_event() {
        match event.map_err(McapFault::of)? {
            LinearReadEvent::ReadRequest(wanted) => fill(&mut reader, &mut bytes, wanted).map_err(McapFault::Write)?,
            LinearReadEvent::Record { opcode, data } => {
                take(&mcap::parse_record(opcode, data).map_err(McapFault::of)?)?;
            }
        }
    }
    Ok(())
}

/// The new file and what went into it. Ids of schemas and channels are the new file's own.
struct Rescue<'a> {
    writer: Writer<BufWriter<&'a mut Staged>>,
    schemas: HashMap<u16, u16>,
    channels: HashMap<u16, u16>,
    messages: u64,
    lost_groups: u64,
    lost_bytes: u64,
}

impl<'a> Rescue<'a> {
    fn new(writer: Writer<BufWriter<&'a mut Staged>>) -> Self {
        Self { writer, schemas: HashMap::new(), channels: HashMap::new(), messages: 0, lost_groups: 0, lost_bytes: 0 }
    }

    /// Takes the records up to the end of the data, and returns where they stop being whole before that.
    fn whole_records(&mut self, mut opened: Opened<'_>) -> Result<Option<u64>, McapFault> {
        let options = LinearReaderOptions::default()
            .with_emit_chunks(true)
            .with_skip_end_magic(true)
            .with_record_length_limit(record_bytes_max(opened.size_bytes));
        let mut reader = LinearReader::new_with_options(options);
        let mut place = MAGIC.len() as u64;
        loop {
            match reader.next_event() {
                Some(Ok(LinearReadEvent::ReadRequest(bytes))) => {
                    opened.fill(&mut reader, bytes)?;
                }
                Some(Ok(LinearReadEvent::Record { opcode: op::DATA_END | op::FOOTER, .. })) => return Ok(None),
                Some(Ok(LinearReadEvent::Record { opcode, data })) => {
                    match self.take_group(opcode, data) {
                        Err(fault @ McapFault::Write(_)) => return Err(fault),
                        Err(_) => return Ok(Some(place)),
                        Ok(()) => {}
                    }
                    place += RECORD_HEAD_BYTES + data.len() as u64;
                }
                // Without an end of the data it was cut off between two records.
                None => return Ok(Some(place)),
                Some(Err(_)) => return Ok(Some(place)),
            }
        }
    }

    /// Takes what is whole of the bytes from `place` on: the beginning of a group of messages that was being written.
    fn tail(&mut self, mut opened: Opened<'_>, place: u64) -> Result<(), McapFault> {
        opened.file.seek(SeekFrom::Start(place)).map_err(unreadable(opened.path))?;
        let options = LinearReaderOptions::default()
            .with_skip_start_magic(true)
            .with_skip_end_magic(true)
            .with_record_length_limit(record_bytes_max(opened.size_bytes));
        let mut reader = LinearReader::new_with_options(options);
        loop {
            match reader.next_event() {
                Some(Ok(LinearReadEvent::ReadRequest(bytes))) => {
                    opened.fill(&mut reader, bytes)?;
                }
                Some(Ok(LinearReadEvent::Record { opcode, data })) => match mcap::parse_record(opcode, data) {
                    Ok(record) => self.take(&record).map_err(write_fault)?,
                    Err(_) => return Ok(()),
                },
                Some(Err(_)) | None => return Ok(()),
            }
        }
    }

    /// Takes a record that stands in the file itself: of a chunk the records in it, if all of it is sound.
    fn take_group(&mut self, opcode: u8, data: &[u8]) -> Result<(), McapFault> {
        if opcode != op::CHUNK {
            let record = mcap::parse_record(opcode, data).map_err(McapFault::of)?;
            return self.take(&record).map_err(write_fault);
        }
        // All of it is looked at before any of it is believed: its checksum stands for the whole.
        if in_group(data, |_| Ok(())).is_err() {
            self.lost_groups += 1;
            self.lost_bytes += data.len() as u64;
            return Ok(());
        }
        in_group(data, |record| self.take(record).map_err(write_fault))
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), McapError> {
        match record {
            Record::Schema { header, data } => {
                let id = self.writer.add_schema(&header.name, &header.encoding, data)?;
                self.schemas.insert(header.id, id);
            }
            Record::Channel(channel) => {
                let schema = self.schemas.get(&channel.schema_id).copied().unwrap_or(0);
                let (topic, encoding) = (&channel.topic, &channel.message_encoding);
                let id = self.writer.add_channel(schema, topic, encoding, &channel.metadata)?;
                self.channels.insert(channel.id, id);
            }
            Record::Message { header, data } => {
                // One whose channel was lost says nothing any more.
                let Some(&channel_id) = self.channels.get(&header.channel_id) else { return Ok(()) };
                self.writer.write_to_known_channel(&MessageHeader { channel_id, ..*header }, data)?;
                self.messages += 1;
            }
            Record::Attachment { header, data, .. } => {
                let (name, media_type) = (header.name.clone(), header.media_type.clone());
                let (log_time, create_time) = (header.log_time, header.create_time);
                let data = Cow::Borrowed(data.as_ref());
                self.writer.attach(&Attachment { log_time, create_time, name, media_type, data })?;
            }
            Record::Metadata(metadata) => self.writer.write_metadata(metadata)?,
            _ => {}
        }
        Ok(())
    }
}
