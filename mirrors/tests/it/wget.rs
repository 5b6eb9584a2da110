//! The same answers to wget, which Portage fetches with, and to this crate: what one takes for the file the other takes too.

use crate::scripted::{Reply, Request, Scripted, not_found, raw, reply};
use mirrors::{Exempt, Mirrors, Options, Patience, Source, Uri};
use std::time::Duration;
use tempfile::TempDir;
use tree::digest::Digest;
use tree::distfile::Distfile;

const CONTENT: &[u8] = b"\x1f\x8b\x08 the bytes as they come, and no others";
const AMPLE: Duration = Duration::from_secs(60);

/// An answer for `/x/f.tar`; `/x/moved` and `/moved` have the file.
type Answer = fn(&str) -> Reply;

fn redirect(status: &str, location: &str) -> Reply {
    reply(status, &[&format!("Location: {location}")], b"elsewhere")
}

fn with(line: &str) -> Reply {
    reply("200 OK", &[line], CONTENT)
}

/// What each is, the answer, and whether it is the file, as wget was seen to judge.
const ANSWERS: &[(&str, Answer, bool)] = &[
    ("plain", |_| with("X: y"), true),
    ("201", |_| reply("201 Created", &[], CONTENT), true),
    ("202", |_| reply("202 Accepted", &[], CONTENT), true),
    ("203", |_| reply("203 Non-Authoritative", &[], CONTENT), true),
    ("226", |_| reply("226 IM Used", &[], CONTENT), true),
    ("204", |_| raw("204 No Content", &[], b""), false),
    ("206 of all", |_| reply("206 Part", &["Content-Range: bytes 0-40/41"], CONTENT), true),
    ("206 of the end", |_| reply("206 Part", &["Content-Range: bytes 1-40/41"], CONTENT.split_at(1).1), false),
    ("300 with the file", |_| reply("300 Choices", &[], CONTENT), true),
    ("300 with a choice", |_| redirect("300 Choices", "/moved"), true),
    ("304", |_| raw("304 Not Modified", &[], b""), false),
    ("400", |_| reply("400 Bad", &[], CONTENT), false),
    ("404", |_| reply("404 Not Found", &[], CONTENT), false),
    ("500", |_| reply("500 Oops", &[], CONTENT), false),
    ("503", |_| reply("503 Busy", &[], CONTENT), false),
    ("gzip", |_| with("Content-Encoding: gzip"), true),
    ("x-gzip", |_| with("Content-Encoding: x-gzip"), true),
    ("GZIP", |_| with("Content-Encoding: GZIP"), true),
    ("none", |_| with("Content-Encoding: none"), true),
    ("binary", |_| with("Content-Encoding: binary"), true),
    ("identity", |_| with("Content-Encoding: identity"), true),
    ("empty", |_| with("Content-Encoding:"), true),
    ("br", |_| with("Content-Encoding: br"), true),
    ("deflate", |_| with("Content-Encoding: deflate"), true),
    ("two encodings", |_| with("Content-Encoding: gzip, gzip"), true),
    ("utf-8", |_| with("Content-Encoding: UTF-8"), true),
    ("html", |_| with("Content-Type: text/html"), true),
    ("without a length", |_| raw("200 OK", &[], CONTENT), true),
    ("in chunks", |_| raw("200 OK", &["Transfer-Encoding: chunked"], &chunked()), true),
    (
        "in chunks and encoded",
        |_| raw("200 OK", &["Transfer-Encoding: chunked", "Content-Encoding: gzip"], &chunked()),
        true,
    ),
    ("cut", |_| with("X: y").cut(5), false),
    ("another length", |_| raw("200 OK", &["Content-Length: 40"], CONTENT), false),
    ("301", |_| redirect("301 Moved", "/moved"), true),
    ("302", |_| redirect("302 Found", "/moved"), true),
    ("303", |_| redirect("303 See Other", "/moved"), true),
    ("307", |_| redirect("307 Temporary", "/moved"), true),
    ("308", |_| redirect("308 Permanent", "/moved"), true),
    ("a redirect to nowhere", |_| reply("302 Found", &[], b""), false),
    ("a redirect to a neighbour", |_| redirect("302 Found", "moved"), true),
    ("a redirect from here", |_| redirect("302 Found", "./moved"), true),
    ("a redirect upwards", |_| redirect("302 Found", "../moved"), true),
    ("a redirect beyond the root", |_| redirect("302 Found", "../../../moved"), true),
    ("a redirect with a part", |_| redirect("302 Found", "/moved#part"), true),
    ("a redirect with a query", |_| redirect("302 Found", "/moved?a=b"), true),
    ("a redirect with spaces around", |_| redirect("302 Found", "  /moved  "), true),
    ("a redirect without a scheme", |host| redirect("302 Found", &format!("//{host}/moved")), true),
    ("a redirect to a whole URL", |host| redirect("302 Found", &format!("http://{host}/moved")), true),
    ("a redirect in capitals", |host| redirect("302 Found", &format!("HTTP://{host}/moved")), true),
    ("a redirect to a host and a path", |host| redirect("302 Found", &format!("{host}/moved")), true),
    ("a redirect to a name and a port", |_| redirect("302 Found", "f.example:80/moved"), true),
    ("a redirect to a file", |_| redirect("302 Found", "file:///etc/passwd"), false),
    ("a redirect to itself", |_| redirect("302 Found", "f.tar"), false),
];

fn chunked() -> Vec<u8> {
    let (one, two) = CONTENT.split_at(10);
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    [chunk(one), chunk(two), b"0\r\n\r\n".to_vec()].concat()
}

fn script(host: &str, answer: Answer, request: &Request) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    match path {
        "/x/f.tar" => answer(host),
        // The last two are where a host without a scheme leads: a file beside this one.
        "/moved" | "/x/moved" => with("X: y"),
        _ if path.starts_with("/x/") && path.ends_with("/moved") => with("X: y"),
        _ => not_found(),
    }
}

#[expect(clippy::disallowed_methods, reason = "tests may start processes")]
async fn wget(url: &str, directory: &TempDir) -> Option<Vec<u8>> {
    let out = directory.path().join("f.tar");
    let _absent = std::fs::remove_file(&out);
    // As Portage's FETCHCOMMAND, once.
    let mut wget = tokio::process::Command::new("wget");
    wget.args(["-q", "-t", "1", "-T", "60", "--passive-ftp", "--no-config", "--no-proxy", "-O"]).arg(&out).arg(url);
    let ended = wget.env_remove("http_proxy").status().await.expect("wget is what Portage fetches with");
    ended.success().then(|| std::fs::read(out).expect("wget wrote it"))
}

async fn ours(url: &str) -> Option<Vec<u8>> {
    let options = Options { connect: AMPLE, first_byte: AMPLE, stall: AMPLE, long: AMPLE, ..Options::default() };
    let mirrors = Mirrors::new(options).expect("a client can be set up");
    let distfile = Distfile {
        name: "f.tar".parse().expect("a name"),
        size: CONTENT.len().try_into().expect("small"),
        blake2b: Digest::of(CONTENT),
        sha512: None,
    };
    let uris = vec![Uri { uri: url.to_owned(), exempt: Exempt::None }];
    let source = Source { distfile, uris, may_mirror: false, may_fetch: true };
    let candidate = mirrors.plan(&source).into_iter().next()?;
    let mut body = mirrors.open(&candidate, &source, 0, Patience::Normal).await.ok()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
    }
    Some(bytes)
}

#[tokio::test]
async fn what_wget_takes_for_the_file_is_taken_for_it() {
    let directory = TempDir::new().expect("a temporary directory");
    let mut wrong = Vec::new();
    for (what, answer, wanted) in ANSWERS {
        let other = Scripted::new(|request| script("", not_there, request)).await;
        let host = other.url().authority().to_owned();
        let server = Scripted::new(move |request| script(&host, *answer, request)).await;
        let url = server.url().join("x/f.tar").expect("a URL").to_string();
        let (theirs, ours) =
            other.beside(server.beside(async { (wget(&url, &directory).await, ours(&url).await) })).await;
        let right = |bytes: Option<Vec<u8>>| bytes.as_deref() == Some(CONTENT);
        let (theirs, ours) = (right(theirs), right(ours));
        if (theirs, ours) != (*wanted, *wanted) {
            wrong.push(format!("{what}: wget {theirs}, this crate {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn not_there(_: &str) -> Reply {
    not_found()
}
