//! What each mirror's `layout.conf` said, asked once and remembered.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

use crate::error::FetchError;
use crate::layout::LayoutConf;

/// How long a `layout.conf` is believed; Portage's own span.
const LEARNED: Duration = Duration::from_secs(24 * 60 * 60);
/// How long "has none, or none that can be read" is believed.
const HAS_NONE: Duration = Duration::from_secs(10 * 60);
/// How long a mirror that could not be asked is not asked again by those who were waiting with us.
const UNREACHED: Duration = Duration::from_secs(5);
/// Mirrors remembered; twice what a list may hold, so that a changed list has room.
const MIRRORS_MAX: usize = 128;

/// What came of asking for a `layout.conf`.
#[derive(Debug, Clone)]
pub(crate) enum Learned {
    /// It has one.
    Conf(LayoutConf),
    /// It has none, so it is flat.
    None,
    /// The mirror could not be asked; it cannot be asked for the file either.
    Unreached(FetchError),
}

#[derive(Debug)]
struct Answer {
    learned: Learned,
    until: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct LearnedLayouts {
    slots: Mutex<HashMap<Url, Arc<OnceCell<Answer>>>>,
}

impl LearnedLayouts {
    /// The layout of `mirror`, by `ask` if it is not known. Whoever asks at the same time waits for the same answer.
    ///
    /// Cancel safe: yes; another of those waiting goes on.
    pub(crate) async fn of<F>(&self, mirror: &Url, ask: impl FnOnce() -> F) -> Result<LayoutConf, FetchError>
    where
        F: Future<Output = Learned>,
    {
        let slot = self.slot(mirror, Instant::now());
        let answer = slot
            .get_or_init(|| async {
                let learned = ask().await;
                let span = match learned {
                    Learned::Conf(_) => LEARNED,
                    Learned::None => HAS_NONE,
                    Learned::Unreached(_) => UNREACHED,
                };
                Answer { learned, until: Instant::now() + span }
            })
            .await;
        match &answer.learned {
            Learned::Conf(conf) => Ok(conf.clone()),
            Learned::None => Ok(LayoutConf::flat()),
            Learned::Unreached(error) => Err(error.clone()),
        }
    }

    fn slot(&self, mirror: &Url, now: Instant) -> Arc<OnceCell<Answer>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MIRRORS_MAX && !slots.contains_key(mirror) {
            slots.clear();
        }
        let slot = slots.entry(mirror.clone()).or_default();
        if slot.get().is_some_and(|answer| answer.until <= now) {
            *slot = Arc::default();
        }
        Arc::clone(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    async fn ask(layouts: &LearnedLayouts, count: &Cell<u32>, answer: Learned) -> Result<LayoutConf, FetchError> {
        let mirror = Url::parse("http://m.example/").unwrap();
        layouts
            .of(&mirror, || {
                count.set(count.get() + 1);
                async { answer }
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_layout_is_believed_for_a_day_and_its_absence_for_minutes() {
        let (layouts, count) = (LearnedLayouts::default(), Cell::new(0));
        let conf = Learned::Conf(LayoutConf::ours());
        assert_eq!(ask(&layouts, &count, Learned::None).await.unwrap(), LayoutConf::flat());
        assert_eq!(ask(&layouts, &count, conf.clone()).await.unwrap(), LayoutConf::flat());
        tokio::time::advance(HAS_NONE).await;
        assert_eq!(ask(&layouts, &count, conf.clone()).await.unwrap(), LayoutConf::ours());
        tokio::time::advance(LEARNED - Duration::from_secs(1)).await;
        assert_eq!(ask(&layouts, &count, Learned::None).await.unwrap(), LayoutConf::ours());
        assert_eq!(count.get(), 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ask(&layouts, &count, Learned::None).await.unwrap(), LayoutConf::flat());
        assert_eq!(count.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mirror_that_cannot_be_reached_is_soon_asked_again() {
        let (layouts, count) = (LearnedLayouts::default(), Cell::new(0));
        let gone = Learned::Unreached(FetchError::NotHttp { uri: String::new() });
        assert!(ask(&layouts, &count, gone).await.is_err());
        assert!(ask(&layouts, &count, Learned::None).await.is_err());
        tokio::time::advance(UNREACHED).await;
        assert!(ask(&layouts, &count, Learned::None).await.is_ok());
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let layouts = LearnedLayouts::default();
        for number in 0..MIRRORS_MAX * 2 + 1 {
            let mirror = Url::parse(&format!("http://m{number}.example/")).unwrap();
            layouts.of(&mirror, || async { Learned::None }).await.unwrap();
        }
        assert!(layouts.slots.lock().unwrap().len() <= MIRRORS_MAX);
    }
}
