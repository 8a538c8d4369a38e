//! The same service without a bus, for a home in which no node runs.

use std::{path::Path, sync::Arc};

use bubbaloop_storage_schemas::{
    Verb,
    definition::ReplyShape,
    error::{ErrorCode, ErrorReply, Refusal},
    keys::Space,
    pages::Pages,
    params::Params,
};
use serde_json::Value;
use tokio::{runtime::Handle, sync::watch, task::spawn_blocking};

use super::{Components, ServeError, admin, compose, identity, locked, run_sync};
use crate::{
    bus::client::{self, JsonReply},
    clock::SystemClock,
    config::Config,
    engine::{driver::Handover, events::Run},
    library::identity::Identity,
    secret::Secret,
    service::{Answer, Reply, Service},
};

/// Answers one request in this process. For a verb that takes long the library is worked on until it has ended or the
/// request waits no longer.
///
/// # Errors
/// A node runs in the home (ask it instead), or the home can't be used.
pub async fn ask(
    home: &Path,
    flags: &[(String, String)],
    verb: Verb,
    params: Params,
    token: Option<Secret>,
) -> Result<JsonReply, ServeError> {
    let _lock = locked(home)?;
    let mut config = Config::load(home, flags);
    let admin_token = admin::ensure(home, &mut config, || Config::load(home, flags));
    let identity = identity(home, &mut config)?;
    let run = Arc::new(Run::begin(&SystemClock::start()));
    let components = compose(home, config, admin_token, &run, &identity, Handover::default()).await;
    let Components { engine, service, current, .. } = &components;
    let (stopping, stopped) = watch::channel(false);
    let scanned = Arc::clone(engine);
    // Why it can't be read is part of the answer.
    spawn_blocking(move || scanned.scan().ok()).await.ok();
    let running = matches!(verb.shape(), ReplyShape::Job { uploads: true })
        .then(|| tokio::spawn(run_sync(Arc::clone(engine), stopped, current.subscribe())));
    let answer = answer(service, &identity, verb, params, token.as_ref()).await;
    stopping.send_replace(true);
    if let Some(running) = running {
        // What is cut off here is taken up by the next run.
        running.await.ok();
    }
    Ok(answer)
}

/// Answers a request. The pages of a reply are joined.
async fn answer(
    service: &Arc<Service>,
    identity: &Identity,
    verb: Verb,
    params: Params,
    token: Option<&Secret>,
) -> JsonReply {
    let refused = |refusal| {
        Box::new(ErrorReply {
            machine_id: identity.machine_id.to_string(),
            library_id: identity.library_id.clone(),
            verb: Some(verb.to_string()),
            refusal,
        })
    };
    let fetch = |params| answer_once(Arc::clone(service), verb, params, token.cloned());
    match verb.shape() {
        ReplyShape::Whole | ReplyShape::Job { .. } => fetch(params).await.map_err(refused),
        ReplyShape::Paged { rows } => {
            let params = Pages::first_request(params);
            let first = fetch(params.clone()).await.map_err(refused)?;
            client::join(verb, rows, first, &params, fetch).await
        }
    }
}

async fn answer_once(
    service: Arc<Service>,
    verb: Verb,
    params: Params,
    token: Option<Secret>,
) -> Result<Value, Refusal> {
    let runtime = Handle::current();
    let answer = spawn_blocking(move || {
        let _runtime = runtime.enter();
        service.ask_with(verb, Space::Short, &params, token.as_ref())
    });
    match answer.await {
        Ok(Ok(Answer::Now(reply))) => encoded(&reply),
        Ok(Ok(Answer::Later(pending))) => encoded(&Reply::new(pending.reply().await)),
        Ok(Err(refusal)) => Err(refusal),
        Err(error) => Err(Refusal::new(ErrorCode::Internal, format!("the answer ended abnormally: {error}"))),
    }
}

fn encoded(reply: &Reply) -> Result<Value, Refusal> {
    reply.to_json().map_err(|error| Refusal::new(ErrorCode::Internal, format!("the reply can't be encoded: {error}")))
}
