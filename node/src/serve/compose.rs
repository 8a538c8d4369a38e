//! Builds the components of a node from its settings.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bubbaloop_storage_schemas::{Digest, MachineId, journal::StoreId};
use tokio::sync::watch;

use super::store::{Faults, NotOpened, open};
use crate::{
    clock::{Clock, SystemClock},
    config::{Config, ConfigProblem, CurrentSettings, Settings, StoreChoice, restart_settings},
    engine::{
        driver::{Deps, Engine, Handover, Tuning},
        events::{Events, Run},
        jobs::Jobs,
    },
    library::{identity::Identity, state::NodeState},
    service::{AdminToken, Service, Setup},
    store::{self, ObjectStore, OpenRequest, Opened, Purpose, throttle::Throttle, unset::UnsetStore},
};

/// The store of a node, and what `status` reports of it.
struct NodeStore {
    port: Arc<dyn ObjectStore>,
    backend: Option<String>,
    id: Option<StoreId>,
    folder: Option<PathBuf>,
}

/// The store id in the journal while there is no store.
const NO_STORE_ID: &str = "none";

/// Opens the store that the settings name; a missing one is a null object. The store's mark is remembered, so that another
/// disk at its place is noticed.
async fn open_store(home: &Path, config: &Config, parts: StoreParts<'_>, faults: &mut Faults) -> NodeStore {
    let settings = match &config.settings.store {
        StoreChoice::Set(settings) => Some(settings),
        StoreChoice::Unset | StoreChoice::Invalid(_) => None,
    };
    let folder = settings.and_then(|settings| store::backend(settings.backend())?.folder(settings));
    let state = home.join("storage/state.json");
    let known_mark = folder.as_ref().and_then(|folder| NodeState::load(&state).local_stores.remove(folder));
    let StoreParts { machine_id, clock, throttle } = parts;
    let purpose = Purpose::Upload { known_mark: known_mark.clone() };
    let backend = settings.map(|settings| settings.backend().to_owned());
    match open(config, &OpenRequest { machine_id, clock, throttle, purpose }, faults).await {
        Ok(Opened { store, id, mark }) => {
            if let (Some(folder), Some(mark)) = (&folder, mark.filter(|mark| known_mark.as_ref() != Some(mark))) {
                let remember = |state: &mut NodeState| drop(state.local_stores.insert(folder.clone(), mark));
                if let Err(error) = NodeState::update(&state, remember) {
                    tracing::warn!(%error, "the store's mark can't be remembered");
                }
            }
            NodeStore { port: store, backend, id: Some(id), folder }
        }
        // Its place is watched, and the components are rebuilt when it appears.
        Err(NotOpened { block, may_appear: true }) => {
            NodeStore { port: Arc::new(UnsetStore(block)), backend, id: None, folder }
        }
        Err(NotOpened { block, may_appear: false }) => {
            NodeStore { port: Arc::new(UnsetStore(block)), backend: None, id: None, folder: None }
        }
    }
}

/// What a node opens its store with.
struct StoreParts<'a> {
    machine_id: &'a MachineId,
    clock: &'a Arc<dyn Clock>,
    throttle: &'a Arc<Throttle>,
}

/// The components of a node.
pub(super) struct Components {
    pub(super) settings: Settings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) facts: Arc<Events>,
    pub(super) engine: Arc<Engine>,
    pub(super) service: Arc<Service>,
    /// The one channel by which live settings reach their readers.
    pub(super) current: watch::Sender<CurrentSettings>,
}

/// Builds the components of a node.
pub(super) async fn compose(
    home: &Path,
    config: Config,
    admin_token: AdminToken,
    run: &Arc<Run>,
    identity: &Identity,
    legacy: Handover,
) -> Components {
    let mut faults = Faults::default();
    let restart: Vec<_> = restart_settings(&config.listed).collect();
    let settings_digest = Digest::of(&serde_json::to_vec(&restart).unwrap_or_default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let throttle = Arc::new(Throttle::new(Arc::clone(&clock)));
    let parts = StoreParts { machine_id: &identity.machine_id, clock: &clock, throttle: &throttle };
    let NodeStore { port, backend, id, folder } = open_store(home, &config, parts, &mut faults).await;
    let store_problems = [faults.problems, faults.warnings].concat();
    for ConfigProblem { key, source, message, hint } in config.problems.iter().chain(&store_problems) {
        tracing::warn!(key, source, hint, "wrong setting: {message}");
    }
    let (current, followed) = watch::channel(CurrentSettings::from(&config));
    let settings = config.settings;
    let setup = Setup {
        recordings: settings.recordings_dir.clone(),
        backend,
        store_id: id.clone(),
        store_folder: folder.clone(),
        commands_act: settings.commands_act,
        admin_token,
        current: followed,
        store_problems,
    };
    let facts = Arc::new(Events::new(Arc::clone(run), identity.clone(), Arc::clone(&clock)));
    let parts = Deps {
        recordings: settings.recordings_dir.clone(),
        machine_id: identity.machine_id.clone(),
        store: port,
        store_id: id.unwrap_or_else(|| NO_STORE_ID.into()),
        store_folder: folder,
        clock: Arc::clone(&clock),
        facts: Arc::clone(&facts),
        dead_letters: home.join("storage/dead_letter.json"),
        state: home.join("storage/state.json"),
        settings: settings_digest,
        throttle,
    };
    let engine = Arc::new(Engine::new(parts, Tuning::from(settings.live.clone()), legacy));
    let jobs = Jobs::new(Arc::clone(&engine), Arc::clone(&facts), Arc::clone(&clock));
    let service = Arc::new(Service::new(
        identity.clone(),
        Arc::clone(&engine),
        jobs,
        Arc::clone(&facts),
        Arc::clone(&clock),
        setup,
    ));
    Components { settings, clock, facts, engine, service, current }
}
