//! Control data that waits, with its message, for a receive call.
#![allow(unsafe_code, reason = "received bytes become a reader that owns the descriptors in them")]

use std::mem::ManuallyDrop;

use super::buffer::AncillaryBuffer;
use super::reader::AncillaryMessageReader;
use super::wire::{self, MAX_CONTROL};

/// Holds the control data of a message that no call has read yet, and owns the descriptors in it.
#[derive(Debug, Default)]
pub(crate) struct ReceivedControl {
    bytes: Vec<u8>,
    truncated: bool,
}

impl ReceivedControl {
    /// Copies control data out of the memory that the kernel wrote it to.
    ///
    /// # Safety
    /// `control` is what the kernel wrote for one message, as [`AncillaryMessageReader::new`]
    /// requires. Nothing reads `control` afterwards.
    pub(crate) unsafe fn new(control: &[u8], truncated: bool) -> Self {
        Self { bytes: control.to_vec(), truncated }
    }

    /// Encodes values that were received.
    pub(crate) fn of(mut values: AncillaryBuffer, truncated: bool) -> Self {
        let mut control = [0; MAX_CONTROL];
        let len = values.encode_owned(&mut control);
        // SAFETY: `encode_owned` has just written these bytes, and has given up the descriptors in
        // them with `into_raw_fd`. No other value owns them.
        unsafe { Self::new(&control[..len], truncated) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns what [`AncillaryMessageReader::is_truncated`] returns for this data.
    pub(crate) fn is_truncated(&self) -> bool {
        self.truncated || wire::lacks_fds(&self.bytes)
    }

    /// Returns whether control data came, also if all of it was discarded.
    pub(crate) fn has_come(&self) -> bool {
        !self.is_empty() || self.truncated
    }

    /// Removes the time of arrival, which the kernel puts first.
    pub(crate) fn hide_time(&mut self) {
        if let Some(end) = wire::time_at_start(&self.bytes) {
            self.bytes.drain(..end);
        }
    }

    /// Closes all descriptors but the first `most`: see [`AncillaryMessageReader::limit_fds`].
    pub(crate) fn limit_fds(&mut self, most: usize) {
        // SAFETY: the bytes are those that `new` was called with, which the kernel wrote for one
        // message and nothing else reads. The reader is not dropped, so they stay owned here.
        let mut reader = ManuallyDrop::new(unsafe {
            AncillaryMessageReader::new(&mut self.bytes, self.truncated)
        });
        reader.limit_fds(most);
    }

    /// Returns how many file descriptors were passed.
    pub(crate) fn count_fds(&self) -> usize {
        wire::count_fds(&self.bytes)
    }

    /// Moves the data into a buffer, truncated as the kernel does it where that is shorter.
    pub(crate) fn move_into(mut self, buffer: &mut [u8]) -> AncillaryMessageReader<'_> {
        let (mut bytes, truncated) = (std::mem::take(&mut self.bytes), self.truncated);
        // SAFETY: the bytes are those that `new` was called with, which the kernel wrote for one
        // message and nothing else reads. They have just been taken out of `self`, so one reader owns
        // the descriptors in them.
        unsafe { AncillaryMessageReader::new(&mut bytes, truncated) }.move_into(buffer)
    }

    /// Moves the data into owned values.
    pub(crate) fn fill(mut self, ancillary: &mut AncillaryBuffer) {
        let mut bytes = std::mem::take(&mut self.bytes);
        // SAFETY: the bytes are those that `new` was called with, which the kernel wrote for one
        // message and nothing else reads. They have just been taken out of `self`, so one reader owns
        // the descriptors in them.
        ancillary.fill(unsafe { AncillaryMessageReader::new(&mut bytes, self.truncated) });
    }
}

impl Drop for ReceivedControl {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        // SAFETY: the bytes are those that `new` was called with, which the kernel wrote for one
        // message and nothing else reads. They are still here, so no call has made a reader of them.
        drop(unsafe { AncillaryMessageReader::new(&mut bytes, self.truncated) });
    }
}
