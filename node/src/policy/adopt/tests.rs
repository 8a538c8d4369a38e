use bubbaloop_storage_schemas::{adopt::AdoptedFile, manifest::Indices};

use super::*;

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.sort_by_cached_key(|name| order_key(name));
    names
}

#[test]
fn files_of_a_session_stand_in_the_order_of_their_numbers() {
    assert_eq!(session("2026-07-26T12-00-00_chunk_012"), Some(("2026-07-26T12-00-00", "012")));
    assert_eq!(session("a_chunk_1_chunk_2"), Some(("a_chunk_1", "2")));
    for none in ["drive", "_chunk_1", "a_chunk_", "a_chunk_1x"] {
        assert_eq!(session(none), None, "{none}");
    }
    assert_eq!(sorted(&["s_10", "s_9", "s_1000", "s_0"]), ["s_0", "s_9", "s_10", "s_1000"]);
    assert_eq!(sorted(&["b_1", "a_99999999999999999999999", "a_2"]), ["a_2", "a_99999999999999999999999", "b_1"]);
}

#[test]
fn a_bags_files_stand_in_the_order_of_its_metadata_and_nothing_leads_out_of_its_folder() {
    let mut files: Vec<String> = ["bag_0.mcap", "bag_1.mcap", "bag_10.mcap", "bag_2.mcap"].map(String::from).into();
    let listed = ["bag_2.mcap", "some/where/bag_1.mcap", "../../etc/passwd", "gone.mcap"].map(String::from);
    order_bag(&mut files, &listed);
    assert_eq!(files, ["bag_2.mcap", "bag_1.mcap", "bag_0.mcap", "bag_10.mcap"]);
    order_bag(&mut files, &[]);
    assert_eq!(files, ["bag_0.mcap", "bag_1.mcap", "bag_2.mcap", "bag_10.mcap"]);
}

#[test]
fn a_name_is_made_legal_and_one_that_is_taken_gets_another() {
    for (source, name) in [("sp ace/ü", "sp_ace__"), ("2026-07-26T12-00-00", "2026-07-26T12-00-00"), ("a", "a")] {
        assert_eq!(legal_name(source).unwrap().as_str(), name);
    }
    assert_eq!(legal_name(&"x".repeat(500)).unwrap().as_str().len(), 128);
    for source in ["", ".", ".."] {
        assert_eq!(legal_name(source), None, "{source:?}");
    }
    assert_eq!(other_name(&"bag".parse().unwrap()).unwrap().as_str(), "bag-adopted");
    assert_eq!(other_name(&"x".repeat(128).parse().unwrap()).unwrap().as_str().len(), 128);
}

fn channel(topic: &str, messages: u64) -> ChannelFacts {
    ChannelFacts {
        topic: topic.into(),
        channel_id: 3,
        message_encoding: "cdr".into(),
        zenoh_encoding: None,
        schema_name: Some("std_msgs/String".into()),
        messages,
        publish_times_ns: Some((messages, messages * 2)),
    }
}

fn chunk(content: &str, log_times_ns: Option<(u64, u64)>, channels: Vec<ChannelFacts>) -> NewChunk {
    let messages = channels.iter().map(|channel| channel.messages).sum();
    let facts = Some(FileFacts { log_times_ns, messages, channels });
    NewChunk { digest: Digest::of(content.as_bytes()), size_bytes: content.len() as u64, facts }
}

fn from(contents: &[&str]) -> AdoptedFrom {
    let file = |content: &&str| AdoptedFile {
        file: format!("{content}.mcap"),
        size_bytes: 1,
        mtime_ns: 2,
        sha256: Digest::of(content.as_bytes()),
        outside: false,
        recovered: false,
    };
    AdoptedFrom { source: "s".into(), machine_id: None, adopted_at_ns: 9, files: contents.iter().map(file).collect() }
}

#[test]
fn a_manifest_holds_what_the_files_tell_and_is_a_recorders_manifest() {
    let chunks = [
        chunk("a", Some((20, 30)), vec![channel("/x", 2), channel("/y", 1)]),
        chunk("bb", None, vec![]),
        chunk("c", Some((10, 25)), vec![channel("/x", 5)]),
    ];
    let (name, machine_id) = ("drive".parse().unwrap(), "robot_1".parse().unwrap());
    let manifest = manifest(&name, &machine_id, &chunks, &from(&["a", "bb", "c"]), 7);
    let checked = manifest.check(Indices::Contiguous).unwrap();
    assert_eq!(checked.chunks.len(), 3);
    assert_eq!((manifest.started_at_ns, manifest.ended_at_ns, manifest.duration_ns), (10, Some(30), Some(20)));
    assert_eq!(manifest.size_bytes, Some(4));
    let told: Vec<_> =
        manifest.channels.iter().map(|channel| (channel.topic.as_str(), channel.message_count)).collect();
    assert_eq!(told, [("/x", Some(7)), ("/y", Some(1))]);
    assert_eq!(
        (manifest.channels[0].publish_time_first_ns, manifest.channels[0].publish_time_last_ns),
        (Some(2), Some(10))
    );
    assert_eq!(AdoptedFrom::of(&manifest), Some(from(&["a", "bb", "c"])));
    let empty = super::manifest(&name, &machine_id, &[chunk("a", None, vec![])], &from(&["a"]), 7);
    assert_eq!((empty.started_at_ns, empty.ended_at_ns), (7, Some(7)), "without a message the file's own time stands");
}

#[test]
fn a_recording_of_another_machine_becomes_ours_and_tells_whose_it_was() {
    let chunks = [chunk("a", Some((20, 30)), vec![])];
    let mut taken = manifest(&"drive".parse().unwrap(), &"robot_2".parse().unwrap(), &chunks, &from(&["a"]), 7);
    taken.ended_at_ns = None;
    taken.chunks[0].uploaded_at_ns = Some(5);
    take_over(&mut taken, &"robot_1".parse().unwrap(), 99);
    let told = AdoptedFrom::of(&taken).unwrap();
    assert_eq!(
        (taken.machine_id.as_str(), told.machine_id.as_deref(), told.adopted_at_ns),
        ("robot_1", Some("robot_2"), 99)
    );
    assert_eq!((taken.ended_at_ns, taken.chunks[0].uploaded_at_ns), (Some(30), None), "a claim of other objects goes");
    assert_eq!(taken.other[ADOPTED_FROM]["before"]["source"], "s");
}

#[test]
fn orphans_come_behind_what_is_named() {
    let chunks = [chunk("a", Some((20, 30)), vec![channel("/x", 2)])];
    let mut manifest = manifest(&"drive".parse().unwrap(), &"m".parse().unwrap(), &chunks, &from(&["a"]), 7);
    append(&mut manifest, &[chunk("bb", Some((31, 40)), vec![channel("/x", 3), channel("/z", 1)])]);
    assert_eq!(manifest.check(Indices::Contiguous).unwrap().chunks.len(), 2);
    assert_eq!((manifest.ended_at_ns, manifest.size_bytes), (Some(40), Some(3)));
    let told: Vec<_> =
        manifest.channels.iter().map(|channel| (channel.topic.as_str(), channel.message_count)).collect();
    assert_eq!(told, [("/x", Some(5)), ("/z", Some(1))]);
}

#[test]
fn a_recording_of_the_same_files_is_the_same_and_one_of_the_first_of_them_is_begun() {
    let digests = |contents: &[&str]| contents.iter().map(|content| Digest::of(content.as_bytes())).collect::<Vec<_>>();
    for (known, wanted, expected) in [
        (&["a", "b"][..], &["a", "b"][..], SourceMatch::Same),
        (&["a"], &["a", "b"], SourceMatch::Begun),
        (&["a", "b"], &["a"], SourceMatch::Other),
        (&["a", "c"], &["a", "b"], SourceMatch::Other),
        (&[], &["a"], SourceMatch::Other),
    ] {
        assert_eq!(standing(&from(known), &digests(wanted)), expected, "{known:?} {wanted:?}");
    }
}

#[test]
fn a_file_is_still_a_minute_after_it_was_written_and_never_before_that() {
    const MINUTE_NS: u64 = 60_000_000_000;
    assert!(is_still(5, 5 + MINUTE_NS));
    assert!(!is_still(5, 4 + MINUTE_NS));
    assert!(!is_still(4 + MINUTE_NS, 5), "a clock that ticks back a little tells nothing");
    assert!(is_still(5 + MINUTE_NS, 5), "who writes a file now gives it the time of now");
}
