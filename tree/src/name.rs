//! Names: of categories, packages, repositories, USE flags and distfiles (PMS 3.1).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::version;

/// No name is longer: each is, or is part of, one file name of a Linux file system.
pub const NAME_BYTES_MAX: usize = 255;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseNameError {
    /// Nothing there.
    #[error("a {what} cannot be empty")]
    Empty {
        /// Which kind of name was expected.
        what: &'static str,
    },
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a {what} of {found} bytes: at most 255 are allowed")]
    TooLong {
        /// Which kind of name was expected.
        what: &'static str,
        /// Bytes of the text.
        found: usize,
    },
    /// It begins with a character that may stand only further on.
    #[error("{text:?} is not a {what}: it cannot begin with {first:?}")]
    First {
        /// Which kind of name was expected.
        what: &'static str,
        /// The text.
        text: String,
        /// Its first character.
        first: char,
    },
    /// A character that may stand nowhere in it.
    #[error("{text:?} is not a {what}: {found:?} cannot be part of it")]
    Character {
        /// Which kind of name was expected.
        what: &'static str,
        /// The text.
        text: String,
        /// The first wrong character.
        found: char,
    },
    /// It ends like a version (PMS 3.1.2), so nobody could tell where the name ends.
    #[error("{text:?} is not a {what}: it ends in a hyphen and a version")]
    EndsLikeAVersion {
        /// Which kind of name was expected.
        what: &'static str,
        /// The text.
        text: String,
    },
}

fn check(
    what: &'static str,
    text: &str,
    first_allowed: fn(char) -> bool,
    allowed: fn(char) -> bool,
) -> Result<(), ParseNameError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(ParseNameError::TooLong { what, found: text.len() });
    }
    let first = text.chars().next().ok_or(ParseNameError::Empty { what })?;
    if let Some(found) = text.chars().find(|character| !allowed(*character)) {
        return Err(ParseNameError::Character { what, text: text.to_owned(), found });
    }
    if !first_allowed(first) {
        return Err(ParseNameError::First { what, text: text.to_owned(), first });
    }
    Ok(())
}

fn check_not_versioned(what: &'static str, text: &str) -> Result<(), ParseNameError> {
    if version::split_package_version(text).is_some() {
        return Err(ParseNameError::EndsLikeAVersion { what, text: text.to_owned() });
    }
    Ok(())
}

fn word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ParseNameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let check: fn(&str) -> Result<(), ParseNameError> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// A category, like `dev-libs`: `[A-Za-z0-9+_.-]`, not beginning with a hyphen, a dot or a plus sign (PMS 3.1.1).
    Category,
    |text| check("category", text, word, |c| word(c) || matches!(c, '+' | '.' | '-'))
}

name_type! {
    /// A package name, like `gtk+`: `[A-Za-z0-9+_-]`, not beginning with a hyphen or a plus sign and not ending like a
    /// version (PMS 3.1.2).
    PackageName,
    |text| {
        check("package name", text, word, |c| word(c) || matches!(c, '+' | '-'))?;
        check_not_versioned("package name", text)
    }
}

name_type! {
    /// The name of an ebuild repository: `[A-Za-z0-9_-]`, not beginning with a hyphen, and a valid package name (PMS 3.1.5).
    RepoName,
    |text| {
        check("repository name", text, word, |c| word(c) || c == '-')?;
        check_not_versioned("repository name", text)
    }
}

name_type! {
    /// A USE flag: `[A-Za-z0-9+_@-]`, beginning with a letter or a digit (PMS 3.1.4).
    UseFlag,
    |text| check("USE flag", text, |c| c.is_ascii_alphanumeric(), |c| word(c) || matches!(c, '+' | '@' | '-'))
}

name_type! {
    /// The name of a slot or sub-slot: `[A-Za-z0-9+_.-]`, not beginning with a hyphen, a dot or a plus sign (PMS 3.1.3).
    SlotName,
    |text| check("slot", text, word, |c| word(c) || matches!(c, '+' | '.' | '-'))
}

name_type! {
    /// The name of a distfile. It is one component of a path and cannot leave a directory: no slash, no NUL or other
    /// control character, no white space, no dot at its beginning, at most 255 bytes.
    DistfileName,
    |text| check("distfile name", text, |c| c != '.', |c| c != '/' && !c.is_control() && !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distfile_name_cannot_leave_its_directory() {
        for bad in ["", ".", "..", ".hidden", "../etc/passwd", "a/b", "/", "a\0b", "a\nb", "a b", "a\u{85}", "a\u{7f}"]
        {
            assert!(bad.parse::<DistfileName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(256).parse::<DistfileName>().is_err());
        assert!("é".repeat(128).parse::<DistfileName>().is_err());
    }

    #[test]
    fn odd_but_real_distfile_names_are_fine() {
        for good in
            ["wasi-0.10.0%2Bwasi-snapshot-preview1.crate", "a..b", "naïve.tar", "@scope%2fname.tgz", "-x", "a:b", "~"]
        {
            assert_eq!(good.parse::<DistfileName>().unwrap().to_string(), good);
        }
        assert!("a".repeat(255).parse::<DistfileName>().is_ok());
    }

    #[test]
    fn a_package_name_does_not_end_like_a_version() {
        for good in ["foo", "gtk+", "foo-bar", "foo-1a2", "a52dec", "foo-", "f--", "_x", "font-adobe-100dpi"] {
            assert_eq!(good.parse::<PackageName>().unwrap().as_str(), good);
        }
        for bad in ["foo-1", "foo-1-r1", "foo-1_rc2", "foo-2a", "", "-foo", "+foo", "foo.bar", "foo/bar", "ä"] {
            assert!(bad.parse::<PackageName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn categories_slots_flags_and_repositories() {
        for good in ["dev-libs", "virtual", "_x", "a+b.c-d"] {
            assert!(good.parse::<Category>().is_ok() && good.parse::<SlotName>().is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "-a", "+a", ".a", "a b", "a/b", "a:b"] {
            assert!(bad.parse::<Category>().is_err() && bad.parse::<SlotName>().is_err(), "{bad:?}");
        }
        assert!("python_targets_python3_12".parse::<UseFlag>().is_ok() && "l10n_sr@latin".parse::<UseFlag>().is_ok());
        assert!(
            "_x".parse::<UseFlag>().is_err() && "-x".parse::<UseFlag>().is_err() && "a?".parse::<UseFlag>().is_err()
        );
        assert!("gentoo".parse::<RepoName>().is_ok() && "x-portage".parse::<RepoName>().is_ok());
        assert!("a.b".parse::<RepoName>().is_err() && "-a".parse::<RepoName>().is_err());
    }

    #[test]
    fn the_error_quotes_the_text_and_the_character() {
        assert_eq!(
            "a/b".parse::<DistfileName>().unwrap_err().to_string(),
            "\"a/b\" is not a distfile name: '/' cannot be part of it"
        );
    }
}
