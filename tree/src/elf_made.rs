//! ELF files made for tests: small ones that are whole, and ones that cost their reader.

/// A section: type, link, info, entry size, bytes.
struct Section(u32, u32, u32, u64, Vec<u8>);

const STRTAB: u32 = 3;
const DYNAMIC: u32 = 6;
const VERNEED: u32 = 0x6fff_fffe;
const VERDEF: u32 = 0x6fff_fffd;
const DT_NEEDED: u64 = 1;
const DT_SONAME: u64 = 14;
const DT_RUNPATH: u64 = 29;

/// A library of x86-64 with these sections behind the first, empty one.
fn file(sections: &[Section]) -> Vec<u8> {
    let mut body: Vec<u8> = Vec::new();
    let mut heads = vec![0; 64];
    for Section(kind, link, info, size, bytes) in sections {
        body.resize(body.len().next_multiple_of(16), 0);
        heads.extend([0_u32, *kind].iter().flat_map(|word| word.to_le_bytes()));
        heads.extend([0_u64, 0, 64 + body.len() as u64, bytes.len() as u64].iter().flat_map(|word| word.to_le_bytes()));
        heads.extend([*link, *info].iter().flat_map(|word| word.to_le_bytes()));
        heads.extend([16_u64, *size].iter().flat_map(|word| word.to_le_bytes()));
        body.extend_from_slice(bytes);
    }
    body.resize(body.len().next_multiple_of(16), 0);
    let table = 64 + body.len() as u64;
    let count = u16::try_from(sections.len() + 1).unwrap();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([3_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([0, 0, table].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 0, 0, 64, count, 1].iter().flat_map(|half| half.to_le_bytes()));
    [file, body, heads].concat()
}

fn dynamic(entries: &[(u64, u64)]) -> Vec<u8> {
    entries.iter().chain(&[(0, 0)]).flat_map(|(tag, value)| [tag.to_le_bytes(), value.to_le_bytes()].concat()).collect()
}

/// A library with a soname that needs others.
pub(crate) fn library(soname: &str, needed: &[&str]) -> Vec<u8> {
    let (mut strings, mut entries) = (vec![0], Vec::new());
    for (tag, name) in [(DT_SONAME, soname)].into_iter().chain(needed.iter().map(|name| (DT_NEEDED, *name))) {
        entries.push((tag, strings.len() as u64));
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
    }
    file(&[Section(STRTAB, 0, 0, 0, strings), Section(DYNAMIC, 1, 0, 16, dynamic(&entries))])
}

/// `DT_RUNPATH` so many times, each time the same 64 directories.
pub(crate) fn run_paths(count: usize) -> Vec<u8> {
    let dir = format!("/{}", "d".repeat(50));
    let strings = format!("\0{}\0", vec![dir; 64].join(":")).into_bytes();
    let entries = vec![(DT_RUNPATH, 1); count];
    file(&[Section(STRTAB, 0, 0, 0, strings), Section(DYNAMIC, 1, 0, 16, dynamic(&entries))])
}

/// `DT_NEEDED` so many times, each time a name of so many bytes.
pub(crate) fn long_names(count: usize, bytes: usize) -> Vec<u8> {
    let strings = format!("\0{}\0", "n".repeat(bytes)).into_bytes();
    let entries = vec![(DT_NEEDED, 1); count];
    file(&[Section(STRTAB, 0, 0, 0, strings), Section(DYNAMIC, 1, 0, 16, dynamic(&entries))])
}

/// So many records of needed versions that lie over each other: each is a library and 65,535 versions of it at once.
pub(crate) fn needed_versions(count: usize) -> Vec<u8> {
    let record: Vec<u8> = [1_u16.to_le_bytes(), 0xffff_u16.to_le_bytes()].concat();
    // Name 2, versions 16 bytes further on, the next record 16 bytes further on. Read as a version it is a weak one.
    let record = [record, [2_u32, 16, 16].iter().flat_map(|word| word.to_le_bytes()).collect()].concat();
    let strings = b"\0libsomething.so.1\0".repeat(2);
    file(&[
        Section(STRTAB, 0, 0, 0, strings),
        Section(DYNAMIC, 1, 0, 16, dynamic(&[])),
        Section(VERNEED, 1, u32::try_from(count).unwrap(), 0, record.repeat(count)),
    ])
}

/// So many definitions of one and the same version.
pub(crate) fn defined_versions(count: usize) -> Vec<u8> {
    let halves = [1_u16, 0, 1, 1].iter().flat_map(|half| half.to_le_bytes());
    let record: Vec<u8> = halves.chain([0_u32, 20, 28, 2, 0].iter().flat_map(|word| word.to_le_bytes())).collect();
    file(&[
        Section(STRTAB, 0, 0, 0, b"\0libsomething.so.1\0".to_vec()),
        Section(DYNAMIC, 1, 0, 16, dynamic(&[])),
        Section(VERDEF, 1, u32::try_from(count).unwrap(), 0, record.repeat(count)),
    ])
}

/// So many empty sections.
pub(crate) fn sections(count: usize) -> Vec<u8> {
    let empty = (0..count).map(|_| Section(1, 0, 0, 0, Vec::new()));
    let whole = [Section(STRTAB, 0, 0, 0, vec![0]), Section(DYNAMIC, 1, 0, 16, dynamic(&[]))];
    file(&whole.into_iter().chain(empty).collect::<Vec<_>>())
}
