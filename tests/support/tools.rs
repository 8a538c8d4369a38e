//! Tools that the tests install: below the target folder, or as Debian packages.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the folder for installed tools.
pub(crate) fn installed() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_bubbaloop-storage"));
    let folder = binary.parent().unwrap().parent().unwrap().join("test-tools");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Takes a lock for the installation of a tool, across processes. It is held until the returned file is dropped.
pub(crate) fn alone(thing: &str) -> File {
    let lock = File::create(installed().join(format!("{thing}.lock"))).unwrap();
    lock.lock().unwrap();
    lock
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the path of a program. If it is missing, the Debian package of the same name is installed.
pub(crate) fn program(name: &str) -> PathBuf {
    let found = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
    };
    let _alone = alone("apt");
    found().unwrap_or_else(|| {
        run(Command::new("apt-get").args(["update", "--quiet"]));
        let mut install = Command::new("apt-get");
        run(install.env("DEBIAN_FRONTEND", "noninteractive").args([
            "install",
            "--yes",
            "--no-install-recommends",
            name,
        ]));
        found().unwrap_or_else(|| panic!("there is no {name} in the path"))
    })
}
