//! The control socket: HTTP/1.1 over a unix socket, with a deadline on everything the daemon may forget to do.

use crate::Around;
use crate::args::Globals;
use crate::exit::Failure;
use daemon::api::Refusal;
use daemon::config::{Config, Overrides};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// The daemon sends progress every few seconds, so that silence means it hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Single answers to changes (gc of a large store) come when all is done.
const CHANGE_WAIT: Duration = Duration::from_secs(600);
/// No single answer is larger: the longest is the list of what gc removed.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// No line of progress is longer: the longest is the plan of a world of packages.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// No refusal is longer, nor an answer that `peer doctor` asks for.
const SHORT_BYTES_MAX: usize = 1024 * 1024;
/// Where the daemon of the system listens, whoever asks.
const SYSTEM_SOCKET: &str = "/run/peer/control.sock";

/// The way to one daemon; every request is a connection of its own.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    /// The socket the user names; else the one the configuration names; else the first that is there of this user's and the system's.
    pub(crate) fn new(globals: &Globals, around: &Around) -> Self {
        let named = globals.control.clone();
        let socket = named.unwrap_or_else(|| {
            let configured =
                Config::load(&Overrides::default(), &around.surroundings).map(|(config, _)| config.control);
            let own = configured.unwrap_or_else(|_| daemon::config::default_control(&around.surroundings));
            let system = Path::new(SYSTEM_SOCKET);
            if !own.exists() && system.exists() { system.to_owned() } else { own }
        });
        Self { socket }
    }

    /// The daemon that listens at `socket`.
    pub(crate) fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks and takes one JSON object for an answer. `doing` reads after "cannot".
    pub(crate) async fn get<T: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<T, Failure> {
        let answer = self.send(doing, Method::GET, path, None, SILENCE_MAX).await?;
        answer.object().await
    }

    /// Asks for a change and takes one JSON object for an answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        doing: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let answer = self.send(doing, Method::POST, path, Some(json(body)?), CHANGE_WAIT).await?;
        answer.object().await
    }

    /// Takes something away and gets what is left.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<T, Failure> {
        let answer = self.send(doing, Method::DELETE, path, None, CHANGE_WAIT).await?;
        answer.object().await
    }

    /// Asks for long work; `hear` gets each line as it was sent and as it is meant.
    pub(crate) async fn lines<L: DeserializeOwned>(
        &self,
        doing: &str,
        path: &str,
        body: &impl Serialize,
        mut hear: impl FnMut(&str, L) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut answer = self.send(doing, Method::POST, path, Some(json(body)?), SILENCE_MAX).await?;
        let mut pending = Vec::new();
        while let Some(bytes) = answer.chunk().await? {
            for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                pending.extend_from_slice(piece);
                if pending.len() > LINE_BYTES_MAX {
                    return Err(answer.garbled("a line without an end"));
                }
                if pending.ends_with(b"\n") {
                    hear_line(&answer, &pending, &mut hear)?;
                    pending.clear();
                }
            }
        }
        if pending.is_empty() { Ok(()) } else { Err(answer.broken_off("the daemon broke off within a line")) }
    }

    /// Asks for bytes; `take` gets them in order.
    pub(crate) async fn bytes(
        &self,
        doing: &str,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut answer = self.send(doing, Method::GET, path, None, SILENCE_MAX).await?;
        while let Some(bytes) = answer.chunk().await? {
            take(&bytes)?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        timeout(CONNECT_WAIT, UnixStream::connect(&self.socket))
            .await
            .unwrap_or_else(|_| Err(late()))
            .map_err(|source| Failure::Unreachable { socket: self.socket.clone(), source })
    }

    async fn send(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "peer");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| Failure::local(format!("cannot {doing}"), error))?;
        exchange(self.connect().await?, request, doing, patience).await
    }
}

/// What one HTTP GET on a TCP address answers; for `peer doctor`.
pub(crate) async fn get_over_tcp(address: SocketAddr, path: &str) -> Result<String, Failure> {
    let doing = format!("ask http://{address}{path}");
    let stream = timeout(CONNECT_WAIT, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| Failure::local(format!("cannot {doing}"), error))?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .body(Full::new(Bytes::new()))
        .map_err(|error| Failure::local(format!("cannot {doing}"), error))?;
    let mut answer = exchange(stream, request, &doing, CONNECT_WAIT).await?;
    let whole = timeout(CONNECT_WAIT, answer.whole(SHORT_BYTES_MAX)).await;
    let whole = whole.unwrap_or_else(|_| Err(answer.broken_off("the answer does not end")))?;
    Ok(String::from_utf8_lossy(&whole).into_owned())
}

/// One request and the head of its answer, or why it was refused.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    request: Request<Full<Bytes>>,
    doing: &str,
    patience: Duration,
) -> Result<Answer, Failure> {
    let broken = |why: String| Failure::BrokenOff { doing: doing.to_owned(), why };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.to_string()))?;
    let mut wire = Wire { connection: Box::pin(connection), ended: false };
    let response = timeout(patience, wire.drive(sender.send_request(request)))
        .await
        .map_err(|_| broken(format!("no answer within {} s", patience.as_secs())))?
        .map_err(|error| broken(error.to_string()))?;
    let (head, body) = response.into_parts();
    let answer = Answer { doing: doing.to_owned(), body, wire };
    if head.status.is_success() { Ok(answer) } else { Err(answer.refused(head.status).await) }
}

/// Words of the user as one segment or value of a request's path (RFC 3986, 2.3: what is unreserved stays).
pub(crate) fn encoded(words: &str) -> String {
    let mut path = String::with_capacity(words.len());
    for byte in words.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => write!(path, "%{byte:02X}").unwrap_or_default(),
        }
    }
    path
}

fn json(body: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(body).map_err(|error| Failure::local("cannot ask the daemon", error))
}

fn hear_line<L: DeserializeOwned>(
    answer: &Answer,
    line: &[u8],
    hear: &mut impl FnMut(&str, L) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let text = std::str::from_utf8(line).map_err(|error| answer.garbled(&error.to_string()))?.trim();
    if text.is_empty() {
        return Ok(());
    }
    hear(text, serde_json::from_str(text).map_err(|error| answer.garbled(&error.to_string()))?)
}

/// The connection, which moves only while somebody awaits it: so it needs no task of its own.
struct Wire {
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>>>>,
    ended: bool,
}

impl Wire {
    /// Awaits `work` and keeps the connection moving meanwhile. How it ended is told by `work`, which waits for its bytes.
    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                _ = &mut self.connection, if !self.ended => self.ended = true,
            }
        }
    }
}

/// An answer that is still arriving.
struct Answer {
    doing: String,
    body: Incoming,
    wire: Wire,
}

impl Answer {
    fn garbled(&self, why: &str) -> Failure {
        Failure::Garbled { doing: self.doing.clone(), why: format!("the daemon's answer makes no sense: {why}") }
    }

    fn broken_off(&self, why: &str) -> Failure {
        Failure::BrokenOff { doing: self.doing.clone(), why: why.to_owned() }
    }

    /// The next bytes; none at the clean end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let Ok(frame) = timeout(SILENCE_MAX, self.wire.drive(self.body.frame())).await else {
                return Err(self.broken_off(&format!("the daemon was silent for {} s", SILENCE_MAX.as_secs())));
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.broken_off(&format!("the daemon broke off: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    async fn whole(&mut self, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.chunk().await? {
            whole.extend_from_slice(&bytes);
            if whole.len() > bytes_max {
                return Err(self.garbled("it is endless"));
            }
        }
        Ok(whole)
    }

    async fn object<T: DeserializeOwned>(mut self) -> Result<T, Failure> {
        let whole = self.whole(ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&whole).map_err(|error| self.garbled(&error.to_string()))
    }

    async fn refused(mut self, status: StatusCode) -> Failure {
        let whole = match self.whole(SHORT_BYTES_MAX).await {
            Ok(whole) => whole,
            Err(failure) => return failure,
        };
        let refusal = serde_json::from_slice(&whole)
            .unwrap_or_else(|_| Refusal { error: format!("the daemon answers {status}"), hint: None });
        Failure::Refused { doing: self.doing, status: status.as_u16(), refusal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_stay_within_their_part_of_the_path() {
        assert_eq!(encoded(">=dev-libs/foo-1.2:0/3[ssl,-x]"), "%3E%3Ddev-libs%2Ffoo-1.2%3A0%2F3%5Bssl%2C-x%5D");
        assert_eq!(encoded("a?b&c#d ü"), "a%3Fb%26c%23d%20%C3%BC");
    }
}
