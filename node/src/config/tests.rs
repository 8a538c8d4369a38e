use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::*;
use crate::{durable, store::StoreSettings};

fn load(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Config {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags: Vec<_> = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let files = Files { config: File::Text(file.to_owned().into()), secrets: File::Absent };
    Config::of(Path::new("/home"), &files, &env, &flags)
}

fn source(config: &Config, key: &str) -> String {
    config.listed.iter().find(|setting| setting.key == key).unwrap().source.clone()
}

#[test]
fn without_any_source_the_defaults_hold_and_nothing_is_uploaded() {
    let config = load("", &[], &[]);
    assert_eq!(config.problems, []);
    let Settings { store, recordings_dir, live, zenoh, .. } = config.settings;
    let LiveSettings { concurrency, give_up_after, .. } = live;
    assert!(matches!(store, StoreChoice::Unset) && concurrency == 4);
    assert_eq!(recordings_dir, Path::new("/home/recordings"));
    assert_eq!(give_up_after, Duration::from_secs(12 * 3600));
    assert_eq!(zenoh.connect, ["tcp/127.0.0.1:7447"]);
    assert!(zenoh.explicit.is_empty() && zenoh.multicast && !zenoh.is_client);
}

#[test]
fn later_sources_win_and_each_value_names_its_own() {
    let file = "[other]\nx = 1\n[storage]\nbackend = \"local\"\nlocal_path = \"bucket\"\nconcurrency = 2\n[storage.zenoh]\nmode = \"client\"\n";
    let env = [
        ("BUBBALOOP_STORAGE_CONCURRENCY", "3"),
        ("BUBBALOOP_STORAGE_ZENOH__CONNECT", "[\"tcp/10.0.0.1:7447\"]"),
        ("BUBBALOOP_STORAGE_RESCAN_INTERVAL", "5"),
        ("BUBBALOOP_MACHINE_ID", "robot-7"),
    ];
    let config = load(file, &env, &[("concurrency", "8"), ("auto_upload", "false")]);
    assert_eq!(config.problems, []);
    let store = store(&config);
    assert_eq!((store.backend(), store.path("local_path")), ("local", Some(PathBuf::from("/home/bucket"))));
    let live = &config.settings.live;
    assert_eq!((live.concurrency, live.auto_upload), (8, false));
    assert_eq!(live.rescan_interval, Duration::from_secs(5));
    assert_eq!(config.settings.machine_id.as_ref().unwrap().as_str(), "robot_7");
    assert!(config.settings.zenoh.is_client);
    assert_eq!(config.settings.zenoh.connect, ["tcp/10.0.0.1:7447"]);
    for (key, wanted) in [
        ("concurrency", "--set concurrency"),
        ("rescan_interval", "BUBBALOOP_STORAGE_RESCAN_INTERVAL"),
        ("zenoh.connect", "BUBBALOOP_STORAGE_ZENOH__CONNECT"),
        ("zenoh.mode", "/home/config.toml"),
        ("give_up_after", "default"),
    ] {
        assert_eq!(source(&config, key), wanted);
    }
}

#[test]
fn all_problems_are_told_at_once_and_the_rest_holds() {
    let file = "[storage]\nconcurency = 2\nconcurrency = 0\nrescan_interval = \"soon\"\nauto_upload = \"maybe\"\n\
                give_up_after = \"3h\"\nmachine_id = \"a/b\"\n[storage.zenoh]\nmode = \"router\"\nlisten = [\"7448\"]\n";
    let config = load(file, &[("BUBBALOOP_STORAGE_ZENOH__MULTICASTS", "x")], &[]);
    let told: Vec<_> = config.problems.iter().map(|problem| problem.key.as_str()).collect();
    for key in [
        "concurency",
        "concurrency",
        "rescan_interval",
        "auto_upload",
        "machine_id",
        "zenoh.mode",
        "zenoh.listen",
        "zenoh.multicasts",
    ] {
        assert!(told.contains(&key), "{key}: {told:?}");
    }
    assert_eq!(told.len(), 8);
    assert_eq!(config.problems[0].hint, "did you mean concurrency?");
    assert_eq!(config.settings.live.give_up_after, Duration::from_secs(3 * 3600));
    assert_eq!(config.settings.live.concurrency, 4);
}

#[test]
fn a_wrong_store_section_uploads_nowhere_and_says_so() {
    for file in [
        "[storage]\nbackend = \"locl\"\nlocal_path = \"x\"",
        "[storage]\nbackend = \"local\"",
        "[storage]\nbackend = \"local\"\nlocal_path = 7",
        "[storage\nbackend = \"local\"",
        "storage = 3",
    ] {
        let config = load(file, &[], &[]);
        assert!(matches!(config.settings.store, StoreChoice::Invalid(_)), "{file}: {:?}", config.settings.store);
        assert!(!config.problems.is_empty(), "{file}");
    }
}

#[test]
fn names_that_are_all_digits_stay_text() {
    let config = load("[storage]\nmachine_id = 7", &[], &[]);
    assert_eq!(config.settings.machine_id.unwrap().as_str(), "7");
    let config = load("", &[("BUBBALOOP_MACHINE_ID", "007")], &[]);
    assert_eq!(config.settings.machine_id.unwrap().as_str(), "007");
}

const REMOTE: &str = "[storage]\nbackend = \"r2\"\nendpoint = \"https://x\"\nbucket = \"0123\"\n";

fn store(config: &Config) -> &StoreSettings {
    let StoreChoice::Set(store) = &config.settings.store else { panic!("{:?}", config.settings.store) };
    store
}

fn secret<'a>(store: &'a StoreSettings, name: &str) -> Option<&'a str> {
    store.secret(name).map(crate::secret::Secret::expose)
}

#[test]
fn secrets_come_from_their_file_or_the_environment_and_are_never_shown() {
    let secrets = "[storage]\naccess_key_id = \"AKIA\"\nsecret_access_key = \"hunter2\"\n";
    let files = Files { config: File::Text(REMOTE.to_owned().into()), secrets: File::Text(secrets.to_owned().into()) };
    let env = BTreeMap::from([("BUBBALOOP_STORAGE_SESSION_TOKEN".to_owned(), "hunter3".to_owned())]);
    let config = Config::of(Path::new("/home"), &files, &env, &[]);
    let found = store(&config);
    assert_eq!((found.backend(), found.text("bucket")), ("r2", Some("0123")));
    assert_eq!((secret(found, "access_key_id"), secret(found, "secret_access_key")), (Some("AKIA"), Some("hunter2")));
    assert_eq!((secret(found, "session_token"), found.text("session_token")), (Some("hunter3"), None));
    assert_eq!(config.problems, []);
    let listed = format!("{:?} {:?}", config.listed, config.settings);
    assert!(!listed.contains("hunter"), "{listed}");
    let shown: Vec<_> = config.listed.iter().filter(|setting| setting.key == "secret_access_key").collect();
    assert_eq!((&shown[0].value, shown[0].source.as_str()), (&Value::from("set"), "/home/secrets.toml"));
    assert_eq!(source(&config, "session_token"), "BUBBALOOP_STORAGE_SESSION_TOKEN");
}

#[test]
fn a_secret_in_the_wrong_place_is_told() {
    let config = load(&format!("{REMOTE}secret_access_key = \"hunter2\"\n"), &[], &[]);
    assert!(config.problems[0].hint.contains("secrets.toml"), "{:?}", config.problems);
    assert!(!format!("{config:?}").contains("hunter"));
}

#[test]
fn secrets_that_others_can_read_are_not_used() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("secrets.toml");
    durable::replace(&home.path().join("config.toml"), REMOTE.as_bytes()).unwrap();
    durable::replace(&path, b"[storage]\nsecret_access_key = \"hunter2\"\n").unwrap();
    for (mode, is_used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let config = Config::load(home.path(), &[]);
        match &config.settings.store {
            StoreChoice::Set(found) => assert!(is_used && secret(found, "secret_access_key") == Some("hunter2")),
            StoreChoice::Invalid(block) => {
                assert!(!is_used && block.reason == "secrets_readable", "{block:?}");
                assert!(block.hint.contains("secrets.toml") && block.hint.contains("chmod 600"), "{block:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_empty_text_sets_an_optional_setting_to_nothing() {
    let text = "[storage]\nbackend = \"s3\"\nbucket = \"fleet\"\nprefix = \"north\"\nregion = \"\"\nca_file = \"\"\n";
    let files = Files { config: File::Text(text.to_owned().into()), secrets: File::Absent };
    let flags = [("prefix".to_owned(), String::new())];
    let config = Config::of(Path::new("/home"), &files, &BTreeMap::new(), &flags);
    assert_eq!(config.problems, []);
    let found = store(&config);
    assert_eq!((found.text("prefix"), found.text("region"), found.path("ca_file")), (None, None, None));
    let prefix = config.listed.iter().find(|setting| setting.key == "prefix").unwrap();
    assert_eq!((prefix.value.is_null(), prefix.source.as_str()), (true, "--set prefix"));
    let flags = [("recordings_dir".to_owned(), String::new())];
    assert_eq!(Config::of(Path::new("/home"), &files, &BTreeMap::new(), &flags).problems.len(), 1, "it has a default");
}
