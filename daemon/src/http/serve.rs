//! Accepting connections: bounded in number and by origin, in header size, and in time in both directions.
//!
//! A client that does not read holds its connection no longer than [`READ_BY_CLIENT`] says; where all places are taken, the
//! client that has kept us waiting for longest makes room for the next one.

mod paced;

use crate::budget::{Class, Limits, Origin, Place, Places, Who};
use crate::tasks::Tasks;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mirrors::Floor;
use paced::{Ours, Paced, Turn};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tower::ServiceExt as _;

/// Connections of one listener at the same time: a half for other machines, of which one may have three quarters.
const CONNECTIONS_MAX: u64 = 1024;
/// A client that has kept us waiting for so long makes room for another, where there is none.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// A client that has not sent its whole head by then is dropped; so is one that asks nothing more.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// The slowest reader that is served: 1 KB/s, and half a minute of nothing; wget itself leaves after one.
const READ_BY_CLIENT: Floor =
    Floor { silence: Duration::from_secs(30), span: Duration::from_secs(60), least: 60 * 1024 };
/// Headers of one request; wget sends six, a browser some twenty.
const HEADERS_MAX: usize = 64;
/// Bytes of a head, and of what is read ahead.
const BUFFER_MAX_BYTES: usize = 32 * 1024;
/// After a failed accept (no file descriptors left, mostly) there is a pause, or the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` to TCP clients until the daemon stops.
pub async fn serve_tcp(listener: TcpListener, router: Router, tasks: Tasks) {
    let accept = async || {
        let (stream, from) = listener.accept().await?;
        // Small answers would wait 40 ms for the client's delayed ACK.
        stream.set_nodelay(true)?;
        let class = if from.ip().to_canonical().is_loopback() { Class::Named } else { Class::Stranger };
        Ok((stream, Who { class, origin: Origin::of(from.ip()), peer: None }))
    };
    serve(accept, router, tasks).await;
}

/// Serves `router` to clients of the control socket until the daemon stops.
pub async fn serve_unix(listener: UnixListener, router: Router, tasks: Tasks) {
    let accept = async || listener.accept().await.map(|(stream, _from)| (stream, Who::OWN));
    serve(accept, router, tasks).await;
}

async fn serve<S, F>(accept: impl Fn() -> F, router: Router, tasks: Tasks)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<(S, Who)>>,
{
    let places = Places::new(Limits::of(CONNECTIONS_MAX), IDLE_MAX);
    loop {
        match accept().await {
            Ok((stream, who)) => {
                let Some(place) = places.enter_or_push(who) else {
                    tracing::debug!(?who, "no place for another connection");
                    continue;
                };
                let router = router.clone();
                let stopping = tasks.stopping().clone();
                tasks.spawn_to_end("http connection", async move {
                    serve_one(stream, router, place, stopping.cancelled()).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one<S>(stream: S, router: Router, place: Place, stopping: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ended = place.ended();
    let turn = Arc::new(Turn::new(place));
    let stream = Paced::new(stream, Arc::clone(&turn), READ_BY_CLIENT);
    let answer = service_fn(move |request: Request<Incoming>| {
        let (ours, answer) = (Ours::begin(&turn), router.clone().oneshot(request.map(Body::new)));
        async move { answer.await.map(|answer| answer.map(|body| ours.until_end_of(body))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    tokio::select! {
        // Dropping a connection in mid-answer cuts it: a client sees that the body is not whole.
        () = stopping => {}
        () = ended => tracing::debug!("a connection made room for another one"),
        ended = &mut connection => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::net::TcpStream;
    use tokio::sync::{Mutex, mpsc};

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    /// A listener in memory: who connects says who it is.
    struct Door {
        knock: mpsc::Sender<(DuplexStream, Who)>,
        tasks: Tasks,
    }

    impl Door {
        /// Every answer is of so many bytes.
        fn open(length: usize) -> Self {
            let (knock, knocks) = mpsc::channel::<(DuplexStream, Who)>(1);
            let router = Router::new().route("/", get(move || async move { vec![7_u8; length] }));
            let (tasks, knocks) = (Tasks::new(), Arc::new(Mutex::new(knocks)));
            let accept = move || {
                let knocks = Arc::clone(&knocks);
                async move { knocks.lock().await.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into()) }
            };
            tasks.spawn("door", serve(accept, router, tasks.clone()));
            Self { knock, tasks }
        }

        async fn connect(&self, who: Who) -> DuplexStream {
            let (near, far) = tokio::io::duplex(16 * 1024);
            self.knock.send((far, who)).await.unwrap();
            near
        }

        /// A client that asks and reads all; the bytes that came.
        async fn fetch(&self, who: Who) -> usize {
            let mut client = self.connect(who).await;
            let ask = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            if client.write_all(ask).await.is_err() {
                return 0;
            }
            let mut all = Vec::new();
            let _cut = client.read_to_end(&mut all).await;
            all.len()
        }
    }

    fn elsewhere(last: u8) -> Who {
        Who { class: Class::Stranger, origin: Origin::of([10, 0, 0, last].into()), peer: None }
    }

    /// Whether the other end has hung up; what it said before does not matter.
    async fn is_cut(client: &mut DuplexStream) -> bool {
        let mut all = Vec::new();
        tokio::time::timeout(Duration::from_millis(1), client.read_to_end(&mut all)).await.is_ok()
    }

    /// 1,024 connections that ask and read nothing shut the mirror.
    #[tokio::test(start_paused = true)]
    async fn clients_that_read_nothing_keep_nobody_out() {
        let door = Door::open(1 << 20);
        for who in [elsewhere(1), Who::OWN] {
            let mut deaf = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                let mut client = door.connect(who).await;
                // One that has no place is told so by its end.
                let _refused = client.write_all(ASK).await;
                deaf.push(client);
            }
            tokio::time::sleep(IDLE_MAX * 2).await;
            for honest in [Who::OWN, elsewhere(2), elsewhere(1)] {
                assert!(door.fetch(honest).await > 1 << 20, "{honest:?} beside {who:?}");
            }
        }
        assert!(door.tasks.shutdown(Duration::from_secs(5)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_or_drips_is_cut_and_a_slow_one_is_not() {
        let door = Door::open(1 << 20);
        for (every_s, bytes, cut) in [(1, 0, true), (4, 1, true), (29, 1024, true), (1, 4096, false)] {
            let mut client = door.connect(elsewhere(1)).await;
            client.write_all(ASK).await.unwrap();
            let mut some = vec![0; bytes];
            for _ in 0..(180 / every_s) {
                tokio::time::sleep(Duration::from_secs(every_s)).await;
                if bytes > 0 && client.read_exact(&mut some).await.is_err() {
                    break;
                }
            }
            assert_eq!(is_cut(&mut client).await, cut, "{bytes} bytes every {every_s} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_drips_its_head_or_asks_nothing_is_cut() {
        let door = Door::open(10);
        let mut silent = door.connect(elsewhere(1)).await;
        let mut dripping = door.connect(elsewhere(1)).await;
        for byte in ASK.iter().take(20) {
            let _cut = dripping.write_all(&[*byte]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(is_cut(&mut silent).await && is_cut(&mut dripping).await);
    }

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A connection that is cut is no answer.
        let _cut = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_panic_costs_its_connection_and_no_other_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = move || async move {
            if address.port() > 0 {
                panic!("a test's own panic")
            }
        };
        let router = Router::new().route("/fault", get(fault)).route("/well", get(async || "well"));
        let tasks = Tasks::new();
        tasks.spawn_vital("http", serve_tcp(listener, router, tasks.clone()));
        for _ in 0..3 {
            assert_eq!(ask(address, "/fault").await, "");
            assert!(ask(address, "/well").await.ends_with("well"));
        }
    }
}
