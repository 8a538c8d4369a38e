//! Opening the store of a home's settings: the one way, for the node and for commands that read a store themselves.

use std::{path::Path, sync::Arc};

use bubbaloop_storage_schemas::{
    BlockReason, MachineId,
    reply::{ConfigProblem, Setting},
};

use crate::{
    clock::{Clock, SystemClock},
    config::{Config, StoreChoice, host_name},
    library::identity::{HomeLock, Identity},
    policy::queue::Block,
    store::{self, ObjectStore, OpenError, OpenRequest, Opened, Problem, Purpose, StoreSettings, throttle::Throttle},
};

/// What is wrong with the settings of a home, by themselves and as a store's.
#[derive(Debug, Default)]
pub struct Faults {
    /// What keeps a setting or the store from being used.
    pub problems: Vec<ConfigProblem>,
    /// What works and should be different.
    pub warnings: Vec<ConfigProblem>,
}

/// Why there is no store.
#[derive(Debug)]
pub(super) struct NotOpened {
    pub(super) block: Block,
    /// The settings are right, and the store may appear later.
    pub(super) may_appear: bool,
}

/// Opens the store that the settings name, and adds what is wrong with them to `faults`.
///
/// # Errors
/// No store is configured, its settings are wrong, or it can't be opened now.
pub(super) async fn open(config: &Config, request: &OpenRequest<'_>, faults: &mut Faults) -> Result<Opened, NotOpened> {
    let never = |block| NotOpened { block, may_appear: false };
    let settings = match &config.settings.store {
        StoreChoice::Unset => {
            let hint = match request.purpose {
                Purpose::Read => "set backend in [storage] of config.toml, or with --set",
                Purpose::Upload { .. } => {
                    "set backend in [storage] of config.toml; until then nothing is uploaded and nothing is safe"
                }
            };
            return Err(never(Block::new(BlockReason::NoStore, hint)));
        }
        StoreChoice::Invalid(block) => return Err(never(block.clone())),
        StoreChoice::Set(settings) => settings,
    };
    let Some(backend) = store::backend(settings.backend()) else {
        return Err(never(Block::new(BlockReason::Config, format!("there is no backend {}", settings.backend()))));
    };
    let located = |problem| located(problem, &config.listed);
    faults.warnings.extend(backend.check(settings, request.machine_id).warnings.into_iter().map(located));
    match backend.open(settings, request).await {
        Ok(opened) => Ok(opened),
        Err(OpenError::Blocked(block)) => Err(NotOpened { block, may_appear: true }),
        Err(OpenError::Settings(found)) => {
            let first = found.first().map(|problem| format!("{}; {}", problem.message, problem.hint));
            faults.problems.extend(found.into_iter().map(located));
            let reason = first.unwrap_or_else(|| "the store's settings are wrong".into());
            Err(never(Block::new(BlockReason::Config, format!("{reason}: correct the store's settings"))))
        }
    }
}

/// Adds the source of its setting to a problem. A missing setting is missing because of `backend`.
fn located(Problem { key, message, hint }: Problem, listed: &[Setting]) -> ConfigProblem {
    let setting = |key: &str| listed.iter().find(|setting| setting.key == key && !setting.value.is_null());
    let source = setting(key).or_else(|| setting("backend")).map(|setting| setting.source.clone());
    ConfigProblem { key: key.into(), source: source.unwrap_or_default(), message, hint }
}

/// Opens the store of a home for a command. Nothing is created or changed there.
async fn open_to_read(config: &Config, machine_id: &MachineId, faults: &mut Faults) -> Result<Opened, Block> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let throttle = Arc::new(Throttle::new(Arc::clone(&clock)));
    let request = OpenRequest { machine_id, clock: &clock, throttle: &throttle, purpose: Purpose::Read };
    open(config, &request, faults).await.map_err(|not_opened| not_opened.block)
}

/// Opens the store of a home for a command that reads it. Nothing is created or changed there.
///
/// # Errors
/// No store is configured, its settings are wrong, or it can't be opened now.
pub async fn read(config: &Config, machine_id: &MachineId) -> Result<Arc<dyn ObjectStore>, Block> {
    open_to_read(config, machine_id, &mut Faults::default()).await.map(|opened| opened.store)
}

/// Returns everything that is wrong with the settings of a home. Sends no request to a store.
pub async fn faults(home: &Path, config: &Config) -> Faults {
    let mut faults = Faults { problems: config.problems.clone(), warnings: Vec::new() };
    if let Some(machine_id) = own_machine(home, config).or_else(|| MachineId::of_host(&host_name()).ok()) {
        // Only what is wrong with the settings is wanted here, not whether the store is there.
        open_to_read(config, &machine_id, &mut faults).await.ok();
    }
    faults
}

/// Returns the machine of a home: that of the node that runs or ran there, else the configured one.
pub fn own_machine(home: &Path, config: &Config) -> Option<MachineId> {
    let holder = || HomeLock::holder(home).map(|holder| holder.machine_id);
    Identity::load(home).map(|it| it.machine_id).or_else(holder).or_else(|| config.settings.machine_id.clone())
}

/// The place of a store at which another one may appear: a disk that is mounted, unmounted or changed there.
#[derive(Debug, Clone)]
pub(super) struct StorePlace(Option<StoreSettings>);

impl StorePlace {
    pub(super) fn of(choice: &StoreChoice) -> Self {
        match choice {
            StoreChoice::Set(settings) => Self(Some(settings.clone())),
            StoreChoice::Unset | StoreChoice::Invalid(_) => Self(None),
        }
    }

    /// Returns what is at the place now; it changes when another store appears. It does I/O.
    pub(super) fn look(&self) -> Option<String> {
        let settings = self.0.as_ref()?;
        store::backend(settings.backend())?.place(settings)
    }
}
