//! Looking for bytes everywhere at a node: in what it keeps and what it says, and in the memory of its processes.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::builder::Builder;
use crate::peer::TestPeer;

/// Bytes looked at together.
const PIECE: usize = 512;

/// How often these bytes are in a file or below a directory, and where first.
pub(crate) fn found_below(path: &Path, needle: &str, found: &mut Vec<String>) {
    let Ok(data) = fs::symlink_metadata(path) else { return };
    if data.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(needle) {
                found.push(entry.path().display().to_string());
            }
            found_below(&entry.path(), needle, found);
        }
    } else if data.is_file() {
        let mut bytes = Vec::new();
        // A file that goes away meanwhile, such as a log of the database, had its turn.
        let _read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        found.extend(excerpts(&bytes, needle).into_iter().map(|text| format!("{}: {text}", path.display())));
    }
}

/// Where the needle is in these bytes, with what is around it.
fn excerpts(bytes: &[u8], needle: &str) -> Vec<String> {
    let needle = needle.as_bytes();
    let mut found = Vec::new();
    for (number, piece) in bytes.chunks(PIECE).enumerate() {
        // Most memory is empty, and this looks at many bytes at once.
        if !piece.contains(&needle[0]) {
            continue;
        }
        for (at, _) in piece.iter().enumerate().filter(|(_, byte)| **byte == needle[0]) {
            let at = number * PIECE + at;
            if bytes[at..].starts_with(needle) {
                let around = &bytes[at.saturating_sub(40)..bytes.len().min(at + 40)];
                found.push(String::from_utf8_lossy(around).into_owned());
            }
        }
    }
    found.truncate(5);
    found
}

/// A process and all that it started, and they.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let after = stat.rsplit(')').next().unwrap_or_default();
        if let Some(parent) = after.split_whitespace().nth(1).and_then(|word| word.parse::<u32>().ok()) {
            parents.push((id, parent));
        }
    }
    let mut all = vec![root];
    let mut at = 0;
    while let Some(&parent) = all.get(at) {
        all.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    all
}

/// Where in the readable memory, environment or command line of a process the needle is.
pub(crate) fn found_in_process(id: u32, needle: &str) -> Vec<String> {
    let read = |name: &str| fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
    let mut found: Vec<String> = ["environ", "cmdline"]
        .iter()
        .flat_map(|name| excerpts(&read(name), needle))
        .map(|text| format!("{id}: {text}"))
        .collect();
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).unwrap_or_default();
    let Ok(memory) = File::open(format!("/proc/{id}/mem")) else { return found };
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw"))) {
        let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) else { continue };
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut at = from;
        let mut bytes = vec![0; 1 << 20];
        while at < to {
            let length = bytes.len().min(usize::try_from(to - at).unwrap());
            // What is not there is no place for a secret. The overlap is for one that lies across two pieces.
            if memory.read_exact_at(&mut bytes[..length], at).is_ok() {
                found.extend(excerpts(&bytes[..length], needle).into_iter().map(|text| format!("{id} {line}: {text}")));
            }
            at += length.saturating_sub(64).max(64) as u64;
        }
    }
    found
}

/// Everything that is at a node: what it keeps, what it says, and what its processes have in their memory.
pub(crate) fn found_at(machine: &Builder, node: &TestPeer, needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    found_below(&node.store_dir(), needle, &mut found);
    found_below(&machine.dir.join("log"), needle, &mut found);
    for id in family(node.pid()) {
        found.extend(found_in_process(id, needle));
    }
    found
}
