//! The definition of every setting: one row each.
//!
//! A row holds the name, kind, default, scope and documentation line. Parsing, defaults, `config`, `configure`, the names in
//! the environment and the table in the documentation come from the rows, and a test compares `launch/storage.toml` with
//! them. A live setting is one row in [`LiveSettings`], which is also the field that its reader uses.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use bubbaloop_storage_schemas::{MachineId, limits::CONCURRENCY_MAX};
use bytesize::ByteSize;

use super::{
    definition::{Definition, Scope},
    kind::Kind,
    store::StoreChoice,
    values::Values,
};
use crate::{
    policy::{
        parts::{PART_BYTES_MAX, PART_BYTES_MIN, PUT_BYTES_MAX, PartLimits},
        queue::Order,
        retention::Retention,
        window::Window,
    },
    secret::Secret,
};

/// Makes a row whose change rebuilds the components.
const fn restart(name: &'static str, kind: Kind, default: Option<&'static str>, about: &'static str) -> Definition {
    Definition { name, kind, default, scope: Scope::Restart, about }
}

/// Makes the struct of the live settings, its rows, and the reading of its fields.
macro_rules! live_settings {
    ($(
        #[doc = $about:literal]
        $field:ident: $type:ty = ($kind:expr $(, $default:literal)?);
    )+) => {
        /// The settings that running components follow. A field is named as its setting.
        #[derive(Debug, Clone, PartialEq)]
        pub struct LiveSettings {
            $(#[doc = $about] pub $field: $type,)+
        }

        const LIVE: &[Definition] = &[$(Definition {
            name: stringify!($field),
            kind: $kind,
            default: [$(Some($default),)? None][0],
            scope: Scope::Live,
            about: $about,
        }),+];

        impl LiveSettings {
            pub(super) fn of(values: &Values) -> Self {
                Self { $($field: values.get(stringify!($field)),)+ }
            }
        }
    };
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Slowest bandwidth limit: below it a block would wait longer than a connection is kept.
const RATE_MIN: u64 = 1024;

const LIBRARY: &[Definition] = &[
    restart(
        "machine_id",
        Kind::Machine,
        None,
        "this machine's name; without it the host name with `_` for `-`; fixed at the first start; also `BUBBALOOP_MACHINE_ID`",
    ),
    restart(
        "recordings_dir",
        Kind::Path,
        Some("recordings"),
        "the folder of recordings; a relative path starts at the home",
    ),
];

/// What a store backend reads. A backend reads its settings by name.
const STORE: &[Definition] = &[
    restart(
        "backend",
        Kind::Backend,
        None,
        "where uploads go: `local`, `s3`, `r2`, `gcs` or `minio`; without it nothing is uploaded",
    ),
    restart("local_path", Kind::Path, None, "the folder of a `local` store"),
    restart("endpoint", Kind::Text, None, "the address of an S3-compatible store; AWS and `gcs` need none"),
    restart("region", Kind::Text, None, "the region of the bucket; needed for AWS only"),
    restart("bucket", Kind::Text, None, "the bucket"),
    restart("prefix", Kind::Text, None, "what all keys in the bucket begin with"),
    restart("ca_file", Kind::Path, None, "a PEM file of certificates to trust in addition to the system's"),
    restart(
        "credentials",
        Kind::Choice(&["static", "ambient"]),
        Some("static"),
        "`ambient` uses what the machine offers: instance role, profile, environment of AWS",
    ),
];

live_settings! {
    /// chunks are uploaded by themselves; `false`: only what `upload` asks for
    auto_upload: bool = (Kind::Flag, "true");
    /// uploads at once
    concurrency: usize = (Kind::Number(1, CONCURRENCY_MAX as u64), "4");
    /// which chunk goes first: `oldest` or `newest`
    order: Order = (Kind::Choice(&["oldest", "newest"]), "oldest");
    /// recordings with these tags go first, in this order
    priority_tags: Vec<String> = (Kind::Texts, "[]");
    /// the limit of all uploads together: `"2 Mbit/s"`, `"250 kB/s"`
    bandwidth_limit: Option<ByteSize> = (Kind::Rate(RATE_MIN));
    /// the hours in which chunks are uploaded by themselves, in the machine's time: `"22:00-06:00"`; what `upload` asks for goes at any hour
    upload_window: Option<Window> = (Kind::Window);
    /// larger chunks are uploaded in parts: after a crash or a broken link only the missing parts are sent
    multipart_threshold: ByteSize = (Kind::Size(PART_BYTES_MIN, PUT_BYTES_MAX), "16 MiB");
    /// the size of a part, at least 5 MiB; grown if a chunk would have more than 10,000 parts
    part_size: ByteSize = (Kind::Size(PART_BYTES_MIN, PART_BYTES_MAX), "8 MiB");
    /// local files of proven chunks that are older are removed
    retention_days_local: Option<Duration> = (Kind::Decimal);
    /// how much of the disk the library may use: local files of proven chunks are removed above it
    disk_quota_gb: Option<ByteSize> = (Kind::Decimal);
    /// how much of the disk is to stay free: local files of proven chunks are removed below it
    min_free_gb: Option<ByteSize> = (Kind::Decimal);
    /// how long a chunk may fail while the store accepts others
    give_up_after: Duration = (Kind::Duration(SECOND, YEAR), "12h");
    /// the time between two scans of the whole library
    rescan_interval: Duration = (Kind::Duration(SECOND, HOUR), "60s");
    /// the time between two comparisons of all marks with what the store lists
    verify_interval: Duration = (Kind::Duration(SECOND, YEAR), "7d");
    /// the time for uploads in flight after SIGTERM
    shutdown_grace: Duration = (Kind::Duration(Duration::ZERO, HOUR), "10s");
}

const ADOPT: &[Definition] = &[restart(
    "auto_adopt",
    Kind::Flag,
    Some("false"),
    "files and bags beside the recordings become recordings once they have not changed for a minute",
)];

const CONTRACT: &[Definition] = &[restart(
    "command_verbs",
    Kind::Choice(&["viewer", "operator"]),
    Some("viewer"),
    "what commands of Bubbaloop's node contract may do; `operator`: upload and pause too",
)];

const ZENOH: &[Definition] = &[
    restart("zenoh.mode", Kind::Choice(&["peer", "client"]), Some("peer"), "`client` beside a router"),
    restart("zenoh.connect", Kind::Endpoints, Some("[\"tcp/127.0.0.1:7447\"]"), "the router; it may be absent"),
    restart(
        "zenoh.listen",
        Kind::Endpoints,
        Some("[\"tcp/127.0.0.1:7448\"]"),
        "where the node listens; if the port of the default is in use, any free port",
    ),
    restart("zenoh.multicast", Kind::Flag, Some("true"), "look for peers on this machine"),
    restart(
        "zenoh.config_file",
        Kind::Path,
        None,
        "a full Zenoh configuration (TLS, access rules); the settings above count only if they are set",
    ),
];

const STORE_SECRETS: &[Definition] = &[
    restart(
        "access_key_id",
        Kind::Secret,
        None,
        "the public part of the key; only in `secrets.toml` or the environment",
    ),
    restart("secret_access_key", Kind::Secret, None, "its secret part; only in `secrets.toml` or the environment"),
    restart(
        "session_token",
        Kind::Secret,
        None,
        "the token of a temporary key; only in `secrets.toml` or the environment",
    ),
];

const ADMIN: &[Definition] = &[restart(
    "admin_token",
    Kind::Secret,
    None,
    "what `rm` asks for; made at the first start; only in `secrets.toml` or the environment",
)];

/// Returns the definitions of all settings, in the order of `config`.
pub fn definitions() -> impl Iterator<Item = &'static Definition> {
    let (auto_upload, live) = LIVE.split_at(1);
    [LIBRARY, STORE, auto_upload, ADOPT, live, CONTRACT, ZENOH, STORE_SECRETS, ADMIN].into_iter().flatten()
}

/// Returns the definitions of the settings that a store backend reads.
pub(super) fn store_definitions() -> impl Iterator<Item = &'static Definition> {
    [STORE, STORE_SECRETS].into_iter().flatten()
}

/// Returns the definition of a setting.
pub(super) fn definition(name: &str) -> Option<&'static Definition> {
    definitions().find(|definition| definition.name == name)
}

/// The settings of a node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The machine's id; `None` if none is configured.
    pub machine_id: Option<MachineId>,
    /// The folder of recordings.
    pub recordings_dir: PathBuf,
    /// Where uploads go.
    pub store: StoreChoice,
    /// What running components follow.
    pub live: LiveSettings,
    /// Files and bags beside the recordings become recordings by themselves.
    pub auto_adopt: bool,
    /// Commands of the node contract may act, not only read.
    pub commands_act: bool,
    /// Proves that a request comes from an admin.
    pub admin_token: Option<Secret>,
    /// How the node joins the bus.
    pub zenoh: ZenohSettings,
}

impl Settings {
    pub(super) fn of(values: &Values, store: StoreChoice) -> Self {
        Self {
            machine_id: values.get("machine_id"),
            recordings_dir: values.get("recordings_dir"),
            store,
            live: LiveSettings::of(values),
            auto_adopt: values.get("auto_adopt"),
            commands_act: values.text("command_verbs") == Some("operator"),
            admin_token: values.secret("admin_token").cloned(),
            zenoh: ZenohSettings::of(values),
        }
    }
}

impl Default for LiveSettings {
    /// Returns the defaults of the definitions.
    fn default() -> Self {
        Self::of(&Values::defaults(LIVE))
    }
}

impl LiveSettings {
    /// Returns which chunks are uploaded in parts.
    pub const fn part_limits(&self) -> PartLimits {
        PartLimits { threshold_bytes: self.multipart_threshold.0, part_bytes: self.part_size.0 }
    }

    /// Returns when local files make room.
    pub fn retention(&self) -> Retention {
        Retention {
            age: self.retention_days_local,
            quota_bytes: self.disk_quota_gb.map(|quota| quota.0),
            free_bytes_min: self.min_free_gb.map(|free| free.0),
        }
    }
}

/// How the node joins the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZenohSettings {
    /// The node is a client of a router; otherwise it is a peer.
    pub is_client: bool,
    /// Endpoints to dial.
    pub connect: Vec<String>,
    /// Endpoints to listen on.
    pub listen: Vec<String>,
    /// The names of these settings that some source sets. If `zenoh.listen` is not among them, any free port will do; only
    /// those among them override a `config_file`.
    pub explicit: BTreeSet<&'static str>,
    /// Peers on this machine are found by multicast.
    pub multicast: bool,
    /// A full Zenoh configuration, below the settings above.
    pub config_file: Option<PathBuf>,
}

impl ZenohSettings {
    fn of(values: &Values) -> Self {
        let names = ZENOH.iter().map(|definition| definition.name);
        Self {
            is_client: values.text("zenoh.mode") == Some("client"),
            connect: values.get("zenoh.connect"),
            listen: values.get("zenoh.listen"),
            explicit: names.filter(|name| !values.is_default(name)).collect(),
            multicast: values.get("zenoh.multicast"),
            config_file: values.get("zenoh.config_file"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        for definition in definitions() {
            let value = definition.default_value(Path::new("/home"));
            assert_eq!(value.is_null(), definition.default.is_none(), "{}", definition.name);
        }
    }

    #[test]
    fn without_any_source_the_live_settings_are_those_of_the_definitions() {
        let settings = LiveSettings::default();
        assert!(settings.auto_upload && settings.bandwidth_limit.is_none());
        assert_eq!((settings.concurrency, settings.order), (4, Order::Oldest));
        assert_eq!((settings.part_size, settings.verify_interval), (ByteSize::mib(8), 7 * 24 * HOUR));
    }
}
