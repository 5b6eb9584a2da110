//! Pages of others: what a browser may be made to ask of a node, and what it may be shown of a mirror's or a package's bytes.

use std::fs;

use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::http;
use crate::noise::noise;
use crate::peer::TestPeer;
use crate::upstream::Nginx;

/// Every path of the door, one of each kind, with the status that Portage and a person get.
fn paths(held: &Source) -> Vec<(String, u16)> {
    let mut paths: Vec<(String, u16)> =
        ["/", "/api/v1/status", "/api/v1/peers", "/api/v1/pins", "/api/v1/jobs", "/metrics"]
            .into_iter()
            .chain(["/api/v1/binpkgs", "/api/v1/openapi.json", "/healthz", "/readyz", "/distfiles/layout.conf"])
            .map(|path| (path.to_owned(), 200))
            .collect();
    paths.extend([(held.sums.path(), 200), (held.name_path(), 200), (format!("/distfiles/{}", held.name), 200)]);
    paths.extend([("/releases/page.html".to_owned(), 200), ("/snapshots/page.html".to_owned(), 200)]);
    paths.extend([("/nothing".to_owned(), 404), ("/api/v1/jobs/7".to_owned(), 404)]);
    paths
}

fn stage(dir: &std::path::Path) -> (Nginx, Source, TestPeer) {
    let nginx = Nginx::start(&dir.join("nginx"));
    for tree in ["releases", "snapshots"] {
        fs::create_dir_all(nginx.www().join(tree)).unwrap();
        fs::write(nginx.www().join(tree).join("page.html"), "<script>document.title = 'ran'</script>").unwrap();
    }
    // A mirror that says what it is.
    let held = Source::new(&nginx.distfiles(), "held-1.0.bin", &noise(1, 5_000));
    let repo = Repo::new(dir, "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &held);
    let node = TestPeer::mirror_of(&dir.join("node"), &repo, &nginx.url());
    (nginx, held, node)
}

#[test]
fn a_page_of_another_site_learns_nothing_and_begins_nothing() {
    let dir = tempdir().unwrap();
    let (nginx, held, node) = stage(dir.path());
    let elsewhere = [
        vec![("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")],
        vec![("Sec-Fetch-Site", "same-site")],
        vec![("Origin", "http://evil.example")],
        vec![("Origin", "null")],
        vec![("Referer", "http://evil.example/page")],
    ];
    for (path, status) in paths(&held) {
        for headers in &elsewhere {
            let reply = http::request(&node.http(), "GET", &path, headers);
            assert_eq!(reply.status, 403, "{path} {headers:?}");
        }
        let rebound = http::get_as(&node.http(), "evil.example", &path);
        assert_eq!(rebound.status, 421, "{path}");
        assert!(rebound.text().contains("http.names"), "the answer says what to do: {}", rebound.text());
        // A page may always send a HEAD; a GET below proves that the path is one.
        assert_eq!(http::request(&node.http(), "HEAD", &path, &elsewhere[0]).status, 403, "{path}");
        if path != held.sums.path() {
            continue;
        }
        assert_eq!(node.number("blobs"), 0, "nothing was fetched for a page");
        assert_eq!(node.get(&path).status, status);
    }
    for (path, status) in paths(&held) {
        assert_eq!(node.get(&path).status, status, "{path}, for whom it is");
    }
    drop(node);
    let asked = nginx.finish();
    let pages = asked.iter().filter(|one| one.path.ends_with("page.html")).count();
    assert_eq!(pages, 2, "only what was asked for without a page: {asked:?}");
}

#[test]
fn what_others_wrote_is_never_a_page_of_this_origin() {
    let dir = tempdir().unwrap();
    let (_nginx, held, node) = stage(dir.path());
    for path in ["/releases/page.html", "/snapshots/page.html", "/releases/page.html", &held.sums.path()] {
        let reply = node.get(path);
        assert_eq!(reply.status, 200, "{path}");
        for (name, value) in [
            ("content-type", "application/octet-stream"),
            ("content-disposition", "attachment"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{path}");
        }
        assert!(reply.header("content-security-policy").is_some_and(|policy| policy.starts_with("sandbox;")), "{path}");
    }
}

#[test]
fn a_name_that_the_user_gave_is_answered() {
    let dir = tempdir().unwrap();
    let repo = Repo::new(dir.path(), "main");
    let start = crate::peer::Start::new(&dir.path().join("node")).repo(&repo);
    let node = start.config("[http]\nnames = [\"strong.lan\"]\n").start();
    for (host, answered) in [("strong.lan:8420", true), ("other.lan", false)] {
        assert_eq!(http::get_as(&node.http(), host, "/healthz").status == 200, answered, "{host}");
    }
}
