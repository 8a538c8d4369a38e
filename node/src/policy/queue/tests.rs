use std::collections::{BTreeMap, BTreeSet};

use bubbaloop_storage_schemas::{ChunkName, Digest};
use proptest::prelude::*;

use super::*;

const LIMITS: Limits =
    Limits { concurrency: 3, chunks_max: 8, give_up_after: Duration::from_secs(100), order: Order::Oldest };

fn recording() -> RecordingName {
    "r".parse().unwrap()
}

fn id(number: u32) -> ChunkId {
    let digest = Digest::of(&number.to_be_bytes());
    ChunkId { recording: recording(), chunk: ChunkName::new(number, &digest) }
}

fn item(number: u32) -> Item {
    Item { id: id(number), size_bytes: 1, finalized_at_ns: number.into(), rank: 0, is_fresh: false }
}

fn at(seconds: u64) -> Tick {
    Tick(Duration::from_secs(seconds))
}

fn queue(chunks: u32) -> Queue {
    let mut queue = Queue::new(LIMITS);
    for number in 0..chunks {
        assert_eq!(queue.offer(item(number)), Offered::Queued);
    }
    queue
}

fn start(queue: &mut Queue, now: Tick) -> Option<u32> {
    match queue.next(now) {
        Next::Start { item, .. } => Some(item.id.chunk.index()),
        Next::Probe | Next::WaitUntil(_) | Next::Idle => None,
    }
}

fn retry() -> Outcome {
    Outcome::Retry { after: None, message: "reset".into() }
}

fn block(reason: &str) -> Block {
    Block::new(reason.into(), "mend it")
}

#[test]
fn the_oldest_goes_first_and_no_more_at_once_than_allowed() {
    let mut queue = queue(5);
    let started: Vec<_> = std::iter::from_fn(|| start(&mut queue, at(0))).collect();
    assert_eq!(started, [0, 1, 2]);
    queue.finish(&id(1), Outcome::Settled, at(1), 0.0);
    assert_eq!(start(&mut queue, at(1)), Some(3));
}

#[test]
fn the_next_goes_while_marks_are_written_and_no_more_than_these_may_be() {
    let mut queue = Queue::new(Limits { chunks_max: 100, ..LIMITS });
    for number in 0..100 {
        queue.offer(item(number));
    }
    while let Some(number) = start(&mut queue, at(0)) {
        queue.arrived(&id(number));
    }
    assert_eq!((queue.in_flight().len(), queue.arrivals().count()), (LIMITS.concurrency + 64, LIMITS.concurrency + 64));
    assert_eq!(queue.stage(&id(0)), Some(Stage::InFlight), "it counts only with its mark");
    queue.finish(&id(0), Outcome::Settled, at(1), 0.0);
    assert_eq!((start(&mut queue, at(1)), start(&mut queue, at(1))), (Some(67), None));
}

#[test]
fn while_the_store_fails_the_one_try_lasts_until_its_mark_is_written() {
    let mut queue = queue(3);
    for _ in 0..2 {
        let number = start(&mut queue, at(0)).unwrap();
        queue.finish(&id(number), retry(), at(0), 1.0);
    }
    let number = start(&mut queue, at(5)).unwrap();
    queue.arrived(&id(number));
    assert_eq!(start(&mut queue, at(5)), None);
    queue.finish(&id(number), Outcome::Settled, at(5), 1.0);
    assert!(start(&mut queue, at(5)).is_some());
}

#[test]
fn the_newest_goes_first_where_that_is_wanted_and_a_better_rank_before_any_age() {
    let mut queue = queue(5);
    queue.set_limits(Limits { order: Order::Newest, ..LIMITS });
    assert_eq!(start(&mut queue, at(0)), Some(4));
    queue.rank(|id| u32::from(id.chunk.index() != 1));
    assert_eq!(start(&mut queue, at(0)), Some(1));
    queue.set_limits(Limits { concurrency: 4, ..LIMITS });
    assert_eq!((start(&mut queue, at(0)), start(&mut queue, at(0))), (Some(0), Some(2)));
    assert_eq!(start(&mut queue, at(0)), None, "four are on their way");
}

#[test]
fn out_of_hours_only_what_a_person_asked_for_goes() {
    let mut queue = queue(2);
    queue.set_window(false);
    assert_eq!(start(&mut queue, at(0)), None);
    assert!(queue.admits_other(at(0)), "a manifest is small");
    let asked = Item { id: ChunkId { recording: "asked".parse().unwrap(), ..id(7) }, ..item(7) };
    queue.offer(asked);
    queue.prioritize(&"asked".parse().unwrap());
    assert_eq!((start(&mut queue, at(0)), start(&mut queue, at(0))), (Some(7), None));
    queue.set_window(true);
    assert_eq!(start(&mut queue, at(0)), Some(0));
}

#[test]
fn a_large_chunk_of_which_parts_arrive_is_neither_given_up_nor_kept_waiting() {
    let mut queue = queue(1);
    let mut now = at(0);
    for _ in 0..100 {
        assert_eq!(start(&mut queue, now), Some(0));
        now = now.after(Duration::from_secs(60));
        queue.progressed(&id(0));
        queue.finish(&id(0), retry(), now, 1.0);
        assert!(queue.next_try_at().is_none_or(|tick| tick <= now), "it waits although it got on");
    }
    start(&mut queue, now).unwrap();
    queue.finish(&id(0), retry(), now, 1.0);
    assert!(queue.next_try_at().unwrap() > now, "nothing arrived this time");
}

#[test]
fn a_slow_link_carries_one_chunk_at_a_time_and_what_is_wanted_more_beside_it() {
    let mut queue = queue(4);
    queue.set_room(Some(0));
    assert_eq!((start(&mut queue, at(0)), start(&mut queue, at(0))), (Some(0), None));
    queue.rank(|id| if id.chunk.index() == 3 { 0 } else { 1 });
    queue.finish(&id(0), Outcome::Settled, at(1), 0.0);
    let urgent = Item { id: ChunkId { recording: "asked".parse().unwrap(), ..id(7) }, ..item(7) };
    assert_eq!((start(&mut queue, at(1)), start(&mut queue, at(1))), (Some(3), None));
    queue.offer(urgent);
    queue.prioritize(&"asked".parse().unwrap());
    assert_eq!((start(&mut queue, at(1)), start(&mut queue, at(1))), (Some(7), None));
    queue.set_room(Some(3));
    assert_eq!((start(&mut queue, at(1)), start(&mut queue, at(1))), (Some(1), None), "three bytes at once");
}

#[test]
fn a_full_queue_keeps_the_chunks_that_go_first() {
    let mut queue = Queue::new(Limits { chunks_max: 2, ..LIMITS });
    let offered = [5, 6, 7, 3, 6].map(|number| queue.offer(item(number)));
    assert_eq!(offered, [Offered::Queued, Offered::Queued, Offered::Full, Offered::Queued, Offered::Full]);
    assert_eq!((start(&mut queue, at(0)), start(&mut queue, at(0))), (Some(3), Some(5)));
}

#[test]
fn a_queue_that_was_full_wants_what_it_turned_away_once_half_of_it_has_drained() {
    let mut queue = queue(8);
    assert!(!queue.wants_offers(), "nothing was turned away");
    assert_eq!(queue.offer(item(8)), Offered::Full);
    let mut waiting = 8;
    while !queue.wants_offers() {
        let started = start(&mut queue, Tick::default()).unwrap();
        queue.finish(&item(started).id, Outcome::Settled, Tick::default(), 0.0);
        waiting -= 1;
    }
    assert_eq!(waiting, 4);
    assert!(!queue.wants_offers(), "that is told once");
}

#[test]
fn a_chunk_is_taken_once_and_a_full_queue_says_so() {
    let mut queue = queue(8);
    assert_eq!(queue.offer(item(0)), Offered::Known);
    assert_eq!(queue.offer(item(9)), Offered::Full);
    assert_eq!(start(&mut queue, at(0)), Some(0));
    assert_eq!(queue.offer(item(0)), Offered::Known);
    queue.finish(&id(0), Outcome::Settled, at(0), 0.0);
    assert_eq!(queue.offer(item(9)), Offered::Queued);
}

#[test]
fn an_outage_costs_one_try_per_wait_each_with_another_chunk() {
    let mut queue = queue(4);
    let mut tried = Vec::new();
    let mut waits = Vec::new();
    let mut now = at(0);
    for _ in 0..4 {
        let number = start(&mut queue, now).expect("one try is due");
        if tried.is_empty() {
            queue.finish(&id(number), retry(), now, 1.0);
        } else {
            assert_eq!(start(&mut queue, now), None, "only one try at a time goes out");
            queue.finish(&id(number), retry(), now, 1.0);
        }
        tried.push(number);
        let until = queue.next_try_at().unwrap();
        waits.push(until.since(now).as_secs());
        now = until;
    }
    assert_eq!(tried, [0, 1, 3, 2], "each with another chunk, every other time the newest");
    assert_eq!(waits, [0, 5, 10, 20]);
}

#[test]
fn failures_of_tries_that_were_on_their_way_together_count_once() {
    let mut queue = queue(3);
    while start(&mut queue, at(0)).is_some() {}
    for number in 0..3 {
        queue.finish(&id(number), retry(), at(1), 1.0);
    }
    assert_eq!(queue.next_try_at(), Some(at(1)), "the first failure is tried again at once");
}

#[test]
fn the_first_success_opens_the_gate_for_all() {
    let mut queue = queue(5);
    for now in [0, 1] {
        let number = start(&mut queue, at(now)).unwrap();
        queue.finish(&id(number), retry(), at(now), 1.0);
    }
    assert_eq!(start(&mut queue, at(5)), None, "not before its time");
    let probe = start(&mut queue, at(6)).unwrap();
    queue.finish(&id(probe), Outcome::Settled, at(6), 1.0);
    assert_eq!(std::iter::from_fn(|| start(&mut queue, at(6))).count(), 3);
}

#[test]
fn a_store_that_names_a_time_is_not_asked_before_it() {
    let mut queue = queue(1);
    start(&mut queue, at(0)).unwrap();
    let outcome = Outcome::Retry { after: Some(Duration::from_secs(90)), message: "slow down".into() };
    queue.finish(&id(0), outcome, at(0), 0.0);
    assert_eq!(queue.next(at(89)), Next::WaitUntil(at(90)));
    assert_eq!(start(&mut queue, at(90)), Some(0));
}

#[test]
fn a_block_ends_by_a_probe_and_by_nothing_else() {
    let mut queue = queue(2);
    start(&mut queue, at(0)).unwrap();
    queue.finish(&id(0), Outcome::Blocked(block("no_such_bucket")), at(0), 0.0);
    assert_eq!(queue.blocked().unwrap().reason, "no_such_bucket");
    assert_eq!(queue.next(at(4)), Next::WaitUntil(at(5)));
    assert_eq!(queue.next(at(5)), Next::Probe);
    assert_eq!(queue.next(at(5)), Next::Idle, "one probe at a time");
    queue.probed(Err(ProbeFailure::Blocked(block("access_denied"))), at(6));
    assert_eq!(queue.blocked().unwrap().reason, "access_denied");
    assert_eq!(queue.next(at(16)), Next::Probe);
    queue.probed(Ok(()), at(16));
    assert_eq!(queue.blocked(), None);
    assert_eq!(start(&mut queue, at(16)), Some(1), "the chunk that met the block goes behind the others");
}

#[test]
fn what_is_no_chunk_stands_before_the_same_gate() {
    let mut queue = queue(0);
    assert!(queue.admits_other(at(0)));
    for _ in 0..2 {
        queue.finish_other(&retry(), at(0), 1.0);
    }
    assert!(!queue.admits_other(at(4)));
    assert!(queue.admits_other(at(5)));
    queue.offer(item(0));
    assert!(!queue.admits_other(at(5)), "chunks go first");
    assert_eq!(start(&mut queue, at(5)), Some(0));
    queue.finish(&id(0), Outcome::Settled, at(5), 1.0);
    assert!(queue.admits_other(at(5)));
    queue.finish_other(&Outcome::Blocked(block("access_denied")), at(6), 1.0);
    assert!(!queue.admits_other(at(1000)));
    assert_eq!(queue.blocked().unwrap().reason, "access_denied");
}

#[test]
fn chunks_with_a_fault_of_their_own_hold_up_no_sound_one() {
    let mut queue = queue(3);
    let mut now = at(0);
    for round in 0..5 {
        queue.offer(item(100 + round));
        while let Some(number) = start(&mut queue, now) {
            let outcome = if number < 100 { retry() } else { Outcome::Settled };
            queue.finish(&id(number), outcome, now, 1.0);
        }
        now = now.after(Duration::from_secs(6));
        while let Some(number) = start(&mut queue, now) {
            let outcome = if number < 100 { retry() } else { Outcome::Settled };
            queue.finish(&id(number), outcome, now, 1.0);
        }
        assert_eq!(queue.stage(&id(100 + round)), None, "the sound chunk of round {round} went up");
    }
    assert_eq!(queue.waiting(), 3);
    let Next::WaitUntil(until) = queue.next(now) else { panic!("they wait for times of their own") };
    assert!(until > now);
    queue.prioritize(&recording());
    assert!(start(&mut queue, now).is_some(), "a person's word lets them go at once");
}

#[test]
fn a_file_that_cant_be_read_waits_for_its_own_time_and_holds_up_no_other_and_no_manifest() {
    let mut queue = queue(2);
    let unreadable = || Outcome::Unreadable("too many open files".into());
    assert_eq!(start(&mut queue, at(0)), Some(0));
    queue.finish(&id(0), unreadable(), at(0), 1.0);
    assert_eq!((queue.stage(&id(0)), queue.unreadable(&id(0))), (Some(Stage::Waiting), Some("too many open files")));
    assert_eq!(start(&mut queue, at(0)), Some(1), "the store does not fail");
    queue.finish(&id(1), Outcome::Settled, at(0), 1.0);
    assert!(queue.admits_other(at(0)));
    assert_eq!(queue.next(at(4)), Next::WaitUntil(at(5)));
    assert_eq!(start(&mut queue, at(5)), Some(0));
    assert_eq!(queue.unreadable(&id(0)), None, "it is being tried");
    queue.finish(&id(0), unreadable(), at(5), 1.0);
    queue.prioritize(&recording());
    assert_eq!(queue.unreadable(&id(0)), None, "who asks wants another try");
}

#[test]
fn a_machine_that_can_read_no_file_tries_one_at_a_time_and_gives_up_only_what_stays_unreadable() {
    let mut queue = Queue::new(Limits { chunks_max: 100, ..LIMITS });
    for number in 0..100 {
        queue.offer(item(number));
    }
    let unreadable = || Outcome::Unreadable("input/output error".into());
    let (mut now, mut tries) = (at(0), 0);
    while now < at(90) {
        match queue.next(now) {
            Next::Start { item, .. } => {
                tries += 1;
                queue.finish(&item.id, unreadable(), now, 1.0);
            }
            Next::WaitUntil(tick) => now = tick,
            Next::Probe | Next::Idle => panic!("nothing is blocked and chunks wait"),
        }
    }
    assert!(tries < 20, "{tries} tries");
    assert_eq!(queue.dead_letters().len(), 0);
    for seconds in 0..400 {
        while let Next::Start { item, .. } = queue.next(at(90 + seconds)) {
            let outcome = if item.id == id(0) { unreadable() } else { Outcome::Settled };
            queue.finish(&item.id, outcome, at(90 + seconds), 1.0);
        }
    }
    assert_eq!(queue.stage(&id(0)), Some(Stage::Dead("input/output error")));
    assert_eq!((queue.waiting(), queue.dead_letters().len()), (0, 1));
}

#[test]
fn a_chunk_that_is_stopped_in_the_middle_did_not_fail() {
    let mut queue = queue(2);
    assert_eq!(queue.next(at(0)), Next::Start { item: item(0), attempt: 1 });
    queue.set_window(false);
    assert!(!queue.may_go_on(&id(0)));
    queue.finish(&id(0), Outcome::Halted, at(0), 1.0);
    assert_eq!(queue.next(at(0)), Next::Idle);
    queue.set_window(true);
    assert_eq!(queue.next(at(0)), Next::Start { item: item(0), attempt: 1 });
    assert!(queue.may_go_on(&id(0)));
    queue.set_window(false);
    queue.prioritize(&recording());
    assert!(queue.may_go_on(&id(0)), "who asks means what is on its way too");
    queue.finish(&id(0), Outcome::Halted, at(0), 1.0);
    assert_eq!(start(&mut queue, at(0)), Some(0));
}

#[test]
fn a_probe_without_an_answer_ends_no_block_and_comes_again_when_the_store_says() {
    let mut queue = queue(1);
    queue.block(block("no_such_bucket"), at(0));
    assert_eq!(queue.next(at(5)), Next::Probe);
    queue.probed(Err(ProbeFailure::Unanswered { after: Some(Duration::from_secs(90)) }), at(5));
    assert_eq!(queue.blocked().unwrap().reason, "no_such_bucket");
    assert_eq!(queue.next(at(94)), Next::WaitUntil(at(95)));
    assert_eq!(queue.next(at(95)), Next::Probe);
}

#[test]
fn a_day_offline_gives_nothing_up() {
    let mut queue = queue(2);
    start(&mut queue, at(0)).unwrap();
    queue.finish(&id(0), Outcome::Settled, at(0), 0.0);
    let mut now = at(1);
    while now < at(24 * 60 * 60) {
        if let Some(number) = start(&mut queue, now) {
            queue.finish(&id(number), retry(), now, 1.0);
        }
        now = queue.next_try_at().unwrap_or(now).max(now.after(Duration::from_secs(1)));
    }
    assert_eq!(queue.dead_letters().len(), 0);
    assert_eq!(start(&mut queue, now), Some(1));
}

#[test]
fn a_chunk_that_fails_while_others_pass_is_given_up_and_tried_again_the_next_day() {
    let mut queue = queue(1);
    let mut now = at(0);
    let mut number = 1;
    while queue.dead_letters().len() == 0 {
        queue.offer(item(number));
        while let Next::Start { item, .. } = queue.next(now) {
            let outcome = if item.id == id(0) { retry() } else { Outcome::Settled };
            queue.finish(&item.id, outcome, now, 0.0);
        }
        number += 1;
        now = now.after(Duration::from_secs(10));
        assert!(now < at(1000), "it is never given up");
    }
    assert!(now > at(100), "given up before its time");
    assert_eq!(queue.stage(&id(0)), Some(Stage::Dead("reset")));
    assert_eq!(queue.offer(item(0)), Offered::Known);
    while start(&mut queue, now).is_some() {}
    assert_eq!(start(&mut queue, now.after(DEAD_LETTER_RETRY)), Some(0));
}

#[test]
fn what_a_person_asks_for_goes_first_dead_letters_too() {
    let mut queue = queue(1);
    start(&mut queue, at(0)).unwrap();
    queue.finish(&id(0), Outcome::Dead("damaged".into()), at(0), 0.0);
    let other = Item { id: ChunkId { recording: "other".parse().unwrap(), ..id(1) }, ..item(1) };
    queue.offer(other);
    queue.prioritize(&recording());
    assert_eq!(start(&mut queue, at(0)), Some(0));
}

#[derive(Debug, Clone)]
enum Action {
    Offer(u32),
    Next,
    Arrived(u32),
    Finish(u32, u8),
    Prioritize,
    Forget(u32),
    Probed(u8),
    Pass(u64),
    Newest(bool),
    Window(bool),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..20_u32).prop_map(Action::Offer),
        4 => Just(Action::Next),
        4 => (0..20_u32, 0..6_u8).prop_map(|(number, kind)| Action::Finish(number, kind)),
        2 => (0..20_u32).prop_map(Action::Arrived),
        1 => Just(Action::Prioritize),
        1 => (0..20_u32).prop_map(Action::Forget),
        1 => (0..3_u8).prop_map(Action::Probed),
        2 => (0..100_u64).prop_map(Action::Pass),
        1 => any::<bool>().prop_map(Action::Newest),
        1 => any::<bool>().prop_map(Action::Window),
    ]
}

/// The naive model: in which of the three places each chunk is.
#[derive(Debug, Default)]
struct Model {
    waiting: BTreeSet<u32>,
    in_flight: BTreeSet<u32>,
    /// Those of them that the store has.
    arrived: BTreeSet<u32>,
    dead: BTreeSet<u32>,
}

impl Model {
    fn places(&self) -> BTreeMap<u32, usize> {
        let mut places = BTreeMap::new();
        for number in self.waiting.iter().chain(&self.in_flight).chain(&self.dead) {
            *places.entry(*number).or_default() += 1;
        }
        places
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_chunk_is_lost_doubled_or_early(actions in proptest::collection::vec(action(), 1..300)) {
        let mut queue = Queue::new(LIMITS);
        let mut model = Model::default();
        let mut now = at(0);
        for action in actions {
            match action {
                Action::Offer(number) => {
                    let offered = queue.offer(item(number));
                    let known = model.places().contains_key(&number);
                    prop_assert_eq!(offered == Offered::Known, known);
                    if offered == Offered::Queued {
                        model.waiting.insert(number);
                        let lost: Vec<_> =
                            model.waiting.iter().copied().filter(|other| queue.stage(&id(*other)).is_none()).collect();
                        let is_swap = model.waiting.len() > LIMITS.chunks_max;
                        prop_assert_eq!(lost.len(), usize::from(is_swap), "a full queue gives one for another");
                        model.waiting.retain(|other| !lost.contains(other));
                        prop_assert!(!lost.contains(&number));
                    }
                }
                Action::Next => {
                    let not_before = queue.next_try_at();
                    let was_failing = queue.gate.is_waiting();
                    match queue.next(now) {
                        Next::Start { item, .. } => {
                            let number = item.id.chunk.index();
                            prop_assert!(not_before.is_none_or(|tick| tick <= now), "started before its time");
                            prop_assert!(queue.blocked().is_none(), "started while blocked");
                            let is_urgent = queue.in_flight.get(&item.id).is_some_and(|entry| entry.is_urgent);
                            prop_assert!(is_urgent || !queue.is_window_closed, "started out of hours");
                            prop_assert!(model.waiting.remove(&number) && model.in_flight.insert(number));
                            prop_assert!(!was_failing || model.in_flight.len() == 1, "two tries while failing");
                        }
                        Next::Probe => prop_assert!(queue.blocked().is_some()),
                        Next::WaitUntil(tick) => prop_assert!(tick > now),
                        Next::Idle => {}
                    }
                }
                Action::Finish(number, kind) => {
                    let outcome = match kind {
                        0 => Outcome::Settled,
                        1 => retry(),
                        2 => Outcome::Blocked(block("fact")),
                        4 => Outcome::Unreadable("too many open files".into()),
                        5 => Outcome::Halted,
                        _ => Outcome::Dead("bad".into()),
                    };
                    queue.finish(&id(number), outcome, now, 0.5);
                    model.arrived.remove(&number);
                    if model.in_flight.remove(&number) {
                        match queue.stage(&id(number)) {
                            Some(Stage::Waiting) => prop_assert!(matches!(kind, 1 | 2 | 4 | 5) && model.waiting.insert(number)),
                            Some(Stage::Dead(_)) => prop_assert!(matches!(kind, 1 | 3 | 4) && model.dead.insert(number)),
                            Some(Stage::InFlight) => prop_assert!(false, "still on its way"),
                            None => prop_assert_eq!(kind, 0, "lost"),
                        }
                    }
                }
                Action::Arrived(number) => {
                    queue.arrived(&id(number));
                    if model.in_flight.contains(&number) {
                        model.arrived.insert(number);
                    }
                }
                Action::Prioritize => {
                    queue.prioritize(&recording());
                    model.waiting.append(&mut model.dead);
                }
                Action::Forget(number) => {
                    queue.forget(&id(number));
                    model.waiting.remove(&number);
                    model.dead.remove(&number);
                }
                Action::Probed(0) => queue.probed(Ok(()), now),
                Action::Probed(1) => queue.probed(Err(ProbeFailure::Blocked(block("fact"))), now),
                Action::Probed(_) => queue.probed(Err(ProbeFailure::Unanswered { after: None }), now),
                Action::Pass(seconds) => now = now.after(Duration::from_secs(seconds)),
                Action::Newest(is_newest) => {
                    let order = if is_newest { Order::Newest } else { Order::Oldest };
                    queue.set_limits(Limits { order, ..LIMITS });
                }
                Action::Window(is_open) => queue.set_window(is_open),
            }
            prop_assert!(model.places().values().all(|places| *places == 1), "in two places at once");
            prop_assert_eq!(queue.waiting(), model.waiting.len());
            prop_assert_eq!(queue.waiting.positions().count() + queue.waiting.delayed.len(), model.waiting.len());
            prop_assert_eq!(queue.in_flight().len(), model.in_flight.len());
            prop_assert_eq!(queue.dead_letters().len(), model.dead.len());
            prop_assert!(model.in_flight.len() - model.arrived.len() <= LIMITS.concurrency);
            prop_assert_eq!(queue.arrivals().count(), model.arrived.len());
            let is_readable = |number: &&u32| queue.unreadable(&id(**number)).is_none();
            let busy = model.waiting.iter().filter(is_readable).count() + model.in_flight.len();
            prop_assert_eq!(queue.busy.values().sum::<usize>(), busy);
            prop_assert_eq!(queue.is_busy(&id(0).recording), busy > 0);
        }
    }
}
