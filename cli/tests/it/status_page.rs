//! The status page: plain, whole in itself, and readable in a real browser.

use std::path::Path;
use std::process::Command;

use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::http;
use crate::noise::noise;
use crate::peer::{Start, TestPeer};
use crate::wait;

fn node(dir: &Path) -> TestPeer {
    let source = Source::new(&dir.join("sources"), "shown-1.0.bin", &noise(1, 5_000));
    let repo = Repo::new(dir, "main");
    repo.add_plain("plain", "http://127.0.0.1:1", &source);
    let node = Start::new(&dir.join("node")).repo(&repo).start();
    node.import(&source.path);
    node
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let dir = tempdir().unwrap();
    let node = node(dir.path());
    let page = node.get("/");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    let text = page.text();
    assert!(text.contains(&node.peer_id()));
    for outside in ["src=\"http", "href=\"http", "src=\"//", "href=\"//", "@import", "url(http"] {
        assert!(!text.contains(outside), "{outside}");
    }
    for (path, kind) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/api/v1/openapi.json", 200)] {
        assert_eq!(node.get(path).status, kind, "{path}");
    }
    let openapi: serde_json::Value = serde_json::from_slice(&node.get("/api/v1/openapi.json").body).unwrap();
    assert!(openapi["paths"].as_object().is_some_and(|paths| !paths.is_empty()));
    assert!(node.get("/metrics").text().lines().any(|line| line.starts_with("# TYPE ")));
}

#[test]
fn the_live_feed_tells_what_happens() {
    let dir = tempdir().unwrap();
    let node = node(dir.path());
    let mut events = http::open(&node.http(), "GET", "/events", &[("Accept", "text/event-stream")]).unwrap();
    assert_eq!(events.status, 200);
    assert!(events.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
    let mut heard = String::new();
    let mut buffer = [0; 4096];
    while !heard.contains("data:") || !heard.contains("\n\n") {
        let piece = events.piece(&mut buffer).expect("the feed goes on").expect("the feed has no end");
        heard.push_str(&String::from_utf8_lossy(piece));
    }
}

#[test]
fn chromium_shows_the_page_with_the_peer_id() {
    let dir = tempdir().unwrap();
    let node = node(dir.path());
    let profile = dir.path().join("profile");
    let Ok(found) = Command::new("chromium").arg("--version").output() else {
        eprintln!("skipped: chromium is not installed");
        return;
    };
    assert!(found.status.success(), "chromium is there but does not start");
    let output = wait::run(
        Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            // The live feed never ends, so neither would the wait for a quiet network.
            .args(["--timeout=10000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("{}/", node.url()))
            .env("HOME", dir.path()),
    );
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(page.contains(&node.peer_id()), "{page}\n{}", String::from_utf8_lossy(&output.stderr));
}
