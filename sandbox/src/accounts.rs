//! The users and groups that are known inside: the system's, never the people's.

use crate::policy::{Identity, PORTAGE_ID};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// `/etc/passwd` and `/etc/group` as they are inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accounts {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

/// Longer files of a root are not read: their system accounts are then not known inside.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// From here on numbers are people's (login.defs), but for `nobody`.
const PEOPLE_FROM: u32 = 1000;
const NOBODY: u32 = 65_534;

impl Accounts {
    /// The root's system accounts are known, so that files can be given to them, in truth with a mapped range and in
    /// fakeroot's memory with a single number. Passwords and comments are left out.
    pub(crate) fn of(root: &Path, identity: Identity) -> Self {
        let (uid, gid) = match identity {
            Identity::Mapped { .. } => (PORTAGE_ID, PORTAGE_ID),
            Identity::Single { uid, gid } => (uid, gid),
        };
        let (users, groups) = (read(&root.join("etc/passwd")), read(&root.join("etc/group")));
        Self { passwd: passwd(&users, uid, gid), group: group(&groups, gid) }
    }
}

fn read(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(about) if about.is_file() && about.len() <= FILE_MAX_BYTES => {
            std::fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
        }
        _ => String::new(),
    }
}

fn passwd(of_root: &str, uid: u32, gid: u32) -> String {
    let mut text = String::from("root:x:0:0:root:/root:/bin/sh\n");
    let mut names = BTreeSet::from(["root", "portage", "nobody"]);
    let _written = writeln!(text, "portage:x:{uid}:{gid}:portage:/var/tmp/portage:/bin/false");
    for line in of_root.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _password, uid, gid, ..] = fields.as_slice() else { continue };
        if let (Ok(uid), Ok(gid)) = (uid.parse::<u32>(), gid.parse::<u32>())
            && uid < PEOPLE_FROM
            && names.insert(name)
        {
            let _written = writeln!(text, "{name}:x:{uid}:{gid}::/nonexistent:/bin/false");
        }
    }
    text.push_str("nobody:x:65534:65534:nobody:/:/bin/false\n");
    text
}

fn group(of_root: &str, gid: u32) -> String {
    let mut text = String::from("root:x:0:\n");
    let mut names = BTreeSet::from(["root", "portage"]);
    let mut has_nobody = false;
    let _written = writeln!(text, "portage:x:{gid}:portage");
    for line in of_root.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _password, gid, ..] = fields.as_slice() else { continue };
        if let Ok(gid) = gid.parse::<u32>()
            && (gid < PEOPLE_FROM || gid == NOBODY)
            && names.insert(name)
        {
            has_nobody |= gid == NOBODY;
            let _written = writeln!(text, "{name}:x:{gid}:");
        }
    }
    if !has_nobody {
        text.push_str("nogroup:x:65534:\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_their_names_stay_outside() {
        let users = "root:secret:0:0:The Root:/root:/bin/zsh\ndaemon:x:1:1:a comment:/usr/sbin:/bin/sh\n\
                     ada:x:1000:1000:Ada Lovelace,,,:/home/ada:/bin/bash\nnobody:x:65534:65534:n:/:/bin/sh\nbroken\n";
        assert_eq!(
            passwd(users, 250, 250),
            "root:x:0:0:root:/root:/bin/sh\nportage:x:250:250:portage:/var/tmp/portage:/bin/false\n\
             daemon:x:1:1::/nonexistent:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        );
    }

    #[test]
    fn members_of_groups_stay_outside() {
        let groups = "root:x:0:ada\nwheel:x:10:root,ada\nada:x:1000:\nnogroup:x:65534:\n:::\n";
        assert_eq!(group(groups, 250), "root:x:0:\nportage:x:250:portage\nwheel:x:10:\nnogroup:x:65534:\n");
    }

    #[test]
    fn without_a_root_there_are_three_accounts() {
        let accounts = Accounts::of(Path::new("/nonexistent"), Identity::Single { uid: 7, gid: 8 });
        assert!(accounts.passwd.contains("portage:x:7:8:"));
        assert_eq!(accounts.passwd.lines().count(), 3);
        assert_eq!(accounts.group.lines().count(), 3);
    }
}
