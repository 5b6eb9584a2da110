//! make.conf, repos.conf, mirrors and binrepos.conf, read from a private configuration root as Portage lays it out.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tree::binrepos::BinRepos;
use tree::conf::{CustomMirrors, MakeConf, ReposConf};

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let root = place.join(format!("peerage-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(root.join("etc/portage")).expect("a directory for the configuration");
    root
});

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(ROOT.join("etc/portage/make.conf"), bytes).expect("make.conf is written");
    std::fs::write(ROOT.join("etc/portage/repos.conf"), bytes).expect("repos.conf is written");
    std::fs::write(ROOT.join("etc/portage/mirrors"), bytes).expect("the mirrors are written");
    std::fs::write(ROOT.join("etc/portage/binrepos.conf"), bytes).expect("binrepos.conf is written");
    if let Ok(conf) = MakeConf::load(&ROOT) {
        for (name, value) in conf.iter() {
            assert_eq!(conf.get(name), Some(value));
        }
    }
    if let Ok(conf) = ReposConf::load(&ROOT) {
        for repo in &conf.repos {
            assert!(repo.location.is_absolute());
            assert_eq!(conf.get(&repo.name), Some(repo));
        }
        let again = ReposConf::parse(&conf.to_text());
        assert_eq!(again.repos.len(), conf.repos.len());
        conf.problems.iter().for_each(|problem| drop(problem.to_string()));
    }
    if let Ok(mirrors) = CustomMirrors::load(&ROOT) {
        let _uris = mirrors.named().expand("mirror://gnu/a");
    }
    if let Ok(words) = tree::shell_words::split(&String::from_utf8_lossy(bytes)) {
        assert!(words.iter().map(String::len).sum::<usize>() <= 3 * bytes.len());
    }
    if let Ok(conf) = BinRepos::load(&ROOT, "u v/") {
        for repo in &conf.repos {
            assert!(!repo.sync_uri.ends_with('/'));
            assert!(conf.at(&repo.sync_uri).is_some());
        }
    }
});
