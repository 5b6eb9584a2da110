//! The tables of real and odd texts beside this file: one line is one case.

use tree::atom::Atom;
use tree::cpv::Cpv;
use tree::uri::{Exempt, SrcUri};
use tree::version::Version;

fn lines(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

#[test]
fn versions_are_ordered_as_the_table_says() {
    let version = |text: &str| text.parse::<Version>().unwrap_or_else(|error| panic!("{error}"));
    for line in lines(include_str!("versions.txt")) {
        if let Some(bad) = line.strip_prefix("bad") {
            let bad = bad.strip_prefix(' ').unwrap_or(bad);
            assert!(bad.parse::<Version>().is_err(), "{line}");
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let (left, right) = (version(words[0]), version(words[2]));
        assert_eq!((left.as_str(), left.to_string().as_str()), (words[0], words[0]));
        let sign = match left.cmp(&right) {
            std::cmp::Ordering::Less => "<",
            std::cmp::Ordering::Equal => "=",
            std::cmp::Ordering::Greater => ">",
        };
        assert_eq!(sign, words[1], "{line}");
        assert_eq!(left.cmp(&right), right.cmp(&left).reverse(), "{line}");
        assert_eq!(left == right, words[1] == "=", "{line}");
    }
}

#[test]
fn long_numbers_are_fine_and_longer_texts_are_not() {
    let long = |digits: usize| "9".repeat(digits);
    assert!(long(256).parse::<Version>().unwrap() > long(255).parse::<Version>().unwrap());
    assert!(long(257).parse::<Version>().is_err());
}

#[test]
fn atoms_match_as_the_table_says() {
    for line in lines(include_str!("atoms.txt")) {
        if let Some(bad) = line.strip_prefix("bad") {
            let bad = bad.strip_prefix("! ").or_else(|| bad.strip_prefix(' ')).unwrap_or(bad);
            assert!(bad.parse::<Atom>().is_err(), "{line}: {:?}", bad.parse::<Atom>());
            continue;
        }
        let fields: Vec<&str> = line.split(" | ").collect();
        let atom: Atom = fields[0].parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        let cpv: Cpv = fields[1].parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(atom.to_string(), fields[0]);
        let slot = (fields[2] != "?").then_some(fields[2]);
        assert_eq!(atom.matches(&cpv, slot), fields[3] == "yes", "{line}");
    }
}

#[test]
fn an_atom_without_category_or_operator_says_what_to_write() {
    let message = |text: &str| text.parse::<Atom>().unwrap_err().to_string();
    assert_eq!(message("openssl"), "\"openssl\" has no category: write category/package");
    assert_eq!(message("a/b-1"), "\"a/b-1\" has a version and no operator: write =a/b-1");
    assert!(message(&"a".repeat(5000)).contains("5000"));
}

#[test]
fn src_uris_give_the_files_of_the_table() {
    for line in lines(include_str!("src_uri.txt")) {
        let (text, expected) = line.split_once("=>").expect("every line has an arrow");
        let found = match SrcUri::parse(text) {
            Err(_) => "error".to_owned(),
            Ok(src_uri) => {
                let entry = |entry: tree::uri::SrcEntry| {
                    let exempt = match entry.exempt {
                        Exempt::None => "none",
                        Exempt::Fetch => "fetch",
                        Exempt::Mirror => "mirror",
                    };
                    format!("{} {} {exempt}", entry.name, entry.uri.as_deref().unwrap_or("-"))
                };
                src_uri.entries().into_iter().map(entry).collect::<Vec<_>>().join("; ")
            }
        };
        assert_eq!(found, expected.trim().trim_end_matches('!'), "{line}");
    }
}

#[test]
fn a_src_uri_cannot_nest_or_grow_without_end() {
    assert!(SrcUri::parse(&format!("{} a {}", "( ".repeat(64), ") ".repeat(64))).is_ok());
    assert!(SrcUri::parse(&format!("{} a {}", "( ".repeat(65), ") ".repeat(65))).is_err());
    assert!(SrcUri::parse(&"( ".repeat(1_000_000)).is_err());
    assert!(SrcUri::parse(&"a ".repeat(70_000)).is_err());
    assert!(SrcUri::parse(&"a".repeat(5 << 20)).is_err());
    assert!(SrcUri::parse(&format!("https://x/{} -> a", "b".repeat(9000))).is_err());
}
