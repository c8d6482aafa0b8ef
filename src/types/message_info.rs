//! [`MessageInfo`]: what is known about a received message beside its bytes.

use crate::types::recv_meta::RecvMeta;

/// What a receive call says about the message.
///
/// Truncation is reported here: bytes that do not fit into the buffer, and ancillary data that does not fit, are gone.
/// Ancillary data that was discarded is reported by calls that have capacity for some; a call without, like
/// [`recv_owned`](crate::UnixSeqpacket::recv_owned), need not notice it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::ancillary::AncillaryBuffer;
///
/// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
/// a.send_owned_with_ancillary("a message with a file", file).await.0?;
///
/// // Without room for either.
/// let (mut buffer, mut control) = ([0; 9], [0; 4]);
/// let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
/// let (info, _) = b.recv_message(&mut parts, &mut control).await?;
/// assert_eq!((info.bytes_read(), info.message_len()), (9, 21));
/// assert!(info.truncated() && info.ancillary_truncated());
/// assert_eq!(info.end_of_stream(), Some(false));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a message can have been cut"]
pub struct MessageInfo {
    message_len: usize,
    bytes_read: usize,
    ancillary_truncated: bool,
    /// `None`: cannot be told.
    end_of_stream: Option<bool>,
}

impl MessageInfo {
    pub(crate) fn new(received: &RecvMeta, capacity: usize) -> Self {
        Self {
            message_len: received.message_len,
            bytes_read: received.message_len.min(capacity),
            ancillary_truncated: received.control_truncated,
            end_of_stream: received.end_of_stream,
        }
    }

    /// Bytes that were written into the buffer. 0 stands for an empty message and for end of
    /// stream; [`end_of_stream()`](Self::end_of_stream) tells them apart.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// // A vector that is longer keeps its length.
    /// let (received, buffer) = b.recv_owned(vec![0; 64]).await;
    /// assert_eq!(&buffer[..received?.bytes_read()], b"message");
    /// # Ok(()) }
    /// ```
    pub fn bytes_read(&self) -> usize {
        self.bytes_read
    }

    /// Bytes of the message as it was sent, which is more than
    /// [`bytes_read()`](Self::bytes_read) if it was cut.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"twelve bytes").await?;
    /// let (received, _) = b.recv_owned(Vec::with_capacity(8)).await;
    /// // So much room the next time.
    /// assert_eq!(received?.message_len(), 12);
    /// # Ok(()) }
    /// ```
    pub fn message_len(&self) -> usize {
        self.message_len
    }

    /// Whether the message was longer than the buffer (`MSG_TRUNC`). The rest of it is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// for (message, cut) in [(&b"fits"[..], false), (b"does not", true)] {
    ///     a.send(message).await?;
    ///     let (received, _) = b.recv_owned(Vec::with_capacity(4)).await;
    ///     assert_eq!(received?.truncated(), cut);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn truncated(&self) -> bool {
        self.message_len > self.bytes_read
    }

    /// Whether ancillary data was discarded (`MSG_CTRUNC`): there was no capacity for it, or the
    /// process can have no more file descriptors. Descriptors that were discarded are closed.
    ///
    /// A plain receive into an owned buffer has no capacity for ancillary data and does not ask: it may say false where a
    /// peer had passed some. Use a call with capacity for it to know. That one says false, too, of a message whose ancillary
    /// data was discarded by a plain receive that was dropped: see [`Options::keep_ancillary`](crate::Options::keep_ancillary).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// a.send_owned_with_ancillary("a file", file).await.0?;
    /// // Capacity for a header, and for no descriptor.
    /// let (mut buffer, mut control) = ([0; 64], [0; 16]);
    /// let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
    /// let (info, _) = b.recv_message(&mut parts, &mut control).await?;
    /// assert!(info.ancillary_truncated() && !info.truncated());
    /// # Ok(()) }
    /// ```
    pub fn ancillary_truncated(&self) -> bool {
        self.ancillary_truncated
    }

    /// Whether this was no message but the end of the stream: the peer has closed or shut down
    /// writing, or this side reading. An empty message is `Some(false)`.
    ///
    /// `None` if that cannot be told: nothing was received, and the peer has closed since, so that it
    /// was either the end or an empty message. Nothing but empty messages and the end comes after it, except for what another
    /// receive of the socket has taken at the same time. Set
    /// [`set_pass_credentials`](crate::UnixSeqpacket::set_pass_credentials) before the first receive
    /// to have it told in every case: each message carries credentials then, an empty one too, and
    /// end of stream does not.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// a.send(b"").await?;
    /// drop(a);
    /// let (received, buffer) = b.recv_owned(Vec::with_capacity(8)).await;
    /// assert_eq!(received?.end_of_stream(), Some(false));
    /// let (received, _) = b.recv_owned(buffer).await;
    /// assert_eq!(received?.end_of_stream(), Some(true));
    /// # Ok(()) }
    /// ```
    pub fn end_of_stream(&self) -> Option<bool> {
        self.end_of_stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_message_tells_both_lengths() {
        let received =
            RecvMeta { message_len: 10, control_truncated: false, end_of_stream: Some(false) };
        let info = MessageInfo::new(&received, 4);
        assert_eq!((info.bytes_read(), info.message_len()), (4, 10));
        assert!(info.truncated());
        assert!(!MessageInfo::new(&received, 10).truncated());
    }
}
