//! The programs before bwrap: a mount namespace of its own, the staged mounts, the user namespace.
//!
//! Each becomes the next, so that there is one process until the process namespace begins, whose first process is bwrap:
//! when that or its parent is killed, the kernel kills all that is inside. Both the step before the namespaces are
//! ready and the command itself wait for the daemon's leave on a pipe, which is at its end when the daemon is gone.

use crate::policy::Identity;
use crate::programs::Programs;
use crate::view::{Staged, View};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Mounts what is staged. Its words come as arguments and are never read as text of the shell.
const STAGE: &str = r#"set -eu
stage=$1; shift
if [ "$1" != -- ]; then
    mount -t tmpfs -o mode=0755,size=4m,nosuid,nodev tmpfs "$stage"
    cd "$stage"
fi
while [ "$1" != -- ]; do
    case $1 in
    directories) mkdir $2; shift 2 ;;
    file) : >"$2"; shift 2 ;;
    bind) mount --rbind "$2" "$stage/$3"; shift 3 ;;
    overlay) mount -t overlay -o "ro,lowerdir=$2" overlay "$stage/$3"; shift 3 ;;
    proc) mkdir proc; mount -t proc -o nosuid,nodev,noexec proc proc 2>/dev/null || :; shift ;;
    esac
done
shift
cd /
exec "$@""#;

/// Says that the namespaces are there and waits for the leave to go on: a mapped range is written in between.
const ENTER: &str = r#"echo ready >&4; read -r go <&3 && [ "$go" = go ] || exit 125; exec "$@""#;

/// Gives the process namespace, whose first process this is, its own /proc: bwrap looks for its child there. What it says
/// where that is refused, [`NO_PROC`], tells the cause from others.
const PROC: &str = r#"mount -n -t proc -o nosuid,nodev,noexec proc /proc || { echo no proc >&4; exit 1; }; exec "$@""#;

/// Said instead of bwrap's first word.
pub(crate) const NO_PROC: &str = "no proc";

/// Directories of which the first that no source is in serves as staging place. What is there is hidden only from
/// bwrap itself, not from the machine; the directory is on every system, so that nothing has to be made.
const PLACES: [&str; 5] = ["/mnt", "/media", "/srv", "/home", "/boot"];

/// The staging place of a view; none if sources lie in all of them.
pub(crate) fn place(view: &View) -> Option<&'static Path> {
    PLACES.iter().map(Path::new).find(|place| place.is_dir() && !sources(view).any(|source| source.starts_with(place)))
}

fn sources(view: &View) -> impl Iterator<Item = &PathBuf> {
    let staged = view.staged.iter().filter_map(|staged| match staged {
        Staged::Bind { source, .. } => Some(source),
        Staged::Overlay { .. } => None,
    });
    let direct = view.entries.iter().filter_map(|entry| match entry {
        crate::view::Entry::Bind { source: crate::view::Source::Outside(source), .. } => Some(source),
        _ => None,
    });
    staged.chain(direct)
}

/// The whole command: `nice` first, bwrap's own arguments last.
pub(crate) fn chain(
    programs: &Programs,
    identity: Identity,
    nice: u8,
    view: &View,
    place: &Path,
    bwrap: Vec<OsString>,
) -> (PathBuf, Vec<OsString>) {
    let mut words: Vec<OsString> = vec!["-n".into(), nice.to_string().into(), "--".into()];
    words.push(programs.unshare.clone().into());
    words.extend(["--mount", "--propagation", "private"].map(OsString::from));
    if matches!(identity, Identity::Single { .. }) {
        words.extend(["--user", "--map-root-user"].map(OsString::from));
    }
    words.extend(["--".into(), programs.shell.clone().into(), "-c".into(), STAGE.into(), "sh".into()]);
    words.push(place.into());
    if matches!(identity, Identity::Mapped { .. }) {
        // Root may mount what a user namespace may only where it sees all of it already, which it does by this. Where
        // not even root may, the mount in the namespace says so.
        words.push("proc".into());
    }
    words.extend(steps(view));
    words.push("--".into());
    if matches!(identity, Identity::Mapped { .. }) {
        // Nobody in the new namespace until the map is written: what it may do there must outlive becoming a shell.
        words.push(programs.unshare.clone().into());
        words.extend(["--user", "--keep-caps", "--"].map(OsString::from));
    }
    words.extend([programs.shell.clone().into(), "-c".into(), ENTER.into(), "sh".into()]);
    words.push(programs.setpriv.clone().into());
    if matches!(identity, Identity::Mapped { .. }) {
        words.extend(["--reuid", "0", "--regid", "0", "--clear-groups"].map(OsString::from));
    }
    words.extend(["--pdeathsig", "KILL", "--"].map(OsString::from));
    words.push(programs.unshare.clone().into());
    words.extend(["--pid", "--mount", "--fork", "--kill-child=KILL", "--"].map(OsString::from));
    words.extend([programs.shell.clone().into(), "-c".into(), PROC.into(), "sh".into()]);
    words.push(programs.bwrap.clone().into());
    words.extend(bwrap);
    (programs.nice.clone(), words)
}

/// What [`STAGE`] does, as its arguments.
fn steps(view: &View) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if view.staged.is_empty() {
        return words;
    }
    let directories = view.staged.iter().enumerate();
    let directories = directories.filter(|(_, staged)| !matches!(staged, Staged::Bind { is_directory: false, .. }));
    let numbers: Vec<String> = directories.map(|(index, _)| index.to_string()).collect();
    if !numbers.is_empty() {
        words.extend(["directories".into(), numbers.join(" ").into()]);
    }
    for (index, staged) in view.staged.iter().enumerate() {
        let index = index.to_string();
        match staged {
            Staged::Bind { source, is_directory } => {
                if !is_directory {
                    words.extend(["file".into(), index.clone().into()]);
                }
                words.extend(["bind".into(), source.into(), index.into()]);
            }
            Staged::Overlay { lower } => {
                words.extend(["overlay".into(), lower_directories(lower), index.into()]);
            }
        }
    }
    words
}

/// Relative to the staging place, so that no path outside has to fit, or be escaped, in a mount's options.
fn lower_directories(lower: &[(usize, PathBuf)]) -> OsString {
    let mut text = OsString::new();
    for (index, path) in lower {
        if !text.is_empty() {
            text.push(":");
        }
        text.push(index.to_string());
        if !path.as_os_str().is_empty() {
            text.push("/");
            text.push(path);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Entry, Source};
    use std::ffi::OsStr;

    fn view() -> View {
        let lower = vec![(0, "usr".into()), (1, PathBuf::new())];
        View {
            entries: vec![Entry::Bind { source: Source::Outside("/data".into()), at: "/data".into(), writable: false }],
            staged: vec![
                Staged::Bind { source: "/a layer, with: \\ signs".into(), is_directory: true },
                Staged::Bind { source: "/usr".into(), is_directory: true },
                Staged::Overlay { lower },
                Staged::Bind { source: "/closed/file".into(), is_directory: false },
            ],
            ..View::default()
        }
    }

    fn told(identity: Identity) -> String {
        let programs = Programs {
            bwrap: "/usr/bin/bwrap".into(),
            unshare: "/usr/bin/unshare".into(),
            setpriv: "/usr/bin/setpriv".into(),
            nice: "/usr/bin/nice".into(),
            shell: "/bin/sh".into(),
        };
        let (program, words) = chain(&programs, identity, 10, &view(), Path::new("/mnt"), vec!["--dev".into()]);
        let words = words.iter().map(|word| if word == STAGE { OsStr::new("STAGE") } else { word });
        let words = words.map(|word| if word == ENTER { OsStr::new("ENTER") } else { word });
        let words = words.map(|word| if word == PROC { OsStr::new("PROC") } else { word });
        let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        format!("{} {}", program.display(), words.join("\n"))
    }

    #[test]
    fn the_programs_of_a_mapped_identity() {
        insta::assert_snapshot!(told(Identity::Mapped { outer_first: 100_000, count: 65_536 }));
    }

    #[test]
    fn the_programs_of_a_single_identity() {
        insta::assert_snapshot!(told(Identity::Single { uid: 250, gid: 250 }));
    }

    #[test]
    fn the_staging_place_is_not_where_the_data_is() {
        let mut view = view();
        view.staged.push(Staged::Bind { source: "/mnt/disk/peer".into(), is_directory: true });
        assert!(place(&view).is_some_and(|place| place != Path::new("/mnt")));
        for place in PLACES {
            view.staged.push(Staged::Bind { source: Path::new(place).join("data"), is_directory: true });
        }
        assert_eq!(place(&view), None);
    }
}
