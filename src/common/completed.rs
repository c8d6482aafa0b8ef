//! A message that no receive has claimed yet. An attempt has received it, or a stream that has ended.

use std::io::IoSliceMut;

use crate::ancillary::ReceivedControl;
use crate::types::message_info::MessageInfo;
use crate::types::recv_meta::RecvMeta;

/// A whole message, for the next receive with any buffer, though a stream may have truncated it. Owns the descriptors
/// that came with it.
#[derive(Debug)]
pub(crate) struct Completed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) control: ReceivedControl,
    pub(crate) received: RecvMeta,
    /// A stream has received it, which was counted.
    pub(crate) counted: bool,
}

impl Completed {
    /// Creates a message in the memory of one that was claimed, if there is one.
    pub(crate) fn of(
        spare: Option<Box<Self>>,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> Box<Self> {
        let mut message = match spare {
            Some(mut spare) => {
                (spare.received, spare.control, spare.counted) = (received, control, false);
                spare
            }
            None => Box::new(Self { bytes: Vec::new(), control, received, counted: false }),
        };
        message.bytes.clear();
        message.bytes.reserve_exact(bytes.len());
        message.bytes.extend_from_slice(bytes);
        message
    }

    /// Copies the message into the buffers of a peek, and leaves it in place.
    pub(crate) fn peek(&self, buffers: &mut [IoSliceMut<'_>]) -> MessageInfo {
        let len = scatter(&self.bytes, buffers);
        MessageInfo::new(&self.received.without(self.control.is_empty()), len)
    }
}

/// Returns how many bytes fit into several buffers.
pub(crate) fn capacity(buffers: &[IoSliceMut<'_>]) -> usize {
    buffers.iter().map(|buffer| buffer.len()).sum()
}

/// Copies as much as fits into several buffers, and returns how many bytes that is.
pub(crate) fn scatter(bytes: &[u8], buffers: &mut [IoSliceMut<'_>]) -> usize {
    let mut rest = bytes;
    for buffer in buffers {
        let (now, later) = rest.split_at(rest.len().min(buffer.len()));
        buffer[..now.len()].copy_from_slice(now);
        rest = later;
    }
    bytes.len() - rest.len()
}
