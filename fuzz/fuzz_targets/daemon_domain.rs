//! Another machine's configuration: a record of it, and each kind of file that it has.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| daemon::builds::exercise_domain(bytes));
