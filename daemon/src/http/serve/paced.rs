//! A connection whose client must read: writing to it has a deadline, and a pace. And whose turn it is: ours or the client's.

use crate::budget::Place;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use mirrors::{Floor, Pace};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Whose turn it is on a connection: a client that waits for us is not idle.
pub(super) struct Turn {
    place: Place,
    answers: AtomicUsize,
}

impl Turn {
    pub(super) fn new(place: Place) -> Self {
        Self { place, answers: AtomicUsize::new(0) }
    }

    /// The client did what it had to.
    fn done_by_client(&self) {
        if self.answers.load(Ordering::Relaxed) > 0 {
            self.place.is_ours();
        } else {
            self.place.moved();
        }
    }
}

/// A client waits for us, from its request to the end of the answer.
pub(super) struct Ours(Arc<Turn>);

impl Ours {
    pub(super) fn begin(turn: &Arc<Turn>) -> Self {
        turn.answers.fetch_add(1, Ordering::Relaxed);
        turn.done_by_client();
        Self(Arc::clone(turn))
    }

    /// An answer, until the end of which it is our turn.
    pub(super) fn until_end_of(self, body: Body) -> Answer {
        Answer { body, _ours: self }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.0.answers.fetch_sub(1, Ordering::Relaxed);
        self.0.done_by_client();
    }
}

/// A body that is ours to bring.
pub(super) struct Answer {
    body: Body,
    _ours: Ours,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// See the head of this room.
pub(super) struct Paced<S> {
    stream: S,
    turn: Arc<Turn>,
    pace: Pace,
    /// Runs while a write waits for the client.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, turn: Arc<Turn>, floor: Floor) -> Self {
        Self { stream, turn, pace: Pace::new(floor), deadline: None }
    }

    /// A write is done, or waits for the client no longer than it may.
    fn judged(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let too_slow = |why: String| io::Error::new(io::ErrorKind::TimedOut, why);
        match written {
            Poll::Ready(Ok(count)) => {
                self.deadline = None;
                self.turn.done_by_client();
                let kept = self.pace.took(u64::try_from(count).unwrap_or(u64::MAX), Instant::now());
                Poll::Ready(
                    kept.map(|()| count).map_err(|slow| too_slow(format!("the client reads too slowly: {slow}"))),
                )
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let until = self.pace.deadline(Instant::now());
                if self.deadline.is_none() {
                    // From now on it is the client that keeps us waiting.
                    self.turn.place.moved();
                }
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
                ready!(deadline.as_mut().poll(context));
                Poll::Ready(Err(too_slow(format!("the client reads nothing: {}", self.pace.silent()))))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judged(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judged(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
