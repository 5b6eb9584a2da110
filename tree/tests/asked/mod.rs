//! Questions to a real Portage, one process for many.
//!
//! `PEERAGE_PYTHON` names a Python that has Portage; without it nothing is compared, which only CI takes as a failure.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Portage's answers, one for each question; None where there is no Portage to ask.
#[expect(clippy::disallowed_methods, reason = "tests may read the environment and start processes")]
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn ask(questions: &[String]) -> Option<Vec<String>> {
    let Some(python) = std::env::var_os("PEERAGE_PYTHON").filter(|python| !python.is_empty()) else {
        assert!(std::env::var_os("CI").is_none(), "PEERAGE_PYTHON names no Python with Portage, and this is CI");
        println!("skipped: PEERAGE_PYTHON does not name a Python that has Portage");
        return None;
    };
    let mut child = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/portage_answers.py"))
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the Python of PEERAGE_PYTHON starts");
    let mut input = child.stdin.take().expect("standard input is a pipe");
    let text: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let writer = std::thread::Builder::new().spawn(move || input.write_all(text.as_bytes())).expect("a thread starts");
    let output = child.wait_with_output().expect("Python ends");
    writer.join().expect("the writer ends").expect("Python reads all questions");
    let answers: Vec<String> =
        String::from_utf8(output.stdout).expect("answers in UTF-8").lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), questions.len(), "Portage answers every question");
    Some(answers)
}

/// Compares our answers with Portage's, and shows the first few that differ.
#[expect(clippy::print_stdout, reason = "how much was compared")]
pub(crate) fn compare(cases: &[(String, String)]) {
    let questions: Vec<String> = cases.iter().map(|(question, _)| question.clone()).collect();
    let Some(answers) = ask(&questions) else { return };
    let mut differing = String::new();
    let mut count = 0;
    for ((question, ours), theirs) in cases.iter().zip(&answers) {
        if ours != theirs {
            count += 1;
            if count <= 10 {
                writeln!(differing, "{question}\n  ours:    {ours}\n  Portage: {theirs}").expect("a string grows");
            }
        }
    }
    println!("{} questions, {count} answers differ", cases.len());
    assert!(count == 0, "{count} of {} answers differ\n{differing}", cases.len());
}

/// Writes a file below `root`.
#[expect(clippy::disallowed_methods, reason = "a test makes its configuration")]
pub(crate) fn put(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("directories are made");
    fs::write(path, text).expect("a file is written");
}
