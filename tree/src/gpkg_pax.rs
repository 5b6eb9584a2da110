//! What stands before a tar member and overrides its header: GNU's long names, and the records of a pax header (POSIX.1-2001).
//!
//! Python's `tarfile` takes a header that it finds broken in mid-archive for the archive's end, without a word. What is read
//! here must be what is installed there, so that only what `tarfile` finds whole is taken.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use crate::gpkg_tar::text_field;

/// Digits of a pax record's length; Python's `tarfile` takes more for a broken header, and a broken header for the end.
const LENGTH_DIGITS_MAX: usize = 20;
/// Bytes of a time in a pax header: seconds with nanoseconds have some twenty.
const TIME_BYTES_MAX: usize = 32;

/// What long names and a pax header say of the member behind them. Each thing is said once: of two, `tarfile` takes the
/// first and other readers the last.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    /// Whether any header said something.
    pub(crate) is_pending: bool,
    has_pax: bool,
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) group: Option<Vec<u8>>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) size: Option<u64>,
}

/// Sets what nothing has set before.
fn say<T>(field: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err("a member is given the same twice by long names or pax records"),
    }
}

impl Overrides {
    /// Takes what a header of such a kind says.
    pub(crate) fn take(&mut self, kind: u8, said: &[u8]) -> Result<(), &'static str> {
        self.is_pending = true;
        match kind {
            b'L' => say(&mut self.path, text_field(said).to_vec()),
            b'K' => say(&mut self.link, text_field(said).to_vec()),
            _ if std::mem::replace(&mut self.has_pax, true) => Err("a member has two pax headers"),
            _ => self.take_pax(said),
        }
    }

    /// Takes the records `LENGTH KEY=VALUE` of a pax header (POSIX.1-2001).
    fn take_pax(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        const FAULT: &str = "a pax header is broken";
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or(FAULT)?;
            let (digits, _) = records.split_at_checked(space).ok_or(FAULT)?;
            if digits.is_empty() || digits.len() > LENGTH_DIGITS_MAX {
                return Err(FAULT);
            }
            let length = decimal(digits).and_then(|length| usize::try_from(length).ok()).ok_or(FAULT)?;
            let (record, rest) = records.split_at_checked(length).ok_or(FAULT)?;
            let record =
                record.get(space.saturating_add(1)..).and_then(|record| record.strip_suffix(b"\n")).ok_or(FAULT)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(FAULT)?;
            let (key, value) = record.split_at_checked(equals).ok_or(FAULT)?;
            self.take_record(key, value.get(1..).ok_or(FAULT)?)?;
            records = rest;
        }
        Ok(())
    }

    fn take_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let text = |value: &[u8]| {
            if value.contains(&0) { Err("a pax value has a zero byte") } else { Ok(value.to_vec()) }
        };
        let number = |value: &[u8]| decimal(value).ok_or("a pax number is none");
        match key {
            b"path" => say(&mut self.path, text(value)?),
            b"linkpath" => say(&mut self.link, text(value)?),
            b"uname" => say(&mut self.user, text(value)?),
            b"gname" => say(&mut self.group, text(value)?),
            b"uid" => say(&mut self.uid, number(value)?),
            b"gid" => say(&mut self.gid, number(value)?),
            b"size" => say(&mut self.size, number(value)?),
            b"mtime" | b"atime" | b"ctime" if is_time(value) => Ok(()),
            b"mtime" | b"atime" | b"ctime" => Err("a pax time is none"),
            b"comment" => Ok(()),
            // Sparse files, other character sets, attributes: their content would read differently elsewhere.
            _ => Err("a pax header has a key that no binary package has"),
        }
    }
}

/// Seconds since 1970, perhaps below zero, perhaps with a fraction; nothing that a floating point number can be besides.
fn is_time(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let is_digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let mut parts = digits.split(|byte| *byte == b'.');
    let is_whole = parts.next().is_some_and(is_digits);
    let fraction = parts.next().is_none_or(is_digits);
    value.len() <= TIME_BYTES_MAX && is_whole && fraction && parts.next().is_none()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}
