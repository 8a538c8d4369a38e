//! The settings of a node, each with its source.
//!
//! `settings` defines them, `kind` says what their values look like, `layers` merges the sources, `load` puts all of it
//! together, `edit` changes the files. A wrong setting never keeps the node from starting: its default is used, and the
//! problem is reported. Only a wrong setting of the store stops uploads, because a guess where recordings go is worse.

mod definition;
pub mod edit;
mod environment;
mod files;
mod kind;
mod layers;
mod load;
mod settings;
mod store;
mod values;

pub use bubbaloop_storage_schemas::reply::ConfigProblem;

pub use self::{
    definition::{Definition, Scope},
    environment::{NoHome, home, host_name, is_in_environment, wants_no_colour},
    files::{File, Files},
    load::{Config, CurrentSettings, restart_settings},
    settings::{LiveSettings, Settings, ZenohSettings, definitions},
    store::StoreChoice,
};

#[cfg(test)]
mod tests;
