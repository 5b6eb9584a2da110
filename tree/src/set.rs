//! Files of package sets: `/var/lib/portage/world` and `world_sets`, and those of `/etc/portage/sets` (portage(5)).
//!
//! One item a line: its first word, an atom or the name of a set with `@` in front. Portage reads them with replacements for
//! what is not UTF-8, takes any kind of line end, and leaves out a line that is neither (`portage/env/loaders.py`,
//! `ItemFileLoader`). So does this, and remembers which.

use std::collections::BTreeSet;
use std::path::Path;

use thiserror::Error;

use crate::atom::{Atom, ParseAtomError};
use crate::confine::{self, ReadFileError};

/// Bytes of a file; a world file of thousands of packages has some hundred kilobytes.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Lines that are remembered as left out.
pub const LEFT_OUT_MAX: usize = 1000;
/// Characters that are kept of such a line.
const TEXT_MAX: usize = 200;

/// Which items a file may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Items {
    /// Atoms: the world file.
    Atoms,
    /// Names of sets: world_sets.
    Sets,
    /// Both: a file of `/etc/portage/sets`.
    Both,
}

/// Why a line is in no set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LeftOut {
    /// It is no atom.
    #[error("it is no atom: {0}")]
    Atom(#[from] ParseAtomError),
    /// A set where only atoms may stand.
    #[error("a set does not belong into this file: world_sets names sets")]
    Set,
    /// Something else where only sets may stand.
    #[error("it is no set: the names of sets begin with @")]
    NoSet,
}

/// A line that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOutLine {
    /// Which, from 1.
    pub line: u64,
    /// Its first word, cut.
    pub text: String,
    /// Why.
    pub why: LeftOut,
}

/// One item with the line it stands in, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<T> {
    /// The line.
    pub line: u64,
    /// As it is written there.
    pub text: String,
    /// What it is.
    pub value: T,
}

/// The content of such a file. Each item is there once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetFile {
    /// The atoms.
    pub atoms: Vec<Item<Atom>>,
    /// The sets that it names, without `@`.
    pub sets: Vec<Item<String>>,
    /// The lines that are neither, at most [`LEFT_OUT_MAX`].
    pub left_out: Vec<LeftOutLine>,
}

impl SetFile {
    /// Reads a file, through links as Portage does.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is larger than [`FILE_BYTES_MAX`].
    pub fn read(path: &Path, items: Items) -> Result<Self, ReadFileError> {
        Ok(Self::parse(&confine::read(path, FILE_BYTES_MAX)?, items))
    }

    /// Reads the content of a file.
    #[must_use]
    pub fn parse(bytes: &[u8], items: Items) -> Self {
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n").replace('\r', "\n");
        let mut file = Self::default();
        let mut seen = BTreeSet::new();
        for (line, number) in text.split('\n').zip(1_u64..) {
            let Some(word) = line.split(is_space).find(|word| !word.is_empty()) else { continue };
            if word.starts_with('#') || seen.contains(word) {
                continue;
            }
            let text = word.to_owned();
            match (word.strip_prefix('@'), items) {
                (Some(set), Items::Sets | Items::Both) => {
                    seen.insert(word);
                    file.sets.push(Item { line: number, text, value: set.to_owned() });
                }
                (Some(_), Items::Atoms) => file.leave_out(number, word, LeftOut::Set),
                (None, Items::Sets) => file.leave_out(number, word, LeftOut::NoSet),
                (None, Items::Atoms | Items::Both) => match word.parse() {
                    Ok(value) => {
                        seen.insert(word);
                        file.atoms.push(Item { line: number, text, value });
                    }
                    Err(error) => file.leave_out(number, word, LeftOut::Atom(error)),
                },
            }
        }
        file
    }

    fn leave_out(&mut self, line: u64, word: &str, why: LeftOut) {
        if self.left_out.len() < LEFT_OUT_MAX {
            self.left_out.push(LeftOutLine { line, text: word.chars().take(TEXT_MAX).collect(), why });
        }
    }
}

/// What Python's `str.split` parts words at.
fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_with_its_line() {
        let file = SetFile::parse(b"a/b\n<<<<<<< HEAD\n@mine\r\n# \xfc\n\n  c/d:1 # why\n", Items::Both);
        let atoms: Vec<(u64, &str)> = file.atoms.iter().map(|item| (item.line, item.text.as_str())).collect();
        assert_eq!(atoms, [(1, "a/b"), (6, "c/d:1")]);
        assert_eq!(file.sets, [Item { line: 3, text: "@mine".to_owned(), value: "mine".to_owned() }]);
        let left: Vec<(u64, &str)> = file.left_out.iter().map(|line| (line.line, line.text.as_str())).collect();
        assert_eq!(left, [(2, "<<<<<<<")]);
        let world = SetFile::parse(b"a/b\n@mine\n", Items::Atoms);
        assert_eq!((world.atoms.len(), world.sets.len(), world.left_out.len()), (1, 0, 1));
        let sets = SetFile::parse(b"a/b\n@mine\n", Items::Sets);
        assert_eq!((sets.atoms.len(), sets.sets.len(), sets.left_out.len()), (0, 1, 1));
    }

    #[test]
    fn a_file_of_nonsense_is_bounded() {
        let file = SetFile::parse("a/b\n-\n@c\n".repeat(5).as_bytes(), Items::Both);
        assert_eq!((file.atoms.len(), file.sets.len(), file.left_out.len()), (1, 1, 5));
        let many: String = (0..LEFT_OUT_MAX + 10).map(|number| format!("x{number}\n")).collect();
        assert_eq!(SetFile::parse(many.as_bytes(), Items::Both).left_out.len(), LEFT_OUT_MAX);
    }
}
