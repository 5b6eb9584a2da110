//! The stage itself, without a node: when these hold, a failure elsewhere is the node's.

use std::panic;

use tempfile::tempdir;

use crate::fault_server::{Answer, FaultServer};
use crate::gentoo::{Repo, Source};
use crate::http;
use crate::noise::{BLOCK, Large, noise};
use crate::peer::both;
use crate::portage::Client;
use crate::upstream::{Nginx, gets};
use crate::workshop::{MINE, MINE_PATCH, Request, SLOW, Workshop, held_at, is_quiet, job, was_built_here};

#[test]
fn portage_and_nginx_agree_without_a_node() {
    let dir = tempdir().unwrap();
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let source = Source::new(&nginx.distfiles(), "direct-1.0.bin", &noise(1, 5_000));
    let hidden = Source::new(&dir.path().join("sources"), "hidden-1.0.bin", &noise(2, 5_000));
    let repo = Repo::new(dir.path(), "main");
    repo.add_plain("direct", "https://example.invalid", &source);
    repo.add_plain("hidden", &nginx.url(), &hidden);
    let client = Client::new(&dir.path().join("client"), &[&repo], &nginx.url());
    client.fetches(&["app-misc/direct"]);
    assert_eq!(client.content("direct-1.0.bin"), source.content());
    let failed = client.fetchonly(&["app-misc/hidden"]);
    assert_eq!(failed.status.code(), Some(1), "what no mirror has, this client does not get");
    client.forget_files();
    let limited = Client::new(&dir.path().join("client"), &[&repo], &nginx.url()).without_content_hash();
    limited.fetches(&["app-misc/direct"]);
    let asked = nginx.finish();
    assert_eq!(gets(&asked, "/distfiles/direct-1.0.bin"), 2, "{asked:?}");
    assert_eq!(gets(&asked, "/hidden-1.0.bin"), 1, "force-mirror keeps it from SRC_URI: {asked:?}");
}

#[test]
fn the_client_sees_cuts_ranges_and_redirects_as_they_are() {
    let content = noise(1, 100_000);
    let sent = content.clone();
    let server = FaultServer::start(move |asked| match asked.path.as_str() {
        "/whole" => Answer::Whole(sent.clone()),
        "/cut" => Answer::Cut(sent.clone(), 50_000),
        "/open" => Answer::Unmeasured(sent.clone()),
        _ => crate::fault_server::not_found(),
    });
    let address = server.url().replace("http://", "");
    assert!(http::get(&address, "/whole").is(&content));
    assert!(http::get(&address, "/open").is(&content));
    let cut = http::get(&address, "/cut");
    assert!(!cut.complete && cut.body == content[..50_000]);
    let range = http::request(&address, "GET", "/whole", &[("Range", "bytes=99990-")]);
    assert_eq!((range.status, range.body.as_slice()), (206, &content[99_990..]));
    assert_eq!(http::get(&address, "/other").status, 404);
    assert_eq!(server.gets("/whole"), 2);
}

#[test]
fn one_wrong_byte_in_a_large_file_is_noticed_wherever_it_is() {
    let dir = tempdir().unwrap();
    let large = Large::new(1, 3);
    let path = dir.path().join("large");
    large.write(&path);
    let right = std::fs::read(&path).unwrap();
    let mut check = large.check();
    for piece in right.chunks(70_001) {
        check.take(piece);
    }
    assert_eq!(check.offset(), large.len());
    for at in [0, 7, 8, BLOCK - 1, BLOCK, BLOCK + 3, 3 * BLOCK - 1] {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        let noticed = panic::catch_unwind(|| Large::new(1, 3).check().take(&wrong)).is_err();
        assert!(noticed, "byte {at}");
    }
}

#[test]
fn one_machine_alone_builds_what_the_others_build_for_it() {
    let workshop = Workshop::new();
    let (machine, node) = workshop.node("alone");
    machine.etc("patches/app-misc/mine/welcome.patch", MINE_PATCH);
    workshop.hold();
    let request = Request::new(&node, &["app-misc/slow", "app-misc/mine", "app-misc/large"]);
    held_at(&node);
    workshop.go_on();
    request.does();
    for cpv in [SLOW, MINE, "app-misc/large-1.0"] {
        was_built_here(&node, cpv);
    }
    assert!(job(&node, "app-misc/large-1.0")["size"].as_u64().unwrap() > 20 << 20);
    let log = node.does(&["logs", &job(&node, MINE)["id"].to_string()]);
    assert!(log.contains("welcome.patch"), "{log}");
    let output = node.verb(&["build", "app-misc/broken"]);
    assert!(both(&output).contains("no such thing, says the compiler"), "{}", both(&output));
    is_quiet(&machine);
}
