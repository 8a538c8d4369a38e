//! Asking nodes: what the command line stands on.

use std::{collections::BTreeSet, time::Duration};

use bubbaloop_storage_schemas::{
    MachineId, Role, Verb,
    codec::{self, Format},
    error::{ErrorCode, ErrorReply, Refusal},
    event::FinalizeEvent,
    keys::{self, Space},
    limits::REPLY_BYTES_MAX,
    params::Params,
};
use serde_json::{Value, json};
use zenoh::{
    Session,
    pubsub::Subscriber,
    qos::CongestionControl,
    query::{ConsolidationMode, QueryTarget, Reply},
};

use super::{BusError, session};
use crate::{config::ZenohSettings, secret::Secret};

/// A client of the nodes that its session reaches.
#[derive(Debug)]
pub struct Client {
    session: Session,
    token: Option<Secret>,
}

/// What one node answered.
pub type Told = Result<Value, ErrorReply>;

impl Client {
    /// Joins the bus as a client of the first endpoint that answers.
    ///
    /// # Errors
    /// None of them answers.
    pub async fn connect(settings: &ZenohSettings, endpoints: &[String]) -> Result<Self, BusError> {
        Ok(Self { session: session::open_client(settings, endpoints).await?, token: None })
    }

    /// Shows this admin token to the one machine that is asked for what needs it.
    #[must_use]
    pub fn showing(self, token: Option<Secret>) -> Self {
        Self { token, ..self }
    }

    /// Asks one machine's node, or every node, and returns what each answered. No answer at all is an empty list:
    /// no node, a refusal by access rules and a lost link look alike.
    ///
    /// # Errors
    /// Zenoh refuses the query.
    pub async fn ask(
        &self,
        machine: Option<&MachineId>,
        verb: Verb,
        params: &Params,
        deadline: Duration,
    ) -> Result<Vec<Told>, BusError> {
        let key = keys::verb_of(Space::Short, machine, verb);
        let payload = json!(params.to_fields()).to_string();
        let get = self
            .session
            .get(&key)
            .target(QueryTarget::All)
            .consolidation(ConsolidationMode::None)
            .timeout(deadline)
            .payload(payload)
            .encoding(Format::Json.encoding());
        let token = self.token.as_ref().filter(|_| verb.role() == Role::Admin && machine.is_some());
        let get = get.attachment(token.map(|token| token.expose().to_owned()));
        let replies = get.await.map_err(BusError::new(format!("can't ask {key}")))?;
        let mut told = Vec::new();
        while let Ok(reply) = replies.recv_async().await {
            told.extend(read(&reply));
        }
        Ok(told)
    }

    /// Returns the machines whose nodes are known to be alive.
    ///
    /// # Errors
    /// Zenoh refuses the question.
    pub async fn alive(&self, deadline: Duration) -> Result<BTreeSet<String>, BusError> {
        let key = keys::liveliness_of_all(Space::Short);
        let get = self.session.liveliness().get(&key).timeout(deadline).await;
        let tokens = get.map_err(BusError::new(format!("can't ask {key}")))?;
        let mut machines = BTreeSet::new();
        while let Ok(reply) = tokens.recv_async().await {
            let machine = reply.result().ok().and_then(|token| token.key_expr().as_str().split('/').nth(1));
            machines.extend(machine.map(str::to_owned));
        }
        Ok(machines)
    }

    /// Returns the dataflow manifests of all nodes of the fleet, this project's or not; of one that can't be read, its key.
    ///
    /// # Errors
    /// Zenoh refuses the query.
    pub async fn manifests(&self, deadline: Duration) -> Result<Vec<Result<Value, String>>, BusError> {
        let key = keys::manifests();
        let get = self.session.get(key).target(QueryTarget::All).consolidation(ConsolidationMode::None);
        let replies = get.timeout(deadline).await.map_err(BusError::new(format!("can't ask {key}")))?;
        let mut manifests = Vec::new();
        while let Ok(reply) = replies.recv_async().await {
            let Ok(sample) = reply.result() else { continue };
            let bytes = sample.payload().to_bytes();
            let read = (bytes.len() <= REPLY_BYTES_MAX).then(|| codec::decode_value(&bytes, None).ok()).flatten();
            manifests.push(read.ok_or_else(|| sample.key_expr().to_string()));
        }
        Ok(manifests)
    }

    /// Listens to the events of one machine's node, or of every node, and gives each to `hear`.
    ///
    /// # Errors
    /// Zenoh refuses the subscription.
    pub async fn listen(
        &self,
        machine: Option<&MachineId>,
        hear: impl Fn(Value) + Send + Sync + 'static,
    ) -> Result<Subscriber<()>, BusError> {
        let key = keys::events_of(Space::Short, machine);
        let subscriber = self.session.declare_subscriber(&key).callback(move |sample| {
            if let Ok(event) = codec::decode_value(&sample.payload().to_bytes(), None) {
                hear(event);
            }
        });
        subscriber.await.map_err(BusError::new(format!("can't listen to {key}")))
    }

    /// Publishes a finalize event as a recorder of this name does.
    ///
    /// # Errors
    /// Zenoh refuses it. That nobody hears it is no error.
    pub async fn finalize(&self, machine: &MachineId, recorder: &str, event: &FinalizeEvent) -> Result<(), BusError> {
        let key = keys::chunk_finalized(Space::Global, machine, recorder);
        let put = self.session.put(&key, json!(event).to_string()).encoding(Format::Json.encoding());
        let put = put.congestion_control(CongestionControl::Block);
        put.await.map_err(BusError::new(format!("can't publish on {key}")))
    }
}

/// Reads one reply; Zenoh's own word that time is up is no answer.
fn read(reply: &Reply) -> Option<Told> {
    match reply.result() {
        Ok(sample) => {
            let bytes = sample.payload().to_bytes();
            let value = if bytes.len() > REPLY_BYTES_MAX { None } else { codec::decode_value(&bytes, None).ok() };
            Some(value.ok_or_else(|| unreadable("the node's reply can't be read")))
        }
        Err(error) => {
            let format = Format::of_encoding(&error.encoding().to_string()).ok().flatten()?;
            let refused = codec::decode(&error.payload().to_bytes(), format);
            Some(Err(refused.unwrap_or_else(|_| unreadable("the node's refusal can't be read"))))
        }
    }
}

fn unreadable(message: &str) -> ErrorReply {
    let refusal = Refusal::new(ErrorCode::Internal, message).hint("node and command may be of different versions");
    ErrorReply { machine_id: String::new(), library_id: String::new(), verb: None, refusal }
}
