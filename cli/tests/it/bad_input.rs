//! Bad input at every door: a clear answer, and the daemon goes on.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::http;
use crate::noise::noise;
use crate::peer::{Start, TestPeer, both};

struct Stage {
    dir: tempfile::TempDir,
    source: Source,
    repo: Repo,
    node: TestPeer,
}

fn stage() -> Stage {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "good-1.0.bin", &noise(1, 10_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("good", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    node.import(&source.path);
    Stage { dir, source, repo, node }
}

impl Stage {
    /// Alive, without a panic, and serving.
    fn goes_on(&mut self, after: &str) {
        assert!(self.node.is_healthy(), "after {after}");
        assert!(!self.node.log().contains("panicked"), "after {after}: {}", self.node.log());
        assert!(self.node.get(&self.source.sums.path()).is(&self.source.content()), "after {after}");
    }
}

/// The status of a raw answer, if it is one.
fn status(answer: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(answer);
    text.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

#[test]
fn paths_that_name_no_distfile_are_4xx_and_reach_nothing_on_disk() {
    let mut stage = stage();
    let sums = stage.source.sums.clone();
    let (digest, name) = (sums.blake2b.clone(), stage.source.name.clone());
    let upper = digest.to_uppercase();
    let wrong = if digest.starts_with("00") { "11" } else { "00" };
    let secret = stage.node.store_dir();
    let up = "../".repeat(20);
    let paths = [
        "/distfiles/".to_owned(),
        "/distfiles".to_owned(),
        "/distfiles/../../../../etc/passwd".to_owned(),
        "/distfiles/%2e%2e/%2e%2e/%2e%2e/etc/passwd".to_owned(),
        "/distfiles/..%2f..%2f..%2fetc%2fpasswd".to_owned(),
        "/distfiles/%252e%252e%252fetc%252fpasswd".to_owned(),
        format!("/distfiles/{up}{}", secret.display()),
        "/distfiles/ab/../layout.conf/x".to_owned(),
        "/distfiles/%00".to_owned(),
        format!("/distfiles/{name}%00.html"),
        "/distfiles/%ff%fe".to_owned(),
        "/distfiles/%".to_owned(),
        "/distfiles/%zz".to_owned(),
        "/distfiles/.hidden".to_owned(),
        "/distfiles/.".to_owned(),
        "/distfiles/..".to_owned(),
        "/distfiles//etc/passwd".to_owned(),
        format!("/distfiles/{}", "a".repeat(6_000)),
        format!("/distfiles/{}", "a/".repeat(2_000)),
        format!("/distfiles/{wrong}/{digest}"),
        format!("/distfiles/{wrong}/{name}"),
        format!("/distfiles/{}/{}", &digest[..2], &digest[..127]),
        format!("/distfiles/{}/{digest}0", &digest[..2]),
        format!("/distfiles/{}/{upper}", &upper[..2]),
        format!("/distfiles/{}/{}", &sums.sha512[..2], sums.sha512),
        "/distfiles/zz/zz".to_owned(),
        "/binpkgs/../../etc/passwd".to_owned(),
        "/binpkgs/x/%2e%2e/%2e%2e/etc/passwd".to_owned(),
        "/snapshots/../distfiles/../etc/passwd".to_owned(),
        "/releases/%2e%2e%2f%2e%2e%2fetc/passwd".to_owned(),
        "/api/v1/nothing".to_owned(),
        "/nothing".to_owned(),
    ];
    for path in paths {
        let reply = stage.node.get(&path);
        let short = &path[..path.len().min(90)];
        // A SHA512 path and upper case are other spellings of the right file, which may be understood.
        let spelt = path.contains(&sums.sha512) || path.contains(&upper);
        assert!(
            (400..500).contains(&reply.status) || (spelt && reply.is(&stage.source.content())),
            "{short}: {}",
            reply.status
        );
        assert!(!reply.text().contains("root:"), "{short} shows a file of this machine");
        assert!(reply.body.len() < 10_000 || spelt, "{short}: a short answer");
    }
    stage.goes_on("bad paths");
}

#[test]
fn malformed_and_oversized_requests_are_refused_and_change_nothing() {
    let mut stage = stage();
    let address = stage.node.http();
    let path = stage.source.sums.path();
    let long = "x".repeat(300_000);
    let many: String = (0..5_000).map(|number| format!("X-{number}: 1\r\n")).collect();
    let requests: Vec<(&str, Vec<u8>)> = vec![
        ("noise", noise(1, 50_000)),
        ("nothing", Vec::new()),
        ("half a line", b"GET /distf".to_vec()),
        ("no version", format!("GET {path}\r\n\r\n").into_bytes()),
        ("a version to come", format!("GET {path} HTTP/9.9\r\nHost: x\r\n\r\n").into_bytes()),
        ("a long line", format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()),
        ("a long header", format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n").into_bytes()),
        ("many headers", format!("GET {path} HTTP/1.1\r\nHost: x\r\n{many}\r\n").into_bytes()),
        ("a header with a null byte", format!("GET {path} HTTP/1.1\r\nHost: x\0y\r\n\r\n").into_bytes()),
        (
            "two lengths",
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab").into_bytes(),
        ),
        ("a TLS hello", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
        ("HTTP/2 without asking", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        (
            "an endless body",
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\nabc")
                .into_bytes(),
        ),
    ];
    for (what, bytes) in requests {
        let answer = http::raw(&address, &bytes);
        let refused = answer.is_empty() || status(&answer).is_none_or(|status| (400..600).contains(&status));
        assert!(refused, "{what}: {}", String::from_utf8_lossy(&answer[..answer.len().min(200)]));
        stage.goes_on(what);
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for target in [path.as_str(), "/", "/api/v1/status", "/healthz"] {
            let reply = http::request(&address, method, target, &[("Content-Length", "0")]);
            assert!(matches!(reply.status, 400..=405 | 501), "{method} {target}: {}", reply.status);
        }
    }
    for range in
        [format!("bytes={}-", "9".repeat(400)), format!("bytes={}", "0-1,".repeat(10_000)), "bytes=--5".to_owned()]
    {
        let reply = http::request(&address, "GET", &path, &[("Range", &range)]);
        assert!(matches!(reply.status, 200 | 206 | 400..=499), "{}", reply.status);
    }
    stage.goes_on("methods and ranges");
}

#[test]
fn a_web_page_of_another_site_can_neither_read_nor_act() {
    let stage = stage();
    for (name, value) in [("Host", "evil.example.invalid"), ("Origin", "http://evil.example.invalid")] {
        let reply = http::request(&stage.node.http(), "GET", "/api/v1/status", &[(name, value)]);
        assert_eq!(reply.header("access-control-allow-origin"), None, "{name}");
    }
    let page = stage.node.get("/");
    assert!(page.header("content-security-policy").is_some(), "the page says what it may load");
}

#[test]
fn garbage_on_the_p2p_port_disturbs_nobody() {
    let mut stage = stage();
    let port = stage.node.p2p_port();
    let multistream = b"\x13/multistream/1.0.0\n".to_vec();
    let inputs: Vec<Vec<u8>> = vec![
        Vec::new(),
        noise(1, 200_000),
        multistream.clone(),
        [multistream.clone(), vec![0xff; 100_000]].concat(),
        [multistream.clone(), b"\x07/noise\n".to_vec(), noise(2, 70_000)].concat(),
        [multistream, b"\x0b/tls/1.0.0\n".to_vec(), noise(3, 70_000)].concat(),
        vec![0xff; 10],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
    ];
    for input in inputs {
        http::raw(&port, &input);
    }
    let open: Vec<TcpStream> = (0..150)
        .map_while(|_| {
            let mut stream = TcpStream::connect(&port).ok()?;
            stream.write_all(b"\x13/multi").ok()?;
            Some(stream)
        })
        .collect();
    assert!(!open.is_empty());
    stage.goes_on("garbage on the p2p port");
    drop(open);

    let b = Start::new(&stage.dir.path().join("b")).repo(&stage.repo).knows(&stage.node).start();
    b.wait_for_peers(1);
    let reply = b.get(&stage.source.sums.path());
    assert!(reply.is(&stage.source.content()), "real peers are still served: {}", reply.status);
}

#[test]
fn a_control_socket_that_is_told_nonsense_goes_on_answering() {
    let mut stage = stage();
    let path = stage.node.dir().join("control.sock");
    for bytes in
        [noise(1, 20_000), b"POST /v1/import HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nnot json!".to_vec()]
    {
        let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
        // It may hang up before it has read all of this.
        let _sent = stream.write_all(&bytes);
    }
    assert_eq!(stage.node.number("blobs"), 1);
    stage.goes_on("nonsense on the control socket");
}

#[test]
fn a_store_or_configuration_that_cannot_be_used_is_a_clear_refusal() {
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let broken = dir.path().join("broken");
    fs::create_dir_all(&broken).unwrap();
    fs::write(broken.join("store"), "a file where the store should be").unwrap();
    let (ended, log) = Start::new(&broken).repo(&repo).try_start().err().expect("there is no place for a store");
    assert!(matches!(ended.code(), Some(2 | 4)), "{ended}: {log}");
    assert!(log.contains("store") && !log.contains("panicked"), "{log}");

    let node = Start::new(&dir.path().join("first")).repo(&repo).start();
    let taken = node.http();
    let second = Start::new(&dir.path().join("second")).repo(&repo).flag("--http", &taken);
    let (ended, log) = second.try_start().err().expect("the address is taken");
    assert!(matches!(ended.code(), Some(2 | 4)), "{ended}: {log}");
    assert!(log.contains(&taken) && !log.contains("panicked"), "{log}");
    let output = node.verb(&["verify"]);
    assert!(output.status.success(), "{}", both(&output));
}
