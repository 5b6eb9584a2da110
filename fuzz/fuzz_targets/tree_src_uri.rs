//! SRC_URI: names that can leave no directory, and entries that read back as themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tree::uri::{ENTRIES_MAX, Exempt, SrcEntry, SrcUri, URI_BYTES_MAX};

fn written(entry: &SrcEntry) -> Option<String> {
    let prefix = match entry.exempt {
        Exempt::None => "",
        Exempt::Fetch => "fetch+",
        Exempt::Mirror => "mirror+",
    };
    Some(format!("{prefix}{} -> {}", entry.uri.as_ref()?, entry.name))
}

/// Whether the grammar takes it as a word of its own: what ends a URI need not be one (`https://example.org/||a`).
fn may_follow_an_arrow(name: &str) -> bool {
    let glued = ["(", ")", "||"].iter().any(|sign| name.starts_with(sign) || name.ends_with(sign));
    !(glued || name == "->" || name.ends_with('?'))
}

fuzz_target!(|text: &str| {
    let Ok(parsed) = SrcUri::parse(text) else { return };
    assert!(parsed.iter().count() <= ENTRIES_MAX);
    assert_eq!(parsed.entries().len(), parsed.iter().count());
    for entry in parsed.iter() {
        assert!(!entry.name.as_str().contains('/') && !entry.name.as_str().starts_with('.'));
        let Some(uri) = &entry.uri else { continue };
        assert!(uri.len() <= URI_BYTES_MAX);
        let again = written(entry).expect("it has a URI");
        match SrcUri::parse(&again) {
            Ok(reparsed) => assert_eq!(reparsed.entries(), std::slice::from_ref(entry), "{again:?}"),
            Err(_) => assert!(again.len() > URI_BYTES_MAX || !may_follow_an_arrow(entry.name.as_str()), "{again:?}"),
        }
    }
});
