//! The INI dialect of Python's `configparser`, in which repos.conf is written and by which Portage reads it.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// Lines of all files together.
const LINES_MAX: usize = 100_000;
/// References inside referred values, as `configparser` allows.
const INTERPOLATION_DEPTH_MAX: usize = 10;
/// Bytes of one value with its references replaced.
const VALUE_BYTES_MAX: usize = 1 << 16;
/// The section whose options all others inherit.
const DEFAULT: &str = "DEFAULT";

/// Why an INI text cannot be used. One fault voids all files, as for Portage.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseIniError {
    /// An option before the first section.
    #[error("line {line}: expected [SECTION] first")]
    NoSection {
        /// The line, from 1.
        line: usize,
    },
    /// Neither a section nor an option.
    #[error("line {line}: expected [SECTION] or KEY = VALUE")]
    Syntax {
        /// The line, from 1.
        line: usize,
    },
    /// The same section, or the same option of a section, twice in one file.
    #[error("line {line}: {name:?} is there twice")]
    Twice {
        /// The line, from 1.
        line: usize,
        /// The section or option.
        name: String,
    },
    /// A `%` that is neither `%%` nor `%(KEY)s` with a known key, or values that refer to each other without end.
    #[error("[{section}] {option}: a wrong reference after \"%\"")]
    Reference {
        /// The section.
        section: String,
        /// The option.
        option: String,
    },
    /// More lines than anyone writes.
    #[error("more than {LINES_MAX} lines")]
    TooMany,
}

type Section = BTreeMap<String, Vec<String>>;
/// The options of a section, by name.
pub(crate) type Options = BTreeMap<String, String>;

/// Sections read so far, from one file after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ini {
    defaults: Section,
    sections: Vec<(String, Section)>,
    lines: usize,
    files: usize,
    places: BTreeMap<(String, Option<String>), Place>,
}

/// Where something was read: which of the files, from 0, and its line, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: usize,
    pub(crate) line: usize,
}

impl Ini {
    /// An INI with options that all sections inherit.
    pub(crate) fn new(defaults: &[(&str, &str)]) -> Self {
        let option = |(key, value): &(&str, &str)| (key.to_ascii_lowercase(), vec![(*value).to_owned()]);
        Self { defaults: defaults.iter().map(option).collect(), ..Self::default() }
    }

    /// Reads one more file; its options replace those of the files before.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), ParseIniError> {
        let mut seen: BTreeSet<(String, Option<String>)> = BTreeSet::new();
        let mut section: Option<String> = None;
        let mut option: Option<String> = None;
        let mut indent = 0;
        self.files += 1;
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            let place = Place { file: self.files - 1, line };
            self.lines += 1;
            if self.lines > LINES_MAX {
                return Err(ParseIniError::TooMany);
            }
            let value = raw.trim();
            if value.starts_with(['#', ';']) {
                continue;
            }
            let here = raw.len() - raw.trim_start().len();
            if let (Some(section), Some(option)) = (&section, &option)
                && (value.is_empty() || here > indent)
            {
                self.option(section, option).push(value.to_owned());
                continue;
            }
            if value.is_empty() {
                continue;
            }
            indent = here;
            if let Some(name) = header(value) {
                let first = seen.insert((name.to_owned(), None));
                if !first && name != DEFAULT {
                    return Err(ParseIniError::Twice { line, name: name.to_owned() });
                }
                self.section(name);
                self.places.entry((name.to_owned(), None)).or_insert(place);
                section = Some(name.to_owned());
                option = None;
            } else {
                let section = section.clone().ok_or(ParseIniError::NoSection { line })?;
                let (key, value) = value.split_once(['=', ':']).ok_or(ParseIniError::Syntax { line })?;
                let key = key.trim_end().to_lowercase();
                if key.is_empty() {
                    return Err(ParseIniError::Syntax { line });
                }
                if !seen.insert((section.clone(), Some(key.clone()))) {
                    return Err(ParseIniError::Twice { line, name: key });
                }
                *self.option(&section, &key) = vec![value.trim().to_owned()];
                self.places.insert((section, Some(key.clone())), place);
                option = Some(key);
            }
        }
        Ok(())
    }

    fn section(&mut self, name: &str) -> &mut Section {
        if name == DEFAULT {
            return &mut self.defaults;
        }
        let place = self.sections.iter().position(|(known, _)| known == name);
        let place = place.unwrap_or_else(|| {
            self.sections.push((name.to_owned(), Section::new()));
            self.sections.len() - 1
        });
        self.sections.get_mut(place).map_or(&mut self.defaults, |(_, section)| section)
    }

    fn option(&mut self, section: &str, option: &str) -> &mut Vec<String> {
        self.section(section).entry(option.to_owned()).or_default()
    }

    /// Where a section first begins, or where the option of it that counts is written, in it or in DEFAULT.
    pub(crate) fn place(&self, section: &str, option: Option<&str>) -> Option<Place> {
        let find = |section: &str| self.places.get(&(section.to_owned(), option.map(str::to_owned))).copied();
        find(section).or_else(|| option.and_then(|_| find(DEFAULT)))
    }

    /// An option of the DEFAULT section, as written.
    pub(crate) fn default_value(&self, option: &str) -> Option<String> {
        self.defaults.get(option).map(|lines| joined(lines))
    }

    /// Every section but DEFAULT with its options and the inherited ones, references replaced.
    pub(crate) fn sections(&self) -> Result<Vec<(String, Options)>, ParseIniError> {
        let mut sections = Vec::new();
        for (name, own) in &self.sections {
            let mut options = Options::new();
            options.extend(self.defaults.iter().map(|(key, lines)| (key.clone(), joined(lines))));
            options.extend(own.iter().map(|(key, lines)| (key.clone(), joined(lines))));
            let mut replaced = Options::new();
            for (key, value) in &options {
                let wrong = || ParseIniError::Reference { section: name.clone(), option: key.clone() };
                let mut text = String::new();
                interpolate(value, &options, &mut text, INTERPOLATION_DEPTH_MAX).ok_or_else(wrong)?;
                replaced.insert(key.clone(), text);
            }
            sections.push((name.clone(), replaced));
        }
        Ok(sections)
    }
}

/// The name in `[NAME]`; what follows the last bracket does not matter.
fn header(value: &str) -> Option<&str> {
    value.strip_prefix('[')?.rsplit_once(']').map(|(name, _)| name).filter(|name| !name.is_empty())
}

fn joined(lines: &[String]) -> String {
    lines.join("\n").trim_end().to_owned()
}

/// Appends a value with its references replaced; None for a wrong one. Its depth is bounded by `depth`.
fn interpolate(value: &str, options: &Options, text: &mut String, depth: usize) -> Option<()> {
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            text.push('%');
            rest = after;
        } else {
            let (key, after) = after.strip_prefix('(')?.split_once(")s")?;
            interpolate(options.get(&key.to_lowercase())?, options, text, depth.checked_sub(1)?)?;
            rest = after;
        }
        if text.len() > VALUE_BYTES_MAX {
            return None;
        }
    }
    text.push_str(rest);
    (text.len() <= VALUE_BYTES_MAX).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, Vec<String>)>, ParseIniError> {
        let mut ini = Ini::new(&[("EPREFIX", "/prefix")]);
        ini.read(text)?;
        let printed = |options: Options| options.iter().map(|(k, v)| format!("{k}={v}")).collect();
        Ok(ini.sections()?.into_iter().map(|(name, options)| (name, printed(options))).collect())
    }

    #[test]
    fn sections_inherit_and_values_go_on_in_deeper_lines() {
        let text = "# x\n[DEFAULT]\nmain-repo = gentoo\n; y\n[a] tail\nLocation : %(eprefix)s/a\n  b\n\n  c\nk = 100%%\n[b]\nx=\n";
        assert_eq!(
            read(text).unwrap(),
            [
                (
                    "a".to_owned(),
                    ["eprefix=/prefix", "k=100%", "location=/prefix/a\nb\n\nc", "main-repo=gentoo"]
                        .map(str::to_owned)
                        .to_vec()
                ),
                ("b".to_owned(), ["eprefix=/prefix", "main-repo=gentoo", "x="].map(str::to_owned).to_vec()),
            ]
        );
    }

    #[test]
    fn one_fault_voids_the_file() {
        assert_eq!(read("a = b"), Err(ParseIniError::NoSection { line: 1 }));
        assert_eq!(read("[a]\nx"), Err(ParseIniError::Syntax { line: 2 }));
        assert_eq!(read("[a]\n= x"), Err(ParseIniError::Syntax { line: 2 }));
        assert!(matches!(read("[a]\n[b]\n[a]"), Err(ParseIniError::Twice { line: 3, .. })));
        assert!(matches!(read("[a]\nx=1\nX=2"), Err(ParseIniError::Twice { line: 3, .. })));
        for value in ["%", "%x", "%(x", "%(nothing)s", "%(k)s"] {
            assert!(matches!(read(&format!("[a]\nk = {value}")), Err(ParseIniError::Reference { .. })), "{value}");
        }
    }

    #[test]
    fn values_that_refer_to_each_other_do_not_grow_without_end() {
        let mut text = "[a]\nk0 = 0123456789\n".to_owned();
        for n in 1..=9 {
            text.push_str(&format!("k{n} = {}\n", format!("%(k{})s", n - 1).repeat(100)));
        }
        assert!(matches!(read(&text), Err(ParseIniError::Reference { .. })));
    }
}
