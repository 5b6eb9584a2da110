//! What must hold for every text: what parses prints back, orders are total, and nothing panics.

use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy;
use tree::atom::Atom;
use tree::cpv::{Cp, Cpv, Slot};
use tree::digest::{Digest, Sha512};
use tree::distfile::Distfile;
use tree::license::{License, LicenseGroups};
use tree::manifest::Manifest;
use tree::mdcache::MdEntry;
use tree::name::DistfileName;
use tree::restrict::Restrict;
use tree::thirdparty::ThirdPartyMirrors;
use tree::uri::SrcUri;
use tree::version::Version;

const VERSION: &str = "(0|[0-9]{1,3})(\\.[0-9]{1,3}){0,3}[ab]?(_(alpha|beta|pre|rc|p)[0-9]{0,2}){0,2}(-r[0-9]{1,2})?";
const ATOM: &str = "(<|<=|=|~|>=|>)?[a-z]{1,3}/[a-z+_-]{1,4}(-[0-9.]{1,4}(_p[0-9])?(-r[0-9])?)?\\*?\
                    (:[0-9a-z/=*]{0,4})?(::[a-z-]{1,3})?(\\[[a-z,?!=()+-]{0,8}\\])?";

fn distfile() -> impl Strategy<Value = Distfile> {
    let name = "[A-Za-z0-9_+@%~=,é-][A-Za-z0-9_+@%~=,.é-]{0,40}";
    (name, 0..=tree::manifest::DISTFILE_BYTES_MAX, any::<[u8; 32]>(), any::<bool>()).prop_map(
        |(name, size, content, both)| Distfile {
            name: name.parse().expect("the expression allows only names of distfiles"),
            size,
            blake2b: Digest::of(&content),
            sha512: both.then(|| Sha512::of(&content)),
        },
    )
}

proptest! {
    #[test]
    fn a_version_prints_back(text in VERSION) {
        prop_assert_eq!(text.parse::<Version>().expect("the expression is the grammar").to_string(), text);
    }

    #[test]
    fn the_order_of_versions_is_total(texts in prop::collection::vec(VERSION, 3)) {
        let versions: Vec<Version> = texts.iter().map(|text| text.parse().expect("the expression is the grammar")).collect();
        for a in &versions {
            prop_assert_eq!(a.cmp(a), std::cmp::Ordering::Equal);
            for b in &versions {
                prop_assert_eq!(a.cmp(b), b.cmp(a).reverse());
                prop_assert_eq!(a == b, a.cmp(b).is_eq());
                for c in &versions {
                    prop_assert!(!(a <= b && b <= c) || a <= c, "{} {} {}", a, b, c);
                }
            }
        }
    }

    #[test]
    fn an_atom_prints_back(text in ATOM) {
        if let Ok(atom) = text.parse::<Atom>() {
            prop_assert_eq!(&atom.to_string(), &text);
            prop_assert_eq!(atom.to_string().parse::<Atom>(), Ok(atom));
        }
    }

    #[test]
    fn a_cpv_prints_back(name in "[a-z][a-z0-9+_-]{0,8}", version in VERSION) {
        let text = format!("cat/{name}-{version}");
        if let Ok(cpv) = text.parse::<Cpv>() {
            prop_assert_eq!(cpv.to_string(), text);
        } else {
            prop_assert!(name.parse::<tree::name::PackageName>().is_err());
        }
    }

    #[test]
    fn dist_lines_print_back(distfiles in prop::collection::vec(distfile(), 0..5)) {
        let text: String = distfiles.iter().map(|distfile| format!("{distfile}\n")).collect();
        let manifest = Manifest::parse(text.as_bytes());
        let mut expected = distfiles;
        let mut seen = std::collections::BTreeSet::new();
        expected.retain(|distfile| seen.insert(distfile.name.clone()));
        if manifest.skipped.is_empty() {
            prop_assert_eq!(manifest.distfiles, expected);
        } else {
            prop_assert_eq!(manifest.distfiles.len(), expected.len());
        }
    }

    #[test]
    fn a_distfile_name_stays_in_its_directory(text in "\\PC{0,8}|[./a]{0,5}|(?s:.{0,4})") {
        if let Ok(name) = text.parse::<DistfileName>() {
            let path = std::path::Path::new("/distdir").join(name.as_ref());
            prop_assert_eq!(path.parent(), Some(std::path::Path::new("/distdir")));
            prop_assert_eq!(path.file_name(), Some(std::ffi::OsStr::new(name.as_ref())));
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "(?s:.{0,60})|[-a/1.:*~<>=!@?()\\[\\]|_r \n]{0,60}", bytes in any::<Vec<u8>>()) {
        drop(text.parse::<Atom>());
        drop(text.parse::<Cp>());
        drop(text.parse::<Cpv>());
        drop(text.parse::<Slot>());
        drop(text.parse::<Digest>());
        drop(SrcUri::parse(&text));
        let _ = Restrict::parse(&text);
        let _ = License::new(&text).may_redistribute(&LicenseGroups::parse(&text));
        drop(ThirdPartyMirrors::parse(&text).expand(&text));
        drop(tree::cid::from_cid(&text));
        drop(tree::cid::from_multihash(&bytes));
        drop(Manifest::parse(&bytes));
        drop(Manifest::parse(format!("DIST {text}").as_bytes()));
        drop(MdEntry::parse(&bytes));
    }
}
