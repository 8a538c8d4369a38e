//! The upload queue: told what happened and the tick, it answers what to do next.
//!
//! It is a cache of what the library knows and is never persisted: after a crash a scan fills it again.
//! One gate stands before all uploads. While the store fails, it lets one try at a time through, each
//! with another chunk; while a fact blocks it, it asks for a probe of the store and lets nothing through.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bubbaloop_storage_schemas::{RecordingName, UnixNs};

use self::entry::{Place, Try};
pub use self::types::{Block, ChunkId, DeadLetter, Item, Limits, Next, Offered, Order, Outcome, ProbeFailure, Stage};
use super::{Tick, backoff};

mod entry;
mod types;

/// How often a dead letter is tried again by itself.
pub const DEAD_LETTER_RETRY: Duration = Duration::from_secs(24 * 60 * 60);

/// How much one success adds at most to the time in which the store is known to take chunks.
const SERVED_STEP_MAX: Duration = Duration::from_secs(60);

/// Local files that can't be read one after the other, after which it is taken for the machine's fault and not theirs:
/// one at a time is tried then, as where the store fails.
const UNREADABLE_MAX: u32 = 8;

/// Chunks that are in the store and wait for their marks, of all recordings: after a crash each of them is asked for again.
pub const ARRIVED_MAX: usize = 64;

/// What a chunk counts at most of the link's room: of a larger one only some parts are on their way.
const WEIGHT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Whether uploads go out.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Gate {
    /// They do.
    Open,
    /// The store fails: one try at a time, not before `until`.
    Waiting { failures: u32, until: Tick },
    /// A fact stops them: a probe at a time, not before `probe_at`.
    Blocked { block: Block, probes: u32, probe_at: Tick, is_probing: bool },
}

/// The state machine. Each chunk is in at most one of waiting, in flight and dead.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    gate: Gate,
    /// The hours in which uploads may go are over: only what a person asked for is started.
    is_window_closed: bool,
    /// A chunk was turned away for want of room.
    has_turned_away: bool,
    /// Bytes that may be on their way at once; `None` while the link is not known.
    room_bytes: Option<u64>,
    era: u64,
    order: BTreeMap<Place, ()>,
    /// Chunks that fail while others go up, each until its own time.
    later: BTreeMap<(Tick, ChunkId), ()>,
    successes: u64,
    waiting: HashMap<ChunkId, Try>,
    in_flight: HashMap<ChunkId, Try>,
    /// Of each recording how many chunks are on their way, or wait and can be read as far as is known.
    busy: HashMap<RecordingName, usize>,
    dead: BTreeMap<ChunkId, DeadLetter>,
    /// For how long the store was seen to take chunks: an outage does not count.
    served: Duration,
    last_success: Option<Tick>,
    /// Tries since the last success that ended at a file that can't be read.
    unreadable_in_a_row: u32,
}

impl Queue {
    /// Makes an empty queue with an open gate.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            gate: Gate::Open,
            is_window_closed: false,
            has_turned_away: false,
            room_bytes: None,
            era: 0,
            order: BTreeMap::new(),
            later: BTreeMap::new(),
            successes: 0,
            waiting: HashMap::new(),
            in_flight: HashMap::new(),
            busy: HashMap::new(),
            dead: BTreeMap::new(),
            served: Duration::ZERO,
            last_success: None,
            unreadable_in_a_row: 0,
        }
    }

    /// Returns how many chunks may be on their way at once.
    pub const fn concurrency(&self) -> usize {
        self.limits.concurrency
    }

    /// Takes a chunk in, unless it is here already. Idempotent. A full queue keeps those that go first.
    pub fn offer(&mut self, item: Item) -> Offered {
        if self.stage(&item.id).is_some() {
            return Offered::Known;
        }
        let entry = Try::first(item);
        if self.waiting.len() >= self.limits.chunks_max {
            let place = self.place(&entry);
            self.has_turned_away = true;
            let Some((last, ())) = self.order.pop_last() else { return Offered::Full };
            if last <= place {
                self.order.insert(last, ());
                return Offered::Full;
            }
            self.take(&last.id);
        }
        self.wait(entry);
        Offered::Queued
    }

    /// Tells, once, that what a full queue turned away may be offered again: half of it has drained.
    pub fn wants_offers(&mut self) -> bool {
        let wants = self.has_turned_away && self.waiting.len() <= self.limits.chunks_max / 2;
        self.has_turned_away &= !wants;
        wants
    }

    /// Takes in other settings. What waits is put into its new order; what is on its way stays so.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.rearrange(|_| {});
    }

    /// Gives each waiting chunk a new rank.
    pub fn rank(&mut self, rank: impl Fn(&ChunkId) -> u32) {
        self.rearrange(|item| item.rank = rank(&item.id));
    }

    fn rearrange(&mut self, change: impl Fn(&mut Item)) {
        self.waiting.values_mut().for_each(|entry| change(&mut entry.item));
        let is_later: HashSet<_> = self.later.keys().map(|(_, id)| id).collect();
        let in_order = self.waiting.values().filter(|entry| !is_later.contains(&entry.item.id));
        self.order = in_order.map(|entry| (self.place(entry), ())).collect();
    }

    /// Tells whether these are hours in which uploads may go; outside of them only what a person asked for is started.
    pub fn set_window(&mut self, is_open: bool) {
        self.is_window_closed = !is_open;
    }

    /// Tells how many bytes the link takes at once. One chunk may always go, and so may one that goes before all that are
    /// on their way, so that a large one holds up nothing that is wanted more.
    pub fn set_room(&mut self, room_bytes: Option<u64>) {
        self.room_bytes = room_bytes;
    }

    fn has_room(&self) -> bool {
        let (Some(room), Some((place, ()))) = (self.room_bytes, self.order.first_key_value()) else { return true };
        let weight = |item: &Item| item.size_bytes.min(WEIGHT_BYTES_MAX);
        let size_bytes = self.waiting.get(&place.id).map_or(0, |entry| weight(&entry.item));
        let on_its_way: u64 = self.on_their_way().map(|entry| weight(&entry.item)).sum();
        let goes_before = |entry: &Try| (place.is_not_urgent, place.rank) < (!entry.is_urgent, entry.item.rank);
        on_its_way + size_bytes <= room || self.on_their_way().all(goes_before)
    }

    /// Those of which something is still to be sent.
    fn on_their_way(&self) -> impl Iterator<Item = &Try> {
        self.in_flight.values().filter(|entry| !entry.has_arrived)
    }

    /// Tells whether so many are on their way already that no further one may be. Where the store fails, one counts until
    /// all is done with it.
    fn is_full(&self) -> bool {
        match self.gate {
            Gate::Waiting { .. } => !self.in_flight.is_empty(),
            Gate::Open | Gate::Blocked { .. } => {
                self.on_their_way().count() >= self.limits.concurrency
                    || self.in_flight.len() >= self.limits.concurrency + ARRIVED_MAX
            }
        }
    }

    /// Tells whether anything waits that may be started in these hours.
    fn has_startable(&self) -> bool {
        self.order.first_key_value().is_some_and(|(place, ())| !self.is_window_closed || !place.is_not_urgent)
    }

    /// Takes in a chunk that an earlier run gave up, unless it is here already.
    pub fn restore(&mut self, letter: DeadLetter) {
        if self.stage(&letter.item.id).is_none() {
            self.dead.insert(letter.item.id.clone(), letter);
        }
    }

    /// Lets the chunks of a recording (of all, without one) go first, its dead letters and those on their way too.
    pub fn prioritize(&mut self, recording: Option<&RecordingName>) {
        let is_meant = |id: &ChunkId| recording.is_none_or(|recording| *recording == id.recording);
        let dead: Vec<_> = self.dead.keys().filter(|id| is_meant(id)).cloned().collect();
        for id in dead {
            if let Some(letter) = self.dead.remove(&id) {
                self.wait(Try { is_urgent: true, ..Try::first(letter.item) });
            }
        }
        let waiting: Vec<_> = self.waiting.keys().filter(|id| is_meant(id)).cloned().collect();
        for id in waiting {
            if let Some(mut entry) = self.take(&id) {
                self.order.remove(&self.place(&entry));
                self.later.retain(|(_, later), ()| *later != entry.item.id);
                // Why it failed before is no answer to who asks now.
                entry.forget_reading();
                self.wait(Try { is_urgent: true, ..entry });
            }
        }
        // What is on its way goes on then, whatever the hour.
        self.in_flight.values_mut().filter(|entry| is_meant(&entry.item.id)).for_each(|entry| entry.is_urgent = true);
    }

    /// Forgets a chunk that waits or was given up; one that is on its way is settled by its outcome.
    pub fn forget(&mut self, id: &ChunkId) {
        if let Some(entry) = self.take(id) {
            self.order.remove(&self.place(&entry));
            self.later.retain(|(_, later), ()| later != id);
        }
        self.dead.remove(id);
    }

    /// Returns what to do next. Asked again at the same tick it may name further chunks, until
    /// `concurrency` are on their way. Never blocks and never reads a clock.
    pub fn next(&mut self, now: Tick) -> Next {
        self.revive(now);
        match &mut self.gate {
            Gate::Blocked { is_probing: true, .. } => return Next::Idle,
            Gate::Blocked { probe_at, .. } if now < *probe_at => return Next::WaitUntil(*probe_at),
            Gate::Blocked { is_probing, .. } => {
                *is_probing = true;
                return Next::Probe;
            }
            Gate::Waiting { until, .. } if now < *until && !self.order.is_empty() => return Next::WaitUntil(*until),
            Gate::Open | Gate::Waiting { .. } => {}
        }
        if self.is_full() || !self.has_room() {
            return Next::Idle;
        }
        let Some(place) = self.pop() else { return self.idle() };
        let Some(mut entry) = self.take(&place.id) else { return self.idle() };
        entry.begin(self.era);
        let next = Next::Start { item: entry.item.clone(), attempt: entry.attempts };
        self.count_busy(&place.id.recording);
        self.in_flight.insert(place.id, entry);
        next
    }

    /// Takes in that the store has all of a chunk that is on its way: the next one may go while its mark is written. An id
    /// that is not on its way is passed over.
    pub fn arrived(&mut self, id: &ChunkId) {
        if let Some(entry) = self.in_flight.get_mut(id) {
            entry.has_arrived = true;
        }
    }

    /// Returns the chunks of which only the marks are to be written.
    pub fn arrivals(&self) -> impl Iterator<Item = &ChunkId> {
        self.in_flight.values().filter(|entry| entry.has_arrived).map(|entry| &entry.item.id)
    }

    /// Tells whether anything is on its way of which more than the mark is to be waited for.
    pub fn is_sending(&self) -> bool {
        self.in_flight.values().any(|entry| !entry.has_arrived)
    }

    /// Tells how a started try ended. `jitter` is from 0 to 1. An id that is not on its way is passed over.
    pub fn finish(&mut self, id: &ChunkId, outcome: Outcome, now: Tick, jitter: f64) {
        let Some(mut entry) = self.in_flight.remove(id) else { return };
        self.uncount_busy(&id.recording);
        match outcome {
            Outcome::Settled => self.succeeded(now),
            Outcome::Dead(reason) => self.give_up(entry, reason, now),
            Outcome::Blocked(block) => {
                entry.was_read();
                self.wait(entry);
                self.block(block, now);
            }
            Outcome::Halted => {
                entry.was_read();
                entry.attempts = entry.attempts.saturating_sub(1);
                self.wait(entry);
            }
            Outcome::Unreadable(message) => self.not_read(entry, message, now, jitter),
            Outcome::Retry { after, message } => {
                let is_of_this_era = entry.era == self.era;
                entry.was_read();
                let has_progressed = entry.has_progressed;
                let trouble = entry.trouble();
                if has_progressed {
                    // The link carries something, and what it carried stays: it is worth another try at once.
                    (trouble.failing_since, trouble.strikes) = (None, 0);
                    if let (true, Gate::Waiting { failures, .. }) = (is_of_this_era, &mut self.gate) {
                        *failures = 0;
                    }
                }
                let since = *trouble.failing_since.get_or_insert(self.served);
                if self.served.saturating_sub(since) > self.limits.give_up_after {
                    self.give_up(entry, message, now);
                    return;
                }
                let is_its_own = trouble.failed_after.replace(self.successes).is_some_and(|then| then < self.successes);
                if is_its_own {
                    self.strike(entry, after, now, jitter);
                    return;
                }
                self.wait(entry);
                if is_of_this_era {
                    self.failed(after, now, jitter);
                }
            }
        }
    }

    /// Takes in that a part of a chunk that is on its way arrived. An id that is not on its way is passed over.
    pub fn progressed(&mut self, id: &ChunkId) {
        if let Some(entry) = self.in_flight.get_mut(id) {
            entry.has_progressed = true;
        }
    }

    /// Tells whether a request that is no chunk's may go out: the one gate stands before it too, and chunks go first.
    pub fn admits_other(&self, now: Tick) -> bool {
        match &self.gate {
            Gate::Open => true,
            Gate::Waiting { until, .. } => now >= *until && self.in_flight.is_empty() && !self.has_startable(),
            Gate::Blocked { .. } => false,
        }
    }

    /// Returns from when on requests may go out; `None` while a fact stops them.
    pub fn opens_at(&self) -> Option<Tick> {
        match &self.gate {
            Gate::Open => Some(Tick::default()),
            Gate::Waiting { until, .. } => Some(*until),
            Gate::Blocked { .. } => None,
        }
    }

    /// Tells how a request that is no chunk's ended, so that the gate learns from it as from a chunk's.
    pub fn finish_other(&mut self, outcome: &Outcome, now: Tick, jitter: f64) {
        match outcome {
            Outcome::Settled => self.succeeded(now),
            Outcome::Dead(_) | Outcome::Unreadable(_) | Outcome::Halted => {}
            Outcome::Blocked(block) => {
                self.block(block.clone(), now);
            }
            Outcome::Retry { after, .. } => self.failed(*after, now, jitter),
        }
    }

    /// Stops all uploads because of a fact, until a probe finds it ended. Returns whether the reason is new.
    pub fn block(&mut self, block: Block, now: Tick) -> bool {
        let probes = match &self.gate {
            Gate::Blocked { block: earlier, .. } if *earlier == block => return false,
            Gate::Blocked { .. } | Gate::Open | Gate::Waiting { .. } => 0,
        };
        self.era += 1;
        self.gate = Gate::Blocked { block, probes, probe_at: probe_at(probes, now), is_probing: false };
        true
    }

    /// Tells what a probe found: nothing wrong, or what still stops uploads. Without an answer the fact is taken to last.
    pub fn probed(&mut self, found: Result<(), ProbeFailure>, now: Tick) {
        let Gate::Blocked { block, probes, probe_at: at, is_probing } = &mut self.gate else { return };
        match found {
            Ok(()) => {
                self.era += 1;
                self.gate = Gate::Open;
            }
            Err(still) => {
                let after = match still {
                    ProbeFailure::Blocked(found) => {
                        *block = found;
                        None
                    }
                    ProbeFailure::Unanswered { after } => after,
                };
                *probes = probes.saturating_add(1);
                *at = probe_at(*probes, now).max(now.after(after.unwrap_or_default()));
                *is_probing = false;
            }
        }
    }

    /// Returns the fact that stops uploads, if one does.
    pub fn blocked(&self) -> Option<&Block> {
        match &self.gate {
            Gate::Blocked { block, .. } => Some(block),
            Gate::Open | Gate::Waiting { .. } => None,
        }
    }

    /// Returns when the next try or probe is due, where one waits for a time.
    pub fn next_try_at(&self) -> Option<Tick> {
        match &self.gate {
            Gate::Open if self.order.is_empty() => self.later.first_key_value().map(|((until, _), ())| *until),
            Gate::Open => None,
            Gate::Waiting { until, .. } => (!self.waiting.is_empty()).then_some(*until),
            Gate::Blocked { probe_at, .. } => Some(*probe_at),
        }
    }

    /// Returns where a chunk is.
    pub fn stage(&self, id: &ChunkId) -> Option<Stage<'_>> {
        if self.waiting.contains_key(id) {
            Some(Stage::Waiting)
        } else if self.in_flight.contains_key(id) {
            Some(Stage::InFlight)
        } else {
            self.dead.get(id).map(|letter| Stage::Dead(&letter.reason))
        }
    }

    /// Returns why the file of a chunk that waits could not be read, where its last try ended so.
    pub fn unreadable(&self, id: &ChunkId) -> Option<&str> {
        self.waiting.get(id)?.unreadable()
    }

    /// Tells whether chunks of a recording are on their way, or wait and can be read as far as is known.
    pub fn is_busy(&self, recording: &RecordingName) -> bool {
        self.busy.contains_key(recording)
    }

    /// Tells whether a chunk that is on its way would be started in these hours.
    pub fn may_go_on(&self, id: &ChunkId) -> bool {
        !self.is_window_closed || self.in_flight.get(id).is_some_and(|entry| entry.is_urgent)
    }

    /// Tells whether nothing waits and nothing is on its way.
    pub fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Returns how many chunks wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the chunks that are on their way, or of which the mark is being written.
    pub fn in_flight(&self) -> impl ExactSizeIterator<Item = &Item> {
        self.in_flight.values().map(|entry| &entry.item)
    }

    /// Returns what became of a chunk that was given up.
    pub fn dead_letter(&self, id: &ChunkId) -> Option<&DeadLetter> {
        self.dead.get(id)
    }

    /// Returns the chunks that were given up.
    pub fn dead_letters(&self) -> impl ExactSizeIterator<Item = &DeadLetter> {
        self.dead.values()
    }

    fn place(&self, entry: &Try) -> Place {
        let Item { finalized_at_ns, rank, .. } = entry.item;
        let age = match self.limits.order {
            Order::Oldest => finalized_at_ns,
            Order::Newest => UnixNs::MAX - finalized_at_ns,
        };
        Place { is_not_urgent: !entry.is_urgent, attempts: entry.attempts, rank, age, id: entry.item.id.clone() }
    }

    fn wait(&mut self, entry: Try) {
        self.order.insert(self.place(&entry), ());
        self.keep(entry);
    }

    /// Keeps a chunk among those that wait.
    fn keep(&mut self, entry: Try) {
        if entry.unreadable().is_none() {
            self.count_busy(&entry.item.id.recording);
        }
        self.waiting.insert(entry.item.id.clone(), entry);
    }

    /// Takes a chunk from those that wait.
    fn take(&mut self, id: &ChunkId) -> Option<Try> {
        let entry = self.waiting.remove(id)?;
        // A backlog of many thousand chunks leaves no empty room behind.
        if self.waiting.len() < self.waiting.capacity() / 8 {
            self.waiting.shrink_to(2 * self.waiting.len());
        }
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

    /// Takes the next chunk: the first of those that failed least. While the store fails, every other try is the newest
    /// of them, so that chunks with a fault of their own hold up no sound one.
    fn pop(&mut self) -> Option<Place> {
        let (first, ()) = self.order.first_key_value().filter(|_| self.has_startable())?;
        let place = match &self.gate {
            Gate::Waiting { failures, .. } if failures % 2 == 0 => {
                let is_alike =
                    |place: &&Place| (place.is_not_urgent, place.attempts) == (first.is_not_urgent, first.attempts);
                self.order.keys().take_while(is_alike).last().unwrap_or(first).clone()
            }
            Gate::Open | Gate::Waiting { .. } | Gate::Blocked { .. } => first.clone(),
        };
        self.order.remove(&place);
        Some(place)
    }

    /// Lets a chunk wait for a time of its own. It counts as waiting.
    fn put_off(&mut self, entry: Try, until: Tick) {
        self.later.insert((until, entry.item.id.clone()), ());
        self.keep(entry);
    }

    /// Puts a chunk off that has a fault of its own.
    fn strike(&mut self, mut entry: Try, after: Option<Duration>, now: Tick, jitter: f64) {
        let trouble = entry.trouble();
        trouble.strikes = trouble.strikes.saturating_add(1);
        let wait = backoff::delay(trouble.strikes.saturating_add(1), jitter).max(after.unwrap_or_default());
        self.put_off(entry, now.after(wait));
    }

    /// Takes in that a chunk's file could not be read: it is put off, and given up only when that lasts.
    fn not_read(&mut self, mut entry: Try, message: String, now: Tick, jitter: f64) {
        let since = *entry.trouble().unreadable_since.get_or_insert(now);
        if now.since(since) > self.limits.give_up_after {
            self.give_up(entry, message, now);
            return;
        }
        entry.trouble().unreadable = Some(message);
        let is_of_this_era = entry.era == self.era;
        self.strike(entry, None, now, jitter);
        self.unreadable_in_a_row = self.unreadable_in_a_row.saturating_add(1);
        if is_of_this_era && self.unreadable_in_a_row > UNREADABLE_MAX {
            self.failed(None, now, jitter);
        }
    }

    fn give_up(&mut self, entry: Try, reason: String, now: Tick) {
        let retry_at = now.after(DEAD_LETTER_RETRY);
        let letter = DeadLetter { item: entry.item, reason, attempts: entry.attempts, retry_at };
        self.dead.insert(letter.item.id.clone(), letter);
    }

    /// Lets dead letters wait again a day after their last try, and chunks whose own time has come.
    fn revive(&mut self, now: Tick) {
        while let Some(((until, id), ())) = self.later.first_key_value() {
            if *until > now {
                break;
            }
            let id = id.clone();
            self.later.pop_first();
            if let Some(entry) = self.waiting.get(&id) {
                self.order.insert(self.place(entry), ());
            }
        }
        let is_due = |letter: &DeadLetter| now >= letter.retry_at;
        let due: Vec<_> =
            self.dead.values().filter(|letter| is_due(letter)).map(|letter| letter.item.id.clone()).collect();
        for id in due {
            if let Some(letter) = self.dead.remove(&id) {
                self.wait(Try { attempts: letter.attempts, ..Try::first(letter.item) });
            }
        }
    }

    fn succeeded(&mut self, now: Tick) {
        self.successes += 1;
        self.unreadable_in_a_row = 0;
        if let Some(last) = self.last_success.replace(now) {
            self.served += now.since(last).min(SERVED_STEP_MAX);
        }
        if matches!(self.gate, Gate::Waiting { .. }) {
            self.era += 1;
            self.gate = Gate::Open;
        }
    }

    fn failed(&mut self, after: Option<Duration>, now: Tick, jitter: f64) {
        let failures = match &self.gate {
            Gate::Open => 1,
            Gate::Waiting { failures, .. } => failures.saturating_add(1),
            Gate::Blocked { .. } => return,
        };
        let wait = backoff::delay(failures, jitter).max(after.unwrap_or_default());
        self.era += 1;
        self.gate = Gate::Waiting { failures, until: now.after(wait) };
    }

    fn idle(&self) -> Next {
        let later = self.later.first_key_value().map(|((until, _), ())| *until);
        match self.dead.values().map(|letter| letter.retry_at).chain(later).min() {
            Some(tick) => Next::WaitUntil(tick),
            None => Next::Idle,
        }
    }
}

/// A probe costs little, so the first ones come sooner than the 60 seconds of a fact that lasts.
fn probe_at(probes: u32, now: Tick) -> Tick {
    now.after(backoff::delay(probes.saturating_add(2), 1.0))
}

#[cfg(test)]
mod tests;
