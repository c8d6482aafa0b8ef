//! The other end of a socket under test, in plain system calls that take effect at once.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::io::Interest;

use super::messages::FILLER;
use super::syscalls;
pub use super::syscalls::socketpair;

/// Never waits, but for the async methods.
#[derive(Debug)]
pub struct Peer {
    pub fd: OwnedFd,
    /// What [`drain`](Self::drain) found.
    inbox: Mutex<Vec<Vec<u8>>>,
}

pub fn socket() -> OwnedFd {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .expect("socket(2)")
}

impl From<OwnedFd> for Peer {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, inbox: Mutex::default() }
    }
}

impl Peer {
    /// Connect to a listener whose backlog has capacity.
    pub fn connect(path: &Path) -> Self {
        let socket = socket();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).expect("a path"))
            .expect("connect(2)");
        socket.into()
    }

    pub fn try_send(&self, message: &[u8]) -> io::Result<usize> {
        syscalls::send(&self.fd, message)
    }

    /// The message has arrived when this returns.
    pub fn send(&self, message: &[u8]) {
        assert_eq!(self.try_send(message).expect("capacity in the queue"), message.len());
    }

    pub fn send_fds(&self, message: &[u8], fds: &[OwnedFd]) {
        let sent = self.try_send_fds(message, fds);
        assert_eq!(sent.expect("capacity in the queue"), message.len());
    }

    pub fn try_send_fds(&self, message: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        let rights = SendAncillaryMessage::ScmRights(&fds);
        let mut space = vec![MaybeUninit::uninit(); rights.size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rights));
        Ok(rustix::net::sendmsg(
            &self.fd,
            &[IoSlice::new(message)],
            &mut control,
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        )?)
    }

    pub fn try_recv(&self) -> io::Result<Vec<u8>> {
        Ok(self.try_recv_fds()?.0)
    }

    pub fn try_recv_fds(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        thread_local! {
            // These tests loop over messages: one buffer for all.
            static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
        }
        let mut space = [MaybeUninit::uninit(); 2048];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let bytes = BUFFER.with_borrow_mut(|bytes| {
            let received = rustix::net::recvmsg(
                &self.fd,
                &mut [IoSliceMut::new(bytes)],
                &mut control,
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            )?;
            io::Result::Ok(bytes[..received.bytes].to_vec())
        })?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        Ok((bytes, fds))
    }

    /// A message that is there.
    pub fn recv(&self) -> Vec<u8> {
        self.try_recv().expect("a message in the queue")
    }

    /// Take all messages that are there, to free the queue. [`arrived`](Self::arrived) returns them. More
    /// can come meanwhile: what waits in a ring goes out by itself.
    pub fn drain(&self) {
        loop {
            match self.try_recv() {
                Ok(message) if message.is_empty() => return,
                Ok(message) => self.inbox.lock().unwrap().push(message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => panic!("recvmsg(2): {error}"),
            }
        }
    }

    /// All messages that came since the last call, but for the fillers.
    pub fn arrived(&self) -> Vec<Vec<u8>> {
        let mut messages = self.everything();
        messages.retain(|message| message != FILLER);
        messages
    }

    /// All messages that came since the last call.
    pub fn everything(&self) -> Vec<Vec<u8>> {
        self.drain();
        std::mem::take(&mut *self.inbox.lock().unwrap())
    }

    /// Whether end of stream is there now. The socket must not have queued messages.
    pub fn sees_end(&self) -> bool {
        match self.try_recv() {
            Ok(message) => {
                assert_eq!(message, b"", "a message instead of end of stream");
                true
            }
            Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => self.sees_end(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("recvmsg(2): {error}"),
        }
    }

    /// The next message, when it comes.
    pub async fn next(&self) -> io::Result<Vec<u8>> {
        // A datagram socket to tokio, which only waits on it.
        let socket = std::os::unix::net::UnixDatagram::from(self.fd.try_clone()?);
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        socket.async_io(Interest::READABLE, || self.try_recv()).await
    }

    /// Wait for end of stream. A reset before it is ignored, a message is an error.
    pub async fn ended(&self) {
        loop {
            match self.next().await {
                Ok(message) => {
                    assert_eq!(message, b"", "a message instead of end of stream");
                    return;
                }
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET)),
            }
        }
    }

    pub fn set_blocking(&self) {
        let flags = rustix::fs::fcntl_getfl(&self.fd).expect("F_GETFL");
        rustix::fs::fcntl_setfl(&self.fd, flags - rustix::fs::OFlags::NONBLOCK).expect("F_SETFL");
    }

    /// Wait on this thread until there is capacity. After [`set_blocking`](Self::set_blocking).
    pub fn send_waiting(&self, message: &[u8]) {
        rustix::net::send(&self.fd, message, SendFlags::NOSIGNAL).expect("send(2)");
    }
}
