//! An answer that came packed though nobody asked for that: gateways before a hub do so.

use std::io::Write;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;

/// So much is unpacked at once, so that no answer takes more memory than some thousand times that.
const STEP: usize = 4 << 10;

/// Unpacks the bytes of an answer as they come.
pub struct Unzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    packed: Bytes,
}

impl Unzip {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), packed: Bytes::new() }
    }

    /// Takes packed bytes; what came before has to be unpacked.
    pub fn take(&mut self, packed: Bytes) {
        self.packed = packed;
    }

    /// Some unpacked bytes; `None` when more packed ones are needed.
    pub fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        while !self.packed.is_empty() {
            let step = self.packed.split_to(self.packed.len().min(STEP));
            self.decoder.write_all(&step)?;
            self.decoder.flush()?;
            let unpacked = std::mem::take(self.decoder.get_mut());
            if !unpacked.is_empty() {
                return Ok(Some(unpacked.into()));
            }
        }
        Ok(None)
    }

    /// The end of the packed bytes: what is left, or the error that they end too early.
    pub fn end(&mut self) -> std::io::Result<Option<Bytes>> {
        self.decoder.try_finish()?;
        let unpacked = std::mem::take(self.decoder.get_mut());
        Ok(Some(unpacked.into()).filter(|unpacked: &Bytes| !unpacked.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(packed: &[u8], parts: usize) -> std::io::Result<Vec<u8>> {
        let (mut unzip, mut found) = (Unzip::new(), Vec::new());
        for part in packed.chunks(parts) {
            unzip.take(Bytes::copy_from_slice(part));
            while let Some(bytes) = unzip.next()? {
                found.extend_from_slice(&bytes);
            }
        }
        while let Some(bytes) = unzip.end()? {
            found.extend_from_slice(&bytes);
        }
        Ok(found)
    }

    #[test]
    fn packed_bytes_are_unpacked_however_they_come_and_a_part_of_them_is_an_error() {
        let bytes: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let whole = packed(&bytes);
        for parts in [1, 1000, whole.len()] {
            assert!(unpacked(&whole, parts).unwrap() == bytes, "{parts}");
        }
        assert!(unpacked(&whole[..whole.len() / 2], 1000).is_err());
        assert!(unpacked(b"no gzip at all", 1000).is_err());
    }

    #[test]
    fn what_grows_without_bounds_is_given_in_steps() {
        let mut unzip = Unzip::new();
        unzip.take(packed(&vec![0; 64 << 20]).into());
        let first = unzip.next().unwrap().unwrap();
        assert!(first.len() <= 1200 * STEP, "{}", first.len());
    }
}
