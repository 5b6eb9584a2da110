//! Mirrors that misbehave: the right file comes from the next one, or an honest failure, and nothing wrong is kept.

use tempfile::tempdir;

use crate::fault_server::{Answer, FaultServer};
use crate::gentoo::{Repo, Source};
use crate::noise::noise;
use crate::peer::{Start, TestPeer};
use crate::portage::Client;
use crate::upstream::{Nginx, gets};

const LENGTH: usize = 900_000;
const NAME: &str = "wanted-1.0.bin";

/// A way to misbehave with the right content at hand.
type Fault = fn(Vec<u8>) -> Answer;

const FAULTS: &[(&str, Fault)] = &[
    ("ends in the middle", |content| Answer::Cut(content, LENGTH / 2)),
    ("ends before the first byte", |content| Answer::Cut(content, 0)),
    ("sends a page with 200", |_| {
        let page = b"<html><body>Log in to our wireless network</body></html>".to_vec();
        Answer::Status(200, vec![("Content-Type".to_owned(), "text/html".to_owned())], page)
    }),
    ("sends a page without a length", |_| Answer::Unmeasured(b"<html>nothing here</html>".to_vec())),
    ("redirects to itself for ever", |_| {
        Answer::Status(302, vec![("Location".to_owned(), format!("/distfiles/{NAME}"))], Vec::new())
    }),
    ("redirects to a file of its own", |_| {
        Answer::Status(302, vec![("Location".to_owned(), "file:///etc/passwd".to_owned())], Vec::new())
    }),
    ("has another file of the same length", |_| Answer::Whole(noise(99, LENGTH))),
    ("has the file with its last byte wrong", |mut content| {
        *content.last_mut().unwrap() ^= 0x80;
        Answer::Whole(content)
    }),
    ("has a longer file", |mut content| {
        content.extend_from_slice(b"more");
        Answer::Whole(content)
    }),
    ("never stops sending", |content| Answer::Unmeasured(content.repeat(40))),
    ("has a shorter file", |content| Answer::Whole(content[..LENGTH - 1].to_vec())),
    ("has an empty file", |_| Answer::Whole(Vec::new())),
    ("is broken", |_| Answer::Status(500, Vec::new(), b"oops".to_vec())),
    ("is busy", |_| Answer::Status(503, vec![("Retry-After".to_owned(), "3600".to_owned())], Vec::new())),
    ("has enough of us", |_| Answer::Status(429, vec![("Retry-After".to_owned(), "3600".to_owned())], Vec::new())),
    ("forbids it", |_| Answer::Status(403, Vec::new(), Vec::new())),
    ("does not speak HTTP", |_| Answer::Raw(vec![0xff; 70_000])),
    ("sends a head without an end", |_| {
        Answer::Raw([b"HTTP/1.1 200 OK\r\nX-Long: ".as_slice(), &[b'a'; 2_000_000]].concat())
    }),
    ("claims a length beyond measure", |content| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n".as_slice();
        Answer::Raw([head, &content].concat())
    }),
    ("hangs up", |_| Answer::Raw(Vec::new())),
];

#[test]
fn after_every_kind_of_bad_mirror_the_next_one_brings_the_right_file() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), NAME, &noise(1, LENGTH));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let mut wrong = Vec::new();
    for (number, (what, fault)) in FAULTS.iter().enumerate() {
        let content = source.content();
        let bad = FaultServer::for_file(NAME, move |_| fault(content.clone()));
        let start = Start::new(&dir.path().join(format!("node{number}"))).repo(&repo);
        let mut node = start.mirror(&bad.url()).mirror(&nginx.url()).start();
        // The first answer may break off where the bad mirror's bytes were seen to be wrong; Portage asks again.
        let right = (0..3).any(|_| node.get(&source.sums.path()).is(&source.content()));
        if !right || bad.gets(NAME) == 0 || !node.is_healthy() {
            wrong.push(format!("{what}: right {right}, asked {}; {}", bad.gets(NAME), node.log()));
            continue;
        }
        node.holds_only(1);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn with_only_a_bad_mirror_the_failure_is_honest_and_the_store_stays_empty() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), NAME, &noise(1, LENGTH));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let mut wrong = Vec::new();
    for (number, (what, fault)) in FAULTS.iter().enumerate() {
        let content = source.content();
        let bad = FaultServer::for_file(NAME, move |_| fault(content.clone()));
        let node = TestPeer::mirror_of(&dir.path().join(format!("node{number}")), &repo, &bad.url());
        let reply = node.get(&source.sums.path());
        let honest = reply.status >= 400 || (!reply.complete && reply.body.len() < LENGTH);
        // A mirror that cuts is resumed until it has given all; that is not a failure.
        if !honest && !reply.is(&source.content()) {
            wrong.push(format!("{what}: {} with {} bytes", reply.status, reply.body.len()));
        }
        node.holds_only(u64::from(reply.is(&source.content())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn portage_gets_the_right_file_though_the_first_mirror_has_a_wrong_one() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), NAME, &noise(1, LENGTH));
    let bad = FaultServer::for_file(NAME, |_| Answer::Whole(noise(99, LENGTH)));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).mirror(&bad.url()).mirror(&nginx.url()).start();
    let client = Client::new(&dir.path().join("client"), &[&repo], &node.url());
    client.fetches(&["app-misc/plain"]);
    assert_eq!(client.content(NAME), source.content());
    assert_eq!(gets(&nginx.finish(), NAME), 1);
}

#[test]
fn a_mirror_that_stalls_in_the_middle_is_left_and_the_next_one_gives_only_the_rest() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), NAME, &noise(1, LENGTH));
    let (stalled, whole) = (source.content(), source.content());
    let bad = FaultServer::for_file(NAME, move |_| Answer::Stall(stalled.clone(), LENGTH / 2));
    let good = FaultServer::for_file(NAME, move |_| Answer::Whole(whole.clone()));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).mirror(&bad.url()).mirror(&good.url()).start();
    let client = Client::new(&dir.path().join("client"), &[&repo], &node.url());
    client.fetches(&["app-misc/plain"]);
    assert_eq!(client.content(NAME), source.content());
    let froms: Vec<u64> =
        good.all().iter().filter(|asked| asked.path.ends_with(NAME)).map(|asked| asked.from).collect();
    assert_eq!(froms.len(), 1, "{froms:?}");
    assert!(froms[0] > 0, "the bytes so far are not fetched twice: {froms:?}");
    node.holds_only(1);
}

#[test]
fn a_mirror_that_says_nothing_at_all_costs_portage_no_more_than_its_patience() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), NAME, &noise(1, LENGTH));
    let silent = FaultServer::start(|_| Answer::Silence);
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).mirror(&silent.url()).mirror(&nginx.url()).start();
    // The client of these tests gives up after the silence that wget gives up after.
    assert!(node.get(&source.sums.path()).is(&source.content()));
    node.holds_only(1);
}

#[test]
fn a_mirror_that_asks_for_time_is_not_asked_again_for_the_next_file() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let busy = FaultServer::start(|asked| match asked.path.as_str() {
        "/distfiles/layout.conf" => Answer::Whole(b"[structure]\n0=flat\n".to_vec()),
        _ => Answer::Status(429, vec![("Retry-After".to_owned(), "3600".to_owned())], Vec::new()),
    });
    let repo = Repo::new(dir.path(), "main");
    let sources: Vec<Source> = (0..4)
        .map(|number| Source::new(&nginx.distfiles(), &format!("polite{number}.bin"), &noise(number, 10_000)))
        .collect();
    for (number, source) in sources.iter().enumerate() {
        repo.add_plain(&format!("plain{number}"), "http://127.0.0.1:1", source);
    }
    let node = Start::new(&dir.path().join("node")).repo(&repo).mirror(&busy.url()).mirror(&nginx.url()).start();
    for source in &sources {
        assert!(node.get(&source.sums.path()).is(&source.content()));
    }
    assert_eq!(busy.gets(".bin"), 1, "{:?}", busy.all());
}

#[test]
fn a_broken_layout_conf_above_does_not_keep_the_file_away() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), NAME, &noise(1, 20_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let broken: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"<html>welcome</html>".to_vec(),
        vec![0xff, 0xfe, 0x00, 0x80],
        b"[structure]\n0=filename-hash BLAKE2B 99999999999999999999\n1=filename-hash\n2=content-hash MD2 8".to_vec(),
        b"[structure]\n0=filename-hash BLAKE2B 7:0:-3\n".to_vec(),
        b"[structure\n0=flat".to_vec(),
        b"[structure]\n".repeat(400_000),
        noise(5, 3_000_000),
    ];
    for (number, text) in broken.into_iter().enumerate() {
        let content = source.content();
        let mirror = FaultServer::start(move |asked| match asked.path.as_str() {
            "/distfiles/layout.conf" => Answer::Whole(text.clone()),
            // Without a layout that can be used, a mirror is flat.
            "/distfiles/wanted-1.0.bin" => Answer::Whole(content.clone()),
            _ => crate::fault_server::not_found(),
        });
        let mut node = TestPeer::mirror_of(&dir.path().join(format!("node{number}")), &repo, &mirror.url());
        let reply = node.get(&source.sums.path());
        assert!(reply.is(&source.content()), "layout {number}: {} after {:?}", reply.status, mirror.all());
        assert!(node.is_healthy());
    }
}

#[test]
fn src_uri_is_the_last_resort_after_all_mirrors_and_may_redirect() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.www(), NAME, &noise(1, LENGTH));
    let target = format!("{}/{NAME}", nginx.url());
    let upstream = FaultServer::for_file(NAME, move |_| {
        Answer::Status(301, vec![("Location".to_owned(), target.clone())], Vec::new())
    });
    let empty = FaultServer::start(|_| crate::fault_server::not_found());
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", &upstream.url(), &source);
    let node = TestPeer::mirror_of(&dir.path().join("node"), &repo, &empty.url());
    let reply = node.get(&source.sums.path());
    assert!(reply.is(&source.content()), "{}", reply.status);
    assert_eq!(reply.header("x-peer-source"), Some("upstream"));
    assert_eq!((empty.gets(NAME), upstream.gets(NAME)), (1, 1), "the mirror first: {:?}", empty.all());
}
