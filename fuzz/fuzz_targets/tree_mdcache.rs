//! An md5-cache entry: what is kept, written back, reads the same, and its texts may be asked of their own parsers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tree::license::{License, LicenseGroups};
use tree::mdcache::MdEntry;
use tree::restrict::Restrict;
use tree::uri::SrcUri;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = MdEntry::parse(bytes) else { return };
    let text = format!(
        "EAPI={}\nSLOT={}\nSRC_URI={}\nRESTRICT={}\nLICENSE={}\nKEYWORDS={}\nIUSE={}\nDESCRIPTION={}\nHOMEPAGE={}\n",
        entry.eapi,
        entry.slot,
        entry.src_uri,
        entry.restrict,
        entry.license,
        entry.keywords,
        entry.iuse,
        entry.description,
        entry.homepage,
    );
    let again = MdEntry::parse(text.as_bytes()).expect("what was read can be written");
    assert_eq!(MdEntry { eclasses: entry.eclasses.clone(), inherited: entry.inherited.clone(), md5: entry.md5, ..again }, entry);
    let _whether_it_parses = SrcUri::parse(&entry.src_uri).is_ok();
    let _what_it_forbids = Restrict::parse(&entry.restrict);
    let _whether_it_is_free = License::new(&entry.license).may_redistribute(&LicenseGroups::default());
});
