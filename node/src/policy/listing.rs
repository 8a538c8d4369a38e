//! Which recordings a list shows, and where a page ends.

use bubbaloop_storage_schemas::{
    UnixNs,
    limits::PAGE_BYTES_MAX,
    reply::{RecordingRow, RecordingState},
    verbs::list::ListRequest,
};
use serde::Serialize;
use wildmatch::WildMatch;

/// What a list is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    name: Option<WildMatch>,
    tag: Option<String>,
    since_ns: Option<UnixNs>,
    until_ns: Option<UnixNs>,
    state: Option<RecordingState>,
}

impl Filter {
    /// Returns the filters of a `list`.
    pub fn of(request: &ListRequest) -> Self {
        Self {
            name: request.name.as_deref().map(WildMatch::new),
            tag: request.tag.clone(),
            since_ns: request.since.map(|time| time.0),
            until_ns: request.until.map(|time| time.0),
            state: request.state,
        }
    }

    /// Tells whether a recording is shown. One of which no times are known passes no filter of time.
    pub fn admits(&self, row: &RecordingRow) -> bool {
        let went_on_since = |since| match (row.started_at_ns, row.ended_at_ns) {
            (_, Some(ended)) => ended >= since,
            (started, None) => started.is_some(),
        };
        self.name.as_ref().is_none_or(|name| name.matches(&row.recording))
            && self.tag.as_ref().is_none_or(|tag| row.tags.contains(tag))
            && self.state.is_none_or(|state| row.state == state)
            && self.since_ns.is_none_or(went_on_since)
            && self.until_ns.is_none_or(|until| row.started_at_ns.is_some_and(|started| started <= until))
    }
}

/// Tells whether a name matches a glob of `*` and `?`.
pub fn matches(glob: &str, name: &str) -> bool {
    WildMatch::new(glob).matches(name)
}

/// Takes the rows of one page: at most `limit`, and no more than a reply has room for, but always one.
///
/// Returns them with whether there are more.
pub fn page<T: Serialize>(rows: impl IntoIterator<Item = T>, limit: usize) -> (Vec<T>, bool) {
    let mut taken = Vec::new();
    let mut left_bytes = PAGE_BYTES_MAX;
    for row in rows {
        let row_bytes = serde_json::to_vec(&row).map_or(PAGE_BYTES_MAX, |text| text.len());
        if taken.len() == limit || (row_bytes > left_bytes && !taken.is_empty()) {
            return (taken, true);
        }
        left_bytes = left_bytes.saturating_sub(row_bytes);
        taken.push(row);
    }
    (taken, false)
}

#[cfg(test)]
mod tests {
    use bubbaloop_storage_schemas::{
        definition::VerbDefinition, params::Params, reply::UploadState, verbs::list::List,
    };

    use super::*;

    fn row() -> RecordingRow {
        RecordingRow {
            recording: "drive_1".into(),
            machine_id: "m".into(),
            state: RecordingState::Ended.into(),
            corrupt: false,
            upload: UploadState::None.into(),
            chunks: 0,
            uploaded_chunks: 0,
            size_bytes: 0,
            uploaded_bytes: 0,
            started_at: None,
            started_at_ns: Some(100_000_000_000_000_000),
            ended_at: None,
            ended_at_ns: Some(200_000_000_000_000_000),
            tags: vec!["rain".into()],
            reason: None,
        }
    }

    fn admits(name: &str, value: &str) -> bool {
        Filter::of(&List::parse(&Params::default().with(name, value)).unwrap()).admits(&row())
    }

    #[test]
    fn every_filter_narrows() {
        for (name, yes, no) in [
            ("name", "drive_*", "dive*"),
            ("name", "drive_?", "drive"),
            ("tag", "rain", "rai"),
            ("state", "ended", "recording"),
            ("since", "200000000000000000", "200000000000000001"),
            ("until", "100000000000000001", "1970-01-01T00:00:01Z"),
        ] {
            assert!(admits(name, yes), "{name}={yes}");
            assert!(!admits(name, no), "{name}={no}");
        }
    }

    #[test]
    fn a_page_ends_at_its_limit_or_where_a_reply_is_full() {
        assert_eq!(page(0..3, 3), (vec![0, 1, 2], false));
        assert_eq!(page(0..4, 3), (vec![0, 1, 2], true));
        let large = || "x".repeat(PAGE_BYTES_MAX / 2);
        let (taken, more) = page((0..5).map(|_| large()), 100);
        assert_eq!((taken.len(), more), (1, true));
        let (taken, more) = page([large() + &large() + "x"], 100);
        assert_eq!((taken.len(), more), (1, false), "a page is never empty while there are rows");
    }
}
