//! [`MessageInfo`]: what is known about a received message beside its bytes.

use crate::sys::Received;

/// What a receive call says about the message.
///
/// Cutting is reported here and nowhere else: bytes that do not fit into the buffer, and ancillary
/// data that does not fit, are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a message can have been cut"]
pub struct MessageInfo {
    message_len: usize,
    bytes_read: usize,
    ancillary_truncated: bool,
}

impl MessageInfo {
    pub(crate) fn new(received: &Received, capacity: usize) -> Self {
        Self {
            message_len: received.message_len,
            bytes_read: received.message_len.min(capacity),
            ancillary_truncated: received.control_truncated,
        }
    }

    /// Bytes that were written into the buffer. 0 stands for an empty message and for end of
    /// stream.
    pub fn bytes_read(&self) -> usize {
        self.bytes_read
    }

    /// Bytes of the message as it was sent, which is more than
    /// [`bytes_read()`](Self::bytes_read) if it was cut.
    pub fn message_len(&self) -> usize {
        self.message_len
    }

    /// Whether the message was longer than the buffer (`MSG_TRUNC`). The rest of it is lost.
    pub fn truncated(&self) -> bool {
        self.message_len > self.bytes_read
    }

    /// Whether ancillary data was discarded (`MSG_CTRUNC`): there was no room for it, or the
    /// process had no room for more file descriptors. Descriptors that were discarded are closed.
    pub fn ancillary_truncated(&self) -> bool {
        self.ancillary_truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_message_tells_both_lengths() {
        let received = Received { message_len: 10, ..Received::default() };
        let info = MessageInfo::new(&received, 4);
        assert_eq!((info.bytes_read(), info.message_len()), (4, 10));
        assert!(info.truncated());
        assert!(!MessageInfo::new(&received, 10).truncated());
    }
}
