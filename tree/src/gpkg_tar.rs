//! The members of a tar stream in bounded memory: ustar and GNU headers, the long names of both, and nothing that reads differently elsewhere.
//!
//! Portage reads the same bytes with Python's `tarfile`. Where the two could see different members (global headers, sparse
//! files, numbers below zero, fields that one takes for a prefix and the other for times), the archive is refused: what is
//! hashed here must be what is installed there.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::io::{self, Read};

use thiserror::Error;

use crate::gpkg_pax::Overrides;

/// Bytes of a block of tar.
const BLOCK_BYTES: u64 = 512;
/// Bytes of a long name or of a pax header: a path has at most 4096, a pax header a few short values more.
const LONG_BYTES_MAX: u64 = 64 << 10;

/// Why the members of a tar archive cannot be told.
#[derive(Debug, Error)]
pub enum ReadTarError {
    /// The bytes do not come, or the archive ends inside of a member.
    #[error("cannot read the archive at byte {offset}")]
    Read {
        /// Place in the archive, from 0.
        offset: u64,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A header is not one that ustar or GNU tar writes.
    #[error("byte {offset} begins no tar header: {fault}")]
    Header {
        /// Place in the archive, from 0.
        offset: u64,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A kind of member that no binary package has.
    #[error("byte {offset} begins a member of kind {:?}, which no binary package has", char::from(*kind))]
    Kind {
        /// Place in the archive, from 0.
        offset: u64,
        /// The type flag.
        kind: u8,
    },
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TarKind {
    File,
    HardLink,
    SymbolicLink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member: everything its headers tell.
#[derive(Debug, Clone)]
pub(crate) struct TarMember {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: TarKind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) user: Vec<u8>,
    pub(crate) group: Vec<u8>,
    pub(crate) device: (u64, u64),
    pub(crate) size: u64,
    /// Where the content begins in the archive.
    pub(crate) offset: u64,
}

/// A tar archive being read. Reading from it gives the content of the member that `advance` gave last.
pub(crate) struct TarStream<R> {
    source: R,
    offset: u64,
    content: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> TarStream<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, offset: 0, content: 0, padding: 0, ended: false }
    }

    /// The next member, after what is left of the one before; None at the end of the archive.
    pub(crate) fn advance(&mut self) -> Result<Option<TarMember>, ReadTarError> {
        let mut overrides = Overrides::default();
        loop {
            self.skip_rest()?;
            let offset = self.offset;
            let wrong = |fault| ReadTarError::Header { offset, fault };
            let Some(block) = self.read_header()? else {
                return if overrides.is_pending {
                    Err(wrong("a long name or pax header has no member behind it"))
                } else {
                    Ok(None)
                };
            };
            let header = tar::Header::from_byte_slice(&block);
            let raw = RawHeader::parse(header).map_err(wrong)?;
            let kind = match raw.flag {
                b'L' | b'K' | b'x' => {
                    let said = self.read_long(offset, raw.size)?;
                    overrides.take(raw.flag, &said).map_err(wrong)?;
                    continue;
                }
                // Before ustar a directory was a file whose name ends in a slash.
                0 if raw.names_directory => TarKind::Directory,
                0 | b'0' => TarKind::File,
                b'1' => TarKind::HardLink,
                b'2' => TarKind::SymbolicLink,
                b'3' => TarKind::CharacterDevice,
                b'4' => TarKind::BlockDevice,
                b'5' => TarKind::Directory,
                b'6' => TarKind::Fifo,
                kind => return Err(ReadTarError::Kind { offset, kind }),
            };
            return self.begin(offset, kind, raw, overrides).map(Some);
        }
    }

    fn begin(
        &mut self,
        offset: u64,
        kind: TarKind,
        raw: RawHeader,
        overrides: Overrides,
    ) -> Result<TarMember, ReadTarError> {
        let size = overrides.size.unwrap_or(raw.size);
        if kind != TarKind::File && size != 0 {
            return Err(ReadTarError::Header { offset, fault: "only a file has content" });
        }
        self.set_content(offset, size)?;
        Ok(TarMember {
            path: overrides.path.unwrap_or(raw.path),
            link: overrides.link.unwrap_or(raw.link),
            kind,
            mode: raw.mode,
            uid: overrides.uid.unwrap_or(raw.uid),
            gid: overrides.gid.unwrap_or(raw.gid),
            user: overrides.user.unwrap_or(raw.user),
            group: overrides.group.unwrap_or(raw.group),
            device: raw.device,
            size,
            offset: self.offset,
        })
    }

    fn set_content(&mut self, offset: u64, size: u64) -> Result<(), ReadTarError> {
        if size > crate::manifest::DISTFILE_BYTES_MAX {
            return Err(ReadTarError::Header { offset, fault: "the size is absurd" });
        }
        self.content = size;
        // The size is bounded above, so that neither can be out of range.
        self.padding = size.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(size).saturating_sub(size);
        Ok(())
    }

    fn read_long(&mut self, offset: u64, size: u64) -> Result<Vec<u8>, ReadTarError> {
        if size > LONG_BYTES_MAX {
            return Err(ReadTarError::Header { offset, fault: "a long name is too long" });
        }
        self.set_content(offset, size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(|source| ReadTarError::Read { offset, source })?;
        // `tarfile` reads a long name and the records of a pax header on into what fills their last block.
        if self.read_padding()?.iter().any(|byte| *byte != 0) {
            return Err(ReadTarError::Header { offset, fault: "something stands behind a long name or pax header" });
        }
        Ok(bytes)
    }

    /// A block that is not zero; None at the end.
    fn read_header(&mut self) -> Result<Option<[u8; 512]>, ReadTarError> {
        if self.ended {
            return Ok(None);
        }
        let offset = self.offset;
        let failed = |source| ReadTarError::Read { offset, source };
        let mut block = [0; 512];
        let found = read_up_to(&mut self.source, &mut block).map_err(failed)?;
        if found == 0 && offset > 0 || found == block.len() && block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        if found < block.len() {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.offset = self.offset.saturating_add(BLOCK_BYTES);
        Ok(Some(block))
    }

    fn skip_rest(&mut self) -> Result<(), ReadTarError> {
        let offset = self.offset;
        let failed = |source| ReadTarError::Read { offset, source };
        io::copy(self, &mut io::sink()).map_err(failed)?;
        self.read_padding()?;
        Ok(())
    }

    /// What fills the last block of a content.
    fn read_padding(&mut self) -> Result<Vec<u8>, ReadTarError> {
        let offset = self.offset;
        let mut padding = vec![0; usize::try_from(self.padding).unwrap_or(0)];
        self.source.read_exact(&mut padding).map_err(|source| ReadTarError::Read { offset, source })?;
        self.offset = self.offset.saturating_add(self.padding);
        self.padding = 0;
        Ok(padding)
    }
}

impl<R: Read> Read for TarStream<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.content).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.get_mut(..limit).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(0);
        }
        let read = self.source.read(bytes)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content = self.content.saturating_sub(read as u64);
        self.offset = self.offset.saturating_add(read as u64);
        Ok(read)
    }
}

fn read_up_to(source: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => done = done.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The fields of one header block.
struct RawHeader {
    flag: u8,
    path: Vec<u8>,
    /// Whether the name's own field ends in a slash.
    names_directory: bool,
    link: Vec<u8>,
    mode: u32,
    uid: u64,
    gid: u64,
    user: Vec<u8>,
    group: Vec<u8>,
    device: (u64, u64),
    size: u64,
}

impl RawHeader {
    fn parse(header: &tar::Header) -> Result<Self, &'static str> {
        let number = |field: &[u8], fault| number_field(field).ok_or(fault);
        let old = header.as_old();
        // The sum is made with its own field as spaces (POSIX, ustar).
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum.saturating_add(u64::from(*byte)));
        let expected = sum(header.as_bytes()).saturating_sub(sum(&old.cksum)).saturating_add(sum(&[b' '; 8]));
        if number(&old.cksum, "its sum is no number")? != expected {
            return Err("its sum is wrong");
        }
        let (prefix, user, group, major, minor) = if let Some(ustar) = header.as_ustar() {
            (text_field(&ustar.prefix), &ustar.uname, &ustar.gname, &ustar.dev_major, &ustar.dev_minor)
        } else if let Some(gnu) = header.as_gnu() {
            let times = [&gnu.atime[..], &gnu.ctime, &gnu.offset, &gnu.longnames];
            if times.iter().any(|field| field.iter().any(|byte| *byte != 0)) {
                return Err("it has times that read as a prefix elsewhere");
            }
            (&[][..], &gnu.uname, &gnu.gname, &gnu.dev_major, &gnu.dev_minor)
        } else {
            return Err("it is neither ustar's nor GNU tar's");
        };
        let [flag] = old.linkflag;
        // Looked at whatever the member is: what is no number ends the archive for `tarfile`, without a word.
        let device = (number(major, "a device number is none")?, number(minor, "a device number is none")?);
        let device = if matches!(flag, b'3' | b'4') { device } else { (0, 0) };
        let _time = number(&old.mtime, "its time is no number")?;
        let name = text_field(&old.name);
        let mode = number(&old.mode, "its mode is no number")?;
        Ok(Self {
            flag,
            path: if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') },
            names_directory: name.ends_with(b"/"),
            link: text_field(&old.linkname).to_vec(),
            mode: u32::try_from(mode).map_err(|_| "its mode is too large")?,
            uid: number(&old.uid, "its owner is no number")?,
            gid: number(&old.gid, "its group is no number")?,
            user: text_field(user).to_vec(),
            group: text_field(group).to_vec(),
            device,
            size: number(&old.size, "its size is no number")?,
        })
    }
}

/// The bytes before the first zero.
pub(crate) fn text_field(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// An octal number with spaces around it, nothing, or a number of base 256 that is not below zero (GNU).
fn number_field(field: &[u8]) -> Option<u64> {
    if let Some((0x80, digits)) = field.split_first() {
        return digits.iter().try_fold(0_u64, |value, digit| Some(value.checked_mul(256)? | u64::from(*digit)));
    }
    text_field(field).trim_ascii().iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => Some(value.checked_mul(8)? | u64::from(digit & 7)),
        _ => None,
    })
}
