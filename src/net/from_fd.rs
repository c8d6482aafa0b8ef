//! Conversions from descriptors that were opened elsewhere, and to the types of std.

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
    /// Takes over a connected socket and makes it non-blocking.
    ///
    /// # Errors
    /// - `InvalidInput` if the descriptor is not a Unix seqpacket socket, listens, or is not
    ///   connected.
    /// - An error if the backend is not available.
    ///
    /// The descriptor is closed on an error.
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

    /// Takes over a listening socket and makes it non-blocking.
    ///
    /// # Errors
    /// - `InvalidInput` if the descriptor is not a listening Unix seqpacket socket.
    /// - An error if the backend is not available.
    ///
    /// The descriptor is closed on an error.
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
        self.set_up(&listener);
        if marked {
            listener.inner.want_control();
        }
        Ok(listener)
    }

    /// Checks a descriptor that is taken over. Returns its backend, and whether its messages carry
    /// control data.
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

    /// Takes over a connected socket, for example an inherited one. See
    /// [`Options::socket_from_fd`].
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        Options::new().socket_from_fd(fd)
    }
}

impl TryFrom<OwnedFd> for UnixSeqpacketListener {
    type Error = io::Error;

    /// Takes over a listening socket, for example an inherited one. See
    /// [`Options::listener_from_fd`].
    fn try_from(fd: OwnedFd) -> io::Result<Self> {
        Options::new().listener_from_fd(fd)
    }
}

/// Conversions from std's Unix sockets. std has no type for seqpacket sockets, so these carry one
/// at times.
macro_rules! from_std {
    ($std:ident, $ours:ident, $what:literal) => {
        impl TryFrom<net::$std> for $ours {
            type Error = io::Error;

            #[doc = $what]
            ///
            /// std has no type for seqpacket sockets. The descriptor is checked and made
            /// non-blocking.
            ///
            /// # Errors
            /// `InvalidInput` for a socket of the kind that its std type says. The descriptor is
            /// closed on an error.
            fn try_from(socket: net::$std) -> io::Result<Self> {
                OwnedFd::from(socket).try_into()
            }
        }
    };
}

from_std!(
    UnixStream,
    UnixSeqpacket,
    "Takes over a connected seqpacket socket that is held as a std `UnixStream`."
);
from_std!(
    UnixDatagram,
    UnixSeqpacket,
    "Takes over a connected seqpacket socket that is held as a std `UnixDatagram`."
);
from_std!(
    UnixListener,
    UnixSeqpacketListener,
    "Takes over a listening seqpacket socket that is held as a std `UnixListener`."
);

impl From<UnixSeqpacket> for net::UnixDatagram {
    /// Returns the descriptor as a std `UnixDatagram`, still non-blocking.
    ///
    /// The calls of a datagram socket keep message boundaries, too.
    fn from(socket: UnixSeqpacket) -> Self {
        OwnedFd::from(socket).into()
    }
}

impl From<UnixSeqpacketListener> for net::UnixListener {
    /// Returns the descriptor as a std `UnixListener`, still non-blocking. The sockets that it
    /// accepts are seqpacket sockets.
    fn from(listener: UnixSeqpacketListener) -> Self {
        OwnedFd::from(listener).into()
    }
}
