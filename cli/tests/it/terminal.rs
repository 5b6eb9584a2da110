//! Somebody at a terminal: a program on a real one (Python's `pty`), and answers to what it asks.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::wait;

/// Runs a program on a terminal of its own: answers each question as it is seen, and tells what was seen.
const SCRIPT: &str = r#"
import fcntl, json, os, pty, select, struct, sys, termios, time
words, environment, answers, seconds = json.loads(sys.argv[1])
child, terminal = pty.fork()
if child == 0:
    if environment is None:
        os.execvp(words[0], words)
    os.execvpe(words[0], words, environment)
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
seen, answered, end = b"", 0, time.monotonic() + seconds
while True:
    ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
    if not ready:
        os.kill(child, 9)
        break
    try:
        more = os.read(terminal, 65536)
    except OSError:
        break
    if not more:
        break
    seen += more
    while answers and answers[0][0].encode() in seen[answered:]:
        answered = seen.index(answers[0][0].encode(), answered) + len(answers[0][0])
        os.write(terminal, answers.pop(0)[1].encode())
_, status = os.waitpid(child, 0)
print(json.dumps([seen.decode("utf-8", "replace"), os.waitstatus_to_exitcode(status), len(answers)]))
"#;

/// What was seen on the terminal, answers included, and how it ended.
pub(crate) struct Seen {
    pub(crate) said: String,
    /// None when it was killed.
    pub(crate) code: Option<i64>,
    /// Answers that nobody asked for.
    pub(crate) left: u64,
}

/// Runs a command on a terminal; each answer is given when its question is seen. `\u{3}` is an interrupt.
pub(crate) fn on_terminal(command: &Command, answers: &[(&str, &str)]) -> Seen {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().expect("a test's words are text").to_owned())
        .collect();
    let environment: BTreeMap<String, String> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value?.to_str()?.to_owned())))
        .collect();
    let environment = if environment.is_empty() { Value::Null } else { serde_json::json!(environment) };
    let asked = serde_json::json!([words, environment, answers, wait::DEADLINE.as_secs()]);
    let output = wait::run(Command::new("python3").args(["-c", SCRIPT, &asked.to_string()]));
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("the terminal broke: {}", String::from_utf8_lossy(&output.stderr)));
    Seen {
        said: told[0].as_str().expect("what was seen").replace("\r\n", "\n"),
        code: told[1].as_i64().filter(|code| *code >= 0),
        left: told[2].as_u64().expect("a number"),
    }
}
