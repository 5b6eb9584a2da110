//! Where a binary package lies below the binhost's address: its digest is its name.

use tree::digest::Digest;

/// Where the index says that a package is, below the binhost's address: the digest is the name, so that no other bytes
/// ever have it.
#[must_use]
pub fn path_of(digest: &Digest) -> String {
    let text = digest.to_string();
    format!("{}/{text}.gpkg.tar", text.get(..2).unwrap_or_default())
}

/// The digest that a path of [`path_of`] names.
#[must_use]
pub fn parse_path(path: &str) -> Option<Digest> {
    let (_, name) = path.split_once('/')?;
    let digest: Digest = name.strip_suffix(".gpkg.tar")?.parse().ok()?;
    (path_of(&digest) == path).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_digest_and_other_paths_none() {
        let digest = Digest::of(b"x");
        let path = path_of(&digest);
        assert_eq!(parse_path(&path), Some(digest));
        for wrong in [
            path.to_uppercase(),
            format!("x{path}"),
            format!("/{path}"),
            path.replacen('/', "//", 1),
            path.replace(".gpkg.tar", ".tbz2"),
            format!("00/{digest}.gpkg.tar"),
            digest.to_string(),
            String::new(),
        ] {
            assert_eq!(parse_path(&wrong), None, "{wrong}");
        }
    }
}
