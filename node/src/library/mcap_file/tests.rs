use std::{collections::BTreeMap, io::Cursor};

use mcap::{Compression, WriteOptions, records::MessageHeader};

use super::*;
use crate::durable::Staged;

const MESSAGES: u32 = 300;

/// A file of two channels in groups of some twenty messages.
fn file(options: WriteOptions) -> Vec<u8> {
    let mut writer = options.profile("test").chunk_size(Some(20_000)).create(Cursor::new(Vec::new())).unwrap();
    let schema = writer.add_schema("std_msgs/String", "ros2msg", b"string data").unwrap();
    let metadata = BTreeMap::from([(ZENOH_ENCODING.to_owned(), "application/cdr".to_owned())]);
    let channels = [
        writer.add_channel(schema, "/chatter", "cdr", &metadata).unwrap(),
        writer.add_channel(0, "/raw", "json", &BTreeMap::new()).unwrap(),
    ];
    for sequence in 0..MESSAGES {
        let (channel_id, log_time) = (channels[sequence as usize % 2], 1000 + u64::from(sequence));
        let header = MessageHeader { channel_id, sequence, log_time, publish_time: log_time - 500 };
        let mut data = [0; 960];
        fastrand::Rng::with_seed(sequence.into()).fill(&mut data);
        writer.write_to_known_channel(&header, &data).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

fn options(compression: Option<Compression>) -> WriteOptions {
    WriteOptions::new().compression(compression)
}

#[expect(clippy::disallowed_methods, reason = "tests make broken files")]
fn stored(folder: &tempfile::TempDir, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.path().join("file.mcap");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn told(bytes: &[u8]) -> Result<FileFacts, McapFault> {
    facts(&stored(&tempfile::tempdir().unwrap(), bytes), &|| true)
}

/// What is recovered of a file, and the new file's content.
fn recovered(bytes: &[u8]) -> Result<(Recovered, Vec<u8>), McapFault> {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(&folder, bytes);
    let mut staged = Staged::create(folder.path().join("new")).unwrap();
    let recovered = recover(&path, &mut staged, &|| true)?;
    let content = std::fs::read(staged.path()).unwrap();
    assert_eq!(facts(staged.path(), &|| true).unwrap().messages, recovered.facts.messages, "its summary says the same");
    Ok((recovered, content))
}

#[test]
fn a_summary_and_a_scan_tell_the_same_whatever_the_compression() {
    for compression in [None, Some(Compression::Zstd), Some(Compression::Lz4)] {
        let by_summary = told(&file(options(compression))).unwrap();
        assert_eq!(by_summary.log_times_ns, Some((1000, 1000 + u64::from(MESSAGES) - 1)));
        assert_eq!(by_summary.messages, u64::from(MESSAGES));
        let channel = &by_summary.channels[0];
        assert_eq!((channel.topic.as_str(), channel.messages), ("/chatter", u64::from(MESSAGES) / 2));
        assert_eq!(channel.zenoh_encoding.as_deref(), Some("application/cdr"));
        assert_eq!(channel.schema_name.as_deref(), Some("std_msgs/String"));
        for none in [
            options(compression).emit_summary_records(false).emit_summary_offsets(false),
            options(compression).emit_statistics(false),
            options(compression).use_chunks(false),
        ] {
            let mut by_scan = told(&file(none)).unwrap();
            for channel in &mut by_scan.channels {
                channel.publish_times_ns = None;
            }
            assert_eq!(by_scan, by_summary);
        }
    }
}

#[test]
fn what_is_no_whole_mcap_file_is_refused_with_its_reason() {
    let whole = file(options(None));
    for not_mcap in [&b""[..], b"x", b"not an mcap file at all, whatever its name says"] {
        assert!(matches!(told(not_mcap), Err(McapFault::NotMcap)));
    }
    for end in (8..whole.len()).step_by(997).chain([whole.len() - 1, whole.len() - 8, whole.len() - 30]) {
        let fault = told(&whole[..end]).unwrap_err();
        assert!(fault.is_recoverable(), "{end}: {fault}");
    }
    let garbage = [&whole[..whole.len() - 37], &[7; 29][..], MAGIC].concat();
    assert!(told(&garbage).unwrap_err().is_recoverable());
}

#[test]
fn any_bytes_give_an_answer_and_no_panic() {
    let whole = file(options(Some(Compression::Zstd)));
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..random.usize(1..4) {
            let place = random.usize(8..bytes.len());
            bytes[place] = random.u8(..);
        }
        bytes.truncate(random.usize(bytes.len() / 2..=bytes.len()));
        let answer = recovered(&bytes).map(|(recovered, _)| recovered.facts.messages);
        assert!(answer.as_ref().map_or(0, |messages| *messages) <= u64::from(MESSAGES), "{answer:?}");
        told(&bytes).ok();
    }
}

#[test]
fn every_whole_message_before_the_cut_is_recovered_and_the_loss_is_told() {
    for compression in [None, Some(Compression::Zstd)] {
        let whole = file(options(compression));
        let (all, first) = recovered(&whole).unwrap();
        assert_eq!((all.facts.messages, all.broken_at, all.lost_bytes), (u64::from(MESSAGES), None, 0));
        assert_eq!(recovered(&whole).unwrap().1, first, "the same bytes come out each time");
        let mut last = 0;
        for end in (whole.len() / 3..whole.len() * 9 / 10).step_by(1009) {
            let (found, _) = recovered(&whole[..end]).unwrap();
            assert!(found.facts.messages >= last && found.facts.messages < u64::from(MESSAGES), "{end}: {found:?}");
            assert_eq!(found.broken_at.map(|at| at + found.tail_bytes), Some(end as u64));
            last = found.facts.messages;
        }
        assert!(last > u64::from(MESSAGES) * 7 / 10, "{last}");
    }
}

#[test]
fn a_damaged_group_is_lost_and_what_comes_after_it_is_not() {
    for compression in [None, Some(Compression::Zstd)] {
        let mut bytes = file(options(compression));
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        let (found, _) = recovered(&bytes).unwrap();
        assert_eq!((found.lost_groups, found.broken_at), (1, None), "{found:?}");
        assert!(
            found.facts.messages < u64::from(MESSAGES) && found.facts.messages >= u64::from(MESSAGES) - 25,
            "{found:?}"
        );
        let last = found.facts.log_times_ns.unwrap().1;
        assert_eq!(last, 1000 + u64::from(MESSAGES) - 1, "the messages after the damage are there");
    }
}

#[test]
fn a_reading_that_is_stopped_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = stored(&folder, &file(options(None).emit_statistics(false)));
    assert!(matches!(facts(&path, &|| false), Err(McapFault::Stopped)));
    let mut staged = Staged::create(folder.path().join("new")).unwrap();
    assert!(matches!(recover(&path, &mut staged, &|| false), Err(McapFault::Stopped)));
}
