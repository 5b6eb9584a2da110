//! The verbs of builds against a daemon that says what a test's script says: exit codes, what goes to which stream, and a
//! log whose connection breaks.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::peer::{both, peer};

/// Answers a request for this path with these bytes, and ends the connection.
type Script = Box<dyn FnMut(&str) -> Vec<u8> + Send>;

/// A control socket that follows a script, until the test ends.
fn scripted(dir: &Path, mut script: Script) -> PathBuf {
    let socket = dir.join("scripted.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &mut script);
        }
    });
    socket
}

fn answer(stream: UnixStream, script: &mut Script) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let bytes = script(first.split(' ').nth(1).unwrap());
    // A client that has heard enough leaves.
    let _left = (&stream).write_all(&bytes);
}

fn whole(body: &[u8]) -> Vec<u8> {
    with_status("200 OK", body)
}

fn with_status(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The head and one chunk of a longer body, without its end.
fn broken_off(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len());
    [head.as_bytes(), body, b"\r\n"].concat()
}

fn lines(values: &[Value]) -> Vec<u8> {
    values.iter().map(|value| format!("{value}\n")).collect::<String>().into_bytes()
}

fn job(state: &str, log_bytes: usize) -> Value {
    json!({
        "id": 7, "cpv": "app-misc/one-1.0", "repo": "main", "fingerprint": "ab", "state": state, "phase": "compile",
        "reason": (state == "failed").then_some("emerge ended with 1"), "source": "build", "builder": null, "attempt": 1,
        "created_at": 1, "started_at": 2, "ended_at": (state != "running").then_some(5), "digest": null, "image": null,
        "size": 12_288, "log_bytes": log_bytes, "log_path": "/data/jobs/7/log", "log_tail": ["one.c:1: \u{1b}[2Jerror"],
    })
}

fn job_line(state: &str) -> Value {
    let mut line = job(state, 9);
    line["event"] = "job".into();
    line
}

fn planned() -> Value {
    let package = |cpv: &str, fate: &str| {
        json!({
            "cpv": cpv, "repo": "main", "fate": fate, "size": 0, "reason": "it is", "use_flags": ["nls"],
            "fingerprint": "ab", "job": null,
        })
    };
    json!({"event": "planned", "packages": [package("app-misc/held-2", "have"), package("app-misc/one-1.0", "build")]})
}

fn done(failed: u64) -> Value {
    json!({"event": "done", "have": 1, "substituted": 0, "built": 1 - failed, "failed": failed})
}

#[test]
fn a_build_tells_facts_on_standard_output_phases_on_standard_error_and_ends_as_its_jobs_did() {
    let refused = |no| json!({"event": "refused", "error": "nothing", "hint": "look", "said": "emerge: no", "no": no});
    for (said, words, code, stdout, stderr) in [
        (
            vec![planned(), job_line("running"), job_line("done"), done(0)],
            vec!["build", "x"],
            0,
            "have app-misc/held-2\nbuilt app-misc/one-1.0 12.00 KiB in 3 s\n",
            vec!["app-misc/one-1.0 (job 7): compile"],
        ),
        (
            vec![planned(), job_line("running"), job_line("failed"), done(1)],
            vec!["build", "x"],
            1,
            "have app-misc/held-2\n",
            vec![
                "app-misc/one-1.0: compile: emerge ended with 1",
                "  | one.c:1: \u{fffd}[2Jerror",
                "/data/jobs/7/log",
                "peer logs 7",
            ],
        ),
        (
            vec![planned(), job_line("cancelled"), done(1)],
            vec!["build", "x", "--quiet"],
            1,
            "have app-misc/held-2\n",
            vec!["app-misc/one-1.0 was cancelled (job 7)"],
        ),
        (
            vec![planned(), done(0)],
            vec!["build", "x", "--pretend"],
            0,
            "have   app-misc/held-2   main  USE=\"nls\"  -    it is\nbuild  app-misc/one-1.0  main  USE=\"nls\"  0 B  it is\n",
            vec!["2 packages: 1 here"],
        ),
        (vec![refused(true)], vec!["build", "x"], 1, "", vec!["nothing", "  | emerge: no", "hint: look"]),
        (vec![refused(false)], vec!["build", "x"], 2, "", vec!["nothing"]),
        (
            vec![planned(), job_line("running")],
            vec!["build", "x"],
            3,
            "have app-misc/held-2\n",
            vec!["before it was done"],
        ),
    ] {
        let dir = tempdir().unwrap();
        let answer = whole(&lines(&said));
        let socket = scripted(dir.path(), Box::new(move |_| answer.clone()));
        let output = peer(dir.path(), &[&words[..], &["--control", socket.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(code), "{}", both(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), stdout, "{}", both(&output));
        for words in stderr {
            assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{words:?}: {}", both(&output));
        }
    }
}

#[test]
fn the_json_of_a_build_is_the_lines_of_the_daemon() {
    let dir = tempdir().unwrap();
    let said = [planned(), job_line("running"), job_line("failed"), done(1)];
    let answer = whole(&lines(&said));
    let socket = scripted(dir.path(), Box::new(move |_| answer.clone()));
    let output = peer(dir.path(), &["build", "x", "--json", "--control", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    let heard: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(heard, said);
}

/// The daemon is asked again from the byte after the last one that came, as often as the connection breaks.
#[test]
fn a_followed_log_has_every_byte_once_however_often_its_connection_breaks() {
    let dir = tempdir().unwrap();
    let mut log: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    log.extend_from_slice(b"\x1b[2Jthe end, without a line end");
    let (told, mut state) = (log.clone(), "running");
    let script = move |path: &str| {
        let Some((_, query)) = path.split_once("/log?from=") else {
            return whole(job(state, told.len()).to_string().as_bytes());
        };
        let from: usize = query.strip_suffix("&follow=true").unwrap().parse().unwrap();
        let until = told.len().min(from + 3_333);
        if until == told.len() {
            state = "done";
        }
        broken_off(&told[from..until])
    };
    let socket = scripted(dir.path(), Box::new(script));
    let output = peer(dir.path(), &["logs", "7", "-f", "--control", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == log, "a pipe gets the bytes as they are");
    assert!(String::from_utf8_lossy(&output.stderr).contains("job 7 (app-misc/one-1.0): done"));
}

#[test]
fn one_job_that_has_ended_does_not_keep_the_others_from_being_cancelled() {
    let dir = tempdir().unwrap();
    let script = |path: &str| match path {
        "/v1/jobs/8/cancel" => with_status("409 Conflict", br#"{"error": "it has ended", "hint": null}"#),
        _ => whole(job("cancelled", 0).to_string().as_bytes()),
    };
    let socket = scripted(dir.path(), Box::new(script));
    let output = peer(dir.path(), &["cancel", "8", "7", "--control", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "cancelled 7 app-misc/one-1.0\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot cancel job 8: it has ended"), "{}", both(&output));
}
