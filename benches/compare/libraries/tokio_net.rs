//! What tokio itself offers: datagrams, and messages framed by their length on a stream.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::net::SocketType;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixDatagram, UnixListener, UnixStream};

use super::{Library, Socket, socketpair, truncated, whole};

#[derive(Clone)]
pub struct Datagram;
#[derive(Clone)]
pub struct Framed;

const NO_ANCILLARY: Option<&str> = Some("tokio's own sockets pass no descriptors");

impl Library for Datagram {
    type End = OwnedFd;
    type Socket = Arc<UnixDatagram>;
    type Listener = ();

    const NO_DESCRIPTORS: Option<&'static str> = NO_ANCILLARY;
    const NO_LISTENER: Option<&'static str> = Some("datagram sockets have no connections");

    fn ends(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        socketpair(SocketType::DGRAM)
    }

    fn adopt(&self, end: OwnedFd) -> io::Result<Self::Socket> {
        Ok(Arc::new(UnixDatagram::from_std(end.into())?))
    }

    fn listen(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, _path: &Path) -> io::Result<Self::Socket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn accept(&self, _listener: &mut ()) -> io::Result<Self::Socket> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Socket for Arc<UnixDatagram> {
    async fn send(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        whole(UnixDatagram::send(self, message).await?, message)
    }

    async fn recv(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        UnixDatagram::recv(self, buffer).await
    }

    fn share(&self) -> io::Result<Self> {
        Ok(self.clone())
    }
}

impl Library for Framed {
    type End = OwnedFd;
    type Socket = Frames;
    type Listener = UnixListener;

    const NO_DESCRIPTORS: Option<&'static str> = NO_ANCILLARY;
    const NO_SHARING: Option<&'static str> =
        Some("several tasks need a lock around a stream, to keep their frames apart");

    fn ends(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        socketpair(SocketType::STREAM)
    }

    fn adopt(&self, end: OwnedFd) -> io::Result<Frames> {
        Ok(Frames::new(UnixStream::from_std(end.into())?))
    }

    fn listen(&self, path: &Path) -> io::Result<UnixListener> {
        UnixListener::bind(path)
    }

    async fn connect(&self, path: &Path) -> io::Result<Frames> {
        Ok(Frames::new(UnixStream::connect(path).await?))
    }

    async fn accept(&self, listener: &mut UnixListener) -> io::Result<Frames> {
        Ok(Frames::new(listener.accept().await?.0))
    }
}

/// Four bytes of length before each message. One write for both, buffered reads: as a codec would do it.
pub struct Frames {
    stream: BufReader<UnixStream>,
    frame: Vec<u8>,
}

impl Frames {
    fn new(stream: UnixStream) -> Self {
        // No allocation for the idle: a buffer as long as the first message is made with it.
        Self { stream: BufReader::with_capacity(1024, stream), frame: Vec::new() }
    }
}

impl Socket for Frames {
    async fn send(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        let len = u32::try_from(message.len()).map_err(io::Error::other)?;
        self.frame.clear();
        self.frame.extend_from_slice(&len.to_le_bytes());
        self.frame.extend_from_slice(message);
        self.stream.get_mut().write_all(&self.frame).await
    }

    async fn recv(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let len = match self.stream.read_u32_le().await {
            Ok(len) => len as usize,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            Err(error) => return Err(error),
        };
        let target = buffer.get_mut(..len).ok_or_else(truncated)?;
        self.stream.read_exact(target).await?;
        Ok(len)
    }
}
