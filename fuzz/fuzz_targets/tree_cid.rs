//! CIDs, multihashes and digests: what parses names a digest, and the digest is spelled so that it parses again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tree::cid::{from_cid, from_multihash, multihash_bytes, to_cid};
use tree::digest::{Digest, Sha512};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(digest) = from_multihash(bytes) {
        assert_eq!(from_multihash(&multihash_bytes(&digest)), Ok(digest));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(digest) = from_cid(text) {
        assert_eq!(from_cid(&to_cid(&digest).to_string()), Ok(digest));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!(text.eq_ignore_ascii_case(&digest.to_string()));
        assert_eq!(from_cid(&to_cid(&digest).to_string()), Ok(digest));
    }
    if let Ok(digest) = text.parse::<Sha512>() {
        assert!(text.eq_ignore_ascii_case(&digest.to_string()));
    }
});
