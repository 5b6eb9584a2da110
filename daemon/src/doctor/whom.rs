//! As whom a process runs, and in what: what a user needs to know to understand what it may not do.

use super::{Check, State};
use std::path::Path;

/// Fewer open files than this are used up by some peers and a handful of transfers.
const OPEN_FILES_FEW: u64 = 4096;

/// This process.
pub(super) fn this_process() -> Vec<Check> {
    let (user, groups) = (rustix::process::geteuid().as_raw(), groups());
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let mut finding = format!("it runs as {}, groups {groups}", named("/etc/passwd", user));
    if let Some(starter) = started_by() {
        finding.push_str(&format!("; started by {starter}"));
    }
    if let Some(container) = container() {
        finding.push_str(&format!("; in a container ({container})"));
    }
    let files_shown = files.map_or("unlimited".to_owned(), |files| files.to_string());
    finding.push_str(&format!("; {files_shown} open files"));
    let mut checks = vec![Check::new("daemon user", State::Ok, finding)];
    if let Some(files) = files.filter(|files| *files < OPEN_FILES_FEW) {
        let finding = format!("it may have {files} files open: every transfer and every peer is one");
        let mend = "LimitNOFILE of the unit, PEER_OPEN_FILES in /etc/conf.d/peer, or ulimit -n before starting it";
        checks.push(Check::new("open files", State::Warn, finding).mend(mend));
    }
    checks.extend(temporary());
    checks
}

/// Portage cannot even say what an ebuild declares without a place for temporary files: it hangs.
fn temporary() -> Option<Check> {
    let places = ["/tmp", "/var/tmp", "/usr/tmp"];
    let may_write = |place: &str| rustix::fs::access(place, rustix::fs::Access::WRITE_OK).is_ok();
    (!places.iter().any(|place| may_write(place))).then(|| {
        let finding = "it may write neither to /tmp nor to /var/tmp, and Portage, which it asks about ebuilds, must";
        Check::new("temporary files", State::Warn, finding)
            .object("/tmp")
            .mend("PrivateTmp=yes in the unit, or make /tmp writable")
    })
}

fn groups() -> String {
    let mut groups: Vec<u32> =
        rustix::process::getgroups().unwrap_or_default().iter().map(|group| group.as_raw()).collect();
    groups.insert(0, rustix::process::getegid().as_raw());
    groups.sort_unstable();
    groups.dedup();
    groups.into_iter().map(|group| named("/etc/group", group)).collect::<Vec<_>>().join(" ")
}

/// `NAME (NUMBER)`, or the number alone.
fn named(file: &str, number: u32) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    match name_of(&text, number) {
        Some(name) => format!("{name} ({number})"),
        None => number.to_string(),
    }
}

/// The name of a number in a file like passwd or group.
fn name_of(text: &str, number: u32) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then_some(name)
    })
}

/// The process that started this one: a service manager, or a shell.
fn started_by() -> Option<String> {
    let parent = rustix::process::getppid()?.as_raw_nonzero();
    let name = std::fs::read_to_string(format!("/proc/{parent}/comm")).ok()?;
    Some(match name.trim() {
        // The kernel keeps fifteen letters of it.
        "supervise-daemo" => "OpenRC (supervise-daemon)".to_owned(),
        other => other.to_owned(),
    })
}

/// What kind of container this is, as far as containers say.
fn container() -> Option<String> {
    if let Ok(kind) = std::fs::read_to_string("/run/systemd/container") {
        return Some(kind.trim().chars().take(40).collect());
    }
    let marks = [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")];
    marks.iter().find(|(mark, _)| Path::new(mark).exists()).map(|(_, kind)| (*kind).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_their_names() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nodd\nportage:x:250:250::/:/bin/false\n";
        assert_eq!(name_of(passwd, 250), Some("portage"));
        assert_eq!(name_of(passwd, 7), None);
    }

    #[test]
    fn this_process_is_told() {
        let checks = this_process();
        let number = rustix::process::geteuid().as_raw().to_string();
        assert!(
            checks.iter().any(|check| check.name == "daemon user" && check.finding.contains(&number)),
            "{checks:?}"
        );
        assert!(checks.iter().all(|check| check.state < State::Warn || check.mend.is_some()), "{checks:?}");
    }
}
