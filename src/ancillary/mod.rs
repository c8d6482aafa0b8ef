//! Ancillary data: file descriptors and credentials that travel with a message.
//!
//! There are two ways to it. [`AncillaryMessageWriter`] and [`AncillaryMessageReader`] work in a byte
//! buffer of the caller's, for the calls that borrow their buffers. [`AncillaryBuffer`] holds
//! [`OwnedFd`](std::os::fd::OwnedFd)s and credentials as values, for the calls that take their
//! buffers.
//!
//! Every received file descriptor has its close-on-exec flag set from the start
//! (`MSG_CMSG_CLOEXEC`). It is owned by the value it arrives in, and closed with that value unless it
//! is taken out. See `cmsg(3)` and `unix(7)`.

mod buffer;
mod messages;
mod owned;
mod reader;
mod received;
pub(crate) mod wire;
mod writer;

#[cfg(test)]
mod reader_tests;

pub use buffer::AncillaryBuffer;
pub(crate) use buffer::too_many_fds;
pub use messages::{
    AncillaryMessage, AncillaryMessages, FileDescriptors, UnixCredentials, UnknownMessage,
};
pub use owned::{
    IntoAncillaryMessages, OwnedAncillaryMessage, OwnedFileDescriptors, OwnedUnknownMessage,
};
pub use reader::AncillaryMessageReader;
pub(crate) use received::ReceivedControl;
pub use writer::{AddControlMessageError, AncillaryMessageWriter};
