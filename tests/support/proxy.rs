//! A TCP proxy that can be slow, break connections, or stop.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex as AsyncMutex, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// Largest number of bytes that are forwarded at once.
const PIECE: usize = 16 * 1024;

#[derive(Debug)]
struct Link {
    /// Bytes per second from client to server; zero is no limit.
    rate: AtomicU64,
    /// When the next bytes may be sent. All connections share the rate.
    free_at: AsyncMutex<Instant>,
    /// Bytes that went from client to server.
    sent: AtomicU64,
    /// New connections are refused.
    is_down: AtomicBool,
    /// No bytes move; connections stay open.
    is_still: AtomicBool,
    /// Each change cuts all connections.
    cuts: watch::Sender<u64>,
    /// New connections are cut after this many bytes from the client.
    cut_after: Mutex<Option<u64>>,
    /// The server of new connections.
    server: Mutex<String>,
}

/// A proxy on loopback. It ends on drop.
pub(crate) struct Proxy {
    pub endpoint: String,
    link: Arc<Link>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn address(endpoint: &str) -> String {
    endpoint.strip_prefix("http://").unwrap().to_owned()
}

impl Proxy {
    /// Starts a proxy to a server.
    pub(crate) async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let link = Arc::new(Link {
            rate: AtomicU64::new(0),
            free_at: AsyncMutex::new(Instant::now()),
            sent: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            is_still: AtomicBool::new(false),
            cuts: watch::channel(0).0,
            cut_after: Mutex::default(),
            server: Mutex::new(address(server)),
        });
        let shared = Arc::clone(&link);
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                if shared.is_down.load(Ordering::Relaxed) {
                    continue;
                }
                let (link, server) = (Arc::clone(&shared), shared.server.lock().unwrap().clone());
                // Broken connections are part of the tests.
                serving.spawn(async move { link.serve(client, &server).await.ok() });
            }
        });
        Self { endpoint, link, task }
    }

    /// Sets the rate from client to server, in bytes per second. Zero is no limit.
    pub(crate) fn limit(&self, bytes_per_s: u64) {
        self.link.rate.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Returns how many bytes were sent from client to server.
    pub(crate) fn sent(&self) -> u64 {
        self.link.sent.load(Ordering::Relaxed)
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.link.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Cuts all connections. Refuses new ones if `is_down`.
    pub(crate) fn down(&self, is_down: bool) {
        self.link.is_down.store(is_down, Ordering::Relaxed);
        self.cut();
    }

    /// Cuts all connections. New ones go to another server.
    pub(crate) fn lead_to(&self, server: &str) {
        *self.link.server.lock().unwrap() = address(server);
        self.cut();
    }

    /// Stops or resumes the transfer of bytes; connections stay open.
    pub(crate) fn stand_still(&self, is_still: bool) {
        self.link.is_still.store(is_still, Ordering::Relaxed);
    }

    /// Cuts each new connection after this many bytes from the client. `None` ends that.
    pub(crate) fn cut_after(&self, bytes: Option<u64>) {
        *self.link.cut_after.lock().unwrap() = bytes;
    }
}

impl Link {
    async fn serve(&self, client: TcpStream, server: &str) -> io::Result<()> {
        let mut cuts = self.cuts.subscribe();
        let server = TcpStream::connect(server).await?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let left = *self.cut_after.lock().unwrap();
        tokio::select! {
            _ = cuts.changed() => Ok(()),
            ended = self.up(from_client, to_server, left) => ended,
            ended = self.down_to(from_server, to_client) => ended,
        }
    }

    async fn up(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut left: Option<u64>) -> io::Result<()> {
        let mut block = vec![0; PIECE];
        loop {
            let read = from.read(&mut block).await?;
            if read == 0 {
                return to.shutdown().await;
            }
            self.wait(read).await;
            let read = left.map_or(read, |left| read.min(usize::try_from(left).unwrap()));
            to.write_all(&block[..read]).await?;
            self.sent.fetch_add(read as u64, Ordering::Relaxed);
            if let Some(left) = &mut left {
                *left -= read as u64;
                if *left == 0 {
                    return Ok(());
                }
            }
        }
    }

    async fn down_to(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut block = vec![0; PIECE];
        loop {
            let read = from.read(&mut block).await?;
            self.wait_while_still().await;
            if read == 0 {
                return Ok(());
            }
            to.write_all(&block[..read]).await?;
        }
    }

    async fn wait_while_still(&self) {
        while self.is_still.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn wait(&self, bytes: usize) {
        self.wait_while_still().await;
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return;
        }
        let until = {
            let mut free_at = self.free_at.lock().await;
            *free_at = (*free_at).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free_at
        };
        sleep_until(until).await;
    }
}
