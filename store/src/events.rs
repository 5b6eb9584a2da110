//! What came and went, told to whoever subscribed.
//!
//! A feed holds at most [`EVENTS_MAX`] events. When its reader is slower than that, everything in it is replaced by one
//! [`Event::Lost`]: the reader then lists the store again, as it did at its start. So a slow reader costs no memory and misses nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use tree::digest::Digest;

use crate::locked;

/// Events a reader may be behind before it must list again; 80 bytes each.
pub const EVENTS_MAX: usize = 4096;

/// A change of what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A blob of this size is held now.
    Added(Digest, u64),
    /// A blob is held no more.
    Removed(Digest),
    /// The reader was too slow: events are missing, list the store again.
    Lost,
}

/// The reader's end of one feed.
#[derive(Debug)]
pub struct Events {
    feed: Arc<Feed>,
}

#[derive(Debug, Default)]
struct Feed {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    closed: bool,
}

/// Why there is no next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NextEventError {
    /// Nothing happened in the time given.
    #[error("no event yet")]
    Quiet,
    /// The store is closed; nothing will happen any more.
    #[error("the store is closed")]
    Closed,
}

impl Events {
    /// The next event, waiting at most this long for it. Zero does not wait.
    pub fn next_within(&self, wait: Duration) -> Result<Event, NextEventError> {
        let queue = locked(&self.feed.queue);
        let idle = |queue: &mut Queue| queue.events.is_empty() && !queue.closed;
        let (mut queue, _) =
            self.feed.filled.wait_timeout_while(queue, wait, idle).unwrap_or_else(PoisonError::into_inner);
        match queue.events.pop_front() {
            Some(event) => Ok(event),
            None if queue.closed => Err(NextEventError::Closed),
            None => Err(NextEventError::Quiet),
        }
    }
}

/// The store's end of all feeds.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    feeds: Mutex<Vec<Weak<Feed>>>,
}

impl Feeds {
    pub(crate) fn subscribe(&self) -> Events {
        let feed = Arc::new(Feed::default());
        let mut feeds = locked(&self.feeds);
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(Arc::downgrade(&feed));
        Events { feed }
    }

    pub(crate) fn tell(&self, event: Event) {
        for feed in locked(&self.feeds).iter().filter_map(Weak::upgrade) {
            let mut queue = locked(&feed.queue);
            if queue.events.len() >= EVENTS_MAX {
                queue.events.clear();
                queue.events.push_back(Event::Lost);
            } else if queue.events.front() != Some(&Event::Lost) {
                // After a loss the list is read again anyway, and has this in it.
                queue.events.push_back(event);
            }
            drop(queue);
            feed.filled.notify_one();
        }
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        for feed in locked(&self.feeds).iter().filter_map(Weak::upgrade) {
            locked(&feed.queue).closed = true;
            feed.filled.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: usize) -> Event {
        Event::Added(Digest::of(&number.to_le_bytes()), 1)
    }

    #[test]
    fn events_come_in_order_to_every_reader() {
        let feeds = Feeds::default();
        let (first, second) = (feeds.subscribe(), feeds.subscribe());
        feeds.tell(event(1));
        feeds.tell(event(2));
        for reader in [&first, &second] {
            assert_eq!(reader.next_within(Duration::ZERO), Ok(event(1)));
            assert_eq!(reader.next_within(Duration::ZERO), Ok(event(2)));
            assert_eq!(reader.next_within(Duration::ZERO), Err(NextEventError::Quiet));
        }
    }

    #[test]
    fn a_slow_reader_gets_one_loss_and_then_what_follows() {
        let feeds = Feeds::default();
        let reader = feeds.subscribe();
        for number in 0..EVENTS_MAX + 100 {
            feeds.tell(event(number));
        }
        assert_eq!(reader.next_within(Duration::ZERO), Ok(Event::Lost));
        assert_eq!(reader.next_within(Duration::ZERO), Err(NextEventError::Quiet));
        feeds.tell(event(7));
        assert_eq!(reader.next_within(Duration::ZERO), Ok(event(7)));
    }

    #[test]
    fn a_closed_store_ends_the_wait() {
        let feeds = Feeds::default();
        let reader = feeds.subscribe();
        feeds.tell(event(1));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let first = reader.next_within(Duration::from_secs(600));
                (first, reader.next_within(Duration::from_secs(600)))
            });
            drop(feeds);
            assert_eq!(waiting.join().unwrap(), (Ok(event(1)), Err(NextEventError::Closed)));
        });
    }
}
