//! What each kind of receive does with its message ([`Sink`]).

use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;

use tokio::task::coop;

use crate::ancillary::{AncillaryBuffer, AncillaryMessageReader, ReceivedControl};
use crate::buf::owned::{Capacity, PartsMut, Scatter};
use crate::common::completed::{capacity, scatter};
use crate::common::metrics::Carried;
use crate::common::recv_batch::{RecvBatch, recv_many};
use crate::common::source::Source;
use crate::sys;
use crate::types::message_info::MessageInfo;
use crate::types::recv_meta::RecvMeta;
use crate::util::coop as budget;

/// How one kind of receive wants its message. Nothing here runs user code, so that it can be called under the queue's
/// lock.
pub(crate) trait Sink {
    type Output;

    /// Whether it is a stream, which other receives wait for.
    const IS_STREAM: bool = false;

    /// Whether a `poll_*` call for it yields and calls again before it registers the task. It wakes the task by itself then.
    const POLL_RETRIES: bool = false;

    /// Straight from the kernel, without waiting.
    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<Self::Output>;

    /// A completed message. `control` owns the descriptors that came with it.
    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<Self::Output>;

    /// Whether it wants one message, for which an attempt will do.
    fn may_batch(&self) -> bool {
        true
    }

    /// What the call has received.
    fn measure(&self, output: &Self::Output) -> Carried;

    /// The whole length of a message that was received directly, also if it was truncated.
    fn message_len(&self, output: &Self::Output) -> usize;

    /// Pays tokio's budget. Quick calls share a unit.
    fn pay(budget: coop::RestoreOnPending) {
        budget::take(budget);
    }
}

impl<S: Sink> Sink for &mut S {
    type Output = S::Output;
    const IS_STREAM: bool = S::IS_STREAM;
    const POLL_RETRIES: bool = S::POLL_RETRIES;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<S::Output> {
        S::direct(self, source)
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<S::Output> {
        S::deliver(self, bytes, received, control)
    }

    fn may_batch(&self) -> bool {
        S::may_batch(self)
    }

    fn measure(&self, output: &S::Output) -> Carried {
        S::measure(self, output)
    }

    fn message_len(&self, output: &S::Output) -> usize {
        S::message_len(self, output)
    }
}

fn carried(info: &MessageInfo, fds: usize) -> Carried {
    Carried::received(info.message_len(), info.end_of_stream(), info.bytes_read(), fds)
}

/// One lent buffer, no ancillary data.
pub(crate) struct BytesSink<'b>(pub(crate) &'b mut [u8]);

impl Sink for BytesSink<'_> {
    type Output = usize;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<usize> {
        source.recv(self.0)
    }

    fn deliver(&mut self, bytes: &[u8], _: RecvMeta, _: ReceivedControl) -> io::Result<usize> {
        let len = bytes.len().min(self.0.len());
        self.0[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn measure(&self, len: &usize) -> Carried {
        Carried::received(*len, None, *len, 0)
    }

    fn message_len(&self, len: &usize) -> usize {
        *len
    }
}

/// Lent buffers, no ancillary data.
pub(super) struct VectoredSink<'b, 'v>(pub(super) &'b mut [IoSliceMut<'v>]);

impl Sink for VectoredSink<'_, '_> {
    type Output = usize;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<usize> {
        source.recv_vectored(self.0)
    }

    fn deliver(&mut self, bytes: &[u8], _: RecvMeta, _: ReceivedControl) -> io::Result<usize> {
        Ok(scatter(bytes, self.0))
    }

    fn measure(&self, len: &usize) -> Carried {
        Carried::received(*len, None, *len, 0)
    }

    fn message_len(&self, len: &usize) -> usize {
        *len
    }
}

/// Lent buffers, and capacity for control data.
pub(super) struct BorrowedSink<'b, 'v, 'c> {
    pub(super) buffers: &'b mut [IoSliceMut<'v>],
    pub(super) control: &'c mut [u8],
}

impl<'c> Sink for BorrowedSink<'_, '_, 'c> {
    type Output = (MessageInfo, AncillaryMessageReader<'c>);

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<Self::Output> {
        let (received, reader) = source.recv_message(self.buffers, &mut self.control)?;
        Ok((MessageInfo::new(&received, capacity(self.buffers)), reader))
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        mut received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<Self::Output> {
        let len = scatter(bytes, self.buffers);
        let reader = control.move_into(std::mem::take(&mut self.control));
        received.control_truncated |= reader.is_truncated();
        Ok((MessageInfo::new(&received, len), reader))
    }

    fn measure(&self, (info, reader): &Self::Output) -> Carried {
        carried(info, reader.count_fds())
    }

    fn message_len(&self, (info, _): &Self::Output) -> usize {
        info.message_len()
    }
}

/// One buffer that was given away, no capacity for ancillary data.
pub(crate) struct PlainSink<'c, 'b>(pub(crate) &'c mut Capacity<'b>);

impl Sink for PlainSink<'_, '_> {
    type Output = MessageInfo;
    const POLL_RETRIES: bool = true;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<MessageInfo> {
        let received = source.recv_plain(self.0)?;
        Ok(MessageInfo::new(&received, self.0.len()))
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<MessageInfo> {
        self.0.fill(bytes);
        let len = bytes.len().min(self.0.len());
        Ok(MessageInfo::new(&received.without(control.is_empty()), len))
    }

    fn measure(&self, info: &MessageInfo) -> Carried {
        carried(info, 0)
    }

    fn message_len(&self, info: &MessageInfo) -> usize {
        info.message_len()
    }
}

/// Buffers that were given away.
pub(crate) struct OwnedSink<'a, P> {
    pub(super) scatter: &'a mut Scatter<P>,
    pub(super) ancillary: Option<&'a mut AncillaryBuffer>,
}

impl<P: PartsMut> Sink for OwnedSink<'_, P> {
    type Output = MessageInfo;
    const POLL_RETRIES: bool = true;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<MessageInfo> {
        let received = source.recv_scattered(self.scatter, self.ancillary.as_deref_mut())?;
        Ok(MessageInfo::new(&received, self.scatter.capacity()))
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<MessageInfo> {
        let len = self.scatter.fill(bytes);
        let Some(ancillary) = &mut self.ancillary else {
            return Ok(MessageInfo::new(&received.without(control.is_empty()), len));
        };
        control.fill(ancillary);
        Ok(MessageInfo::new(&received, len))
    }

    fn measure(&self, info: &MessageInfo) -> Carried {
        carried(info, self.ancillary.as_ref().map_or(0, |ancillary| ancillary.fds().len()))
    }

    fn message_len(&self, info: &MessageInfo) -> usize {
        info.message_len()
    }
}

/// A stream, with its buffers.
pub(super) struct StreamSink<'b>(pub(super) &'b mut RecvBatch);

impl Sink for StreamSink<'_> {
    type Output = ();
    const IS_STREAM: bool = true;
    const POLL_RETRIES: bool = true;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        self.0.receive(source)
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<()> {
        self.0.deliver(bytes, received, control);
        Ok(())
    }

    fn may_batch(&self) -> bool {
        self.0.wants_one()
    }

    fn measure(&self, _: &()) -> Carried {
        self.0.arrived()
    }

    fn message_len(&self, _: &()) -> usize {
        0
    }
}

/// Lent buffers for a message each.
pub(super) struct ManySink<'b, 'v> {
    buffers: &'b mut [IoSliceMut<'v>],
    infos: &'b mut Vec<MessageInfo>,
    before: usize,
}

impl<'b, 'v> ManySink<'b, 'v> {
    pub(super) fn new(buffers: &'b mut [IoSliceMut<'v>], infos: &'b mut Vec<MessageInfo>) -> Self {
        let before = infos.len();
        Self { buffers, infos, before }
    }
}

impl Sink for ManySink<'_, '_> {
    type Output = ();

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        recv_many(source, self.buffers, self.infos)
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        received: RecvMeta,
        control: ReceivedControl,
    ) -> io::Result<()> {
        let Some(first) = self.buffers.first_mut() else { return Ok(()) };
        let received = received.without(control.is_empty());
        let len = scatter(bytes, std::slice::from_mut(first));
        self.infos.push(MessageInfo::new(&received, len));
        Ok(())
    }

    /// `recvmmsg(2)` is a batch already, and reports ancillary data.
    fn may_batch(&self) -> bool {
        false
    }

    fn measure(&self, _: &()) -> Carried {
        let mut all = Carried::default();
        self.infos[self.before..].iter().for_each(|info| all += carried(info, 0));
        all
    }

    fn message_len(&self, _: &()) -> usize {
        0
    }
}

/// `accept4(2)`.
pub(crate) struct AcceptSink;

impl Sink for AcceptSink {
    type Output = OwnedFd;

    fn direct(&mut self, source: &mut Source<'_>) -> io::Result<OwnedFd> {
        sys::accept(source.fd())
    }

    fn deliver(&mut self, _: &[u8], _: RecvMeta, _: ReceivedControl) -> io::Result<OwnedFd> {
        Err(io::Error::other("a listener makes no attempts, and has no messages"))
    }

    /// A connection is no message.
    fn measure(&self, _: &OwnedFd) -> Carried {
        Carried::default()
    }

    fn message_len(&self, _: &OwnedFd) -> usize {
        0
    }

    /// A unit each, as for tokio's listeners: what was accepted holds a descriptor until its task has run.
    fn pay(budget: coop::RestoreOnPending) {
        budget.made_progress();
    }
}
