//! Reading control data, and owning the file descriptors in it.
//!
//! The numbers in an `SCM_RIGHTS` message that the kernel wrote are descriptors that it installed
//! in this process. [`AncillaryMessageReader`] owns them from `new()` on; `into_messages` passes
//! the ownership on; whoever holds it last closes them. All `unsafe` here rests on that chain.
#![allow(
    unsafe_code,
    reason = "descriptor numbers in received bytes become BorrowedFd and OwnedFd"
)]

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use super::AncillaryBuffer;
use super::wire::{self, FD_LEN, MAX_CONTROL};
use crate::UCred;

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
#[derive(Copy, Clone)]
pub struct AncillaryMessages<'a> {
    buffer: &'a [u8],
}

/// Owning iterator over the control messages of an [`AncillaryMessageReader`].
///
/// Closes the file descriptors of the messages it did not come to.
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

    /// Anything else, uninterpreted. The descriptor in an `SCM_PIDFD` message belongs to whoever
    /// receives it here.
    Other(UnknownMessage<'a>),
}

/// Borrowed file descriptors of one control message.
#[derive(Copy, Clone)]
pub struct FileDescriptors<'a> {
    data: &'a [u8],
}

/// Owned file descriptors of one control message. Those that are not taken are closed.
pub struct OwnedFileDescriptors<'a> {
    data: &'a mut [u8],
}

/// Credentials in one control message.
#[derive(Copy, Clone)]
pub struct UnixCredentials<'a> {
    data: &'a [u8],
}

/// A control message of another kind.
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
    pub unsafe fn new(buffer: &'a mut [u8], truncated: bool) -> Self {
        Self { buffer, truncated }
    }

    /// Bytes of control data.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there is no control data.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether there is nothing in it but the time of the message's arrival (`SO_TIMESTAMP`), if that.
    pub(crate) fn is_only_a_time(&self) -> bool {
        const LEN: usize = wire::space(size_of::<libc::timeval>());
        self.is_empty()
            || self.len() == LEN
                && wire::item_at(self.buffer, 0).is_some_and(|item| {
                    (item.level, item.kind) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMP)
                })
    }

    /// Whether control data was discarded (`MSG_CTRUNC`): the buffer was too short, or the process
    /// had no room for more file descriptors.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Look at the control messages.
    pub fn messages(&self) -> AncillaryMessages<'_> {
        AncillaryMessages { buffer: self.buffer }
    }

    /// Values as control data in `room`, cut as the kernel does where there is less of it.
    pub(crate) fn from_values(
        mut values: AncillaryBuffer,
        truncated: bool,
        room: &mut [u8],
    ) -> AncillaryMessageReader<'_> {
        let mut control = [0; MAX_CONTROL];
        let len = values.encode_owned(&mut control);
        // SAFETY: these bytes have just been made from descriptors that nobody else owns any more.
        unsafe { AncillaryMessageReader::new(&mut control[..len], truncated) }.move_into(room)
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
                        drop(unsafe { OwnedFd::from_raw_fd(number) });
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
    pub fn into_messages(mut self) -> IntoAncillaryMessages<'a> {
        IntoAncillaryMessages { buffer: std::mem::take(&mut self.buffer) }
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
            OwnedAncillaryMessage::Other(UnknownMessage {
                level: item.level,
                kind: item.kind,
                data,
            })
        })
    }
}

impl Drop for IntoAncillaryMessages<'_> {
    fn drop(&mut self) {
        for message in self {
            match message {
                OwnedAncillaryMessage::FileDescriptors(fds) => drop(fds),
                OwnedAncillaryMessage::Credentials(_) => {}
                OwnedAncillaryMessage::Other(other) => drop(other.into_pidfd()),
            }
        }
    }
}

impl<'a> FileDescriptors<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.data.len() / FD_LEN
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The descriptor at `index`, `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<BorrowedFd<'a>> {
        let number = wire::fd_number(self.data, index)?;
        // SAFETY: the number is a descriptor that the reader owns (module text), and 'a ends
        // before the reader does.
        Some(unsafe { BorrowedFd::borrow_raw(number) })
    }
}

impl<'a> Iterator for FileDescriptors<'a> {
    type Item = BorrowedFd<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let fd = self.get(0)?;
        self.data = &self.data[FD_LEN..];
        Some(fd)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for FileDescriptors<'_> {}

impl OwnedFileDescriptors<'_> {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.data.len() / FD_LEN
    }

    /// Whether none are left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Iterator for OwnedFileDescriptors<'_> {
    type Item = OwnedFd;

    fn next(&mut self) -> Option<Self::Item> {
        let number = wire::fd_number(self.data, 0)?;
        self.data = &mut std::mem::take(&mut self.data)[FD_LEN..];
        // SAFETY: the number is a descriptor that this value owns (module text); it has just left
        // `data`, so it is handed out once.
        Some(unsafe { OwnedFd::from_raw_fd(number) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for OwnedFileDescriptors<'_> {}

impl Drop for OwnedFileDescriptors<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl UnixCredentials<'_> {
    /// How many there are. The kernel sends one.
    pub fn len(&self) -> usize {
        self.data.len() / UCred::WIRE_LEN
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The credentials at `index`, `None` beyond the end.
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
    pub fn cmsg_level(&self) -> i32 {
        self.level
    }

    /// `cmsg_type` of the control message.
    pub fn cmsg_type(&self) -> i32 {
        self.kind
    }

    /// The data of the control message.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The descriptor of an `SCM_PIDFD` message that came out of an owning iterator. The kernel
    /// writes a negative number if it could not make one.
    pub(crate) fn into_pidfd(self) -> Option<OwnedFd> {
        let is_pidfd = wire::is_pidfd(self.level, self.kind);
        let number = wire::fd_number(self.data, 0).filter(|number| is_pidfd && *number >= 0)?;
        // SAFETY: the kernel installed the descriptor for this message, the owning iterator handed
        // the message out once, and its callers (the iterator's drop, AncillaryBuffer, fuzzing) ask
        // once each for a message that they then drop.
        Some(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    /// A pipe whose write ends are `count` descriptors in one SCM_RIGHTS message; its read end sees
    /// the end once all of them are closed.
    fn received(count: usize) -> (std::io::PipeReader, Vec<u8>) {
        let (reader, writer) = std::io::pipe().unwrap();
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

    fn all_closed(mut reader: std::io::PipeReader) -> bool {
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
        let (pipe, writer) = std::io::pipe().unwrap();
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
