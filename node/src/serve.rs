//! The node, put together: settings, identity, store, sync, service and bus.

use std::{
    io,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use bubbaloop_storage_schemas::{Digest, MachineId, journal::StoreId, limits::QUEUE_CHUNKS_MAX};
use tokio::sync::watch;

use crate::{
    bus::{BusError, Presence, session},
    clock::{Clock, SystemClock},
    config::{self, Config, ConfigProblem, RemoteSettings, Settings, StoreSettings},
    durable,
    engine::{
        facts::Facts,
        jobs::Jobs,
        sync::{Parts, Sync, Timers},
    },
    library::identity::{Holder, HomeLock, Identity, IdentityError},
    policy::queue::{Block, Limits},
    service::{Service, Setup},
    store::{
        ObjectStore,
        local::LocalStore,
        s3::{
            S3Store,
            settings::{Credentials, Patience, Problem, Provider, S3Settings},
        },
        unset::UnsetStore,
    },
};

/// Between looks at recordings that go on: a recorder without finalize events waits no longer than this.
const RESCAN_OPEN_MAX: Duration = Duration::from_secs(10);

/// Closing a session on a dead link takes Zenoh up to ten seconds, and nothing is lost without it.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another one runs in the same home.
    #[error("a node runs in {} already{}; stop it, or choose another --home", home.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The home.
        home: PathBuf,
        /// The process that holds it.
        pid: Option<u32>,
    },
    /// The home can't be used.
    #[error("the home {} can't be used: {source}; make it writable for the node", home.display())]
    Home {
        /// The home.
        home: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The machine has no usable name.
    #[error("{0}; set machine_id in config.toml or BUBBALOOP_MACHINE_ID")]
    Machine(#[from] bubbaloop_storage_schemas::names::NameError),
    /// The identity is broken.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The bus refuses the node.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Which store the settings name.
struct Store {
    port: Arc<dyn ObjectStore>,
    id: StoreId,
    setup: Setup,
}

/// Names a store for the journal: a hash of all that makes it another one.
fn store_id(provider: &str, place: &str) -> StoreId {
    let digest = Digest::of(format!("{provider}\n{place}").as_bytes()).to_string();
    format!("{provider}-{}", &digest[..16])
}

/// Makes the store that the settings name. What is wrong with them is told, and then no store is there.
async fn store(
    settings: &StoreSettings,
    machine_id: &MachineId,
    clock: &Arc<dyn Clock>,
    problems: &mut Vec<ConfigProblem>,
) -> Store {
    let unset = |reason: &str, hint: String| Arc::new(UnsetStore(Block { reason: reason.into(), hint }));
    match settings {
        StoreSettings::Local { path } => {
            let id = store_id("local", &path.display().to_string());
            let setup = Setup {
                backend: Some("local".into()),
                store_id: Some(id.clone()),
                store_folder: Some(path.clone()),
                ..Setup::default()
            };
            Store { port: Arc::new(LocalStore::new(path.as_path())), id, setup }
        }
        StoreSettings::Unset => {
            let hint = "set backend in [storage] of config.toml; until then nothing is uploaded and nothing is safe";
            Store { port: unset("no_store", hint.into()), id: "none".into(), setup: Setup::default() }
        }
        StoreSettings::Invalid(block) => {
            Store { port: Arc::new(UnsetStore(block.clone())), id: "none".into(), setup: Setup::default() }
        }
        StoreSettings::Remote(remote) => match remote_store(remote, machine_id, clock, problems).await {
            Ok(store) => store,
            Err(reason) => {
                let hint = format!("{reason}: mend the store's settings and start the node again");
                Store { port: unset("config", hint), id: "none".into(), setup: Setup::default() }
            }
        },
    }
}

/// Makes a store of an S3-compatible service.
///
/// # Errors
/// The first thing that is wrong with the settings; all of them are in `problems`.
async fn remote_store(
    remote: &RemoteSettings,
    machine_id: &MachineId,
    clock: &Arc<dyn Clock>,
    problems: &mut Vec<ConfigProblem>,
) -> Result<Store, String> {
    let unknown = || format!("{} is no kind of store", remote.backend);
    let provider = Provider::of_backend(&remote.backend, remote.endpoint.as_deref()).ok_or_else(unknown)?;
    let settings = S3Settings {
        provider,
        endpoint: remote.endpoint.clone(),
        region: remote.region.clone(),
        bucket: remote.bucket.clone(),
        prefix: remote.prefix.clone(),
        ca_file: remote.ca_file.clone(),
        credentials: match remote.is_ambient {
            true => Credentials::Ambient,
            false => Credentials::Static {
                access_key_id: remote.access_key_id.clone(),
                secret_access_key: remote.secret_access_key.clone(),
                session_token: remote.session_token.clone(),
            },
        },
        machine_id: machine_id.clone(),
        patience: Patience::default(),
    };
    let mut tell = |found: Vec<Problem>| {
        problems.extend(found.into_iter().map(|Problem { key, message, hint }| ConfigProblem {
            key: key.into(),
            source: "the store's settings".into(),
            message,
            hint,
        }));
    };
    let backend = remote.backend.clone();
    tell(settings.check().warnings);
    match S3Store::open(&settings, Arc::clone(clock)).await {
        Ok(store) => {
            let id = settings.store_id();
            let setup = Setup { backend: Some(backend), store_id: Some(id.clone()), ..Setup::default() };
            Ok(Store { port: Arc::new(store), id, setup })
        }
        Err(found) => {
            let reason = found.first().map(|problem| format!("{}; {}", problem.message, problem.hint));
            tell(found);
            Err(reason.unwrap_or_else(|| "the store's settings are wrong".into()))
        }
    }
}

/// Returns the identity of a home, with a word where another name is configured than it has.
fn identity(home: &Path, config: &mut Config) -> Result<Identity, ServeError> {
    let wanted = match &config.settings.machine_id {
        Some(id) => id.clone(),
        None => MachineId::of_host(&config::host_name())?,
    };
    let identity = Identity::load_or_make(home, &wanted)?;
    if config.settings.machine_id.is_some() && identity.machine_id != wanted {
        config.told_other_machine(&identity.machine_id);
    }
    Ok(identity)
}

/// Runs a node until `stop`, then lets what is on its way end within the grace.
///
/// # Errors
/// The home is taken, broken or not writable. A wrong setting is none: the node starts and tells it.
pub async fn run(home: PathBuf, flags: &[(String, String)], stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let mut lock = HomeLock::take(&home).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => {
            ServeError::Locked { home: home.clone(), pid: HomeLock::holder(&home).map(|holder| holder.pid) }
        }
        _ => ServeError::Home { home: home.clone(), source },
    })?;
    let mut config = Config::load(&home, flags);
    let identity = identity(&home, &mut config)?;
    let holder = |endpoints| Holder { pid: process::id(), machine_id: identity.machine_id.clone(), endpoints };
    let home_error = |source| ServeError::Home { home: home.clone(), source };
    lock.describe(&holder(Vec::new())).map_err(home_error)?;
    if config.settings.recordings_dir.starts_with(&home) {
        durable::create_folder(&config.settings.recordings_dir).map_err(home_error)?;
    }
    let Parted { settings, clock, facts, sync, service } = compose(&home, config, &identity).await;
    let (stopping, stopped) = watch::channel(false);
    let running = tokio::spawn(run_sync(Arc::clone(&sync), timers(&settings), stopped));
    tracing::info!(machine_id = %identity.machine_id, library_id = identity.library_id, home = %home.display(), "started");

    tokio::pin!(stop);
    let joined = async {
        let session = session::open_at_last(&settings.zenoh).await;
        let presence = Presence::declare(&session, service, sync, &facts, clock).await?;
        let endpoints = session::endpoints(&session).await;
        tracing::info!(endpoints = endpoints.join(" "), "on the bus");
        lock.describe(&holder(endpoints)).map_err(home_error)?;
        Ok::<_, ServeError>((session, presence))
    };
    let joined = tokio::select! {
        joined = joined => Some(joined?),
        () = &mut stop => None,
    };
    if joined.is_some() {
        stop.await;
    }
    tracing::info!("stopping");
    stopping.send_replace(true);
    if let Err(error) = running.await {
        tracing::error!(%error, "the sync ended abnormally");
    }
    if let Some((session, presence)) = joined {
        drop(presence);
        tokio::time::timeout(CLOSE_MAX, session::close(session)).await.ok();
    }
    Ok(())
}

/// The parts of a node that know nothing of each other's makers.
struct Parted {
    settings: Settings,
    clock: Arc<dyn Clock>,
    facts: Arc<Facts>,
    sync: Arc<Sync>,
    service: Arc<Service>,
}

async fn compose(home: &Path, config: Config, identity: &Identity) -> Parted {
    let Config { settings, listed, mut problems } = config;
    let settings_digest = Digest::of(&serde_json::to_vec(&listed).unwrap_or_default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let Store { port, id, setup } = store(&settings.store, &identity.machine_id, &clock, &mut problems).await;
    for ConfigProblem { key, source, message, hint } in &problems {
        tracing::warn!(key, source, hint, "wrong setting: {message}");
    }
    let setup = Setup { recordings: settings.recordings_dir.clone(), settings: listed, problems, ..setup };
    let facts = Arc::new(Facts::new(identity.clone(), Arc::clone(&clock)));
    let parts = Parts {
        recordings: settings.recordings_dir.clone(),
        machine_id: identity.machine_id.clone(),
        store: port,
        store_id: id,
        clock: Arc::clone(&clock),
        facts: Arc::clone(&facts),
        dead_letters: home.join("storage/dead_letter.json"),
        state: home.join("storage/state.json"),
        settings: settings_digest,
        auto_upload: settings.auto_upload,
    };
    let limits = Limits {
        concurrency: settings.concurrency,
        chunks_max: QUEUE_CHUNKS_MAX,
        give_up_after: settings.give_up_after,
    };
    let sync = Arc::new(Sync::new(parts, limits));
    let jobs = Jobs::new(Arc::clone(&sync), Arc::clone(&facts), Arc::clone(&clock));
    let service = Service::new(identity.clone(), Arc::clone(&sync), jobs, Arc::clone(&clock), setup);
    Parted { settings, clock, facts, sync, service: Arc::new(service) }
}

fn timers(settings: &Settings) -> Timers {
    Timers {
        rescan_open: settings.rescan_interval.min(RESCAN_OPEN_MAX),
        rescan_all: settings.rescan_interval,
        verify: settings.verify_interval,
        shutdown_grace: settings.shutdown_grace,
    }
}

async fn run_sync(sync: Arc<Sync>, timers: Timers, mut stopped: watch::Receiver<bool>) {
    // That the sender is gone means the same: the node ends.
    sync.run(timers, async move { stopped.wait_for(|is_stopping| *is_stopping).await.map(drop).unwrap_or_default() })
        .await;
}
