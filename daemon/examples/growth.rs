//! Times the binhost and the announcer hold with 10 to 10,000 packages, for `bench/growth`: one line of JSON a measurement.
//!
//! What is timed is what a daemon does when a build ends, when Portage asks for the index after that, and when it starts.

#![expect(clippy::print_stdout, reason = "what it measured is what it is for")]

use daemon::binhost::{Binhost, BinpkgRow, Demands, Origin, Owner};
use daemon::machine::Machine;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Options, Store, Wanted};
use tree::digest::Digest;
use tree::elf::Links;
use tree::packages::PackageEntry;

/// Changes that are timed at each size; the median is told.
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    let sizes: Vec<usize> = std::env::args().skip(1).map(|size| size.parse()).collect::<Result<_, _>>()?;
    for size in sizes {
        measure(size)?;
    }
    Ok(())
}

fn measure(size: usize) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Options::default())?;
    let machine = Arc::new(Machine::here());
    let binhost = Binhost::open(&store, Arc::clone(&machine))?;
    for number in 0..size {
        binhost.add(package(&store, number)?)?;
    }
    let (mut publish, mut index) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let row = package(&store, size + round)?;
        let begun = Instant::now();
        binhost.add(row)?;
        publish.push(begun.elapsed());
        let begun = Instant::now();
        let served = binhost.serve();
        index.push(begun.elapsed());
        assert_eq!(served.packages, size + round + 1, "every package is listed");
    }
    drop(binhost);
    let begun = Instant::now();
    let binhost = Binhost::open(&store, machine)?;
    let served = binhost.serve();
    let start = begun.elapsed();
    assert_eq!(served.packages, size + ROUNDS);
    for (what, took) in [("publish", median(publish)), ("index after a change", median(index)), ("open", start)] {
        println!("{}", serde_json::json!({ "what": what, "size": size, "ms": took.as_secs_f64() * 1000.0 }));
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A package such as a desktop has: some kilobytes of index, a dozen libraries needed and one given.
fn package(store: &Store, number: usize) -> Result<BinpkgRow, Box<dyn Error>> {
    let bytes = format!("package {number}").into_bytes();
    let wanted = Wanted { digest: Digest::of(&bytes), size: Some(bytes.len() as u64), sha512: None };
    let mut incoming = store.incoming(&wanted)?;
    incoming.append(&bytes)?;
    incoming.finish()?;
    let words = |prefix: &str, count: usize| -> String {
        (0..count).map(|word| format!("{prefix}{}", (number * 7 + word * 13) % 997)).collect::<Vec<_>>().join(" ")
    };
    let entry = [
        ("CPV", format!("dev-libs/package{number}-1.2.3")),
        ("SLOT", "0".to_owned()),
        ("EAPI", "8".to_owned()),
        ("REPO", "gentoo".to_owned()),
        ("KEYWORDS", "amd64 ~arm64".to_owned()),
        ("IUSE", words("flag", 30)),
        ("USE", words("flag", 12)),
        ("CHOST", "x86_64-pc-linux-gnu".to_owned()),
        ("RDEPEND", words(">=dev-libs/package", 20)),
        ("DEPEND", words(">=dev-libs/package", 20)),
        ("BUILD_ID", "1".to_owned()),
        ("BUILD_TIME", "1700000000".to_owned()),
    ];
    let entry = PackageEntry::from_keys(entry.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())?;
    let program = std::fs::read("/proc/self/exe")?;
    let own = tree::elf::ElfFile::read(program.as_slice()).ok_or("this program is no ELF file")?.abi;
    let so = |name: String| tree::elf::Soname { abi: own, name };
    let gives = BTreeMap::from([(so(format!("libpackage{number}.so.1")), ["V_1".to_owned()].into())]);
    let needs = (1..12_usize)
        .filter_map(|back| number.checked_sub(back))
        .map(|other| (so(format!("libpackage{other}.so.1")), ["V_1".to_owned()].into()))
        .collect();
    let links = Links { needs, gives, ..Links::default() };
    Ok(BinpkgRow {
        digest: wanted.digest,
        size: bytes.len() as u64,
        md5: [1; 16],
        sha1: [2; 20],
        mtime: 7,
        entry,
        fingerprint: Digest::of(number.to_string().as_bytes()),
        image: Digest::of(b"image"),
        origin: Origin::Built,
        added_at: 8,
        owner: Owner::This,
        demands: Some(Demands::new(|name| (name == "CFLAGS").then(|| "-O2 -pipe".to_owned()), links)),
    })
}
