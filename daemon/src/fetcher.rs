//! The only way bytes come in from outside: one flight, many sources, each held to what the digest says.
//!
//! Order of sources: connected peers that hold it, then mirrors and SRC_URI as RESTRICT allows (meanwhile the DHT is
//! asked, [`FIND_MAX`]), then peers the DHT named, then mirrors once more with patience. A source that breaks off is
//! left where it stopped and the next one goes on from there. A wrong digest is no accident: if one source brought all
//! the bytes it is blamed; if several did nobody can be, and everything is brought again from one source alone,
//! mirrors first. BLAKE2B cannot be checked by pieces, so a liar costs at most the file's size.

use crate::domain::Domain;
use crate::flight::{Flight, ObtainError};
use crate::ingest::{Closed, Ingest};
use crate::sources::{Contributor, Opened, Sources};
use crate::stats::Source;
use std::sync::Arc;
use std::time::Duration;
use store::Blob;

/// How long the DHT may take to name providers.
pub(crate) const FIND_MAX: Duration = Duration::from_millis(300);
/// Times one flight may throw everything away and begin again.
const RESTARTS_MAX: u32 = 8;

/// Obtains what `flight` wants.
///
/// Cancel safe: yes; what has come in stays on disk and is resumed the next time.
///
/// # Errors
/// When nobody who may be asked brings the right bytes, or the store cannot take them.
pub async fn obtain(
    domain: &Arc<Domain>,
    flight: &Arc<Flight>,
    sources: Sources,
) -> Result<(Blob, Source), ObtainError> {
    let mut sources = sources;
    let mut freed = false;
    let mut restarts = 0;
    loop {
        match attempt(domain, flight, &mut sources).await {
            Ok(Attempt::Whole(blob, source)) => return Ok((blob, source)),
            Ok(Attempt::Wrong) if restarts < RESTARTS_MAX => restarts += 1,
            Ok(Attempt::Wrong | Attempt::Exhausted) => return Err(sources.nobody()),
            // Room may be had by letting go what was not used for long; once, or a flood of requests would empty the store.
            Err(ObtainError::DiskFull { .. }) if !freed && domain.make_room(flight.progress().size).await => {
                freed = true;
            }
            Err(error) => return Err(error),
        }
    }
}

enum Attempt {
    Whole(Blob, Source),
    Wrong,
    Exhausted,
}

/// Brings bytes until the partial is full or no source is left.
async fn attempt(domain: &Arc<Domain>, flight: &Arc<Flight>, sources: &mut Sources) -> Result<Attempt, ObtainError> {
    let mut ingest = Ingest::open(&domain.store, flight).await?;
    let mut contributors = Vec::new();
    if ingest.received() > 0 {
        contributors.push(Contributor::Earlier);
    }
    let mut size = flight.wanted.size;
    let mut brought_by = None;
    while size.is_none_or(|size| ingest.received() < size) {
        if sources.one_alone() && ingest.received() > 0 {
            contributors.clear();
            if !ingest.restart().await {
                break;
            }
        }
        let Some(mut opened) = sources.next(ingest.received()).await else { break };
        if size.is_some() && opened.size().is_some_and(|says| Some(says) != size) {
            // Without a Manifest line the first peer said the size; another one says another, and neither is proven.
            continue;
        }
        if opened.offset() < ingest.received() {
            // It cannot resume, so it starts over; what others brought is not needed any more.
            contributors.clear();
            if !ingest.restart().await {
                break;
            }
        }
        if size.is_none() {
            size = opened.size();
            if let Some(size) = size
                && !ingest.set_size(size).await
            {
                break;
            }
        }
        contributors.push(opened.contributor());
        brought_by = Some(opened.source());
        if !pump(&mut opened, &mut ingest, sources).await {
            break;
        }
    }
    let complete = size.is_some_and(|size| ingest.received() >= size);
    match ingest.close().await? {
        // A partial that was whole when it was found had no source in this run: an earlier one brought it.
        Closed::Whole(blob) => Ok(Attempt::Whole(blob, brought_by.unwrap_or(Source::Store))),
        Closed::Wrong => {
            sources.wrong(&contributors);
            Ok(Attempt::Wrong)
        }
        Closed::Short if complete => Err(ObtainError::Store { why: "a whole file was reported short".to_owned() }),
        Closed::Short => Ok(Attempt::Exhausted),
    }
}

/// Moves bytes from one source to the disk until it ends or breaks off. False when the disk does not take them.
async fn pump(opened: &mut Opened, ingest: &mut Ingest, sources: &mut Sources) -> bool {
    let source = opened.source();
    loop {
        match opened.chunk().await {
            Ok(Some(bytes)) => {
                if !ingest.append(bytes, source).await {
                    return false;
                }
            }
            Ok(None) => {
                sources.served(opened);
                return true;
            }
            Err(broke) => {
                sources.broke_off(opened, &broke);
                return true;
            }
        }
    }
}
