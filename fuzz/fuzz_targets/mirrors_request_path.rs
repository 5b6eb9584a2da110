//! What someone asks of our mirror, encoded and decoded: what is understood is spelled so that it is understood again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mirrors::layout::{Asked, parse_request_path};
use percent_encoding::percent_decode_str;

fuzz_target!(|path: &str| {
    if let Ok(asked) = path.parse::<Asked>() {
        let printed = asked.to_string();
        assert_eq!(printed.parse::<Asked>().as_ref(), Ok(&asked), "{printed:?}");
        let decoded = percent_decode_str(&printed).decode_utf8().expect("we spell UTF-8");
        assert_eq!(parse_request_path(&decoded).as_ref(), Ok(&asked), "{decoded:?}");
    }
    if let Ok(asked) = parse_request_path(path) {
        let printed = asked.to_string();
        assert_eq!(printed.parse::<Asked>().as_ref(), Ok(&asked), "{printed:?}");
        if let Asked::ByName(name) = asked {
            assert!(!name.as_str().contains('/') && !name.as_str().starts_with('.'));
        }
    }
});
