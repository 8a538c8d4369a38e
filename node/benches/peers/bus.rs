//! Requests over the bus, and Zenoh queries with an empty answer.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::Instant,
};

use serde_json::json;
use zenoh::{
    Config, Session,
    query::{ConsolidationMode, QueryTarget},
};

const EMPTY: &str = "bench/empty";

async fn open(settings: &serde_json::Value) -> Session {
    zenoh::open(Config::from_json5(&settings.to_string()).unwrap()).await.unwrap()
}

/// Connects to the bus as a client of one endpoint.
pub(crate) async fn client_of(endpoint: &str) -> Session {
    let multicast = json!({"multicast": {"enabled": false}});
    open(&json!({"mode": "client", "connect": {"endpoints": [endpoint]}, "scouting": multicast})).await
}

/// Answers until its standard input ends.
pub(crate) async fn echo() {
    let multicast = json!({"multicast": {"enabled": false}});
    let listen = json!({"endpoints": ["tcp/127.0.0.1:0"]});
    let session = open(&json!({"mode": "peer", "listen": listen, "scouting": multicast})).await;
    let answer = |query: zenoh::query::Query| {
        tokio::spawn(async move { query.reply(EMPTY, "").await.unwrap() });
    };
    let _answering = session.declare_queryable(EMPTY).complete(false).callback(answer).await.unwrap();
    println!("{}", session.info().locators().await[0]);
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await;
    ended.unwrap().unwrap();
}

/// A process that sends empty answers. It is killed on drop.
pub(crate) struct Echo {
    child: Child,
    endpoint: String,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

impl Echo {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg("echo").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        Self { child, endpoint: endpoint.trim().to_owned() }
    }
}

async fn ask(session: &Session, selector: &str) -> usize {
    let get = session.get(selector).target(QueryTarget::All).consolidation(ConsolidationMode::None);
    let replies = get.await.unwrap();
    let mut bytes = 0;
    while let Ok(reply) = replies.recv_async().await {
        bytes += reply.result().unwrap().payload().len();
    }
    bytes
}

/// Asks in turns. Returns the milliseconds of each request.
pub(crate) async fn latencies<'a>(endpoint: &str, space: &str, samples: usize) -> Vec<(&'a str, Vec<f64>)> {
    let echo = Echo::start();
    let (node, empty) = (client_of(endpoint).await, client_of(&echo.endpoint).await);
    let questions = [
        ("empty Zenoh get", &empty, EMPTY.to_owned()),
        ("`help`", &node, format!("{space}/help")),
        ("`list`, a page of 100", &node, format!("{space}/list?limit=100")),
        ("`status`", &node, format!("{space}/status")),
    ];
    let mut rows: Vec<_> = questions.iter().map(|(name, ..)| (*name, Vec::new())).collect();
    for sample in 0..samples + samples / 10 {
        for ((_, session, selector), (_, values)) in questions.iter().zip(&mut rows) {
            let started = Instant::now();
            ask(session, selector).await;
            if sample >= samples / 10 {
                values.push(started.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    rows
}
