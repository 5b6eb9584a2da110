//! Blocks of a domain, the sources of a package and the package, moved between one client and one builder and nobody else.

use super::wire::RecordSize;
use crate::blocking;
use crate::builds::capture::Captured;
use crate::builds::claim::SignedClaim;
use crate::builds::foreign::Charge;
use crate::builds::plan::Planned;
use crate::builds::record::DomainRecord;
use crate::domain::{Domain, held};
use crate::swarm::{BodyError, OpenError, PeerId};
use futures::{StreamExt as _, TryStreamExt as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{AppendError, Blob, FinishError, IncomingError, Store, Wanted};
use tree::digest::Digest;

/// A peer begins to send in this time.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Blocks fetched side by side.
const WIDTH: usize = 8;

/// Why something did not come from a peer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("{peer} sends {found} bytes of it, expected {expected}")]
    Size { peer: PeerId, found: u64, expected: u64 },
    #[error("{peer} sends other bytes than it should")]
    Bytes { peer: PeerId },
    #[error("the store does not take it: {0}")]
    Incoming(#[from] IncomingError),
    #[error("the store does not take it: {0}")]
    Append(#[from] AppendError),
    #[error("the store does not keep it: {0}")]
    Finish(#[from] FinishError),
    #[error("{0}")]
    Record(String),
}

impl TransferError {
    /// Whether there is no room for it on this machine.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Incoming(error) => error.is_full(),
            Self::Append(error) => error.is_full(),
            Self::Finish(error) => error.is_full(),
            Self::Open(_) | Self::Body(_) | Self::Size { .. } | Self::Bytes { .. } | Self::Record(_) => false,
        }
    }

    /// Whether the peer gave something else than what it promised.
    pub(super) fn is_lie(&self) -> bool {
        match self {
            Self::Bytes { .. } | Self::Size { .. } => true,
            Self::Finish(error) => {
                matches!(error, FinishError::Mismatch { .. } | FinishError::Sha512Mismatch { .. })
            }
            Self::Open(_) | Self::Body(_) | Self::Incoming(_) | Self::Append(_) | Self::Record(_) => false,
        }
    }
}

/// Keeps a captured domain in the store and gives it to one builder, as long as this lives.
#[derive(Debug)]
pub(super) struct Lent {
    domain: Arc<Domain>,
    builder: PeerId,
    digests: Vec<Digest>,
}

impl Lent {
    /// With the sources of the package that are here: a restricted one is nowhere else to be had. Blocking.
    pub(super) fn new(
        domain: &Arc<Domain>,
        captured: &Captured,
        planned: &Planned,
        builder: PeerId,
    ) -> Result<Self, TransferError> {
        let root = captured.digest();
        let blocks = captured.files.iter().map(|(digest, bytes)| (digest, bytes.as_slice()));
        let mut lent = Self { domain: Arc::clone(domain), builder, digests: Vec::new() };
        // Jobs of one request lend the same blocks, and a blob has one writer.
        let _one = super::lock(&domain.builds.offload.lending);
        for (digest, bytes) in blocks.chain([(&root, captured.record.as_slice())]) {
            put(&domain.store, digest, bytes)?;
            domain.announcer.shared().gives().offer(*digest, builder);
            lent.digests.push(*digest);
        }
        for source in planned.distfiles.iter().filter(|source| domain.store.contains(&source.digest)) {
            domain.announcer.shared().gives().offer(source.digest, builder);
            lent.digests.push(source.digest);
        }
        Ok(lent)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        for digest in &self.digests {
            self.domain.announcer.shared().gives().take_back(digest, &self.builder);
        }
    }
}

/// Puts bytes into the store under their digest. Blocking.
fn put(store: &Store, digest: &Digest, bytes: &[u8]) -> Result<(), TransferError> {
    if held(store, digest).is_some() {
        return Ok(());
    }
    let mut incoming = store.incoming(&Wanted { digest: *digest, size: Some(bytes.len() as u64), sha512: None })?;
    let rest = usize::try_from(incoming.len()).ok().and_then(|had| bytes.get(had..)).unwrap_or_default();
    incoming.append(rest)?;
    incoming.finish()?;
    Ok(())
}

/// One block, from who names it: what this machine has under the digest is not thereby the client's.
async fn block(domain: &Arc<Domain>, peer: PeerId, digest: Digest, size: u64) -> Result<Vec<u8>, TransferError> {
    let mut body = domain.swarm.open_within(peer, &digest, 0, FIRST_ANSWER).await?;
    if body.size() != size {
        return Err(TransferError::Size { peer, found: body.size(), expected: size });
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    if Digest::of(&bytes) != digest {
        return Err(TransferError::Bytes { peer });
    }
    Ok(bytes)
}

/// A client's record, the files that it names, and what that is charged to the client.
pub(super) struct FetchedDomain {
    pub(super) record: DomainRecord,
    pub(super) files: BTreeMap<Digest, Vec<u8>>,
    pub(super) charge: Arc<Charge>,
}

/// A client's domain, all of it from that client.
pub(super) async fn fetch_domain(
    domain: &Arc<Domain>,
    client: PeerId,
    digest: Digest,
    size: RecordSize,
) -> Result<FetchedDomain, TransferError> {
    let record = block(domain, client, digest, size.get()).await?;
    let record = DomainRecord::decode(&record).map_err(|error| TransferError::Record(error.to_string()))?;
    let charge = domain.builds.offload.foreigners.charge(client, &record);
    let charge = charge.map_err(|error| TransferError::Record(error.to_string()))?;
    let wanted: BTreeMap<Digest, u64> = record.files.values().map(|(digest, size)| (*digest, size.get())).collect();
    let fetching: Vec<_> = wanted
        .into_iter()
        .map(|(digest, size)| async move { Ok((digest, block(domain, client, digest, size).await?)) })
        .collect();
    let files = futures::stream::iter(fetching).buffer_unordered(WIDTH).try_collect::<BTreeMap<_, _>>();
    let files: Result<_, TransferError> = files.await;
    Ok(FetchedDomain { record, files: files?, charge })
}

/// The package of a claim from who made it. What had come before it broke off stays for the next attempt.
pub(super) async fn fetch_package(domain: &Arc<Domain>, claim: &SignedClaim) -> Result<Blob, TransferError> {
    let (peer, digest, size) = (claim.builder, claim.claim.digest, claim.claim.size);
    if let Some(blob) = domain.get(digest).await {
        return Ok(blob);
    }
    let store = domain.store.clone();
    let wanted = Wanted { digest, size: Some(size), sha512: None };
    let mut incoming = blocking::run(move || store.incoming(&wanted)).await?;
    let mut body = domain.swarm.open_within(peer, &digest, incoming.len(), FIRST_ANSWER).await?;
    if body.size() != size {
        return Err(TransferError::Size { peer, found: body.size(), expected: size });
    }
    while let Some(chunk) = body.chunk().await? {
        incoming = blocking::run(move || incoming.append(&chunk).map(|()| incoming)).await?;
    }
    Ok(blocking::run(move || incoming.finish()).await?)
}
