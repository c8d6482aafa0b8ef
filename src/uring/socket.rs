//! A connected socket: the calls.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use super::driver::Driver;
use super::lane::ReceiveLane;
use super::op::{Borrowed, Bytes, Many, Owned, Receiving, Sending, Sink, Stream, from_errno};
use super::shard::Shard;
use super::state::{Core, Receive, is_would_block, lock};
use crate::MessageInfo;
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::budget;
use crate::buffer::{Parts, PartsMut, Scatter};
use crate::lane::{After, Step};
use crate::line::Line;
use crate::look::{Aside, Busy, Looks};
use crate::outgoing::Outgoing;
use crate::stream::Filler;
use crate::sys::{self, Received};
use crate::watch::Bell;

/// A receive into one buffer.
pub(crate) type Recv<'a> = Receiving<'a, Bytes<'a>>;

/// A connected socket of a runtime with a driver.
pub(crate) struct Socket {
    core: Arc<Core>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("fd", &self.core.fd).finish_non_exhaustive()
    }
}

impl Socket {
    /// `fd` is non-blocking. It is returned if there is no driver to be had.
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, (io::Error, OwnedFd)> {
        let driver = match Driver::here() {
            Ok(driver) => driver,
            Err(error) => return Err((error, fd)),
        };
        let receive = Receive {
            lane: ReceiveLane::new(),
            looks: Looks::default(),
            armed_in: 0,
            alone: 0,
            waits: None,
            unused: 0,
            spare: None,
        };
        let core = Core {
            fd: Arc::new(fd),
            driver,
            receive: Mutex::new(receive),
            send: Line::new(),
            settled: Bell::default(),
            readiness: OnceLock::new(),
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Whether a socket made here and now would have a driver.
    pub(crate) fn check() -> io::Result<()> {
        Driver::here().map(drop)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.core.fd.as_fd()
    }

    pub(crate) fn register_duplicate(&self) -> io::Result<AsyncFd<FileDesc>> {
        self.core.register_duplicate()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        let core = self.core.clone();
        // Cancels what is in flight, and usually settles it.
        drop(self);
        match Arc::try_unwrap(core) {
            Ok(Core { fd, receive, .. }) => {
                // With the registration.
                drop(receive);
                Arc::into_inner(fd).expect("no other owner is left")
            }
            // Still known to an operation that settles on another thread.
            Err(core) => loop {
                if let Ok(duplicate) = core.fd.try_clone() {
                    break duplicate;
                }
                std::thread::yield_now();
            },
        }
    }

    pub(crate) async fn send(&self, message: &[u8]) -> io::Result<usize> {
        let slice = [IoSlice::new(message)];
        let copy = |spare| Outgoing::copy(&slice, &[], spare);
        self.send_with(|fd| sys::send(fd, message), copy).await
    }

    pub(crate) async fn send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        self.send_with(
            |fd| sys::send_message(fd, message, control),
            |spare| Outgoing::copy(message, control, spare),
        )
        .await
    }

    async fn send_with(
        &self,
        mut direct: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
        copy: impl FnOnce(Option<Box<Outgoing>>) -> io::Result<Box<Outgoing>>,
    ) -> io::Result<usize> {
        match self.send_directly(&mut direct).await {
            Ok(sent) => sent,
            Err(spare) => self.wait_for(copy(spare)?).await.0,
        }
    }

    /// Try the kernel, if nobody is ahead; else the send has to wait, and a spare payload comes with
    /// that answer.
    async fn send_directly(
        &self,
        mut direct: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Result<io::Result<usize>, Option<Box<Outgoing>>> {
        let mut done = None;
        std::future::poll_fn(|cx| {
            let coop = tokio::task::coop::poll_proceed(cx);
            if done.is_none() {
                if self.core.driver.is_dead() {
                    return Poll::Ready(Ok(Err(self.core.driver.error())));
                }
                if !self.core.send.is_idle() {
                    return Poll::Ready(Err(self.core.send.spare()));
                }
                let result = direct(self.core.fd.as_fd());
                if is_would_block(&result) {
                    return Poll::Ready(Err(self.core.send.spare()));
                }
                // Also without budget, for the first poll decides the order; then the task yields
                // before it learns of it.
                done = Some(result);
            }
            budget::take(ready!(coop));
            Poll::Ready(Ok(done.take().expect("called, not polled after completion")))
        })
        .await
    }

    /// Stand in line. Between the poll that found the lane busy and the first of this nothing is
    /// awaited: the place in line is that of the first poll.
    async fn wait_for(&self, payload: Box<Outgoing>) -> (io::Result<usize>, Option<Box<Outgoing>>) {
        let mut sending = self.wait(payload);
        std::future::poll_fn(|cx| sending.poll(cx)).await
    }

    /// As [`wait_for`](Self::wait_for), to be polled by hand.
    pub(crate) fn wait(&self, payload: Box<Outgoing>) -> Sending<'_> {
        Sending { core: &self.core, payload: Some(payload), slot: None }
    }

    /// Send many with one call, if nobody is ahead; else a spare payload comes with that answer.
    pub(crate) async fn send_many(
        &self,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Result<io::Result<usize>, Option<Box<Outgoing>>> {
        self.send_directly(call).await
    }

    pub(crate) async fn recv_many(&self, filler: &mut Filler<'_>) -> io::Result<()> {
        self.receive(Stream(filler)).await
    }

    pub(crate) fn poll_recv_many(
        &self,
        cx: &mut Context<'_>,
        filler: &mut Filler<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_receive(cx, &mut Stream(filler))
    }

    pub(crate) async fn recv_batch(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        infos: &mut Vec<MessageInfo>,
    ) -> io::Result<()> {
        self.receive(Many { buffers, infos }).await
    }

    pub(crate) async fn send_owned<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        let sent = {
            let message = parts.slices();
            self.send_directly(|fd| sys::send_with_ancillary(fd, &message, &ancillary)).await
        };
        let spare = match sent {
            Ok(sent) => return (sent, parts, ancillary),
            Err(spare) => spare,
        };
        let payload = match Outgoing::given(parts, ancillary, spare) {
            Ok(payload) => payload,
            Err((error, parts, ancillary)) => return (Err(error), parts, ancillary),
        };
        let (sent, payload) = self.wait_for(payload).await;
        let payload = payload.expect("only an operation that is abandoned keeps its payload");
        let (parts, ancillary, spare) = payload.take();
        if let Some(spare) = spare {
            self.core.send.lock().spares.keep(spare);
        }
        (sent, parts, ancillary)
    }

    fn receive<S: Sink>(&self, sink: S) -> Receiving<'_, S> {
        let (aside, busy) = (Aside::now(), Busy::default());
        Receiving { core: &self.core, sink, ticket: None, aside, busy }
    }

    pub(crate) fn recv<'a>(&'a self, buffer: &'a mut [u8]) -> Recv<'a> {
        self.receive(Bytes(buffer))
    }

    pub(crate) fn recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> impl Future<Output = io::Result<(Received, AncillaryMessageReader<'a>)>> + Unpin {
        self.receive(Borrowed { buffers, control })
    }

    pub(crate) async fn recv_owned<P: PartsMut>(
        &self,
        parts: Scatter<P>,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<Received>, P) {
        let mut sink = Owned::new(parts, ancillary);
        let result = self.receive(&mut sink).await;
        (result, sink.settle())
    }

    // ----- without an operation in flight -----

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

    fn try_send_with(
        &self,
        mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.core.driver.is_dead() {
            return Err(self.core.driver.error());
        }
        if !self.core.send.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.call_now(Interest::WRITABLE, || call(self.fd()))
    }

    pub(crate) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_receive(&mut Bytes(buffer))
    }

    pub(crate) fn try_recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> io::Result<(Received, AncillaryMessageReader<'a>)> {
        self.try_receive(&mut Borrowed { buffers, control })
    }

    fn try_receive<S: Sink>(&self, sink: &mut S) -> io::Result<S::Output> {
        let mut receive = lock(&self.core.receive);
        if let Some(received) = receive.lane.take_stash() {
            drop(receive);
            return from_errno(received).map(|message| sink.deliver(message, None).0);
        }
        if self.core.driver.is_dead() {
            return Err(self.core.driver.error());
        }
        if !receive.lane.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.call_now(Interest::READABLE, || sink.direct(self.fd()))
    }

    pub(crate) fn try_send_owned<P: Parts>(
        &self,
        parts: &P,
        ancillary: &AncillaryBuffer,
    ) -> io::Result<usize> {
        let message = parts.slices();
        self.try_send_with(|fd| sys::send_with_ancillary(fd, &message, ancillary))
    }

    pub(crate) fn try_recv_owned<P: PartsMut>(
        &self,
        parts: Scatter<P>,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> (io::Result<Received>, P) {
        let mut sink = Owned::new(parts, ancillary);
        let result = self.try_receive(&mut sink);
        (result, sink.settle())
    }

    /// The message that lies here for whoever comes first, else what the kernel has. An error that lies
    /// here is reported, once.
    pub(crate) fn try_peek(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Received> {
        let mut receive = lock(&self.core.receive);
        match receive.lane.stash() {
            Some(Ok(message)) => return Ok(message.peek(buffers)),
            Some(Err(errno)) => {
                let error = io::Error::from_raw_os_error(*errno);
                // Only the number: no message whose buffers would be dropped under the lock.
                let _ = receive.lane.take_stash();
                return Err(error);
            }
            None => {}
        }
        if self.core.driver.is_dead() {
            return Err(self.core.driver.error());
        }
        if !receive.lane.is_idle() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.call_now(Interest::READABLE, || sys::peek(self.fd(), buffers))
    }

    /// No message lies here, and no operation is in flight that could bring one.
    pub(crate) fn is_settled(&self) -> bool {
        lock(&self.core.receive).lane.is_idle() && self.core.send.is_idle()
    }

    /// Call the kernel; readiness found wrong is cleared, where anybody looks at it.
    fn call_now<T>(
        &self,
        interest: Interest,
        mut call: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(readiness) = self.core.readiness.get() else { return call() };
        let mut called = false;
        let result = readiness.try_io(interest, |_| {
            called = true;
            call()
        });
        if called { result } else { call() }
    }

    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_with(cx, || self.try_send(message))
    }

    pub(crate) fn poll_send_message(
        &self,
        cx: &mut Context<'_>,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send_with(cx, || self.try_send_message(message, control))
    }

    fn poll_send_with(
        &self,
        cx: &mut Context<'_>,
        mut call: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_ready(cx, Interest::WRITABLE))?;
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_receive(cx, &mut Bytes(buffer))
    }

    pub(crate) fn poll_recv_message<'a>(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> Poll<io::Result<(Received, AncillaryMessageReader<'a>)>> {
        self.poll_receive(cx, &mut Borrowed { buffers, control })
    }

    fn poll_receive<S: Sink>(
        &self,
        cx: &mut Context<'_>,
        sink: &mut S,
    ) -> Poll<io::Result<S::Output>> {
        loop {
            ready!(self.poll_ready(cx, Interest::READABLE))?;
            match self.try_receive(sink) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Ready for a direct call, or the task is woken when that may be so. A lane in use is watched
    /// until it settles.
    pub(crate) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
    ) -> Poll<io::Result<()>> {
        if interest.is_readable() {
            let mut receive = lock(&self.core.receive);
            if receive.lane.has_stash() {
                return Poll::Ready(Ok(()));
            }
            if !receive.lane.is_open() {
                let replaced = receive.lane.watchers().park(cx.waker());
                drop(receive);
                drop(replaced);
                return self.alive();
            }
        } else {
            if let Some(mut send) = self.core.send.lock_if_busy() {
                let replaced = send.lane.watchers().park(cx.waker());
                drop(send);
                drop(replaced);
                return self.alive();
            }
        }
        let readiness = self.core.readiness()?;
        let guard = if interest.is_readable() {
            ready!(readiness.poll_read_ready(cx))
        } else {
            ready!(readiness.poll_write_ready(cx))
        };
        guard?.retain_ready();
        Poll::Ready(Ok(()))
    }

    fn alive<T>(&self) -> Poll<io::Result<T>> {
        if self.core.driver.is_dead() {
            return Poll::Ready(Err(self.core.driver.error()));
        }
        Poll::Pending
    }

    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let (read, write) = (interest.is_readable(), interest.is_writable());
        loop {
            let notified = self.core.settled.notified();
            // Wait for a lane that is asked for to be open.
            let mut open = !(read || write);
            if read {
                let mut receive = lock(&self.core.receive);
                if receive.lane.has_stash() {
                    return Ok(Ready::READABLE);
                }
                open |= receive.lane.is_open();
                receive.lane.watchers().announce();
            }
            if write {
                match self.core.send.lock_if_busy() {
                    Some(mut send) => send.lane.watchers().announce(),
                    None => open = true,
                }
            }
            if self.core.driver.is_dead() {
                return Err(self.core.driver.error());
            }
            if !open {
                notified.await;
                continue;
            }
            let mut ready = {
                let mut guard = self.core.readiness()?.ready(interest).await?;
                guard.retain_ready();
                guard.ready()
            };
            if !lock(&self.core.receive).lane.is_open() {
                ready = ready - (Ready::READABLE | Ready::READ_CLOSED);
            }
            if !self.core.send.is_idle() {
                ready = ready - (Ready::WRITABLE | Ready::WRITE_CLOSED);
            }
            if !ready.is_empty() {
                return Ok(ready);
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let core = &self.core;
        let (receive_after, receive_step, rooms) = {
            let mut receive = lock(&core.receive);
            let (after, rooms) = receive.lane.close();
            (after, receive.lane.attend(), rooms)
        };
        let sends = core.send.lock_if_used().map(|mut send| {
            let (after, payloads) = send.lane.close();
            (after, send.lane.attend(), payloads)
        });
        let (send_after, send_step, payloads) =
            sends.unwrap_or((After::default(), Step::Nothing, Vec::new()));
        receive_after.wake.wake(&core.settled);
        send_after.wake.wake(&core.settled);
        for step in [receive_step, send_step] {
            if let Step::Cancel(key) = step
                && let Some(shard) = core.driver.shard(Shard::index_of(key))
            {
                shard.cancel_now(key);
            }
        }
        // Of calls that were forgotten. Last: the buffers' destructors may panic.
        drop((receive_after.release, rooms, send_after.release, payloads));
    }
}
