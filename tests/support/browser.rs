//! A page in a real browser as a client. The page is `tests/browser`; npm and Debian packages are installed in the
//! target folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

use super::tools::{alone, installed, program, run};

/// The files of the page and its driver, without npm's packages.
const SOURCES: [&str; 6] =
    ["package.json", "package-lock.json", "vite.config.js", "drive.mjs", "page/index.html", "page/main.js"];

/// Returns the browser, and the folder with the built page and its driver.
fn built() -> &'static (PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = installed().join("browser");
        let _alone = alone("browser");
        let (browser, npm) = (program("chromium"), program("npm"));
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/browser");
        let (wanted, done) = (fs::read_to_string(sources.join("package-lock.json")).unwrap(), folder.join("installed"));
        fs::create_dir_all(folder.join("page")).unwrap();
        for source in SOURCES {
            fs::copy(sources.join(source), folder.join(source)).unwrap();
        }
        if !fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
            run(Command::new(npm).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder));
            fs::write(done, wanted).unwrap();
        }
        run(Command::new("node").args(["node_modules/vite/bin/vite.js", "build"]).current_dir(&folder));
        (browser, folder)
    })
}

/// Opens the page, sends the requests in `asked`, and returns what the page received.
pub(crate) fn visit(asked: &Value) -> Value {
    let (browser, folder) = built();
    let mut driver = Command::new("node");
    let output = driver.arg("drive.mjs").arg(browser).arg(asked.to_string()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "the page: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
