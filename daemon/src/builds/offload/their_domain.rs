//! The domain of an offer at its builder: fetched from the client once, whatever it takes to plan with it, and laid out.

use super::transfer::{FetchedDomain, TransferError, fetch_domain};
use super::versions::masking;
use super::wire::{Code, Offer, RecordSize, ToClient};
use crate::blocking;
use crate::builds::foreign::{Foreign, ForeignError};
use crate::builds::inside::absolute;
use crate::builds::with_causes;
use crate::domain::Domain;
use crate::swarm::PeerId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tree::cpv::Cpv;
use tree::digest::Digest;

/// One client's domain; not fetched while another job of that client has it laid out.
pub(super) struct TheirDomain<'a> {
    domain: &'a Arc<Domain>,
    client: PeerId,
    digest: Digest,
    size: RecordSize,
    fetched: OnceCell<Arc<FetchedDomain>>,
}

impl<'a> TheirDomain<'a> {
    pub(super) fn of(domain: &'a Arc<Domain>, client: PeerId, offer: &Offer) -> Result<Self, ToClient> {
        let Ok(digest) = <[u8; 64]>::try_from(offer.domain.as_slice()).map(Digest::from_bytes) else {
            return Err(ToClient::refused(Code::Domain, "the offer names no domain"));
        };
        Ok(Self { domain, client, digest, size: offer.domain_size, fetched: OnceCell::new() })
    }

    /// It on this machine, with these versions masked besides.
    pub(super) async fn laid_out(&self, masked: &BTreeSet<Cpv>) -> Result<Arc<Foreign>, ToClient> {
        let foreigners = &self.domain.builds.offload.foreigners;
        if let Some(foreign) = foreigners.get(&self.digest, &self.client).filter(|_| masked.is_empty()) {
            return Ok(foreign);
        }
        let fetching = || async { fetch_domain(self.domain, self.client, self.digest, self.size).await.map(Arc::new) };
        let fetched = self.fetched.get_or_try_init(fetching).await;
        let refused = |error: TransferError| ToClient::refused(Code::Domain, &with_causes(&error));
        let fetched = Arc::clone(fetched.map_err(refused)?);
        let (laying, masked) = (Arc::clone(self.domain), masked.clone());
        let laid_out = blocking::run(move || {
            let content = |digest: &Digest| fetched.files.get(digest).cloned();
            let (record, more) = masking(fetched.record.clone(), &masked, content);
            let here: BTreeMap<String, PathBuf> = laying
                .repositories
                .list()
                .iter()
                .map(|repo| (repo.name.clone(), absolute(repo.path.as_ref())))
                .collect();
            let with_masks = |wanted: &Digest| match &more {
                Some((digest, masks)) if digest == wanted => Some(masks.clone()),
                _ => content(wanted),
            };
            let digest = Digest::of(&record.encode());
            laying.builds.offload.foreigners.lay_out(digest, &fetched.charge, &record, &here, with_masks)
        });
        laid_out.await.map_err(|error| {
            let code = match &error {
                ForeignError::Repository { .. } => Code::Repository,
                ForeignError::Profile { .. } => Code::Profile,
                ForeignError::Content { .. }
                | ForeignError::Missing { .. }
                | ForeignError::Charged { .. }
                | ForeignError::Path { .. } => Code::Domain,
            };
            ToClient::refused(code, &with_causes(&error))
        })
    }
}
