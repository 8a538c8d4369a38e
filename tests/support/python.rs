//! A Zenoh client in Python, as an independent implementation.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bubbaloop_storage_schemas::codec;
use serde_json::{Value, json};

use super::tools::{alone, installed, run};

/// The Python packages of the clients, pinned.
const PACKAGES: [&str; 3] = ["eclipse-zenoh==1.10.2", "mcap==1.6.0", "pymcap-cli==0.34.0"];

/// Returns a Python interpreter with the packages of the clients.
pub(crate) fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| environment("python", &PACKAGES))
}

/// Returns the Python interpreter of an environment with these packages. Installs them the first time.
pub(crate) fn environment(name: &str, packages: &[&str]) -> PathBuf {
    let environment = installed().join(name);
    let (python, done) = (environment.join("bin/python"), environment.join("installed"));
    let _alone = alone(name);
    let wanted = packages.join("\n");
    if fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return python;
    }
    fs::remove_dir_all(&environment).ok();
    let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).output();
    if !made.is_ok_and(|made| made.status.success()) {
        // Some systems package venv without pip; virtualenv includes it.
        fs::remove_dir_all(&environment).ok();
        let modules = installed().join("virtualenv");
        run(Command::new("python3").args(["-m", "pip", "install", "-q", "virtualenv", "--target"]).arg(&modules));
        run(Command::new("python3").env("PYTHONPATH", &modules).args(["-m", "virtualenv"]).arg(&environment));
    }
    run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(packages));
    fs::write(done, wanted).unwrap();
    python
}

/// Checks MCAP files with external tools: pymcap-cli's doctor finds no fault in `found`, and the Python reader finds
/// the same messages in it as in `original`. Returns the number of messages.
pub(crate) fn judge(original: &Path, found: &Path) -> u64 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/judge.py");
    let judged = Command::new(python()).arg(script).args([original, found]).output().unwrap();
    assert!(judged.status.success(), "{}: {judged:?}", found.display());
    let doctor = python().with_file_name("pymcap-cli");
    run(Command::new(doctor).arg("doctor").arg(found));
    String::from_utf8(judged.stdout).unwrap().trim().parse().unwrap()
}

/// One client process.
pub(crate) struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// A reply to a query.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Whether it is a reply and not a `reply_err`.
    pub is_ok: bool,
    /// The reply's key; empty on an error.
    pub key: String,
    /// Its encoding.
    pub encoding: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// Decodes the content according to its encoding.
    pub(crate) fn value(&self) -> Value {
        let format = codec::Format::of_encoding(&self.encoding).unwrap().expect("an explicit encoding");
        codec::decode_value(&self.bytes, Some(format)).unwrap()
    }
}

fn reply(value: &Value) -> Reply {
    let text = |name: &str| value[name].as_str().unwrap().to_owned();
    Reply {
        is_ok: value["ok"].as_bool().unwrap_or(true),
        key: text("key"),
        encoding: text("encoding"),
        bytes: STANDARD.decode(text("bytes")).unwrap(),
    }
}

/// A query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Get<'a> {
    pub selector: &'a str,
    pub payload: Option<&'a [u8]>,
    pub encoding: Option<&'a str>,
    /// Asks all matching queryables and returns every reply. Otherwise Zenoh's defaults hold.
    pub all: bool,
}

impl Python {
    /// Starts a client that connects only to these endpoints.
    pub(crate) fn dialling(endpoints: &[&str]) -> Self {
        Self::with(&json!({
            "mode": "peer", "connect": {"endpoints": endpoints}, "listen": {"endpoints": ["tcp/127.0.0.1:0"]},
            "scouting": {"multicast": {"enabled": false}}, "timestamping": {"enabled": true},
        }))
    }

    /// Starts a session with this Zenoh configuration.
    pub(crate) fn with(config: &Value) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/support/bus.py");
        let mut child = Command::new(python())
            .arg(script)
            .arg(config.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut python = Self { child, input, output };
        assert_eq!(python.read(), "ready");
        python
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    fn command(&mut self, command: &Value) -> Value {
        writeln!(self.input, "{command}").unwrap();
        self.read()
    }

    pub(crate) fn get(&mut self, get: &Get<'_>) -> Vec<Reply> {
        let answer = self.command(&json!({
            "do": "get", "selector": get.selector, "encoding": get.encoding, "all": get.all,
            "bytes": get.payload.map(|bytes| STANDARD.encode(bytes)),
        }));
        answer.as_array().unwrap().iter().map(reply).collect()
    }

    /// Asks one node and returns its only reply.
    pub(crate) fn ask(&mut self, selector: &str) -> Reply {
        let replies = self.get(&Get { selector, ..Get::default() });
        assert_eq!(replies.len(), 1, "{selector}: {replies:?}");
        replies.into_iter().next().unwrap()
    }

    pub(crate) fn put(&mut self, key: &str, bytes: &[u8], encoding: &str) {
        self.command(&json!({"do": "put", "key": key, "bytes": STANDARD.encode(bytes), "encoding": encoding}));
    }

    /// Publishes with a cache, so that a node that was disconnected receives it later.
    pub(crate) fn publish(&mut self, key: &str, bytes: &[u8], encoding: &str) {
        self.command(&json!({"do": "publish", "key": key, "bytes": STANDARD.encode(bytes), "encoding": encoding}));
    }

    /// Answers queries for a key with these bytes until the client ends.
    pub(crate) fn answer(&mut self, key: &str, bytes: &[u8]) {
        self.command(&json!({"do": "answer", "key": key, "bytes": STANDARD.encode(bytes)}));
    }

    pub(crate) fn subscribe(&mut self, key: &str) {
        self.command(&json!({"do": "subscribe", "key": key}));
    }

    /// Returns the samples since the last call.
    pub(crate) fn heard(&mut self) -> Vec<Reply> {
        self.command(&json!({"do": "heard"})).as_array().unwrap().iter().map(reply).collect()
    }

    /// Returns the keys of the liveliness tokens that match.
    pub(crate) fn alive(&mut self, key: &str) -> Vec<String> {
        serde_json::from_value(self.command(&json!({"do": "alive", "key": key}))).unwrap()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
