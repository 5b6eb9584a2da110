//! The writing end of a transfer: one blocking thread takes the bytes, hashes and stores them and tells the followers.
//!
//! Network and hash run side by side, [`QUEUE_MAX`] chunks apart: BLAKE2B costs about as much as the whole transfer, so
//! one after the other would halve the speed.

use crate::blocking;
use crate::flight::{Flight, ObtainError, relayable};
use crate::panics::Panicked;
use crate::stats::Source;
use bytes::Bytes;
use std::sync::Arc;
use store::{Blob, FinishError, Incoming, Store};
use tokio::sync::{mpsc, oneshot};

/// Chunks between the network and the disk.
const QUEUE_MAX: usize = 32;
/// Files from this size on are given to their end as soon as they are verified, before they are safe on the disk.
const EARLY_MIN_BYTES: u64 = 16 * 1024 * 1024;
/// Followers are woken once for this many bytes, or when the queue runs empty.
const PUBLISH_BYTES: u64 = 256 * 1024;

enum Order {
    Append(Bytes, Source),
    SetSize(u64),
    Restart,
    Close,
}

/// What became of an ingest.
pub enum Closed {
    /// All bytes were there and are what they should be.
    Whole(Blob),
    /// All bytes were there and are not what they should be; they were thrown away.
    Wrong,
    /// All bytes were there and are what the BLAKE2B says, and not what the SHA512 does: whoever wrote both down is wrong.
    Contradiction,
    /// Bytes are missing; the partial is kept for later.
    Short,
}

/// A transfer's partial, owned by its thread.
pub struct Ingest {
    orders: mpsc::Sender<Order>,
    outcome: oneshot::Receiver<Result<Closed, ObtainError>>,
    received: u64,
}

impl Ingest {
    /// Opens (or resumes) the partial of `flight`.
    ///
    /// # Errors
    /// When the store cannot.
    pub async fn open(store: &Store, flight: &Arc<Flight>) -> Result<Self, ObtainError> {
        let (store, flight) = (store.clone(), Arc::clone(flight));
        let (orders, queue) = mpsc::channel(QUEUE_MAX);
        let (tell, outcome) = oneshot::channel();
        let (ready, opened) = oneshot::channel();
        blocking::start(move || match store.incoming(&flight.wanted) {
            Ok(incoming) => {
                // A waiter that is gone has dropped `orders` too, which ends the loop: nothing to do about it here.
                let _gone = ready.send(Ok(incoming.len()));
                let _gone = tell.send(Writer::new(incoming, &flight).run(queue));
            }
            Err(error) => {
                let _gone = ready.send(Err(refused(error.is_full(), &error)));
            }
        });
        let received = opened.await.map_err(|_closed| lost())??;
        Ok(Self { orders, outcome, received })
    }

    /// Bytes given so far, those of an earlier run included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Gives the next bytes. False when the writer has failed: [`Ingest::close`] says why.
    ///
    /// Cancel safe: yes; the bytes are then not taken.
    pub async fn append(&mut self, bytes: Bytes, source: Source) -> bool {
        let length = bytes.len() as u64;
        let taken = self.orders.send(Order::Append(bytes, source)).await.is_ok();
        if taken {
            self.received += length;
        }
        taken
    }

    /// Notes the size that a source said, where the Manifest did not: where the file ends, if it is right. No room is reserved for it.
    pub async fn set_size(&mut self, size: u64) -> bool {
        self.orders.send(Order::SetSize(size)).await.is_ok()
    }

    /// Throws all bytes away.
    pub async fn restart(&mut self) -> bool {
        self.received = 0;
        self.orders.send(Order::Restart).await.is_ok()
    }

    /// Ends it: verifies when all bytes are there, keeps the partial otherwise.
    ///
    /// # Errors
    /// When the store failed on the way.
    pub async fn close(self) -> Result<Closed, ObtainError> {
        // A writer that has failed has hung up and left its reason in `outcome`.
        let _hung_up = self.orders.send(Order::Close).await;
        drop(self.orders);
        self.outcome.await.map_err(|_closed| lost())?
    }
}

/// The writer is gone without a word: a runtime that stops waits for it, so that it has panicked.
fn lost() -> ObtainError {
    ObtainError::Fault(Panicked)
}

/// What the store's refusal means to those who wait.
fn refused(is_full: bool, error: &dyn std::error::Error) -> ObtainError {
    let why = error.to_string();
    if is_full { ObtainError::DiskFull { why } } else { ObtainError::Store { why } }
}

struct Writer<'flight> {
    incoming: Incoming,
    flight: &'flight Flight,
    /// True while some byte is of a peer or of an earlier run.
    tainted: bool,
    published: u64,
    source: Option<Source>,
    /// The size, as a source said it.
    said: Option<u64>,
}

impl<'flight> Writer<'flight> {
    fn new(incoming: Incoming, flight: &'flight Flight) -> Self {
        let tainted = incoming.len() > 0;
        let reader = incoming.reader().ok().map(Arc::new);
        let (received, size) = (incoming.len(), incoming.size());
        flight.update(|progress| {
            progress.reader = reader;
            progress.received = received;
            progress.size = size;
        });
        Self { incoming, flight, tainted, published: received, source: None, said: None }
    }

    /// The size, proven or not.
    fn size(&self) -> Option<u64> {
        self.incoming.size().or(self.said)
    }

    fn run(mut self, mut queue: mpsc::Receiver<Order>) -> Result<Closed, ObtainError> {
        while let Some(order) = queue.blocking_recv() {
            match order {
                Order::Append(bytes, source) => self.append(&bytes, source, queue.is_empty())?,
                Order::SetSize(size) => {
                    self.said = Some(size);
                    self.flight.update(|progress| progress.size = Some(size));
                }
                Order::Restart => self.restart()?,
                Order::Close => return self.close(),
            }
        }
        // The transfer was dropped: the daemon stops. What is there is kept for the next time.
        self.keep()
    }

    fn append(&mut self, bytes: &[u8], source: Source, idle: bool) -> Result<(), ObtainError> {
        self.incoming.append(bytes).map_err(|error| refused(error.is_full(), &error))?;
        self.tainted |= source == Source::Peer;
        let changed = self.source.replace(source) != Some(source);
        if changed || idle || self.incoming.len() - self.published >= PUBLISH_BYTES {
            self.publish();
        }
        Ok(())
    }

    fn publish(&mut self) {
        let (received, size, source) = (self.incoming.len(), self.size(), self.source);
        let readable = relayable(received, size, self.tainted, self.flight.started.elapsed());
        self.published = received;
        self.flight.update(|progress| {
            progress.received = received;
            progress.relayable = readable;
            progress.source = source;
        });
    }

    fn restart(&mut self) -> Result<(), ObtainError> {
        self.incoming.restart().map_err(|error| ObtainError::Store { why: error.to_string() })?;
        self.tainted = false;
        self.published = 0;
        self.said = None;
        let size = self.incoming.size();
        self.flight.update(|progress| {
            progress.restart();
            progress.size = size;
        });
        Ok(())
    }

    fn keep(self) -> Result<Closed, ObtainError> {
        self.incoming.keep().map_err(|error| ObtainError::Store { why: error.to_string() })?;
        Ok(Closed::Short)
    }

    fn close(mut self) -> Result<Closed, ObtainError> {
        if self.size().is_none_or(|size| self.incoming.len() < size) {
            return self.keep();
        }
        self.publish();
        let (flight, size) = (self.flight, self.incoming.len());
        let verified = || {
            // A small file is on the disk in a moment: whoever has got it then finds it in the store.
            if size < EARLY_MIN_BYTES {
                return;
            }
            flight.update(|progress| {
                progress.verified = true;
                progress.relayable = size;
            });
        };
        match self.incoming.finish_telling(verified) {
            Ok(blob) => Ok(Closed::Whole(blob)),
            Err(error @ (FinishError::Mismatch { .. } | FinishError::Sha512Mismatch { .. })) => {
                self.flight.update(|progress| {
                    progress.restart();
                    progress.reader = None;
                });
                let contradiction = matches!(error, FinishError::Sha512Mismatch { .. });
                Ok(if contradiction { Closed::Contradiction } else { Closed::Wrong })
            }
            Err(error) => Err(refused(error.is_full(), &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::Flights;
    use std::os::unix::fs::MetadataExt as _;
    use store::{Options, Wanted};
    use tree::digest::Digest;

    /// Bytes that the partials take on the disk while some of a file of 64 MiB have come.
    async fn taken(proven: bool) -> u64 {
        const SIZE: u64 = 64 << 20;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Options { free_min_bytes: 0, ..Options::default() }).unwrap();
        let wanted = Wanted { digest: Digest::of(b"large"), size: proven.then_some(SIZE), sha512: None };
        let (flights, mut begun) = (Flights::default(), None);
        let mut follower = flights.join("large", &wanted, |flight| begun = Some(flight)).unwrap();
        let mut ingest = Ingest::open(&store, &begun.unwrap()).await.unwrap();
        assert!(proven || ingest.set_size(SIZE).await);
        assert!(ingest.append(Bytes::from(vec![0; 1 << 20]), Source::Peer).await);
        let progress = follower.wait_until(|progress| progress.received > 0).await;
        assert_eq!(progress.size, Some(SIZE));
        let partials = std::fs::read_dir(dir.path().join("incoming")).unwrap();
        let taken = tree::size::total(partials.map(|partial| partial.unwrap().metadata().unwrap().blocks() * 512));
        assert!(matches!(ingest.close().await, Ok(Closed::Short)));
        taken
    }

    /// A peer said "20 GiB" of a digest that no Manifest names, and the disk was reserved.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn room_is_reserved_for_a_size_of_a_manifest_and_for_no_other() {
        assert!(taken(true).await >= 64 << 20);
        assert!(taken(false).await <= 8 << 20);
    }
}
