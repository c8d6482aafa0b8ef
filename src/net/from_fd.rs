//! Taking over descriptors that were opened elsewhere, and giving them to std's types.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net;

use crate::backend::Choice;
use crate::net::listener::UnixSeqpacketListener;
use crate::net::options::Options;
use crate::net::socket::UnixSeqpacket;
use crate::sys;
use crate::util::close;

impl Options {
    /// Take over a connected socket; it is made non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a Unix seqpacket socket, listens, or is not connected; if the backend cannot be had.
    /// The descriptor is closed then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::OwnedFd;
    /// use tokio_seqpacket::{Options, UnixSeqpacket};
    ///
    /// let (a, b) = UnixSeqpacket::pair()?;
    /// let inherited = OwnedFd::from(a);
    /// let a = Options::new().socket_from_fd(inherited)?;
    /// a.send(b"message").await?;
    /// assert_eq!(b.recv(&mut [0; 16]).await?, 7);
    ///
    /// let file = std::fs::File::open("/dev/null")?;
    /// assert!(Options::new().socket_from_fd(file.into()).is_err());
    /// # Ok(()) }
    /// ```
    pub fn socket_from_fd(&self, fd: OwnedFd) -> io::Result<UnixSeqpacket> {
        let (fd, (choice, marked)) = self.adopt(fd, false)?;
        let socket = self.socket_on(choice, fd)?;
        if marked {
            socket.inner.want_control();
        }
        Ok(socket)
    }

    /// Take over a listening socket; it is made non-blocking.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a listening Unix seqpacket socket; if the backend cannot be had.
    /// The descriptor is closed then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// use std::os::fd::OwnedFd;
    /// use tokio_seqpacket::{Options, SocketAddr};
    ///
    /// let inherited = OwnedFd::from(Options::new().bind_addr(&SocketAddr::unnamed(), 16)?);
    /// let listener = Options::new().listener_from_fd(inherited)?;
    /// # drop(listener);
    /// # Ok(()) }
    /// ```
    pub fn listener_from_fd(&self, fd: OwnedFd) -> io::Result<UnixSeqpacketListener> {
        let (fd, (choice, marked)) = self.adopt(fd, true)?;
        let listener = UnixSeqpacketListener::on(choice, fd)?;
        if marked || self.keep_ancillary {
            listener.inner.want_control();
        }
        Ok(listener)
    }

    /// Checks a descriptor that is taken over. What it runs on, and whether its messages carry control data.
    fn adopt(&self, fd: OwnedFd, listening: bool) -> io::Result<(OwnedFd, (Choice, bool))> {
        close::checked(fd, |fd| {
            sys::adopt(fd, listening)?;
            self.prepare(fd)?;
            let marked = sys::marks_messages(fd)?;
            Ok((self.select()?, marked))
        })
    }
}

impl TryFrom<OwnedFd> for UnixSeqpacket {
    type Error = io::Error;

    /// Take over a connected socket, inherited for example; it is made non-blocking.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        Options::new().socket_from_fd(fd)
    }
}

impl TryFrom<OwnedFd> for UnixSeqpacketListener {
    type Error = io::Error;

    /// Take over a listening socket, inherited for example; it is made non-blocking.
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        Options::new().listener_from_fd(fd)
    }
}

/// std has no type for seqpacket sockets; its other Unix sockets serve to carry one at times.
macro_rules! from_std {
    ($std:ident, $ours:ident, $what:literal) => {
        impl TryFrom<net::$std> for $ours {
            type Error = io::Error;

            #[doc = $what]
            /// as std has no type of its own for one: the descriptor is checked and made non-blocking,
            /// and refused with `InvalidInput` if it is what its type says.
            fn try_from(socket: net::$std) -> io::Result<Self> {
                OwnedFd::from(socket).try_into()
            }
        }
    };
}

from_std!(UnixStream, UnixSeqpacket, "Take over a connected seqpacket socket in std's clothes,");
from_std!(UnixDatagram, UnixSeqpacket, "Take over a connected seqpacket socket in std's clothes,");
from_std!(
    UnixListener,
    UnixSeqpacketListener,
    "Take over a listening seqpacket socket in std's clothes,"
);

impl From<UnixSeqpacket> for net::UnixDatagram {
    /// The descriptor in std's clothes, still non-blocking: a datagram socket's calls keep message
    /// boundaries, too.
    fn from(socket: UnixSeqpacket) -> Self {
        OwnedFd::from(socket).into()
    }
}

impl From<UnixSeqpacketListener> for net::UnixListener {
    /// The descriptor in std's clothes, still non-blocking. What it accepts is a seqpacket socket.
    fn from(listener: UnixSeqpacketListener) -> Self {
        OwnedFd::from(listener).into()
    }
}
