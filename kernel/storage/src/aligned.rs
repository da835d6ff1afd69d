//! Memory that starts at a block, as `O_DIRECT` demands.

use folkmoot_core::log::BLOCK_BYTES;

/// Bytes that are kept between writes: a transaction at its limit and the rest of a drain.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A buffer that is used again and again; its content starts at a block's alignment.
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
}

impl AlignedBuffer {
    /// The first `bytes` bytes of the buffer.
    pub(crate) fn bytes_mut(&mut self, bytes: usize) -> &mut [u8] {
        if self.memory.len() < bytes + BLOCK_BYTES {
            self.memory = vec![0; bytes + BLOCK_BYTES];
        }
        let start = self.memory.as_ptr().align_offset(BLOCK_BYTES);
        let Some(aligned) = self.memory.get_mut(start..start + bytes) else {
            panic!("{bytes} bytes from {start} are not in the buffer");
        };
        aligned
    }

    /// Gives memory back after an unusually large write, as recovery's copy of a segment is.
    pub(crate) fn shrink(&mut self) {
        if self.memory.len() > KEPT_BYTES_MAX {
            self.memory = Vec::new();
        }
    }

    /// A copy of `data` that starts at a block's alignment.
    pub(crate) fn copy_of(&mut self, data: &[u8]) -> &[u8] {
        let aligned = self.bytes_mut(data.len());
        aligned.copy_from_slice(data);
        aligned
    }
}
