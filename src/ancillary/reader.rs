//! Reading control data that the kernel wrote.
//!
//! The raw fds in an `SCM_RIGHTS` or `SCM_PIDFD` message are descriptors that the kernel installed in
//! this process (`unix(7)`). [`AncillaryMessageReader`] owns them from `new()` on.
//! [`into_messages`](AncillaryMessageReader::into_messages) passes the ownership on, message by
//! message, and the last owner closes them. All `unsafe` in this folder rests on that chain.
#![allow(unsafe_code, reason = "raw fds in received bytes become OwnedFd")]

use std::os::fd::{FromRawFd, OwnedFd};

use super::messages::AncillaryMessages;
use super::owned::IntoAncillaryMessages;
use super::wire::{self, FD_LEN};
use crate::util::close::close;

/// Reads the ancillary data of a received message, in a buffer of the caller's.
///
/// The reader owns the file descriptors in it. They are closed with the reader, unless
/// [`into_messages`](Self::into_messages) takes them.
///
/// # Example
/// ```no_run
/// # async fn f() -> std::io::Result<()> {
/// use std::io::IoSliceMut;
/// use tokio_seqpacket::UnixSeqpacket;
/// use tokio_seqpacket::ancillary::OwnedAncillaryMessage;
///
/// let socket = UnixSeqpacket::connect("/run/foo.sock").await?;
/// let (mut bytes, mut control) = ([0; 1024], [0; 128]);
/// let (len, ancillary) = socket
///     .recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut bytes)], &mut control)
///     .await?;
/// for message in ancillary.into_messages() {
///     if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
///         for fd in fds {
///             let file = std::fs::File::from(fd);
///         }
///     }
/// }
/// # let _ = len; Ok(()) }
/// ```
#[derive(Debug)]
pub struct AncillaryMessageReader<'a> {
    buffer: &'a mut [u8],
    truncated: bool,
}

impl<'a> AncillaryMessageReader<'a> {
    /// Creates a reader for control data that was received by other means than this crate's.
    ///
    /// `truncated` says whether `recvmsg(2)` set `MSG_CTRUNC`.
    ///
    /// # Safety
    /// `buffer` is exactly the control data (`msg_controllen` bytes) that the kernel wrote for a
    /// message on a Unix socket. Nothing else owns the file descriptors in it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use std::os::fd::AsRawFd;
    /// use tokio_seqpacket::ancillary::AncillaryMessageReader;
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # b.set_pass_credentials(true)?;
    /// # a.send(b"message").await?;
    /// # let (mut bytes, mut control) = ([0u8; 64], [0u8; 64]);
    /// # let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 64 };
    /// # // SAFETY: msghdr consists of integers and pointers, which may be zero.
    /// # let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    /// # (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
    /// (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 64);
    /// // SAFETY: the header points to `vector` and `control`, with their lengths (recvmsg(2)).
    /// let len = unsafe { libc::recvmsg(b.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) };
    /// # assert_eq!(len, 7);
    /// let (len, truncated) = (header.msg_controllen as usize, header.msg_flags & libc::MSG_CTRUNC != 0);
    /// // SAFETY: recvmsg(2) has just written `len` bytes of control data, and nothing has read them.
    /// let reader = unsafe { AncillaryMessageReader::new(&mut control[..len], truncated) };
    /// assert_eq!(reader.messages().count(), 1);
    /// # Ok(()) }
    /// ```
    pub unsafe fn new(buffer: &'a mut [u8], truncated: bool) -> Self {
        Self { buffer, truncated }
    }

    /// Returns the length of the control data in bytes.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// a.send_owned_with_ancillary("a file", file).await.0?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// // A header and a raw fd.
    /// assert!((size_of::<libc::cmsghdr>() + 4..=64).contains(&reader.len()));
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Returns whether there is no control data.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// a.send(b"only bytes").await?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// assert!(reader.is_empty() && !reader.is_truncated());
    /// # Ok(()) }
    /// ```
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Returns how many file descriptors were passed.
    pub(crate) fn count_fds(&self) -> usize {
        wire::count_fds(self.buffer)
    }

    /// Returns whether control data came, also if all of it was discarded.
    pub(crate) fn has_come(&self) -> bool {
        !self.is_empty() || self.truncated
    }

    /// Removes the time of arrival, which the kernel puts first.
    pub(crate) fn hide_time(&mut self) {
        if let Some(end) = wire::time_at_start(self.buffer) {
            self.buffer = &mut std::mem::take(&mut self.buffer)[end..];
        }
    }

    /// Closes all descriptors but the first `most`, and counts them as discarded. A pidfd stays.
    pub(crate) fn limit_fds(&mut self, most: usize) {
        let mut left = most;
        let mut at = 0;
        while let Some(item) = wire::item_at(self.buffer, at) {
            at = item.end;
            if !item.is_rights() {
                continue;
            }
            for slot in self.buffer[item.data].as_chunks_mut::<FD_LEN>().0 {
                let fd = i32::from_ne_bytes(*slot);
                if left > 0 {
                    left -= 1;
                } else if fd >= 0 {
                    // As where the kernel could not install it: see `wire::slots`.
                    *slot = (-libc::EMFILE).to_ne_bytes();
                    // SAFETY: the kernel installed the descriptor for this reader's message (unix(7), `new`). Its raw
                    // fd has just been removed from the buffer, so this is its only owner.
                    close(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
    }

    /// Returns whether control data was discarded (`MSG_CTRUNC`).
    ///
    /// The buffer was too short, the process could open no more file descriptors, or the message
    /// brought more of them than [`max_fds`](crate::UnixSeqpacket::max_fds) allows.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// a.send_owned_with_ancillary("a file", file).await.0?;
    /// // The capacity is less than a header takes: the file is closed.
    /// let (mut bytes, mut control) = ([0; 64], [0; 8]);
    /// let (len, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// assert_eq!((len, reader.is_truncated()), (6, true));
    /// # Ok(()) }
    /// ```
    pub fn is_truncated(&self) -> bool {
        self.truncated || wire::lacks_fds(self.buffer)
    }

    /// Returns whether the kernel set `MSG_CTRUNC`, which it does not where it could create no pidfd.
    pub(crate) fn kernel_truncated(&self) -> bool {
        self.truncated
    }

    /// Returns an iterator that borrows the control messages.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessage};
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// b.set_pass_credentials(true)?;
    /// let file = AncillaryBuffer::from_iter([File::open("/dev/null")?.into()]);
    /// a.send_owned_with_ancillary("a file", file).await.0?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// let is_fds = |message| matches!(message, AncillaryMessage::FileDescriptors(_));
    /// // The file, and beside it the sender's credentials.
    /// assert!(reader.messages().any(is_fds));
    /// assert_eq!(reader.messages().count(), 2);
    /// # Ok(()) }
    /// ```
    pub fn messages(&self) -> AncillaryMessages<'_> {
        AncillaryMessages { buffer: self.buffer }
    }

    /// Moves the control data into `buffer`.
    ///
    /// If `buffer` is shorter, the data is truncated as the kernel does it (`put_cmsg`,
    /// `scm_detach_fds`): as many descriptors as fit are kept, the rest are closed.
    pub(crate) fn move_into(mut self, buffer: &mut [u8]) -> AncillaryMessageReader<'_> {
        let source = std::mem::take(&mut self.buffer);
        let mut truncated = self.truncated;
        let mut len = 0;
        for item in wire::items(source) {
            let (level, kind) = (item.level, item.kind);
            let owns_fds = item.is_rights() || wire::is_pidfd(level, kind);
            let data = &source[item.data.clone()];
            let space = buffer.len().checked_sub(len + wire::HEADER_LEN);
            let has_header = space.is_some();
            let space = space.unwrap_or(0);
            let fitting = match space.min(data.len()) {
                fitting if item.is_rights() => fitting - fitting % FD_LEN,
                fitting if owns_fds && fitting < data.len() => 0,
                fitting => fitting,
            };
            let whole = has_header && fitting == data.len();
            truncated |= !whole;
            if owns_fds {
                let count = if item.is_rights() { data.len() / FD_LEN } else { 1 };
                for index in fitting / FD_LEN..count {
                    if let Some(fd) = wire::raw_fd(data, index).filter(|fd| *fd >= 0) {
                        // SAFETY: the kernel installed the descriptor for this reader's message (unix(7),
                        // `new`). The reader has given up its buffer above, and the descriptor is not
                        // among the bytes that are moved on, so this is its only owner.
                        close(unsafe { OwnedFd::from_raw_fd(fd) });
                    }
                }
            }
            if whole || fitting > 0 {
                wire::put(buffer, &mut len, level, kind, &data[..fitting]);
            }
        }
        AncillaryMessageReader { buffer: &mut buffer[..len], truncated }
    }

    /// Returns an iterator that takes the control messages, and ownership of the descriptors in them.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::fs::File;
    /// use tokio_seqpacket::ancillary::OwnedAncillaryMessage;
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    ///
    /// # let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// # let fds = [File::open("/dev/null")?.into(), File::open("/dev/zero")?.into()];
    /// # a.send_owned_with_ancillary("two files", AncillaryBuffer::from_iter(fds)).await.0?;
    /// # let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// let files = reader.into_messages().find_map(|message| match message {
    ///     OwnedAncillaryMessage::FileDescriptors(fds) => Some(fds.map(File::from).collect()),
    ///     _ => None,
    /// });
    /// let files: Vec<File> = files.unwrap_or_default();
    /// assert_eq!(files.len(), 2);
    /// # Ok(()) }
    /// ```
    pub fn into_messages(mut self) -> IntoAncillaryMessages<'a> {
        IntoAncillaryMessages { buffer: std::mem::take(&mut self.buffer) }
    }
}

impl Drop for AncillaryMessageReader<'_> {
    fn drop(&mut self) {
        drop(IntoAncillaryMessages { buffer: std::mem::take(&mut self.buffer) });
    }
}
