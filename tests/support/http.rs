//! A minimal HTTP/1.1 client and a server with scripted answers.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Sends one request on a new connection.
pub(crate) async fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let exchange = async {
        let mut stream = TcpStream::connect(host).await?;
        let mut head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let begin = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |place| place + 4);
        let body = answer.split_off(begin);
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok(Answer { status, body })
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What a scripted server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Reads the whole request and answers: status, further headers, body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Reads the head and this many bytes of the body, then closes the connection.
    Cut(usize),
    /// Reads the whole request and never answers.
    Silent,
    /// Reads only the head, and keeps the connection open.
    Stall,
    /// Reads the whole request, this many bytes per interval, and answers 200 with an ETag.
    Slow(usize, Duration),
}

/// A request's head.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// A server whose answers come from a function. It ends on drop.
pub(crate) struct Fake {
    pub endpoint: String,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(crate) async fn start(act: impl Fn(&Head) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (act, requests) = (Arc::new(act), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (act, counted) = (Arc::clone(&act), Arc::clone(&counted));
                // Clients that disconnect are part of the tests.
                serving.spawn(async move { serve(stream, &*act, &counted).await.ok() });
            }
        });
        Self { endpoint, requests, task }
    }

    /// Returns the number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn serve(stream: TcpStream, act: &(impl Fn(&Head) -> Act + ?Sized), counted: &AtomicUsize) -> io::Result<()> {
    let mut stream = BufStream::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        counted.fetch_add(1, Ordering::Relaxed);
        let head = Head { method, path, headers };
        let length: usize = head.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let act = act(&head);
        let read = match act {
            Act::Answer(..) | Act::Silent => length,
            Act::Cut(bytes) => bytes.min(length),
            Act::Stall | Act::Slow(..) => 0,
        };
        let mut body = vec![0; read];
        stream.read_exact(&mut body).await?;
        match act {
            Act::Answer(status, headers, body) => {
                let mut text = format!("HTTP/1.1 {status} It\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    text += &format!("{name}: {value}\r\n");
                }
                stream.write_all(text.as_bytes()).await?;
                stream.write_all(b"\r\n").await?;
                if head.method != "HEAD" {
                    stream.write_all(body.as_bytes()).await?;
                }
                stream.flush().await?;
            }
            Act::Slow(bytes, pause) => {
                let (mut left, mut block) = (length, vec![0; bytes]);
                while left > 0 {
                    tokio::time::sleep(pause).await;
                    let next = left.min(bytes);
                    stream.read_exact(&mut block[..next]).await?;
                    left -= next;
                }
                stream.write_all(b"HTTP/1.1 200 It\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n").await?;
                stream.flush().await?;
            }
            Act::Cut(_) => return Ok(()),
            Act::Silent | Act::Stall => std::future::pending().await,
        }
    }
}
