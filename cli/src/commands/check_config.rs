//! `peer check-config`: the effective values and where each came from.

use crate::Around;
use crate::args::{Globals, NodeFlags};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::Args;
use daemon::config::Config;

/// Print the effective configuration and where each value came from.
#[derive(Debug, Args)]
#[command(
    long_about = "Print the effective configuration and where each value came from, one `KEY = VALUE (FROM)` a line.\n\n\
    Ends with 2 when the configuration makes no sense. Needs no daemon."
)]
pub(crate) struct CheckConfigArgs {
    #[command(flatten)]
    node: NodeFlags,
}

pub(crate) fn run(args: &CheckConfigArgs, globals: &Globals, around: &Around, out: &Output) -> Result<Exit, Failure> {
    let (_, origins) = Config::load(&args.node.overrides(globals), &around.surroundings).map_err(Failure::Config)?;
    if out.json() {
        let values: serde_json::Map<_, _> = origins
            .iter()
            .map(|origin| (origin.key.to_owned(), serde_json::json!({ "value": origin.value, "from": origin.from })))
            .collect();
        out.object(&values)?;
    } else {
        for origin in &origins {
            out.fact(&format!("{} = {} ({})", origin.key, origin.value, origin.from))?;
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use daemon::config::{Config, Origin, Overrides, Surroundings};
    use std::path::{Path, PathBuf};

    fn load(file: &Path) -> (Config, Vec<Origin>) {
        let around = Surroundings { is_root: true, ..Surroundings::default() };
        Config::load(&Overrides { config: Some(file.to_owned()), ..Overrides::default() }, &around).unwrap()
    }

    /// The shipped file, and the same with every commented key made real.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test writes its own temporary files")]
    fn the_shipped_example_names_every_key_and_tells_its_true_default() {
        let shipped = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/peer.toml"));
        let (defaults, of_defaults) = load(&shipped);
        assert!(of_defaults.iter().all(|origin| origin.from == "default"), "the shipped file changes something");
        let text = std::fs::read_to_string(&shipped).unwrap();
        let is_key = |line: &str| {
            line.split_once(" = ")
                .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || "_.0123456789".contains(c)))
        };
        let (mut real, mut without_default) = (String::new(), Vec::new());
        for line in text.lines() {
            match line.strip_prefix("#") {
                Some(key) if is_key(key) => real.push_str(key),
                // No default that could be written: the text says what holds instead.
                Some(key) if key.strip_prefix("~ ").is_some_and(is_key) => {
                    without_default.extend(key.strip_prefix("~ ").map(str::to_owned));
                }
                _ => real.push_str(line),
            }
            real.push('\n');
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer.toml");
        std::fs::write(&path, &real).unwrap();
        let (uncommented, origins) = load(&path);
        assert_eq!(uncommented, defaults, "a default in the shipped file is not the true one");
        let unsaid: Vec<_> =
            origins.iter().filter(|origin| origin.from == "default").map(|origin| origin.key).collect();
        let keys: Vec<_> =
            without_default.iter().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect();
        assert_eq!(unsaid.len(), keys.len(), "keys without a line: {unsaid:?}, lines: {keys:?}");
        assert!(unsaid.iter().all(|key| keys.iter().any(|k| key.ends_with(k))), "{unsaid:?} {keys:?}");
    }
}
