//! What Portage and Python's `tarfile` make of archives that are nearly right, against what this crate makes of them: an image
//! digest must be of what gets installed.
//!
//! Of two ways to read a header the one that hides a member is an attack: `tarfile` takes a broken header in mid-archive for
//! the archive's end. So whatever is taken here must be there, the same, in what `tarfile` reads and Portage unpacks.

#![expect(clippy::indexing_slicing, reason = "a test that makes headers knows where their fields are")]

use std::fmt::Write as _;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tree::digest::{Digest, Sha512};
use tree::gpkg::Gpkg;
use tree::image::Image;

/// Archives that are compared; as many are whole as are broken.
const ARCHIVES: usize = 2000;

/// A sequence that is the same on every machine (xorshift64*).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let end = u64::try_from(end).expect("it is small");
        usize::try_from((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end).expect("it is small")
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn bytes(&mut self, of: &[&'static [u8]]) -> &'static [u8] {
        of[self.below(of.len())]
    }

    fn is(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

const PATHS: [&[u8]; 14] = [
    b"image/a",
    b"image/b",
    b"image/c",
    b"image/a/b",
    b"image/d/e",
    b"image//f",
    b"./image/g",
    b"image/h/",
    b"image/i/.",
    "image/\u{fc}".as_bytes(),
    b"image/\xff",
    b"image",
    b"image/../x",
    b"",
];
const KINDS: &[u8] = b"0000000000000000000000000055555522221111136\x00\x007gV";
const NUMBERS: [&[u8]; 18] = [
    b"0000644\0",
    b"644 \0",
    b" 644\0",
    b"  644  ",
    b"\0",
    b"",
    b"7",
    b"8",
    b"0o7",
    b"-1",
    b"+1",
    b"1_0",
    b"\xff",
    b"\x80\0\0\0\0\0\0\x05",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\t644",
    b"0x1\0",
    b"77777777777",
];
const RECORDS: [(&str, &[u8]); 30] = [
    ("path", b"image/p"),
    ("path", b"image/q/"),
    ("path", b"image/p\0hidden"),
    ("path", b""),
    ("linkpath", b"image/a"),
    ("linkpath", b"x"),
    ("uname", b"root"),
    ("gname", "\u{fc}".as_bytes()),
    ("uname", b"\xff"),
    ("uid", b"1000"),
    ("uid", b"1_000"),
    ("uid", b" 7"),
    ("gid", b"-1"),
    ("gid", b"99999999999999999999999"),
    ("size", b"0"),
    ("size", b"3"),
    ("size", b"3.0"),
    ("size", b""),
    ("mtime", b"1.5"),
    ("mtime", b"-1"),
    ("mtime", b"inf"),
    ("atime", b"nan"),
    ("ctime", b"1e3"),
    ("comment", b"x\ny"),
    ("hdrcharset", b"BINARY"),
    ("GNU.sparse.name", b"image/s"),
    ("SCHILY.xattr.user.a", b"b"),
    ("GNU.sparse.size", b"1"),
    ("x", b""),
    ("", b"x"),
];
/// The numbers of a header: place and width.
const FIELDS: [(usize, usize); 8] = [(100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (148, 8), (329, 8), (337, 8)];

fn put(header: &mut [u8; 512], at: usize, width: usize, bytes: &[u8]) {
    header[at..at + width].fill(0);
    let length = bytes.len().min(width);
    header[at..at + length].copy_from_slice(&bytes[..length]);
}

fn header(path: &[u8], kind: u8, link: &[u8], size: usize) -> [u8; 512] {
    let mut header = [0; 512];
    put(&mut header, 0, 100, path);
    for (at, width) in FIELDS {
        put(&mut header, at, width - 1, "0".repeat(width - 1).as_bytes());
    }
    put(&mut header, 100, 7, b"0000644");
    put(&mut header, 124, 11, format!("{size:011o}").as_bytes());
    header[156] = kind;
    put(&mut header, 157, 100, link);
    put(&mut header, 257, 8, b"ustar\x0000");
    header
}

fn with_sum(mut header: [u8; 512]) -> [u8; 512] {
    header[148..156].fill(b' ');
    let sum = tree::size::total(header.iter().map(|byte| u64::from(*byte)));
    put(&mut header, 148, 8, format!("{sum:06o}\0 ").as_bytes());
    header
}

fn blocks(archive: &mut Vec<u8>, content: &[u8], filling: u8) {
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), filling);
}

fn record(dice: &mut Dice, key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length += 1;
    }
    let digits = match dice.below(12) {
        0 => format!("{:0>20}", rest.len() + 20),
        1 => format!("{:0>22}", rest.len() + 22),
        2 => (length + 1).to_string(),
        _ => length.to_string(),
    };
    [digits.as_bytes(), &rest].concat()
}

/// What stands before a member: long names, records, or something like them.
fn before(dice: &mut Dice, archive: &mut Vec<u8>) {
    let kind = *dice.one(b"LKxxxg");
    let content = if matches!(kind, b'L' | b'K') {
        let ending: &[u8] = dice.bytes(&[&b"\0"[..], b"", b"\0hidden", b"/"]);
        [dice.bytes(&PATHS), ending].concat()
    } else {
        let mut records = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let (key, value) = dice.one(&RECORDS);
            records.extend(record(dice, key, value));
        }
        if dice.is(8) {
            records.extend_from_slice(dice.bytes(&[&b"\0"[..], b"\0\0 12 path=x\n", b"broken", b"5 x=\n"]));
        }
        records
    };
    let size = if dice.is(8) { content.len().saturating_sub(1) } else { content.len() };
    archive.extend_from_slice(&with_sum(header(b"././@LongLink", kind, b"", size)));
    // What fills the last block is read on by some.
    blocks(archive, &content, if dice.is(6) { b'/' } else { 0 });
}

fn member(dice: &mut Dice, archive: &mut Vec<u8>, made: &mut Vec<Vec<u8>>) {
    let kind = *dice.one(KINDS);
    let content: &[u8] =
        if matches!(kind, b'0' | 0 | b'7') || dice.is(20) { dice.bytes(&[&b""[..], b"abc", b"image/x"]) } else { b"" };
    let path = dice.bytes(&PATHS).to_vec();
    let link = if kind == b'1' && !made.is_empty() { dice.one(made).clone() } else { b"target".to_vec() };
    for _ in 0..[0, 0, 0, 0, 0, 0, 1, 2][dice.below(8)] {
        before(dice, archive);
    }
    let mut header = header(&path, kind, &link, content.len());
    let mut sum_is_right = true;
    for _ in 0..[0, 0, 0, 0, 0, 1, 1, 2][dice.below(8)] {
        match dice.below(9) {
            0..=2 => {
                let (at, width) = *dice.one(&FIELDS);
                let number = dice.bytes(&NUMBERS);
                put(&mut header, at, width, number);
                sum_is_right &= at != 148;
            }
            3 => put(&mut header, 257, 8, dice.bytes(&[&b"ustar  \0"[..], b"ustar\0  ", b"\0", b"ustar\x0001"])),
            4 => put(&mut header, 345, 155, dice.bytes(&[&b"image"[..], b"image/", b"image/long", b"\0image", b"x"])),
            5 => put(&mut header, 0, 100, dice.bytes(&[&b""[..], b"a/", b"/", b"image/a\0hidden"])),
            6 => put(&mut header, 265, 32, dice.bytes(&[&b"root"[..], b"\xff\xfe", b"a\0b"])),
            7 => put(&mut header, 345, 24, b"00000000000\x0000000000000\0"),
            _ => sum_is_right = false,
        }
    }
    archive.extend_from_slice(&if sum_is_right { with_sum(header) } else { header });
    blocks(archive, content, if dice.is(12) { 7 } else { 0 });
    made.push(path);
}

fn archive(dice: &mut Dice) -> Vec<u8> {
    let (mut archive, mut made) = (Vec::new(), Vec::new());
    for _ in 0..1 + dice.below(3) {
        member(dice, &mut archive, &mut made);
        if dice.is(40) {
            archive.extend_from_slice(&[*dice.one(&[0, 7]); 512]);
        }
    }
    if dice.is(20) {
        before(dice, &mut archive);
    }
    let end = *dice.one(&[1024, 1024, 1024, 512, 0]);
    archive.resize(archive.len() + end, 0);
    if dice.is(30) {
        archive.truncate(archive.len().saturating_sub(1 + dice.below(600)));
    }
    archive
}

/// A package with this image that is right in all else.
fn package(image: &[u8]) -> Vec<u8> {
    let mut metadata = Vec::new();
    for (key, value) in [("CATEGORY", "app-misc\n"), ("PF", "a-1\n"), ("SLOT", "0\n")] {
        metadata.extend_from_slice(&with_sum(header(format!("metadata/{key}").as_bytes(), b'0', b"", value.len())));
        blocks(&mut metadata, value.as_bytes(), 0);
    }
    metadata.resize(metadata.len() + 1024, 0);
    let (mut container, mut lines) = (Vec::new(), String::new());
    for (name, bytes) in [("gpkg-1", &b""[..]), ("metadata.tar", &metadata), ("image.tar", image)] {
        container.extend_from_slice(&with_sum(header(format!("a-1-1/{name}").as_bytes(), b'0', b"", bytes.len())));
        blocks(&mut container, bytes, 0);
        let (sha512, blake2b) = (Sha512::of(bytes), Digest::of(bytes));
        writeln!(lines, "DATA {name} {} SHA512 {sha512} BLAKE2B {blake2b}", bytes.len()).expect("a string grows");
    }
    container.extend_from_slice(&with_sum(header(b"a-1-1/Manifest", b'0', b"", lines.len())));
    blocks(&mut container, lines.as_bytes(), 0);
    container.resize(container.len() + 1024, 0);
    container
}

fn ours(package: &[u8]) -> Result<Digest, String> {
    let gpkg = Gpkg::read(Cursor::new(package)).expect("the package around it is right");
    let image = Image::read(Cursor::new(package), &gpkg);
    image.map(|image| image.digest()).map_err(|error| format!("{error}: {:?}", std::error::Error::source(&error)))
}

/// Portage's answer about each file; nothing where there is no Portage.
#[expect(clippy::disallowed_methods, reason = "tests may read the environment and start processes")]
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn theirs(paths: &[PathBuf]) -> Option<Vec<String>> {
    let Some(python) = std::env::var_os("PEERAGE_PYTHON").filter(|value| !value.is_empty()) else {
        assert!(std::env::var_os("CI").is_none(), "PEERAGE_PYTHON names no Python that has Portage, and this is CI");
        println!("skipped: PEERAGE_PYTHON does not name a Python that has Portage");
        return None;
    };
    let mut child = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/binpkg_answers.py"))
        .arg("archives")
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the Python of PEERAGE_PYTHON starts");
    let mut input = child.stdin.take().expect("standard input is a pipe");
    let text: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    // It reads all before it answers.
    input.write_all(text.as_bytes()).expect("Python reads");
    drop(input);
    let output = child.wait_with_output().expect("Python ends");
    let answers = String::from_utf8(output.stdout).expect("answers in UTF-8");
    let answers: Vec<String> = answers.lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), paths.len(), "Portage answers every question");
    Some(answers)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test makes its files")]
fn whatever_is_taken_as_an_image_is_what_portage_unpacks() {
    let dir = tempfile::tempdir().expect("a test can write");
    let mut dice = Dice(0x5EED_5EED_5EED_5EED);
    let packages: Vec<Vec<u8>> = (0..ARCHIVES).map(|_| package(&archive(&mut dice))).collect();
    let path = |number: usize| dir.path().join(format!("{number}.gpkg.tar"));
    for (number, package) in packages.iter().enumerate() {
        std::fs::write(path(number), package).expect("a test can write");
    }
    let Some(answers) = theirs(&(0..ARCHIVES).map(path).collect::<Vec<_>>()) else { return };
    let (mut taken, mut unpacked, mut only_theirs, mut wrong) = (0, 0, 0, Vec::new());
    for (number, (package, answer)) in packages.iter().zip(&answers).enumerate() {
        let (digest, said) = answer.split_once('\t').expect("two fields");
        match ours(package) {
            Ok(ours) => {
                taken += 1;
                unpacked += usize::from(said == "same");
                if ours.to_string() != digest || !(said == "same" || said.starts_with("refused: ")) {
                    wrong.push(format!("{number}: ours {}, tarfile {digest}, Portage {said}", ours.short()));
                }
            }
            Err(_) if said == "same" => only_theirs += 1,
            Err(_) => {}
        }
    }
    println!(
        "{taken} of {ARCHIVES} are taken, {unpacked} of them unpacked; {only_theirs} are unpacked by Portage alone"
    );
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    assert!(taken > ARCHIVES / 10 && unpacked > ARCHIVES / 20, "what is compared is not all broken");
}
