//! Reading control data, and owning the file descriptors in it.
//!
//! The numbers in an `SCM_RIGHTS` message that the kernel wrote are descriptors that it installed
//! in this process. [`AncillaryMessageReader`] owns them from `new()` on; `into_messages` passes
//! the ownership on; whoever holds it last closes them. All `unsafe` here rests on that chain.
#![allow(
    unsafe_code,
    reason = "descriptor numbers in received bytes become BorrowedFd and OwnedFd"
)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use super::AncillaryBuffer;
use super::wire::{self, FD_LEN, MAX_CONTROL};
use crate::types::ucred::UCred;
use crate::util::close::close;

/// The ancillary data of a received message, in a buffer of the caller's.
///
/// Owns the file descriptors in it: they are closed with the reader, unless
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

/// Iterator over the control messages of an [`AncillaryMessageReader`].
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
/// // It is Copy: it can be gone through twice.
/// assert_eq!((messages.count(), messages.count()), (1, 1));
/// # Ok(()) }
/// ```
#[derive(Copy, Clone)]
pub struct AncillaryMessages<'a> {
    buffer: &'a [u8],
}

/// Owning iterator over the control messages of an [`AncillaryMessageReader`].
///
/// Closes the file descriptors of the messages it did not come to.
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
/// // The pipe's writing end has gone with it.
/// assert_eq!(pipe.read(&mut [0])?, 0);
/// # Ok(()) }
/// ```
pub struct IntoAncillaryMessages<'a> {
    buffer: &'a mut [u8],
}

/// One control message.
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
/// // Looking takes nothing out.
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

/// One control message, with ownership of the file descriptors in it.
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

/// A control message of another kind, and the descriptor in it if that is `SCM_PIDFD`: closed with this value unless it is
/// [taken](Self::into_pidfd). Else as [`UnknownMessage`].
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
    /// Takes the descriptor of an `SCM_PIDFD` message. `None` for other kinds, and where the kernel could not make one: the
    /// data is a negative errno then, and [`AncillaryMessageReader::is_truncated`] was true.
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

/// Borrowed file descriptors of one control message.
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
///         // They stay open when the reader closes its own.
///         assert_eq!(duplicates(fds)?.len(), 1);
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Copy, Clone)]
pub struct FileDescriptors<'a> {
    data: &'a [u8],
}

/// Owned file descriptors of one control message. Those that are not taken are closed.
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

/// Credentials in one control message.
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
    data: &'a [u8],
}

/// A control message of another kind.
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
    level: i32,
    kind: i32,
    data: &'a [u8],
}

impl<'a> AncillaryMessageReader<'a> {
    /// Read control data that was received by other means than this crate's.
    ///
    /// # Safety
    /// `buffer` is exactly the control data (`msg_controllen` bytes) that the kernel wrote for a
    /// message on a Unix socket, and nobody else owns the file descriptors in it.
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
    /// # // SAFETY: it is numbers and pointers, which may be zero.
    /// # let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    /// # (header.msg_iov, header.msg_iovlen) = (&mut part, 1);
    /// (header.msg_control, header.msg_controllen) = (control.as_mut_ptr().cast(), 64);
    /// // SAFETY: what the header points to is there, and as long as it says.
    /// let len = unsafe { libc::recvmsg(b.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) };
    /// # assert_eq!(len, 7);
    /// let (len, cut) = (header.msg_controllen as usize, header.msg_flags & libc::MSG_CTRUNC != 0);
    /// // SAFETY: the kernel has written this just now; nobody else has looked at it.
    /// let reader = unsafe { AncillaryMessageReader::new(&mut control[..len], cut) };
    /// assert_eq!(reader.messages().count(), 1);
    /// # Ok(()) }
    /// ```
    pub unsafe fn new(buffer: &'a mut [u8], truncated: bool) -> Self {
        Self { buffer, truncated }
    }

    /// Bytes of control data.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// a.send_owned_with_ancillary("a file", file).await.0?;
    /// let (mut bytes, mut control) = ([0; 64], [0; 64]);
    /// let (_, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// // A header and a number.
    /// assert!((size_of::<libc::cmsghdr>() + 4..=64).contains(&reader.len()));
    /// # Ok(()) }
    /// ```
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there is no control data.
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

    /// File descriptors that were passed.
    pub(crate) fn count_fds(&self) -> usize {
        wire::count_fds(self.buffer)
    }

    /// Whether control data came, also if all of it was discarded.
    pub(crate) fn has_come(&self) -> bool {
        !self.is_empty() || self.truncated
    }

    /// Takes the time of arrival out, which the kernel puts first.
    pub(crate) fn hide_time(&mut self) {
        if let Some(end) = wire::time_at_start(self.buffer) {
            self.buffer = &mut std::mem::take(&mut self.buffer)[end..];
        }
    }

    /// Whether control data was discarded (`MSG_CTRUNC`): the buffer was too short, or the process
    /// had no room for more file descriptors.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// # use tokio_seqpacket::ancillary::AncillaryBuffer;
    /// let (a, b) = tokio_seqpacket::UnixSeqpacket::pair()?;
    /// let file = AncillaryBuffer::from_iter([std::fs::File::open("/dev/null")?.into()]);
    /// a.send_owned_with_ancillary("a file", file).await.0?;
    /// // Less room than a header takes: the file is closed.
    /// let (mut bytes, mut control) = ([0; 64], [0; 8]);
    /// let (len, reader) = b.recv_with_ancillary(&mut bytes, &mut control).await?;
    /// assert_eq!((len, reader.is_truncated()), (6, true));
    /// # Ok(()) }
    /// ```
    pub fn is_truncated(&self) -> bool {
        self.truncated || wire::lacks_fds(self.buffer)
    }

    /// Whether the kernel said so (`MSG_CTRUNC`), which it does not where it could make no pidfd.
    pub(crate) fn was_cut(&self) -> bool {
        self.truncated
    }

    /// Look at the control messages.
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

    /// Move the control data into another buffer, cutting it as the kernel does where there is less
    /// room (`put_cmsg`, `scm_detach_fds`): as many descriptors as fit, the rest are closed.
    pub(crate) fn move_into(mut self, room: &mut [u8]) -> AncillaryMessageReader<'_> {
        let source = std::mem::take(&mut self.buffer);
        let mut truncated = self.truncated;
        let mut len = 0;
        for item in wire::items(source) {
            let (level, kind) = (item.level, item.kind);
            let owns_fds = item.is_rights() || wire::is_pidfd(level, kind);
            let data = &source[item.data.clone()];
            let space = room.len().checked_sub(len + wire::HEADER_LEN);
            let has_header = space.is_some();
            let space = space.unwrap_or(0);
            let fitting = match space.min(data.len()) {
                cut if item.is_rights() => cut - cut % FD_LEN,
                cut if owns_fds && cut < data.len() => 0,
                cut => cut,
            };
            let whole = has_header && fitting == data.len();
            truncated |= !whole;
            if owns_fds {
                let count = if item.is_rights() { data.len() / FD_LEN } else { 1 };
                for index in fitting / FD_LEN..count {
                    if let Some(number) = wire::fd_number(data, index).filter(|number| *number >= 0)
                    {
                        // SAFETY: this reader owned the descriptor (module text) and has given up
                        // its buffer; the number is not moved on.
                        close(unsafe { OwnedFd::from_raw_fd(number) });
                    }
                }
            }
            if whole || fitting > 0 {
                wire::put(room, &mut len, level, kind, &data[..fitting]);
            }
        }
        AncillaryMessageReader { buffer: &mut room[..len], truncated }
    }

    /// Take the control messages, and ownership of the file descriptors in them.
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

/// Control data of a message that no call has read yet. Owns the descriptors in it.
#[derive(Debug, Default)]
pub(crate) struct ReceivedControl {
    bytes: Vec<u8>,
    truncated: bool,
}

impl ReceivedControl {
    /// Copies control data out of the memory that the kernel wrote it to.
    ///
    /// # Safety
    /// As [`AncillaryMessageReader::new`]; nothing reads `control` afterwards.
    pub(crate) unsafe fn new(control: &[u8], truncated: bool) -> Self {
        Self { bytes: control.to_vec(), truncated }
    }

    /// Values that were received.
    pub(crate) fn of(mut values: AncillaryBuffer, truncated: bool) -> Self {
        let mut control = [0; MAX_CONTROL];
        let len = values.encode_owned(&mut control);
        // SAFETY: these bytes have just been made from descriptors that no value owns any more.
        unsafe { Self::new(&control[..len], truncated) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// As [`AncillaryMessageReader::is_truncated`].
    pub(crate) fn is_truncated(&self) -> bool {
        self.truncated || wire::lacks_fds(&self.bytes)
    }

    /// Whether control data came, also if all of it was discarded.
    pub(crate) fn has_come(&self) -> bool {
        !self.is_empty() || self.truncated
    }

    /// Takes the time of arrival out, which the kernel puts first.
    pub(crate) fn hide_time(&mut self) {
        if let Some(end) = wire::time_at_start(&self.bytes) {
            self.bytes.drain(..end);
        }
    }

    /// File descriptors that were passed.
    pub(crate) fn count_fds(&self) -> usize {
        wire::count_fds(&self.bytes)
    }

    /// Moves it into a buffer, truncated as the kernel does where that is shorter.
    pub(crate) fn move_into(mut self, buffer: &mut [u8]) -> AncillaryMessageReader<'_> {
        let (mut bytes, truncated) = (std::mem::take(&mut self.bytes), self.truncated);
        // SAFETY: the promise of `new`; the bytes have just been taken, so they are read once.
        unsafe { AncillaryMessageReader::new(&mut bytes, truncated) }.move_into(buffer)
    }

    /// Moves it into owned values.
    pub(crate) fn fill(mut self, ancillary: &mut AncillaryBuffer) {
        let mut bytes = std::mem::take(&mut self.bytes);
        // SAFETY: as above.
        ancillary.fill(unsafe { AncillaryMessageReader::new(&mut bytes, self.truncated) });
    }
}

impl Drop for ReceivedControl {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        // SAFETY: the promise of `new`: no call has read these bytes.
        drop(unsafe { AncillaryMessageReader::new(&mut bytes, self.truncated) });
    }
}

impl Drop for AncillaryMessageReader<'_> {
    fn drop(&mut self) {
        drop(IntoAncillaryMessages { buffer: std::mem::take(&mut self.buffer) });
    }
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
            let number =
                if is_pidfd { wire::slots(data).next().and_then(Result::ok) } else { None };
            // SAFETY: the kernel installed the descriptor for this message, this iterator owns it (module text), and hands
            // the message out once.
            let pidfd = number.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
            OwnedAncillaryMessage::Other(OwnedUnknownMessage { message, pidfd })
        })
    }
}

impl Drop for IntoAncillaryMessages<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl<'a> FileDescriptors<'a> {
    /// How many there are.
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

    /// Whether there are none.
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

    /// The descriptor at `index`, `None` beyond the end.
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
        let number = wire::fds(self.data).nth(index)?;
        // SAFETY: the number is a descriptor that the reader owns (module text), and 'a ends
        // before the reader does.
        Some(unsafe { BorrowedFd::borrow_raw(number) })
    }
}

impl FileDescriptors<'_> {
    /// Why descriptors are missing that were sent with the message, one error for each: only where the socket has
    /// `SO_RIGHTS_NOTRUNC` set (Linux 7.3). They are in no other count, and make the reader
    /// [truncated](AncillaryMessageReader::is_truncated).
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

impl OwnedFileDescriptors<'_> {
    /// How many are left.
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

    /// Whether none are left.
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
            if let Ok(number) = slot {
                // SAFETY: the number is a descriptor that this value owns (module text); it has just left
                // `data`, so it is handed out once.
                return Some(unsafe { OwnedFd::from_raw_fd(number) });
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

impl UnixCredentials<'_> {
    /// How many there are. The kernel sends one.
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

    /// Whether there are none.
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

    /// The credentials at `index`, `None` beyond the end.
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
    /// `cmsg_level` of the control message.
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
    /// // All that comes on a Unix socket is of this level.
    /// assert_eq!(other.cmsg_level(), libc::SOL_SOCKET);
    /// # Ok(()) }
    /// ```
    pub fn cmsg_level(&self) -> i32 {
        self.level
    }

    /// `cmsg_type` of the control message.
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
    /// // What came because of set_pass_pidfd.
    /// const SCM_PIDFD: i32 = 4;
    /// assert_eq!(other.cmsg_type(), SCM_PIDFD);
    /// # Ok(()) }
    /// ```
    pub fn cmsg_type(&self) -> i32 {
        self.kind
    }

    /// The data of the control message.
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
    /// // Of a pidfd it is the number, which the reader closes.
    /// let number = other.data().first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    /// assert!(number >= Some(0));
    /// # Ok(()) }
    /// ```
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    /// A pipe whose write ends are `count` descriptors in one SCM_RIGHTS message; its read end sees
    /// the end once all of them are closed.
    fn received(count: usize) -> (io::PipeReader, Vec<u8>) {
        let (reader, writer) = io::pipe().unwrap();
        let mut control = vec![0; wire::space(count * FD_LEN)];
        let data =
            wire::reserve(&mut control, &mut 0, libc::SOL_SOCKET, libc::SCM_RIGHTS, count * FD_LEN)
                .unwrap();
        for slot in data.chunks_exact_mut(FD_LEN) {
            let number = writer.try_clone().unwrap().into_raw_fd();
            slot.copy_from_slice(&number.to_ne_bytes());
        }
        (reader, control)
    }

    fn all_closed(mut reader: io::PipeReader) -> bool {
        use std::io::Read;
        rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::NONBLOCK).unwrap();
        matches!(reader.read(&mut [0]), Ok(0))
    }

    #[test]
    fn descriptors_that_do_not_fit_are_closed_and_the_cut_is_told() {
        for (room, fitting) in
            [(0, 0), (16, 0), (19, 0), (20, 1), (24, 2), (27, 2), (28, 3), (64, 3)]
        {
            let (pipe, mut control) = received(3);
            // SAFETY: the descriptors in `control` were made for it.
            let reader = unsafe { AncillaryMessageReader::new(&mut control, false) };
            let mut buffer = vec![0; room];
            let moved = reader.move_into(&mut buffer);
            let count = wire::count_fds(moved.buffer);
            assert_eq!(count, fitting, "{room} bytes of room");
            assert_eq!(moved.is_truncated(), fitting < 3, "{room} bytes of room");
            for message in moved.into_messages() {
                if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
                    assert_eq!(fds.count(), fitting);
                }
            }
            assert!(all_closed(pipe), "{room} bytes of room");
        }
    }

    #[test]
    fn a_message_without_data_needs_room_for_its_header() {
        for (room, fitting) in [(0, 0), (8, 0), (15, 0), (16, 16), (24, 16)] {
            let mut control = vec![0; wire::HEADER_LEN];
            wire::reserve(&mut control, &mut 0, libc::SOL_SOCKET, 99, 0).unwrap();
            // SAFETY: there are no descriptors in it.
            let reader = unsafe { AncillaryMessageReader::new(&mut control, false) };
            let mut buffer = vec![0; room];
            let moved = reader.move_into(&mut buffer);
            assert_eq!(moved.len(), fitting, "{room} bytes of room");
            assert_eq!(moved.is_truncated(), fitting == 0, "{room} bytes of room");
        }
    }

    #[test]
    fn one_descriptor_is_owned_in_a_pidfd_message_whatever_follows_it() {
        let (pipe, writer) = io::pipe().unwrap();
        let other = writer.try_clone().unwrap();
        let mut control = vec![0; wire::space(2 * FD_LEN)];
        let data =
            wire::reserve(&mut control, &mut 0, libc::SOL_SOCKET, wire::SCM_PIDFD, 2 * FD_LEN)
                .unwrap();
        data[..FD_LEN].copy_from_slice(&writer.into_raw_fd().to_ne_bytes());
        data[FD_LEN..].copy_from_slice(&std::os::fd::AsRawFd::as_raw_fd(&other).to_ne_bytes());
        // SAFETY: the first descriptor was made for it.
        let reader = unsafe { AncillaryMessageReader::new(&mut control, false) };
        assert!(reader.move_into(&mut []).is_truncated());
        assert!(!all_closed(pipe.try_clone().unwrap()), "this one is somebody else's");
        drop(other);
        assert!(all_closed(pipe));
    }

    #[test]
    fn a_reader_closes_what_was_not_taken() {
        let (pipe, mut control) = received(3);
        // SAFETY: the descriptors in `control` were made for it.
        drop(unsafe { AncillaryMessageReader::new(&mut control, false) });
        assert!(all_closed(pipe));

        let (pipe, mut control) = received(3);
        // SAFETY: as above.
        let mut messages =
            unsafe { AncillaryMessageReader::new(&mut control, false) }.into_messages();
        let Some(OwnedAncillaryMessage::FileDescriptors(mut fds)) = messages.next() else {
            panic!("no descriptors");
        };
        let first = fds.next();
        drop(fds);
        assert!(!all_closed(pipe.try_clone().unwrap()));
        drop(first);
        assert!(all_closed(pipe));
    }
}
