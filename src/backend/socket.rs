//! A connected socket, on either backend: the calls.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, ready};

use filedesc::FileDesc;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use super::core::{Core, RecvDirection};
use super::recv::Receive;
use super::runtimes;
use super::select::Choice;
use super::send::{LentMessage, LentSend, Spare, WaitReason, WaitingSend, send_given_now};
use super::sink::{BorrowedSink, BytesSink, ManySink, OwnedSink, Sink, StreamSink, VectoredSink};
use crate::ancillary::wire::MAX_FDS;
use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader};
use crate::buf::owned::{Parts, PartsMut, Scatter};
use crate::common::async_fd;
use crate::common::completed::{Completed, capacity};
use crate::common::metrics::{Carried, Traffic};
use crate::common::pending_send::PendingSend;
use crate::common::recv_batch::RecvBatch;
use crate::sys;
use crate::types::backend::{Backend, Submission};
use crate::types::message_info::MessageInfo;

/// How often a call yields to a driver that works for its socket on another thread.
const DRIVER_WAITS: usize = 10_000;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Socket {
    core: Arc<Core>,
}

impl Socket {
    /// Creates a socket of a non-blocking descriptor.
    ///
    /// With `submission` the socket is one of the io_uring backend. If no ring can be made, the descriptor is returned with the
    /// error.
    pub(super) fn new(
        fd: OwnedFd,
        submission: Option<Submission>,
    ) -> Result<Self, (io::Error, Option<OwnedFd>)> {
        let runtime = match runtimes::here() {
            Ok(runtime) => runtime,
            Err(error) => return Err((error, Some(fd))),
        };
        if submission.is_some()
            && let Err(error) = runtime.some_worker().ensure_ring()
        {
            return Err((error, Some(fd)));
        }
        let core = Core::new(fd, runtime, submission).map_err(|error| (error, None))?;
        Ok(Self { core })
    }

    /// Makes a socket of a non-blocking descriptor, on the backend that was chosen.
    pub(crate) fn on(choice: Choice, fd: OwnedFd) -> io::Result<Self> {
        let fd = match choice.backend {
            Backend::Epoll => fd,
            Backend::Uring => match Self::new(fd, Some(choice.submission)) {
                Ok(socket) => return Ok(socket),
                Err((error, Some(fd))) if choice.may_fall_back => {
                    crate::common::trace::fell_back(&error);
                    fd
                }
                Err((error, _)) => return Err(error),
            },
        };
        Self::new(fd, None).map_err(|(error, _)| error)
    }

    pub(crate) fn backend(&self) -> Backend {
        if self.core.is_uring() { Backend::Uring } else { Backend::Epoll }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.core.fd()
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// What was sent.
    pub(crate) fn sent(&self) -> &Traffic {
        &self.core.sent
    }

    /// What was received, by calls and by streams.
    pub(crate) fn received(&self) -> &Traffic {
        &self.core.received
    }

    /// Makes attempts take ancillary data along from now on. With it, plain receives distinguish an empty message from the end of
    /// the stream.
    pub(crate) fn want_control(&self) {
        self.core.want_control();
    }

    pub(crate) fn set_max_fds(&self, most: usize) {
        // A submitted attempt has capacity for as many as were allowed.
        let _recv = self.lock_between_attempts();
        self.core.set_max_fds(most);
    }

    pub(crate) fn max_fds(&self) -> usize {
        self.core.max_fds()
    }

    /// Makes the kernel mark messages, so that an empty one can be distinguished from the end of the stream.
    pub(crate) fn mark_messages(&self) -> io::Result<()> {
        self.lock_between_attempts().marks.mark(self.fd())
    }

    /// Locks the receive direction to change how much control data may come. Where descriptors are limited, a submitted attempt
    /// has capacity for what was right when its batch began, and the kernel would discard descriptors that do not fit.
    fn lock_between_attempts(&self) -> MutexGuard<'_, RecvDirection> {
        for _ in 0..DRIVER_WAITS {
            let recv = self.core.lock_recv();
            if self.core.max_fds() == MAX_FDS || !recv.queue.is_submitted() {
                return recv;
            }
            drop(recv);
            // The driver is in a pass, for some microseconds.
            std::thread::yield_now();
        }
        // This thread itself may be in the pass: a destructor of the caller's calls this.
        self.core.lock_recv()
    }

    /// Ends a stream for which messages were marked: undoes that, and leaves what it has not yielded to the next receives.
    #[expect(clippy::vec_box, reason = "the queue keeps them in their boxes")]
    pub(crate) fn end_stream(&self, left: Vec<Box<Completed>>) {
        let mut recv = self.core.lock_recv();
        recv.marks.unmark(self.fd());
        let wakes = recv.queue.leave_messages(left.into_iter());
        drop(recv);
        self.core.apply(wakes);
    }

    /// Changes an option that may mark messages.
    pub(crate) fn change_marks(
        &self,
        change: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.lock_between_attempts().marks.change(self.fd(), change)
    }

    pub(crate) fn register_duplicate(&self) -> io::Result<AsyncFd<FileDesc>> {
        let duplicate = self.fd().try_clone_to_owned()?;
        self.core.runtime.check()?;
        self.core.runtime.enter(|| async_fd::register(duplicate, async_fd::BOTH))
    }

    /// Takes the descriptor out. A message that no receive has claimed is lost: see [`close_if_idle`](Self::close_if_idle).
    pub(crate) fn into_fd(self) -> OwnedFd {
        let mut core = self.core.clone();
        drop(self);
        for _ in 0..DRIVER_WAITS {
            match Arc::try_unwrap(core) {
                Ok(Core { fd, readiness, .. }) => {
                    drop(readiness);
                    return Arc::into_inner(fd).expect("the registration is gone");
                }
                // The driver is in a pass, for some microseconds.
                Err(shared) => core = shared,
            }
            std::thread::yield_now();
        }
        // This thread itself may keep it: the I/O driver calls a waker, which calls this.
        loop {
            if let Ok(duplicate) = core.fd.try_clone() {
                return duplicate;
            }
            std::thread::yield_now();
        }
    }

    /// Ends receiving, unless a message lies here that no receive has claimed, something is in a batch, or a send waits. Then
    /// [`into_fd`](Self::into_fd) loses nothing: a driver takes no message meanwhile, also for a receive that was forgotten.
    pub(crate) fn close_if_idle(&self) -> bool {
        let mut recv = self.core.lock_recv();
        let idle = recv.queue.completed().is_none()
            && !recv.queue.is_submitted()
            && self.core.send.is_idle();
        if idle {
            let unclaimed = recv.queue.close();
            drop(recv);
            drop(unclaimed);
        }
        idle
    }

    // ----- send -----

    pub(crate) fn send<'a>(&'a self, message: &'a [u8]) -> LentSend<'a> {
        LentSend::new(&self.core, LentMessage::Bytes(message))
    }

    pub(crate) fn send_message<'a>(
        &'a self,
        message: &'a [IoSlice<'a>],
        control: &'a [u8],
    ) -> LentSend<'a> {
        LentSend::new(&self.core, LentMessage::Message(message, control))
    }

    pub(crate) async fn send_owned<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        self.core.send_given(parts, ancillary).await
    }

    /// Sends a message that has to wait.
    pub(crate) async fn wait_owned<P: Parts>(
        &self,
        parts: P,
        ancillary: AncillaryBuffer,
        waits: (WaitReason, Spare),
    ) -> (io::Result<usize>, P, AncillaryBuffer) {
        self.core.wait_given(parts, ancillary, waits).await
    }

    /// Sends with one call, if no send is ahead. Otherwise returns the reason to wait, with a spare payload.
    pub(crate) async fn send_directly(
        &self,
        call: impl FnMut(BorrowedFd<'_>) -> io::Result<Carried>,
    ) -> Result<io::Result<Carried>, (WaitReason, Spare)> {
        self.core.send_directly(call).await
    }

    pub(crate) fn wait(&self, payload: Box<PendingSend>, reason: WaitReason) -> WaitingSend<'_> {
        WaitingSend::new(&self.core, payload, reason)
    }

    pub(crate) fn try_send(&self, message: &[u8]) -> io::Result<usize> {
        self.core.try_send_with(|fd| LentMessage::Bytes(message).send_now(fd))
    }

    pub(crate) fn try_send_message(
        &self,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> io::Result<usize> {
        self.core.try_send_with(|fd| LentMessage::Message(message, control).send_now(fd))
    }

    pub(crate) fn try_send_owned<P: Parts>(
        &self,
        parts: &P,
        ancillary: &AncillaryBuffer,
    ) -> io::Result<usize> {
        let message = parts.slices();
        self.core.try_send_with(|fd| send_given_now(fd, &message, ancillary))
    }

    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.core.poll_send_with(cx, |fd| LentMessage::Bytes(message).send_now(fd))
    }

    pub(crate) fn poll_send_message(
        &self,
        cx: &mut Context<'_>,
        message: &[IoSlice<'_>],
        control: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.core.poll_send_with(cx, |fd| LentMessage::Message(message, control).send_now(fd))
    }

    // ----- receive -----

    /// Receives without capacity for ancillary data.
    pub(crate) fn receive<S: Sink>(&self, sink: S) -> Receive<'_, S> {
        Receive::new(&self.core, sink)
    }

    /// Receives into several buffers, without capacity for ancillary data.
    pub(crate) fn recv_vectored(
        &self,
        buffers: &mut [IoSliceMut<'_>],
    ) -> impl Future<Output = io::Result<usize>> + Unpin {
        Receive::new(&self.core, VectoredSink(buffers))
    }

    pub(crate) fn poll_recv_vectored(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.core.poll_receive(cx, &mut VectoredSink(buffers))
    }

    pub(crate) fn try_recv_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.core.try_receive(&mut VectoredSink(buffers))
    }

    /// Receives with capacity for ancillary data, or at least with a report whether there was some.
    pub(crate) fn recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> impl Future<Output = io::Result<(MessageInfo, AncillaryMessageReader<'a>)>> + Unpin {
        self.want_control();
        Receive::new(&self.core, BorrowedSink { buffers, control })
    }

    /// Receives into owned buffers. Without an ancillary buffer there is no capacity for control data.
    pub(crate) fn recv_owned<'c, P: PartsMut>(
        &'c self,
        scatter: &'c mut Scatter<P>,
        ancillary: Option<&'c mut AncillaryBuffer>,
    ) -> Receive<'c, OwnedSink<'c, P>> {
        if ancillary.is_some() {
            self.want_control();
        }
        Receive::new(&self.core, OwnedSink { scatter, ancillary })
    }

    pub(crate) async fn recv_many(&self, batch: &mut RecvBatch) -> io::Result<()> {
        self.want_control();
        Receive::new(&self.core, StreamSink(batch)).await
    }

    pub(crate) fn poll_recv_many(
        &self,
        cx: &mut Context<'_>,
        batch: &mut RecvBatch,
    ) -> Poll<io::Result<()>> {
        self.want_control();
        self.core.poll_receive(cx, &mut StreamSink(batch))
    }

    pub(crate) async fn recv_batch(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        infos: &mut Vec<MessageInfo>,
    ) -> io::Result<()> {
        Receive::new(&self.core, ManySink::new(buffers, infos)).await
    }

    pub(crate) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.core.poll_receive(cx, &mut BytesSink(buffer))
    }

    /// Receives without capacity for ancillary data, into memory that need not be initialized.
    #[cfg(feature = "codec")]
    pub(crate) fn poll_recv_plain(
        &self,
        cx: &mut Context<'_>,
        capacity: &mut crate::buf::owned::Capacity<'_>,
    ) -> Poll<io::Result<MessageInfo>> {
        self.core.poll_receive(cx, &mut super::sink::PlainSink(capacity))
    }

    /// Receives into owned buffers, and what comes with the message.
    #[cfg(feature = "codec")]
    pub(crate) fn poll_recv_owned<P: PartsMut>(
        &self,
        cx: &mut Context<'_>,
        scatter: &mut Scatter<P>,
        ancillary: &mut AncillaryBuffer,
    ) -> Poll<io::Result<MessageInfo>> {
        self.want_control();
        self.core.poll_receive(cx, &mut OwnedSink { scatter, ancillary: Some(ancillary) })
    }

    pub(crate) fn poll_recv_message<'a>(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> Poll<io::Result<(MessageInfo, AncillaryMessageReader<'a>)>> {
        self.want_control();
        self.core.poll_receive(cx, &mut BorrowedSink { buffers, control })
    }

    pub(crate) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.core.try_receive(&mut BytesSink(buffer))
    }

    pub(crate) fn try_recv_message<'a>(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        control: &'a mut [u8],
    ) -> io::Result<(MessageInfo, AncillaryMessageReader<'a>)> {
        self.want_control();
        self.core.try_receive(&mut BorrowedSink { buffers, control })
    }

    pub(crate) fn try_recv_owned<P: PartsMut>(
        &self,
        scatter: &mut Scatter<P>,
        ancillary: Option<&mut AncillaryBuffer>,
    ) -> io::Result<MessageInfo> {
        if ancillary.is_some() {
            self.want_control();
        }
        self.core.try_receive(&mut OwnedSink { scatter, ancillary })
    }

    /// Peeks at the completed message if there is one, and otherwise at the kernel's next. A completed error is returned once.
    pub(crate) fn try_peek(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<MessageInfo> {
        self.core.runtime.check()?;
        let mut recv = self.core.lock_recv();
        match recv.queue.completed() {
            Some(Ok(message)) => {
                return Ok(message.peek(buffers));
            }
            Some(Err(errno)) => {
                let error = io::Error::from_raw_os_error(*errno);
                drop(recv.queue.take_completed());
                return Err(error);
            }
            None if recv.queue.is_submitted() => return Err(io::ErrorKind::WouldBlock.into()),
            None => {}
        }
        let received = self.core.source(&mut recv.marks).peek(buffers)?;
        Ok(MessageInfo::new(&received, capacity(buffers)))
    }

    // ----- readiness -----

    /// Returns ready when a call may succeed, or registers the task to be woken then. For one direction.
    pub(crate) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
        interest: Interest,
    ) -> Poll<io::Result<()>> {
        loop {
            let ready = self.ready_now(interest)?;
            if !ready.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let parked = if interest.is_readable() {
                ready!(self.core.poll_readable_waker(cx, false))?
            } else {
                ready!(self.core.poll_writable_waker(cx))?
            };
            if parked {
                return Poll::Pending;
            }
        }
    }

    pub(crate) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        loop {
            // From here on an announcement is not lost.
            let notified = self.core.notify.notified();
            let announced = self.core.announce(interest)?;
            let ready = self.ready_now(interest)?;
            if !ready.is_empty() {
                return Ok(ready);
            }
            if announced {
                notified.await;
            }
        }
    }

    /// Returns what a call would find now.
    fn ready_now(&self, interest: Interest) -> io::Result<Ready> {
        self.core.runtime.check()?;
        let mut wanted = interest;
        let mut ready = Ready::EMPTY;
        if interest.is_readable() {
            let recv = self.core.lock_recv();
            if recv.queue.completed().is_some() {
                ready |= Ready::READABLE;
            }
            if recv.queue.completed().is_some() || recv.queue.is_submitted() {
                match wanted.remove(Interest::READABLE) {
                    Some(rest) => wanted = rest,
                    None => return Ok(ready),
                }
            }
        }
        if interest.is_writable() && !self.core.send.is_idle() {
            match wanted.remove(Interest::WRITABLE) {
                Some(rest) => wanted = rest,
                None => return Ok(ready),
            }
        }
        Ok(ready | sys::ready(self.fd(), wanted)?)
    }
}

impl Core {
    /// Makes the next change announced on `notify`. Returns false if something may have come meanwhile.
    fn announce(self: &Arc<Self>, interest: Interest) -> io::Result<bool> {
        let mut announced = true;
        if interest.is_writable() {
            let mut send = self.send.lock();
            send.queue.observers.announce();
            let is_idle = send.queue.is_idle();
            drop(send);
            // While sends wait, a driver makes progress with them, and announces once they are gone.
            if is_idle {
                announced &= self.park_until_writable()?;
            }
        }
        let mut recv = self.lock_recv();
        recv.queue.observers.announce();
        let waits = recv.queue.is_submitted() || recv.queue.is_parked();
        drop(recv);
        if !waits && interest.is_readable() {
            announced &= self.park_until_readable()?;
        }
        Ok(announced)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let released = self.core.close();
        // Last, since dropping a caller's buffer may panic.
        drop(released);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::select::select;
    use crate::common::metrics::Counter;
    use crate::types::backend::Selection;
    use crate::uring::probe::is_available;
    use crate::uring::ring::refusing::{ERRNO, EVERY};

    /// Refused operations are called directly, or tried again: nothing fails, is lost or comes twice.
    #[test]
    fn an_operation_that_the_ring_refuses_is_done_without_it() {
        if !is_available() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refusals = [libc::EACCES, libc::EPERM, libc::EINVAL, libc::EOPNOTSUPP, libc::ENOMEM];
        for errno in refusals.into_iter().chain([libc::ECANCELED, libc::EINTR]) {
            for (every, keeps) in [(1, false), (2, false), (3, true), (7, false)] {
                // An operation that is always refused with an error for "again" is tried for ever.
                if every == 1 && !refusals.contains(&errno) {
                    continue;
                }
                let refused = || {
                    let runtime = runtimes::here().unwrap();
                    runtime.some_worker().counters.get(Counter::Refused)
                };
                runtime.block_on(async {
                    let before = refused();
                    ERRNO.set(errno);
                    EVERY.set(every);
                    let tasks: Vec<_> = (0..4).flat_map(|_| both_ways(keeps)).collect();
                    for task in tasks {
                        tokio::time::timeout(std::time::Duration::from_secs(10), task)
                            .await
                            .expect("in time")
                            .expect("no panic");
                    }
                    EVERY.set(0);
                    let counts = refusals.contains(&errno);
                    assert_eq!(refused() > before, counts, "{errno}, every {every}");
                });
            }
        }
    }

    fn both_ways(keep_ancillary: bool) -> [tokio::task::JoinHandle<()>; 2] {
        let choice = select(Selection::Uring, Some(Submission::Ring)).unwrap();
        let (a, b) = sys::socketpair().unwrap();
        [a, b].map(|fd| {
            let socket = Socket::on(choice, fd).unwrap();
            if keep_ancillary {
                socket.want_control();
            }
            tokio::spawn(count(socket))
        })
    }

    async fn count(socket: Socket) {
        for number in 0..100_u32 {
            assert_eq!(socket.send(&number.to_ne_bytes()).await.unwrap(), 4);
            let mut message = [0; 8];
            assert_eq!(socket.receive(BytesSink(&mut message)).await.unwrap(), 4);
            assert_eq!(message[..4], number.to_ne_bytes());
        }
        assert!(!matches!(socket.try_recv(&mut [0; 8]), Ok(1..)));
    }
}
