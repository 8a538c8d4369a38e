//! Where the object store is and how it is reached: settings, what is wrong with them, and what differs by provider.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use bubbaloop_storage_schemas::{Digest, MachineId, journal::StoreId};

use crate::{
    secret::Secret,
    store::backend::{Checked, Problem, StoreSettings},
};

/// Hexadecimal digits of a store's id: enough that two stores of one fleet never share one.
const STORE_ID_DIGITS: usize = 16;

/// Longest prefix, in bytes: with it the longest key stays below S3's 1024.
const PREFIX_BYTES_MAX: usize = 512;

/// Who offers the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Cloudflare R2.
    R2,
    /// AWS S3.
    Aws,
    /// Google Cloud Storage, by its S3-compatible XML interface.
    Gcs,
    /// MinIO.
    Minio,
    /// Anything else that speaks S3.
    S3,
}

/// What differs by provider. What a store checks and reports is not here: the probe finds it out.
#[derive(Debug, Clone, Copy)]
struct Traits {
    name: &'static str,
    /// The region where none is set; `None` where one has to be.
    region: Option<&'static str>,
    /// The endpoint where none is set; `Needed` where one has to be.
    endpoint: Endpoint,
    /// The bucket stands in the path, not in the host name. That needs no wildcard DNS entry or certificate.
    path_style: bool,
    /// What an endpoint looks like, for hints.
    example: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Needed,
    Fixed(&'static str),
    /// The SDK knows it by the region.
    OfRegion,
}

const fn traits(provider: Provider) -> Traits {
    let name = provider.name();
    match provider {
        Provider::R2 => Traits {
            name,
            region: Some("auto"),
            endpoint: Endpoint::Needed,
            path_style: true,
            example: "https://<account id>.r2.cloudflarestorage.com",
        },
        Provider::Aws => Traits {
            name,
            region: None,
            endpoint: Endpoint::OfRegion,
            path_style: false,
            example: "https://s3.eu-central-1.amazonaws.com",
        },
        Provider::Gcs => Traits {
            name,
            region: Some("auto"),
            endpoint: Endpoint::Fixed("https://storage.googleapis.com"),
            path_style: true,
            example: "https://storage.googleapis.com",
        },
        Provider::Minio => Traits {
            name,
            region: Some("us-east-1"),
            endpoint: Endpoint::Needed,
            path_style: true,
            example: "https://minio.example.com:9000",
        },
        Provider::S3 => Traits {
            name,
            region: Some("us-east-1"),
            endpoint: Endpoint::Needed,
            path_style: true,
            example: "https://s3.example.com",
        },
    }
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::R2, Self::Aws, Self::Gcs, Self::Minio, Self::S3];

    /// Returns the word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::R2 => "r2",
            Self::Aws => "aws",
            Self::Gcs => "gcs",
            Self::Minio => "minio",
            Self::S3 => "s3",
        }
    }

    /// Returns the provider that a `backend` setting means: `s3` without an endpoint, or with one of Amazon's, is AWS.
    /// `None` for a word that names no provider.
    pub fn of_backend(backend: &str, endpoint: Option<&str>) -> Option<Self> {
        match backend {
            "s3" => {
                let is_aws = endpoint.is_none_or(|endpoint| host(endpoint).ends_with(".amazonaws.com"));
                Some(if is_aws { Self::Aws } else { Self::S3 })
            }
            other => Self::ALL.into_iter().find(|provider| provider.name() == other),
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who the node is to the store.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Keys that were given to the node.
    Static {
        /// The key's public part.
        access_key_id: String,
        /// The key's secret part.
        secret_access_key: Secret,
        /// The token of a temporary key.
        session_token: Option<Secret>,
    },
    /// Whatever the machine offers: environment, profiles, instance role. Only where a person asked for it.
    Ambient,
}

/// How long each wait may last.
///
/// A block of 256 KiB takes 16 seconds on a link of 128 kbit/s and one second on a healthy 2 Mbit/s uplink, so no
/// link that is of use is cut; a dead one is noticed within `stall` or, where all is in the kernel's buffers, by TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a TCP connection.
    pub connect: Duration,
    /// Between two blocks that move, the first one's TLS handshake included.
    pub stall: Duration,
    /// For the answer after the last block was given to the connection.
    pub reply: Duration,
    /// For a request without a body, from begin to end.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            reply: Duration::from_secs(120),
            request: Duration::from_secs(60),
        }
    }
}

/// The settings of an S3 store.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Who offers it.
    pub provider: Provider,
    /// Its address, `https://host` or `http://host:port`; `None` where the provider has one.
    pub endpoint: Option<String>,
    /// Its region; `None` where the provider has one.
    pub region: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with, without a `/` at its ends; empty for none.
    pub prefix: String,
    /// A PEM file of certificates that are trusted beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Who the node is.
    pub credentials: Credentials,
    /// This machine: what the probe puts goes below its keys, where a narrow policy allows it.
    pub machine_id: MachineId,
    /// How long each wait may last.
    pub patience: Patience,
}

impl S3Settings {
    /// Reads the settings of a store. An unknown backend is taken for S3-compatible.
    pub fn of(settings: &StoreSettings, machine_id: &MachineId) -> Self {
        let text = |name: &str| settings.text(name).map(str::to_owned);
        let secret = |name: &str| settings.secret(name).cloned();
        let endpoint = text("endpoint");
        Self {
            provider: Provider::of_backend(settings.backend(), endpoint.as_deref()).unwrap_or(Provider::S3),
            endpoint,
            region: text("region"),
            bucket: text("bucket").unwrap_or_default(),
            prefix: text("prefix").unwrap_or_default(),
            ca_file: settings.path("ca_file"),
            credentials: if settings.text("credentials") == Some("ambient") {
                Credentials::Ambient
            } else {
                Credentials::Static {
                    access_key_id: secret("access_key_id").map(|id| id.expose().to_owned()).unwrap_or_default(),
                    secret_access_key: secret("secret_access_key").unwrap_or_else(|| Secret::new(String::new())),
                    session_token: secret("session_token"),
                }
            },
            machine_id: machine_id.clone(),
            patience: Patience::default(),
        }
    }

    /// Checks all settings and reports everything at once. Touches neither disk nor network.
    pub fn check(&self) -> Checked {
        let mut checked = Checked::default();
        self.check_endpoint(&mut checked);
        let problems = &mut checked.problems;
        if self.region().is_none() {
            let hint = "set region to the bucket's, as in region = \"eu-central-1\"";
            problems.push(Problem::new("region", "there is no region", hint));
        }
        let is_bucket = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if self.bucket.is_empty() {
            problems.push(Problem::new("bucket", "there is no bucket", "set bucket to the bucket's name"));
        } else if self.bucket.len() > 255 || !is_bucket(&self.bucket) {
            let message = format!("{:?} is no bucket's name", self.bucket);
            problems.push(Problem::new("bucket", message, "only the name: what stands below it goes into prefix"));
        }
        self.check_prefix(problems);
        if let Credentials::Static { access_key_id, secret_access_key, session_token } = &self.credentials {
            check_secret("access_key_id", access_key_id, problems);
            check_secret("secret_access_key", secret_access_key.expose(), problems);
            if let Some(token) = session_token {
                check_secret("session_token", token.expose(), problems);
            }
        }
        checked
    }

    fn check_endpoint(&self, checked: &mut Checked) {
        let traits = traits(self.provider);
        let hint = format!("set endpoint as in endpoint = {:?}", traits.example);
        let Some(endpoint) = self.endpoint() else {
            if traits.endpoint == Endpoint::Needed {
                let message = format!("{} has no endpoint of its own", traits.name);
                checked.problems.push(Problem::new("endpoint", message, hint));
            }
            return;
        };
        let is_plain = endpoint.starts_with("http://");
        let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        let is_address = rest.is_some_and(|rest| {
            !rest.is_empty()
                && !rest.starts_with(['/', ':'])
                && !rest.contains(['@', '?', '#', '\\'])
                && !rest.contains(|letter: char| letter.is_whitespace() || letter.is_control())
        });
        if !is_address {
            // A person may have put a password there, so the text itself is not repeated.
            checked.problems.push(Problem::new("endpoint", "the endpoint is no http or https address", hint));
            return;
        }
        let path = rest.and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
        if !path.is_empty() && path == self.bucket {
            let hint = "leave the bucket out of the endpoint: it has a setting of its own";
            checked.problems.push(Problem::new("endpoint", "the endpoint ends with the bucket", hint));
        }
        if is_plain && !is_loopback(&host(endpoint)) {
            let message = "recordings and signatures go over the network in the clear";
            checked.warnings.push(Problem::new("endpoint", message, "use https, with ca_file for a private CA"));
        }
    }

    fn check_prefix(&self, problems: &mut Vec<Problem>) {
        let prefix = &self.prefix;
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let is_legal = prefix.is_empty()
            || prefix.len() <= PREFIX_BYTES_MAX
                && prefix.split('/').all(is_part)
                && !prefix.contains(|letter: char| letter.is_control() || letter == '\\');
        if !is_legal {
            let message = format!("{:?} is no prefix", prefix.chars().take(80).collect::<String>());
            let hint = "parts joined by single slashes, none at the ends, as in prefix = \"fleet/north\"";
            problems.push(Problem::new("prefix", message, hint));
        }
    }

    /// Returns the store's id in the journal: in another bucket nothing is uploaded.
    pub fn store_id(&self) -> StoreId {
        let endpoint = self.endpoint().unwrap_or_default().to_ascii_lowercase();
        let parts = [self.provider.name(), &endpoint, &self.bucket, &self.prefix];
        let mut id = Digest::of(parts.join("\n").as_bytes()).to_string();
        id.truncate(STORE_ID_DIGITS);
        id
    }

    /// Returns the endpoint in use; `None` where the SDK knows it by the region.
    pub(super) fn endpoint(&self) -> Option<&str> {
        let set = self.endpoint.as_deref().map(|endpoint| endpoint.trim_end_matches('/'));
        set.filter(|endpoint| !endpoint.is_empty()).or(match traits(self.provider).endpoint {
            Endpoint::Fixed(endpoint) => Some(endpoint),
            Endpoint::Needed | Endpoint::OfRegion => None,
        })
    }

    /// Returns the region in use.
    pub(super) fn region(&self) -> Option<&str> {
        self.region.as_deref().filter(|region| !region.is_empty()).or(traits(self.provider).region)
    }

    /// Tells whether the bucket stands in the path. A bucket with dots fits no wildcard certificate.
    pub(super) fn is_path_style(&self) -> bool {
        let is_local = |endpoint| {
            let host = host(endpoint);
            IpAddr::from_str(&host).is_ok() || is_loopback(&host)
        };
        traits(self.provider).path_style || self.bucket.contains('.') || self.endpoint().is_some_and(is_local)
    }
}

fn check_secret(key: &'static str, value: &str, problems: &mut Vec<Problem>) {
    let hint = format!("put {key} into secrets.toml under [storage], or into the environment");
    if value.is_empty() {
        problems.push(Problem::new(key, format!("there is no {key}"), hint));
    } else if value.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        problems.push(Problem::new(key, format!("{key} has a space or a control character in it"), hint));
    }
}

/// Returns the host of an endpoint, without port and brackets.
fn host(endpoint: &str) -> String {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(inside) => inside.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.to_ascii_lowercase()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || IpAddr::from_str(host).is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(provider: Provider, endpoint: Option<&str>) -> S3Settings {
        S3Settings {
            provider,
            endpoint: endpoint.map(str::to_owned),
            region: None,
            bucket: "bucket".into(),
            prefix: String::new(),
            ca_file: None,
            credentials: Credentials::Static {
                access_key_id: "id".into(),
                secret_access_key: Secret::new("hunter2".into()),
                session_token: None,
            },
            machine_id: "robot_1".parse().unwrap(),
            patience: Patience::default(),
        }
    }

    fn keys(problems: &[Problem]) -> Vec<&str> {
        problems.iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn all_problems_are_told_at_once_and_no_secret_with_them() {
        let mut wrong = settings(Provider::Aws, Some("ftp://user:hunter2@host"));
        wrong.bucket = "a/b".into();
        wrong.prefix = "/a//b".into();
        wrong.credentials = Credentials::Static {
            access_key_id: String::new(),
            secret_access_key: Secret::new("hunter2 ".into()),
            session_token: None,
        };
        let checked = wrong.check();
        let expected = ["endpoint", "region", "bucket", "prefix", "access_key_id", "secret_access_key"];
        assert_eq!(keys(&checked.problems), expected);
        assert!(!format!("{checked:?} {wrong:?}").replace("ftp://user:hunter2@host", "").contains("hunter2"));
        assert!(checked.problems.iter().all(|problem| !problem.hint.is_empty()));
    }

    #[test]
    fn each_provider_asks_for_what_it_needs_and_no_more() {
        for (provider, needs) in [
            (Provider::R2, vec!["endpoint"]),
            (Provider::Aws, vec!["region"]),
            (Provider::Gcs, vec![]),
            (Provider::Minio, vec!["endpoint"]),
            (Provider::S3, vec!["endpoint"]),
        ] {
            assert_eq!(keys(&settings(provider, None).check().problems), needs, "{provider}");
        }
        assert_eq!(settings(Provider::R2, None).region(), Some("auto"));
    }

    #[test]
    fn the_bucket_stands_in_the_path_where_a_host_name_for_it_can_fail() {
        let is_path_style = |provider, endpoint| settings(provider, endpoint).is_path_style();
        assert!(is_path_style(Provider::Minio, Some("https://minio.example.com")));
        assert!(!is_path_style(Provider::Aws, None));
        assert!(is_path_style(Provider::Aws, Some("http://127.0.0.1:9000")));
        assert!(is_path_style(Provider::Aws, Some("http://[::1]:9000/")));
        assert!(is_path_style(Provider::Aws, Some("http://localhost")));
        let dotted = S3Settings { bucket: "a.b".into(), ..settings(Provider::Aws, None) };
        assert!(dotted.is_path_style());
    }

    #[test]
    fn plain_http_is_a_warning_off_loopback_only() {
        let warned = |endpoint| keys(&settings(Provider::S3, Some(endpoint)).check().warnings) == ["endpoint"];
        assert!(warned("http://nas:9000") && warned("http://192.168.1.5"));
        for fine in ["https://nas", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            assert!(!warned(fine), "{fine}");
        }
        assert_eq!(keys(&settings(Provider::R2, Some("https://a.example/bucket")).check().problems), ["endpoint"]);
        assert_eq!(settings(Provider::R2, Some("https://a.example/storage/s3")).check(), Checked::default());
    }

    #[test]
    fn a_store_id_changes_with_what_it_names_and_with_nothing_else() {
        let base = settings(Provider::S3, Some("https://s3.example.com"));
        let id = base.store_id();
        assert!(id.len() == STORE_ID_DIGITS && id.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let same = S3Settings { endpoint: Some("https://S3.example.com/".into()), region: Some("x".into()), ..base };
        assert_eq!(same.store_id(), id);
        for other in [
            S3Settings { provider: Provider::Minio, ..same.clone() },
            S3Settings { endpoint: Some("https://other.example.com".into()), ..same.clone() },
            S3Settings { bucket: "other".into(), ..same.clone() },
            S3Settings { prefix: "p".into(), ..same },
        ] {
            assert_ne!(other.store_id(), id);
        }
    }

    #[test]
    fn a_backend_names_its_provider() {
        assert_eq!(Provider::of_backend("s3", None), Some(Provider::Aws));
        assert_eq!(Provider::of_backend("s3", Some("https://s3.eu-west-1.amazonaws.com")), Some(Provider::Aws));
        assert_eq!(Provider::of_backend("s3", Some("https://nas")), Some(Provider::S3));
        assert_eq!(Provider::of_backend("r2", None), Some(Provider::R2));
        assert_eq!(Provider::of_backend("local", None), None);
    }
}
