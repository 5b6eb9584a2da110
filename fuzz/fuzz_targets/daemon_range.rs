//! A Range header: the part it asks for lies within the body, and read back from its own spelling it is the same.
#![no_main]

use daemon::http::range::Span;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &str)| {
    let (size, range) = input;
    match Span::parse(range, size) {
        Some(Span::Part { first, last }) => {
            assert!(first <= last && last < size, "{first}-{last} of {size}");
            assert_eq!(Span::parse(&format!("bytes={first}-{last}"), size), Some(Span::Part { first, last }));
        }
        // wget takes 416 for "I have it all": never for a beginning below the size.
        Some(Span::Unsatisfiable) => {
            let first = range.split_once('=').and_then(|(_, spec)| spec.trim().split_once('-')).map(|(first, _)| first);
            assert!(first.is_none_or(|first| first.parse::<u64>().map_or(true, |first| first >= size)), "{range:?}");
        }
        Some(Span::Whole) | None => {}
    }
});
