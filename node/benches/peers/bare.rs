//! The cost of the bytes alone: each file is read, hashed and sent by one PUT.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
    presigning::PresigningConfig,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bubbaloop_storage_schemas::Digest;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::{
    BUCKET,
    library::Made,
    support::servers::{KEY, SECRET, Server},
};

const BLOCK_BYTES: usize = 256 * 1024;

const VALID: Duration = Duration::from_secs(3600);

/// A request that is signed before the measurement.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Put {
    path: PathBuf,
    url: String,
    headers: Vec<(String, String)>,
    digest: Digest,
}

#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    at_once: usize,
    puts: Vec<Put>,
}

/// An SDK client. It is used only for signing.
pub(crate) fn signer(server: &Server) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(&server.endpoint)
        .force_path_style(true)
        .credentials_provider(Credentials::new(KEY, SECRET, None, None, "bench"))
        .build();
    Client::from_conf(config)
}

/// Signs the put of a file. The server checks its digest.
pub(crate) async fn put_of(signer: &Client, made: &Made, prefix: &str) -> Put {
    let digest = made.digest();
    let name = made.path.file_name().unwrap().to_str().unwrap();
    let put = signer.put_object().bucket(BUCKET).key(format!("{prefix}{name}"));
    let put = put.checksum_sha256(STANDARD.encode(digest.as_bytes()));
    let signed = put.presigned(PresigningConfig::expires_in(VALID).unwrap()).await.unwrap();
    let headers = signed.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Put { path: made.path.clone(), url: signed.uri().to_owned(), headers, digest }
}

/// Returns the command that sends files in its own process.
pub(crate) async fn command(server: &Server, chunks: impl Iterator<Item = &Made>, at_once: usize) -> Command {
    let signer = signer(server);
    let mut puts = Vec::new();
    for made in chunks {
        puts.push(put_of(&signer, made, "bare/").await);
    }
    let spec = server.folder.path().join("bare.json");
    fs::write(&spec, serde_json::to_vec(&Spec { at_once, puts }).unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("bare").arg("--spec").arg(spec);
    command
}

/// Sends the requests in a file.
pub(crate) async fn run(spec: &Path) {
    let Spec { at_once, puts } = serde_json::from_slice(&fs::read(spec).unwrap()).unwrap();
    let sender = Arc::new(Sender::new());
    let gate = Arc::new(Semaphore::new(at_once));
    let mut tasks = Vec::new();
    for put in puts {
        let permit = Arc::clone(&gate).acquire_owned().await.unwrap();
        let sender = Arc::clone(&sender);
        tasks.push(tokio::spawn(async move {
            sender.send(&put).await;
            drop(permit);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Sends with the least overhead between file and socket.
pub(crate) struct Sender(HttpClient<HttpConnector, FileBody>);

impl Sender {
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(HttpClient::builder(TokioExecutor::new()).build(connector))
    }

    pub(crate) async fn send(&self, put: &Put) {
        let mut request = http::Request::put(&put.url);
        for (name, value) in &put.headers {
            request = request.header(name, value);
        }
        let answer = self.0.request(request.body(FileBody::open(put)).unwrap()).await.unwrap();
        assert!(answer.status().is_success(), "{}: {}", put.path.display(), answer.status());
        let mut body = answer.into_body();
        while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            frame.unwrap();
        }
    }
}

/// Blocks are reused, so that the system need not clear new memory.
static SPARE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

struct Block {
    memory: Box<[u8]>,
    length: usize,
}

impl Block {
    fn take() -> Self {
        let memory = SPARE.lock().unwrap().pop().unwrap_or_else(|| vec![0; BLOCK_BYTES].into());
        Self { memory, length: 0 }
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        SPARE.lock().unwrap().push(std::mem::take(&mut self.memory));
    }
}

/// A file that is hashed as it is sent.
pub(crate) struct FileBody {
    file: File,
    left: u64,
    hasher: Sha256,
    wanted: Digest,
}

impl FileBody {
    fn open(put: &Put) -> Self {
        let file = File::open(&put.path).unwrap();
        let left = file.metadata().unwrap().len();
        Self { file, left, hasher: Sha256::new(), wanted: put.digest }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut block = Block::take();
        block.length = self.file.read(&mut block.memory)?;
        self.left -= block.length as u64;
        self.hasher.update(&block);
        if self.left == 0 {
            let found: [u8; 32] = self.hasher.finalize_reset().into();
            assert_eq!(Digest::from_bytes(found), self.wanted, "the file is another");
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(block)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
