//! A gpkg written anew: the same metadata and image without signatures or with others, in Portage's order and format.
//!
//! Nothing of the outcome depends on the time or the machine but the signatures: the container's headers have no times.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::error::Error;
use std::io::{self, Read, Seek, SeekFrom, Write};

use thiserror::Error;

use crate::digest::{Digest, Hasher, Sha512};
use crate::gpkg::{Gpkg, Member, SIGNATURE_BYTES_MAX};
use crate::gpkg_manifest::DataLine;

/// A size that ustar's eleven octal digits cannot hold.
const USTAR_BYTES_MAX: u64 = 1 << 33;
/// A directory's name from which on Portage writes GNU headers, because ustar's prefix has no room for it.
const USTAR_BASENAME_MAX: usize = 154;

/// Makes the OpenPGP signatures of a gpkg (RFC 9580).
pub trait GpkgSigner {
    /// A detached binary signature of the content.
    ///
    /// # Errors
    /// When the content cannot be read or the key cannot sign.
    fn detached(&mut self, content: &mut dyn Read) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>>;

    /// The text in a clear-text signature.
    ///
    /// # Errors
    /// When the key cannot sign.
    fn clear(&mut self, text: &str) -> Result<String, Box<dyn Error + Send + Sync>>;
}

/// Why a gpkg is not rewritten.
#[derive(Debug, Error)]
pub enum RewriteGpkgError {
    /// A member cannot be read, or the new package cannot be written.
    #[error("cannot copy {name} of a binary package")]
    Copy {
        /// The member.
        name: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The file is another one than the one that was read.
    #[error("{name} of a binary package changed since it was read")]
    Changed {
        /// The member.
        name: String,
    },
    /// The signer did not sign.
    #[error("cannot sign {name} of a binary package")]
    Sign {
        /// The member.
        name: String,
        /// The signer's reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A signature is larger than readers believe in.
    #[error("the signature of {name} has {found} bytes: at most {SIGNATURE_BYTES_MAX} are read")]
    SignatureTooLarge {
        /// The member.
        name: String,
        /// Its bytes.
        found: usize,
    },
}

/// Writes the package anew: with the signer's signatures, or with none. `from` is what the package was read from.
///
/// # Errors
/// When something cannot be read, written or signed, or `from` is not what was read.
pub fn rewrite(
    mut from: impl Read + Seek,
    gpkg: &Gpkg,
    to: impl Write,
    mut signer: Option<&mut dyn GpkgSigner>,
) -> Result<(), RewriteGpkgError> {
    let mut writing = Writing { container: tar::Builder::new(to), basename: &gpkg.basename, lines: Vec::new() };
    let [identifier, metadata, image] = gpkg.kept_members();
    writing.copy(&mut from, identifier)?;
    for member in [metadata, image] {
        writing.copy(&mut from, member)?;
        if let Some(signer) = &mut signer {
            writing.sign(&mut from, member, *signer)?;
        }
    }
    writing.finish(signer)
}

struct Writing<'a, W: Write> {
    container: tar::Builder<W>,
    basename: &'a str,
    lines: Vec<DataLine>,
}

impl<W: Write> Writing<'_, W> {
    fn copy(&mut self, from: &mut (impl Read + Seek), member: &Member) -> Result<(), RewriteGpkgError> {
        let mut content = Hashing { content: seek_to(from, member)?, hasher: Hasher::new(true) };
        let name = || member.line.name.clone();
        self.append(&member.line.name, member.line.size, &mut content)
            .map_err(|source| RewriteGpkgError::Copy { name: name(), source })?;
        let (blake2b, sha512) = content.hasher.finish();
        if blake2b != member.line.blake2b || sha512 != Some(member.line.sha512) {
            return Err(RewriteGpkgError::Changed { name: name() });
        }
        self.lines.push(member.line.clone());
        Ok(())
    }

    fn sign(
        &mut self,
        from: &mut (impl Read + Seek),
        member: &Member,
        signer: &mut dyn GpkgSigner,
    ) -> Result<(), RewriteGpkgError> {
        let name = member.line.name.clone();
        let mut content = seek_to(from, member)?;
        let signature = match signer.detached(&mut content) {
            Ok(signature) if signature.len() as u64 > SIGNATURE_BYTES_MAX => {
                return Err(RewriteGpkgError::SignatureTooLarge { name, found: signature.len() });
            }
            Ok(signature) => signature,
            Err(source) => return Err(RewriteGpkgError::Sign { name, source }),
        };
        self.append_bytes(&format!("{name}.sig"), &signature, true)
    }

    fn finish(mut self, signer: Option<&mut dyn GpkgSigner>) -> Result<(), RewriteGpkgError> {
        const NAME: &str = "Manifest";
        let mut manifest: String = self.lines.iter().map(|line| line.text() + "\n").collect();
        if let Some(signer) = signer {
            manifest =
                signer.clear(&manifest).map_err(|source| RewriteGpkgError::Sign { name: NAME.to_owned(), source })?;
        }
        self.append_bytes(NAME, manifest.as_bytes(), false)?;
        let failed = |source| RewriteGpkgError::Copy { name: NAME.to_owned(), source };
        self.container.into_inner().and_then(|mut to| to.flush()).map_err(failed)
    }

    fn append_bytes(&mut self, name: &str, bytes: &[u8], listed: bool) -> Result<(), RewriteGpkgError> {
        let size = bytes.len() as u64;
        self.append(name, size, bytes).map_err(|source| RewriteGpkgError::Copy { name: name.to_owned(), source })?;
        if listed {
            let (blake2b, sha512) = (Digest::of(bytes), Sha512::of(bytes));
            self.lines.push(DataLine { name: name.to_owned(), size, blake2b, sha512 });
        }
        Ok(())
    }

    fn append(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        let large = size >= USTAR_BYTES_MAX || self.basename.len() >= USTAR_BASENAME_MAX;
        let mut header = if large { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header.set_mtime(0);
        if !large {
            header.set_device_major(0)?;
            header.set_device_minor(0)?;
        }
        self.container.append_data(&mut header, format!("{}/{name}", self.basename), content)
    }
}

fn seek_to<'a, R: Read + Seek>(from: &'a mut R, member: &Member) -> Result<io::Take<&'a mut R>, RewriteGpkgError> {
    match from.seek(SeekFrom::Start(member.offset)) {
        Ok(_) => Ok(from.take(member.line.size)),
        Err(source) => Err(RewriteGpkgError::Copy { name: member.line.name.clone(), source }),
    }
}

/// Hashes what is read through it.
struct Hashing<R> {
    content: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(bytes)?;
        self.hasher.update(bytes.get(..read).unwrap_or_default());
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::gpkg_made::Made;

    struct Refusing;

    impl GpkgSigner for Refusing {
        fn detached(&mut self, _: &mut dyn Read) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
            Err("the key is locked".into())
        }

        fn clear(&mut self, _: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
            Err("the key is locked".into())
        }
    }

    #[test]
    fn a_signature_is_stripped_and_the_rest_stays() {
        let bytes = Made { signed: true, ..Made::default() }.bytes();
        let gpkg = Gpkg::read(Cursor::new(&bytes)).unwrap();
        let mut stripped = Vec::new();
        rewrite(Cursor::new(&bytes), &gpkg, &mut stripped, None).unwrap();
        let again = Gpkg::read(Cursor::new(&stripped)).unwrap();
        assert!(!again.signed);
        assert_eq!((again.basename, again.metadata), (gpkg.basename, gpkg.metadata));
    }

    #[test]
    fn a_name_longer_than_ustars_survives() {
        let made = Made::default();
        let basename = format!("{}-1.0-1", "x".repeat(240));
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in made.members_with_manifest() {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, format!("{basename}/{name}"), &bytes[..]).unwrap();
        }
        let bytes = archive.into_inner().unwrap();
        let gpkg = Gpkg::read(Cursor::new(&bytes)).unwrap();
        let mut written = Vec::new();
        rewrite(Cursor::new(&bytes), &gpkg, &mut written, None).unwrap();
        assert_eq!(Gpkg::read(Cursor::new(&written)).unwrap().basename, basename);
    }

    #[test]
    fn a_signer_that_refuses_and_a_file_that_changed_stop_it() {
        let mut bytes = Made::default().bytes();
        let gpkg = Gpkg::read(Cursor::new(&bytes)).unwrap();
        let refused = rewrite(Cursor::new(&bytes), &gpkg, io::sink(), Some(&mut Refusing));
        assert!(matches!(refused, Err(RewriteGpkgError::Sign { name, .. }) if name == "metadata.tar.zst"));
        let [_, metadata, _] = gpkg.kept_members();
        bytes[usize::try_from(metadata.offset).unwrap() + 20] ^= 1;
        let changed = rewrite(Cursor::new(&bytes), &gpkg, io::sink(), None);
        assert!(matches!(changed, Err(RewriteGpkgError::Changed { name }) if name == "metadata.tar.zst"));
        let cut = rewrite(Cursor::new(&bytes[..1000]), &gpkg, io::sink(), None);
        assert!(cut.is_err());
    }
}
