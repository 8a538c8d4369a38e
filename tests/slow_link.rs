//! A slow link that breaks: how many bytes it costs, and that everything is uploaded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bubbaloop_storage::{clock::Clock, store::s3::S3Store};

use crate::{
    s3_store::settings,
    support::{
        proxy::Proxy,
        robot::{MovedClock, Robot},
        servers::Server,
    },
};

/// 2 Mbit/s.
const BYTES_PER_S: u64 = 250_000;

/// How much faster time passes in the test.
const SPEED: u32 = 20;

/// Uploads chunks over a link of 2 Mbit/s that breaks every minute. Returns the bytes on the link per stored byte.
async fn cost(bucket: &str, sizes: &[usize]) -> f64 {
    let server = Server::seaweedfs().await;
    server.bucket(bucket).await;
    let proxy = Proxy::start(&server.endpoint).await;
    let mut robot = Robot::new();
    let look = Duration::from_millis(100);
    robot.tuning.settings.rescan_interval = look;
    let chunks: Vec<_> = (0..).zip(sizes).map(|(index, size)| robot.chunk_of(index, *size)).collect();
    robot.manifest(&chunks);
    robot.hurry(SPEED);
    let clock: Arc<dyn Clock> = Arc::<MovedClock>::clone(&robot.clock);
    let store = S3Store::open(&settings(&proxy.endpoint, bucket), clock).await.unwrap();
    let engine = robot.started_with(Arc::new(store), bucket);
    proxy.limit(BYTES_PER_S * u64::from(SPEED));
    let is_over = Arc::new(AtomicBool::new(false));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { engine.run(async { stopped.await.unwrap_or_default() }).await }
    });
    let before = proxy.sent();
    let cutting = async {
        let mut carried = before;
        while !is_over.load(Ordering::Relaxed) {
            // The cuts are by bytes, because time passes at another speed on a busy machine.
            if proxy.sent() - carried >= 60 * BYTES_PER_S {
                carried = proxy.sent();
                proxy.cut();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waiting = async {
        let pending =
            || engine.read(|recordings, _| recordings.values().map(|found| found.pending().count()).sum::<usize>());
        while pending() != 0 || !engine.is_scanned() {
            tokio::time::sleep(look).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let both = async { tokio::join!(cutting, waiting) };
    tokio::time::timeout(Duration::from_secs(300), both).await.expect("it gets there");
    stop.send(()).unwrap();
    running.await.unwrap();
    assert!(engine.dead_letters().is_empty());
    (proxy.sent() - before) as f64 / sizes.iter().sum::<usize>() as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_link_that_breaks_every_minute_carries_small_chunks_almost_once() {
    let cost = cost("slow-small", &[1 << 20; 50]).await;
    assert!(cost < 1.15, "{cost} bytes for each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_link_that_breaks_every_minute_carries_large_chunks_too() {
    let cost = cost("slow-large", &[9 << 20; 6]).await;
    assert!(cost < 1.5, "{cost} bytes for each");
}
