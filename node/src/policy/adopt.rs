//! How what is laid out in another way becomes a recording: its name, the order of its files, its manifest.

use std::{collections::BTreeMap, time::Duration};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, MachineId, RecordingName, UnixNs,
    adopt::{ADOPTED_FROM, AdoptedFrom},
    limits::NAME_BYTES_MAX,
    manifest::{Channel, Manifest, ManifestChunk, SCHEMA_VERSION},
};
use serde_json::{Map, Value};

/// How long a file must have been still before nobody is taken to write it any more.
const STILL_MIN: Duration = Duration::from_secs(60);

/// What a recording's name ends in that could not have its source's name.
const SUFFIX: &str = "-adopted";

/// Tells whether a file that was written at `touched_at_ns` has been still for long enough. One of the future was written by
/// another clock, or before this one was set back: who writes it now gives it the time of now.
pub const fn is_still(touched_at_ns: UnixNs, now_ns: UnixNs) -> bool {
    touched_at_ns.abs_diff(now_ns) as u128 >= STILL_MIN.as_nanos()
}

/// Splits a flat chunk file's stem, `{session}_chunk_{NNN}`.
pub fn session(stem: &str) -> Option<(&str, &str)> {
    let (session, number) = stem.rsplit_once("_chunk_")?;
    let is_one = !session.is_empty() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_one.then_some((session, number))
}

/// What orders the files of one session, and of a folder that says nothing of their order: numbers by their value.
pub fn order_key(name: &str) -> Vec<(u64, String)> {
    let mut parts = vec![(0_u64, String::new())];
    let mut is_number = false;
    for letter in name.chars() {
        match letter.to_digit(10) {
            Some(digit) => {
                if !is_number {
                    parts.push((0, String::new()));
                }
                if let Some((number, _)) = parts.last_mut() {
                    *number = number.saturating_mul(10).saturating_add(u64::from(digit));
                }
                is_number = true;
            }
            None => {
                if let Some((_, text)) = parts.last_mut() {
                    text.push(letter);
                }
                is_number = false;
            }
        }
    }
    parts
}

/// Orders a bag's files as its metadata lists them; those that it does not list come last, by name.
///
/// Only the last parts of the listed paths count: nothing that stands in a file leads out of its folder.
pub fn order_bag(files: &mut [String], listed: &[String]) {
    let places: BTreeMap<_, _> =
        listed.iter().enumerate().map(|(place, path)| (path.rsplit('/').next().unwrap_or(path), place)).collect();
    files.sort_by_cached_key(|name| (places.get(name.as_str()).copied().unwrap_or(usize::MAX), order_key(name)));
}

/// Makes a legal name of a source's: what a name may not have becomes `_`. `None` where nothing is left of it.
pub fn legal_name(source: &str) -> Option<RecordingName> {
    let legal = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '_' };
    source.chars().map(legal).take(NAME_BYTES_MAX).collect::<String>().parse().ok()
}

/// Returns the name of a recording that can't have its source's: the source is a folder of that name.
pub fn other_name(name: &RecordingName) -> Option<RecordingName> {
    let kept: String = name.as_str().chars().take(NAME_BYTES_MAX - SUFFIX.len()).collect();
    format!("{kept}{SUFFIX}").parse().ok()
}

/// What an MCAP file holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileFacts {
    /// The first and the last log time; `None` without a message.
    pub log_times_ns: Option<(UnixNs, UnixNs)>,
    /// Its messages.
    pub messages: u64,
    /// Its channels, by id.
    pub channels: Vec<ChannelFacts>,
}

/// A channel of an MCAP file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelFacts {
    /// The topic.
    pub topic: String,
    /// Its id in the file.
    pub channel_id: u16,
    /// How its messages are encoded.
    pub message_encoding: String,
    /// How they were encoded on the bus, where the file tells.
    pub zenoh_encoding: Option<String>,
    /// What they are, where the file tells.
    pub schema_name: Option<String>,
    /// How many they are.
    pub messages: u64,
    /// When the first and the last were published; a summary does not tell.
    pub publish_times_ns: Option<(UnixNs, UnixNs)>,
}

/// A file that becomes a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewChunk {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// What it holds; `None` where that can't be told.
    pub facts: Option<FileFacts>,
}

/// Returns the manifest's entry of a chunk.
pub fn manifest_chunk(index: u32, chunk: &NewChunk) -> ManifestChunk {
    let log_times_ns = chunk.facts.as_ref().and_then(|facts| facts.log_times_ns);
    ManifestChunk {
        name: ChunkName::new(index, &chunk.digest).to_string(),
        index,
        size_bytes: chunk.size_bytes,
        sha256: chunk.digest.to_string(),
        log_time_first_ns: log_times_ns.map(|(first, _)| first),
        log_time_last_ns: log_times_ns.map(|(_, last)| last),
        ..ManifestChunk::default()
    }
}

/// Joins the channels of several files: one entry for a topic that means the same in all of them.
pub fn channels<'a>(files: impl IntoIterator<Item = &'a FileFacts>) -> Vec<Channel> {
    let mut joined: BTreeMap<_, Channel> = BTreeMap::new();
    for channel in files.into_iter().flat_map(|facts| &facts.channels) {
        let key = (&channel.topic, &channel.message_encoding, &channel.schema_name);
        let entry = joined.entry(key).or_insert_with(|| Channel {
            topic: channel.topic.clone(),
            channel_id: Some(channel.channel_id.into()),
            message_encoding: Some(channel.message_encoding.clone()),
            zenoh_encoding: channel.zenoh_encoding.clone(),
            message_count: Some(0),
            schema_name: channel.schema_name.clone(),
            ..Channel::default()
        });
        entry.message_count = entry.message_count.map(|count| count + channel.messages);
        if let Some((first, last)) = channel.publish_times_ns {
            entry.publish_time_first_ns = Some(entry.publish_time_first_ns.map_or(first, |known| known.min(first)));
            entry.publish_time_last_ns = Some(entry.publish_time_last_ns.map_or(last, |known| known.max(last)));
        }
    }
    joined.into_values().collect()
}

/// Makes the manifest of a recording that was adopted. `fallback_ns` stands for its times where no message tells them.
pub fn manifest(
    name: &RecordingName,
    machine_id: &MachineId,
    chunks: &[NewChunk],
    from: &AdoptedFrom,
    fallback_ns: UnixNs,
) -> Manifest {
    let facts = || chunks.iter().filter_map(|chunk| chunk.facts.as_ref());
    let log_times_ns = || facts().filter_map(|facts| facts.log_times_ns);
    let started_at_ns = log_times_ns().map(|(first, _)| first).min().unwrap_or(fallback_ns);
    let ended_at_ns = log_times_ns().map(|(_, last)| last).max().unwrap_or(fallback_ns);
    Manifest {
        schema_version: SCHEMA_VERSION,
        name: name.to_string(),
        machine_id: machine_id.to_string(),
        started_at_ns,
        ended_at_ns: Some(ended_at_ns),
        duration_ns: Some(ended_at_ns - started_at_ns),
        size_bytes: Some(chunks.iter().map(|chunk| chunk.size_bytes).sum()),
        mode: Some("streaming".into()),
        window_secs: None,
        trigger: None,
        selection: None,
        profile_name: None,
        profile_sha256: None,
        recorder_version: None,
        tags: vec!["adopted".into()],
        fleet_router: None,
        corrupt: None,
        channels: channels(facts()),
        chunks: (0..).zip(chunks).map(|(index, chunk)| manifest_chunk(index, chunk)).collect(),
        other: Map::from_iter([(ADOPTED_FROM.to_owned(), from.to_value())]),
    }
}

/// Makes a recording of another machine this machine's. What it says of uploads holds for the other's objects and goes.
pub fn take_over(manifest: &mut Manifest, machine_id: &MachineId, at_ns: UnixNs) {
    let from = AdoptedFrom {
        source: manifest.name.clone(),
        machine_id: Some(std::mem::replace(&mut manifest.machine_id, machine_id.to_string())),
        adopted_at_ns: at_ns,
        files: Vec::new(),
    };
    // Where it came from before that stays told too.
    let mut told = from.to_value();
    if let (Some(earlier), Value::Object(told)) = (manifest.other.remove(ADOPTED_FROM), &mut told) {
        told.insert("before".into(), earlier);
    }
    manifest.other.insert(ADOPTED_FROM.into(), told);
    for chunk in &mut manifest.chunks {
        (chunk.uploaded_at_ns, chunk.remote_etag) = (None, None);
    }
    let last_ns = manifest.chunks.iter().filter_map(|chunk| chunk.log_time_last_ns).max();
    if manifest.ended_at_ns.is_none() {
        manifest.ended_at_ns = Some(last_ns.unwrap_or(manifest.started_at_ns).max(manifest.started_at_ns));
    }
}

/// Adds chunks that no manifest named to the end of one.
pub fn append(manifest: &mut Manifest, chunks: &[NewChunk]) {
    let first = u32::try_from(manifest.chunks.len()).unwrap_or(u32::MAX);
    manifest.chunks.extend((first..).zip(chunks).map(|(index, chunk)| manifest_chunk(index, chunk)));
    let last_ns = manifest.chunks.iter().filter_map(|chunk| chunk.log_time_last_ns).max().unwrap_or(0);
    let ended_at_ns = manifest.ended_at_ns.unwrap_or(0).max(last_ns).max(manifest.started_at_ns);
    manifest.ended_at_ns = Some(ended_at_ns);
    manifest.duration_ns = Some(ended_at_ns - manifest.started_at_ns);
    manifest.size_bytes = Some(manifest.chunks.iter().map(|chunk| chunk.size_bytes).sum());
    let facts: Vec<_> = chunks.iter().filter_map(|chunk| chunk.facts.as_ref()).collect();
    for more in channels(facts) {
        let is_same = |known: &&mut Channel| known.topic == more.topic && known.schema_name == more.schema_name;
        match manifest.channels.iter_mut().find(is_same) {
            Some(known) => {
                known.message_count = known.message_count.zip(more.message_count).map(|(known, more)| known + more);
                known.publish_time_last_ns = known.publish_time_last_ns.max(more.publish_time_last_ns);
            }
            None => manifest.channels.push(more),
        }
    }
}

/// How a recording that is there stands to what is to be adopted under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceMatch {
    /// It was made of the same files.
    Same,
    /// It was made of the first of them.
    Begun,
    /// It is another one.
    Other,
}

/// Compares the digests of the files that a recording was made of with those that are to be adopted.
pub fn standing(known: &AdoptedFrom, wanted: &[Digest]) -> SourceMatch {
    let is_begun = known.files.len() <= wanted.len()
        && !known.files.is_empty()
        && known.files.iter().zip(wanted).all(|(file, digest)| file.sha256 == *digest);
    match (is_begun, known.files.len() == wanted.len()) {
        (true, true) => SourceMatch::Same,
        (true, false) => SourceMatch::Begun,
        (false, _) => SourceMatch::Other,
    }
}

#[cfg(test)]
mod tests;
