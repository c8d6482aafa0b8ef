//! Control messages that own the file descriptors in them.
#![allow(unsafe_code, reason = "raw fds in received bytes become OwnedFd")]

use std::os::fd::{FromRawFd, OwnedFd};

use super::messages::{UnixCredentials, UnknownMessage};
use super::wire::{self, FD_LEN};
use crate::util::close::close;

/// Iterates over the control messages of an [`AncillaryMessageReader`](crate::ancillary::AncillaryMessageReader) and owns what is in them.
///
/// Dropping the iterator closes the file descriptors of the messages that it has not yielded.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use std::io::Read;
/// use tokio_seqpacket::ancillary::{AncillaryBuffer, IntoAncillaryMessages};
///
/// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// let (mut pipe, writer) = std::io::pipe()?;
/// let ancillary = AncillaryBuffer::from_iter([writer.into()]);
/// a.send_owned_with_ancillary("a pipe", ancillary).await.0?;
///
/// let (mut bytes, mut control) = ([0; 64], [0; 64]);
/// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
/// let messages: IntoAncillaryMessages = reader.into_messages();
/// drop(messages);
/// // The pipe's writing end is closed with it.
/// assert_eq!(pipe.read(&mut [0])?, 0);
/// # Ok(()) }
/// ```
pub struct IntoAncillaryMessages<'a> {
    pub(super) buffer: &'a mut [u8],
}

/// Describes one control message and owns the file descriptors in it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::UnixSeqpacket;
/// use tokio_seqpacket::ancillary::OwnedAncillaryMessage;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// b.set_pass_credentials(true)?;
/// a.send(b"message").await?;
/// let (mut bytes, mut control) = ([0; 64], [0; 128]);
/// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
/// for message in reader.into_messages() {
///     match message {
///         OwnedAncillaryMessage::FileDescriptors(fds) => println!("{} descriptors", fds.len()),
///         OwnedAncillaryMessage::Credentials(mut sender) => println!("{:?}", sender.next()),
///         OwnedAncillaryMessage::Other(other) => println!("{}", other.cmsg_type()),
///     }
/// }
/// # Ok(()) }
/// ```
pub enum OwnedAncillaryMessage<'a> {
    /// File descriptors (`SCM_RIGHTS`).
    FileDescriptors(OwnedFileDescriptors<'a>),

    /// Credentials of the sender (`SCM_CREDENTIALS`), which come with every message while
    /// `SO_PASSCRED` is set.
    Credentials(UnixCredentials<'a>),

    /// Anything else, uninterpreted. It owns the descriptor of an `SCM_PIDFD` message.
    Other(OwnedUnknownMessage<'a>),
}

/// Holds a control message of a kind that this crate does not interpret.
///
/// Of an `SCM_PIDFD` message it owns the descriptor, which is closed with this value unless it is
/// [taken](Self::into_pidfd). Otherwise it works like [`UnknownMessage`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::ancillary::OwnedAncillaryMessage;
///
/// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// # // Linux 6.5.
/// # if b.set_pass_pidfd(true).is_err() { return Ok(()) }
/// a.send(b"message").await?;
/// let (mut bytes, mut control) = ([0; 64], [0; 64]);
/// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
/// for message in reader.into_messages() {
///     if let OwnedAncillaryMessage::Other(other) = message {
///         let pidfd = other.into_pidfd().expect("asked for with set_pass_pidfd");
/// #       drop(pidfd);
///     }
/// }
/// # Ok(()) }
/// ```
pub struct OwnedUnknownMessage<'a> {
    message: UnknownMessage<'a>,
    pidfd: Option<OwnedFd>,
}

impl OwnedUnknownMessage<'_> {
    /// Returns the descriptor of an `SCM_PIDFD` message (Linux 6.5).
    ///
    /// Returns `None` for other kinds, and where the kernel could not create one. The data is a negative
    /// errno then, and [`is_truncated`](crate::ancillary::AncillaryMessageReader::is_truncated) was true.
    ///
    /// ```
    /// # use tokio_seqpacket::ancillary::OwnedUnknownMessage;
    /// fn process(message: OwnedUnknownMessage<'_>) -> Option<std::os::fd::OwnedFd> {
    ///     message.into_pidfd()
    /// }
    /// ```
    pub fn into_pidfd(self) -> Option<OwnedFd> {
        self.pidfd
    }
}

impl<'a> std::ops::Deref for OwnedUnknownMessage<'a> {
    type Target = UnknownMessage<'a>;

    fn deref(&self) -> &UnknownMessage<'a> {
        &self.message
    }
}

/// Iterates over the file descriptors of one control message, as owned values.
///
/// Descriptors that are not taken are closed.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// # use std::fs::File;
/// # use tokio_seqpacket::ancillary::{AncillaryBuffer, OwnedAncillaryMessage};
/// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
/// # let fds = [File::open("/proc/self/comm")?.into(), File::open("/dev/null")?.into()];
/// # a.send_owned_with_ancillary("two files", AncillaryBuffer::from_iter(fds)).await.0?;
/// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
/// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
/// for message in reader.into_messages() {
///     if let OwnedAncillaryMessage::FileDescriptors(mut fds) = message {
///         // The first is taken, the second is closed.
///         let file = fds.next().map(File::from).expect("two were sent");
///         assert!(file.metadata()?.is_file());
///     }
/// }
/// # Ok(()) }
/// ```
pub struct OwnedFileDescriptors<'a> {
    data: &'a mut [u8],
}

impl<'a> Iterator for IntoAncillaryMessages<'a> {
    type Item = OwnedAncillaryMessage<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = wire::item_at(self.buffer, 0)?;
        let (message, rest) = std::mem::take(&mut self.buffer).split_at_mut(item.end);
        self.buffer = rest;
        let data = &mut message[item.data.clone()];
        Some(if item.is_rights() {
            OwnedAncillaryMessage::FileDescriptors(OwnedFileDescriptors { data })
        } else if item.is_credentials() {
            OwnedAncillaryMessage::Credentials(UnixCredentials { data })
        } else {
            let message = UnknownMessage { level: item.level, kind: item.kind, data };
            let is_pidfd =
                wire::is_pidfd(item.level, item.kind) && !cfg!(planted = "unknown_kind_leaks");
            let fd = if is_pidfd { wire::slots(data).next().and_then(Result::ok) } else { None };
            // SAFETY: the kernel installed the descriptor for this message (SO_PASSPIDFD in unix(7)).
            // This iterator owns it by `AncillaryMessageReader::new`, and yields the message once.
            let pidfd = fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            OwnedAncillaryMessage::Other(OwnedUnknownMessage { message, pidfd })
        })
    }
}

impl Drop for IntoAncillaryMessages<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl OwnedFileDescriptors<'_> {
    /// Returns how many descriptors are left.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use std::fs::File;
    /// # use tokio_seqpacket::ancillary::{AncillaryBuffer, OwnedAncillaryMessage};
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let fds = [File::open("/dev/null")?.into(), File::open("/dev/zero")?.into()];
    /// # a.send_owned_with_ancillary("two files", AncillaryBuffer::from_iter(fds)).await.0?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let message = reader.into_messages().next();
    /// # let Some(OwnedAncillaryMessage::FileDescriptors(mut fds)) = message else {
    /// #     panic!("no descriptors");
    /// # };
    /// // Those of a message with two files.
    /// let taken = fds.next();
    /// assert_eq!((taken.is_some(), fds.len()), (true, 1));
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        wire::fds(self.data).count()
    }

    /// Returns whether no descriptors are left.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use std::fs::File;
    /// # use tokio_seqpacket::ancillary::{AncillaryBuffer, OwnedAncillaryMessage};
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let fds = [File::open("/dev/null")?.into(), File::open("/dev/zero")?.into()];
    /// # a.send_owned_with_ancillary("two files", AncillaryBuffer::from_iter(fds)).await.0?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// # let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// # let message = reader.into_messages().next();
    /// # let Some(OwnedAncillaryMessage::FileDescriptors(mut fds)) = message else {
    /// #     panic!("no descriptors");
    /// # };
    /// // Those of a message with two files.
    /// let mut files = Vec::new();
    /// while !fds.is_empty() {
    ///     files.extend(fds.next().map(File::from));
    /// }
    /// assert_eq!(files.len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Iterator for OwnedFileDescriptors<'_> {
    type Item = OwnedFd;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let slot = wire::slots(self.data).next()?;
            self.data = &mut std::mem::take(&mut self.data)[FD_LEN..];
            if let Ok(fd) = slot {
                // SAFETY: the kernel installed the descriptor for this message (SCM_RIGHTS in
                // unix(7)), and this value owns it by `AncillaryMessageReader::new`. The descriptor
                // has just been removed from `data`, so it is yielded once.
                return Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for OwnedFileDescriptors<'_> {}

impl Drop for OwnedFileDescriptors<'_> {
    fn drop(&mut self) {
        self.for_each(close);
    }
}
