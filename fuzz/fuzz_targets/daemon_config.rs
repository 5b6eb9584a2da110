//! peer.toml: a configuration that is taken is a whole one, and sizes print as they read.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use daemon::config::{Config, Overrides, Size, Surroundings};
use libfuzzer_sys::fuzz_target;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    place.join(format!("peerage-fuzz-{}.toml", std::process::id()))
});

fuzz_target!(|text: &str| {
    if let Ok(size) = text.parse::<Size>() {
        assert_eq!(size.to_string().parse(), Ok(size));
    }
    std::fs::write(&*FILE, text).expect("the configuration is written");
    let overrides = Overrides { config: Some(FILE.clone()), ..Overrides::default() };
    let around = Surroundings { is_root: true, ..Surroundings::default() };
    if let Ok((config, origins)) = Config::load(&overrides, &around) {
        assert!(!config.http.is_empty() && !config.data_dir.as_os_str().is_empty() && !origins.is_empty());
        assert!((1..=45).contains(&config.mirror_stall_s) && (1..=256).contains(&config.transfers_max));
    }
});
