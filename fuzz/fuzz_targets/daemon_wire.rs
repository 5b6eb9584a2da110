//! What peers send: every message of every protocol, over the same bytes; what parses is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| daemon::swarm::wire::exercise(bytes));
