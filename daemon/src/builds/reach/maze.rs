//! The walk through any configuration: links in circles, to nothing, to devices, to everything. Tests only.

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test makes its files")]

    use crate::builds::reach::{Asked, Reach, ReachError};
    use proptest::prelude::{Just, Strategy, prop, prop_oneof, proptest};
    use sandbox::{Identity, Root};
    use std::os::unix::fs::symlink;
    use std::path::{Component, Path, PathBuf};

    /// What is put at a place.
    #[derive(Clone, Debug)]
    enum Thing {
        File,
        Directory,
        Link(String),
        Pipe,
    }

    /// Places, in and out of the configuration: a few, so that they meet.
    const PLACES: [&str; 12] = [
        "root/etc/portage/package.use",
        "root/etc/portage/package.use/a",
        "root/etc/portage/package.use/b",
        "root/etc/portage/patches/c",
        "root/etc/portage/patches",
        "root/etc/portage/profile",
        "root/etc/portage/unknown",
        "out",
        "out/a",
        "out/b",
        "out/b/c.patch",
        "repo/a",
    ];
    const ELSEWHERE: [&str; 4] = ["/dev/zero", "/nowhere/x", "/", "/dev/null"];

    fn things() -> impl Strategy<Value = Vec<(usize, Thing)>> {
        let place = 0..PLACES.len();
        let link = prop_oneof![
            8 => (0..PLACES.len()).prop_map(|to| format!("@/{}", PLACES[to])),
            4 => (0..PLACES.len(), 0..5_usize).prop_map(|(to, up)| format!("{}{}", "../".repeat(up), PLACES[to])),
            2 => prop::sample::select(vec!["..", ".", "a", "b/../a", "../.."]).prop_map(str::to_owned),
            1 => prop::sample::select(ELSEWHERE.to_vec()).prop_map(str::to_owned),
        ];
        let thing =
            prop_oneof![Just(Thing::File), Just(Thing::Directory), link.prop_map(Thing::Link), Just(Thing::Pipe),];
        prop::collection::vec((place, thing), 1..14)
    }

    fn lay_out(top: &Path, things: &[(usize, Thing)]) {
        for dir in ["root/etc/portage", "repo", "data"] {
            std::fs::create_dir_all(top.join(dir)).unwrap();
        }
        for (place, thing) in things {
            let at = top.join(PLACES[*place]);
            // What cannot be put there, because something else is, is not.
            let Some(parent) = at.parent() else { continue };
            // Nothing is made outside, whatever links lie on the way by now.
            let there = parent.ancestors().find_map(|above| above.canonicalize().ok());
            if !there.is_some_and(|above| above.starts_with(top)) || std::fs::create_dir_all(parent).is_err() {
                continue;
            }
            let _there_already = match thing {
                Thing::File if at.symlink_metadata().is_err() => std::fs::write(&at, "x\n"),
                Thing::File => Ok(()),
                Thing::Directory => std::fs::create_dir(&at),
                Thing::Link(to) => symlink(to.replace('@', &top.display().to_string()), &at),
                Thing::Pipe => {
                    let mode = rustix::fs::Mode::from_raw_mode(0o644);
                    let kind = rustix::fs::FileType::Fifo;
                    rustix::fs::mknodat(rustix::fs::CWD, &at, kind, mode, 0).map_err(Into::into)
                }
            };
        }
    }

    /// Where a path leads in a sandbox that has what a reach says, by what is seen there alone.
    fn inside(reach: &Reach, asked: &Asked, path: &Path) -> Option<PathBuf> {
        let seen = |path: &Path| {
            let shown = reach.shown.iter().chain(&asked.repositories).chain([&reach.etc]);
            shown.clone().any(|seen| path.starts_with(seen))
        };
        let on_the_way = |path: &Path| {
            let all = reach.shown.iter().chain(&asked.repositories).chain(reach.links.keys()).chain([&reach.etc]);
            all.clone().any(|seen| seen.starts_with(path))
        };
        let mut ahead: Vec<PathBuf> = reversed(path);
        let (mut here, mut hops) = (PathBuf::from("/"), 0);
        while let Some(step) = ahead.pop() {
            if step == Path::new("..") {
                here.pop();
                continue;
            }
            let next = here.join(step);
            let link = reach.links.get(&next).cloned();
            let link = link.or_else(|| seen(&next).then(|| std::fs::read_link(&next).ok())?);
            if let Some(to) = link {
                hops += 1;
                if hops > 40 {
                    return None;
                }
                if to.is_absolute() {
                    here = PathBuf::from("/");
                }
                ahead.extend(reversed(&to));
            } else if seen(&next) && next.symlink_metadata().is_ok() || on_the_way(&next) {
                here = next;
            } else {
                return None;
            }
        }
        Some(here)
    }

    fn reversed(path: &Path) -> Vec<PathBuf> {
        let steps = path.components().filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir));
        steps.map(|step| PathBuf::from(step.as_os_str())).collect::<Vec<_>>().into_iter().rev().collect()
    }

    /// The files that Portage reads below a name, as its `_recursive_file_list` finds them, by the names it opens.
    fn read_by_portage(top: &Path) -> Vec<PathBuf> {
        let (mut files, mut ahead, mut looked) = (Vec::new(), vec![top.to_owned()], 0);
        while let Some(path) = ahead.pop() {
            looked += 1;
            match std::fs::metadata(&path) {
                Ok(about) if about.is_file() => files.push(path),
                Ok(about) if about.is_dir() && looked < 2000 => {
                    // At the end of as many links as the system follows, nobody gets in.
                    let Ok(entries) = std::fs::read_dir(&path) else { continue };
                    ahead.extend(entries.map(|entry| entry.unwrap().path()));
                }
                _ => {}
            }
        }
        files
    }

    proptest! {
        #[test]
        fn every_file_that_portage_reads_is_seen_or_an_error_says_why_not(things in things()) {
            let dir = tempfile::tempdir().unwrap();
            let top = dir.path().canonicalize().unwrap();
            lay_out(&top, &things);
            let asked = Asked {
                config_root: top.join("root"),
                repositories: vec![top.join("repo")],
                of_repos_conf: false,
                bound: Vec::new(),
                root: Root::stage(top.join("data")),
                identity: Identity::Single { uid: 250, gid: 250 },
                data_dir: top.join("data"),
            };
            match Reach::of(&asked) {
                Ok(reach) => {
                    for name in ["package.use", "patches", "profile"] {
                        for file in read_by_portage(&top.join("root/etc/portage").join(name)) {
                            let real = file.canonicalize().unwrap();
                            let found = inside(&reach, &asked, &file);
                            proptest::prop_assert_eq!(found, Some(real), "{:?}\n{:#?}", file, reach);
                        }
                    }
                    for shown in &reach.shown {
                        proptest::prop_assert!(shown.starts_with(&top) && !top.starts_with(shown), "{:?}", shown);
                    }
                }
                // Something led to everything, or to what holds the configuration.
                Err(error) => proptest::prop_assert!(matches!(error, ReachError::Refused { .. }), "{error:?}"),
            }
        }
    }
}
