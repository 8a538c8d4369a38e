//! The upload queue: it receives what happened and the time, and answers what to do next.
//!
//! It is a cache of what the library knows and is never persisted: after a crash a scan fills it again.
//! One gate stands before all uploads. While the store fails, it lets one try at a time through, each
//! with another chunk. While a fact blocks it, it asks for probes of the store and lets nothing through.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bubbaloop_storage_schemas::RecordingName;

pub use self::types::{Block, ChunkId, DeadLetter, Item, Limits, Next, Offered, Order, Outcome, ProbeFailure, Stage};
use self::{
    dead::DeadLetters,
    entry::{Entry, Position},
    gate::Gate,
    record::StoreRecord,
    waiting::Waiting,
};
use super::{Tick, backoff};

mod dead;
mod entry;
mod gate;
mod record;
mod types;
mod waiting;

/// After how long a dead letter is tried again by itself.
pub const DEAD_LETTER_RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// Chunks of all recordings that may be in the store and wait for their marks: after a crash each of them is looked up
/// again.
pub const ARRIVED_MAX: usize = 64;

/// The most that one chunk counts against the link's capacity: of a larger one only some parts are sent at once.
const WEIGHT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The state machine. Each chunk is in at most one of waiting, in flight and dead.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    gate: Gate,
    record: StoreRecord,
    waiting: Waiting,
    in_flight: BTreeMap<ChunkId, Entry>,
    dead: DeadLetters,
    /// For each recording the number of chunks that are in flight, or wait and are not known to be unreadable.
    busy: HashMap<RecordingName, usize>,
    /// It is outside the upload window: only what a person asked for is started.
    is_window_closed: bool,
    /// A chunk was rejected because the queue was full.
    has_turned_away: bool,
    /// Bytes that may be in flight at once; `None` while the link is not known.
    room_bytes: Option<u64>,
}

impl Queue {
    /// Makes an empty queue with an open gate.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            gate: Gate::open(),
            record: StoreRecord::default(),
            waiting: Waiting::new(limits.order),
            in_flight: BTreeMap::new(),
            dead: DeadLetters::default(),
            busy: HashMap::new(),
            is_window_closed: false,
            has_turned_away: false,
            room_bytes: None,
        }
    }

    /// Returns how many chunks may be in flight at once.
    pub const fn concurrency(&self) -> usize {
        self.limits.concurrency
    }

    /// Adds a chunk, unless it is here already. Idempotent. A full queue keeps the chunks that go first.
    pub fn offer(&mut self, item: Item) -> Offered {
        if self.stage(&item.id).is_some() {
            return Offered::Known;
        }
        let entry = Entry::new(item);
        if self.waiting.len() >= self.limits.chunks_max {
            self.has_turned_away = true;
            let position = self.waiting.position_of(&entry);
            let Some(last) = self.waiting.positions().next_back().filter(|last| **last > position) else {
                return Offered::Full;
            };
            let last = last.id.clone();
            self.take(&last);
        }
        self.wait(entry);
        Offered::Queued
    }

    /// Returns true, once, when what a full queue rejected may be offered again: half of the queue is free.
    pub fn wants_offers(&mut self) -> bool {
        let wants = self.has_turned_away && self.waiting.len() <= self.limits.chunks_max / 2;
        self.has_turned_away &= !wants;
        wants
    }

    /// Changes the limits. Waiting chunks are put into the new order; those in flight are not affected.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.waiting.rearrange(limits.order, |_| {});
    }

    /// Gives each waiting chunk a new rank.
    pub fn rank(&mut self, rank: impl Fn(&ChunkId) -> u32) {
        self.waiting.rearrange(self.limits.order, |item| item.rank = rank(&item.id));
    }

    /// Sets whether the upload window is open. Outside of it only what a person asked for is started.
    pub const fn set_window(&mut self, is_open: bool) {
        self.is_window_closed = !is_open;
    }

    /// Sets how many bytes the link carries at once. One chunk may always start, and so may one that precedes all that are
    /// in flight, so that a large one does not delay a more wanted one.
    pub const fn set_room(&mut self, room_bytes: Option<u64>) {
        self.room_bytes = room_bytes;
    }

    fn has_room(&self) -> bool {
        let (Some(room), Some(first)) = (self.room_bytes, self.waiting.positions().next()) else { return true };
        let weight = |item: &Item| item.size_bytes.min(WEIGHT_BYTES_MAX);
        let size_bytes = self.waiting.get(&first.id).map_or(0, |entry| weight(&entry.item));
        let sending: u64 = self.sending().map(|entry| weight(&entry.item)).sum();
        let precedes = |entry: &Entry| (first.is_not_urgent, first.rank) < (!entry.is_urgent, entry.item.rank);
        sending + size_bytes <= room || self.sending().all(precedes)
    }

    /// Returns the chunks in flight of which bytes are still to be sent.
    fn sending(&self) -> impl Iterator<Item = &Entry> {
        self.in_flight.values().filter(|entry| !entry.has_arrived)
    }

    /// Returns whether no further chunk may start. While the store fails, one counts until its mark is written.
    fn is_full(&self) -> bool {
        if self.gate.is_waiting() {
            return !self.in_flight.is_empty();
        }
        self.sending().count() >= self.limits.concurrency
            || self.in_flight.len() >= self.limits.concurrency + ARRIVED_MAX
    }

    /// Returns whether any waiting chunk may be started at this hour.
    fn has_startable(&self) -> bool {
        self.waiting.positions().next().is_some_and(|first| !self.is_window_closed || !first.is_not_urgent)
    }

    /// Adds a chunk that an earlier run gave up, unless it is here already.
    pub fn restore(&mut self, letter: DeadLetter) {
        if self.stage(&letter.item.id).is_none() {
            self.dead.insert(letter);
        }
    }

    /// Lets the chunks of a recording go first, its dead letters and those in flight included.
    pub fn prioritize(&mut self, recording: &RecordingName) {
        for id in self.dead.ids_of(recording) {
            if let Some(letter) = self.dead.remove(&id) {
                self.wait(Entry { is_urgent: true, ..Entry::new(letter.item) });
            }
        }
        for id in self.waiting.ids_of(recording) {
            if let Some(mut entry) = self.take(&id) {
                // A person who asks wants another try, not the reason of the last failure.
                entry.clear_unreadable();
                self.wait(Entry { is_urgent: true, ..entry });
            }
        }
        // Those in flight may continue at any hour.
        let in_flight = self.in_flight.values_mut().filter(|entry| entry.item.id.recording == *recording);
        in_flight.for_each(|entry| entry.is_urgent = true);
    }

    /// Removes a chunk that waits or was given up. One in flight stays until its outcome is reported.
    pub fn forget(&mut self, id: &ChunkId) {
        self.take(id);
        self.dead.remove(id);
    }

    /// Returns what to do next. Called again with the same time it may name further chunks, until
    /// `concurrency` are in flight. Never blocks and never reads a clock.
    pub fn next(&mut self, now: Tick) -> Next {
        self.revive(now);
        if let Some(demand) = self.gate.demand(self.waiting.positions().next().is_some(), now) {
            return demand;
        }
        if self.is_full() || !self.has_room() {
            return Next::Idle;
        }
        let chosen = self.choose().map(|position| position.id.clone());
        let Some(mut entry) = chosen.and_then(|id| self.take(&id)) else { return self.idle() };
        entry.begin(self.gate.era());
        let next = Next::Start { item: entry.item.clone(), attempt: entry.attempts };
        self.count_busy(&entry.item.id.recording);
        self.in_flight.insert(entry.item.id.clone(), entry);
        next
    }

    /// Notes that the store has all of a chunk in flight: the next one may start while its mark is written. Ignores an id
    /// that is not in flight.
    pub fn arrived(&mut self, id: &ChunkId) {
        if let Some(entry) = self.in_flight.get_mut(id) {
            entry.has_arrived = true;
        }
    }

    /// Returns the chunks of which only the marks are still to be written.
    pub fn arrivals(&self) -> impl Iterator<Item = &ChunkId> {
        self.in_flight.values().filter(|entry| entry.has_arrived).map(|entry| &entry.item.id)
    }

    /// Returns whether bytes of any chunk are still to be sent.
    pub fn is_sending(&self) -> bool {
        self.sending().next().is_some()
    }

    /// Notes how a try ended. `jitter` is from 0 to 1. Ignores an id that is not in flight.
    pub fn finish(&mut self, id: &ChunkId, outcome: Outcome, now: Tick, jitter: f64) {
        let Some(mut entry) = self.in_flight.remove(id) else { return };
        self.uncount_busy(&id.recording);
        match outcome {
            Outcome::Settled => self.succeeded(now),
            Outcome::Dead(reason) => self.give_up(entry, reason, now),
            Outcome::Blocked(block) => {
                entry.was_read();
                self.wait(entry);
                self.gate.block(block, now);
            }
            Outcome::Halted => {
                entry.was_read();
                entry.attempts = entry.attempts.saturating_sub(1);
                self.wait(entry);
            }
            Outcome::Unreadable(message) => self.could_not_read(entry, message, now, jitter),
            Outcome::Retry { after, message } => self.retry(entry, after, message, now, jitter),
        }
    }

    /// Handles a try that failed and may succeed later.
    fn retry(&mut self, mut entry: Entry, after: Option<Duration>, message: String, now: Tick, jitter: f64) {
        let is_of_this_era = entry.era == self.gate.era();
        entry.was_read();
        let has_progressed = entry.has_progressed;
        let (served, successes) = (self.record.served(), self.record.successes());
        let failures = entry.failures_mut();
        if has_progressed {
            // The link carries something, and what arrived is kept: another try at once is worth it.
            (failures.failing_since, failures.strikes) = (None, 0);
            if is_of_this_era {
                self.gate.reset_failures();
            }
        }
        let since = *failures.failing_since.get_or_insert(served);
        if served.saturating_sub(since) > self.limits.give_up_after {
            self.give_up(entry, message, now);
            return;
        }
        let is_its_own = failures.failed_after.replace(successes).is_some_and(|then| then < successes);
        if is_its_own {
            self.strike(entry, after, now, jitter);
            return;
        }
        self.wait(entry);
        if is_of_this_era {
            self.gate.failed(after, now, jitter);
        }
    }

    /// Notes that a part of a chunk in flight arrived. Ignores an id that is not in flight.
    pub fn progressed(&mut self, id: &ChunkId) {
        if let Some(entry) = self.in_flight.get_mut(id) {
            entry.has_progressed = true;
        }
    }

    /// Returns whether a request that is not for a chunk may go out: the same gate stands before it, and chunks go first.
    pub fn admits_other(&self, now: Tick) -> bool {
        if self.gate.is_waiting() {
            return self.opens_at().is_some_and(|until| now >= until)
                && self.in_flight.is_empty()
                && !self.has_startable();
        }
        self.gate.is_open()
    }

    /// Returns the earliest time of a request; `None` while a fact stops them.
    pub fn opens_at(&self) -> Option<Tick> {
        self.gate.opens_at()
    }

    /// Notes how a request that is not for a chunk ended, so that the gate learns from it as from a chunk's.
    pub fn finish_other(&mut self, outcome: &Outcome, now: Tick, jitter: f64) {
        match outcome {
            Outcome::Settled => self.succeeded(now),
            Outcome::Dead(_) | Outcome::Unreadable(_) | Outcome::Halted => {}
            Outcome::Blocked(block) => {
                self.gate.block(block.clone(), now);
            }
            Outcome::Retry { after, .. } => self.gate.failed(*after, now, jitter),
        }
    }

    /// Stops all uploads because of a fact, until a probe finds that it has ended. Returns whether the fact is new.
    pub fn block(&mut self, block: Block, now: Tick) -> bool {
        self.gate.block(block, now)
    }

    /// Notes the result of a probe: nothing is wrong, or what still stops uploads. Without an answer the fact is assumed to
    /// last.
    pub fn probed(&mut self, found: Result<(), ProbeFailure>, now: Tick) {
        self.gate.probed(found, now);
    }

    /// Returns the fact that stops uploads, if one does.
    pub const fn blocked(&self) -> Option<&Block> {
        self.gate.blocked()
    }

    /// Returns when the next try or probe is due, if one waits for a time.
    pub fn next_try_at(&self) -> Option<Tick> {
        if self.gate.blocked().is_some() {
            return self.gate.probe_at();
        }
        if self.gate.is_waiting() {
            return self.opens_at().filter(|_| self.waiting.len() > 0);
        }
        let is_any_in_order = self.waiting.positions().next().is_some();
        if is_any_in_order { None } else { self.waiting.next_delay_end() }
    }

    /// Returns where a chunk is; `None` if it is not here.
    pub fn stage(&self, id: &ChunkId) -> Option<Stage<'_>> {
        if self.waiting.get(id).is_some() {
            Some(Stage::Waiting)
        } else if self.in_flight.contains_key(id) {
            Some(Stage::InFlight)
        } else {
            self.dead.get(id).map(|letter| Stage::Dead(&letter.reason))
        }
    }

    /// Returns why the file of a waiting chunk could not be read in its last try.
    pub fn unreadable(&self, id: &ChunkId) -> Option<&str> {
        self.waiting.get(id)?.unreadable()
    }

    /// Returns whether chunks of a recording are in flight, or wait and are not known to be unreadable.
    pub fn is_busy(&self, recording: &RecordingName) -> bool {
        self.busy.contains_key(recording)
    }

    /// Returns whether a chunk in flight may send further parts at this hour.
    pub fn may_go_on(&self, id: &ChunkId) -> bool {
        !self.is_window_closed || self.in_flight.get(id).is_some_and(|entry| entry.is_urgent)
    }

    /// Returns whether nothing waits and nothing is in flight.
    pub fn is_done(&self) -> bool {
        self.waiting.len() == 0 && self.in_flight.is_empty()
    }

    /// Returns how many chunks wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the chunks that are being sent, and those of which the mark is being written.
    pub fn in_flight(&self) -> impl ExactSizeIterator<Item = &Item> {
        self.in_flight.values().map(|entry| &entry.item)
    }

    /// Returns a chunk that was given up.
    pub fn dead_letter(&self, id: &ChunkId) -> Option<&DeadLetter> {
        self.dead.get(id)
    }

    /// Returns the chunks that were given up.
    pub fn dead_letters(&self) -> impl ExactSizeIterator<Item = &DeadLetter> {
        self.dead.iter()
    }

    /// Puts a chunk among those that wait.
    fn wait(&mut self, entry: Entry) {
        if entry.unreadable().is_none() {
            self.count_busy(&entry.item.id.recording);
        }
        self.waiting.insert(entry);
    }

    /// Takes a chunk from those that wait.
    fn take(&mut self, id: &ChunkId) -> Option<Entry> {
        let entry = self.waiting.remove(id)?;
        if entry.unreadable().is_none() {
            self.uncount_busy(&id.recording);
        }
        Some(entry)
    }

    fn count_busy(&mut self, recording: &RecordingName) {
        match self.busy.get_mut(recording) {
            Some(count) => *count += 1,
            None => drop(self.busy.insert(recording.clone(), 1)),
        }
    }

    fn uncount_busy(&mut self, recording: &RecordingName) {
        let Some(count) = self.busy.get_mut(recording) else { return };
        *count -= 1;
        if *count == 0 {
            self.busy.remove(recording);
        }
    }

    /// Chooses the next chunk: the first of those that failed least. While the store fails, every other try is the last of
    /// them, so that chunks with a fault of their own delay no sound one.
    fn choose(&self) -> Option<&Position> {
        let first = self.waiting.positions().next().filter(|_| self.has_startable())?;
        if !self.gate.is_waiting() || !self.gate.failures().is_multiple_of(2) {
            return Some(first);
        }
        let is_alike =
            |other: &&Position| (other.is_not_urgent, other.attempts) == (first.is_not_urgent, first.attempts);
        self.waiting.positions().take_while(is_alike).last()
    }

    /// Delays a chunk that has a fault of its own.
    fn strike(&mut self, mut entry: Entry, after: Option<Duration>, now: Tick, jitter: f64) {
        let failures = entry.failures_mut();
        failures.strikes = failures.strikes.saturating_add(1);
        let wait = backoff::delay(failures.strikes.saturating_add(1), jitter).max(after.unwrap_or_default());
        failures.delayed_until = Some(now.after(wait));
        self.wait(entry);
    }

    /// Handles a chunk whose file could not be read: it is delayed, and given up only when that lasts.
    fn could_not_read(&mut self, mut entry: Entry, message: String, now: Tick, jitter: f64) {
        let failures = entry.failures_mut();
        let since = *failures.unreadable_since.get_or_insert(now);
        if now.since(since) > self.limits.give_up_after {
            self.give_up(entry, message, now);
            return;
        }
        failures.unreadable = Some(message);
        let is_of_this_era = entry.era == self.gate.era();
        self.strike(entry, None, now, jitter);
        if self.record.could_not_read() && is_of_this_era {
            self.gate.failed(None, now, jitter);
        }
    }

    fn give_up(&mut self, entry: Entry, reason: String, now: Tick) {
        let retry_at = now.after(DEAD_LETTER_RETRY);
        self.dead.insert(DeadLetter { item: entry.item, reason, attempts: entry.attempts, retry_at });
    }

    /// Puts chunks in order whose delay has ended, and dead letters a day after their last try.
    fn revive(&mut self, now: Tick) {
        self.waiting.end_delays(now);
        while let Some(letter) = self.dead.pop_due(now) {
            self.wait(Entry { attempts: letter.attempts, ..Entry::new(letter.item) });
        }
    }

    fn succeeded(&mut self, now: Tick) {
        self.record.succeeded(now);
        self.gate.succeeded();
    }

    fn idle(&self) -> Next {
        let next = self.waiting.next_delay_end().into_iter().chain(self.dead.next_retry_at()).min();
        next.map_or(Next::Idle, Next::WaitUntil)
    }
}

#[cfg(test)]
mod tests;
