//! The dialect of make.conf: Portage's `getconfig`, which is Python's `shlex` with Portage's characters, quirk for quirk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::confine::{self, ReadFileError};
use crate::expand::{self, ExpandError};

/// Bytes of one file.
const FILE_BYTES_MAX: usize = 4 << 20;
/// Files that are read by `source` commands.
const SOURCED_MAX: usize = 128;
/// Files inside files.
const DEPTH_MAX: usize = 16;
/// Variables of all files.
const VARIABLES_MAX: usize = 20_000;

/// What is wrong at a place of a configuration file.
#[derive(Debug, Error)]
pub enum ConfFault {
    /// A quote is never closed.
    #[error("no closing quotation")]
    OpenQuote,
    /// A backslash is the last character.
    #[error("no escaped character")]
    OpenEscape,
    /// The file ends inside an assignment.
    #[error("unexpected end of the file")]
    End,
    /// Something else than `=` follows a name.
    #[error("expected \"=\", found {found:?}")]
    NoAssignment {
        /// What was found, shortened.
        found: String,
    },
    /// A name that no variable can have.
    #[error("{name:?} is not a variable's name")]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// A sourced file cannot be read.
    #[error("cannot source")]
    Source(#[source] ReadFileError),
    /// Files source each other, or there are too many of them.
    #[error("too many files are sourced")]
    TooManySources,
    /// More variables than anyone writes.
    #[error("more than {VARIABLES_MAX} variables")]
    TooManyVariables,
    /// A value grows too large.
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

/// Why a configuration file cannot be used.
#[derive(Debug, Error)]
pub enum GetConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadFileError),
    /// The file is wrong somewhere.
    #[error("{} line {line}", path.display())]
    Fault {
        /// The file.
        path: PathBuf,
        /// The line, from 1, at which reading stopped.
        line: usize,
        /// What is wrong.
        #[source]
        fault: ConfFault,
    },
}

/// One file being read.
struct Input {
    path: PathBuf,
    characters: Vec<char>,
    place: usize,
    line: usize,
}

impl Input {
    fn new(path: PathBuf, bytes: &[u8]) -> Self {
        let mut characters: Vec<char> = String::from_utf8_lossy(bytes).chars().collect();
        if characters.last().is_some_and(|last| *last != '\n') {
            characters.push('\n');
        }
        Self { path, characters, place: 0, line: 1 }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.characters.get(self.place).copied();
        self.place += usize::from(next.is_some());
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|character| character != '\n') {}
    }
}

/// The states of `shlex` in its POSIX mode.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Word,
    Quoted(char),
    Escaped { inside: Option<char> },
    Ended,
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || r"~!@#$%*_\:;?,./-+{}".contains(character)
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

/// Splits files into words, and reads sourced files in place.
struct Lexer<'a> {
    inputs: Vec<Input>,
    state: State,
    pushed_back: Option<String>,
    /// Names of files that `source` commands led to, there or not.
    sourced: &'a mut Vec<PathBuf>,
    variables: &'a mut BTreeMap<String, String>,
}

impl Lexer<'_> {
    /// The next word, or None at the end of the first file.
    fn word(&mut self) -> Result<Option<String>, ConfFault> {
        loop {
            if let Some(word) = self.pushed_back.take() {
                return Ok(Some(word));
            }
            match self.raw_word()? {
                Some(word) if word == "source" => self.source()?,
                Some(word) => return Ok(Some(word)),
                None if self.inputs.len() > 1 => {
                    self.inputs.pop();
                    self.state = State::Between;
                }
                None => return Ok(None),
            }
        }
    }

    fn source(&mut self) -> Result<(), ConfFault> {
        let name = self.raw_word()?.ok_or(ConfFault::End)?;
        let name = expand::expand(&name, self.variables)?;
        let name = name.strip_prefix('"').map_or(&*name, |rest| rest.strip_suffix('"').unwrap_or(rest));
        if name.is_empty() {
            return Err(ConfFault::End);
        }
        if self.sourced.len() >= SOURCED_MAX || self.inputs.len() >= DEPTH_MAX {
            return Err(ConfFault::TooManySources);
        }
        let directory = self.inputs.last().and_then(|input| input.path.parent()).unwrap_or(Path::new(""));
        let path = directory.join(name);
        self.sourced.push(path.clone());
        let bytes = confine::read(&path, FILE_BYTES_MAX).map_err(ConfFault::Source)?;
        self.inputs.push(Input::new(path, &bytes));
        Ok(())
    }

    /// The next word of the innermost file, or None at its end.
    fn raw_word(&mut self) -> Result<Option<String>, ConfFault> {
        let Some(input) = self.inputs.last_mut() else { return Ok(None) };
        let mut word = String::new();
        let mut quoted = false;
        while self.state != State::Ended {
            let next = input.next();
            match (self.state, next) {
                (State::Quoted(_), None) => return Err(ConfFault::OpenQuote),
                (State::Escaped { .. }, None) => return Err(ConfFault::OpenEscape),
                (_, None) => self.state = State::Ended,
                (State::Quoted(quote), Some(next)) => {
                    quoted = true;
                    match next {
                        _ if next == quote => self.state = State::Word,
                        '\\' if quote == '"' => self.state = State::Escaped { inside: Some(quote) },
                        _ => word.push(next),
                    }
                }
                (State::Escaped { inside }, Some(next)) => {
                    // Within quotes a backslash is kept, but before the quote and itself.
                    if inside.is_some_and(|quote| next != '\\' && next != quote) {
                        word.push('\\');
                    }
                    word.push(next);
                    self.state = inside.map_or(State::Word, State::Quoted);
                }
                (state, Some(next)) => {
                    let ended = match next {
                        _ if is_space(next) => true,
                        '#' => {
                            input.skip_line();
                            true
                        }
                        '\\' => {
                            self.state = State::Escaped { inside: None };
                            false
                        }
                        '"' | '\'' => {
                            self.state = State::Quoted(next);
                            false
                        }
                        _ if is_word(next) => {
                            word.push(next);
                            self.state = State::Word;
                            false
                        }
                        // Any other character is a word of its own; it ends one that has begun.
                        _ if state == State::Between && word.is_empty() && !quoted => {
                            return Ok(Some(next.to_string()));
                        }
                        _ => {
                            self.pushed_back = Some(next.to_string());
                            true
                        }
                    };
                    if ended {
                        self.state = State::Between;
                        if !word.is_empty() || quoted || self.pushed_back.is_some() {
                            break;
                        }
                    }
                }
            }
        }
        Ok((quoted || !word.is_empty()).then_some(word))
    }
}

/// Reads a file into `variables`, which also serve for `$NAME`.
pub(crate) fn read(path: &Path, variables: &mut BTreeMap<String, String>) -> Result<(), GetConfigError> {
    read_noting(path, variables, &mut Vec::new())
}

/// The same; `sourced` gets what its `source` commands name, also where reading then fails.
pub(crate) fn read_noting(
    path: &Path,
    variables: &mut BTreeMap<String, String>,
    sourced: &mut Vec<PathBuf>,
) -> Result<(), GetConfigError> {
    let bytes = confine::read(path, FILE_BYTES_MAX)?;
    let mut lexer = Lexer {
        inputs: vec![Input::new(path.to_owned(), &bytes)],
        state: State::Between,
        pushed_back: None,
        sourced,
        variables,
    };
    while let Some(assigned) = assign(&mut lexer).transpose() {
        if let Err(fault) = assigned {
            let (path, line) =
                lexer.inputs.last().map_or((path.to_owned(), 0), |input| (input.path.clone(), input.line));
            return Err(GetConfigError::Fault { path, line, fault });
        }
    }
    Ok(())
}

/// One assignment; None at the end.
fn assign(lexer: &mut Lexer<'_>) -> Result<Option<()>, ConfFault> {
    let shortened = |text: &str| text.chars().take(80).collect::<String>();
    let mut name = lexer.word()?;
    if name.as_deref() == Some("export") {
        name = lexer.word()?;
    }
    let Some(name) = name else { return Ok(None) };
    let sign = lexer.word()?.filter(|sign| !sign.is_empty()).ok_or(ConfFault::End)?;
    if sign != "=" {
        return Err(ConfFault::NoAssignment { found: shortened(&sign) });
    }
    let value = lexer.word()?.ok_or(ConfFault::End)?;
    let valid = |character: char| character.is_alphanumeric() || character == '_';
    if name.starts_with(char::is_numeric) || !name.chars().all(valid) {
        return Err(ConfFault::Name { name: shortened(&name) });
    }
    let value = expand::expand(&value, lexer.variables)?;
    if lexer.variables.len() >= VARIABLES_MAX {
        return Err(ConfFault::TooManyVariables);
    }
    lexer.variables.insert(name, value);
    Ok(Some(()))
}
