//! How a file is parted: chunks of one size, the last one shorter.

use std::ops::Range;

/// The chunks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    size: u64,
    chunk: u64,
}

impl Chunks {
    /// Of a file of `size` bytes, in pieces of `chunk` bytes.
    pub fn new(size: u64, chunk: u64) -> Self {
        Self { size, chunk: chunk.max(1) }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        usize::try_from(self.size.div_ceil(self.chunk)).unwrap_or(usize::MAX)
    }

    /// The bytes of the file that chunk `index` holds.
    pub fn range(self, index: usize) -> Range<u64> {
        let start = (index as u64).saturating_mul(self.chunk).min(self.size);
        start..start.saturating_add(self.chunk).min(self.size)
    }

    /// The bytes of a chunk.
    pub fn length(self, index: usize) -> u64 {
        let range = self.range(index);
        range.end - range.start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_cover_every_byte_once_and_in_order(size in 0_u64..1 << 40, chunk in 1_u64..1 << 30) {
            prop_assume!(size / chunk < 10_000);
            let chunks = Chunks::new(size, chunk);
            let mut end = 0;
            for index in 0..chunks.count() {
                let range = chunks.range(index);
                prop_assert_eq!(range.start, end);
                prop_assert!(range.end > range.start && chunks.length(index) <= chunk);
                end = range.end;
            }
            prop_assert_eq!(end, size);
            prop_assert_eq!(chunks.length(chunks.count()), 0, "beyond the end there is nothing");
        }
    }
}
