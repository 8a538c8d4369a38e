//! Which store the settings name.

use std::collections::BTreeMap;

use bubbaloop_storage_schemas::{BlockReason, reply::ConfigProblem};

use super::{definition::Definition, values::Values};
use crate::{
    policy::queue::Block,
    secret::Secret,
    store::{self, StoreSettings},
};

/// Where uploads go.
#[derive(Debug, Clone)]
pub enum StoreChoice {
    /// Nowhere: no backend is configured.
    Unset,
    /// Nowhere: the settings can't be used, for this reason.
    Invalid(Block),
    /// To the store of these settings, which are not checked yet.
    Set(StoreSettings),
}

impl StoreChoice {
    /// Chooses the store. `definitions` are those of the settings that a backend reads.
    pub(super) fn of(
        values: &Values,
        definitions: impl Iterator<Item = &'static Definition>,
        problems: &mut Vec<ConfigProblem>,
    ) -> Self {
        let names: Vec<_> = definitions.map(|definition| definition.name).collect();
        let invalid = |hint: String| Self::Invalid(Block::new(BlockReason::Config, hint));
        // The machine's id is part of every key in the store.
        if let Some(name) = ["machine_id"].iter().chain(&names).find(|name| values.is_wrong(name)) {
            return invalid(format!("the setting {name} is wrong: correct it"));
        }
        let Some(name) = values.text("backend") else { return Self::Unset };
        let texts = names.iter().filter_map(|name| Some((*name, values.text(name)?.to_owned())));
        let secrets: BTreeMap<&str, Secret> =
            names.iter().filter_map(|name| Some((*name, values.secret(name)?.clone()))).collect();
        let settings =
            StoreSettings::new(name, texts.filter(|(name, _)| !secrets.contains_key(name)).collect(), secrets.clone());
        let required = store::backend(name).map(|backend| backend.required()).unwrap_or_default();
        let Some((missing, hint)) = required.iter().find(|(key, _)| settings.text(key).is_none()) else {
            return Self::Set(settings);
        };
        let message = format!("backend is {name} and {missing} is not set");
        problems.push(ConfigProblem {
            key: (*missing).into(),
            source: values.source("backend").into(),
            message: message.clone(),
            hint: (*hint).into(),
        });
        invalid(format!("{message}: {hint}"))
    }
}
