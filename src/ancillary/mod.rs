//! Ancillary data: file descriptors and credentials that travel with a message.
//!
//! Two ways to it. [`AncillaryMessageWriter`] and [`AncillaryMessageReader`] work in a byte buffer
//! of the caller's, for the calls that borrow their buffers. [`AncillaryBuffer`] holds
//! [`OwnedFd`](std::os::fd::OwnedFd)s and credentials as values, for the calls that take their
//! buffers.
//!
//! Every received file descriptor has its close-on-exec flag set from the start
//! (`MSG_CMSG_CLOEXEC`), is owned by the value it arrives in, and is closed with it if nobody takes
//! it. See `cmsg(3)` and `unix(7)`.

mod buffer;
mod reader;
pub(crate) mod wire;
mod writer;

pub use buffer::AncillaryBuffer;
pub(crate) use buffer::too_many_fds;
pub(crate) use reader::ReceivedControl;
pub use reader::{
    AncillaryMessage, AncillaryMessageReader, AncillaryMessages, FileDescriptors,
    IntoAncillaryMessages, OwnedAncillaryMessage, OwnedFileDescriptors, OwnedUnknownMessage,
    UnixCredentials, UnknownMessage,
};
pub use writer::{AddControlMessageError, AncillaryMessageWriter};
