//! Halves of a socket, as tokio-seqpacket's first releases had them.

use std::ops::Deref;

use crate::UnixSeqpacket;

/// The reading half of a socket, from [`UnixSeqpacket::split`]. Dereferences to the socket.
#[derive(Debug, Clone, Copy)]
pub struct ReadHalf<'a>(pub(crate) &'a UnixSeqpacket);

/// The writing half of a socket, from [`UnixSeqpacket::split`]. Dereferences to the socket.
#[derive(Debug, Clone, Copy)]
pub struct WriteHalf<'a>(pub(crate) &'a UnixSeqpacket);

impl Deref for ReadHalf<'_> {
    type Target = UnixSeqpacket;

    fn deref(&self) -> &UnixSeqpacket {
        self.0
    }
}

impl Deref for WriteHalf<'_> {
    type Target = UnixSeqpacket;

    fn deref(&self) -> &UnixSeqpacket {
        self.0
    }
}
