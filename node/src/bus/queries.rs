//! Answering queries: receiving only ever fills a bounded queue, and each query gets one terminal reply.

use std::{sync::Arc, thread};

use bubbaloop_storage_schemas::{
    Role, Verb,
    codec::{self, Format},
    error::{ErrorCode, Refusal},
    keys::{self, Space},
    limits::{QUERIES_AT_WORK_MAX, QUERIES_RECEIVED_MAX, QUERIES_WAITING_MAX, REFUSALS_SENT_MAX, REPLIES_SENT_MAX},
};
use serde_json::{Value, json};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use zenoh::{
    Session, Wait,
    query::{Query, Queryable},
};

use super::{
    dispatch::{Decision, Dispatch},
    error::BusError,
    request::{self, Request},
};
use crate::service::{Answer, Pending, Reply, Service};

/// The queryable of one space.
pub(super) type Answering = Queryable<()>;

/// Declares both queryables and starts answering. It ends when they are dropped.
pub(super) async fn answer(session: &Session, service: Arc<Service>) -> Result<Vec<Answering>, BusError> {
    let (sender, received) = mpsc::channel(QUERIES_RECEIVED_MAX);
    let mut queryables = Vec::new();
    for space in Space::ALL {
        let (sender, service) = (sender.clone(), Arc::clone(&service));
        let key = keys::all(space, &service.identity().machine_id);
        let queryable = session.declare_queryable(&key).callback(move |query| {
            if let Err(full) = sender.try_send((space, query)) {
                let (_, query) = full.into_inner();
                refuse(&service, &query, None, busy(), Format::Json);
            }
        });
        queryables.push(queryable.await.map_err(BusError::new(format!("can't answer on {key}")))?);
    }
    let desk = Desk {
        dispatch: Dispatch::new(&service.identity().machine_id),
        service,
        at_work: Arc::new(Semaphore::new(QUERIES_AT_WORK_MAX)),
        waiting: Arc::new(Semaphore::new(QUERIES_WAITING_MAX)),
        sending: Arc::new(Semaphore::new(REPLIES_SENT_MAX)),
        refusing: Arc::new(Semaphore::new(REFUSALS_SENT_MAX)),
        runtime: Handle::current(),
    };
    let run = thread::Builder::new().name("queries".into()).spawn(move || desk.run(received));
    run.map_err(|error| BusError { doing: "can't start answering".into(), source: error.into() })?;
    Ok(queryables)
}

fn busy() -> Refusal {
    let refusal = Refusal::new(ErrorCode::Limit, format!("{QUERIES_AT_WORK_MAX} queries are at work"));
    refusal.hint("ask again in a moment")
}

/// Sends a refusal. That the asker is gone is no error.
fn refuse(service: &Service, query: &Query, verb: Option<Verb>, refusal: Refusal, format: Format) {
    let bytes = request::encode_refusal(service.identity(), verb.map(Verb::name), refusal, format);
    if let Err(error) = query.reply_err(bytes).encoding(format.encoding()).wait() {
        tracing::debug!(%error, "a refusal can't be sent");
    }
}

/// Sends a reply on the node's own key of a verb, which the query is known to meet.
fn reply(service: &Service, query: &Query, (space, verb): (Space, Verb), reply: &Reply, format: Format) {
    let key = keys::verb(space, &service.identity().machine_id, verb);
    match request::encode(reply, format) {
        Ok(bytes) => {
            if let Err(error) = query.reply(key, bytes).encoding(format.encoding()).wait() {
                tracing::debug!(%error, %verb, "a reply can't be sent");
            }
        }
        Err(refusal) => refuse(service, query, Some(verb), refusal, format),
    }
}

/// Sends the answer of the node contract on the node's own key.
fn send(service: &Service, query: &Query, name: &str, answer: &Value, format: Format) {
    let key = keys::contract(&service.identity().machine_id, name);
    let Ok(bytes) = codec::encode(answer, format) else { return };
    if let Err(error) = query.reply(key, bytes).encoding(format.encoding()).wait() {
        tracing::debug!(%error, name, "an answer can't be sent");
    }
}

/// Takes up one query after the other, on a thread of its own: sending may block on a slow asker.
struct Desk {
    dispatch: Dispatch,
    service: Arc<Service>,
    at_work: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
    runtime: Handle,
}

impl Desk {
    fn run(self, mut received: mpsc::Receiver<(Space, Query)>) {
        while let Some((space, query)) = received.blocking_recv() {
            let decision = self.dispatch.decide(space, query.key_expr());
            if decision == Decision::Silent {
                continue;
            }
            let work = Work {
                service: Arc::clone(&self.service),
                waiting: Arc::clone(&self.waiting),
                sending: Arc::clone(&self.sending),
                space,
                query,
            };
            let (at_work, refusing) = (Arc::clone(&self.at_work), Arc::clone(&self.refusing));
            match (at_work.try_acquire_owned(), refusing) {
                (Ok(permit), _) => {
                    let runtime = self.runtime.clone();
                    self.runtime.spawn_blocking(move || work.run(decision, permit, &runtime));
                }
                (Err(_), refusing) => {
                    // Not here: sending may block, and every other query waits behind this thread.
                    let Ok(permit) = refusing.try_acquire_owned() else { continue };
                    self.runtime.spawn_blocking(move || {
                        refuse(&work.service, &work.query, None, busy(), Request::of(&work.query).format);
                        drop(permit);
                    });
                }
            }
        }
    }
}

/// One query at work.
struct Work {
    service: Arc<Service>,
    waiting: Arc<Semaphore>,
    sending: Arc<Semaphore>,
    space: Space,
    query: Query,
}

impl Work {
    fn run(self, decision: Decision, permit: OwnedSemaphorePermit, runtime: &Handle) {
        let Request { params, format, token, has_token_field } = Request::of(&self.query);
        let (service, query) = (&self.service, &self.query);
        let verb = match decision {
            Decision::Silent => return,
            Decision::Help(key) => {
                return reply(service, query, (self.space, key), &Reply::new(service.help(self.space)), format);
            }
            Decision::Manifest => {
                return send(service, query, "manifest", &service.node_manifest(), Format::Cbor);
            }
            Decision::Command => {
                let _runtime = runtime.enter();
                let answer = match request::command(query) {
                    Ok(request) => service.command(request),
                    Err(error) => json!({"result": null, "error": error}),
                };
                return send(service, query, "command", &answer, format);
            }
            Decision::Refuse { verb, refusal } => return refuse(service, query, verb, refusal, format),
            Decision::Run(verb) => verb,
        };
        let answer = params.and_then(|params| {
            if has_token_field && verb.role() != Role::Admin {
                let refusal = Refusal::new(ErrorCode::InvalidParams, format!("{verb} has no parameter \"token\""));
                return Err(refusal.hint("it needs none: leave it out"));
            }
            let _runtime = runtime.enter();
            service.ask_with(verb, self.space, &params, token.as_ref())
        });
        match answer {
            Err(refusal) => refuse(service, query, Some(verb), refusal, format),
            Ok(Answer::Now(answer)) => {
                // The work is done: a slow asker is to hold up no other's.
                let sending = self.sending.try_acquire();
                let _at_work = if sending.is_ok() { None } else { Some(permit) };
                reply(service, query, (self.space, verb), &answer, format);
            }
            Ok(Answer::Later(pending)) => {
                drop(permit);
                self.wait(verb, pending, format, runtime);
            }
        }
    }

    /// Replies when the job ends, without a work slot; where too many wait already, with the job's state now.
    fn wait(self, verb: Verb, pending: Pending, format: Format, runtime: &Handle) {
        let Ok(permit) = Arc::clone(&self.waiting).try_acquire_owned() else {
            let answer = Reply::new(pending.reply_now());
            return reply(&self.service, &self.query, (self.space, verb), &answer, format);
        };
        let blocking = runtime.clone();
        runtime.spawn(async move {
            let answer = Reply::new(pending.reply().await);
            blocking.spawn_blocking(move || {
                reply(&self.service, &self.query, (self.space, verb), &answer, format);
                drop(permit);
            });
        });
    }
}
