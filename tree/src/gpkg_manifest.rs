//! The Manifest inside a gpkg: one DATA line a member (GLEP 74, GLEP 78), in clear text or clear-text signed (RFC 9580).

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use crate::digest::{Digest, Sha512};
use crate::gpkg::ReadGpkgError;

/// What a DATA line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataLine {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) blake2b: Digest,
    pub(crate) sha512: Sha512,
}

impl DataLine {
    /// The line as Portage writes it, without the end of the line.
    pub(crate) fn text(&self) -> String {
        format!("DATA {} {} SHA512 {} BLAKE2B {}", self.name, self.size, self.sha512, self.blake2b)
    }
}

/// The DATA lines, and whether a signature stands around them. Portage takes no other line, and no name twice.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Vec<DataLine>, bool), ReadGpkgError> {
    let wrong = |line: &str| ReadGpkgError::ManifestLine { line: line.chars().take(80).collect() };
    let text = str::from_utf8(bytes).map_err(|_| wrong("(not UTF-8)"))?;
    let mut lines = text.lines().map(str::trim_end);
    let signed = text.starts_with("-----BEGIN PGP SIGNED MESSAGE-----");
    if signed {
        // The armour's headers end with an empty line.
        lines.find(|line| line.is_empty()).ok_or_else(|| wrong("(a signature without content)"))?;
    }
    let mut known: Vec<DataLine> = Vec::new();
    let mut ended = false;
    for line in lines {
        if signed && line == "-----BEGIN PGP SIGNATURE-----" {
            ended = true;
            break;
        }
        if line.is_empty() {
            continue;
        }
        let data = parse_line(line).ok_or_else(|| wrong(line))?;
        if known.iter().any(|other| other.name == data.name) {
            return Err(wrong(line));
        }
        known.push(data);
    }
    if signed && !ended {
        return Err(wrong("(a clear-text signature without its end)"));
    }
    Ok((known, signed))
}

fn parse_line(line: &str) -> Option<DataLine> {
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|word| *word == "DATA")?;
    let name = words.next()?.to_owned();
    let size = words.next().filter(|size| size.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
    let (mut blake2b, mut sha512) = (None, None);
    while let Some(kind) = words.next() {
        let value = words.next()?;
        match kind {
            "BLAKE2B" if blake2b.is_none() => blake2b = Some(value.parse().ok()?),
            "SHA512" if sha512.is_none() => sha512 = Some(value.parse().ok()?),
            "BLAKE2B" | "SHA512" => return None,
            _ => {}
        }
    }
    Some(DataLine { name, size, blake2b: blake2b?, sha512: sha512? })
}
