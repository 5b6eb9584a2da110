//! The log of a command: whole lines, clean text, bounded on disk, followed while it grows.

use crate::phase::{Phase, Tracker};
use rustix::fs::{Mode, OFlags};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use tokio::sync::mpsc;

/// Where the output of a command goes.
#[derive(Debug, Default)]
pub struct LogSink {
    /// The file it is kept in.
    pub file: Option<LogFile>,
    /// Who follows it. A follower that is slow misses lines, and the next one it gets says how many; the command never
    /// waits for a follower.
    pub lines: Option<mpsc::Sender<LogLine>>,
}

/// One line for a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// The line without its end: at most [`LINE_MAX_BYTES`], without control characters but tabs.
    pub text: String,
    /// The phase of the build as of this line.
    pub phase: Option<Phase>,
    /// Lines before this one that the follower was not given.
    pub missed: u64,
}

/// A longer line is told as several.
pub const LINE_MAX_BYTES: usize = 8 * 1024;

/// So many of the last lines are kept in memory for the outcome.
const LAST_LINES: usize = 40;

/// What there is of a log at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSummary {
    /// Bytes the command wrote, as lines.
    pub bytes: u64,
    /// Bytes in the middle that the file does not have.
    pub left_out_bytes: u64,
    /// The last lines.
    pub last: Vec<String>,
    /// The first line by which Portage says what failed, without its stars.
    pub failure: Option<String>,
    /// Why the file could not be written to its end.
    pub write_error: Option<String>,
}

/// A file that keeps the beginning and the end of what is written to it, and says between them what it left out.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    head_left: u64,
    tail: VecDeque<String>,
    tail_bytes: u64,
    tail_max: u64,
    left_out: u64,
}

impl LogFile {
    /// Makes the file, or empties it; it is the daemon's own to read (mode 0640). Of more than `max_bytes` the last
    /// eighth, at most 1 MiB, is the end of the log; it is written when the command has ended.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path, max_bytes: u64) -> std::io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?);
        let tail_max = (max_bytes / 8).min(1 << 20);
        let head_left = max_bytes - tail_max;
        Ok(Self { file, head_left, tail: VecDeque::new(), tail_bytes: 0, tail_max, left_out: 0 })
    }

    /// Writes one line, or keeps it for the end of the log.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn line(&mut self, text: &str) -> std::io::Result<()> {
        let length = text.len() as u64 + 1;
        if self.tail.is_empty() && length <= self.head_left {
            self.head_left -= length;
            return self.file.write_all(format!("{text}\n").as_bytes());
        }
        self.head_left = 0;
        self.tail.push_back(text.to_owned());
        self.tail_bytes += length;
        while self.tail_bytes > self.tail_max
            && let Some(first) = self.tail.pop_front()
        {
            self.tail_bytes -= first.len() as u64 + 1;
            self.left_out += first.len() as u64 + 1;
        }
        Ok(())
    }

    /// Writes the end of the log; answers how many bytes were left out before it.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn finish(&mut self) -> std::io::Result<u64> {
        if self.left_out > 0 {
            writeln!(self.file, "[{} bytes of the log are left out here]", self.left_out)?;
        }
        for line in self.tail.drain(..) {
            writeln!(self.file, "{line}")?;
        }
        self.file.flush()?;
        Ok(self.left_out)
    }
}

/// Makes lines of what comes, and gives them to all who want them.
#[derive(Debug)]
pub(crate) struct Writer {
    sink: LogSink,
    tracker: Tracker,
    pending: Vec<u8>,
    missed: u64,
    last: VecDeque<String>,
    summary: LogSummary,
}

impl Writer {
    pub(crate) fn new(sink: LogSink) -> Self {
        Self {
            sink,
            tracker: Tracker::default(),
            pending: Vec::new(),
            missed: 0,
            last: VecDeque::new(),
            summary: LogSummary::default(),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' || self.pending.len() == LINE_MAX_BYTES {
                // A carriage return before a line feed makes one line, not two.
                if !(byte == b'\n' && self.pending.is_empty() && self.tracker.after_return) {
                    self.end_line();
                }
                self.tracker.after_return = byte == b'\r';
            }
            if byte != b'\n' && byte != b'\r' {
                self.tracker.after_return = false;
                self.pending.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let text = clean(&self.pending);
        self.pending.clear();
        self.summary.bytes += text.len() as u64 + 1;
        self.tracker.line(&text);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(text.clone());
        if let Some(file) = &mut self.sink.file
            && let Err(error) = file.line(&text)
        {
            self.summary.write_error.get_or_insert_with(|| error.to_string());
            self.sink.file = None;
        }
        if let Some(lines) = &self.sink.lines {
            let line = LogLine { text, phase: self.tracker.phase(), missed: self.missed };
            self.missed = if lines.try_send(line).is_ok() { 0 } else { self.missed + 1 };
        }
    }

    pub(crate) fn finish(mut self) -> (LogSummary, Option<Phase>) {
        if !self.pending.is_empty() {
            self.end_line();
        }
        if let Some(file) = &mut self.sink.file {
            match file.finish() {
                Ok(left_out) => self.summary.left_out_bytes = left_out,
                Err(error) => self.summary.write_error = Some(error.to_string()),
            }
        }
        self.summary.last = self.last.into();
        self.summary.failure = self.tracker.failure().map(str::to_owned);
        (self.summary, self.tracker.phase())
    }
}

/// Text without escape sequences and control characters, which could act on the terminal of who reads the log.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_escape(&mut characters),
            '\t' => clean.push('\t'),
            character if character.is_control() || is_direction(character) => {}
            character => clean.push(character),
        }
    }
    clean
}

/// Skips an escape sequence (ECMA-48): `[` to its final letter, `]` to its end, else one character.
fn skip_escape(characters: &mut std::str::Chars<'_>) {
    match characters.next() {
        Some('[') => {
            characters.find(|character| ('\u{40}'..='\u{7e}').contains(character));
        }
        Some(']') => {
            characters.find(|&character| character == '\u{7}' || character == '\\');
        }
        Some(_) | None => {}
    }
}

/// Characters that make text look as if it stood in another order.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Vec<String> {
        let mut writer = Writer::new(LogSink::default());
        writer.write(bytes);
        writer.finish().0.last
    }

    #[test]
    fn colours_and_control_characters_are_taken_out() {
        assert_eq!(lines(b"\x1b[32;01m*\x1b[39;49;00m ok\x07\tx\x1b]0;title\x07end\n"), ["* ok\txend"]);
        assert_eq!(lines("a\u{202e}b\u{9b}c".as_bytes()), ["abc"]);
        assert_eq!(lines(b"\xff\xfe\n"), ["\u{fffd}\u{fffd}"]);
    }

    #[test]
    fn progress_by_carriage_return_is_lines_and_both_ends_are_one() {
        assert_eq!(lines(b"10%\r20%\rdone\r\nnext\n\nlast"), ["10%", "20%", "done", "next", "", "last"]);
    }

    #[test]
    fn a_line_without_end_is_told_in_pieces() {
        let got = lines(&vec![b'x'; LINE_MAX_BYTES * 2 + 5]);
        assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX_BYTES, LINE_MAX_BYTES, 5]);
    }

    #[test]
    fn of_a_long_log_beginning_and_end_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let file = Some(LogFile::create(&path, 800).unwrap());
        let mut writer = Writer::new(LogSink { file, lines: None });
        for number in 0..1000 {
            writer.write(format!("line {number}\n").as_bytes());
        }
        let (summary, _) = writer.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("line 0\nline 1\n"), "{text}");
        assert!(text.ends_with("line 998\nline 999\n"), "{text}");
        assert!(
            text.contains(&format!("\n[{} bytes of the log are left out here]\n", summary.left_out_bytes)),
            "{text}"
        );
        assert!(text.len() < 900, "{}", text.len());
        assert_eq!(summary.bytes, tree::size::total((0..1000).map(|number| format!("line {number}\n").len() as u64)));
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_how_much_it_missed() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut writer = Writer::new(LogSink { file: None, lines: Some(sender) });
        writer.write(b"1\n2\n3\n4\n");
        assert_eq!(receiver.recv().await.unwrap().text, "1");
        writer.write(b"5\n");
        assert_eq!(receiver.recv().await.unwrap().missed, 0);
        let five = receiver.recv().await.unwrap();
        assert_eq!((five.text.as_str(), five.missed), ("5", 2));
    }
}
