//! Words of a line as Python's `shlex.split` has them: how Portage reads options out of a variable.
//!
//! It is not quite a shell: nothing is expanded, `#` begins no comment, and within double quotes a backslash protects only
//! itself and the quote.

use thiserror::Error;

/// Why a line has no words.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SplitWordsError {
    /// A quote is never closed.
    #[error("no closing quotation")]
    OpenQuote,
    /// A backslash is the last character.
    #[error("no escaped character")]
    OpenEscape,
}

/// Splits a line at its spaces, but for those in quotes or behind a backslash.
///
/// # Errors
/// When a quote is not closed, or a backslash is the last character. Portage stops then too.
pub fn split(line: &str) -> Result<Vec<String>, SplitWordsError> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => {
                let protected = letters.next().ok_or(SplitWordsError::OpenEscape)?;
                word.get_or_insert_default().push(protected);
            }
            '\'' | '"' => quoted(letter, &mut letters, word.get_or_insert_default())?,
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Up to the end of a quote.
fn quoted(quote: char, letters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), SplitWordsError> {
    loop {
        match letters.next().ok_or(SplitWordsError::OpenQuote)? {
            end if end == quote => return Ok(()),
            '\\' if quote == '"' => {
                let next = letters.next().ok_or(SplitWordsError::OpenEscape)?;
                if next != '\\' && next != quote {
                    word.push('\\');
                }
                word.push(next);
            }
            letter => word.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_keep_spaces_and_nothing_else_is_special() {
        for (line, words) in [
            ("", &[][..]),
            ("  \t\n ", &[]),
            ("--ask --jobs 4", &["--ask", "--jobs", "4"]),
            ("\"--ask\" '--verbose'", &["--ask", "--verbose"]),
            ("--exclude='a/b c/d' x", &["--exclude=a/b c/d", "x"]),
            ("--exclude a/b\\ c/d", &["--exclude", "a/b c/d"]),
            ("''", &[""]),
            ("a''b\"c\"", &["abc"]),
            ("\"a\\\"b\\\\c\\d\"", &["a\"b\\c\\d"]),
            ("'a\\b'", &["a\\b"]),
            ("#--ask $HOME `x` ;", &["#--ask", "$HOME", "`x`", ";"]),
            ("a\\\nb", &["a\nb"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line:?}");
        }
        assert_eq!(split("--exclude 'a"), Err(SplitWordsError::OpenQuote));
        assert_eq!(split("\"a\\"), Err(SplitWordsError::OpenEscape));
        assert_eq!(split("a \\"), Err(SplitWordsError::OpenEscape));
    }
}
