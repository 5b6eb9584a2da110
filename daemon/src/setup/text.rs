//! The bytes of a configuration file as text, and back.

use super::{FILE_BYTES_MAX, SetupError};
use std::path::Path;

/// A text that somebody else wrote. One that is no UTF-8 (old comments are in Latin-1) is taken byte by byte, so that what
/// is not changed stays as it is; Portage, too, passes over such bytes.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) is_latin1: bool,
}

impl Text {
    pub(super) fn read(path: &Path) -> Result<Self, SetupError> {
        let failed = |source| SetupError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(SetupError::NotText { path: path.to_owned() });
        }
        Ok(match String::from_utf8(std::fs::read(path).map_err(failed)?) {
            Ok(text) => Self { text, is_latin1: false },
            Err(error) => Self { text: error.as_bytes().iter().copied().map(char::from).collect(), is_latin1: true },
        })
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        if self.is_latin1 {
            // Each came from a byte, and what is put in is ASCII.
            self.text.chars().map(|character| u8::try_from(character).unwrap_or(b'?')).collect()
        } else {
            self.text.into_bytes()
        }
    }
}
