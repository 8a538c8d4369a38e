//! What the environment and the machine say; the one place beside `main` that reads the environment.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

/// There is no home.
#[derive(Debug, thiserror::Error)]
#[error("neither BUBBALOOP_HOME nor HOME is set: set BUBBALOOP_HOME to the folder that holds recordings and settings")]
pub struct NoHome;

/// Returns the environment as text. A variable that is no text is no setting of this program.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(super) fn environment() -> BTreeMap<String, String> {
    env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Returns the home: `flag`, else `BUBBALOOP_HOME`, else `~/.bubbaloop`.
///
/// # Errors
/// None of them is set.
pub fn home(flag: Option<PathBuf>) -> Result<PathBuf, NoHome> {
    let env = environment();
    let set = |name: &str| env.get(name).filter(|value| !value.is_empty());
    let home = flag
        .or_else(|| set("BUBBALOOP_HOME").map(PathBuf::from))
        .or_else(|| set("HOME").map(|home| Path::new(home).join(".bubbaloop")));
    let home = home.ok_or(NoHome)?;
    Ok(std::path::absolute(&home).unwrap_or(home))
}

/// Returns whether the environment has a variable.
pub fn is_in_environment(name: &str) -> bool {
    environment().contains_key(name)
}

/// Returns whether a person wants no colours: `NO_COLOR` is set.
pub fn wants_no_colour() -> bool {
    environment().get("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Returns this machine's host name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
