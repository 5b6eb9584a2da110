//! The grammar that SRC_URI, RESTRICT and LICENSE share: words, brackets, USE conditionals, `||` and `->` (PMS 8.2).
//!
//! As strict as Portage's `use_reduce`, and never recursive: nesting is the text's choice, the stack is ours.

use thiserror::Error;

use crate::name::UseFlag;

/// Bytes of one text.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 20;
/// Brackets inside brackets.
const DEPTH_MAX: usize = 64;

/// Why a text of brackets and conditionals is broken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrammarError {
    /// Longer than 4 MiB.
    #[error("a text of {found} bytes")]
    TooLong {
        /// Bytes of the text.
        found: usize,
    },
    /// More than 64 brackets are open.
    #[error("brackets nest too deeply at word {word}")]
    TooDeep {
        /// The word, from 1.
        word: usize,
    },
    /// Something else had to come.
    #[error("expected {expected} at word {word}, found {found:?}")]
    Expected {
        /// What had to come.
        expected: &'static str,
        /// The word, from 1.
        word: usize,
        /// What came, shortened; empty at the end of the text.
        found: String,
    },
    /// A bracket or `||` without white space around it.
    #[error("white space is missing in {found:?} at word {word}")]
    MissingSpace {
        /// The word, from 1.
        word: usize,
        /// What was found, shortened.
        found: String,
    },
}

/// A step through the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// `(`, after a conditional or on its own: all of what follows.
    OpenAll,
    /// `|| (`: any of what follows.
    OpenAny,
    /// `)` of either.
    Close,
    /// A word.
    Word(&'a str),
    /// `-> name`, after a word.
    Arrow(&'a str),
}

/// Which of the signs a text may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signs {
    /// Conditionals only.
    Plain,
    /// `||` as well.
    AnyOf,
    /// `->` as well.
    Arrows,
}

/// What the next word must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Anything,
    /// `(`, after a conditional or `||`.
    Bracket {
        any: bool,
    },
    /// Not `)`, after `(`.
    Content,
    /// A name, after `->`.
    Name,
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Walks through the whole text. Conditionals are checked and count as met: only their brackets are told.
pub(crate) fn walk<'a, E: From<GrammarError>>(
    text: &'a str,
    signs: Signs,
    mut visit: impl FnMut(Step<'a>) -> Result<(), E>,
) -> Result<(), E> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(GrammarError::TooLong { found: text.len() }.into());
    }
    let mut wanted = Wanted::Anything;
    let mut depth = 0_usize;
    let mut after_word = false;
    let mut words = 0;
    for (index, token) in text.split_ascii_whitespace().enumerate() {
        words = index + 1;
        let expected = |expected| GrammarError::Expected { expected, word: words, found: shortened(token) };
        let was_word = std::mem::take(&mut after_word);
        match (token, wanted) {
            (_, Wanted::Name) if token == "->" || token.ends_with('?') => return Err(expected("a file name").into()),
            (_, Wanted::Name) => {
                check_word(token, words)?;
                visit(Step::Arrow(token))?;
                wanted = Wanted::Anything;
            }
            ("(", _) => {
                if depth == DEPTH_MAX {
                    return Err(GrammarError::TooDeep { word: words }.into());
                }
                depth += 1;
                visit(if wanted == (Wanted::Bracket { any: true }) { Step::OpenAny } else { Step::OpenAll })?;
                wanted = Wanted::Content;
            }
            (_, Wanted::Bracket { .. }) => return Err(expected("\"(\"").into()),
            (")", Wanted::Content) => return Err(expected("a word").into()),
            (")", Wanted::Anything) => {
                depth = depth.checked_sub(1).ok_or_else(|| expected("no \")\" without \"(\""))?;
                visit(Step::Close)?;
            }
            ("||", _) if signs == Signs::AnyOf => wanted = Wanted::Bracket { any: true },
            ("->", _) if signs == Signs::Arrows && was_word => wanted = Wanted::Name,
            ("||" | "->", _) => return Err(expected("no such sign here").into()),
            _ => {
                wanted = match token.strip_suffix('?') {
                    Some(flag) => {
                        let flag = flag.strip_prefix('!').unwrap_or(flag);
                        flag.parse::<UseFlag>().map_err(|_| expected("a USE flag and \"?\""))?;
                        Wanted::Bracket { any: false }
                    }
                    None => {
                        check_word(token, words)?;
                        visit(Step::Word(token))?;
                        after_word = true;
                        Wanted::Anything
                    }
                };
            }
        }
    }
    if depth > 0 || wanted != Wanted::Anything {
        let expected = if wanted == Wanted::Name { "a file name" } else { "\")\"" };
        return Err(GrammarError::Expected { expected, word: words + 1, found: String::new() }.into());
    }
    Ok(())
}

fn check_word(token: &str, word: usize) -> Result<(), GrammarError> {
    let glued = ["(", ")", "||"].iter().any(|sign| token.starts_with(sign) || token.ends_with(sign));
    if glued { Err(GrammarError::MissingSpace { word, found: shortened(token) }) } else { Ok(()) }
}
