//! HEAD, Range, ETag and conditional GET: the same answers as nginx gives for the same file.

use tempfile::tempdir;

use crate::gentoo::{Ebuild, Repo, Source};
use crate::http::{self, Reply};
use crate::noise::noise;
use crate::peer::Start;
use crate::upstream::Nginx;

const LENGTH: usize = 100_000;

type Headers<'a> = &'a [(&'a str, &'a str)];

fn differs(what: &str, ours: &Reply, nginx: &Reply) -> Option<String> {
    let same = ours.status == nginx.status
        && ours.header("content-range") == nginx.header("content-range")
        // The text of an error page is not a file's.
        && (ours.status >= 300 || (ours.header("content-length") == nginx.header("content-length") && ours.body == nginx.body));
    (!same).then(|| {
        let tell =
            |reply: &Reply| format!("{} {:?} {} bytes", reply.status, reply.header("content-range"), reply.body.len());
        format!("{what}: {} but nginx: {}", tell(ours), tell(nginx))
    })
}

#[test]
fn ranges_and_conditions_are_answered_as_nginx_answers_them() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), "table-1.0.bin", &noise(1, LENGTH));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "https://example.invalid", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    node.import(&source.path);
    let path = source.sums.path();
    let ours = |method: &str, headers: Headers<'_>| http::request(&node.http(), method, &path, headers);
    let theirs = |method: &str, headers: Headers<'_>| {
        http::request(nginx.address(), method, "/distfiles/table-1.0.bin", headers)
    };

    let mut wrong = Vec::new();
    let ranges = [
        "bytes=0-0",
        "bytes=0-",
        "bytes=1-",
        "bytes=99999-",
        "bytes=99998-99999",
        "bytes=5-9",
        "bytes=0-99999",
        "bytes=0-100000",
        "bytes=50000-9999999999",
        "bytes=-1",
        "bytes=-100000",
        "bytes=-7",
        "bytes=100000-",
        "bytes=4000000000-",
    ];
    for range in ranges {
        for method in ["GET", "HEAD"] {
            let headers = [("Range", range)];
            wrong.extend(differs(&format!("{method} {range}"), &ours(method, &headers), &theirs(method, &headers)));
        }
    }
    let (our_head, their_head) = (ours("HEAD", &[]), theirs("HEAD", &[]));
    wrong.extend(differs("HEAD", &our_head, &their_head));
    assert!(our_head.header("accept-ranges").is_some_and(|unit| unit == "bytes"));
    assert_eq!(our_head.header("content-encoding"), None);
    let with = |headers: Headers<'_>, reply: &Reply| -> Vec<(String, String)> {
        let value = |value: &str| match value {
            "ETAG" => reply.header("etag").expect("a file has an ETag").to_owned(),
            "DATE" => reply.header("last-modified").expect("a file has a date").to_owned(),
            other => other.to_owned(),
        };
        headers.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect()
    };
    let conditions: &[Headers<'_>] = &[
        &[("If-None-Match", "ETAG")],
        &[("If-None-Match", "\"other\"")],
        &[("If-None-Match", "*")],
        &[("If-None-Match", "\"other\""), ("If-Modified-Since", "DATE")],
        &[("If-Modified-Since", "DATE")],
        &[("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT")],
        &[("If-Modified-Since", "no date")],
        &[("If-Range", "ETAG"), ("Range", "bytes=10-19")],
        &[("If-Range", "\"other\""), ("Range", "bytes=10-19")],
        &[("If-None-Match", "ETAG"), ("Range", "bytes=10-19")],
    ];
    for headers in conditions {
        let (mine, its) = (with(headers, &our_head), with(headers, &their_head));
        let mine: Vec<_> = mine.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let its: Vec<_> = its.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        wrong.extend(differs(&format!("{headers:?}"), &ours("GET", &mine), &theirs("GET", &its)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_head_says_what_a_get_would_bring_and_begins_no_transfer() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let away = Source::new(&nginx.distfiles(), "away-1.0.bin", &noise(1, LENGTH));
    let bound = Source::new(&nginx.distfiles(), "bound-1.0.bin", &noise(2, LENGTH));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("away", &nginx.url(), &away);
    let src_uri = format!("{}/bound-1.0.bin", nginx.url());
    repo.add(&Ebuild { name: "bound", src_uri: &src_uri, restrict: "fetch", sources: &[&bound] });
    let node = Start::new(&dir.path().join("node")).repo(&repo).mirror(&nginx.url()).start();
    let head = |path: &str, headers: Headers<'_>| http::request(&node.http(), "HEAD", path, headers);

    let unknown = format!("/distfiles/00/{}", "0".repeat(128));
    for path in [away.sums.path(), away.name_path(), "/distfiles/away-1.0.bin".to_owned()] {
        let told = head(&path, &[]);
        assert_eq!((told.status, told.header("content-length")), (200, Some("100000")), "{path}");
        assert_eq!(told.header("x-peer-source"), None, "{path}: nobody was asked");
        let part = head(&path, &[("Range", "bytes=10-19")]);
        assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 10-19/100000")), "{path}");
        assert_eq!(head(&path, &[("Range", "bytes=100000-")]).status, 416, "{path}");
        let etag = told.header("etag").expect("a file has an ETag").to_owned();
        assert_eq!(head(&path, &[("If-None-Match", &etag)]).status, 304, "{path}");
    }
    for path in [bound.sums.path(), "/distfiles/bound-1.0.bin".to_owned(), unknown, "/distfiles/no-1.0.bin".to_owned()]
    {
        assert_eq!(head(&path, &[]).status, 404, "{path}: nobody may be asked for it");
    }
    node.holds_only(0);
    assert!(node.get(&away.sums.path()).is(&away.content()));
    let held = head(&away.sums.path(), &[]);
    assert_eq!(
        (held.status, held.header("content-length"), held.header("x-peer-source")),
        (200, Some("100000"), Some("store"))
    );
    let asked = nginx.finish();
    let of = |end: &str| asked.iter().filter(|one| one.path.ends_with(end)).count();
    assert_eq!((of("away-1.0.bin"), of("bound-1.0.bin")), (1, 0), "the GET alone: {asked:?}");
}

#[test]
fn a_range_that_is_not_understood_never_gets_416_below_the_size() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "odd-1.0.bin", &noise(1, LENGTH));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "https://example.invalid", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    node.import(&source.path);
    for range in ["lines=1-2", "bytes=0-1,5-6", "bytes", "bytes=a-b", "bytes=9-5", "bytes=0x1-", "bytes=1 - 2"] {
        let reply = http::request(&node.http(), "GET", &source.sums.path(), &[("Range", range)]);
        assert!(matches!(reply.status, 200 | 206 | 400), "{range}: {}", reply.status);
        assert!(reply.status != 200 || reply.is(&source.content()), "{range}: the whole file");
    }
}

#[test]
fn all_layouts_of_a_file_have_the_same_etag_and_layout_conf_is_the_settled_text() {
    let dir = tempdir().unwrap();
    let source = Source::new(&dir.path().join("sources"), "same-1.0.bin", &noise(1, LENGTH));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("plain", "https://example.invalid", &source);
    let node = Start::new(&dir.path().join("node")).repo(&repo).start();
    node.import(&source.path);
    let etags: Vec<String> = [source.sums.path(), source.name_path(), "/distfiles/same-1.0.bin".to_owned()]
        .iter()
        .map(|path| {
            let reply = node.get(path);
            assert!(reply.is(&source.content()), "{path}: {}", reply.status);
            assert_eq!(reply.header("x-peer-source"), Some("store"), "{path}");
            reply.header("etag").expect("a file has an ETag").to_owned()
        })
        .collect();
    assert!(etags.iter().all(|etag| *etag == etags[0]), "{etags:?}");

    let layout = node.get("/distfiles/layout.conf");
    assert_eq!(layout.status, 200);
    let lines: Vec<String> = layout.text().lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, ["[structure]", "0=content-hash BLAKE2B 8", "1=filename-hash BLAKE2B 8", "2=flat"]);
}
