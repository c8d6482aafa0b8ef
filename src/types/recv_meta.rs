//! [`RecvMeta`]: what a receive found out about its message.

/// What is known of one message when it is received. All of it is decided then, under the lock of the receive queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecvMeta {
    /// Length of the message as it was sent, which may be more than the buffers held.
    pub(crate) message_len: usize,
    /// Control data was discarded.
    pub(crate) control_truncated: bool,
    /// Whether it is the end of the stream and no message. `None` if that is unknown.
    pub(crate) end_of_stream: Option<bool>,
}

impl RecvMeta {
    /// Returns the report of a call that has no use for the control data, or for the rest of it.
    pub(crate) fn without(mut self, control_is_empty: bool) -> Self {
        self.control_truncated |= !control_is_empty;
        self
    }
}
