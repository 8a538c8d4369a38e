//! Opening a session on the bus.

use std::time::Duration;

use serde_json::{Value, json};
use zenoh::Config;
pub use zenoh::Session;

use super::BusError;
use crate::config::ZenohSettings;

/// Largest message that is taken in: what the node reads is small, and Zenoh buffers whole messages.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a node listens whose port is taken.
const ANY_PORT: &str = "tcp/127.0.0.1:0";

/// Waits between two tries to reach the bus, the last one for all further ones.
const RETRY_AFTER: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

fn insert(config: &mut Config, key: &str, value: &Value) -> Result<(), BusError> {
    config.insert_json5(key, &value.to_string()).map_err(BusError::new(format!("can't set Zenoh's {key} to {value}")))
}

/// Returns Zenoh's configuration for a node; `listen` replaces the endpoints of the settings where given.
fn node_config(settings: &ZenohSettings, listen: Option<&str>) -> Result<Config, BusError> {
    let mut config = match &settings.config_file {
        None => Config::default(),
        Some(path) => {
            let doing = format!("can't use the Zenoh configuration {}", path.display());
            Config::from_file(path).map_err(BusError::new(doing))?
        }
    };
    let mode = if settings.is_client { "client" } else { "peer" };
    let listening = match listen {
        Some(endpoint) => json!([endpoint]),
        None if settings.is_client => json!([]),
        None => json!(settings.listen),
    };
    for (key, setting, value) in [
        ("mode", "zenoh.mode", json!(mode)),
        ("connect/endpoints", "zenoh.connect", json!(settings.connect)),
        ("listen/endpoints", "zenoh.listen", listening),
        ("scouting/multicast/enabled", "zenoh.multicast", json!(settings.multicast)),
    ] {
        if settings.config_file.is_none() || settings.explicit.contains(setting) {
            insert(&mut config, key, &value)?;
        }
    }
    if settings.config_file.is_none() {
        // Beyond this machine nobody is looked for: who is to be reached from elsewhere is dialled.
        insert(&mut config, "scouting/multicast/interface", &json!("lo"))?;
        insert(&mut config, "transport/link/rx/max_message_size", &json!(MESSAGE_BYTES_MAX))?;
    }
    Ok(config)
}

async fn open_with(config: Config) -> Result<Session, BusError> {
    zenoh::open(config).await.map_err(BusError::new("can't join the bus"))
}

/// Opens a node's session once. A default port that is busy gives way to a free one.
///
/// # Errors
/// The settings are refused, an endpoint can't be listened on, or a client reaches no router.
pub async fn open(settings: &ZenohSettings) -> Result<Session, BusError> {
    let result = open_with(node_config(settings, None)?).await;
    let may_move = !settings.is_client && !settings.explicit.contains("zenoh.listen") && settings.config_file.is_none();
    match result {
        Err(error) if may_move => {
            tracing::info!(%error, "the default port is not free: listening on another");
            open_with(node_config(settings, Some(ANY_PORT))?).await
        }
        result => result,
    }
}

/// Opens a node's session, however long it takes: one line is logged when it fails and one when it is there.
pub async fn open_at_last(settings: &ZenohSettings) -> Session {
    let mut told = None;
    for tries in 0.. {
        match open(settings).await {
            Ok(session) => {
                if told.is_some() {
                    tracing::info!("the bus is reached");
                }
                return session;
            }
            Err(error) => {
                let text = error.to_string();
                if told.as_ref() != Some(&text) {
                    tracing::warn!(%error, "the bus is not reached, and is tried again; uploads go on");
                    told = Some(text);
                }
            }
        }
        let wait = RETRY_AFTER.get(tries).unwrap_or(&RETRY_AFTER[RETRY_AFTER.len() - 1]);
        tokio::time::sleep(*wait).await;
    }
    unreachable!("the tries do not end")
}

/// Opens the session of a command: a client of the first endpoint that answers.
///
/// # Errors
/// None of them answers.
pub async fn open_client(settings: &ZenohSettings, endpoints: &[String]) -> Result<Session, BusError> {
    let mut config = match &settings.config_file {
        None => Config::default(),
        Some(path) => {
            let doing = format!("can't use the Zenoh configuration {}", path.display());
            Config::from_file(path).map_err(BusError::new(doing))?
        }
    };
    for (key, value) in [
        ("mode", json!("client")),
        ("connect/endpoints", json!(endpoints)),
        ("listen/endpoints", json!([])),
        ("scouting/multicast/enabled", json!(false)),
    ] {
        insert(&mut config, key, &value)?;
    }
    open_with(config).await
}

/// Returns where a session listens, as other sessions dial it.
pub async fn endpoints(session: &Session) -> Vec<String> {
    session.info().locators().await.iter().map(ToString::to_string).collect()
}

/// Closes a session. Whoever can't wait for a dead link drops the future.
pub async fn close(session: Session) {
    if let Err(error) = session.close().await {
        tracing::debug!(%error, "the session was not closed in order");
    }
}
