//! A disk without room: the file is served through or the failure is clear, and the store is whole afterwards.

use std::process::Command;

use tempfile::tempdir;

use crate::gentoo::{Repo, Source};
use crate::noise::{Large, noise};
use crate::peer::Start;
use crate::upstream::Nginx;
use crate::wait;

/// The default wants more free space than this disk has in all.
const CONFIG: &str = "[store]\nfree_min = \"4 MiB\"\n";

/// Makes a disk with room for the index and some small files, far too little for the large one; becomes the daemon.
const SCRIPT: &str = "mount -t tmpfs -o size=64m full \"$1\" && shift && exec \"$@\"";

#[test]
fn a_file_larger_than_the_disk_is_served_or_refused_and_the_store_stays_whole() {
    let dir = tempdir().unwrap();
    let node_dir = dir.path().join("node");
    let store = node_dir.join("store");
    std::fs::create_dir_all(&store).unwrap();
    let target = store.to_str().unwrap();
    // A mount of its own in a namespace of its own: nobody else sees it, and it ends with the daemon.
    let namespace: &[&str] = if crate::upstream::is_root() { &["unshare", "-m"] } else { &["unshare", "-r", "-m"] };
    let wrapper: Vec<&str> = namespace.iter().copied().chain(["sh", "-c", SCRIPT, "sh", target]).collect();
    if !wait::run(Command::new(wrapper[0]).args(&wrapper[1..]).arg("true")).status.success() {
        eprintln!("skipped: this system lets nobody mount a tmpfs in a namespace of its own");
        return;
    }
    let nginx = Nginx::start(&dir.path().join("nginx"));
    let large = Large::new(1, 160);
    let path = nginx.distfiles().join("huge-1.0.bin");
    large.write(&path);
    let huge = Source::at(&path, "huge-1.0.bin");
    let small = Source::new(&nginx.distfiles(), "small-1.0.bin", &noise(2, 100_000));
    let after = Source::new(&nginx.distfiles(), "after-1.0.bin", &noise(3, 100_000));
    let repo = Repo::new(dir.path(), "main");
    for (name, source) in [("huge", &huge), ("small", &small), ("after", &after)] {
        repo.add_plain(name, "http://127.0.0.1:1", source);
    }
    let mut node = Start::new(&node_dir).repo(&repo).mirror(&nginx.url()).config(CONFIG).through(&wrapper).start();
    assert!(node.get(&small.sums.path()).is(&small.content()));

    let reply = node.get(&huge.sums.path());
    if reply.status == 200 && reply.complete {
        large.check().take(&reply.body);
        assert_eq!(reply.body.len() as u64, large.len(), "served through");
    } else {
        let cut = (reply.body.len() as u64) < large.len();
        assert!(reply.status >= 500 || (reply.status == 200 && cut), "a clear failure: {}", reply.status);
    }
    let imported = node.verb(&["import", huge.path.to_str().unwrap()]);
    assert_ne!(imported.status.code(), Some(0), "there is no room for it");
    assert!(!imported.stderr.is_empty(), "it says why");

    assert!(node.is_healthy());
    assert!(node.get(&small.sums.path()).is(&small.content()), "what was there is still there");
    let again = node.get(&after.sums.path());
    assert!(again.is(&after.content()), "room was given back: {}", again.status);
    node.must_verify();
}
