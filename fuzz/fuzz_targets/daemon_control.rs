//! The bodies of the control socket and the names of pins: what is read is written back the same.
#![no_main]

use std::fmt::Debug;

use daemon::api::{DialRequest, FetchRequest, GcRequest, ImportRequest, PinRequest};
use libfuzzer_sys::fuzz_target;
use store::PinRoot;

fn check<T: for<'a> serde::Deserialize<'a> + serde::Serialize + Debug>(bytes: &[u8]) {
    let Ok(request) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&request).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("our own JSON parses");
    assert_eq!(format!("{again:?}"), format!("{request:?}"));
}

fuzz_target!(|bytes: &[u8]| {
    check::<FetchRequest>(bytes);
    check::<ImportRequest>(bytes);
    check::<PinRequest>(bytes);
    check::<GcRequest>(bytes);
    check::<DialRequest>(bytes);
    if let Ok(root) = std::str::from_utf8(bytes).unwrap_or_default().parse::<PinRoot>() {
        assert_eq!(root.to_string().parse(), Ok(root));
    }
});
