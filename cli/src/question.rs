//! Questions to whoever sits at the terminal.

use crate::exit::Failure;
use crate::output::Output;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{BufRead as _, IsTerminal as _};
use std::time::Duration;

/// Between two looks at a terminal that a user types at.
const LOOK_PERIOD: Duration = Duration::from_millis(30);

/// Whether standard input is a terminal: elsewhere nobody answers.
pub(crate) fn can_be_asked() -> bool {
    std::io::stdin().is_terminal()
}

/// A question whose answer is no unless it is said to be yes.
pub(crate) fn confirmed(question: &str, out: &Output) -> Result<bool, Failure> {
    out.prompt(&format!("{question} [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::local("cannot read the answer", error))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// A question of emerge's, asked and answered as emerge does it (`_emerge.UserQuery`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct MergeQuestion<'a> {
    pub(crate) question: &'a str,
    /// Whether nothing at all is no answer (`--ask-enter-invalid`).
    pub(crate) enter_invalid: bool,
    /// Whether the terminal's bell is rung (`--alert`).
    pub(crate) alert: bool,
}

impl MergeQuestion<'_> {
    /// Yes or no; the end of standard input and an interrupt are a failure.
    pub(crate) async fn ask(&self, out: &Output) -> Result<bool, Failure> {
        let interrupted = || Failure::Interrupted { kept: "nothing was begun".to_owned() };
        let unread = |error: std::io::Error| Failure::local("cannot read the answer", error);
        if self.alert {
            out.bell();
        }
        out.prompt(&format!("{} [Yes/No] ", self.question));
        loop {
            tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => return Err(interrupted()),
                ready = answered() => ready.map_err(unread)?,
            }
            // A terminal gives whole lines, one at a time.
            let mut line = Vec::new();
            if std::io::stdin().lock().read_until(b'\n', &mut line).map_err(unread)? == 0 {
                return Err(interrupted());
            }
            let said = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            match self.answer(&said) {
                Some(answer) => return Ok(answer),
                None => out.prompt(&format!("Sorry, response '{said}' not understood. [Yes/No] ")),
            }
        }
    }

    /// The first of the answers that begins with what was said.
    fn answer(&self, said: &str) -> Option<bool> {
        if said.is_empty() && self.enter_invalid {
            return None;
        }
        let said = said.to_uppercase();
        ["YES", "NO"].iter().position(|answer| answer.starts_with(&said)).map(|at| at == 0)
    }
}

/// Until there is something to read; nobody types faster than this looks.
async fn answered() -> std::io::Result<()> {
    loop {
        let stdin = std::io::stdin();
        let mut terminal = [PollFd::new(&stdin, PollFlags::IN)];
        if poll(&mut terminal, Some(&Timespec::default()))? > 0 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_as_emerge_takes_them() {
        let question = MergeQuestion { question: "", enter_invalid: false, alert: false };
        for (said, answer) in [
            ("", Some(true)),
            ("y", Some(true)),
            ("Ye", Some(true)),
            ("YES", Some(true)),
            ("n", Some(false)),
            ("No", Some(false)),
            ("yess", None),
            ("nope", None),
            (" y", None),
        ] {
            assert_eq!(question.answer(said), answer, "{said:?}");
        }
        assert_eq!(MergeQuestion { enter_invalid: true, ..question }.answer(""), None);
    }
}
