//! The Zenoh edge: the session, what is asked over it, what is heard and told on it, and the client that the
//! command line uses.

pub mod client;
pub mod dispatch;
mod error;
mod events;
mod finalize;
mod queries;
mod request;
pub mod session;

use std::sync::Arc;

use bubbaloop_storage_schemas::keys::{self, Space};
use tokio::task::JoinHandle;
use zenoh::{Session, liveliness::LivelinessToken, pubsub::Subscriber, sample::SampleKind};

pub use self::error::BusError;
use self::{finalize::Listening, queries::Answering};
use crate::{
    clock::Clock,
    engine::{driver::Engine, events::Events},
    library::identity::Identity,
    service::Service,
};

/// What a node is on the bus. Dropped, it answers and hears no more.
#[derive(Debug)]
pub struct Presence {
    _answering: Vec<Answering>,
    _listening: Vec<Listening>,
    _tokens: Vec<LivelinessToken>,
    _others: Subscriber<()>,
    health: JoinHandle<()>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.health.abort();
    }
}

impl Presence {
    /// Answers queries, hears finalize events, tells facts, and shows that the node is alive, in both spaces.
    ///
    /// # Errors
    /// Zenoh refuses a declaration.
    pub async fn declare(
        session: &Session,
        service: Arc<Service>,
        sync: Arc<Engine>,
        facts: &Events,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BusError> {
        let Identity { machine_id: machine, library_id } = service.identity().clone();
        let health = events::be_healthy(session.clone(), &machine);
        events::tell(session.clone(), machine.clone(), facts.listen());
        let twins = Arc::clone(&sync);
        let listening = finalize::listen(session, &machine, sync, clock).await?;
        let answering = queries::answer(session, service).await?;
        let mut tokens = Vec::new();
        for space in Space::ALL {
            let key = keys::liveliness(space, &machine);
            let token = session.liveliness().declare_token(key).await;
            tokens.push(token.map_err(BusError::new("can't show that the node is alive"))?);
        }
        let own = session.liveliness().declare_token(keys::library(&machine, Some(&library_id))).await;
        tokens.push(own.map_err(BusError::new("can't show the library"))?);
        let others = session.liveliness().declare_subscriber(keys::library(&machine, None)).history(true);
        let others = others.callback(move |sample| {
            if let (SampleKind::Put, Some(library_id)) = (sample.kind(), sample.key_expr().as_str().rsplit('/').next())
            {
                twins.note_library(library_id, "bus");
            }
        });
        let others = others.await.map_err(BusError::new("can't look for twins"))?;
        Ok(Self { health, _others: others, _answering: answering, _listening: listening, _tokens: tokens })
    }
}
