//! [`MessageInfo`]: what is known about a received message apart from its bytes.

use crate::types::recv_meta::RecvMeta;

/// Describes a received message: its length, what was truncated, and whether it is the end of the stream.
///
/// Bytes and ancillary data that do not fit are lost. Calls that have capacity for ancillary data report what they had to
/// discard. A call without such capacity, like [`recv_owned`](crate::UnixSeqpacket::recv_owned), need not notice it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::ancillary::AncillaryBuffer;
///
/// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
/// a.send_owned_with_ancillary("a message with a file", file).await.0?;
///
/// // Without capacity for either.
/// let (mut buffer, mut control) = ([0; 9], [0; 4]);
/// let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
/// let (info, _) = b.recv_message(&mut parts, &mut control).await?;
/// assert_eq!((info.bytes_read(), info.message_len()), (9, 21));
/// assert!(info.truncated() && info.ancillary_truncated());
/// assert_eq!(info.end_of_stream(), Some(false));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a message can have been truncated"]
pub struct MessageInfo {
    message_len: usize,
    bytes_read: usize,
    ancillary_truncated: bool,
    /// `None` if it is unknown.
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

    /// Returns how many bytes were written into the buffer.
    ///
    /// 0 stands for an empty message and for the end of the stream.
    /// [`end_of_stream()`](Self::end_of_stream) distinguishes them.
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

    /// Returns the length of the message in bytes, as it was sent.
    ///
    /// It is more than [`bytes_read()`](Self::bytes_read) if the message was truncated.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"twelve bytes").await?;
    /// let (received, _) = b.recv_owned(Vec::with_capacity(8)).await;
    /// // The next buffer is long enough.
    /// assert_eq!(received?.message_len(), 12);
    /// # Ok(()) }
    /// ```
    pub fn message_len(&self) -> usize {
        self.message_len
    }

    /// Returns whether the message was longer than the buffer (`MSG_TRUNC`). The rest of it is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// for (message, truncated) in [(&b"fits"[..], false), (b"does not", true)] {
    ///     a.send(message).await?;
    ///     let (received, _) = b.recv_owned(Vec::with_capacity(4)).await;
    ///     assert_eq!(received?.truncated(), truncated);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn truncated(&self) -> bool {
        self.message_len > self.bytes_read
    }

    /// Returns whether ancillary data was discarded (`MSG_CTRUNC`).
    ///
    /// There was no capacity for it, the process could open no more file descriptors, or the message brought more of them
    /// than [`max_fds`](crate::UnixSeqpacket::max_fds) allows. Descriptors that were discarded are closed.
    ///
    /// A plain receive into an owned buffer has no capacity for ancillary data and does not ask for it. It may return false
    /// where a peer had passed some. A call with capacity for ancillary data returns the right answer, with one exception: a
    /// plain receive that was dropped may have discarded it before. See
    /// [`Options::keep_ancillary`](crate::Options::keep_ancillary).
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

    /// Returns whether this was no message but the end of the stream.
    ///
    /// At the end of the stream the peer has closed or shut down writing, or this side reading. An empty message is
    /// `Some(false)`.
    ///
    /// `None` means that it is unknown: nothing was received and the peer has closed since, so it was either the end or an
    /// empty message. Only empty messages and the end come after it, and what another receive of the socket took at the same
    /// time. Set [`set_pass_credentials`](crate::UnixSeqpacket::set_pass_credentials) before the first receive to know it in
    /// every case. Each message carries credentials then, an empty one too, and the end of the stream does not.
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
    fn a_truncated_message_has_both_lengths() {
        let received =
            RecvMeta { message_len: 10, control_truncated: false, end_of_stream: Some(false) };
        let info = MessageInfo::new(&received, 4);
        assert_eq!((info.bytes_read(), info.message_len()), (4, 10));
        assert!(info.truncated());
        assert!(!MessageInfo::new(&received, 10).truncated());
    }
}
