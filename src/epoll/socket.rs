use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use super::lane::Lane;
use crate::ancillary::wire::MAX_CONTROL;
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::async_fd;
use crate::buffer::{Parts, PartsMut};
use crate::sys::{self, Received};

/// A connected socket, registered with the runtime's I/O driver.
#[derive(Debug)]
pub(crate) struct Socket {
    io: AsyncFd<FileDesc>,
    receive: Lane,
    send: Lane,
}

impl Socket {
    /// `fd` is non-blocking.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { io: async_fd::register(fd)?, receive: Lane::new(), send: Lane::new() })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.io.get_ref().as_fd()
    }

    pub(crate) fn as_async_fd(&self) -> &AsyncFd<FileDesc> {
        &self.io
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.io.into_inner().into_fd()
    }

    pub(crate) async fn send(&self, message: &[u8]) -> io::Result<usize> {
        let _turn = self.send.turn().await;
        self.io.async_io(Interest::WRITABLE, |fd| sys::send(fd.as_fd(), message)).await
    }

    pub(crate) async fn send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        let _turn = self.send.turn().await;
        self.io
            .async_io(Interest::WRITABLE, |fd| sys::send_message(fd.as_fd(), message, control))
            .await
    }

    pub(crate) async fn send_owned<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let sent = if ancillary.is_empty() && parts.count() == 1 {
            self.send(parts.part(0)).await
        } else {
            self.send_parts(&parts_of(&parts), &ancillary).await
        };
        (sent, parts, ancillary)
    }

    async fn send_parts(
        &self,
        slices: &[IoSlice<'_>],
        ancillary: &AncillaryBuffer,
    ) -> io::Result<usize> {
        let mut control = [0; MAX_CONTROL];
        let len = ancillary.encode(&mut control)?;
        self.send_message(slices, &control[..len]).await
    }

    pub(crate) async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let _turn = self.receive.turn().await;
        self.io.async_io(Interest::READABLE, |fd| sys::recv(fd.as_fd(), buffer)).await
    }

    pub(crate) async fn recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        mut control: &'a mut [u8],
    ) -> io::Result<(Received, AncillaryMessageReader<'a>)> {
        let _turn = self.receive.turn().await;
        self.io
            .async_io(Interest::READABLE, |fd| sys::recv_message(fd.as_fd(), buffers, &mut control))
            .await
    }

    /// Without an ancillary buffer there is no room for control data.
    pub(crate) async fn recv_owned<P: PartsMut>(
        &self,
        mut parts: P,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<Received>, P) {
        let mut room = [0; MAX_CONTROL];
        let mut control = match ancillary {
            Some(_) => &mut room[..],
            None => &mut [],
        };
        let _turn = self.receive.turn().await;
        let received = self
            .io
            .async_io(Interest::READABLE, |fd| {
                sys::recv_parts(fd.as_fd(), &mut parts, &mut control)
            })
            .await
            .map(|(received, reader)| {
                if let Some(ancillary) = ancillary {
                    ancillary.fill(reader);
                }
                received
            });
        (received, parts)
    }

    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_with(cx, |fd| sys::send(fd, message))
    }

    pub(crate) fn poll_send_message(
        &self,
        cx: &mut Context<'_>,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_with(cx, |fd| sys::send_message(fd, message, control))
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_recv_with(cx, |fd| sys::recv(fd, buffer))
    }

    pub(crate) fn poll_recv_message<'a>(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        mut control: &'a mut [u8],
    ) -> Poll<io::Result<(Received, AncillaryMessageReader<'a>)>> {
        self.poll_recv_with(cx, |fd| sys::recv_message(fd, buffers, &mut control))
    }

    pub(crate) fn try_send(&self, message: &[u8]) -> io::Result<usize> {
        self.try_send_with(|fd| sys::send(fd, message))
    }

    pub(crate) fn try_send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        self.try_send_with(|fd| sys::send_message(fd, message, control))
    }

    pub(crate) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_recv_with(|fd| sys::recv(fd, buffer))
    }

    pub(crate) fn try_recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        mut control: &'a mut [u8],
    ) -> io::Result<(Received, AncillaryMessageReader<'a>)> {
        self.try_recv_with(|fd| sys::recv_message(fd, buffers, &mut control))
    }

    /// Readiness as tokio has it, without the directions whose lane is busy.
    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        loop {
            let ready = {
                let mut guard = self.io.ready(interest).await?;
                guard.retain_ready();
                guard.ready()
            };
            let mut idle = ready;
            if !self.receive.is_idle() {
                idle = idle - (Ready::READABLE | Ready::READ_CLOSED);
            }
            if !self.send.is_idle() {
                idle = idle - (Ready::WRITABLE | Ready::WRITE_CLOSED);
            }
            if !idle.is_empty() {
                return Ok(idle);
            }
            // Only directions asked for are in `ready`, and each of them is busy.
            match (ready.is_readable(), ready.is_writable()) {
                (true, true) => either(self.receive.settled(), self.send.settled()).await,
                (true, false) => self.receive.settled().await,
                _ => self.send.settled().await,
            }
        }
    }

    pub(crate) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
    ) -> Poll<io::Result<()>> {
        if interest.is_readable() {
            drop(ready!(self.receive.poll_turn(cx)));
            ready!(self.io.poll_read_ready(cx))?.retain_ready();
        } else {
            drop(ready!(self.send.poll_turn(cx)));
            ready!(self.io.poll_write_ready(cx))?.retain_ready();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let _turn = ready!(self.send.poll_turn(cx));
        loop {
            let mut guard = ready!(self.io.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|io| call(io.get_ref().as_fd())) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_recv_with<T>(
        &self,
        cx: &mut Context<'_>,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let _turn = ready!(self.receive.poll_turn(cx));
        loop {
            let mut guard = ready!(self.io.poll_read_ready(cx))?;
            if let Ok(result) = guard.try_io(|io| call(io.get_ref().as_fd())) {
                return Poll::Ready(result);
            }
        }
    }

    fn try_send_with<T>(&self, call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let _turn = self.send.try_turn().ok_or(io::ErrorKind::WouldBlock)?;
        self.try_now(Interest::WRITABLE, call)
    }

    fn try_recv_with<T>(&self, call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        let _turn = self.receive.try_turn().ok_or(io::ErrorKind::WouldBlock)?;
        self.try_now(Interest::READABLE, call)
    }

    /// Call the kernel also where tokio has not heard of readiness yet, as it has not for a new
    /// socket; through `try_io`, so that readiness found wrong is cleared.
    fn try_now<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut called = false;
        let result = self.io.try_io(interest, |fd| {
            called = true;
            call(fd.as_fd())
        });
        if called { result } else { call(self.fd()) }
    }
}

fn parts_of<P: Parts>(parts: &P) -> Vec<IoSlice<'_>> {
    (0..parts.count()).map(|index| IoSlice::new(parts.part(index))).collect()
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
