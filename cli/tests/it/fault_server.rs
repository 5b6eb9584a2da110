//! `FaultServer`: a mirror that does what a test's script says: cuts, stalls, lies, redirects, refuses.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Longer than any node may wait for a silent mirror.
const STALL: Duration = Duration::from_secs(170);

/// What a request asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// The first byte of a `Range: bytes=N-`.
    pub(crate) from: u64,
}

/// How to answer one request.
pub(crate) enum Answer {
    /// The whole, or the asked range of it.
    Whole(Vec<u8>),
    /// A head for the whole, and the connection ends after so many bytes.
    Cut(Vec<u8>, usize),
    /// A head for the whole, and silence after so many bytes.
    Stall(Vec<u8>, usize),
    /// The first bytes, then the rest when the gate is opened.
    Gated(Vec<u8>, usize, Arc<Gate>),
    /// Bytes with no length, whose end is the connection's.
    Unmeasured(Vec<u8>),
    /// A status line, headers, a body.
    Status(u16, Vec<(String, String)>, Vec<u8>),
    /// Whatever bytes, then the connection ends.
    Raw(Vec<u8>),
    /// No byte at all.
    Silence,
}

/// A door between two parts of a file, opened by the test.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let guard = self.open.lock().unwrap();
        let _passed = self.changed.wait_timeout_while(guard, STALL, |open| !*open).unwrap();
    }
}

/// A listening server; its threads end with the test's process.
pub(crate) struct FaultServer {
    address: String,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl FaultServer {
    /// Answers every request as `script` says.
    pub(crate) fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let record = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let script = Arc::clone(&script);
                let record = Arc::clone(&record);
                // A client that hangs up is the client's affair.
                thread::spawn(move || drop(converse(&stream, &record, script.as_ref())));
            }
        });
        Self { address, seen }
    }

    /// Answers the distfile of this name as `answer` says, in whatever layout, and 404 to all else.
    pub(crate) fn for_file(name: &str, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let end = format!("/{name}");
        Self::start(move |asked| if asked.path.ends_with(&end) { answer(asked) } else { not_found() })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many GETs for paths ending so were made.
    pub(crate) fn gets(&self, end: &str) -> usize {
        count(&self.seen.lock().unwrap(), end)
    }

    pub(crate) fn all(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }
}

fn count(requests: &[Asked], end: &str) -> usize {
    requests.iter().filter(|asked| asked.method == "GET" && asked.path.ends_with(end)).count()
}

/// A 404 with a short body.
pub(crate) fn not_found() -> Answer {
    Answer::Status(404, Vec::new(), b"no such file\n".to_vec())
}

fn converse(
    stream: &TcpStream,
    seen: &Mutex<Vec<Asked>>,
    script: &(dyn Fn(&Asked) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let mut asked = Asked {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        from: 0,
    };
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            let first = value.trim().trim_start_matches("bytes=").split('-').next().unwrap_or_default();
            asked.from = first.parse().unwrap_or(0);
        }
    }
    seen.lock().unwrap().push(asked.clone());
    give(stream, &asked, script(&asked))?;
    stream.shutdown(Shutdown::Write)
}

fn give(mut stream: &TcpStream, asked: &Asked, answer: Answer) -> std::io::Result<()> {
    match answer {
        Answer::Whole(bytes) => {
            let from = head_for(stream, asked, &bytes)?;
            stream.write_all(&bytes[from..])
        }
        Answer::Cut(bytes, at) => {
            let from = head_for(stream, asked, &bytes)?;
            stream.write_all(&bytes[from..at.max(from)])
        }
        Answer::Stall(bytes, at) => {
            let from = head_for(stream, asked, &bytes)?;
            stream.write_all(&bytes[from..at.max(from)])?;
            thread::park_timeout(STALL);
            Ok(())
        }
        Answer::Gated(bytes, at, gate) => {
            let from = head_for(stream, asked, &bytes)?;
            let at = at.max(from);
            stream.write_all(&bytes[from..at])?;
            gate.wait();
            stream.write_all(&bytes[at..])
        }
        Answer::Unmeasured(bytes) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&bytes)
        }
        Answer::Status(status, headers, body) => {
            let mut head =
                format!("HTTP/1.1 {status} Scripted\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            stream.write_all(format!("{head}\r\n").as_bytes())?;
            stream.write_all(&body)
        }
        Answer::Raw(bytes) => stream.write_all(&bytes),
        Answer::Silence => {
            thread::park_timeout(STALL);
            Ok(())
        }
    }
}

/// Writes the head for a body that is all of `bytes` or its asked end, and returns where the body begins.
fn head_for(mut stream: &TcpStream, asked: &Asked, bytes: &[u8]) -> std::io::Result<usize> {
    let length = bytes.len();
    let from = usize::try_from(asked.from).unwrap_or(usize::MAX);
    let head = if from > 0 && from < length {
        let last = length - 1;
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{length}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            length - from
        )
    } else {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    stream.write_all(head.as_bytes())?;
    Ok(if from < length { from } else { 0 })
}
