//! Why a package is not to be had as a binary: one line, of the reason that is nearest to having it.

use super::instance::{Instance, Sought};
use crate::api_questions::MissKind;

/// Names or versions that one line tells.
const NAMED_MAX: usize = 3;

/// Why there is no binary package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The kind.
    pub kind: MissKind,
    /// For people.
    pub cause: String,
    /// What may be done about it.
    pub next: Option<String>,
}

/// Who could have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Names of builders whose word counts for it and who are connected.
    pub connected: Vec<String>,
    /// Names of those who are not.
    pub away: Vec<String>,
    /// Keys and names of nodes that say that they built exactly this, and whose word does not count.
    pub untrusted: Vec<(String, String)>,
}

/// The reason, from what there is of the package and who could have it.
#[must_use]
pub fn miss(sought: &Sought, may_share: bool, instances: &[Instance], reach: &Reach) -> Miss {
    if let Some((key, _)) = reach.untrusted.first() {
        let names: Vec<String> = reach.untrusted.iter().map(|(_, name)| name.clone()).collect();
        return Miss {
            kind: MissKind::Trust,
            cause: format!("{} built it; that does not count here", listed(&names)),
            next: Some(format!("peer trust add {key} --packages {}", sought.cpv.cp)),
        };
    }
    let of_version: Vec<&Instance> = instances.iter().filter(|instance| instance.cpv == sought.cpv).collect();
    // What lacks least is nearest.
    let nearest = of_version.iter().map(|instance| (instance.differences(sought), instance));
    if let Some((differences, instance)) = nearest.min_by_key(|(differences, _)| differences.len()) {
        let place = instance.at.as_ref().map_or("here".to_owned(), |name| format!("at {name}"));
        return match differences.first() {
            Some((kind, why)) => Miss { kind: *kind, cause: format!("{place}: {why}"), next: None },
            None => Miss {
                kind: MissKind::Recipe,
                cause: format!("{place}: {}", other_recipe(sought, instance)),
                next: None,
            },
        };
    }
    let mut versions: Vec<_> = instances.iter().map(|instance| instance.cpv.version.clone()).collect();
    versions.sort_unstable();
    versions.dedup();
    if !versions.is_empty() {
        let names: Vec<String> = versions.iter().rev().map(ToString::to_string).collect();
        let cause = format!("there is only {}", listed(&names));
        return Miss { kind: MissKind::Version, cause, next: None };
    }
    if !may_share {
        let cause = "its licence or RESTRICT lets nobody give it to others".to_owned();
        return Miss { kind: MissKind::Policy, cause, next: None };
    }
    nobody(reach)
}

fn nobody(reach: &Reach) -> Miss {
    let (cause, next) = if !reach.connected.is_empty() {
        (format!("{} has no such package", listed(&reach.connected)), None)
    } else if reach.away.is_empty() {
        let next = "`peer join` enrols this machine in a group; `peer trust add` trusts one key".to_owned();
        ("nobody is trusted to build it".to_owned(), Some(next))
    } else {
        let next = "`peer peers` shows who is connected".to_owned();
        (format!("{} is not reached", listed(&reach.away)), Some(next))
    };
    Miss { kind: MissKind::Nobody, cause, next }
}

fn other_recipe(sought: &Sought, instance: &Instance) -> String {
    match (&sought.cflags, &instance.cflags) {
        (Some(wanted), Some(had)) if !same_words(wanted, had) => format!("it was built with CFLAGS {had:?}"),
        _ => "it was built with another compiler, ebuild, profile or dependency".to_owned(),
    }
}

fn same_words(one: &str, other: &str) -> bool {
    one.split_ascii_whitespace().eq(other.split_ascii_whitespace())
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let first: Vec<&str> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
    let first = first.join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tree::digest::Digest;

    fn words(text: &str) -> std::collections::BTreeSet<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn sought() -> Sought {
        Sought {
            cpv: "a/b-2".parse().unwrap(),
            use_flags: words("ssl amd64"),
            chost: Some("x86_64-pc-linux-gnu".to_owned()),
            cflags: Some("-O2 -pipe".to_owned()),
        }
    }

    fn instance(cpv: &str, flags: &str) -> Instance {
        Instance {
            cpv: cpv.parse().unwrap(),
            repo: "gentoo".to_owned(),
            use_flags: words(flags),
            iuse: words("ssl nls"),
            chost: Some("x86_64-pc-linux-gnu".to_owned()),
            cflags: Some("-O2  -pipe".to_owned()),
            fingerprint: Digest::of(b"other"),
            build_id: Some(1),
            digest: Digest::of(b"blob"),
            at: None,
            peer: None,
            rejects: Vec::new(),
        }
    }

    fn say(instances: &[Instance], reach: &Reach) -> (MissKind, String) {
        let miss = miss(&sought(), true, instances, reach);
        (miss.kind, miss.cause)
    }

    #[test]
    fn the_nearest_reason_is_told() {
        let reach = Reach { connected: vec!["big".to_owned()], ..Reach::default() };
        let mut elsewhere = instance("a/b-2", "ssl");
        elsewhere.at = Some("big".to_owned());
        let mut arm = elsewhere.clone();
        arm.chost = Some("aarch64-unknown-linux-gnu".to_owned());
        let mut flags = elsewhere.clone();
        flags.cflags = Some("-O3".to_owned());
        let mut cpu = elsewhere.clone();
        cpu.rejects = vec![(MissKind::Cpu, "it needs avx512f".to_owned())];
        let recipe = "it was built with another compiler, ebuild, profile or dependency";
        for (instances, kind, cause) in [
            (vec![], MissKind::Nobody, "big has no such package".to_owned()),
            (
                vec![instance("a/b-1", "ssl"), instance("a/b-3", "ssl")],
                MissKind::Version,
                "there is only 3, 1".to_owned(),
            ),
            (
                vec![instance("a/b-1", "ssl"), instance("a/b-2", "nls")],
                MissKind::Use,
                "here: it has USE +nls -ssl".to_owned(),
            ),
            (vec![instance("a/b-2", "nls"), elsewhere], MissKind::Recipe, format!("at big: {recipe}")),
            (vec![arm], MissKind::Chost, "at big: it is built for aarch64-unknown-linux-gnu".to_owned()),
            (vec![flags], MissKind::Recipe, "at big: it was built with CFLAGS \"-O3\"".to_owned()),
            (vec![cpu], MissKind::Cpu, "at big: it needs avx512f".to_owned()),
        ] {
            assert_eq!(say(&instances, &reach), (kind, cause));
        }
    }

    #[test]
    fn who_built_it_and_does_not_count_comes_first() {
        let reach = Reach { untrusted: vec![("KEY".to_owned(), "stranger".to_owned())], ..Reach::default() };
        let miss = miss(&sought(), true, &[instance("a/b-1", "")], &reach);
        assert_eq!(miss.kind, MissKind::Trust);
        assert_eq!(miss.next.as_deref(), Some("peer trust add KEY --packages a/b"));
    }

    #[test]
    fn nobody_is_told_with_who_was_asked() {
        let away = Reach { away: ["a", "b", "c", "d"].map(str::to_owned).to_vec(), ..Reach::default() };
        assert_eq!(say(&[], &away).1, "a, b, c and 1 more is not reached");
        assert_eq!(say(&[], &Reach::default()).1, "nobody is trusted to build it");
        assert_eq!(miss(&sought(), false, &[], &away).kind, MissKind::Policy);
    }
}
