//! The node: built from its settings, run, and rebuilt when settings change that running components can't follow.

mod admin;
mod auto_adopt;
mod compose;
pub mod external;
pub mod offline;
pub mod store;

use std::{
    future::pending,
    io,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    process,
    sync::Arc,
    time::Duration,
};

use bubbaloop_storage_schemas::MachineId;
use tokio::{sync::watch, task::spawn_blocking};

pub use self::store::{Faults, faults};
use self::{
    compose::{Components, compose},
    store::StorePlace,
};
use crate::{
    bus::{
        BusError, Presence,
        session::{self, Session},
    },
    clock::SystemClock,
    config::{self, Config, CurrentSettings, ZenohSettings},
    durable,
    engine::{
        driver::{Engine, Handover, Tuning},
        events::Run,
    },
    library::identity::{Holder, HomeLock, Identity, IdentityError},
};

/// Closing a session on a dead link takes Zenoh up to ten seconds, and nothing is lost without it.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Between looks whether the settings changed.
const SETTINGS_LOOK: Duration = Duration::from_secs(2);

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

/// Returns the identity of a home, with a word where another name is configured than it has.
fn identity(home: &Path, config: &mut Config) -> Result<Identity, ServeError> {
    let wanted = match &config.settings.machine_id {
        Some(id) => id.clone(),
        None => MachineId::of_host(&config::host_name())?,
    };
    if config.is_machine_unclear && Identity::load(home).is_none() {
        return Ok(Identity::passing(&wanted));
    }
    let identity = Identity::load_or_make(home, &wanted)?;
    if config.settings.machine_id.is_some() && identity.machine_id != wanted {
        config.told_other_machine(&identity.machine_id);
    }
    Ok(identity)
}

/// Takes the home for this process.
fn locked(home: &Path) -> Result<HomeLock, ServeError> {
    HomeLock::take(home).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => {
            ServeError::Locked { home: home.to_owned(), pid: HomeLock::holder(home).map(|holder| holder.pid) }
        }
        _ => ServeError::Home { home: home.to_owned(), source },
    })
}

/// Why a run of the parts ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The node is to end.
    Stopped,
    /// The settings changed.
    Changed,
}

/// A session with the settings that it was opened by.
struct Bus {
    settings: ZenohSettings,
    session: Session,
}

/// What stays while the components are rebuilt.
struct Node {
    home: PathBuf,
    flags: Vec<(String, String)>,
    lock: HomeLock,
    /// The run of this process.
    run: Arc<Run>,
    bus: Option<Bus>,
    /// What the components before left behind.
    legacy: Handover,
    /// The settings of the components before.
    last: Option<Config>,
}

/// Runs a node until `stop`, then lets what is on its way end within the grace.
///
/// Changed settings are taken up while it runs: what is on its way ends, and the parts are made anew.
///
/// # Errors
/// The home is taken, broken or not writable. A wrong setting is none: the node starts and tells it.
pub async fn run(home: PathBuf, flags: &[(String, String)], stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    let lock = locked(&home)?;
    let run = Arc::new(Run::begin(&SystemClock::start()));
    let mut node = Node { home, flags: flags.to_vec(), lock, run, bus: None, legacy: Handover::default(), last: None };
    let mut stop = pin!(stop);
    while node.run_once(stop.as_mut()).await? == Ended::Changed {
        tracing::info!("the settings changed and are taken up");
        // With other settings, a key's among them, everything is worth another try.
        if let Err(error) = durable::remove(&node.home.join("storage/dead_letter.json")) {
            tracing::warn!(%error, "what was given up stays so");
        }
    }
    node.leave().await;
    Ok(())
}

impl Node {
    /// Reads the settings. Where a file can't be read those that were read last hold.
    fn load(&mut self) -> Config {
        let config = load(&self.home, &self.flags, self.last.as_ref());
        self.last.insert(config).clone()
    }

    /// Runs the parts of the settings as they are now, until `stop` or until the settings change.
    async fn run_once(&mut self, stop: Pin<&mut impl Future<Output = ()>>) -> Result<Ended, ServeError> {
        let mut config = self.load();
        let home = self.home.clone();
        let admin_token = admin::ensure(&home, &mut config, || self.load());
        let identity = identity(&self.home, &mut config)?;
        let recordings = &config.settings.recordings_dir;
        // A link that leads nowhere is waited for: its disk may not be mounted yet.
        if recordings.starts_with(&self.home) && !recordings.is_symlink() {
            durable::create_folder(recordings).map_err(|source| self.home_error(source))?;
        }
        let place = StorePlace::of(&config.settings.store);
        let legacy = std::mem::take(&mut self.legacy);
        let components = compose(&self.home, config, admin_token, &self.run, &identity, legacy).await;
        let look = place.look();
        let (stopping, stopped) = watch::channel(false);
        let current = components.current.subscribe();
        let running = tokio::spawn(run_sync(Arc::clone(&components.engine), stopped, current.clone()));
        let adopting = components
            .settings
            .auto_adopt
            .then(|| tokio::spawn(auto_adopt::run(Arc::clone(&components.service), current)));
        let home = self.home.display();
        tracing::info!(machine_id = %identity.machine_id, library_id = identity.library_id, %home, "started");
        let (home, flags, last) = (self.home.clone(), self.flags.clone(), self.last.clone());
        let changed = follow_settings(home, flags, last, (place, look), &components.current);
        let mut presence = None;
        let ended = tokio::select! {
            error = self.be_present(&components, &identity, &mut presence) => Err(error),
            () = stop => Ok(Ended::Stopped),
            () = changed => Ok(Ended::Changed),
        };
        tracing::info!("stopping");
        if let Some(adopting) = adopting {
            adopting.abort();
        }
        components.service.stop_jobs();
        stopping.send_replace(true);
        if let Err(error) = running.await {
            tracing::error!(%error, "the sync ended abnormally");
        }
        drop(presence);
        self.legacy = components.engine.legacy();
        ended
    }

    /// Joins the bus, however long that takes, and stays. Returns only if that is not possible.
    async fn be_present(
        &mut self,
        components: &Components,
        identity: &Identity,
        presence: &mut Option<Presence>,
    ) -> ServeError {
        if let Err(error) = self.join(components, identity, presence).await {
            return error;
        }
        pending().await
    }

    async fn join(
        &mut self,
        components: &Components,
        identity: &Identity,
        presence: &mut Option<Presence>,
    ) -> Result<(), ServeError> {
        let Components { settings, clock, facts, engine, service, .. } = components;
        self.describe(identity, Vec::new());
        if self.bus.as_ref().is_some_and(|bus| bus.settings != settings.zenoh) {
            self.leave().await;
        }
        let bus = match self.bus.take() {
            Some(bus) => bus,
            None => Bus { session: session::open_at_last(&settings.zenoh).await, settings: settings.zenoh.clone() },
        };
        let session = &self.bus.insert(bus).session;
        let (service, engine, clock) = (Arc::clone(service), Arc::clone(engine), Arc::clone(clock));
        *presence = Some(Presence::declare(session, service, engine, facts, clock).await?);
        let endpoints = session::endpoints(session).await;
        tracing::info!(endpoints = endpoints.join(" "), "on the bus");
        self.describe(identity, endpoints);
        Ok(())
    }

    /// Writes down who runs here and where it listens. A disk that does not take it stops no upload.
    fn describe(&mut self, identity: &Identity, endpoints: Vec<String>) {
        let holder = Holder { pid: process::id(), machine_id: identity.machine_id.clone(), endpoints };
        if let Err(error) = self.lock.describe(&holder) {
            tracing::warn!(%error, "where this node listens can't be written down: its command line may not find it");
        }
    }

    fn home_error(&self, source: io::Error) -> ServeError {
        ServeError::Home { home: self.home.clone(), source }
    }

    async fn leave(&mut self) {
        if let Some(Bus { session, .. }) = self.bus.take() {
            tokio::time::timeout(CLOSE_MAX, session::close(session)).await.ok();
        }
    }
}

/// Reads the settings. Saved half, or with a slip, they change nothing in a node that runs, which tells it.
fn load(home: &Path, flags: &[(String, String)], last: Option<&Config>) -> Config {
    let config = Config::load(home, flags);
    match last.filter(|_| config.is_unreadable) {
        Some(last) => Config { problems: config.problems, digest: config.digest, ..last.clone() },
        None => config,
    }
}

/// Passes changed settings to their readers as long as running components can follow them. Returns when the components
/// must be rebuilt: for other settings, or because another store is at the place of the one that `place` names.
async fn follow_settings(
    home: PathBuf,
    flags: Vec<(String, String)>,
    mut last: Option<Config>,
    (place, look): (StorePlace, Option<String>),
    current: &watch::Sender<CurrentSettings>,
) {
    loop {
        tokio::time::sleep(SETTINGS_LOOK).await;
        let (home, flags, place, look, before) =
            (home.clone(), flags.clone(), place.clone(), look.clone(), last.clone());
        let looked = spawn_blocking(move || {
            let is_other_store = place.look() != look;
            (!is_other_store).then(|| load(&home, &flags, before.as_ref()))
        });
        let Ok(looked) = looked.await else { continue };
        let Some(config) = looked else { return };
        let Some(before) = &last else { return };
        if config.digest == before.digest {
            continue;
        }
        if config.restart_digest != before.restart_digest {
            return;
        }
        tracing::info!("changed settings are applied");
        current.send_replace(CurrentSettings::from(&config));
        last = Some(config);
    }
}

/// Runs the engine until it is stopped, with the live settings as they are.
async fn run_sync(
    engine: Arc<Engine>,
    mut stopped: watch::Receiver<bool>,
    mut current: watch::Receiver<CurrentSettings>,
) {
    let follow = async {
        while current.changed().await.is_ok() {
            let live = current.borrow_and_update().live.clone();
            engine.tune(Tuning::from(live));
        }
        pending::<()>().await;
    };
    // A dropped sender means that the node ends, too.
    let stop = async move { stopped.wait_for(|is_stopping| *is_stopping).await.map(drop).unwrap_or_default() };
    tokio::select! {
        () = engine.run(stop) => {}
        () = follow => {}
    }
}
