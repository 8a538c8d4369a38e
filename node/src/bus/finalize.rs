//! Hearing finalize events: hints, of which none is waited for and none is trusted.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{
    MachineId,
    codec::Format,
    keys,
    limits::{EARLY_EVENT_GRACE, EARLY_EVENTS_MAX, EVENT_BYTES_MAX, EVENTS_RECEIVED_MAX},
};
use tokio::{sync::mpsc, task::spawn_blocking};
use zenoh::{Session, sample::Sample};
use zenoh_ext::{AdvancedSubscriber, AdvancedSubscriberBuilderExt, HistoryConfig, RecoveryConfig};

use super::error::BusError;
use crate::{
    clock::Clock,
    engine::driver::Engine,
    policy::{
        Tick,
        intake::{Announced, Refused},
    },
};

/// The subscriber of one form of the key.
pub(super) type Listening = AdvancedSubscriber<()>;

/// Live events are held back while history is asked for, so that may not take long.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two looks for the files of early events.
const EARLY_LOOK: Duration = Duration::from_millis(100);

/// An event as it arrived.
struct Heard {
    bytes: Vec<u8>,
    format: Option<Format>,
}

impl Heard {
    /// What is too large to be an event is not copied: one byte more than the limit is refused as well.
    fn of(sample: &Sample) -> Self {
        let payload = sample.payload();
        let bytes = if payload.len() > EVENT_BYTES_MAX {
            vec![0; EVENT_BYTES_MAX + 1]
        } else {
            payload.to_bytes().into_owned()
        };
        // Publishers name encodings loosely: what is neither is looked at.
        let format = Format::of_encoding(&sample.encoding().to_string()).ok().flatten();
        Self { bytes, format }
    }
}

/// Subscribes to the finalize events of a machine, in both forms and spellings, with history and recovery.
pub(super) async fn listen(
    session: &Session,
    machine: &MachineId,
    sync: Arc<Engine>,
    clock: Arc<dyn Clock>,
) -> Result<Vec<Listening>, BusError> {
    let (sender, heard) = mpsc::channel(EVENTS_RECEIVED_MAX);
    let mut subscribers = Vec::new();
    for key in keys::finalize_subscriptions(machine) {
        let sender = sender.clone();
        let subscriber = session
            .declare_subscriber(&key)
            .callback(move |sample| {
                // A full queue loses nothing: the next scan finds the chunk.
                sender.try_send(Heard::of(&sample)).ok();
            })
            .history(HistoryConfig::default().detect_late_publishers())
            .recovery(RecoveryConfig::default().heartbeat())
            .query_timeout(HISTORY_TIMEOUT);
        subscribers.push(subscriber.await.map_err(BusError::new(format!("can't subscribe to {key}")))?);
    }
    tokio::spawn(Intake { sync, clock, early: VecDeque::new() }.run(heard));
    Ok(subscribers)
}

/// Takes in one event after the other, and looks again for the files of those that came early.
struct Intake {
    sync: Arc<Engine>,
    clock: Arc<dyn Clock>,
    early: VecDeque<(Tick, Announced)>,
}

impl Intake {
    async fn run(mut self, mut heard: mpsc::Receiver<Heard>) {
        loop {
            let event = if self.early.is_empty() {
                heard.recv().await
            } else {
                match tokio::time::timeout(EARLY_LOOK, heard.recv()).await {
                    Ok(event) => event,
                    Err(_) => {
                        self.look_again().await;
                        continue;
                    }
                }
            };
            let Some(event) = event else { return };
            self.take(event).await;
        }
    }

    async fn take(&mut self, event: Heard) {
        let sync = Arc::clone(&self.sync);
        let result = spawn_blocking(move || sync.take_event(&event.bytes, event.format)).await;
        let (refused, early) = match result {
            Ok(Err(refused)) => refused,
            Ok(Ok(())) => return,
            Err(error) => return tracing::error!(%error, "taking in an event ended abnormally"),
        };
        match early {
            None => tracing::debug!(?refused, "a finalize event is not taken"),
            Some(announced) => {
                if self.early.len() >= EARLY_EVENTS_MAX {
                    self.early.pop_front();
                    self.sync.refuse(Refused::Missing);
                }
                self.early.push_back((self.clock.tick().after(EARLY_EVENT_GRACE), announced));
            }
        }
    }

    async fn look_again(&mut self) {
        let (now, sync) = (self.clock.tick(), Arc::clone(&self.sync));
        let early = std::mem::take(&mut self.early);
        let looked = spawn_blocking(move || {
            let is_still_early = |(until, announced): &(Tick, Announced)| match sync.announce(announced) {
                Ok(()) => false,
                Err(Refused::Missing) if now < *until => true,
                Err(refused) => {
                    let recording = &announced.recording;
                    tracing::debug!(%recording, chunk = %announced.chunk.name, ?refused, "a finalize event is not taken");
                    sync.refuse(refused);
                    false
                }
            };
            early.into_iter().filter(is_still_early).collect()
        });
        self.early = looked.await.unwrap_or_default();
    }
}
