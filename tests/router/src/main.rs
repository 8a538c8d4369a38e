//! A Zenoh router with the REST and remote_api plugins linked in. `router CONFIG.json5` runs until it is killed.

use zenoh::{
    Config,
    internal::{plugins::PluginsManager, runtime::RuntimeBuilder},
};
use zenoh_plugin_remote_api::RemoteApiPlugin;
use zenoh_plugin_rest::RestPlugin;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    zenoh::init_log_from_env_or("warn");
    let file = std::env::args().nth(1).ok_or("usage: router CONFIG.json5")?;
    let mut plugins = PluginsManager::static_plugins_only();
    plugins.declare_static_plugin::<RestPlugin, &str>("rest", true);
    plugins.declare_static_plugin::<RemoteApiPlugin, &str>("remote_api", true);
    let mut runtime = RuntimeBuilder::new(Config::from_file(file)?).plugins_manager(plugins).build().await?;
    runtime.start().await?;
    std::future::pending().await
}
