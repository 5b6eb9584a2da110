//! A server that speaks raw HTTP/1.1 on a loopback port the system picks, and misbehaves exactly as told.
//!
//! Nothing is spawned: [`Scripted::beside`] drives the server and the client in one task.

use std::cell::RefCell;
use std::future::Future;

use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// What a client asked.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    head: String,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// The first byte asked for.
    pub(crate) fn from(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0)
    }
}

/// What to send, and whether to close or to fall silent then.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hang: bool,
}

/// A head of these lines and a body, then the connection is closed.
pub(crate) fn raw(status: &str, lines: &[&str], body: &[u8]) -> Reply {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for line in lines {
        head.push_str(line);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    Reply { bytes: [head.as_bytes(), body].concat(), hang: false }
}

/// A whole answer with its length.
pub(crate) fn reply(status: &str, lines: &[&str], body: &[u8]) -> Reply {
    let length = format!("Content-Length: {}", body.len());
    raw(status, &[lines, &[length.as_str()]].concat(), body)
}

pub(crate) fn not_found() -> Reply {
    reply("404 Not Found", &[], b"no")
}

/// `content`, or the part of it that was asked for.
pub(crate) fn file(request: &Request, content: &[u8]) -> Reply {
    let from = request.from();
    if from == 0 {
        return reply("200 OK", &[], content);
    }
    let range = format!("Content-Range: bytes {from}-{}/{}", content.len() - 1, content.len());
    reply("206 Partial Content", &[&range], content.get(from..).expect("tests ask within the file"))
}

impl Reply {
    /// Only the first bytes of what would be sent, head included.
    pub(crate) fn cut(mut self, less: usize) -> Self {
        self.bytes.truncate(self.bytes.len() - less);
        self
    }

    /// Does not close, but is silent.
    pub(crate) fn then_hang(mut self) -> Self {
        self.hang = true;
        self
    }
}

type Script = Box<dyn Fn(&Request) -> Reply>;

pub(crate) struct Scripted {
    listener: TcpListener,
    script: Script,
    asked: RefCell<Vec<Request>>,
}

impl Scripted {
    pub(crate) async fn new(script: impl Fn(&Request) -> Reply + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port can be had");
        Self { listener, script: Box::new(script), asked: RefCell::default() }
    }

    pub(crate) fn url(&self) -> Url {
        let address = self.listener.local_addr().expect("a bound listener has an address");
        Url::parse(&format!("http://{address}/")).expect("an address makes a URL")
    }

    /// The paths asked for so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked.borrow().iter().map(|request| request.path.clone()).collect()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Request {
        self.asked.borrow().last().cloned().expect("somebody asked")
    }

    /// Serves for as long as `client` runs.
    pub(crate) async fn beside<T>(&self, client: impl Future<Output = T>) -> T {
        tokio::select! {
            out = client => out,
            () = self.serve() => unreachable!("serving has no end"),
        }
    }

    async fn serve(&self) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (stream, _) = accepted.expect("a loopback listener accepts");
                    connections.push(self.converse(stream));
                }
                Some(()) = connections.next() => {}
            }
        }
    }

    /// One request and its answer; a client that goes away is no error here.
    async fn converse(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).expect("our client sends text");
        let path = head.split(' ').nth(1).expect("a request line has a path").to_owned();
        let request = Request { path, head };
        let reply = (self.script)(&request);
        self.asked.borrow_mut().push(request);
        if stream.write_all(&reply.bytes).await.is_err() {
            return;
        }
        if reply.hang {
            std::future::pending::<()>().await;
        }
        drop(stream.shutdown().await);
    }
}
