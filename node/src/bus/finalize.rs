//! Receiving finalize events. They are hints: the node neither waits for one nor trusts one.

use std::{sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{
    MachineId,
    codec::Format,
    keys,
    limits::{EVENT_BYTES_MAX, EVENTS_RECEIVED_MAX},
};
use tokio::{sync::mpsc, task::spawn_blocking};
use zenoh::{Session, sample::Sample};
use zenoh_ext::{AdvancedSubscriber, AdvancedSubscriberBuilderExt, HistoryConfig, RecoveryConfig};

use super::error::BusError;
use crate::{
    clock::Clock,
    engine::driver::Engine,
    policy::{
        early::{Early, EarlyEvents, Step},
        intake::{Announced, Refused},
    },
};

/// The subscriber of one form of the key.
pub(super) type Listening = AdvancedSubscriber<()>;

/// How long the query for history may take. Live events are held back meanwhile.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(2);

/// An event as it arrived.
struct ReceivedEvent {
    bytes: Vec<u8>,
    format: Option<Format>,
}

impl ReceivedEvent {
    /// A payload that is too large for an event is not copied: one byte more than the limit is refused as well.
    fn of(sample: &Sample) -> Self {
        let payload = sample.payload();
        let bytes = if payload.len() > EVENT_BYTES_MAX {
            vec![0; EVENT_BYTES_MAX + 1]
        } else {
            payload.to_bytes().into_owned()
        };
        // Publishers name encodings loosely. Without a known one the bytes decide.
        let format = Format::of_encoding(&sample.encoding().to_string()).ok().flatten();
        Self { bytes, format }
    }
}

/// Subscribes to the finalize events of a machine, in both forms and spellings, with history and recovery.
pub(super) async fn listen(
    session: &Session,
    machine: &MachineId,
    engine: Arc<Engine>,
    clock: Arc<dyn Clock>,
) -> Result<Vec<Listening>, BusError> {
    let (sender, received) = mpsc::channel(EVENTS_RECEIVED_MAX);
    let mut subscribers = Vec::new();
    for key in keys::finalize_subscriptions(machine) {
        let sender = sender.clone();
        let subscriber = session
            .declare_subscriber(&key)
            .callback(move |sample| {
                // A full queue loses nothing: the next scan finds the chunk.
                sender.try_send(ReceivedEvent::of(&sample)).ok();
            })
            .history(HistoryConfig::default().detect_late_publishers())
            .recovery(RecoveryConfig::default().heartbeat())
            .query_timeout(HISTORY_TIMEOUT);
        subscribers.push(subscriber.await.map_err(BusError::new(format!("can't subscribe to {key}")))?);
    }
    tokio::spawn(Intake { events: engine, clock, early: EarlyEvents::default() }.run(received));
    Ok(subscribers)
}

/// What takes in events.
trait TakesEvents: Send + Sync + 'static {
    /// Takes in an event. With `Missing` it also returns the announced chunk, whose file may come later.
    fn take(&self, event: &ReceivedEvent) -> Result<(), (Refused, Option<Announced>)>;

    /// Looks for the file of an announced chunk.
    fn announce(&self, announced: &Announced) -> Result<(), Refused>;

    /// Counts a refused event.
    fn refuse(&self, refused: Refused);
}

impl TakesEvents for Engine {
    fn take(&self, event: &ReceivedEvent) -> Result<(), (Refused, Option<Announced>)> {
        self.take_event(&event.bytes, event.format)
    }

    fn announce(&self, announced: &Announced) -> Result<(), Refused> {
        self.announce(announced)
    }

    fn refuse(&self, refused: Refused) {
        self.refuse(refused);
    }
}

/// Takes in one event after the other, and looks again for the files of those that came early.
struct Intake<E> {
    events: Arc<E>,
    clock: Arc<dyn Clock>,
    early: EarlyEvents<Announced>,
}

impl<E: TakesEvents> Intake<E> {
    /// Runs until the subscribers are gone.
    async fn run(mut self, mut received: mpsc::Receiver<ReceivedEvent>) {
        loop {
            let event = match self.early.step(self.clock.tick()) {
                Step::Look => {
                    self.look_again().await;
                    continue;
                }
                Step::Wait => received.recv().await,
                Step::WaitFor(time) => match tokio::time::timeout(time, received.recv()).await {
                    Ok(event) => event,
                    Err(_) => continue,
                },
            };
            let Some(event) = event else { return };
            self.take(event).await;
        }
    }

    async fn take(&mut self, event: ReceivedEvent) {
        let events = Arc::clone(&self.events);
        let (refused, early) = match spawn_blocking(move || events.take(&event)).await {
            Ok(Err(refused)) => refused,
            Ok(Ok(())) => return,
            Err(error) => return tracing::error!(%error, "taking in an event ended abnormally"),
        };
        match early {
            None => tracing::debug!(?refused, "a finalize event is not taken"),
            Some(announced) => {
                if self.early.add(announced, self.clock.tick()).is_some() {
                    self.events.refuse(Refused::Missing);
                }
            }
        }
    }

    async fn look_again(&mut self) {
        let (now, events, early) = (self.clock.tick(), Arc::clone(&self.events), self.early.begin_look());
        let looked = spawn_blocking(move || {
            let is_missing = |early: &Early<Announced>| match events.announce(&early.event) {
                Ok(()) => false,
                Err(Refused::Missing) if early.may_still_come(now) => true,
                Err(refused) => {
                    let Announced { recording, chunk, .. } = &early.event;
                    tracing::debug!(%recording, chunk = %chunk.name, ?refused, "a finalize event is not taken");
                    events.refuse(refused);
                    false
                }
            };
            early.into_iter().filter(is_missing).collect()
        });
        self.early.end_look(looked.await.unwrap_or_default(), self.clock.tick());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use bubbaloop_storage_schemas::{ChunkName, Digest, UnixNs, manifest::Chunk};

    use super::*;
    use crate::policy::Tick;

    /// A clock that others set.
    #[derive(Debug, Default)]
    struct SetClock(Mutex<Tick>);

    impl Clock for SetClock {
        fn tick(&self) -> Tick {
            *self.0.lock().unwrap()
        }

        fn wall(&self) -> UnixNs {
            0
        }
    }

    /// Takes 10 ms for each event. The first one is early.
    struct Busy {
        clock: Arc<SetClock>,
        taken: AtomicU32,
        looks: AtomicU32,
    }

    fn announced() -> Announced {
        let digest = Digest::of(b"x");
        let name = ChunkName::new(0, &digest);
        let chunk = Chunk { name, digest, size_bytes: 1, log_time_first_ns: None, log_time_last_ns: None };
        Announced { machine_id: "robot_1".parse().unwrap(), recording: "drive".parse().unwrap(), chunk }
    }

    impl TakesEvents for Busy {
        fn take(&self, _event: &ReceivedEvent) -> Result<(), (Refused, Option<Announced>)> {
            let mut now = self.clock.0.lock().unwrap();
            *now = now.after(Duration::from_millis(10));
            match self.taken.fetch_add(1, Ordering::Relaxed) {
                0 => Err((Refused::Missing, Some(announced()))),
                _ => Ok(()),
            }
        }

        fn announce(&self, _announced: &Announced) -> Result<(), Refused> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            Err(Refused::Missing)
        }

        fn refuse(&self, _refused: Refused) {}
    }

    #[tokio::test]
    async fn the_file_of_an_early_event_is_looked_for_although_events_never_pause() {
        let clock = Arc::new(SetClock::default());
        let events = Arc::new(Busy { clock: Arc::clone(&clock), taken: AtomicU32::new(0), looks: AtomicU32::new(0) });
        let (sender, received) = mpsc::channel(100);
        for _ in 0..100 {
            sender.try_send(ReceivedEvent { bytes: Vec::new(), format: None }).ok();
        }
        drop(sender);
        Intake { events: Arc::clone(&events), clock, early: EarlyEvents::default() }.run(received).await;
        assert_eq!(events.taken.load(Ordering::Relaxed), 100);
        assert_eq!(events.looks.load(Ordering::Relaxed), 9, "in a second without a pause: one look each 100 ms");
    }
}
