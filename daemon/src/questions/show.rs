//! What this node has of an atom: binary packages and distfiles.

use crate::api_builds::{ShowAnswer, ShownDistfile};
use crate::binhost::ask;
use crate::blocking;
use crate::domain::Domain;
use crate::http::jobs;
use crate::swarm::PeerId;
use crate::targets::{self, TargetError};
use std::sync::Arc;
use tree::atom::{Atom, ParseAtomError};

/// The binary packages of the binhost and the distfiles that an atom means, as far as who asks is told of them.
///
/// Cancel safe: yes.
///
/// # Errors
/// When it is no atom.
pub async fn local(domain: &Arc<Domain>, text: &str, asked_by: Option<PeerId>) -> Result<ShowAnswer, ParseAtomError> {
    let atom: Atom = text.parse()?;
    ask::in_time(domain).await;
    let named = targets::resolve(domain, &[text.to_owned()]).await;
    let domain = Arc::clone(domain);
    let answer = blocking::run(move || {
        let gives = domain.announcer.shared().gives();
        let instances = domain.binhost.instances(&atom);
        let told = instances.iter().filter(|instance| gives.may_tell(&instance.row, asked_by.as_ref()));
        let binpkgs = told.map(jobs::shown).collect::<Vec<_>>();
        let mut notes = named.notes;
        let refused = named.each.iter().filter_map(|(_, found)| found.as_ref().err());
        notes
            .extend(refused.filter(|error| !matches!(error, TargetError::NoDistfiles { .. })).map(ToString::to_string));
        let each = named.each.into_iter().flat_map(|(_, found)| found.unwrap_or_default());
        let distfiles = each.map(|target| ShownDistfile {
            held: domain.store.contains(&target.wanted.digest),
            digest: target.wanted.digest.to_string(),
            size: target.wanted.size.unwrap_or_default(),
            name: target.name,
        });
        ShowAnswer { binpkgs, distfiles: distfiles.collect(), notes }
    });
    Ok(answer.await)
}
