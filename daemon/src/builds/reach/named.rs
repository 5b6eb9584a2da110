//! What files of the configuration name in other places.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Bytes of a file that names others (package.env, sets.conf, parent).
const NAMING_BYTES_MAX: u64 = 4 << 20;

/// The text of a small file; empty where it cannot be read, which Portage then says.
fn text_of(path: &Path) -> String {
    let is_file = std::fs::metadata(path).is_ok_and(|about| about.is_file());
    let mut bytes = Vec::new();
    let read = is_file.then(|| std::fs::File::open(path)?.take(NAMING_BYTES_MAX).read_to_end(&mut bytes));
    if matches!(read, Some(Ok(_))) { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() }
}

/// Its lines without comments.
pub(super) fn lines_of(path: &Path) -> Vec<String> {
    let text = text_of(path);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The files of variables that package.env gives to packages.
pub(super) fn by_package_env(path: &Path) -> Vec<String> {
    lines_of(path)
        .iter()
        .flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Files and directories of packages that sets.conf names.
pub(super) fn by_sets_conf(path: &Path) -> Vec<PathBuf> {
    let value = |line: &String| {
        let (key, value) = line.split_once(['=', ':'])?;
        let names = matches!(key.trim(), "filename" | "directory") && value.trim().starts_with('/');
        names.then(|| PathBuf::from(value.trim()))
    };
    lines_of(path).iter().filter_map(value).collect()
}

/// What stands before a command in a script.
const BEFORE_COMMAND: [&str; 7] = ["then", "do", "else", "{", "&&", "||", "!"];

/// The files that a script sources by a name that needs no shell to be understood; plan.py finds the same (`sourced_by`).
pub(super) fn by_script(path: &Path, config_root: &Path) -> Vec<PathBuf> {
    let root = config_root.to_string_lossy();
    let root = root.trim_end_matches('/');
    let mut named = Vec::new();
    for line in text_of(path).lines() {
        let mut before = ";";
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#')).peekable();
        while let Some(word) = words.next() {
            let is_command = before.ends_with(';') || BEFORE_COMMAND.contains(&before);
            if let Some(name) = words.peek().filter(|_| is_command && matches!(word, "source" | ".")) {
                let mut name = name.trim_end_matches(';').replace(['"', '\''], "");
                for spelt in ["${PORTAGE_CONFIGROOT%/}", "${PORTAGE_CONFIGROOT}", "$PORTAGE_CONFIGROOT"] {
                    name = name.replace(spelt, root);
                }
                let is_plain = name.starts_with('/') && !name.contains(['$', '`', '*', '?', '[', '{', '(', '\\']);
                named.extend(is_plain.then(|| PathBuf::from(name)));
            }
            before = word;
        }
    }
    named
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use super::*;

    #[test]
    fn a_script_names_what_needs_no_shell_to_be_understood() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("bashrc");
        let text = "source /a\n  . \"/b\" ; source '/c'\n# source /no\n[[ -r /x ]] && source /d || . /e;\nif true; then source \
                    \"${PORTAGE_CONFIGROOT%/}/etc/portage/f\"; fi\necho source /no\nsource \"${HOME}/no\"\nsource no\n\
                    for x in /no/*; do . ${x}; done # . /no\n";
        std::fs::write(&script, text).unwrap();
        let named = by_script(&script, Path::new("/top/"));
        assert_eq!(named, ["/a", "/b", "/c", "/d", "/e", "/top/etc/portage/f"].map(Path::new));
    }
}
