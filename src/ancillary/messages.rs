//! Control messages that are borrowed from the reader that owns them.
#![allow(unsafe_code, reason = "raw fds in received bytes become BorrowedFd")]

use std::io;
use std::os::fd::BorrowedFd;

use super::wire::{self, FD_LEN};
use crate::types::ucred::UCred;

/// Iterates over the control messages of an [`AncillaryMessageReader`](crate::ancillary::AncillaryMessageReader).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::ancillary::AncillaryMessages;
///
/// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// b.set_pass_credentials(true)?;
/// a.send(b"message").await?;
/// let (mut bytes, mut control) = ([0; 64], [0; 64]);
/// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
/// let messages: AncillaryMessages = reader.messages();
/// // It is Copy, so the messages can be visited twice.
/// assert_eq!((messages.count(), messages.count()), (1, 1));
/// # Ok(()) }
/// ```
#[derive(Copy, Clone)]
pub struct AncillaryMessages<'a> {
    pub(super) buffer: &'a [u8],
}

/// Describes one control message (`cmsg(3)`), borrowed from its reader.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::UnixSeqpacket;
/// use tokio_seqpacket::ancillary::AncillaryMessage;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// b.set_pass_credentials(true)?;
/// a.send(b"message").await?;
/// let (mut bytes, mut control) = ([0; 64], [0; 128]);
/// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
/// // Borrowing takes nothing out.
/// for message in reader.messages() {
///     match message {
///         AncillaryMessage::FileDescriptors(fds) => println!("{} descriptors", fds.len()),
///         AncillaryMessage::Credentials(sender) => println!("{:?}", sender.get(0)),
///         AncillaryMessage::Other(other) => println!("{} bytes", other.data().len()),
///     }
/// }
/// # Ok(()) }
/// ```
pub enum AncillaryMessage<'a> {
    /// File descriptors (`SCM_RIGHTS`).
    FileDescriptors(FileDescriptors<'a>),

    /// Credentials of the sender (`SCM_CREDENTIALS`), which come with every message while
    /// `SO_PASSCRED` is set.
    Credentials(UnixCredentials<'a>),

    /// Anything else, uninterpreted.
    Other(UnknownMessage<'a>),
}

/// Lists the file descriptors of one control message, borrowed from its reader.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// # use std::fs::File;
/// use tokio_seqpacket::ancillary::{AncillaryMessage, FileDescriptors};
/// # use tokio_seqpacket::ancillary::AncillaryBuffer;
///
/// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// # let file = AncillaryBuffer::from_iter([File::open("/proc/self/comm")?.into()]);
/// # a.send_owned_with_ancillary("a file", file).await.0?;
/// fn duplicates(fds: FileDescriptors) -> std::io::Result<Vec<File>> {
///     fds.map(|fd| Ok(File::from(fd.try_clone_to_owned()?))).collect()
/// }
/// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
/// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
/// for message in reader.messages() {
///     if let AncillaryMessage::FileDescriptors(fds) = message {
///         // They stay open after the reader has closed its own.
///         assert_eq!(duplicates(fds)?.len(), 1);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Copy, Clone)]
pub struct FileDescriptors<'a> {
    data: &'a [u8],
}

/// Lists the credentials in one control message.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::ancillary::{AncillaryMessage, UnixCredentials};
///
/// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// # b.set_pass_credentials(true)?;
/// # a.send(b"message").await?;
/// fn is_from(pid: u32, mut senders: UnixCredentials) -> bool {
///     senders.any(|sender| sender.pid() == Some(pid as i32))
/// }
/// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
/// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
/// assert!(reader.messages().any(|message| match message {
///     AncillaryMessage::Credentials(senders) => is_from(std::process::id(), senders),
///     _ => false,
/// }));
/// # Ok(()) }
/// ```
#[derive(Copy, Clone)]
pub struct UnixCredentials<'a> {
    pub(super) data: &'a [u8],
}

/// Holds a control message of a kind that this crate does not interpret.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::ancillary::{AncillaryMessage, UnknownMessage};
///
/// fn is_pidfd(message: UnknownMessage) -> bool {
///     const SCM_PIDFD: i32 = 4;
///     (message.cmsg_level(), message.cmsg_type()) == (libc::SOL_SOCKET, SCM_PIDFD)
/// }
/// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// # if b.set_pass_pidfd(true).is_err() { return Ok(()) }
/// # a.send(b"message").await?;
/// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
/// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
/// assert!(reader.messages().any(|message| match message {
///     AncillaryMessage::Other(other) => is_pidfd(other),
///     _ => false,
/// }));
/// # Ok(()) }
/// ```
#[derive(Copy, Clone)]
pub struct UnknownMessage<'a> {
    pub(super) level: i32,
    pub(super) kind: i32,
    pub(super) data: &'a [u8],
}

impl<'a> Iterator for AncillaryMessages<'a> {
    type Item = AncillaryMessage<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = wire::item_at(self.buffer, 0)?;
        let data = &self.buffer[item.data.clone()];
        self.buffer = &self.buffer[item.end..];
        Some(if item.is_rights() {
            AncillaryMessage::FileDescriptors(FileDescriptors { data })
        } else if item.is_credentials() {
            AncillaryMessage::Credentials(UnixCredentials { data })
        } else {
            AncillaryMessage::Other(UnknownMessage { level: item.level, kind: item.kind, data })
        })
    }
}

impl<'a> FileDescriptors<'a> {
    /// Returns how many descriptors there are.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use std::fs::File;
    /// # use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessage};
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let fds = [File::open("/dev/null")?.into(), File::open("/dev/zero")?.into()];
    /// # a.send_owned_with_ancillary("two files", AncillaryBuffer::from_iter(fds)).await.0?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let Some(AncillaryMessage::FileDescriptors(mut fds)) = reader.messages().next() else {
    /// #     panic!("no descriptors");
    /// # };
    /// // Those of a message with two files.
    /// assert_eq!(fds.len(), 2);
    /// fds.next();
    /// assert_eq!(fds.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        wire::fds(self.data).count()
    }

    /// Returns whether there are no descriptors.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use std::fs::File;
    /// # use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessage};
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let fds = [File::open("/dev/null")?.into(), File::open("/dev/zero")?.into()];
    /// # a.send_owned_with_ancillary("two files", AncillaryBuffer::from_iter(fds)).await.0?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let Some(AncillaryMessage::FileDescriptors(mut fds)) = reader.messages().next() else {
    /// #     panic!("no descriptors");
    /// # };
    /// // Those of a message with two files.
    /// assert!(!fds.is_empty());
    /// fds.by_ref().for_each(drop);
    /// assert!(fds.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the descriptor at `index`, or `None` beyond the end.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use std::fs::File;
    /// # use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessage};
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let fds = [File::open("/dev/null")?.into(), File::open("/proc/self/comm")?.into()];
    /// # a.send_owned_with_ancillary("two files", AncillaryBuffer::from_iter(fds)).await.0?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let Some(AncillaryMessage::FileDescriptors(fds)) = reader.messages().next() else {
    /// #     panic!("no descriptors");
    /// # };
    /// // Those of a message with /dev/null and a regular file.
    /// let file = fds.get(1).expect("two were sent").try_clone_to_owned()?;
    /// assert!(File::from(file).metadata()?.is_file());
    /// assert!(fds.get(2).is_none());
    /// # Ok(()) }
    /// ```
    pub fn get(&self, index: usize) -> Option<BorrowedFd<'a>> {
        let fd = wire::fds(self.data).nth(index)?;
        // SAFETY: the kernel installed the descriptor for this message (SCM_RIGHTS in unix(7)). The
        // reader owns it by `AncillaryMessageReader::new` and closes it when dropped, after 'a.
        Some(unsafe { BorrowedFd::borrow_raw(fd) })
    }
}

impl FileDescriptors<'_> {
    /// Returns one error for each descriptor that was sent with the message and is missing.
    ///
    /// There are errors only where the socket has `SO_RIGHTS_NOTRUNC` set (Linux 7.3). Missing
    /// descriptors are not in [`len`](Self::len), and make the reader
    /// [truncated](crate::ancillary::AncillaryMessageReader::is_truncated).
    ///
    /// ```
    /// # use tokio_seqpacket::ancillary::FileDescriptors;
    /// fn check(fds: FileDescriptors<'_>) -> std::io::Result<()> {
    ///     fds.errors().next().map_or(Ok(()), Err)
    /// }
    /// ```
    pub fn errors(&self) -> impl Iterator<Item = io::Error> {
        wire::slots(self.data).filter_map(Result::err).map(io::Error::from_raw_os_error)
    }
}

impl<'a> Iterator for FileDescriptors<'a> {
    type Item = BorrowedFd<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let fd = self.get(0)?;
        let failed = wire::slots(self.data).take_while(Result::is_err).count();
        self.data = &self.data[(failed + 1) * FD_LEN..];
        Some(fd)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for FileDescriptors<'_> {}

impl UnixCredentials<'_> {
    /// Returns how many credentials there are. The kernel sends one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryMessage;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// a.send(b"message").await?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// for message in reader.messages() {
    ///     if let AncillaryMessage::Credentials(senders) = message {
    ///         assert_eq!(senders.len(), 1);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        self.data.len() / UCred::WIRE_LEN
    }

    /// Returns whether there are none.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryMessage;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # b.set_pass_credentials(true)?;
    /// # a.send(b"message").await?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let Some(AncillaryMessage::Credentials(mut senders)) = reader.messages().next() else {
    /// #     panic!("no credentials");
    /// # };
    /// let sender = senders.next();
    /// // It was the only one.
    /// assert!(sender.is_some() && senders.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the credentials at `index`, or `None` beyond the end.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::UCred;
    /// # use tokio_seqpacket::ancillary::AncillaryMessage;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # b.set_pass_credentials(true)?;
    /// # a.send(b"message").await?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let Some(AncillaryMessage::Credentials(senders)) = reader.messages().next() else {
    /// #     panic!("no credentials");
    /// # };
    /// // Those of a message that this process has sent.
    /// assert_eq!(senders.get(0), Some(UCred::from_current_process()));
    /// assert_eq!(senders.get(1), None);
    /// # Ok(()) }
    /// ```
    pub fn get(&self, index: usize) -> Option<UCred> {
        let from = index.checked_mul(UCred::WIRE_LEN)?;
        Some(UCred::from_wire(*self.data.get(from..)?.first_chunk()?))
    }
}

impl Iterator for UnixCredentials<'_> {
    type Item = UCred;

    fn next(&mut self) -> Option<Self::Item> {
        let credentials = self.get(0)?;
        self.data = &self.data[UCred::WIRE_LEN..];
        Some(credentials)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for UnixCredentials<'_> {}

impl<'a> UnknownMessage<'a> {
    /// Returns the `cmsg_level` of the control message (`cmsg(3)`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryMessage;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # // Linux 6.5.
    /// # if b.set_pass_pidfd(true).is_err() { return Ok(()) }
    /// # a.send(b"message").await?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let Some(AncillaryMessage::Other(other)) = reader.messages().next() else {
    /// #     panic!("no pidfd");
    /// # };
    /// // Everything that comes on a Unix socket is of this level.
    /// assert_eq!(other.cmsg_level(), libc::SOL_SOCKET);
    /// # Ok(()) }
    /// ```
    pub fn cmsg_level(&self) -> i32 {
        self.level
    }

    /// Returns the `cmsg_type` of the control message (`cmsg(3)`).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryMessage;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # // Linux 6.5.
    /// # if b.set_pass_pidfd(true).is_err() { return Ok(()) }
    /// # a.send(b"message").await?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let Some(AncillaryMessage::Other(other)) = reader.messages().next() else {
    /// #     panic!("no pidfd");
    /// # };
    /// // It came because of set_pass_pidfd.
    /// const SCM_PIDFD: i32 = 4;
    /// assert_eq!(other.cmsg_type(), SCM_PIDFD);
    /// # Ok(()) }
    /// ```
    pub fn cmsg_type(&self) -> i32 {
        self.kind
    }

    /// Returns the data of the control message, as the kernel wrote it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryMessage;
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # // Linux 6.5.
    /// # if b.set_pass_pidfd(true).is_err() { return Ok(()) }
    /// # a.send(b"message").await?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let Some(AncillaryMessage::Other(other)) = reader.messages().next() else {
    /// #     panic!("no pidfd");
    /// # };
    /// // Of a pidfd it is the raw fd, which the reader closes.
    /// let fd = other.data().first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    /// assert!(fd >= Some(0));
    /// # Ok(()) }
    /// ```
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}
