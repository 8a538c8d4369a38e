//! The node: put together from its settings, run, and put together anew when they change.

pub mod access;
mod admin;
mod compose;
pub mod external;
pub mod offline;

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

pub use self::compose::{Faults, faults};
use self::compose::{Parted, compose, tuning};
use crate::{
    bus::{
        BusError, Presence,
        session::{self, Session},
    },
    config::{self, Config, Settings, StoreSettings, ZenohSettings},
    durable,
    engine::sync::{Legacy, Sync},
    library::identity::{Holder, HomeLock, Identity, IdentityError},
    service::{Service, Tried},
    store::local::LocalStore,
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

/// What stays while the parts are made anew.
struct Node {
    home: PathBuf,
    flags: Vec<(String, String)>,
    lock: HomeLock,
    bus: Option<Bus>,
    /// What the parts before left behind.
    legacy: Legacy,
    /// The settings of the parts before.
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
    let mut node = Node { home, flags: flags.to_vec(), lock, bus: None, legacy: Legacy::default(), last: None };
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
        let place = Place::of(&config.settings.store);
        let legacy = std::mem::take(&mut self.legacy);
        let parted = compose(&self.home, config, admin_token, &identity, legacy).await;
        let look = place.as_ref().map(Place::look);
        let (stopping, stopped) = watch::channel(false);
        let running = tokio::spawn(run_sync(Arc::clone(&parted.sync), stopped));
        let Settings { auto_adopt, rescan_interval, .. } = parted.settings;
        let adopting = auto_adopt.then(|| tokio::spawn(adopt_by_itself(Arc::clone(&parted.service), rescan_interval)));
        let home = self.home.display();
        tracing::info!(machine_id = %identity.machine_id, library_id = identity.library_id, %home, "started");
        let (home, flags, last) = (self.home.clone(), self.flags.clone(), self.last.clone());
        let changed = follow_settings(home, flags, last, (place, look), &parted);
        let mut presence = None;
        let ended = tokio::select! {
            error = self.be_present(&parted, &identity, &mut presence) => Err(error),
            () = stop => Ok(Ended::Stopped),
            () = changed => Ok(Ended::Changed),
        };
        tracing::info!("stopping");
        if let Some(adopting) = adopting {
            adopting.abort();
        }
        parted.service.stop_jobs();
        stopping.send_replace(true);
        if let Err(error) = running.await {
            tracing::error!(%error, "the sync ended abnormally");
        }
        drop(presence);
        self.legacy = parted.sync.legacy();
        ended
    }

    /// Joins the bus, however long that takes, and stays. Returns only if that is not possible.
    async fn be_present(
        &mut self,
        parted: &Parted,
        identity: &Identity,
        presence: &mut Option<Presence>,
    ) -> ServeError {
        if let Err(error) = self.join(parted, identity, presence).await {
            return error;
        }
        pending().await
    }

    async fn join(
        &mut self,
        parted: &Parted,
        identity: &Identity,
        presence: &mut Option<Presence>,
    ) -> Result<(), ServeError> {
        let Parted { settings, clock, facts, sync, service } = parted;
        self.describe(identity, Vec::new());
        if self.bus.as_ref().is_some_and(|bus| bus.settings != settings.zenoh) {
            self.leave().await;
        }
        let bus = match self.bus.take() {
            Some(bus) => bus,
            None => Bus { session: session::open_at_last(&settings.zenoh).await, settings: settings.zenoh.clone() },
        };
        let session = &self.bus.insert(bus).session;
        let (service, sync, clock) = (Arc::clone(service), Arc::clone(sync), Arc::clone(clock));
        *presence = Some(Presence::declare(session, service, sync, facts, clock).await?);
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

/// The folder of a local store: a disk that is mounted, unmounted or changed there makes it another store.
#[derive(Clone)]
struct Place(PathBuf);

impl Place {
    fn of(settings: &StoreSettings) -> Option<Self> {
        match settings {
            StoreSettings::Local { path } => Some(Self(path.clone())),
            StoreSettings::Unset | StoreSettings::Invalid(_) | StoreSettings::Remote(_) => None,
        }
    }

    /// What stands there: the store's mark, or what else matters of the place.
    fn look(&self) -> String {
        LocalStore::new(self.0.as_path()).read_mark().unwrap_or_else(|| {
            let (is_begun, has_above) = (self.0.join(".bubbaloop").is_dir(), self.0.parent().is_some_and(Path::is_dir));
            format!("unmarked {is_begun} {has_above}")
        })
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

/// Takes up changed settings as long as the parts can; returns when they must be made anew, for other settings or for
/// another store in the place of the one of `at`.
async fn follow_settings(
    home: PathBuf,
    flags: Vec<(String, String)>,
    mut last: Option<Config>,
    at: (Option<Place>, Option<String>),
    parted: &Parted,
) {
    loop {
        tokio::time::sleep(SETTINGS_LOOK).await;
        let (home, flags, (place, look), before) = (home.clone(), flags.clone(), at.clone(), last.clone());
        let looked = spawn_blocking(move || {
            let is_other_place = place.as_ref().map(Place::look) != look;
            (!is_other_place).then(|| load(&home, &flags, before.as_ref()))
        });
        let Ok(looked) = looked.await else { continue };
        let Some(config) = looked else { return };
        let Some(before) = &last else { return };
        if config.digest == before.digest {
            continue;
        }
        if config.parts_digest != before.parts_digest {
            return;
        }
        tracing::info!("changed settings are taken up");
        parted.sync.tune(tuning(&config.settings));
        parted.service.tell_settings(config.listed.clone(), config.problems.clone());
        last = Some(config);
    }
}

/// Adopts what is laid out in another way as scans find it.
async fn adopt_by_itself(service: Arc<Service>, every: Duration) {
    let mut tried = Tried::new();
    loop {
        tokio::time::sleep(every).await;
        let service = Arc::clone(&service);
        let runtime = tokio::runtime::Handle::current();
        let mut known = std::mem::take(&mut tried);
        let adopting = spawn_blocking(move || {
            let _runtime = runtime.enter();
            service.auto_adopt(&mut known);
            known
        });
        tried = adopting.await.unwrap_or_default();
    }
}

async fn run_sync(sync: Arc<Sync>, mut stopped: watch::Receiver<bool>) {
    // That the sender is gone means the same: the node ends.
    sync.run(async move { stopped.wait_for(|is_stopping| *is_stopping).await.map(drop).unwrap_or_default() }).await;
}
