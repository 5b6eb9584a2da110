//! A package that was built or obtained becomes one this node stands for: signed with its own OpenPGP key, kept by
//! digest, listed in the binhost, and, if its licence permits, claimed before other nodes.
//!
//! The signed file never lies anywhere but in the store: it is written there as it is made, and named when it is whole.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use super::claim::{Claim, SignedClaim};
use super::plan::Planned;
use super::stop::Stop;
use super::substitute::{Substitute, claim_key, fits, full_slot};
use crate::binhost::{BinhostError, BinpkgRow, Demands, Origin, Owner, Sums};
use crate::domain::Domain;
use crate::openpgp::{OpenPgpError, OpenPgpKey};
use crate::stats::now_s;
use crate::swarm::{Identity, PeerId};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use store::{AppendError, Blob, FinishError, Incoming, IncomingError, RowChange, RowTable, Store};
use tree::digest::Digest;
use tree::elf::Links;
use tree::elf_links::read_links;
use tree::gpkg::{Gpkg, ReadGpkgError};
use tree::gpkg_write::{self, RewriteGpkgError};
use tree::image::Image;
use tree::packages::MakeEntryError;

/// What is handed to the store in one step.
const STEP_BYTES: usize = 256 * 1024;

/// Why a package is not published; nothing of it is listed then.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The file cannot be opened.
    #[error("cannot open the package")]
    Open(#[source] io::Error),
    /// It is no package, or a broken one.
    #[error("what was built is no binary package: {0}")]
    Gpkg(#[from] ReadGpkgError),
    /// It is another package than was planned.
    #[error("what was built is not what was planned: {0}")]
    Other(String),
    /// It does not fit the index.
    #[error("what was built cannot be listed: {0}")]
    Describe(#[from] MakeEntryError),
    /// There is no key to sign with.
    #[error("the key that signs packages cannot be used: {0}")]
    Key(#[from] OpenPgpError),
    /// Signing, or writing what is signed.
    #[error("cannot sign the package: {0}")]
    Rewrite(#[from] RewriteGpkgError),
    /// The last bytes.
    #[error("cannot write the package")]
    Write(#[source] io::Error),
    /// The store does not take it.
    #[error("the store does not take the package: {0}")]
    Incoming(#[from] IncomingError),
    /// The store does not finish it.
    #[error("the store does not keep the package: {0}")]
    Finish(#[from] FinishError),
    /// The binhost does not list it.
    #[error("cannot list the package: {0}")]
    Binhost(#[from] BinhostError),
}

/// Signs, keeps, lists and claims what was built here. Blocking; a large package takes as long as it takes to read it four
/// times: to check it, to see what it installs, to look into its programs, to sign it. Ends in an error soon after it is
/// stopped; nothing is listed then.
pub(super) fn built(
    domain: &Domain,
    identity: &Identity,
    planned: &Planned,
    path: &Path,
    owner: Owner,
    stop: &Stop,
) -> Result<BinpkgRow, PublishError> {
    let mut file = stop.through(open(path)?);
    let gpkg = Gpkg::read(&mut file)?;
    fits(&gpkg, planned).map_err(PublishError::Other)?;
    let fingerprint = planned.recipe.fingerprint();
    let image = Image::read(&mut file, &gpkg)?;
    let links = links(&domain.store, &mut file, &gpkg)?;
    let signed = signed(domain, &mut file, &gpkg, &fingerprint, owner)?;
    let demands = demands(planned, links);
    let row = BinpkgRow::describe(signed, &gpkg, image.digest(), fingerprint, Origin::Built, demands)?;
    let row = BinpkgRow { owner, ..row };
    // What came of another machine's configuration is claimed before nobody: its client gets a receipt.
    let claim = (planned.may_share && !row.is_guest()).then(|| claim(planned, &row).sign(identity));
    list(domain, row, claim)
}

/// The image of a package that was built to be compared, not to be published. Blocking.
pub(super) fn image_of(path: &Path, planned: &Planned, stop: &Stop) -> Result<Image, PublishError> {
    let mut file = stop.through(open(path)?);
    let gpkg = Gpkg::read(&mut file)?;
    fits(&gpkg, planned).map_err(PublishError::Other)?;
    Ok(Image::read(&mut file, &gpkg)?)
}

/// Signs anew, keeps and lists what a trusted peer built; its claim is kept, so that others can be told of it: but not a
/// receipt, nor what is for another machine. Blocking.
pub(super) fn substituted(
    domain: &Domain,
    planned: &Planned,
    found: &Substitute,
    owner: Owner,
    stop: &Stop,
) -> Result<BinpkgRow, PublishError> {
    let fingerprint = planned.recipe.fingerprint();
    let signed = signed(domain, stop.through(seekable(&found.blob)), &found.gpkg, &fingerprint, owner)?;
    let origin = Origin::Substitute { builder: found.claim.key, original: found.blob.digest() };
    // What it installs was compared with the claim when it came.
    let demands = demands(planned, found.links.clone());
    let row = BinpkgRow::describe(signed, &found.gpkg, found.claim.claim.image, fingerprint, origin, demands)?;
    let row = BinpkgRow { owner, ..row };
    let is_for_all = planned.may_share && !row.is_guest() && found.claim.client.is_none();
    list(domain, row, is_for_all.then(|| found.claim.clone()))
}

/// What the programs of a package need and give; those that are too large for memory lie beside the store meanwhile. Blocking.
///
/// # Errors
/// When the package is broken, or its programs cost more to look into than those of any package.
pub(crate) fn links(store: &Store, file: impl Read + Seek, gpkg: &Gpkg) -> Result<Links, ReadGpkgError> {
    read_links(file, gpkg, || store.aside().map_err(|error| io::Error::new(error.source.kind(), error)))
}

/// The recipe says what `native` was.
fn demands(planned: &Planned, links: Links) -> Demands {
    Demands::new(|name| planned.recipe.value("environment", name), links)
}

/// What is executed inside cannot choose what is opened here: a link or a pipe at its path is refused.
fn open(path: &Path) -> Result<File, PublishError> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = rustix::fs::open(path, flags | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let file = File::from(opened.map_err(|error| PublishError::Open(error.into()))?);
    if file.metadata().map_err(PublishError::Open)?.is_file() {
        return Ok(file);
    }
    Err(PublishError::Open(io::Error::other("not a regular file")))
}

/// The package with this node's signatures and no others, in the store, and its sums. A fingerprint is published once at a
/// time for each machine, as it is made.
fn signed(
    domain: &Domain,
    from: impl Read + Seek,
    gpkg: &Gpkg,
    fingerprint: &Digest,
    owner: Owner,
) -> Result<(Digest, Sums), PublishError> {
    let (key, _made) = domain.signing.obtain()?;
    let key_of_client = |client: PeerId| Digest::of(&[fingerprint.as_bytes().as_slice(), &client.to_bytes()].concat());
    let name = match owner {
        Owner::Client(client) => key_of_client(client),
        Owner::This | Owner::Forgotten => *fingerprint,
    };
    let mut incoming = domain.store.incoming_unnamed(&name, None)?;
    let mut sums = Sums::default();
    let mut signer: &OpenPgpKey = &key;
    let mut to = BufWriter::with_capacity(STEP_BYTES, Into { incoming: &mut incoming, sums: &mut sums });
    gpkg_write::rewrite(from, gpkg, &mut to, Some(&mut signer))?;
    to.flush().map_err(PublishError::Write)?;
    drop(to);
    Ok((incoming.finish()?.digest(), sums))
}

struct Into<'a> {
    incoming: &'a mut Incoming,
    sums: &'a mut Sums,
}

impl Write for Into<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.incoming.append(bytes).map_err(into_io)?;
        self.sums.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn into_io(error: AppendError) -> io::Error {
    let kind = if error.is_full() { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}

fn claim(planned: &Planned, row: &BinpkgRow) -> Claim {
    Claim {
        fingerprint: row.fingerprint,
        cpv: planned.cpv.clone(),
        repo: planned.repo.clone(),
        slot: planned.slot.clone(),
        digest: row.digest,
        size: row.size,
        image: row.image,
        made_at: now_s(),
    }
}

/// What this node says of a package that it built, to the client that it goes to.
pub(super) fn receipt(identity: &Identity, row: &BinpkgRow, client: PeerId) -> Option<SignedClaim> {
    let value = |key| row.entry.iter().find(|(name, _)| *name == key).map(|(_, value)| value);
    let claim = Claim {
        fingerprint: row.fingerprint,
        cpv: row.entry.cpv().clone(),
        repo: value("REPO")?.to_owned(),
        slot: full_slot(value("SLOT").unwrap_or("0")),
        digest: row.digest,
        size: row.size,
        image: row.image,
        made_at: row.added_at,
    };
    Some(claim.receipt(client, identity))
}

/// Row and claim in one step, then the index, then the swarm; and what the row takes the place of goes, which is what was made
/// by the same recipe for the same machine.
fn list(domain: &Domain, row: BinpkgRow, claim: Option<SignedClaim>) -> Result<BinpkgRow, PublishError> {
    let replaced = domain.binhost.of_recipe(&row.fingerprint).into_iter().filter(|old| old.owner == row.owner);
    let replaced: Vec<Digest> = replaced.map(|old| old.digest).collect();
    let key = claim.as_ref().map(claim_key);
    let change = claim.as_ref().zip(key.as_deref()).map(|(claim, key)| RowChange {
        table: RowTable::Claims,
        key,
        value: Some(claim.as_bytes()),
    });
    // Before anybody can ask for its blob.
    domain.announcer.shared().gives().note_packages([(row.digest, row.owner)]);
    domain.binhost.add_with(row.clone(), change.as_slice())?;
    for old in replaced.into_iter().filter(|old| *old != row.digest) {
        domain.binhost.remove(&old)?;
    }
    if let Some(claim) = &claim {
        domain.announcer.shared().gives().note_claim(claim);
        domain.announcer.note(&domain.swarm, claim.claim.digest, domain.store.contains(&claim.claim.digest));
        domain.announcer.note(&domain.swarm, claim.claim.fingerprint, true);
    }
    Ok(row)
}

/// A blob as a file that is read from any place.
pub(crate) fn seekable(blob: &Blob) -> BlobFile<'_> {
    BlobFile { blob, at: 0 }
}

/// See [`seekable`].
pub(crate) struct BlobFile<'a> {
    blob: &'a Blob,
    at: u64,
}

impl Read for BlobFile<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.blob.read_at(self.at, into)?;
        self.at = self.at.saturating_add(read as u64);
        Ok(read)
    }
}

impl Seek for BlobFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.blob.size().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = place.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
