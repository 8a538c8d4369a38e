//! Telling facts: each on both forms of its key, with the same number.

use std::time::Duration;

use bubbaloop_storage_schemas::{
    MachineId,
    codec::{self, Format},
    event::StorageEvent,
    keys::{self, Space},
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    task::JoinHandle,
};
use zenoh::{Session, qos::CongestionControl};

/// Publishes facts until the node ends. A listener that is too slow misses events rather than hold others up.
pub(super) fn tell(session: Session, machine: MachineId, mut facts: broadcast::Receiver<StorageEvent>) {
    tokio::spawn(async move {
        loop {
            match facts.recv().await {
                Ok(event) => publish(&session, &machine, &event).await,
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "events were too many to be published"),
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// Between two signs of life for Bubbaloop's daemon, which misses a node after thirty seconds.
const HEALTH_EVERY: Duration = Duration::from_secs(5);

/// Shows that the node is well, until the task is aborted.
pub(super) fn be_healthy(session: Session, machine: &MachineId) -> JoinHandle<()> {
    let key = keys::contract(machine, "health");
    tokio::spawn(async move {
        loop {
            if let Err(error) = session.put(&key, "ok").congestion_control(CongestionControl::Drop).await {
                tracing::debug!(%error, "a sign of life can't be published");
            }
            tokio::time::sleep(HEALTH_EVERY).await;
        }
    })
}

async fn publish(session: &Session, machine: &MachineId, event: &StorageEvent) {
    let Ok(bytes) = codec::encode(event, Format::Json) else { return };
    for space in Space::ALL {
        let key = keys::event(space, machine, event.fact.kind());
        let put = session.put(key, bytes.as_slice()).encoding(Format::Json.encoding());
        if let Err(error) = put.congestion_control(CongestionControl::Drop).await {
            tracing::debug!(%error, "an event can't be published");
        }
    }
}
