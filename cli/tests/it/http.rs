//! A plain HTTP/1.1 client on one connection per request, as wget is: what it shows is what was on the wire.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Portage's wget gives up after this silence; so does every test.
const SILENCE_MAX: Duration = Duration::from_secs(59);

/// The head of an answer, and the way to its body.
pub(crate) struct Opened {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    body: Body,
    reader: BufReader<TcpStream>,
}

#[derive(Clone, Copy, PartialEq)]
enum Body {
    None,
    Left(u64),
    Chunk(u64),
    Chunks,
    UntilClose,
}

/// A whole answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended where the head had said, by length or by the last chunk.
    pub(crate) complete: bool,
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The whole of `expected`, with a clean end.
    pub(crate) fn is(&self, expected: &[u8]) -> bool {
        self.status == 200 && self.complete && self.body == expected
    }
}

impl Opened {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// At most one more piece of the body; `None` at its clean end.
    ///
    /// # Errors
    /// When the connection breaks or falls silent before the end that the head promised.
    pub(crate) fn piece<'a>(&mut self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        let length = self.fill(buffer)?;
        Ok(length.map(|length| &buffer[..length]))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if self.body == Body::Chunks {
            self.next_chunk()?;
        }
        let limit = match self.body {
            Body::None => return Ok(None),
            Body::Left(left) | Body::Chunk(left) => {
                if left == 0 {
                    return Ok(None);
                }
                usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len())
            }
            Body::Chunks | Body::UntilClose => buffer.len(),
        };
        let length = self.reader.read(&mut buffer[..limit])?;
        let taken = length as u64;
        match &mut self.body {
            Body::UntilClose if length == 0 => return Ok(None),
            _ if length == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Body::Left(left) => *left -= taken,
            Body::Chunk(left) => {
                *left -= taken;
                if *left == 0 {
                    self.line()?;
                    self.body = Body::Chunks;
                }
            }
            Body::None | Body::Chunks | Body::UntilClose => {}
        }
        Ok(Some(length))
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.body = if size == 0 { Body::None } else { Body::Chunk(size) };
        Ok(())
    }

    /// A line of text, without its end; an error when the connection ended before it did.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// The rest of the body.
    pub(crate) fn rest(mut self) -> Reply {
        let mut body = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        let complete = loop {
            match self.piece(&mut buffer) {
                Ok(Some(piece)) => body.extend_from_slice(piece),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        Reply { status: self.status, headers: self.headers, body, complete }
    }
}

/// Sends a request and reads the head of the answer.
///
/// # Errors
/// When nobody answers, or not in HTTP.
pub(crate) fn open(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<Opened> {
    open_as(address, address, method, path, headers)
}

/// As [`open`], by a name that somebody else has for the address.
fn open_as(address: &str, host: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<Opened> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.write_all(text.as_bytes())?;
    read_head(stream, method)
}

fn read_head(stream: TcpStream, method: &str) -> io::Result<Opened> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let mut opened = Opened {
        status: 0,
        headers: Vec::new(),
        body: Body::UntilClose,
        reader: BufReader::with_capacity(BUFFER, stream),
    };
    let first = opened.line()?;
    opened.status = first.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(bad)?;
    loop {
        let line = opened.line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(bad)?;
        opened.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    opened.body = if method == "HEAD" || matches!(opened.status, 100..=199 | 204 | 304) {
        Body::None
    } else if opened.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        Body::Chunks
    } else {
        match opened.header("content-length") {
            Some(length) => Body::Left(length.parse().map_err(|_| bad())?),
            None => Body::UntilClose,
        }
    };
    Ok(opened)
}

const BUFFER: usize = 256 * 1024;

/// A whole request and its answer.
pub(crate) fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    match open(address, method, path, headers) {
        Ok(opened) => opened.rest(),
        Err(error) => panic!("{method} {path} at {address}: {error}"),
    }
}

/// `GET` by a name that the address is not known by to the test.
pub(crate) fn get_as(address: &str, host: &str, path: &str) -> Reply {
    match open_as(address, host, "GET", path, &[]) {
        Ok(opened) => opened.rest(),
        Err(error) => panic!("GET {path} of {host} at {address}: {error}"),
    }
}

/// `GET` without more.
pub(crate) fn get(address: &str, path: &str) -> Reply {
    request(address, "GET", path, &[])
}

/// Sends any bytes at all, ends its own side, and returns what comes back until the other side closes or says nothing
/// more. A server may take the end of this side for the end of the client, so an answer is never certain.
pub(crate) fn raw(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the port listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("the limit is not zero");
    // The other side may hang up in the middle of garbage; that is an answer too.
    let _sent = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer);
    answer
}
