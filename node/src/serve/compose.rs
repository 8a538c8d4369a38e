//! Making a node's parts from its settings.

use std::{path::Path, sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{
    BlockReason, Digest, MachineId, journal::StoreId, limits::QUEUE_CHUNKS_MAX, reply::Setting,
};

use super::access;
use crate::{
    clock::{Clock, SystemClock},
    config::{self, Config, ConfigProblem, RemoteSettings, Settings, StoreSettings},
    engine::{
        facts::Facts,
        jobs::Jobs,
        sync::{Legacy, Parts, Sync, Timers, Tuning},
    },
    library::{identity::Identity, state::NodeState},
    policy::queue::{Block, Limits, Order},
    service::{AdminToken, Service, Setup},
    store::{
        ObjectStore, StoreErrorKind,
        local::LocalStore,
        s3::{
            S3Store,
            settings::{Credentials, Patience, Problem, Provider, S3Settings},
        },
        throttle::Throttle,
        unset::UnsetStore,
    },
};

/// Which store the settings name.
pub(super) struct Store {
    pub(super) port: Arc<dyn ObjectStore>,
    id: StoreId,
    setup: Setup,
}

/// What a store is made with, beside its own settings.
pub(super) struct Who<'a> {
    /// The machine under whose name its objects stand.
    pub(super) machine_id: &'a MachineId,
    /// Every setting with its source.
    pub(super) listed: &'a [Setting],
    /// The time.
    pub(super) clock: &'a Arc<dyn Clock>,
    /// The limit of its bytes.
    pub(super) throttle: &'a Arc<Throttle>,
}

/// Longest wait between looks at recordings that go on.
const RESCAN_OPEN_MAX: Duration = Duration::from_secs(5);

/// Returns what a sync takes up of settings as it runs.
pub(super) fn tuning(settings: &Settings) -> Tuning {
    Tuning {
        limits: Limits {
            concurrency: settings.concurrency,
            chunks_max: QUEUE_CHUNKS_MAX,
            give_up_after: settings.give_up_after,
            order: if settings.is_newest_first { Order::Newest } else { Order::Oldest },
        },
        timers: Timers {
            rescan_open: settings.rescan_interval.min(RESCAN_OPEN_MAX),
            rescan_all: settings.rescan_interval,
            verify: settings.verify_interval,
            shutdown_grace: settings.shutdown_grace,
        },
        auto_upload: settings.auto_upload,
        priority_tags: settings.priority_tags.clone(),
        bandwidth_limit_bytes_per_s: settings.bandwidth_limit_bytes_per_s,
        window: settings.upload_window,
        parts: settings.parts,
        retention: settings.retention,
    }
}

/// Digits of a mark in a store's id: enough that two stores never share one.
const STORE_ID_DIGITS: usize = 16;

/// Opens the store in a folder. Its id is that of its mark: another disk in its place is another store. One that was
/// used before and is away is waited for; of one that was not, nothing is known yet.
fn local_store(home: &Path, path: &Path, throttle: &Arc<Throttle>) -> Result<Store, Block> {
    let state = home.join("storage/state.json");
    let known = NodeState::load(&state).local_stores.remove(path);
    let store = LocalStore::new(path).throttled(Arc::clone(throttle));
    let mark = match (store.open(known.as_deref()), known.clone()) {
        (Ok(mark), _) => mark,
        (Err(_), Some(mark)) => {
            store.expect(&mark);
            mark
        }
        (Err(error), None) => {
            return Err(match error.kind {
                StoreErrorKind::Blocked(block) => block,
                _ => Block::new(BlockReason::Unreachable, error.message),
            });
        }
    };
    if known.as_ref() != Some(&mark) {
        let remember = |state: &mut NodeState| drop(state.local_stores.insert(path.to_owned(), mark.clone()));
        if let Err(error) = NodeState::update(&state, remember) {
            tracing::warn!(%error, "the store's mark can't be remembered");
        }
    }
    let digits: String = mark.chars().take(STORE_ID_DIGITS).collect();
    let id = format!("local-{digits}");
    let setup = Setup {
        backend: Some("local".into()),
        store_id: Some(id.clone()),
        store_folder: Some(path.to_owned()),
        ..Setup::default()
    };
    Ok(Store { port: Arc::new(store), id, setup })
}

/// Makes the store that the settings name. What is wrong with them is told, and then no store is there.
async fn store(home: &Path, settings: &StoreSettings, who: &Who<'_>, faults: &mut Faults) -> Store {
    let unset = |reason, hint: String| Arc::new(UnsetStore(Block::new(reason, hint)));
    match settings {
        StoreSettings::Local { path } => match local_store(home, path, who.throttle) {
            Ok(store) => store,
            // It is looked for again, and then the parts are made anew.
            Err(block) => {
                let setup =
                    Setup { backend: Some("local".into()), store_folder: Some(path.clone()), ..Setup::default() };
                Store { port: Arc::new(UnsetStore(block)), id: "none".into(), setup }
            }
        },
        StoreSettings::Unset => {
            let hint = "set backend in [storage] of config.toml; until then nothing is uploaded and nothing is safe";
            Store { port: unset(BlockReason::NoStore, hint.into()), id: "none".into(), setup: Setup::default() }
        }
        StoreSettings::Invalid(block) => {
            Store { port: Arc::new(UnsetStore(block.clone())), id: "none".into(), setup: Setup::default() }
        }
        StoreSettings::Remote(remote) => match remote_store(remote, who, faults).await {
            Ok(store) => store,
            Err(reason) => {
                let hint = format!("{reason}: mend the store's settings");
                Store { port: unset(BlockReason::Config, hint), id: "none".into(), setup: Setup::default() }
            }
        },
    }
}

/// Makes a store of an S3-compatible service.
///
/// # Errors
/// The first thing that is wrong with the settings; all of them are in `faults`.
pub(super) async fn remote_store(remote: &RemoteSettings, who: &Who<'_>, faults: &mut Faults) -> Result<Store, String> {
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
        machine_id: who.machine_id.clone(),
        patience: Patience::default(),
    };
    let told = |Problem { key, message, hint }| ConfigProblem {
        key: key.into(),
        source: source_of(who.listed, key),
        message,
        hint,
    };
    let backend = remote.backend.clone();
    faults.warnings.extend(settings.check().warnings.into_iter().map(told));
    match S3Store::open(&settings, Arc::clone(who.clock)).await {
        Ok(store) => {
            let id = settings.store_id();
            let setup = Setup { backend: Some(backend), store_id: Some(id.clone()), ..Setup::default() };
            Ok(Store { port: Arc::new(store.throttled(Arc::clone(who.throttle))), id, setup })
        }
        Err(found) => {
            let reason = found.first().map(|problem| format!("{}; {}", problem.message, problem.hint));
            faults.problems.extend(found.into_iter().map(told));
            Err(reason.unwrap_or_else(|| "the store's settings are wrong".into()))
        }
    }
}

/// Returns where a setting of the store comes from. One that is missing is missing because of the `backend`.
fn source_of(listed: &[Setting], key: &str) -> String {
    let setting = |key: &str| listed.iter().find(|setting| setting.key == key && !setting.value.is_null());
    setting(key).or_else(|| setting("backend")).map(|setting| setting.source.clone()).unwrap_or_default()
}

/// What is wrong with the settings of a home, by themselves and as a store's.
#[derive(Debug, Default)]
pub struct Faults {
    /// What keeps a setting or the store from being used.
    pub problems: Vec<ConfigProblem>,
    /// What works and should not be so.
    pub warnings: Vec<ConfigProblem>,
}

/// Tells everything that is wrong with the settings of a home. Asks no store.
pub async fn faults(home: &Path, config: &Config) -> Faults {
    let mut faults = Faults { problems: config.problems.clone(), warnings: Vec::new() };
    let machine_id = access::own_machine(home, config).or_else(|| MachineId::of_host(&config::host_name()).ok());
    if let (StoreSettings::Remote(remote), Some(machine_id)) = (&config.settings.store, machine_id) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let throttle = Arc::new(Throttle::new(Arc::clone(&clock)));
        let who = Who { machine_id: &machine_id, listed: &config.listed, clock: &clock, throttle: &throttle };
        // Only what it tells is wanted.
        remote_store(remote, &who, &mut faults).await.ok();
    }
    faults
}

/// The parts of a node that know nothing of each other's makers.
pub(super) struct Parted {
    pub(super) settings: Settings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) facts: Arc<Facts>,
    pub(super) sync: Arc<Sync>,
    pub(super) service: Arc<Service>,
}

/// Makes the parts of a node.
pub(super) async fn compose(
    home: &Path,
    config: Config,
    admin_token: AdminToken,
    identity: &Identity,
    legacy: Legacy,
) -> Parted {
    let Config { settings, listed, problems, .. } = config;
    let mut faults = Faults::default();
    let lasting: Vec<_> = config::lasting(&listed).collect();
    let settings_digest = Digest::of(&serde_json::to_vec(&lasting).unwrap_or_default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let throttle = Arc::new(Throttle::new(Arc::clone(&clock)));
    let who = Who { machine_id: &identity.machine_id, listed: &listed, clock: &clock, throttle: &throttle };
    let Store { port, id, setup } = store(home, &settings.store, &who, &mut faults).await;
    let store_problems = [faults.problems, faults.warnings].concat();
    for ConfigProblem { key, source, message, hint } in problems.iter().chain(&store_problems) {
        tracing::warn!(key, source, hint, "wrong setting: {message}");
    }
    let (recordings, commands_act) = (settings.recordings_dir.clone(), settings.commands_act);
    let setup = Setup { recordings, commands_act, admin_token, settings: listed, problems, store_problems, ..setup };
    let facts = Arc::new(Facts::new(identity.clone(), Arc::clone(&clock)));
    let parts = Parts {
        recordings: settings.recordings_dir.clone(),
        machine_id: identity.machine_id.clone(),
        store: port,
        store_id: id,
        store_folder: setup.store_folder.clone(),
        clock: Arc::clone(&clock),
        facts: Arc::clone(&facts),
        dead_letters: home.join("storage/dead_letter.json"),
        state: home.join("storage/state.json"),
        settings: settings_digest,
        throttle,
    };
    let sync = Arc::new(Sync::new(parts, tuning(&settings), legacy));
    let jobs = Jobs::new(Arc::clone(&sync), Arc::clone(&facts), Arc::clone(&clock));
    let service =
        Service::new(identity.clone(), Arc::clone(&sync), jobs, Arc::clone(&facts), Arc::clone(&clock), setup);
    Parted { settings, clock, facts, sync, service: Arc::new(service) }
}
