//! Replies as people read them.

use std::{fmt::Write, time::Duration};

use bubbaloop_storage_schemas::Timestamp;
use bytesize::ByteSize;
use serde_json::Value;

use super::screen::{Grid, Screen, plain};
use crate::engine::holdings::Holding;

/// A machine of the fleet that did not answer.
#[derive(Debug)]
pub(super) struct Unheard {
    pub(super) machine: String,
    /// How it is known.
    pub(super) known: &'static str,
}

fn text(value: &Value, name: &str) -> String {
    plain(value[name].as_str().unwrap_or("-"))
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).to_string()
}

/// So many chunks.
pub(super) fn chunks(count: u64) -> String {
    if count == 1 { "1 chunk".into() } else { format!("{count} chunks") }
}

/// A time to the second: what follows is noise for people.
fn time(value: &Value, name: &str) -> String {
    match value[name].as_str() {
        Some(text) => text.split('.').next().unwrap_or(text).trim_end_matches('Z').replace('T', " "),
        None => "-".into(),
    }
}

fn rows(rows: &Value) -> &[Value] {
    rows.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The recordings of one machine, or of several with a column for them.
///
/// With several machines, one without recordings has a row too, and so has one that did not answer.
pub(super) fn recordings(screen: Screen, replies: &[Value], is_fleet: bool, unheard: &[Unheard]) -> String {
    let mut head = vec![
        ("recording", 0),
        ("state", 0),
        ("uploaded", 1),
        ("size", 3),
        ("started (UTC)", 4),
        ("tags", 5),
        ("reason", 1),
    ];
    if is_fleet {
        head.insert(0, ("machine", 0));
    }
    let mut table = Grid::new(&head);
    for reply in replies {
        if is_fleet && rows(&reply["recordings"]).is_empty() {
            table.row(vec![text(reply, "machine_id"), "no recordings".into()]);
        }
        for row in rows(&reply["recordings"]) {
            let tags: Vec<_> = rows(&row["tags"]).iter().filter_map(Value::as_str).collect();
            let mut cells = vec![
                text(row, "recording"),
                text(row, "state") + if row["corrupt"] == true { ", corrupt" } else { "" },
                format!("{}/{}", number(row, "uploaded_chunks"), number(row, "chunks")),
                size(number(row, "size_bytes")),
                time(row, "started_at"),
                plain(&tags.join(" ")),
                plain(row["reason"].as_str().unwrap_or_default()),
            ];
            if is_fleet {
                cells.insert(0, text(reply, "machine_id"));
            }
            table.row(cells);
        }
    }
    for Unheard { machine, known } in unheard {
        let mut cells = vec![plain(machine), "no answer".into()];
        cells.resize(head.len() - 1, String::new());
        cells.push((*known).to_owned());
        table.row(cells);
    }
    if table.is_empty() { "no recordings".into() } else { table.show(screen) }
}

/// What the store holds.
pub(super) fn holdings(screen: Screen, held: &[Holding]) -> String {
    let mut table = Grid::new(&[("machine", 0), ("recording", 0), ("chunks", 2), ("size", 1), ("manifest", 3)]);
    for held in held {
        let manifest = if held.has_manifest { "yes" } else { "no" };
        table.row(vec![
            held.machine_id.to_string(),
            held.recording.to_string(),
            held.chunks.to_string(),
            size(held.size_bytes),
            manifest.into(),
        ]);
    }
    if table.is_empty() { "the store holds nothing of it".into() } else { table.show(screen) }
}

/// One recording and its chunks.
pub(super) fn recording(screen: Screen, reply: &Value) -> String {
    let mut head = format!(
        "{} of {}: {}, {}/{} chunks uploaded, {} of {}\n",
        text(reply, "recording"),
        text(reply, "recording_machine_id"),
        text(reply, "state") + if reply["corrupt"] == true { ", corrupt" } else { "" },
        number(reply, "uploaded_chunks"),
        number(reply, "chunk_count"),
        size(number(reply, "uploaded_bytes")),
        size(number(reply, "size_bytes")),
    );
    if let Some(reason) = reply["reason"].as_str() {
        writeln!(head, "reason: {}", plain(reason)).ok();
    }
    writeln!(head, "from {} to {} (UTC)", time(reply, "started_at"), time(reply, "ended_at")).ok();
    let mut table = Grid::new(&[
        ("chunk", 0),
        ("size", 4),
        ("here", 2),
        ("upload", 0),
        ("proof", 5),
        ("uploaded (UTC)", 6),
        ("reason", 1),
    ]);
    for chunk in rows(&reply["chunks"]) {
        table.row(vec![
            text(chunk, "name"),
            size(number(chunk, "size_bytes")),
            text(chunk, "local"),
            text(chunk, "upload"),
            text(chunk, "proof"),
            time(chunk, "uploaded_at"),
            plain(chunk["reason"].as_str().unwrap_or_default()),
        ]);
    }
    format!("{}\n\n{}", screen.lines(head.trim_end()), table.show(screen))
}

/// The uploads that were given up.
pub(super) fn dead_letters(screen: Screen, reply: &Value) -> String {
    let mut table =
        Grid::new(&[("recording", 0), ("chunk", 0), ("size", 4), ("tries", 2), ("last (UTC)", 3), ("reason", 0)]);
    for letter in rows(&reply["dead_letters"]) {
        table.row(vec![
            text(letter, "recording"),
            text(letter, "chunk"),
            size(number(letter, "size_bytes")),
            number(letter, "attempts").to_string(),
            time(letter, "last_tried_at"),
            text(letter, "reason"),
        ]);
    }
    if table.is_empty() { "no dead letters".into() } else { table.show(screen) }
}

/// Settings with their sources.
pub(super) fn settings(screen: Screen, settings: &Value) -> String {
    let mut table = Grid::new(&[("setting", 0), ("value", 0), ("source", 1)]);
    for setting in rows(settings) {
        let value = match &setting["value"] {
            Value::Null => "-".into(),
            Value::String(text) => plain(text),
            other => plain(&other.to_string()),
        };
        table.row(vec![text(setting, "key"), value, text(setting, "source")]);
    }
    table.show(screen)
}

/// An event in a line.
pub(super) fn event(screen: Screen, event: &Value) -> String {
    let at = event["at_ns"].as_u64().map(|at_ns| Timestamp(at_ns).to_rfc3339()).unwrap_or_default();
    let head = ["library_id", "boot_id", "seq", "at_ns", "machine_id", "kind"];
    let fields = event.as_object().into_iter().flatten().filter(|(name, _)| !head.contains(&name.as_str()));
    let fields: Vec<_> = fields
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={}", plain(text)),
            other => format!("{name}={}", plain(&other.to_string())),
        })
        .collect();
    screen.lines(&format!("{at} {} {} {}", text(event, "machine_id"), text(event, "kind"), fields.join(" ")))
}

/// What is safe, first of all.
pub(super) fn status(screen: Screen, reply: &Value) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &'static str, value: String| lines.push((name, value));
    line("machine", text(reply, "machine_id"));
    let at_risk = number(reply, "at_risk_chunks");
    line("safe", if reply["safe"] == true { "yes".into() } else { "NO".into() });
    if at_risk > 0 {
        let since = time(reply, "oldest_at_risk_at");
        let bytes = size(number(reply, "at_risk_bytes"));
        line("at risk", format!("{}, {bytes}, the oldest since {since} UTC", chunks(at_risk)));
    }
    if reply["paused"].is_object() {
        let since = reply["paused"]["since_ns"].as_u64().map(|since_ns| Timestamp(since_ns).to_rfc3339());
        line("paused", format!("by a person since {}; `resume` ends it", since.unwrap_or_default()));
    }
    if reply["blocked"].is_object() {
        let blocked = &reply["blocked"];
        line("blocked", format!("{}: {}", text(blocked, "reason"), text(blocked, "hint")));
    }
    if reply["failing"].is_object() {
        let since = reply["failing"]["since_ns"].as_u64().map(|since_ns| Timestamp(since_ns).to_rfc3339());
        line("failing", format!("{}, since {}", text(&reply["failing"], "message"), since.unwrap_or_default()));
    }
    let queue = &reply["queue"];
    let in_flight = format!("{} on their way ({})", number(queue, "in_flight"), size(number(queue, "in_flight_bytes")));
    line("queue", format!("{} waiting, {in_flight}", number(queue, "waiting")));
    if let Some(millis) = queue["next_try_in_ms"].as_u64() {
        let seconds = Duration::from_secs(millis.div_ceil(1000));
        line("next try", format!("in {}", humantime::format_duration(seconds)));
    }
    line("upload rate", format!("{}/s", size(number(reply, "upload_rate_bytes_per_s"))));
    line("dead letters", number(reply, "dead_letters").to_string());
    line("refused events", refused(&reply["refused_events"]));
    let store = &reply["store"];
    let same_disk = if store["same_disk"] == true { ", on the library's own disk: nothing in it is safe" } else { "" };
    line("store", format!("{} {}{same_disk}", text(store, "backend"), text(store, "store_id")));
    if let Some(free) = reply["disk_free_bytes"].as_u64() {
        let full = reply["disk_full_in_s"].as_u64().map(Duration::from_secs);
        let full = full.map(|full| format!(", full in {}", humantime::format_duration(full))).unwrap_or_default();
        line("disk", format!("{} free{full}", size(free)));
    }
    if number(reply, "disk_low_bytes") > 0 {
        let short = size(number(reply, "disk_low_bytes"));
        line("disk low", format!("{short} less than the settings want, and nothing more may be removed just now"));
    }
    for twin in rows(&reply["twins"]) {
        let twin = twin.as_str().unwrap_or_default();
        line("twin", format!("library {twin} goes by this machine's id too: give one of them another machine_id"));
    }
    if reply["durable"] == false {
        line("durable", "NO: the node's own records don't get to the disk".into());
    }
    for problem in rows(&reply["config_problems"]) {
        let place = format!("{} ({})", text(problem, "key"), text(problem, "source"));
        line("wrong setting", format!("{place}: {}; {}", text(problem, "message"), text(problem, "hint")));
    }
    line("version", format!("{}, since {} UTC", text(reply, "version"), time(reply, "started_at")));
    screen.named(&lines)
}

fn refused(events: &Value) -> String {
    let kinds = ["foreign", "illegal", "missing", "mismatch", "undecodable"];
    let told: Vec<_> = kinds
        .iter()
        .filter(|kind| number(events, kind) > 0)
        .map(|kind| format!("{} {kind}", number(events, kind)))
        .collect();
    if told.is_empty() { "0".into() } else { format!("{}: {}", number(events, "total"), told.join(", ")) }
}

/// What a reconcile saw and did.
pub(super) fn reconciled(screen: Screen, reply: &Value) -> String {
    outcome(screen, reply, "chunk", ["recording", "recording"])
}

/// What an adopt saw and did.
pub(super) fn adopted(screen: Screen, reply: &Value) -> String {
    outcome(screen, reply, "file", ["source", "recording"])
}

/// What was removed, and what stays.
pub(super) fn removed(screen: Screen, reply: &Value) -> String {
    let mut out = job_line(screen, reply);
    let result = &reply["result"];
    let done = if result["dry_run"] == true { "would be removed" } else { "removed" };
    for (counted, bytes, whence) in
        [("removed_files", "removed_file_bytes", "the disk"), ("removed_objects", "removed_object_bytes", "the store")]
    {
        let counts = &result["counts"];
        if number(counts, counted) > 0 {
            let bytes = size(number(counts, bytes));
            let line = format!("{done} from {whence}: {}, {bytes}", chunks(number(counts, counted)));
            write!(out, "\n{}", screen.lines(&line)).ok();
        }
    }
    for row in rows(&result["actions"]) {
        write!(out, "\n{}", screen.lines(&format!("{} {}", text(row, "kind"), text(row, "path")))).ok();
    }
    for row in rows(&result["findings"]) {
        let what = row["chunk"].as_str().or_else(|| row["path"].as_str()).unwrap_or_default();
        let line = format!("{} {}: {}", text(row, "kind"), plain(what), text(row, "message"));
        write!(out, "\n{}", screen.lines(&line)).ok();
    }
    out
}

/// A job's findings and actions: `part` is what of a recording they are about, `wholes` what the whole is called in each.
fn outcome(screen: Screen, reply: &Value, part: &'static str, wholes: [&'static str; 2]) -> String {
    let mut out = job_line(screen, reply);
    let (result, mut is_quiet) = (&reply["result"], true);
    let fetched = &result["counts"];
    if number(fetched, "restored_chunks") > 0 {
        let bytes = size(number(fetched, "restored_bytes"));
        let line = format!("from the store: {}, {bytes}", chunks(number(fetched, "restored_chunks")));
        write!(out, "\n{}", screen.lines(&line)).ok();
        is_quiet = false;
    }
    for ((title, field), whole) in [("found", "findings"), ("done", "actions")].into_iter().zip(wholes) {
        let counted = rows(&result["counts"][field]);
        if counted.is_empty() {
            continue;
        }
        let counts: Vec<_> =
            counted.iter().map(|row| format!("{} {}", number(row, "count"), text(row, "kind"))).collect();
        write!(out, "\n\n{}\n", screen.lines(&format!("{title}: {}", counts.join(", ")))).ok();
        let columns = [("kind", 0), (whole, 2), (part, 1), ("message", 0)];
        let mut table = Grid::new(&columns);
        for row in rows(&result[field]) {
            table.row(columns.map(|(name, _)| text(row, name)).to_vec());
        }
        out += &table.show(screen);
        is_quiet = false;
    }
    if result.is_object() && is_quiet && reply["error"].is_null() {
        out += "\nnothing to do";
    }
    out
}

/// The jobs, the newest first.
pub(super) fn jobs(screen: Screen, reply: &Value) -> String {
    let lines: Vec<_> = rows(&reply["jobs"]).iter().map(|job| job_line(screen, job)).collect();
    if lines.is_empty() { "no jobs".into() } else { lines.join("\n") }
}

/// How uploads are paused.
pub(super) fn pause(screen: Screen, reply: &Value) -> String {
    let machine = text(reply, "machine_id");
    let line = match &reply["paused"] {
        Value::Null => format!("uploads of {machine} go on"),
        paused => match paused["until_ns"].as_u64() {
            None => format!("uploads of {machine} are paused until somebody resumes them"),
            Some(until_ns) => format!("uploads of {machine} are paused until {}", Timestamp(until_ns).to_rfc3339()),
        },
    };
    screen.lines(&line)
}

/// What holds a job back, in a line.
pub(super) fn blocked(reply: &Value) -> String {
    format!("blocked: {}: {}", text(&reply["blocked"], "reason"), text(&reply["blocked"], "hint"))
}

/// How far a job is.
pub(super) fn progress(progress: &Value) -> String {
    format!(
        "{}/{} chunks, {} of {}",
        number(progress, "chunks_done"),
        number(progress, "chunks_total"),
        size(number(progress, "bytes_done")),
        size(number(progress, "bytes_total")),
    )
}

/// A job in a line or two.
pub(super) fn job_line(screen: Screen, reply: &Value) -> String {
    let what = plain(reply["recording"].as_str().unwrap_or("all recordings"));
    let machine = reply["machine_id"].as_str().map(|machine| format!(" on {}", plain(machine))).unwrap_or_default();
    let mut out = format!(
        "{} of {what}{machine}: {}, {}",
        text(reply, "verb"),
        text(reply, "state"),
        progress(&reply["progress"]),
    );
    if reply["state"] == "running" || reply["machine_id"].is_null() {
        write!(out, ", job {}", text(reply, "job")).ok();
    }
    if reply["blocked"].is_object() {
        write!(out, "\n{}", blocked(reply)).ok();
    }
    if reply["error"].is_object() {
        write!(out, "\n{}", text(&reply["error"], "message")).ok();
        if let Some(hint) = reply["error"]["hint"].as_str() {
            write!(out, "\nhint: {}", plain(hint)).ok();
        }
    }
    screen.lines(&out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::screen::tests::*, *};

    fn list() -> Value {
        json!({"machine_id": "robot_1", "recordings": [{
            "recording": "drive_2026-11-24", "state": "ended", "corrupt": false, "uploaded_chunks": 3, "chunks": 3,
            "size_bytes": 716_800, "started_at": "2026-11-24T11:28:53.5Z", "tags": ["night"], "reason": null,
        }]})
    }

    fn recording_reply() -> Value {
        json!({
            "recording": "drive_1", "recording_machine_id": "robot_1", "state": "ended", "uploaded_chunks": 1,
            "chunk_count": 1, "uploaded_bytes": 200_008, "size_bytes": 200_008, "chunks": [{
                "name": "chunk-000000-2189f574.mcap", "size_bytes": 200_008, "local": "present", "upload": "uploaded",
                "proof": "enforced", "uploaded_at": "2026-11-24T11:36:43Z",
            }],
        })
    }

    #[test]
    fn a_list_reads_at_every_width() {
        let shown = |columns| recordings(screen(columns), &[list()], false, &[]);
        assert_eq!(
            shown(None),
            " RECORDING         STATE  UPLOADED  SIZE       STARTED (UTC)        TAGS   REASON\n \
             drive_2026-11-24  ended  3/3       700.0 KiB  2026-11-24 11:28:53  night"
        );
        assert_eq!(
            shown(Some(80)),
            " RECORDING         STATE  UPLOADED  SIZE       STARTED (UTC)        TAGS\n \
             drive_2026-11-24  ended  3/3       700.0 KiB  2026-11-24 11:28:53  night"
        );
        assert_eq!(shown(Some(40)), " RECORDING         STATE  UPLOADED\n drive_2026-11-24  ended  3/3");
    }

    #[test]
    fn a_chunks_name_stays_whole_where_a_spare_column_can_go() {
        let shown = |columns| recording(screen(columns), &recording_reply());
        let row = |columns| shown(columns).lines().find(|line| line.contains("chunk-")).unwrap().trim().to_owned();
        assert_eq!(row(Some(80)), "chunk-000000-2189f574.mcap  195.3 KiB  present  uploaded  enforced  2026-11-24");
        assert_eq!(row(Some(40)), "chunk-000000-2189f574.mcap  uploaded");
        for columns in [Some(40), Some(80), None] {
            fits(&shown(columns), columns);
        }
    }

    #[test]
    fn errors_and_holds_are_whole_in_a_pipe_and_folded_on_a_terminal() {
        let job = json!({
            "verb": "upload", "recording": "drive", "state": "failed", "progress": {"chunks_done": 1, "chunks_total": 2},
            "blocked": {"reason": "no_such_bucket", "hint": "there is no bucket \"fleet\": make it, or set bucket to another one"},
            "error": {"message": "1 of 2 chunks could not be sent: drive/chunk-000000-2189f574.mcap: gone", "hint": "ask again"},
        });
        let piped = job_line(screen(None), &job);
        assert_eq!(piped.lines().count(), 4, "{piped}");
        assert!(piped.ends_with("mcap: gone\nhint: ask again"), "{piped}");
        for columns in [40, 80] {
            fits(&job_line(screen(Some(columns)), &job), Some(columns));
        }
    }
}
