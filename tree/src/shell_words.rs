//! Words as Portage splits them where it says `shlex.split`: quotes and backslashes of the POSIX shell, and nothing else of it.

use thiserror::Error;

/// Words of one text.
const WORDS_MAX: usize = 65_536;

/// Why a text has no words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SplitWordsError {
    /// A quotation that does not end.
    #[error("a quotation without its end")]
    Quotation,
    /// A backslash at the very end.
    #[error("nothing after the last backslash")]
    Backslash,
    /// More words than anyone writes.
    #[error("more than {WORDS_MAX} words")]
    TooMany,
}

/// The words of a text. Quotes join and protect, a backslash protects one character (within double quotes only a quote or
/// itself); nothing is expanded, and `#` begins no comment.
///
/// # Errors
/// When a quotation has no end or a backslash nothing to protect.
pub fn split(text: &str) -> Result<Vec<String>, SplitWordsError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => {
                words.extend(word.take());
                if words.len() > WORDS_MAX {
                    return Err(SplitWordsError::TooMany);
                }
            }
            '\'' => quoted(&mut characters, false, word.get_or_insert_default())?,
            '"' => quoted(&mut characters, true, word.get_or_insert_default())?,
            '\\' => {
                let protected = characters.next().ok_or(SplitWordsError::Backslash)?;
                word.get_or_insert_default().push(protected);
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(characters: &mut std::str::Chars<'_>, double: bool, word: &mut String) -> Result<(), SplitWordsError> {
    let end = if double { '"' } else { '\'' };
    loop {
        match characters.next().ok_or(SplitWordsError::Quotation)? {
            character if character == end => return Ok(()),
            '\\' if double => {
                let protected = characters.next().ok_or(SplitWordsError::Backslash)?;
                if !matches!(protected, '\\' | '"') {
                    word.push('\\');
                }
                word.push(protected);
            }
            other => word.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_join_and_protect() {
        for (text, words) in [
            ("", &[][..]),
            (" a  b\tc\n", &["a", "b", "c"]),
            ("a\\ b 'c d' \"e f\"g", &["a b", "c d", "e fg"]),
            ("'' \"\"", &["", ""]),
            ("\"a\\\"b\\c\" '\\' #x", &["a\"b\\c", "\\", "#x"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text:?}");
        }
        assert_eq!(split("a 'b"), Err(SplitWordsError::Quotation));
        assert_eq!(split("a \"b"), Err(SplitWordsError::Quotation));
        assert_eq!(split("a\\"), Err(SplitWordsError::Backslash));
    }
}
