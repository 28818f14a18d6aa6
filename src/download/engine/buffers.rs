//! A fixed number of aligned buffers, used again and again: together they are the memory of a download,
//! whatever the model's size.
//!
//! Aligned, because direct writes demand it. Whoever wants to fetch takes a buffer first and a place in a
//! file second: the lowest piece that a file still lacks always has its buffer then, so that pieces that
//! wait for it can never keep it from coming.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What direct writes want of address, length and offset; the largest block size of usual disks.
pub const ALIGNMENT: usize = 4096;

/// The buffers.
#[derive(Debug)]
pub struct Pool {
    size: usize,
    permits: Arc<Semaphore>,
    free: Mutex<Vec<Memory>>,
}

/// A buffer that is being filled, or waits to be hashed and written; its memory goes back when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    filled: usize,
    /// Where the memory goes back to, and the right to it; a buffer of its own has neither.
    home: Option<(Arc<Pool>, OwnedSemaphorePermit)>,
}

/// Memory of which the part from `start` on is aligned.
#[derive(Debug, Default)]
struct Memory {
    bytes: Vec<u8>,
    start: usize,
}

impl Memory {
    fn new(size: usize) -> Self {
        let mut bytes = vec![0; size + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes.truncate(start + size);
        Self { bytes, start }
    }
}

impl Pool {
    /// `count` buffers of `size` bytes, each allocated when it is first wanted.
    pub fn new(count: usize, size: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(count.max(1)));
        Arc::new(Self { size: size.next_multiple_of(ALIGNMENT), permits, free: Mutex::default() })
    }

    /// An empty buffer, as soon as there is one.
    pub async fn take(self: &Arc<Self>) -> Buffer {
        let permits = Arc::clone(&self.permits).acquire_owned();
        let permit = permits.await.expect("nobody closes the semaphore");
        let memory = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = memory.unwrap_or_else(|| Memory::new(self.size));
        Buffer { memory, filled: 0, home: Some((Arc::clone(self), permit)) }
    }
}

impl Buffer {
    /// A buffer outside any pool, for something small.
    pub fn of_its_own(size: usize) -> Self {
        Self { memory: Memory::new(size.next_multiple_of(ALIGNMENT)), filled: 0, home: None }
    }

    /// Appends as many of `bytes` as there is room for, up to `limit` bytes in all; gives their number.
    pub fn append(&mut self, bytes: &[u8], limit: usize) -> usize {
        let start = self.memory.start + self.filled;
        let room = limit.min(self.memory.bytes.len() - self.memory.start).saturating_sub(self.filled);
        let taken = bytes.len().min(room);
        self.memory.bytes[start..start + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        taken
    }

    /// The bytes in it.
    pub fn filled(&self) -> &[u8] {
        &self.memory.bytes[self.memory.start..self.memory.start + self.filled]
    }

    /// Replaces what is in it by the `length` first bytes of the whole blocks that `read` fills.
    pub fn fill(&mut self, length: usize, read: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<()> {
        self.fill_some(length, |memory| read(memory).map(|()| length)).map(drop)
    }

    /// Replaces what is in it by what `read` puts into whole blocks for `length` bytes; gives how many that are.
    pub fn fill_some(
        &mut self,
        length: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let end = self.memory.start + length.next_multiple_of(ALIGNMENT);
        self.filled = 0;
        self.filled = read(&mut self.memory.bytes[self.memory.start..end])?.min(length);
        Ok(self.filled)
    }

    /// Puts zeros behind the bytes, up to a whole number of blocks.
    pub fn pad(&mut self) {
        let end = self.memory.start + self.filled;
        let padded = self.memory.start + self.filled.next_multiple_of(ALIGNMENT);
        self.memory.bytes[end..padded].fill(0);
    }

    /// The bytes and the zeros of [`Self::pad`].
    pub fn padded(&self) -> &[u8] {
        &self.memory.bytes[self.memory.start..self.memory.start + self.filled.next_multiple_of(ALIGNMENT)]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some((pool, _permit)) = &self.home {
            let memory = std::mem::take(&mut self.memory);
            pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_are_never_more_buffers_than_the_pool_has() {
        let pool = Pool::new(2, 5000);
        let first = pool.take().await;
        let _second = pool.take().await;
        let mut third = std::pin::pin!(pool.take());
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        let third = third.await;
        assert_eq!(third.filled(), b"");
        assert!(pool.free.lock().unwrap().is_empty(), "the memory of the first is used again");
    }

    #[tokio::test]
    async fn a_buffer_is_aligned_and_padded_with_zeros() {
        let pool = Pool::new(1, ALIGNMENT * 2);
        let mut used = pool.take().await;
        assert_eq!(used.append(&[7; ALIGNMENT * 3], usize::MAX), ALIGNMENT * 2, "no more than it holds");
        drop(used);
        let mut buffer = pool.take().await;
        assert_eq!(buffer.append(b"hello", 3), 3);
        assert_eq!(buffer.append(b"lo!", 5), 2);
        buffer.pad();
        assert_eq!(buffer.filled(), b"hello");
        assert_eq!(buffer.padded().len(), ALIGNMENT);
        assert!(buffer.padded()[5..].iter().all(|byte| *byte == 0), "what was there before is covered");
        assert_eq!(buffer.padded().as_ptr().align_offset(ALIGNMENT), 0);
    }
}
