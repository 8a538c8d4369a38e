//! Asking nodes: the client that the command line uses.

use std::{collections::BTreeSet, time::Duration};

use bubbaloop_storage_schemas::{
    MachineId, Role, Verb,
    codec::{self, Format},
    definition::{ReplyShape, VerbDefinition},
    digest::shorten_message,
    error::{ErrorCode, ErrorReply, Refusal},
    event::FinalizeEvent,
    keys::{self, Space},
    limits::REPLY_BYTES_MAX,
    pages::Pages,
    parameter::Parameters,
    params::Params,
};
use serde::Deserialize;
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

/// What one node replied, as JSON.
pub type JsonReply = Result<Value, Box<ErrorReply>>;

/// What one node replied, as JSON, with the key of the reply.
type KeyedReply = Result<(Value, String), Box<ErrorReply>>;

/// What one node replied.
pub type NodeReply<V> = Result<Received<V>, Box<ErrorReply>>;

/// A reply of one node.
#[derive(Debug)]
pub struct Received<V: VerbDefinition> {
    /// The reply.
    pub reply: V::Reply,
    /// The reply as it arrived: a newer node may send more than this version knows.
    pub json: Value,
}

impl<V: VerbDefinition> Received<V> {
    /// Decodes a reply.
    ///
    /// # Errors
    /// It is not the reply of this verb. The refusal names `from`, the key or the machine that it came from.
    pub fn decode(json: Value, from: &str) -> Result<Self, Refusal> {
        match V::Reply::deserialize(&json) {
            Ok(reply) => Ok(Self { reply, json }),
            Err(error) => Err(unreadable(format!("the reply of {from} is no reply to {}: {error}", V::VERB))),
        }
    }
}

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

    /// Asks one machine's node, or every node, and returns the reply of each. Without any reply the list is empty: no
    /// node, a refusal by access rules and a lost link look alike.
    ///
    /// # Errors
    /// Zenoh refuses the query.
    pub async fn ask<V: VerbDefinition>(
        &self,
        machine: Option<&MachineId>,
        request: &V::Request,
        deadline: Duration,
    ) -> Result<Vec<NodeReply<V>>, BusError> {
        let replies = self.ask_json(machine, V::VERB, &request.to_params(), deadline).await?;
        Ok(replies.into_iter().map(received::<V>).collect())
    }

    /// Asks like [`Self::ask`], and for every page of each node's reply. The deadline is for each page.
    ///
    /// A node of which a page is missing counts as an error, whose message tells how many rows arrived.
    ///
    /// # Errors
    /// Zenoh refuses the first query.
    pub async fn ask_all<V: VerbDefinition>(
        &self,
        machine: Option<&MachineId>,
        request: &V::Request,
        deadline: Duration,
    ) -> Result<Vec<NodeReply<V>>, BusError> {
        let replies = self.ask_all_json(machine, V::VERB, &request.to_params(), deadline).await?;
        Ok(replies.into_iter().map(received::<V>).collect())
    }

    /// Asks for every page of each node's reply, and joins them.
    async fn ask_all_json(
        &self,
        machine: Option<&MachineId>,
        verb: Verb,
        params: &Params,
        deadline: Duration,
    ) -> Result<Vec<KeyedReply>, BusError> {
        let ReplyShape::Paged { rows } = verb.shape() else {
            return self.ask_json(machine, verb, params, deadline).await;
        };
        let params = Pages::first_request(params.clone());
        let mut replies = Vec::new();
        for first in self.ask_json(machine, verb, &params, deadline).await? {
            let whole = match first {
                Ok((first, key)) => {
                    let machine: Option<MachineId> = first["machine_id"].as_str().and_then(|id| id.parse().ok());
                    let machine = machine.as_ref();
                    let fetch = |params: Params| async move { self.page(machine, verb, &params, deadline).await };
                    join(verb, rows, first, &params, fetch).await.map(|json| (json, key))
                }
                Err(refused) => Err(refused),
            };
            replies.push(whole);
        }
        Ok(replies)
    }

    /// Asks one machine for one page.
    async fn page(
        &self,
        machine: Option<&MachineId>,
        verb: Verb,
        params: &Params,
        deadline: Duration,
    ) -> Result<Value, Refusal> {
        match self.ask_json(machine, verb, params, deadline).await {
            Ok(replies) => match replies.into_iter().next() {
                Some(Ok((page, _))) => Ok(page),
                Some(Err(refused)) => Err(refused.refusal),
                None => {
                    let refusal = Refusal::new(ErrorCode::Unavailable, "the node gives no answer in time");
                    Err(refusal.hint("ask again"))
                }
            },
            Err(error) => Err(Refusal::new(ErrorCode::Unavailable, error.to_string())),
        }
    }

    /// Asks like [`Self::ask`], with parameters, and returns each reply as JSON.
    ///
    /// # Errors
    /// Zenoh refuses the query.
    pub async fn ask_untyped(
        &self,
        machine: Option<&MachineId>,
        verb: Verb,
        params: &Params,
        deadline: Duration,
    ) -> Result<Vec<JsonReply>, BusError> {
        let replies = self.ask_json(machine, verb, params, deadline).await?;
        Ok(replies.into_iter().map(|reply| reply.map(|(json, _)| json)).collect())
    }

    /// Asks like [`Self::ask_all`], with parameters, and returns each reply as JSON.
    ///
    /// # Errors
    /// Zenoh refuses the first query.
    pub async fn ask_all_untyped(
        &self,
        machine: Option<&MachineId>,
        verb: Verb,
        params: &Params,
        deadline: Duration,
    ) -> Result<Vec<JsonReply>, BusError> {
        let replies = self.ask_all_json(machine, verb, params, deadline).await?;
        Ok(replies.into_iter().map(|reply| reply.map(|(json, _)| json)).collect())
    }

    /// Asks, and returns each reply with its key.
    async fn ask_json(
        &self,
        machine: Option<&MachineId>,
        verb: Verb,
        params: &Params,
        deadline: Duration,
    ) -> Result<Vec<KeyedReply>, BusError> {
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
        let received = get.await.map_err(BusError::new(format!("can't ask {key}")))?;
        let mut replies = Vec::new();
        while let Ok(reply) = received.recv_async().await {
            replies.extend(read(&reply, verb, &key));
        }
        Ok(replies)
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

/// Fetches the pages that follow the first one, and joins them to one reply.
///
/// # Errors
/// A page is missing. The message tells how many rows arrived before it: a part must not look like the whole.
pub async fn join<F: Future<Output = Result<Value, Refusal>>>(
    verb: Verb,
    rows: &'static str,
    first: Value,
    params: &Params,
    mut fetch: impl FnMut(Params) -> F,
) -> Result<Value, Box<ErrorReply>> {
    let text = |name: &str| first[name].as_str().unwrap_or_default().to_owned();
    let (machine_id, library_id) = (text("machine_id"), text("library_id"));
    let mut pages = Pages::new(rows, first);
    loop {
        let page = match pages.next_request(params) {
            Ok(None) => return Ok(pages.into_reply()),
            Ok(Some(next)) => fetch(next).await,
            Err(refusal) => Err(refusal),
        };
        match page {
            Ok(page) => pages.add(page),
            Err(refusal) => {
                let refusal = pages.incomplete(&refusal);
                return Err(Box::new(ErrorReply { machine_id, library_id, verb: Some(verb.to_string()), refusal }));
            }
        }
    }
}

/// Reads one reply with its key. Zenoh's own message that time is up is none.
fn read(reply: &Reply, verb: Verb, asked: &str) -> Option<KeyedReply> {
    match reply.result() {
        Ok(sample) => {
            let (bytes, key) = (sample.payload().to_bytes(), sample.key_expr().to_string());
            if bytes.len() > REPLY_BYTES_MAX {
                let reason = format!("the reply of {key} has {} bytes: more than {REPLY_BYTES_MAX}", bytes.len());
                return Some(Err(error_reply(&key, verb, unreadable(reason))));
            }
            Some(match codec::decode_value(&bytes, None) {
                Ok(json) => Ok((json, key)),
                Err(error) => {
                    let reason = format!("the reply of {key} is {error}");
                    Err(error_reply(&key, verb, unreadable(reason)))
                }
            })
        }
        Err(error) => {
            let format = Format::of_encoding(&error.encoding().to_string()).ok().flatten()?;
            let refused = codec::decode(&error.payload().to_bytes(), format);
            Some(Err(refused.unwrap_or_else(|error| {
                let reason = format!("the refusal of a node that was asked for {asked} is {error}");
                error_reply(asked, verb, unreadable(reason))
            })))
        }
    }
}

/// Decodes a reply that came with its key.
fn received<V: VerbDefinition>(reply: KeyedReply) -> NodeReply<V> {
    let (json, key) = reply?;
    Received::decode(json, &key).map_err(|refusal| error_reply(&key, V::VERB, refusal))
}

/// Returns the error of a reply that came from a key, or was asked for under it.
fn error_reply(key: &str, verb: Verb, refusal: Refusal) -> Box<ErrorReply> {
    let machine = key.split('/').nth(1).filter(|machine| !machine.contains('*'));
    Box::new(ErrorReply {
        machine_id: machine.unwrap_or_default().to_owned(),
        library_id: String::new(),
        verb: Some(verb.to_string()),
        refusal,
    })
}

fn unreadable(message: impl std::fmt::Display) -> Refusal {
    let refusal = Refusal::new(ErrorCode::Internal, shorten_message(&message));
    refusal.hint("node and command may be of different versions: update the older one")
}

#[cfg(test)]
mod tests {
    use bubbaloop_storage_schemas::verbs::{list::List, status::Status};

    use super::*;

    #[test]
    fn a_reply_that_does_not_decode_is_an_error_that_names_its_key() {
        let key = "bubbaloop/robot_1/storage/status";
        let error =
            received::<Status>(Ok((json!({"machine_id": "robot_1", "safe": "perhaps"}), key.into()))).unwrap_err();
        assert_eq!((error.machine_id.as_str(), error.verb.as_deref()), ("robot_1", Some("status")));
        assert!(error.refusal.message.contains(key), "{error:?}");
        assert!(error.refusal.hint.unwrap().contains("versions"));
    }

    #[tokio::test]
    async fn a_page_that_fails_after_the_first_makes_the_whole_reply_an_error() {
        let first = || json!({"machine_id": "robot_1", "library_id": "l", "recordings": [1, 2], "next_after": "2"});
        let params = Params::default();
        let fails = |_| async { Err(Refusal::new(ErrorCode::Unavailable, "the node gives no answer in time")) };
        let error = join(Verb::List, "recordings", first(), &params, fails).await.unwrap_err();
        assert_eq!((error.machine_id.as_str(), error.refusal.code), ("robot_1", ErrorCode::Unavailable));
        assert_eq!(error.refusal.message, "only the first 2 recordings arrived: the node gives no answer in time");

        let mut asked = Vec::new();
        let last = |params: Params| {
            asked.push(params.text("after").unwrap().map(str::to_owned));
            async { Ok(json!({"recordings": [3], "next_after": null})) }
        };
        let whole = join(Verb::List, "recordings", first(), &params, last).await.unwrap();
        assert_eq!((&whole["recordings"], &whole["next_after"]), (&json!([1, 2, 3]), &json!(null)));
        assert_eq!(asked, [Some("2".to_owned())]);
    }

    #[test]
    fn fields_of_a_newer_node_are_kept_in_the_json() {
        let json = json!({
            "machine_id": "robot_1", "library_id": "l", "verb": "list", "recordings": [], "next_after": null, "new": 1,
        });
        let received = received::<List>(Ok((json.clone(), "k".into()))).unwrap();
        assert_eq!((received.reply.recordings, received.json), (Vec::new(), json));
    }
}
