//! The store of a home's settings, for somebody who reads it without a node.

use std::{path::Path, sync::Arc};

use bubbaloop_storage_schemas::{BlockReason, MachineId};

use super::compose::{Faults, Who, remote_store};
use crate::{
    clock::{Clock, SystemClock},
    config::{Config, StoreSettings},
    library::identity::{HomeLock, Identity},
    policy::queue::Block,
    store::{ObjectStore, local::LocalStore, throttle::Throttle},
};

/// Returns the machine of a home: that of the node that runs or ran there, else the configured one.
pub fn own_machine(home: &Path, config: &Config) -> Option<MachineId> {
    let holder = || HomeLock::holder(home).map(|holder| holder.machine_id);
    Identity::load(home).map(|it| it.machine_id).or_else(holder).or_else(|| config.settings.machine_id.clone())
}

/// Opens the store that the settings name. Nothing is made or changed there.
///
/// # Errors
/// There is none, or its settings are wrong.
pub async fn store(config: &Config, machine: &MachineId) -> Result<Arc<dyn ObjectStore>, Block> {
    let block = |reason, hint: String| Block::new(reason, hint);
    match &config.settings.store {
        StoreSettings::Unset => {
            Err(block(BlockReason::NoStore, "set backend in [storage] of config.toml, or with --set".into()))
        }
        StoreSettings::Invalid(invalid) => Err(invalid.clone()),
        StoreSettings::Local { path } => {
            let store = LocalStore::new(&**path);
            match store.read_mark() {
                Some(_) => Ok(Arc::new(store)),
                None => Err(block(
                    BlockReason::LocalPathMissing,
                    format!("{} holds no store: is it mounted?", path.display()),
                )),
            }
        }
        StoreSettings::Remote(remote) => {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
            let throttle = Arc::new(Throttle::new(Arc::clone(&clock)));
            let who = Who { machine_id: machine, listed: &config.listed, clock: &clock, throttle: &throttle };
            match remote_store(remote, &who, &mut Faults::default()).await {
                Ok(store) => Ok(store.port),
                Err(reason) => Err(block(BlockReason::Config, format!("{reason}: mend the store's settings"))),
            }
        }
    }
}
