//! thirdpartymirrors: the first line is a URI, the rest a table; expansion stays within the table.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tree::thirdparty::ThirdPartyMirrors;

fuzz_target!(|text: &str| {
    let (uri, table) = text.split_once('\n').unwrap_or((text, ""));
    let table = ThirdPartyMirrors::parse(table);
    let mut twice = table.clone();
    twice.merge(&table);
    assert_eq!(twice, table, "a table merged with itself is itself");
    let expanded = table.expand(uri);
    let named = uri.strip_prefix("mirror://").and_then(|rest| rest.split_once('/'));
    match named {
        None => assert!(expanded.is_empty()),
        Some((name, path)) => {
            let hosts = table.hosts(name);
            assert_eq!(expanded.len(), hosts.len());
            for (url, host) in expanded.iter().zip(hosts) {
                assert_eq!(*url, format!("{host}/{path}"));
            }
        }
    }
});
