//! [`Message`]: what a stream of messages yields.

use std::fmt;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use crate::ancillary::{AncillaryBuffer, ReceivedControl};
use crate::buf::pool::PooledBuf;
use crate::common::completed::Completed;
use crate::types::message_info::MessageInfo;
use crate::types::recv_meta::RecvMeta;
use crate::types::ucred::UCred;

/// Holds a received message, in a buffer of its stream. It dereferences to the message's bytes.
///
/// Dropping it returns the buffer to the stream. The message owns what came with it: file descriptors
/// that are not taken are closed with it. It may outlive the stream, and be dropped on any thread.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::MessagesOptions;
/// use tokio_seqpacket::ancillary::AncillaryBuffer;
///
/// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// b.set_pass_credentials(true)?;
/// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
/// a.send_owned_with_ancillary("a file", file).await.0?;
///
/// let mut messages = b.messages(MessagesOptions::new())?;
/// let mut message = messages.next().await.expect("not the end")?;
/// assert_eq!(&message[..], b"a file");
/// assert!(!message.info().truncated());
/// assert_eq!(message.credentials().and_then(|sender| sender.pid()), Some(std::process::id() as i32));
/// assert_eq!(message.ancillary().fds().len(), 1);
/// assert_eq!(message.take_fds().len(), 1);
/// # Ok(()) }
/// ```
pub struct Message {
    buffer: PooledBuf,
    info: MessageInfo,
    ancillary: AncillaryBuffer,
}

impl Message {
    pub(crate) fn new(buffer: PooledBuf, meta: RecvMeta, ancillary: AncillaryBuffer) -> Self {
        let info = MessageInfo::new(&meta, buffer.bytes.len());
        Self { buffer, info, ancillary }
    }

    /// Returns the length of the message, and whether it or its ancillary data was truncated.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"message").await?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let info = messages.next().await.unwrap()?.info();
    /// assert_eq!(info.bytes_read(), 7);
    /// assert!(!info.truncated() && !info.ancillary_truncated());
    /// # Ok(()) }
    /// ```
    pub fn info(&self) -> MessageInfo {
        self.info
    }

    /// Returns what came with the message: file descriptors, credentials.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// a.send(b"message").await?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let message = messages.next().await.unwrap()?;
    /// let ancillary = message.ancillary();
    /// assert!(ancillary.credentials().is_some() && ancillary.fds().is_empty());
    /// # Ok(()) }
    /// ```
    pub fn ancillary(&self) -> &AncillaryBuffer {
        &self.ancillary
    }

    /// Returns the credentials of the sender, if `SO_PASSCRED` is set on the receiving socket.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let own = tokio_seqpacket::UCred::from_current_process();
    /// b.set_pass_credentials(true)?;
    /// a.send(b"message").await?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// assert_eq!(messages.next().await.unwrap()?.credentials(), Some(own));
    /// # Ok(()) }
    /// ```
    pub fn credentials(&self) -> Option<UCred> {
        self.ancillary.credentials()
    }

    /// Takes the file descriptors that came with the message.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// # use tokio_seqpacket::MessagesOptions;
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = AncillaryBuffer::from_iter([File::open("/proc/self/comm")?.into()]);
    /// # a.send_owned_with_ancillary("a file", file).await.0?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let mut message = messages.next().await.unwrap()?;
    /// let file = message.take_fds().pop().map(File::from).expect("it came with one");
    /// assert!(file.metadata()?.is_file());
    /// assert!(message.take_fds().is_empty());
    /// # Ok(()) }
    /// ```
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        self.ancillary.take_fds()
    }

    /// Turns the message into one that the next receive of the socket claims.
    pub(crate) fn leave(self) -> Box<Completed> {
        let meta = RecvMeta {
            message_len: self.info.message_len(),
            control_truncated: self.info.ancillary_truncated(),
            end_of_stream: Some(false),
        };
        let control = ReceivedControl::of(self.ancillary, meta.control_truncated);
        let mut left = Completed::of(None, &self.buffer.bytes, meta, control);
        left.counted = true;
        left
    }

    /// Takes everything that came with the message.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::MessagesOptions;
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let (c, d) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// # a.send_owned_with_ancillary("a file", file).await.0?;
    /// let mut messages = b.messages(MessagesOptions::new())?;
    /// let mut message = messages.next().await.unwrap()?;
    /// // Passed on to another task.
    /// let ancillary = message.take_ancillary();
    /// c.send_owned_with_ancillary(message.to_vec(), ancillary).await.0?;
    /// assert!(message.ancillary().is_empty());
    /// # drop(d);
    /// # Ok(()) }
    /// ```
    pub fn take_ancillary(&mut self) -> AncillaryBuffer {
        std::mem::take(&mut self.ancillary)
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer.bytes
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.buffer.bytes
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("len", &self.buffer.bytes.len())
            .field("info", &self.info)
            .field("ancillary", &self.ancillary)
            .finish()
    }
}
