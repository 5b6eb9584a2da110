//! Contents: bytes that do not compress, differ by seed and offset, and are the same in every run.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// The step in which large files are made and compared.
pub(crate) const BLOCK: usize = 1024 * 1024;

/// `length` bytes that depend on `seed`.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A large file cheaply: one block of noise again and again, with its number stamped into each.
pub(crate) struct Large {
    block: Vec<u8>,
    blocks: u64,
}

impl Large {
    pub(crate) fn new(seed: u64, blocks: u64) -> Self {
        Self { block: noise(seed, BLOCK), blocks }
    }

    pub(crate) fn len(&self) -> u64 {
        self.blocks * BLOCK as u64
    }

    pub(crate) fn write(&self, path: &Path) {
        let mut file = File::create(path).expect("a test's directory can be written");
        let mut block = self.block.clone();
        for number in 0..self.blocks {
            block[..8].copy_from_slice(&number.to_le_bytes());
            file.write_all(&block).expect("there is room for a test's file");
        }
    }

    /// A reader's place in the file.
    pub(crate) fn check(&self) -> Check<'_> {
        Check { large: self, offset: 0 }
    }
}

/// Compares what arrives, piece by piece, with what should: no second copy of the file is held.
pub(crate) struct Check<'a> {
    large: &'a Large,
    offset: u64,
}

impl Check<'_> {
    /// The bytes so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Panics at the first piece that is not what the file has there.
    pub(crate) fn take(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            assert!(self.offset < self.large.len(), "more bytes than the file has");
            let number = self.offset / BLOCK as u64;
            let within = usize::try_from(self.offset % BLOCK as u64).expect("a block fits in memory");
            let length = piece.len().min(if within < 8 { 8 - within } else { BLOCK - within });
            let stamp = number.to_le_bytes();
            let expected =
                if within < 8 { &stamp[within..within + length] } else { &self.large.block[within..within + length] };
            assert!(piece[..length] == *expected, "wrong bytes at or after offset {}", self.offset);
            self.offset += length as u64;
            piece = &piece[length..];
        }
    }
}
