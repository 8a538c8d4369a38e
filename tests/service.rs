//! The answers of the verbs on real files.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use bubbaloop_storage::{
    clock::Clock,
    config::{Config, CurrentSettings, Files},
    engine::{driver::Engine, jobs::Jobs},
    service::{AdminToken, Service, Setup},
};
use bubbaloop_storage_schemas::{
    ErrorCode, Verb,
    keys::Space,
    parameter::{Limit, Wait},
    params::Params,
    verbs::{info::InfoRequest, list::ListRequest, reconcile::ReconcileRequest},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    reconcile::{Fault, Watched},
    support::robot::{MovedClock, Robot, sync_once},
};

pub(crate) fn service(robot: &Robot, engine: &Arc<Engine>) -> Service {
    service_with(robot, engine, None)
}

/// Returns the service with this folder as the store, or with no folder.
pub(crate) fn service_with(robot: &Robot, engine: &Arc<Engine>, store_folder: Option<PathBuf>) -> Service {
    let clock: Arc<dyn Clock> = Arc::<MovedClock>::clone(&robot.clock);
    let jobs = Jobs::new(Arc::clone(engine), Arc::clone(&robot.facts), Arc::clone(&clock));
    let config = Config::of(robot.folder.path(), &Files::default(), &BTreeMap::new(), &[]);
    let (_, current) = watch::channel(CurrentSettings::from(&config));
    let setup = Setup {
        recordings: robot.folder.path().join("recordings"),
        backend: Some("local".into()),
        store_id: Some("s".into()),
        store_folder,
        commands_act: false,
        admin_token: AdminToken::default(),
        current,
        store_problems: Vec::new(),
    };
    Service::new(robot.identity(), Arc::clone(engine), jobs, Arc::clone(&robot.facts), clock, setup)
}

pub(crate) fn json_of(reply: impl Serialize) -> Value {
    serde_json::to_value(reply).unwrap()
}

fn info(recording: &str) -> InfoRequest {
    InfoRequest::new(recording.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_and_info_agree_on_what_is_uploaded() {
    let robot = Robot::new();
    let chunks = [robot.chunk(0), robot.chunk(1)];
    robot.manifest(&chunks);
    let engine = robot.started();
    let service = service(&robot, &engine);

    let early = service.list(&ListRequest::default()).unwrap_err();
    assert_eq!((early.code, early.retryable), (ErrorCode::Unavailable, true), "never a part as if it were all");

    engine.scan().unwrap();
    let row = &json_of(service.list(&ListRequest::default()).unwrap())["recordings"][0];
    assert_eq!(
        (&row["recording"], &row["state"], &row["upload"]),
        (&json!("drive"), &json!("recording"), &json!("none"))
    );

    engine.drain().await;
    let list = json_of(service.list(&ListRequest::default()).unwrap());
    assert_eq!(
        (&list["machine_id"], &list["verb"], &list["next_after"]),
        (&json!("robot_1"), &json!("list"), &json!(null))
    );
    let row = &list["recordings"][0];
    assert_eq!(
        (&row["upload"], &row["chunks"], &row["uploaded_bytes"]),
        (&json!("complete"), &json!(2), &json!(600_000))
    );

    let info = json_of(service.info(&info("drive")).unwrap());
    assert_eq!(info["upload"], row["upload"]);
    assert_eq!(info["schema_version"], 1, "the manifest's other fields are told");
    for (told, chunk) in info["chunks"].as_array().unwrap().iter().zip(&chunks) {
        assert_eq!(told["sha256"], chunk["sha256"]);
        assert_eq!(
            (&told["upload"], &told["proof"], &told["local"]),
            (&json!("uploaded"), &json!("enforced"), &json!("present"))
        );
        assert!(told["uploaded_at_ns"].is_u64() && told["uploaded_at"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_hand_back_their_last_row_until_nothing_is_left() {
    let robot = Robot::new();
    let chunks: Vec<_> = (0..5).map(|index| robot.chunk(index)).collect();
    robot.manifest(&chunks);
    let engine = robot.started();
    sync_once(&engine).await;
    let service = service(&robot, &engine);
    let (mut found, mut request) = (Vec::new(), InfoRequest { limit: Limit::new(2), ..info("drive") });
    loop {
        let page = json_of(service.info(&request).unwrap());
        found.extend(page["chunks"].as_array().unwrap().iter().map(|chunk| chunk["index"].as_u64().unwrap()));
        match &page["next_after"] {
            Value::Null => break,
            after => request.after = Some(after.as_str().unwrap().parse().unwrap()),
        }
    }
    assert_eq!(found, [0, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_manifest_is_reported_with_its_reason_and_its_chunks_are_uploaded() {
    let robot = Robot::new();
    let chunk = robot.chunk(0);
    fs::write(robot.recording().join("manifest.json"), r#"{"schema_version": 2}"#).unwrap();
    let engine = robot.started();
    sync_once(&engine).await;
    sync_once(&engine).await;
    let row = &json_of(service(&robot, &engine).list(&ListRequest::default()).unwrap())["recordings"][0];
    assert_eq!((&row["state"], &row["upload"]), (&json!("invalid"), &json!("complete")));
    assert!(row["reason"].as_str().unwrap().contains("schema_version"), "{row}");
    assert!(robot.is_stored(&chunk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_requests_are_answered_with_the_correct_form() {
    let robot = Robot::new();
    let engine = robot.started();
    sync_once(&engine).await;
    let service = service(&robot, &engine);
    let info = |recording: &str| Params::default().with("recording", recording);
    for (verb, params, code, hint) in [
        (Verb::Info, Params::default(), ErrorCode::InvalidParams, "list tells the names"),
        (Verb::Info, info("driv"), ErrorCode::NotFound, "did you mean drive?"),
        (Verb::Info, info("../../x"), ErrorCode::InvalidParams, "list tells"),
        (Verb::Info, info("drive").with("after", "7"), ErrorCode::InvalidParams, "hand back next_after"),
        (Verb::Info, info("drive").with("limt", 1), ErrorCode::InvalidParams, "did you mean limit?"),
        (Verb::List, Params::default().with("state", "endet"), ErrorCode::InvalidParams, "did you mean ended?"),
    ] {
        let refusal = service.ask(verb, Space::Global, &params).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.hint.as_deref().unwrap_or_default().contains(hint), "{refusal:?}");
    }
}

#[test]
fn help_names_the_key_of_every_verb_in_the_space_that_asked() {
    let robot = Robot::new();
    let help = json_of(service(&robot, &robot.started()).help(Space::Global));
    let keys: Vec<_> = help["verbs"].as_array().unwrap().iter().map(|verb| verb["key"].as_str().unwrap()).collect();
    assert!(keys.contains(&"bubbaloop/global/robot_1/storage/list"), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_panics_ends_and_reports_it() {
    let robot = Robot::new();
    robot.ended(&[robot.chunk(0)]);
    let store = Watched::of(&robot);
    let engine = robot.started_with(Arc::<Watched>::clone(&store), "s");
    engine.scan().unwrap();
    let service = service(&robot, &engine);
    store.fails(Some(Fault::Panics));
    let request = ReconcileRequest {
        recording: Some("drive".parse().unwrap()),
        dry_run: true,
        wait: Wait::new(Duration::from_secs(60)),
        ..ReconcileRequest::default()
    };
    let asked = || async { json!(service.reconcile(&request).unwrap().reply().await) };
    let job = asked().await;
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("E_INTERNAL")), "{job:#}");
    store.fails(None);
    assert_ne!(asked().await["job"], job["job"], "the next one is another job");
}
