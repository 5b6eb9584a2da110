//! A block of lines between marks in a text that is somebody else's. The opening mark remembers what undoing needs.

const OPEN: &str = "# >>> peer setup >>> lines up to the closing mark are taken out by `peer setup --undo`";
const OPEN_START: &str = "# >>> peer setup >>>";
const CLOSE: &str = "# <<< peer setup <<<";
/// Said in the opening mark when there was no file before.
const MADE_FILE: &str = " (it made this file)";
/// Said in the opening mark when there was not even the directory before.
const MADE_DIRECTORY: &str = " (it made this file and its directory)";
/// Said in the opening mark when the text before did not end its last line.
const ENDED_LINE: &str = " (it ended the line before)";

/// Where in the text the block belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Before everything else.
    Start,
    /// After everything else.
    End,
}

/// A text has one mark without the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mangled;

/// A text without its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stripped {
    /// What was there before the block; none when there was no file.
    pub(super) rest: Option<String>,
    /// True when the block made the directory that its file is in.
    pub(super) made_directory: bool,
    /// The lines between the marks, with the text before and after the block; none when there is no block.
    found: Option<Found>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    body: String,
    before: String,
    after: String,
}

impl Stripped {
    /// True when the block says `body`, and no line with a last word stands between it and its place.
    pub(super) fn stands_well(&self, body: &str, place: Place, has_last_word: fn(&str) -> bool) -> bool {
        self.found.as_ref().is_some_and(|found| {
            let between = match place {
                Place::Start => &found.before,
                Place::End => &found.after,
            };
            found.body == body && !between.lines().any(|line| has_last_word(line.trim_start()))
        })
    }
}

/// Puts a block into a text that has none; `text` is none when there is no file, and `made_directory` says that there is
/// no directory for it either.
pub(super) fn insert(text: Option<&str>, made_directory: bool, body: &str, place: Place) -> String {
    let made = match text {
        None if made_directory => MADE_DIRECTORY,
        None => MADE_FILE,
        Some(_) => "",
    };
    let text = text.unwrap_or_default();
    match place {
        Place::Start => format!("{OPEN}{made}\n{body}{CLOSE}\n{text}"),
        Place::End if text.is_empty() || text.ends_with('\n') => format!("{text}{OPEN}{made}\n{body}{CLOSE}\n"),
        Place::End => format!("{text}\n{OPEN}{ENDED_LINE}\n{body}{CLOSE}\n"),
    }
}

/// Takes the block out of a text.
pub(super) fn strip(text: &str) -> Result<Stripped, Mangled> {
    let (mut before, mut body, mut after) = (String::new(), String::new(), String::new());
    let (mut open, mut closed) = (None, false);
    for line in text.split_inclusive('\n') {
        let (is_open, is_close) = (line.starts_with(OPEN_START), line.trim_end() == CLOSE);
        match (open.is_some(), closed) {
            (false, _) if is_open => open = Some(line.trim_end()),
            (true, false) if is_close => closed = true,
            _ if is_open || is_close => return Err(Mangled),
            (false, _) => before.push_str(line),
            (true, false) => body.push_str(line),
            (true, true) => after.push_str(line),
        }
    }
    let Some(open) = open else {
        return Ok(Stripped { rest: Some(before), made_directory: false, found: None });
    };
    if !closed {
        return Err(Mangled);
    }
    let mut rest = format!("{before}{after}");
    if open.ends_with(ENDED_LINE) && after.is_empty() && rest.ends_with('\n') {
        rest.truncate(rest.len().saturating_sub(1));
    }
    let made_directory = open.ends_with(MADE_DIRECTORY);
    let made_file = (made_directory || open.ends_with(MADE_FILE)) && rest.is_empty();
    let found = Some(Found { body, before, after });
    Ok(Stripped { rest: (!made_file).then_some(rest), made_directory, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out_again() {
        for text in [None, Some(""), Some("\n"), Some("a"), Some("a\n"), Some("a\r\n"), Some("\n\na\n\n")] {
            for (place, made_directory) in [(Place::Start, false), (Place::End, false), (Place::End, true)] {
                let with = insert(text, made_directory, "b\n", place);
                let stripped = strip(&with).unwrap();
                assert_eq!(stripped.made_directory, made_directory && text.is_none(), "{with:?}");
                assert_eq!(stripped.rest.as_deref(), text, "{with:?}");
                assert!(stripped.stands_well("b\n", place, |_| true));
                assert!(!stripped.stands_well("c\n", place, |_| false));
            }
        }
    }

    #[test]
    fn marks_that_do_not_pair_are_not_guessed_at() {
        let with = insert(Some("a\n"), false, "b\n", Place::End);
        for text in [CLOSE.to_owned(), OPEN.to_owned(), format!("{with}{with}"), format!("{with}{CLOSE}\n")] {
            assert_eq!(strip(&text), Err(Mangled), "{text}");
        }
    }
}
