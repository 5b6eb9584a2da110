//! Accepting connections: bounded in number, in header size and in time.

use crate::tasks::Tasks;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

/// Connections of one listener at the same time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// A client that has not sent its whole head by then is dropped.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// Headers of one request; wget sends six, a browser some twenty.
const HEADERS_MAX: usize = 64;
/// Bytes of a head, and of what is read ahead.
const BUFFER_MAX_BYTES: usize = 32 * 1024;
/// After a failed accept (no file descriptors left, mostly) there is a pause, or the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` to TCP clients until the daemon stops.
pub async fn serve_tcp(listener: TcpListener, router: Router, tasks: Tasks) {
    let accept = async || {
        let (stream, _from) = listener.accept().await?;
        // Small answers would wait 40 ms for the client's delayed ACK.
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    serve(accept, router, tasks).await;
}

/// Serves `router` to clients of the control socket until the daemon stops.
pub async fn serve_unix(listener: UnixListener, router: Router, tasks: Tasks) {
    let accept = async || listener.accept().await.map(|(stream, _from)| stream);
    serve(accept, router, tasks).await;
}

async fn serve<S, F>(accept: impl Fn() -> F, router: Router, tasks: Tasks)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>>,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        match accept().await {
            Ok(stream) => {
                let router = router.clone();
                let stopping = tasks.stopping().clone();
                tasks.spawn_to_end("http connection", async move {
                    serve_one(stream, router, stopping.cancelled()).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_one<S>(stream: S, router: Router, stopping: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| router.clone().oneshot(request.map(Body::new)));
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

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
