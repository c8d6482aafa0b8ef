use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use super::operation::{Bytes, Gate, Operation};
use super::send::{SendGate, Waiting};
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::async_fd;
use crate::buffer::{Parts, PartsMut, Scatter};
use crate::outgoing::Outgoing;
use crate::runtime::Life;
use crate::stream::Filler;
use crate::sys::{self, Received};
use crate::{MessageInfo, batch};

/// A receive into one buffer.
pub(crate) type Recv<'a> = Operation<'a, Bytes<'a>>;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Socket {
    receive: Gate,
    send: SendGate,
}

impl Socket {
    /// `fd` is non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let life = Life::here()?;
        Ok(Self { receive: Gate::new(fd, &life)?, send: SendGate::new() })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.receive.fd()
    }

    pub(crate) fn register_duplicate(&self) -> io::Result<AsyncFd<FileDesc>> {
        let duplicate = self.fd().try_clone_to_owned()?;
        self.receive.life().enter(|| async_fd::register(duplicate, async_fd::BOTH))
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.receive.into_fd()
    }

    pub(crate) async fn send(&self, message: &[u8]) -> io::Result<usize> {
        let slice = [IoSlice::new(message)];
        self.send.send(&self.receive, |fd| sys::send(fd, message), &slice, &[]).await
    }

    pub(crate) async fn send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        let call = |fd: BorrowedFd<'_>| sys::send_message(fd, message, control);
        self.send.send(&self.receive, call, message, control).await
    }

    pub(crate) async fn send_owned<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        self.send.send_owned(&self.receive, parts, ancillary).await
    }

    /// Send many with one call, if nobody is ahead; else a spare payload comes with that answer.
    pub(crate) async fn send_many(
        &self,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Result<io::Result<usize>, Option<Box<Outgoing>>> {
        self.send.directly(&self.receive, call).await
    }

    pub(crate) fn wait(&self, payload: Box<Outgoing>) -> Waiting<'_> {
        self.send.wait(&self.receive, payload)
    }

    pub(crate) async fn recv_many(&self, filler: &mut Filler<'_>) -> io::Result<()> {
        self.receive.operation(|fd| filler.receive(fd)).await
    }

    pub(crate) fn poll_recv_many(
        &self,
        cx: &mut Context<'_>,
        filler: &mut Filler<'_>,
    ) -> Poll<io::Result<()>> {
        self.receive.poll_operation(cx, |fd| filler.receive(fd))
    }

    pub(crate) async fn recv_batch(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        infos: &mut Vec<MessageInfo>,
    ) -> io::Result<()> {
        self.receive.operation(|fd| batch::receive(fd, buffers, infos)).await
    }

    pub(crate) fn recv<'a>(&'a self, buffer: &'a mut [u8]) -> Recv<'a> {
        self.receive.request(Bytes(buffer))
    }

    pub(crate) fn recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        mut control: &'a mut [u8],
    ) -> impl Future<Output = io::Result<(Received, AncillaryMessageReader<'a>)>> + Unpin {
        let call = move |fd: BorrowedFd<'_>| sys::recv_message(fd, buffers, &mut control);
        self.receive.operation(call)
    }

    /// Without an ancillary buffer there is no room for control data.
    pub(crate) async fn recv_owned<P: PartsMut>(
        &self,
        mut parts: Scatter<P>,
        mut ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<Received>, P) {
        let call =
            |fd: BorrowedFd<'_>| sys::recv_scattered(fd, &mut parts, ancillary.as_deref_mut());
        let received = self.receive.operation(call).await;
        (received, parts.settle())
    }

    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.send.poll_send(&self.receive, cx, |fd| sys::send(fd, message))
    }

    pub(crate) fn poll_send_message(
        &self,
        cx: &mut Context<'_>,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.send.poll_send(&self.receive, cx, |fd| sys::send_message(fd, message, control))
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.receive.poll_operation(cx, |fd| sys::recv(fd, buffer))
    }

    pub(crate) fn poll_recv_message<'a>(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        mut control: &'a mut [u8],
    ) -> Poll<io::Result<(Received, AncillaryMessageReader<'a>)>> {
        let call = |fd: BorrowedFd<'_>| sys::recv_message(fd, buffers, &mut control);
        self.receive.poll_operation(cx, call)
    }

    pub(crate) fn try_send(&self, message: &[u8]) -> io::Result<usize> {
        self.send.try_send(&self.receive, |fd| sys::send(fd, message))
    }

    pub(crate) fn try_send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        self.send.try_send(&self.receive, |fd| sys::send_message(fd, message, control))
    }

    pub(crate) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive.try_operation(|fd| sys::recv(fd, buffer))
    }

    pub(crate) fn try_recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        mut control: &'a mut [u8],
    ) -> io::Result<(Received, AncillaryMessageReader<'a>)> {
        self.receive.try_operation(|fd| sys::recv_message(fd, buffers, &mut control))
    }

    pub(crate) fn try_send_owned<P: Parts>(
        &self,
        parts: &P,
        ancillary: &AncillaryBuffer,
    ) -> io::Result<usize> {
        let message = parts.slices();
        self.send.try_send(&self.receive, |fd| sys::send_with_ancillary(fd, &message, ancillary))
    }

    pub(crate) fn try_recv_owned<P: PartsMut>(
        &self,
        mut parts: Scatter<P>,
        mut ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<Received>, P) {
        let received = self
            .receive
            .try_operation(|fd| sys::recv_scattered(fd, &mut parts, ancillary.as_deref_mut()));
        (received, parts.settle())
    }

    pub(crate) fn try_peek(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Received> {
        self.receive.try_operation(|fd| sys::peek(fd, buffers))
    }

    /// No message is ever between the kernel's queue and a caller.
    pub(crate) fn is_settled(&self) -> bool {
        true
    }

    /// Readiness as tokio has it, without the directions in which somebody waits in line.
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let (read, write) = (interest.is_readable(), interest.is_writable());
        let registration = self.receive.lasting_registration()?;
        loop {
            match (read, write) {
                (true, true) => either(self.receive.idle(), self.send.idle(&self.receive)).await,
                (true, false) => self.receive.idle().await,
                (false, true) => self.send.idle(&self.receive).await,
                (false, false) => {}
            }
            let mut ready = {
                let mut guard = registration.ready(interest).await?;
                guard.retain_ready();
                guard.ready()
            };
            if !self.receive.is_idle() {
                ready = ready - (Ready::READABLE | Ready::READ_CLOSED);
            }
            if !self.send.is_idle() {
                ready = ready - (Ready::WRITABLE | Ready::WRITE_CLOSED);
            }
            if !ready.is_empty() {
                return Ok(ready);
            }
        }
    }

    pub(crate) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
    ) -> Poll<io::Result<()>> {
        let registration = self.receive.lasting_registration()?;
        let guard = if interest.is_readable() {
            ready!(self.receive.poll_idle(cx.waker()));
            ready!(registration.poll_read_ready(cx))
        } else {
            ready!(self.send.poll_idle(cx.waker()));
            ready!(registration.poll_write_ready(cx))
        };
        guard?.retain_ready();
        Poll::Ready(Ok(()))
    }
}

/// Complete with the first of two futures.
async fn either(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    std::future::poll_fn(|cx| match a.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => b.as_mut().poll(cx),
    })
    .await
}
