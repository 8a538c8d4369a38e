//! The same service without a bus, for a home in which no node runs.

use std::{path::Path, sync::Arc};

use bubbaloop_storage_schemas::{
    Verb,
    error::{ErrorReply, Refusal},
    keys::Space,
    params::Params,
    reply::Reply,
};
use tokio::{sync::watch, task::spawn_blocking};

use super::{Components, ServeError, admin, compose, identity, locked, run_sync};
use crate::{
    clock::SystemClock,
    config::Config,
    engine::{driver::Handover, events::Run},
    secret::Secret,
    service::Answer,
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
) -> Result<Result<Reply, ErrorReply>, ServeError> {
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
    let running = matches!(verb, Verb::Upload | Verb::Reconcile)
        .then(|| tokio::spawn(run_sync(Arc::clone(engine), stopped, current.subscribe())));
    let asked = Arc::clone(service);
    let runtime = tokio::runtime::Handle::current();
    let answer = spawn_blocking(move || {
        let _runtime = runtime.enter();
        asked.ask_with(verb, Space::Short, &params, token.as_ref())
    });
    let answer = match answer.await {
        Ok(Ok(Answer::Now(reply))) => Ok(reply),
        Ok(Ok(Answer::Later(pending))) => Ok(Reply::Job(pending.reply().await)),
        Ok(Err(refusal)) => Err(refusal),
        Err(error) => {
            let code = bubbaloop_storage_schemas::ErrorCode::Internal;
            Err(Refusal::new(code, format!("the answer ended abnormally: {error}")))
        }
    };
    stopping.send_replace(true);
    if let Some(running) = running {
        // What is cut off here is taken up by the next run.
        running.await.ok();
    }
    Ok(answer.map_err(|refusal| ErrorReply {
        machine_id: identity.machine_id.to_string(),
        library_id: identity.library_id.clone(),
        verb: Some(verb.to_string()),
        refusal,
    }))
}
