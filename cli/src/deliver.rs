//! `fetch -o`: writes blobs into a directory of the user's. The digest is checked once more on the way, and the name
//! appears only when the bytes are right.

use crate::client::Client;
use crate::exit::Failure;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tree::digest::{Digest, Hasher};
use tree::name::DistfileName;

/// A file without its final name; goes away unless it got one.
struct Unnamed {
    path: PathBuf,
    named: bool,
}

impl Unnamed {
    #[expect(clippy::disallowed_methods, reason = "the user's own directory, as the user; the store is the daemon's")]
    fn create(dir: &Path, digest: &Digest) -> std::io::Result<(Self, File)> {
        let path = dir.join(format!(".peer-{}-{}.part", std::process::id(), digest.short()));
        let file = File::options().write(true).create_new(true).mode(0o644).open(&path)?;
        Ok((Self { path, named: false }, file))
    }

    fn name(mut self, target: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, target)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if !self.named {
            // Best effort: it lies in the user's directory under a name that tells whose it is.
            std::fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}

/// Writes the blob to `dir`/`name`, replacing what is there, and answers the path.
pub(crate) async fn deliver(client: &Client, name: &str, digest: &str, dir: &Path) -> Result<PathBuf, Failure> {
    let wrong = |why: String| Failure::Garbled { doing: format!("write {name}"), why };
    let digest: Digest = digest.parse().map_err(|error| wrong(format!("{error}")))?;
    let name: DistfileName = name.parse().map_err(|error| wrong(format!("{error}")))?;
    let target = dir.join(name.as_str());
    let doing = || format!("cannot write {}", target.display());
    std::fs::create_dir_all(dir).map_err(|error| Failure::local(doing(), error))?;
    let (unnamed, mut file) = Unnamed::create(dir, &digest).map_err(|error| Failure::local(doing(), error))?;
    let mut hasher = Hasher::new(false);
    let write = |bytes: &[u8]| {
        hasher.update(bytes);
        file.write_all(bytes).map_err(|error| Failure::local(doing(), error))
    };
    client.bytes(&format!("read {name} from the store"), &format!("/v1/blob/{digest}"), write).await?;
    let (found, _) = hasher.finish();
    if found != digest {
        return Err(Failure::Unverified { what: format!("{name} left the store with other bytes than its digest") });
    }
    file.sync_all().and_then(|()| unnamed.name(&target)).map_err(|error| Failure::local(doing(), error))?;
    Ok(target)
}
