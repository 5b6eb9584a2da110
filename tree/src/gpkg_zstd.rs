//! Zstandard's frames (RFC 8878) as a stream of at most so many bytes.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "numbers of others"))]

use std::io::{self, BufRead as _, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What a frame may ask for as its window, which is held in memory: that of `zstd --ultra -22`.
const WINDOW_BYTES_MAX: u64 = 128 << 20;

/// The content of one frame after the other. More than the limit, like everything that is wrong with a frame, is an error.
pub(crate) struct ZstdReader<R> {
    source: BufReader<R>,
    decoder: FrameDecoder,
    left: u64,
}

impl<R: Read> ZstdReader<R> {
    pub(crate) fn new(source: R, bytes_max: u64) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_BYTES_MAX.min(bytes_max));
        Self { source: BufReader::new(source), decoder, left: bytes_max }
    }

    /// Begins the next frame; false when there is none.
    fn begin_frame(&mut self) -> io::Result<bool> {
        if self.decoder.get_checksum_from_data() != self.decoder.get_calculated_checksum()
            && self.decoder.get_checksum_from_data().is_some()
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of a Zstandard frame is wrong"));
        }
        if self.source.fill_buf()?.is_empty() {
            return Ok(false);
        }
        match self.decoder.init(&mut self.source) {
            Ok(()) => {}
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = u64::from(length);
                if io::copy(&mut (&mut self.source).take(length), &mut io::sink())? < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        Ok(true)
    }
}

impl<R: Read> Read for ZstdReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        while self.decoder.can_collect() == 0 {
            if !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            } else if !self.begin_frame()? {
                return Ok(0);
            }
        }
        let read = self.decoder.read(bytes)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the content of a Zstandard frame is larger than is believed in")
        })?;
        Ok(read)
    }
}
