//! From SRC_URI and a table of mirrors to the hosts that are asked: bounded, and http(s) only.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirrors::plan::CANDIDATES_MAX;
use mirrors::{Exempt, Mirrors, Options, Source, Uri};
use tree::digest::Digest;
use tree::distfile::Distfile;
use tree::thirdparty::ThirdPartyMirrors;
use tree::uri::{self, SrcUri};

fuzz_target!(|text: &str| {
    let (src_uri, table) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(parsed) = SrcUri::parse(src_uri) else { return };
    let name = "a-1.tar.xz".parse().expect("a distfile name");
    let uris = parsed.entries().into_iter().filter_map(|entry| {
        let exempt = match entry.exempt {
            uri::Exempt::None => Exempt::None,
            uri::Exempt::Fetch => Exempt::Fetch,
            uri::Exempt::Mirror => Exempt::Mirror,
        };
        Some(Uri { uri: entry.uri?, exempt })
    });
    let distfile = Distfile { name, size: 1, blake2b: Digest::of(b"x"), sha512: None };
    let source =
        Source { distfile, uris: uris.collect(), may_mirror: table.len() % 2 == 0, may_fetch: table.len() % 3 == 0 };
    thread_local! {
        static MIRRORS: Mirrors = Mirrors::new(Options::default()).expect("the defaults are sound");
    }
    MIRRORS.with(|mirrors| {
        mirrors.set_thirdparty(ThirdPartyMirrors::parse(table));
        let plan = mirrors.plan(&source);
        assert!(plan.len() <= CANDIDATES_MAX);
    });
});
