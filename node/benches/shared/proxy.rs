//! A TCP proxy that counts bytes and sometimes breaks an exchange.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
};

const BUFFER_BYTES: usize = 64 * 1024;

/// What passed the proxy.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub bytes: AtomicU64,
    pub exchanges: AtomicU64,
    pub faults: AtomicU64,
}

/// How an exchange is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The connection is cut after this many bytes of the request.
    CutRequest(usize),
    /// The request is forwarded, its answer is not.
    CutAnswer,
}

/// A proxy on loopback.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub address: SocketAddr,
    pub counted: Arc<Counted>,
}

impl Proxy {
    /// Starts a proxy to `to` that breaks each exchange with this probability.
    pub(crate) async fn start(to: String, chance: f64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, counted) = (listener.local_addr().unwrap(), Arc::<Counted>::default());
        let counting = Arc::clone(&counted);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (to, counted) = (to.clone(), Arc::clone(&counting));
                tokio::spawn(async move {
                    // A missing server is a fault of its own.
                    if let Ok(server) = TcpStream::connect(to).await {
                        pass(client, server, &Exchange { chance, counted, ..Exchange::default() }).await;
                    }
                });
            }
        });
        Self { address, counted }
    }
}

/// State of the exchange on a connection.
#[derive(Debug, Default)]
struct Exchange {
    chance: f64,
    counted: Arc<Counted>,
    /// The server sent last: the next bytes of the client begin an exchange.
    is_answered: AtomicBool,
    cuts_answer: AtomicBool,
    cut: Notify,
}

impl Exchange {
    fn begin(&self) -> Option<Fault> {
        self.counted.exchanges.fetch_add(1, Ordering::Relaxed);
        if fastrand::f64() >= self.chance {
            return None;
        }
        self.counted.faults.fetch_add(1, Ordering::Relaxed);
        if fastrand::bool() {
            Some(Fault::CutAnswer)
        } else {
            Some(Fault::CutRequest(fastrand::usize(..4 * 1024 * 1024)))
        }
    }
}

async fn pass(client: TcpStream, server: TcpStream, exchange: &Exchange) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).ok();
    }
    exchange.is_answered.store(true, Ordering::Relaxed);
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Both ends are closed when one direction ends or is cut.
    tokio::select! {
        () = requests(from_client, to_server, exchange) => {}
        () = answers(from_server, to_client, exchange) => {}
        () = exchange.cut.notified() => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, exchange: &Exchange) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut left = None;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if exchange.is_answered.swap(false, Ordering::Relaxed) {
            let fault = exchange.begin();
            exchange.cuts_answer.store(fault == Some(Fault::CutAnswer), Ordering::Relaxed);
            left = if let Some(Fault::CutRequest(bytes)) = fault { Some(bytes) } else { None };
        }
        exchange.counted.bytes.fetch_add(read as u64, Ordering::Relaxed);
        let passed = left.map_or(read, |left| read.min(left));
        if to.write_all(&buffer[..passed]).await.is_err() || passed < read {
            return;
        }
        left = left.map(|left| left - passed);
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, exchange: &Exchange) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if exchange.cuts_answer.load(Ordering::Relaxed) {
            return exchange.cut.notify_one();
        }
        exchange.is_answered.store(true, Ordering::Relaxed);
        exchange.counted.bytes.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
