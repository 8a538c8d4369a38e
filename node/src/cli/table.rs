//! Replies as people read them.

use std::{fmt::Write, time::Duration};

use bubbaloop_storage_schemas::Timestamp;
use bytesize::ByteSize;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::engine::holdings::Holding;

/// The widest cell: a reason fits, and a label of hundreds of characters leaves room for the rest.
const CELL_CHARS_MAX: usize = 100;

/// Makes text of others fit to be shown: control characters would reach the terminal.
pub(super) fn shown(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    let mut shown: String = text.chars().take(CELL_CHARS_MAX).map(plain).collect();
    if text.chars().nth(CELL_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn text(value: &Value, name: &str) -> String {
    shown(value[name].as_str().unwrap_or("-"))
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

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(head.iter().map(|text| text.to_uppercase()).collect::<Vec<_>>());
    table
}

/// The recordings of one machine, or of several with a column for them.
///
/// With several machines, one without recordings has a row too.
pub(super) fn recordings(replies: &[Value], is_fleet: bool) -> String {
    let mut head = vec!["recording", "state", "uploaded", "size", "started (UTC)", "tags", "reason"];
    if is_fleet {
        head.insert(0, "machine");
    }
    let mut table = table(&head);
    let mut is_empty = true;
    for reply in replies {
        if is_fleet && rows(&reply["recordings"]).is_empty() {
            table.add_row(vec![text(reply, "machine_id"), "no recordings".into()]);
            is_empty = false;
        }
        for row in rows(&reply["recordings"]) {
            let tags: Vec<_> = rows(&row["tags"]).iter().filter_map(Value::as_str).collect();
            let mut cells = vec![
                text(row, "recording"),
                text(row, "state") + if row["corrupt"] == true { ", corrupt" } else { "" },
                format!("{}/{}", number(row, "uploaded_chunks"), number(row, "chunks")),
                size(number(row, "size_bytes")),
                time(row, "started_at"),
                shown(&tags.join(" ")),
                shown(row["reason"].as_str().unwrap_or_default()),
            ];
            if is_fleet {
                cells.insert(0, text(reply, "machine_id"));
            }
            table.add_row(cells);
            is_empty = false;
        }
    }
    if is_empty { "no recordings".into() } else { table.trim_fmt() }
}

/// What the store holds.
pub(super) fn holdings(held: &[Holding]) -> String {
    let mut table = table(&["machine", "recording", "chunks", "size", "manifest"]);
    for held in held {
        let manifest = if held.has_manifest { "yes" } else { "no" };
        table.add_row(vec![
            held.machine_id.to_string(),
            held.recording.to_string(),
            held.chunks.to_string(),
            size(held.size_bytes),
            manifest.into(),
        ]);
    }
    if table.is_empty() { "the store holds nothing of it".into() } else { table.trim_fmt() }
}

/// One recording and its chunks.
pub(super) fn recording(reply: &Value) -> String {
    let mut out = format!(
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
        writeln!(out, "reason: {}", shown(reason)).ok();
    }
    writeln!(out, "from {} to {} (UTC)\n", time(reply, "started_at"), time(reply, "ended_at")).ok();
    let mut table = table(&["chunk", "size", "here", "upload", "proof", "uploaded (UTC)", "reason"]);
    for chunk in rows(&reply["chunks"]) {
        table.add_row(vec![
            text(chunk, "name"),
            size(number(chunk, "size_bytes")),
            text(chunk, "local"),
            text(chunk, "upload"),
            text(chunk, "proof"),
            time(chunk, "uploaded_at"),
            shown(chunk["reason"].as_str().unwrap_or_default()),
        ]);
    }
    out + &table.trim_fmt()
}

/// The uploads that were given up.
pub(super) fn dead_letters(reply: &Value) -> String {
    let mut table = table(&["recording", "chunk", "size", "tries", "last (UTC)", "reason"]);
    for letter in rows(&reply["dead_letters"]) {
        table.add_row(vec![
            text(letter, "recording"),
            text(letter, "chunk"),
            size(number(letter, "size_bytes")),
            number(letter, "attempts").to_string(),
            time(letter, "last_tried_at"),
            text(letter, "reason"),
        ]);
    }
    if table.is_empty() { "no dead letters".into() } else { table.trim_fmt() }
}

/// Settings with their sources.
pub(super) fn settings(settings: &Value) -> String {
    let mut table = table(&["setting", "value", "source"]);
    for setting in rows(settings) {
        let value = match &setting["value"] {
            Value::Null => "-".into(),
            Value::String(text) => shown(text),
            other => shown(&other.to_string()),
        };
        table.add_row(vec![text(setting, "key"), value, text(setting, "source")]);
    }
    table.trim_fmt()
}

/// An event in a line.
pub(super) fn event(event: &Value) -> String {
    let at = event["at_ns"].as_u64().map(|at_ns| Timestamp(at_ns).to_rfc3339()).unwrap_or_default();
    let head = ["library_id", "boot_id", "seq", "at_ns", "machine_id", "kind"];
    let fields = event.as_object().into_iter().flatten().filter(|(name, _)| !head.contains(&name.as_str()));
    let fields: Vec<_> = fields
        .map(|(name, value)| match value {
            Value::String(text) => format!("{name}={}", shown(text)),
            other => format!("{name}={}", shown(&other.to_string())),
        })
        .collect();
    format!("{at} {} {} {}", text(event, "machine_id"), text(event, "kind"), fields.join(" "))
}

/// What is safe, first of all.
pub(super) fn status(reply: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(out, "{name:<16} {value}").ok();
    };
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
    out.trim_end().to_owned()
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
pub(super) fn reconciled(reply: &Value) -> String {
    outcome(reply, "chunk", ["recording", "recording"])
}

/// What an adopt saw and did.
pub(super) fn adopted(reply: &Value) -> String {
    let mut out = outcome(reply, "file", ["source", "recording"]);
    if let Some(hint) = reply["error"]["hint"].as_str() {
        write!(out, "\nhint: {hint}").ok();
    }
    out
}

/// What was removed, and what stays.
pub(super) fn removed(reply: &Value) -> String {
    let mut out = job_line(reply);
    let result = &reply["result"];
    let done = if result["dry_run"] == true { "would be removed" } else { "removed" };
    for (counted, bytes, whence) in
        [("removed_files", "removed_file_bytes", "the disk"), ("removed_objects", "removed_object_bytes", "the store")]
    {
        let counts = &result["counts"];
        if number(counts, counted) > 0 {
            let bytes = size(number(counts, bytes));
            write!(out, "\n{done} from {whence}: {}, {bytes}", chunks(number(counts, counted))).ok();
        }
    }
    for row in rows(&result["actions"]) {
        write!(out, "\n{} {}", text(row, "kind"), text(row, "path")).ok();
    }
    for row in rows(&result["findings"]) {
        let what = row["chunk"].as_str().or_else(|| row["path"].as_str()).unwrap_or_default();
        write!(out, "\n{} {what}: {}", text(row, "kind"), text(row, "message")).ok();
    }
    if let Some(hint) = reply["error"]["hint"].as_str() {
        write!(out, "\nhint: {hint}").ok();
    }
    out
}

/// A job's findings and actions: `part` is what of a recording they are about, `wholes` what the whole is called in each.
fn outcome(reply: &Value, part: &str, wholes: [&str; 2]) -> String {
    let mut out = job_line(reply);
    let result = &reply["result"];
    let fetched = &result["counts"];
    if number(fetched, "restored_chunks") > 0 {
        let bytes = size(number(fetched, "restored_bytes"));
        write!(out, "\nfrom the store: {}, {bytes}", chunks(number(fetched, "restored_chunks"))).ok();
    }
    for ((title, field), whole) in [("found", "findings"), ("done", "actions")].into_iter().zip(wholes) {
        let counted = rows(&result["counts"][field]);
        if counted.is_empty() {
            continue;
        }
        let counts: Vec<_> =
            counted.iter().map(|row| format!("{} {}", number(row, "count"), text(row, "kind"))).collect();
        write!(out, "\n\n{title}: {}\n", counts.join(", ")).ok();
        let columns = ["kind", whole, part, "message"];
        let mut table = table(&columns);
        for row in rows(&result[field]) {
            let cells = columns.map(|name| text(row, name));
            table.add_row(cells.to_vec());
        }
        out += &table.trim_fmt();
    }
    if result.is_object() && out.lines().count() == 1 {
        out += "\nnothing to do";
    }
    out
}

/// The jobs, the newest first.
pub(super) fn jobs(reply: &Value) -> String {
    let lines: Vec<_> = rows(&reply["jobs"]).iter().map(job_line).collect();
    if lines.is_empty() { "no jobs".into() } else { lines.join("\n") }
}

/// How uploads are paused.
pub(super) fn pause(reply: &Value) -> String {
    let machine = text(reply, "machine_id");
    match &reply["paused"] {
        Value::Null => format!("uploads of {machine} go on"),
        paused => match paused["until_ns"].as_u64() {
            None => format!("uploads of {machine} are paused until somebody resumes them"),
            Some(until_ns) => format!("uploads of {machine} are paused until {}", Timestamp(until_ns).to_rfc3339()),
        },
    }
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
pub(super) fn job_line(reply: &Value) -> String {
    let what = shown(reply["recording"].as_str().unwrap_or("all recordings"));
    let machine = reply["machine_id"].as_str().map(|machine| format!(" on {}", shown(machine))).unwrap_or_default();
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
        write!(out, "\nblocked: {}: {}", text(&reply["blocked"], "reason"), text(&reply["blocked"], "hint")).ok();
    }
    if reply["error"].is_object() {
        write!(out, "\n{}", text(&reply["error"], "message")).ok();
    }
    out
}
