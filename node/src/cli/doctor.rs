//! What is wrong with a node, its store, its settings and its bus: asked of the node, and looked at where none answers.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use bubbaloop_storage_schemas::{MachineId, Verb, error::ErrorReply, params::Params, reply::ConfigProblem};
use bytesize::ByteSize;
use rustix::fs::Access;
use serde_json::{Value, json};

use super::{
    args::{Asked, Global},
    ask::{Asker, Unreached},
    output::{Exit, failed, result},
    screen::{Screen, plain},
    show::text,
};
use crate::{
    bus::client::{Client, JsonReply as Told},
    config::{Config, ZenohSettings},
    serve::{self, Faults},
};

/// A clock that differs more is corrected when requests are signed.
const CLOCK_OFFSET_MS_MAX: u64 = 5 * 60 * 1000;

/// Less free than this is told.
const DISK_FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;

/// A disk that is full sooner is told.
const DISK_FULL_S_MIN: u64 = 24 * 3600;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    name: &'static str,
    level: Level,
    found: String,
    remedy: String,
}

fn check(name: &'static str, level: Level, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, level, found: found.into(), remedy: remedy.into() }
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    check(name, Level::Ok, found, "")
}

/// A thing that is so or not; where it is not, that is told with what to do.
fn so(name: &'static str, is_so: bool, found: &str, otherwise: (Level, &str, &str)) -> Check {
    let (level, other, remedy) = otherwise;
    if is_so { ok(name, found) } else { check(name, level, other, remedy) }
}

/// Whether the router of the settings can be dialled and leads to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Router {
    /// None is configured, or the node is another machine's.
    NotMeant,
    /// Nothing answers where it should be.
    Absent,
    /// It answers, and the node is not reached through it.
    Apart,
    /// The node answers through it.
    Leads,
}

/// What was seen of a node.
#[derive(Debug)]
struct Seen {
    /// Its answer to `status`; `None` without one.
    status: Option<Result<Value, Box<ErrorReply>>>,
    /// Its answer to `config`.
    config: Option<Value>,
    /// Verbs to which it gave no answer.
    silent: Vec<Verb>,
    /// Its liveliness token was seen.
    is_alive: bool,
    router: Router,
    /// Why nobody was asked at all.
    unreached: Option<Unreached>,
}

/// What was seen of the home, whether a node runs in it or not.
#[derive(Debug)]
struct Home {
    /// Why nothing can be written there; `None` where it can.
    unwritable: Option<String>,
    /// The mode of `secrets.toml`; `None` without one.
    secrets_mode: Option<u32>,
    faults: Faults,
}

/// Looks at everything and tells it.
pub(super) async fn run(home: &Path, global: &Global) -> Exit {
    if global.machine == Some(Asked::All) || global.offline {
        failed("doctor looks at one node", Some("name it with --machine, or leave that out for the node of this home"));
        return Exit::Usage;
    }
    let is_own = global.machine.is_none();
    let seen = look(home, global).await;
    let at_home = if is_own { Some(look_home(home, global).await) } else { None };
    let found = checks(&seen, at_home.as_ref());
    let has_failed = found.iter().any(|check| check.level == Level::Fail);
    let machine =
        seen.status.as_ref().and_then(|status| status.as_ref().ok()).map(|status| status["machine_id"].clone());
    match global.json {
        true => result(format_args!("{:#}", as_json(&machine.unwrap_or_default(), &found))),
        false => result(format_args!("{}", as_text(Screen::of_stdout(), &found))),
    }
    if has_failed { Exit::Failed } else { Exit::Done }
}

async fn look(home: &Path, global: &Global) -> Seen {
    let mut seen = Seen {
        status: None,
        config: None,
        silent: Vec::new(),
        is_alive: false,
        router: Router::NotMeant,
        unreached: None,
    };
    let asker = match Asker::connect(home, global).await {
        Ok(asker) => asker,
        Err(unreached) => return Seen { unreached: Some(unreached), ..seen },
    };
    let none = Params::default();
    seen.status = first(&asker, Verb::Status).await;
    if seen.status.is_none() {
        return seen;
    }
    for verb in [Verb::Config, Verb::Help] {
        match (first(&asker, verb).await, verb) {
            (Some(Ok(config)), Verb::Config) => seen.config = Some(config),
            (Some(_), _) => {}
            (None, verb) => seen.silent.push(verb),
        }
    }
    let machine = asker.machine.as_ref().map(MachineId::as_str).unwrap_or_default();
    seen.is_alive = asker.client.alive(global.timeout).await.is_ok_and(|alive| alive.contains(machine));
    let zenoh = Config::load(home, &global.set).settings.zenoh;
    if global.machine.is_none() && !zenoh.connect.is_empty() {
        seen.router = look_router(&asker, &zenoh, &none).await;
    }
    seen
}

async fn first(asker: &Asker, verb: Verb) -> Option<Told> {
    asker.ask(verb, &Params::default(), Duration::ZERO).await.ok()?.into_iter().next()
}

async fn look_router(asker: &Asker, zenoh: &ZenohSettings, none: &Params) -> Router {
    let Ok(client) = Client::connect(zenoh, &zenoh.connect).await else { return Router::Absent };
    match client.ask_untyped(asker.machine.as_ref(), Verb::Status, none, asker.timeout).await {
        Ok(told) if !told.is_empty() => Router::Leads,
        Ok(_) | Err(_) => Router::Apart,
    }
}

async fn look_home(home: &Path, global: &Global) -> Home {
    let unwritable = match fs::metadata(home) {
        Err(error) => Some(error.to_string()),
        Ok(_) => rustix::fs::access(home, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .err()
            .map(|error| std::io::Error::from(error).to_string()),
    };
    let mode = fs::metadata(home.join("secrets.toml")).ok().map(|metadata| metadata.permissions().mode() & 0o777);
    let config = Config::load(home, &global.set);
    Home { unwritable, secrets_mode: mode, faults: serve::faults(home, &config).await }
}

/// Judges what was seen.
fn checks(seen: &Seen, home: Option<&Home>) -> Vec<Check> {
    let mut found = Vec::new();
    match (&seen.status, &seen.unreached) {
        (Some(Ok(status)), _) => {
            let version = text(status, "version");
            found.push(ok("node", format!("{} answers, version {}", named(status, "machine_id"), plain(version))));
            if version != env!("CARGO_PKG_VERSION") {
                let mine = format!("this command is version {}", env!("CARGO_PKG_VERSION"));
                found.push(check("version", Level::Warn, mine, "use command and node of one version"));
            }
            found.extend(of_bus(seen));
            if let Some(home) = home {
                found.extend(of_home(home));
            }
            found.extend(of_settings(status, seen.config.as_ref(), home));
            found.extend(of_library(status));
            found.extend(of_uploads(status));
            found.extend(of_store(&status["store"]));
        }
        (Some(Err(refusal)), _) => {
            let remedy = refusal.refusal.hint.clone().unwrap_or_default();
            found.push(check(
                "node",
                Level::Fail,
                format!("it refuses to answer: {}", refusal.refusal.message),
                remedy,
            ));
        }
        (None, Some(unreached)) => found.push(check("node", Level::Fail, &*unreached.message, unreached.hint)),
        (None, None) => {
            let remedy = "is it running and on this bus? an access rule that denies looks the same";
            found.push(check("node", Level::Fail, "no answer", remedy));
        }
    }
    if let (Some(home), false) = (home, matches!(seen.status, Some(Ok(_)))) {
        found.extend(of_home(home));
        found.extend(problems(&home.faults.problems, Level::Fail));
        found.extend(problems(&home.faults.warnings, Level::Warn));
        if home.faults.problems.is_empty() {
            found.push(ok("settings", "nothing is wrong with them"));
        }
    }
    found
}

fn named(value: &Value, name: &str) -> String {
    plain(value[name].as_str().unwrap_or("-"))
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_default()
}

fn of_bus(seen: &Seen) -> Vec<Check> {
    let mut found = vec![so(
        "liveliness",
        seen.is_alive,
        "its token is seen",
        (
            Level::Warn,
            "its token is not seen",
            "allow liveliness_token on its keys: the fleet can't tell when it is away",
        ),
    )];
    for verb in &seen.silent {
        let remedy = "an access rule may deny it: allow the role viewer this key";
        found.push(check("access", Level::Warn, format!("no answer to {verb}"), remedy));
    }
    let setting = |key: &str| {
        let settings = seen.config.iter().flat_map(|config| config["settings"].as_array().into_iter().flatten());
        settings.clone().find(|setting| setting["key"] == key).cloned().unwrap_or_default()
    };
    let is_client = setting("zenoh.mode")["value"] == "client";
    let is_asked_for = is_client || text(&setting("zenoh.connect"), "source") != "default";
    found.extend(match seen.router {
        Router::NotMeant => None,
        Router::Leads => Some(ok("router", "the node is reached through it")),
        Router::Absent if is_asked_for => {
            let remedy = "start the router, or set zenoh.connect to where it is";
            Some(check("router", Level::Warn, "nothing answers at zenoh.connect", remedy))
        }
        Router::Absent => Some(ok("router", "there is none: this machine's clients dial the node")),
        Router::Apart => {
            let remedy = "beside a Bubbaloop router set zenoh.mode=client: peers do not meet through it";
            Some(check("router", Level::Fail, "it answers, and the node is not reached through it", remedy))
        }
    });
    found
}

fn of_home(home: &Home) -> Vec<Check> {
    let writable = match &home.unwritable {
        None => ok("home", "it can be written"),
        Some(reason) => {
            let remedy = "make it, and give it to the user that runs the node";
            check("home", Level::Fail, format!("it can't be used: {reason}"), remedy)
        }
    };
    let secrets = match home.secrets_mode {
        None => ok("secrets", "there is no secrets.toml"),
        Some(mode) if mode & 0o077 == 0 => ok("secrets", "nobody else can read secrets.toml"),
        Some(mode) => {
            check("secrets", Level::Fail, format!("others can read secrets.toml (mode {mode:o})"), "chmod 600 it")
        }
    };
    vec![writable, secrets]
}

fn problems(problems: &[ConfigProblem], level: Level) -> Vec<Check> {
    let told = |ConfigProblem { key, source, message, hint }: &ConfigProblem| {
        check("settings", level, plain(&format!("{key} ({source}): {message}")), plain(hint))
    };
    problems.iter().map(told).collect()
}

/// The problems that the node tells; what the home's settings are only warned of is no failure.
fn of_settings(status: &Value, config: Option<&Value>, home: Option<&Home>) -> Vec<Check> {
    let told: Vec<ConfigProblem> = serde_json::from_value(status["config_problems"].clone()).unwrap_or_default();
    let warnings = home.map(|home| home.faults.warnings.as_slice()).unwrap_or_default();
    let is_warning = |problem: &ConfigProblem| {
        warnings.iter().any(|known| (&known.key, &known.message) == (&problem.key, &problem.message))
    };
    let (warned, wrong): (Vec<_>, Vec<_>) = told.into_iter().partition(is_warning);
    let mut found = problems(&wrong, Level::Fail);
    found.extend(problems(&warned, Level::Warn));
    if found.is_empty() {
        let set = config.and_then(|config| config["settings"].as_array()).into_iter().flatten();
        let set = set.filter(|setting| setting["source"] != "default").count();
        found.push(ok("settings", format!("{set} are set, nothing is wrong with them")));
    }
    found
}

fn is_library_away(status: &Value) -> bool {
    let reason = status["blocked"]["reason"].as_str();
    reason.is_some_and(|reason| ["recordings_unreadable", "recordings_changed"].contains(&reason))
}

fn of_library(status: &Value) -> Vec<Check> {
    let library = &status["library"];
    let mut found = Vec::new();
    if is_library_away(status) {
        found.push(check(
            "library",
            Level::Fail,
            "it is not there or can't be read",
            named(&status["blocked"], "hint"),
        ));
    } else if library["scanned"] != true {
        found.push(check("library", Level::Warn, "it is being read for the first time", "ask again in a while"));
    } else {
        let (recordings, chunks) = (number(library, "recordings"), number(library, "chunks"));
        let uploaded = number(library, "uploaded_chunks");
        found.push(ok("library", format!("{recordings} recordings, {uploaded} of {chunks} chunks uploaded")));
    }
    for twin in status["twins"].as_array().into_iter().flatten() {
        let twin = plain(twin.as_str().unwrap_or_default());
        let remedy = "give one of them another machine_id";
        found.push(check("twin", Level::Fail, format!("library {twin} goes by this machine's id too"), remedy));
    }
    found.push(so(
        "records",
        status["durable"] != false,
        "the node's own records get to the disk",
        (Level::Fail, "the node's own records don't get to the disk", "make room, or make the home writable"),
    ));
    if let Some(free) = status["disk_free_bytes"].as_u64() {
        let full_s = status["disk_full_in_s"].as_u64();
        let is_fine = free >= DISK_FREE_BYTES_MIN && full_s.is_none_or(|full_s| full_s >= DISK_FULL_S_MIN);
        let full = full_s.map(|full_s| format!(", full in {} h", full_s / 3600)).unwrap_or_default();
        let told = format!("{} free{full}", ByteSize::b(free));
        found.push(so("disk", is_fine, &told, (Level::Warn, &told, "make room for what is still to be recorded")));
    }
    found
}

fn of_uploads(status: &Value) -> Vec<Check> {
    let mut found = Vec::new();
    let blocked = &status["blocked"];
    if blocked.is_object() && !is_library_away(status) {
        let found_is = format!("blocked: {}", named(blocked, "reason"));
        found.push(check("uploads", Level::Fail, found_is, named(blocked, "hint")));
    } else if status["paused"].is_object() {
        found.push(check("uploads", Level::Warn, "a person stopped them", "`resume` lets them go on"));
    } else if status["failing"].is_object() {
        let remedy = "they are tried again by themselves; mend what the message names";
        found.push(check(
            "uploads",
            Level::Warn,
            format!("tries fail: {}", named(&status["failing"], "message")),
            remedy,
        ));
    } else {
        found.push(ok("uploads", format!("{} wait, nothing holds them back", number(&status["queue"], "waiting"))));
    }
    let letters = number(status, "dead_letters");
    let told = format!("{letters} uploads were given up");
    let remedy = "`dead-letters` tells the reasons; mend them, then `upload` tries again";
    found.push(so("dead letters", letters == 0, "none", (Level::Fail, &told, remedy)));
    let refused = number(&status["refused_events"], "total");
    if refused > 0 {
        let remedy = "`status` tells the reasons; look at the recorder";
        found.push(check("events", Level::Warn, format!("{refused} finalize events were refused"), remedy));
    }
    found
}

fn of_store(store: &Value) -> Vec<Check> {
    if store["backend"].is_null() {
        let remedy = "set backend: until then nothing is uploaded and nothing is safe";
        return vec![check("store", Level::Fail, "none is in use", remedy)];
    }
    let mut found = vec![ok("store", format!("{} {}", named(store, "backend"), named(store, "store_id")))];
    found.push(match store["same_disk"].as_bool() {
        Some(false) => ok("other disk", "it is not the library's disk"),
        Some(true) => {
            check("other disk", Level::Warn, "it is the library's own disk", "nothing in it is safe: use another disk")
        }
        None => check("other disk", Level::Warn, "it is not known which disk it is on", "mount or make its folder"),
    });
    let probe = &store["probe"];
    if probe.is_null() {
        found.push(check("probe", Level::Warn, "the store was not looked at yet", "see uploads"));
        return found;
    }
    let is = |name: &str| probe[name] == true;
    let proof = match (is("etag_is_md5"), probe["rights"]["get"] == true) {
        (true, _) => "it does not check SHA-256; its MD5 proves uploads",
        (false, true) => "it does not check SHA-256; uploads are read back",
        (false, false) => "it does not check SHA-256 and gives no other proof",
    };
    let (level, remedy) = match is("etag_is_md5") || probe["rights"]["get"] == true {
        true => (Level::Warn, "nothing need be done; a store that checks costs less"),
        false => (Level::Fail, "allow the key to read, or use another store: nothing can be proven"),
    };
    found.push(so("checksum", is("enforces_sha256"), "it refuses wrong bytes", (level, proof, remedy)));
    let remedy = "nothing need be done for one node; two under one prefix could overwrite each other";
    let other = (Level::Warn, "it overwrites even when told to create only", remedy);
    found.push(so("create-only", is("honours_create_only"), "it refuses to overwrite", other));
    let other = (Level::Warn, "it does not know If-Match", remedy);
    found.push(so("If-Match", is("honours_if_match"), "it replaces only the version that is meant", other));
    found.extend(of_rights(&probe["rights"]));
    found.push(match probe["clock_offset_ms"].as_i64() {
        None => ok("clock", "the store tells no time"),
        Some(offset) => {
            let told = format!("the store's is {offset} ms from ours");
            let is_fine = offset.unsigned_abs() <= CLOCK_OFFSET_MS_MAX;
            so("clock", is_fine, &told, (Level::Warn, &told, "set this machine's clock, as with NTP"))
        }
    });
    found
}

fn of_rights(rights: &Value) -> Vec<Check> {
    let wanted = [
        ("put", Level::Fail, "store objects", "grant s3:PutObject"),
        ("get", Level::Warn, "read objects", "grant s3:GetObject: manifests are then kept up to date"),
        ("head", Level::Warn, "look at objects", "grant s3:GetObject: marks can then be checked"),
        ("list", Level::Warn, "list objects", "grant s3:ListBucket: what vanished is then noticed"),
        ("delete", Level::Warn, "remove its own probe", "nothing need be done: one small object stays"),
    ];
    let missing = wanted.iter().filter(|(right, ..)| rights[right] != true);
    let missing: Vec<_> = missing
        .map(|(_, level, what, remedy)| check("rights", *level, format!("the key may not {what}"), *remedy))
        .collect();
    if missing.is_empty() { vec![ok("rights", "put, get, head, list, delete")] } else { missing }
}

fn as_json(machine: &Value, found: &[Check]) -> Value {
    let row = |check: &Check| json!({"check": check.name, "level": check.level.name(), "found": check.found, "remedy": (!check.remedy.is_empty()).then_some(&check.remedy)});
    let is_ok = found.iter().all(|check| check.level != Level::Fail);
    json!({"machine_id": machine, "ok": is_ok, "checks": found.iter().map(row).collect::<Vec<_>>()})
}

fn as_text(screen: Screen, found: &[Check]) -> String {
    let line = |Check { name, level, found, remedy }: &Check| {
        let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
        screen.indented(&format!("{:<5} {name:<13} {found}{remedy}", level.name()), 6)
    };
    found.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{super::screen::tests::*, *};

    fn sound() -> Value {
        json!({
            "machine_id": "m", "version": env!("CARGO_PKG_VERSION"), "durable": true, "dead_letters": 0, "twins": [],
            "blocked": null, "paused": null, "failing": null, "config_problems": [], "queue": {"waiting": 2},
            "refused_events": {"total": 0}, "disk_free_bytes": 50_000_000_000_u64, "disk_full_in_s": null,
            "library": {"scanned": true, "recordings": 1, "chunks": 3, "uploaded_chunks": 1},
            "store": {"backend": "s3", "store_id": "s", "same_disk": false, "probe": {
                "enforces_sha256": true, "etag_is_md5": false, "honours_create_only": true, "honours_if_match": true,
                "clock_offset_ms": -300, "rights": {"put": true, "get": true, "head": true, "list": true, "delete": true},
            }},
        })
    }

    fn seen(status: Value) -> Seen {
        let config = json!({"settings": [{"key": "zenoh.mode", "value": "peer", "source": "default"}, {"key": "zenoh.connect", "source": "default"}]});
        let router = Router::Absent;
        Seen { status: Some(Ok(status)), config: Some(config), silent: vec![], is_alive: true, router, unreached: None }
    }

    /// What of a changed status is no `ok`.
    fn told(pointer: &str, value: Value) -> Vec<(&'static str, Level)> {
        let mut status = sound();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        status.pointer_mut(parent).unwrap()[name] = value;
        let found = checks(&seen(status), None);
        assert!(found.iter().all(|check| (check.level == Level::Ok) == check.remedy.is_empty()), "{found:#?}");
        found.iter().filter(|check| check.level != Level::Ok).map(|check| (check.name, check.level)).collect()
    }

    #[test]
    fn each_fact_is_told_with_what_to_do() {
        use Level::{Fail, Warn};
        assert_eq!(told("/blocked", Value::Null), []);
        let problem = json!([{"key": "bucket", "source": "f", "message": "wrong", "hint": "mend it"}]);
        for (pointer, value, expected) in [
            ("/version", json!("9.9.9"), ("version", Warn)),
            ("/config_problems", problem, ("settings", Fail)),
            ("/blocked", json!({"reason": "recordings_unreadable", "hint": "mount it"}), ("library", Fail)),
            ("/blocked", json!({"reason": "no_such_bucket", "hint": "make it"}), ("uploads", Fail)),
            ("/paused", json!({"since_ns": 1}), ("uploads", Warn)),
            ("/failing", json!({"message": "no answer"}), ("uploads", Warn)),
            ("/library/scanned", json!(false), ("library", Warn)),
            ("/twins", json!(["x"]), ("twin", Fail)),
            ("/durable", json!(false), ("records", Fail)),
            ("/disk_free_bytes", json!(1000), ("disk", Warn)),
            ("/disk_full_in_s", json!(3600), ("disk", Warn)),
            ("/dead_letters", json!(2), ("dead letters", Fail)),
            ("/refused_events/total", json!(1), ("events", Warn)),
            ("/store/backend", Value::Null, ("store", Fail)),
            ("/store/same_disk", json!(true), ("other disk", Warn)),
            ("/store/same_disk", Value::Null, ("other disk", Warn)),
            ("/store/probe", Value::Null, ("probe", Warn)),
            ("/store/probe/enforces_sha256", json!(false), ("checksum", Warn)),
            ("/store/probe/honours_create_only", json!(false), ("create-only", Warn)),
            ("/store/probe/honours_if_match", json!(false), ("If-Match", Warn)),
            ("/store/probe/clock_offset_ms", json!(-600_000), ("clock", Warn)),
            ("/store/probe/rights/put", json!(false), ("rights", Fail)),
            ("/store/probe/rights/list", json!(false), ("rights", Warn)),
        ] {
            assert_eq!(told(pointer, value), [expected], "{pointer}");
        }
    }

    #[test]
    fn a_store_that_gives_no_proof_fails() {
        let rights = json!({"put": true, "get": false, "head": true, "list": true, "delete": true});
        let mut status = sound();
        status["store"]["probe"]["enforces_sha256"] = json!(false);
        status["store"]["probe"]["rights"] = rights;
        let found = checks(&seen(status), None);
        assert!(found.iter().any(|check| (check.name, check.level) == ("checksum", Level::Fail)), "{found:#?}");
    }

    #[test]
    fn the_bus_is_judged_by_what_was_asked_for() {
        let level = |seen: &Seen, name: &str| checks(seen, None).iter().find(|check| check.name == name).unwrap().level;
        let mut node = seen(sound());
        assert_eq!(level(&node, "router"), Level::Ok, "nobody asked for a router");
        node.config.as_mut().unwrap()["settings"][1]["source"] = json!("config.toml");
        assert_eq!(level(&node, "router"), Level::Warn);
        node.router = Router::Apart;
        assert_eq!(level(&node, "router"), Level::Fail);
        (node.is_alive, node.silent) = (false, vec![Verb::Config]);
        assert_eq!((level(&node, "liveliness"), level(&node, "access")), (Level::Warn, Level::Warn));
    }

    #[test]
    fn without_a_node_the_home_is_looked_at() {
        let unreached = Unreached { message: "nothing answers".into(), hint: "start it" };
        let away = Seen { status: None, unreached: Some(unreached), ..seen(Value::Null) };
        let mut home = Home { unwritable: None, secrets_mode: Some(0o600), faults: Faults::default() };
        let fails = |home: &Home| -> Vec<&str> {
            let found = checks(&away, Some(home));
            found.iter().filter(|check| check.level == Level::Fail).map(|check| check.name).collect()
        };
        assert_eq!(fails(&home), ["node"]);
        (home.secrets_mode, home.unwritable) = (Some(0o644), Some("no".into()));
        assert_eq!(fails(&home), ["node", "home", "secrets"]);
        for columns in [Some(40), Some(80), None] {
            let found = checks(&away, Some(&home));
            fits(&as_text(screen(columns), &found), columns);
            assert_eq!(as_json(&Value::Null, &found)["ok"], false);
        }
    }
}
