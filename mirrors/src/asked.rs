//! What someone asks of our own distfiles mirror: the layouts of [`crate::layout`] read the other way.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use thiserror::Error;
use tree::digest::{Digest, Sha512};
use tree::name::DistfileName;

use crate::layout::{Algo, name_hex, quote};

/// A request path longer than this is no path of ours: two digits, a slash, and a name of at most 255 bytes, each of
/// which may be spelled in three.
const REQUEST_MAX: usize = 1024;

/// What someone asks of *our* distfiles mirror.
///
/// `Display` is the path below `distfiles/` that Portage would ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// `XX/<128 hex>`: content-hash BLAKE2B 8.
    ByDigest(Digest),
    /// `XX/YY/ZZ/<128 hex>`: content-hash SHA512 8:8:8.
    BySha512(Sha512),
    /// `XX/NAME` (filename-hash BLAKE2B 8) or `NAME` (flat).
    ByName(DistfileName),
}

/// Why a request path names no distfile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseRequestPathError {
    /// Longer than any distfile's path.
    #[error("the path has {0} bytes, which no distfile's path has")]
    TooLong(usize),
    /// Two slashes in a row, or one at either end (a cutoff of 0 would ask so).
    #[error("the path has an empty component")]
    EmptyComponent,
    /// Percent-encoding that is not UTF-8.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// Not a name a distfile can have.
    #[error("{0:?} is not a distfile name")]
    Name(String),
    /// The directories are not those of the file.
    #[error("{path:?} is not where {name:?} is kept")]
    WrongDirectory {
        /// The directories asked for.
        path: String,
        /// The last component.
        name: String,
    },
}

/// Reads a path below `/distfiles/` that is **already percent-decoded, once** (what axum's `Path` gives). The raw path of a
/// request line is read by [`Asked`]'s `FromStr`. Real names hold literal percent signs, so decoding twice is wrong.
///
/// # Errors
/// When it is not the path of any distfile in a layout of [`crate::layout::LayoutConf::ours`] (or content-hash SHA512
/// 8:8:8).
pub fn parse_request_path(path: &str) -> Result<Asked, ParseRequestPathError> {
    if path.len() > REQUEST_MAX {
        return Err(ParseRequestPathError::TooLong(path.len()));
    }
    parse_components(&path.split('/').map(Cow::Borrowed).collect::<Vec<_>>())
}

impl FromStr for Asked {
    type Err = ParseRequestPathError;

    /// Reads a path below `/distfiles/` as it stands in a request line, percent-encoded; an encoded slash makes no
    /// directory.
    fn from_str(path: &str) -> Result<Self, Self::Err> {
        if path.len() > REQUEST_MAX {
            return Err(ParseRequestPathError::TooLong(path.len()));
        }
        let decoded: Result<Vec<_>, _> = path.split('/').map(|one| percent_decode_str(one).decode_utf8()).collect();
        parse_components(&decoded.map_err(|_| ParseRequestPathError::NotUtf8)?)
    }
}

fn parse_components(components: &[Cow<'_, str>]) -> Result<Asked, ParseRequestPathError> {
    if components.iter().any(|component| component.is_empty()) {
        return Err(ParseRequestPathError::EmptyComponent);
    }
    let Some((last, directories)) = components.split_last() else {
        return Err(ParseRequestPathError::EmptyComponent);
    };
    let elsewhere =
        || ParseRequestPathError::WrongDirectory { path: directories.join("/"), name: last.clone().into_owned() };
    match directories {
        [] => Ok(Asked::ByName(distfile_name(last)?)),
        [directory] => {
            if let Some(digest) = digest::<Digest>(last)
                && last.get(..2) == Some(directory.as_ref())
            {
                return Ok(Asked::ByDigest(digest));
            }
            let name = distfile_name(last)?;
            if name_hex(Algo::Blake2b, last).get(..2) == Some(directory.as_ref()) {
                Ok(Asked::ByName(name))
            } else {
                Err(elsewhere())
            }
        }
        [first, second, third] => {
            let fits = [(0, first), (2, second), (4, third)]
                .iter()
                .all(|(at, directory)| last.get(*at..at + 2) == Some(directory.as_ref()));
            digest(last).filter(|_| fits).map(Asked::BySha512).ok_or_else(elsewhere)
        }
        _ => Err(elsewhere()),
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByDigest(digest) => {
                let hex = digest.to_string();
                write!(f, "{}/{hex}", hex.get(..2).unwrap_or_default())
            }
            Self::BySha512(digest) => {
                let hex = digest.to_string();
                let cut = |from: usize| hex.get(from..from + 2).unwrap_or_default();
                write!(f, "{}/{}/{}/{hex}", cut(0), cut(2), cut(4))
            }
            Self::ByName(name) => {
                let name: &str = name.as_ref();
                // A name that looks like a digest is only unambiguous without directories.
                if digest::<Digest>(name).is_none() {
                    write!(f, "{}/", name_hex(Algo::Blake2b, name).get(..2).unwrap_or_default())?;
                }
                f.write_str(&quote(name))
            }
        }
    }
}

/// 128 lower-case hex digits, as Portage spells a digest.
fn digest<D: FromStr>(text: &str) -> Option<D> {
    if text.len() != 128 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    D::from_str(text).ok()
}

fn distfile_name(text: &str) -> Result<DistfileName, ParseRequestPathError> {
    DistfileName::from_str(text).map_err(|_| ParseRequestPathError::Name(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LayoutConf;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use tree::distfile::Distfile;

    fn encoded(path: &str) -> Result<Asked, ParseRequestPathError> {
        path.parse()
    }

    fn distfile(name: &str) -> Distfile {
        Distfile { name: name.parse().unwrap(), size: 7, blake2b: Digest::of(b"content"), sha512: None }
    }

    #[test]
    fn each_of_our_layouts_is_understood_when_we_are_asked() {
        let hex = Digest::of(b"content").to_string();
        let sha512 = Sha512::of(b"content");
        let name = || Asked::ByName("hello-c-1.0.tar.gz".parse().unwrap());
        assert_eq!(encoded("hello-c-1.0.tar.gz"), Ok(name()));
        assert_eq!(encoded("1c/hello-c-1.0.tar.gz"), Ok(name()));
        assert_eq!(encoded(&format!("{}/{hex}", &hex[..2])), Ok(Asked::ByDigest(Digest::of(b"content"))));
        assert_eq!(encoded(&Asked::BySha512(sha512).to_string()), Ok(Asked::BySha512(sha512)));
        assert_eq!(encoded("a%2Bb"), Ok(Asked::ByName("a+b".parse().unwrap())));
    }

    #[test]
    fn a_name_with_a_percent_sign_is_decoded_once() {
        let name = Asked::ByName("wasi-0.10.0%2Bwasi-snapshot-preview1.crate".parse().unwrap());
        assert_eq!(encoded("wasi-0.10.0%252Bwasi-snapshot-preview1.crate"), Ok(name.clone()));
        assert_eq!(parse_request_path("wasi-0.10.0%2Bwasi-snapshot-preview1.crate"), Ok(name));
        assert_eq!(parse_request_path("1c//x"), Err(ParseRequestPathError::EmptyComponent));
        assert!(parse_request_path(&"a".repeat(REQUEST_MAX + 1)).is_err());
    }

    #[test]
    fn a_path_that_fits_no_layout_is_refused() {
        use ParseRequestPathError as E;
        let hex = Digest::of(b"content").to_string();
        assert_eq!(encoded(""), Err(E::EmptyComponent));
        assert_eq!(encoded("/f"), Err(E::EmptyComponent));
        assert_eq!(encoded("1c//f"), Err(E::EmptyComponent));
        assert_eq!(encoded("1c/"), Err(E::EmptyComponent));
        assert_eq!(encoded("%ff"), Err(E::NotUtf8));
        assert_eq!(encoded(&"a".repeat(REQUEST_MAX + 1)), Err(E::TooLong(REQUEST_MAX + 1)));
        for name in ["..", ".", ".hidden", "a%2Fb", "%2e%2e", "a%00"] {
            assert!(matches!(encoded(name), Err(E::Name(_))), "{name}");
        }
        for path in
            ["1d/hello-c-1.0.tar.gz", "1C/hello-c-1.0.tar.gz", "1c/a1/hello-c-1.0.tar.gz", "../hello-c-1.0.tar.gz"]
        {
            assert!(matches!(encoded(path), Err(E::WrongDirectory { .. })), "{path}");
        }
        let wrong = format!("{:02x}/{hex}", !Digest::of(b"content").as_bytes()[0]);
        assert!(encoded(&wrong).is_err());
        assert!(encoded(&format!("{0}/{0}/{0}/{hex}", &hex[..2])).is_err());
        assert!(encoded(&hex.to_uppercase()).is_ok_and(|asked| matches!(asked, Asked::ByName(_))));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_fall(text in ".{0,200}") {
            drop(encoded(&text));
            drop(parse_request_path(&text));
        }

        #[test]
        fn what_is_asked_prints_back(path in "([0-9a-f]{2}/){0,3}[a-z0-9%+.~-]{1,12}") {
            if let Ok(asked) = encoded(&path) {
                prop_assert_eq!(asked.to_string().parse(), Ok(asked));
            }
        }

        #[test]
        fn whatever_portage_asks_of_our_layouts_is_understood(name in "[a-zA-Z0-9_+é%@~-][a-zA-Z0-9_+.é%@~-]{0,40}") {
            let distfile = distfile(&name);
            let by_name = Asked::ByName(distfile.name.clone());
            for (layout, wanted) in
                LayoutConf::ours().layouts().iter().zip([Asked::ByDigest(distfile.blake2b), by_name.clone(), by_name])
            {
                prop_assert_eq!(encoded(&layout.path(&distfile).unwrap()), Ok(wanted.clone()));
                prop_assert_eq!(wanted.to_string().parse(), Ok(wanted));
            }
        }

        #[test]
        fn a_name_that_looks_like_a_digest_prints_back(bytes in any::<[u8; 32]>()) {
            let hex: String = bytes.iter().chain(&bytes).map(|byte| format!("{byte:02x}")).collect();
            let asked = Asked::ByName(hex.parse().unwrap());
            prop_assert_eq!(asked.to_string().parse(), Ok(asked));
        }
    }
}
