//! The admin token of a home: made when none is set.

use std::path::Path;

use crate::{
    config::{Config, edit},
    service::AdminToken,
};

/// Returns the admin token that the settings name; where they name none, one is made and the settings are read again. A
/// home that can't be written is no reason not to start: then nobody is an admin.
pub(super) fn ensure(home: &Path, config: &mut Config, load: impl FnOnce() -> Config) -> AdminToken {
    if let Some(token) = &config.settings.admin_token {
        return AdminToken::Set(token.clone());
    }
    if let Err(error) = edit::make_admin_token(home) {
        tracing::warn!(%error, "no admin token can be made: what needs one is refused");
        return AdminToken::Absent(error.to_string());
    }
    tracing::info!("an admin token is made and stands in secrets.toml");
    *config = load();
    match &config.settings.admin_token {
        Some(token) => AdminToken::Set(token.clone()),
        None => AdminToken::Absent("the one that was made can't be read back".into()),
    }
}
