//! A Zenoh router with REST and the WebSocket for browsers. It is built from `tests/router` the first time.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    node::{Machine, until},
    servers::ports,
    tools::{alone, installed, program, run},
};

/// Returns the router's binary. Cargo builds it if needed.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let _alone = alone("router");
        let (manifest, target) =
            (Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/router/Cargo.toml"), installed().join("router"));
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--locked", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
        // Build scripts see the variables that Cargo set for our package, and would run again if a test was started
        // without them.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|ours| name.as_encoded_bytes().starts_with(ours.as_bytes()))
            {
                build.env_remove(name);
            }
        }
        run(build.env("CARGO_INCREMENTAL", "0"));
        target.join("debug/router")
    })
}

/// A running router. It ends on drop.
pub(crate) struct Router {
    /// Endpoint for Zenoh sessions.
    pub endpoint: String,
    /// Address of its REST API.
    pub rest: String,
    /// Address for browsers.
    pub websocket: String,
    folder: TempDir,
    child: Child,
}

impl Router {
    /// Starts a router on free ports. Gossip is off, as in Bubbaloop's routers.
    ///
    /// Another process may take a free port before the router starts. Then it is started again.
    pub(crate) fn started() -> Self {
        for _ in 0..5 {
            if let Some(router) = Self::start() {
                return router;
            }
        }
        unreachable!("the router ends at its start")
    }

    fn start() -> Option<Self> {
        let binary = binary();
        let folder = tempfile::tempdir().unwrap();
        let [zenoh, rest, websocket] = ports().map(|port: u16| format!("127.0.0.1:{port}"));
        let endpoint = format!("tcp/{zenoh}");
        let config = json!({
            "mode": "router",
            "listen": {"endpoints": [endpoint]},
            "scouting": {"multicast": {"enabled": false}, "gossip": {"enabled": false}},
            "plugins_loading": {"enabled": true, "search_dirs": []},
            "plugins": {
                "rest": {"http_port": rest, "__required__": true},
                "remote_api": {"websocket_port": websocket, "__required__": true},
            },
        });
        let file = folder.path().join("router.json5");
        fs::write(&file, config.to_string()).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new(binary).arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let (rest, websocket) = (format!("http://{rest}"), format!("ws://{websocket}"));
        let mut router = Self { endpoint, rest, websocket, folder, child: child.unwrap() };
        let mut is_up = false;
        until("the router answers", || {
            let heard = |url: &str| std::net::TcpStream::connect(url.split_once("//").unwrap().1).is_ok();
            is_up = heard(&router.rest) && heard(&router.websocket);
            is_up || router.child.try_wait().unwrap().is_some()
        });
        is_up.then_some(router)
    }

    /// Configures a machine's node to connect to this router as `client` or `peer`. The node must not run yet.
    pub(crate) fn is_joined_by(&self, machine: &Machine, mode: &str) {
        let config = machine.home().join("config.toml");
        let settings = fs::read_to_string(&config).unwrap();
        let connect = format!("mode = {mode:?}\nconnect = [{:?}]", self.endpoint);
        fs::write(&config, settings.replace("connect = []", &connect)).unwrap();
    }

    /// Runs `curl` and returns its output. `more` are further arguments.
    pub(crate) fn curl(&self, selector: &str, more: &[&str]) -> String {
        // Keys contain stars and braces, which curl would expand.
        let mut curl = Command::new(program("curl"));
        curl.args(["--globoff", "--silent", "--show-error", "--fail", "--max-time", "60", "--noproxy", "*"]).args(more);
        let output = curl.arg(format!("{}/{selector}", self.rest)).output().unwrap();
        assert!(output.status.success(), "{selector}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asks by REST and returns the rows of the JSON: key, value, encoding.
    pub(crate) fn get(&self, selector: &str, more: &[&str]) -> Vec<Value> {
        serde_json::from_str(&self.curl(selector, more)).unwrap()
    }

    /// Waits until a machine's connected node answers by REST and has scanned its library.
    pub(crate) fn wait_for(&self, machine: &Machine) {
        until("the node answers through the router", || {
            let rows = self.get(&machine.key("list"), &[]);
            rows.len() == 1 && rows[0]["value"]["verb"] == "list" && rows[0]["key"] != "ERROR"
        });
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // A process that has ended can't be killed; that is no error here.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
    }
}
