//! What may reach a terminal of a build log: text, line ends, tabs and colours.
//!
//! A log is written by whoever wrote the ebuild and the sources. On a terminal their bytes could move the cursor, rewrite
//! what stands above, set the title or paste into the keyboard, so everything that is not text is spelled out instead.

use std::fmt::Write as _;

/// Parameters of a colour sequence are never longer; a longer one is spelled out.
const PARAMETERS_MAX: usize = 32;
/// All colours off.
const COLOURS_OFF: &str = "\x1b[0m";

/// Turns the bytes of a log, in pieces of any length, into text that does nothing to a terminal but colour it.
#[derive(Debug, Default)]
pub(crate) struct LogText {
    /// The beginning of a character whose end has not come.
    undecoded: Vec<u8>,
    state: State,
    coloured: bool,
}

/// A line of a log or of what Portage said, without colours: for a message among others.
pub(crate) fn plain(line: &str) -> String {
    let mut rest = line;
    let mut plain = String::with_capacity(line.len());
    while let Some((before, after)) = rest.split_once("\x1b[") {
        let end = after.find(|c: char| !matches!(c, '0'..='9' | ';' | ':')).unwrap_or(after.len());
        plain.push_str(before);
        // Other sequences stay, and are made harmless where they are printed.
        match after.split_at_checked(end).and_then(|(_, tail)| tail.strip_prefix('m')) {
            Some(tail) => rest = tail,
            None => {
                plain.push_str("\x1b[");
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Where in a sequence the text is.
#[derive(Debug, Default)]
enum State {
    #[default]
    Plain,
    /// After a carriage return: harmless before a line end.
    Return,
    /// After ESC.
    Escape,
    /// After ESC [ and these parameters.
    Sequence(String),
}

impl LogText {
    /// What the next bytes are on a terminal.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> String {
        self.undecoded.extend_from_slice(bytes);
        let undecoded = std::mem::take(&mut self.undecoded);
        let whole = match std::str::from_utf8(&undecoded) {
            // No error length: the bytes end within a character.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // Wrong bytes in the middle hide whether the end is whole.
            Err(_) => undecoded.len().saturating_sub(unfinished(&undecoded)),
            Ok(_) => undecoded.len(),
        };
        let (text, rest) = undecoded.split_at_checked(whole).unwrap_or((&undecoded, &[]));
        self.undecoded = rest.to_vec();
        let mut shown = String::with_capacity(text.len());
        for c in String::from_utf8_lossy(text).chars() {
            self.step(c, &mut shown);
        }
        shown
    }

    /// What is still to be shown at the end of the log; colours are switched off.
    pub(crate) fn finish(&mut self) -> String {
        let mut shown = String::new();
        self.give_up(&mut shown);
        if !std::mem::take(&mut self.undecoded).is_empty() {
            shown.push(char::REPLACEMENT_CHARACTER);
        }
        if std::mem::take(&mut self.coloured) {
            shown.push_str(COLOURS_OFF);
        }
        shown
    }

    fn step(&mut self, c: char, shown: &mut String) {
        match (&mut self.state, c) {
            (State::Plain, '\x1b') => self.state = State::Escape,
            (State::Plain, '\r') => self.state = State::Return,
            (State::Plain, c) => spell(c, shown),
            (State::Return, '\n') => {
                self.state = State::Plain;
                shown.push('\n');
            }
            (State::Escape, '[') => self.state = State::Sequence(String::new()),
            (State::Sequence(parameters), '0'..='9' | ';' | ':') if parameters.len() < PARAMETERS_MAX => {
                parameters.push(c);
            }
            (State::Sequence(parameters), 'm') => {
                shown.push_str("\x1b[");
                shown.push_str(parameters);
                shown.push('m');
                self.coloured = true;
                self.state = State::Plain;
            }
            (State::Return | State::Escape | State::Sequence(_), c) => {
                self.give_up(shown);
                self.step(c, shown);
            }
        }
    }

    /// Spells out what began like a sequence and is none.
    fn give_up(&mut self, shown: &mut String) {
        match std::mem::take(&mut self.state) {
            State::Plain => {}
            State::Return => spell('\r', shown),
            State::Escape => spell('\x1b', shown),
            State::Sequence(parameters) => {
                spell('\x1b', shown);
                shown.push('[');
                shown.push_str(&parameters);
            }
        }
    }
}

/// Bytes at the end that may be the beginning of a character: at most three.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.iter().rev().take(3);
    for (back, byte) in (1_usize..).zip(tail) {
        match byte {
            0x80..=0xBF => {}
            0xC2..=0xDF => return if back < 2 { back } else { 0 },
            0xE0..=0xEF => return if back < 3 { back } else { 0 },
            0xF0..=0xF4 => return back,
            _ => return 0,
        }
    }
    0
}

/// Text as it is; control characters as `cat -v` spells them; those that turn the direction of text by their number.
fn spell(c: char, shown: &mut String) {
    match c {
        '\n' | '\t' => shown.push(c),
        '\0'..='\x1f' => {
            shown.push('^');
            shown.push(char::from_u32(u32::from(c) + 0x40).unwrap_or('?'));
        }
        '\x7f' => shown.push_str("^?"),
        '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            // Writing to a string cannot fail.
            write!(shown, "<U+{:04X}>", u32::from(c)).unwrap_or_default();
        }
        c => shown.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut text = LogText::default();
        let mut shown: String = pieces.iter().map(|piece| text.take(piece)).collect();
        shown.push_str(&text.finish());
        shown
    }

    #[test]
    fn text_lines_tabs_and_colours_pass() {
        assert_eq!(shown(&[b"a\tb\nc\n"]), "a\tb\nc\n");
        assert_eq!(shown(&["größe ≥ 日本\n".as_bytes()]), "größe ≥ 日本\n");
        assert_eq!(shown(&[b"\x1b[32;01m*\x1b[0m ok\n"]), "\x1b[32;01m*\x1b[0m ok\n\x1b[0m");
        assert_eq!(shown(&[b"\x1b[m"]), "\x1b[m\x1b[0m");
        assert_eq!(shown(&[b"dos\r\n"]), "dos\n");
    }

    #[test]
    fn what_would_move_write_or_rename_is_spelled_out() {
        for (bytes, text) in [
            (&b"\x1b[2J"[..], "^[[2J"),
            (b"\x1b[1;1H", "^[[1;1H"),
            (b"\x1b]0;title\x07", "^[]0;title^G"),
            (b"\x1bc", "^[c"),
            (b"\x1b[?25l", "^[[?25l"),
            (b"\x1b\x1b[31m", "^[\x1b[31m\x1b[0m"),
            (b"50%\r60%", "50%^M60%"),
            (b"\r\r\n", "^M\n"),
            (b"\x08\x7f\0", "^H^?^@"),
            ("\u{9b}2J".as_bytes(), "<U+009B>2J"),
            ("a\u{202e}b".as_bytes(), "a<U+202E>b"),
            (b"\xff\xfeok", "\u{fffd}\u{fffd}ok"),
        ] {
            assert_eq!(shown(&[bytes]), text);
        }
    }

    #[test]
    fn a_colour_without_an_end_is_no_colour() {
        assert_eq!(shown(&[b"\x1b[31"]), "^[[31");
        assert_eq!(shown(&[b"\x1b"]), "^[");
        assert_eq!(shown(&[b"a\r"]), "a^M");
        let long = format!("\x1b[{}m", "1;".repeat(100));
        assert!(!shown(&[long.as_bytes()]).contains('\x1b'));
    }

    #[test]
    fn a_plain_line_has_lost_its_colours_and_nothing_else() {
        for (line, text) in [
            ("", ""),
            ("no colour", "no colour"),
            ("!!! \x1b[31;01mAll\x1b[39;49;00m of \x1b[mit", "!!! All of it"),
            ("\x1b[2Jx\x1b[31", "\x1b[2Jx\x1b[31"),
            ("\x1b[\x1b[31mü", "\x1b[ü"),
        ] {
            assert_eq!(plain(line), text);
        }
    }

    #[test]
    fn it_does_not_matter_where_the_pieces_end() {
        let log = "\x1b[31mgröße\x1b[0m\r\n\x1b[2J日本\u{9b}\r𝄞".as_bytes();
        let mut log = log.to_vec();
        log.extend_from_slice(b"\xff\xc3(\xe6\x97\xe6\x97\xa5\xf0\x9f\n\xe6");
        let whole = shown(&[&log]);
        for at in 0..=log.len() {
            let (first, second) = log.split_at(at);
            assert_eq!(shown(&[first, second]), whole, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = log.chunks(1).collect();
        assert_eq!(shown(&bytes), whole);
    }
}
