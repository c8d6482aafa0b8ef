//! Many messages with one system call: into the buffers of a stream ([`RecvBatch`]), and into lent buffers ([`recv_many`]).

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::ancillary::{AncillaryBuffer, ReceivedControl};
use crate::buf::pool::{Pool, PooledBuf};
use crate::common::message::Message;
use crate::common::metrics::Carried;
use crate::common::mmsg;
use crate::common::source::Source;
use crate::types::message_info::MessageInfo;
use crate::types::recv_meta::RecvMeta;

/// How many messages to ask the kernel for. One more call that finds nothing is expensive where messages come one by one.
/// So the count grows only after as many messages as were asked for have come several times.
#[derive(Debug)]
struct BatchSize {
    count: usize,
    full: u32,
    patience: u32,
}

impl BatchSize {
    const FULL_BEFORE_MORE: u32 = 2;
    const MOST_FULL_BEFORE_MORE: u32 = 256;

    fn came(&mut self, count: usize) {
        if count < self.count {
            if self.full == 0 && self.count > 1 && count == 1 {
                // The last try for more found no more.
                self.patience = (self.patience * 2).min(Self::MOST_FULL_BEFORE_MORE);
            }
            (self.count, self.full) = (count.max(1), 0);
            return;
        }
        self.full += 1;
        if self.full >= self.patience {
            (self.count, self.full) = ((self.count * 4).min(mmsg::MESSAGES_PER_CALL), 0);
            if self.count == mmsg::MESSAGES_PER_CALL {
                self.patience = Self::FULL_BEFORE_MORE;
            }
        }
    }
}

impl Default for BatchSize {
    fn default() -> Self {
        Self { count: 1, full: 0, patience: Self::FULL_BEFORE_MORE }
    }
}

/// What a stream has received, and what it is going to receive into.
#[derive(Default)]
pub(crate) struct RecvBatch {
    /// Not yielded yet.
    pub(crate) messages: VecDeque<Message>,
    /// For the next messages.
    buffers: Vec<PooledBuf>,
    size: BatchSize,
    end: StreamTail,
    /// What is known of messages whose buffers have not been taken yet. Empty between two calls.
    arrived: Vec<(RecvMeta, AncillaryBuffer)>,
    /// What the last call has added to `messages`.
    carried: Carried,
}

/// What a stream knows of its end.
#[derive(Debug, Default)]
struct StreamTail {
    reached: bool,
    /// Empty messages, or the end: received after the peer had closed, while nothing marked messages. The next receive
    /// decides.
    doubtful: usize,
}

impl RecvBatch {
    /// Takes buffers for as many messages as it asks the kernel for. It is ready with one at least.
    pub(crate) fn poll_buffers(&mut self, pool: &Arc<Pool>, cx: &mut Context<'_>) -> Poll<()> {
        pool.poll_take(cx, &mut self.buffers, self.size.count)
    }

    /// Receives from the kernel, without waiting.
    pub(crate) fn receive(&mut self, source: &mut Source<'_>) -> io::Result<()> {
        let most = self.size.count.min(self.buffers.len());
        let arrived = &mut self.arrived;
        let count = mmsg::receive_vectors(source, &mut self.buffers[..most], |meta, reader| {
            let mut ancillary = AncillaryBuffer::new();
            if !reader.is_empty() {
                ancillary.fill(reader);
            }
            arrived.push((meta, ancillary));
        })
        .inspect_err(|error| {
            if error.kind() != io::ErrorKind::WouldBlock {
                self.size.came(0);
            }
        })?;
        self.size.came(count);
        self.carried = Carried::default();
        for (buffer, (meta, ancillary)) in self.buffers.drain(..count).zip(self.arrived.drain(..)) {
            self.carried += self.end.arrive(&mut self.messages, buffer, meta, ancillary);
        }
        Ok(())
    }

    /// Adds a message that was received elsewhere.
    pub(crate) fn deliver(&mut self, bytes: &[u8], meta: RecvMeta, control: ReceivedControl) {
        self.carried = Carried::default();
        let Some(mut buffer) = self.buffers.pop() else { return };
        let len = bytes.len().min(buffer.bytes.capacity());
        buffer.bytes.clear();
        buffer.bytes.extend_from_slice(&bytes[..len]);
        let mut ancillary = AncillaryBuffer::new();
        control.fill(&mut ancillary);
        self.size.came(1);
        self.carried = self.end.arrive(&mut self.messages, buffer, meta, ancillary);
    }

    /// Returns what the last call has received that is known to be messages.
    pub(crate) fn arrived(&self) -> Carried {
        self.carried
    }

    /// Returns whether it asks for one message, for which an attempt is enough.
    pub(crate) fn wants_one(&self) -> bool {
        self.size.count == 1
    }

    /// Returns whether the end of the stream was received.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.reached
    }

    /// Returns whether empty messages came that may have been the end.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.end.doubtful > 0
    }
}

impl StreamTail {
    /// Adds a message, the end of the stream, or what may be either. Returns what was added to `messages`.
    fn arrive(
        &mut self,
        messages: &mut VecDeque<Message>,
        buffer: PooledBuf,
        meta: RecvMeta,
        ancillary: AncillaryBuffer,
    ) -> Carried {
        let mut carried = Carried::default();
        match meta.end_of_stream {
            Some(true) => *self = Self { reached: true, doubtful: 0 },
            None => self.doubtful += 1,
            Some(false) => {
                // Nothing follows the end, so those were empty messages.
                for _ in 0..std::mem::take(&mut self.doubtful) {
                    carried += Carried::message(0, 0);
                    let empty = RecvMeta { message_len: 0, control_truncated: false, ..meta };
                    let message = Message::new(PooledBuf::none(), empty, AncillaryBuffer::new());
                    messages.push_back(message);
                }
                carried += Carried::message(buffer.bytes.len(), ancillary.fds().len());
                messages.push_back(Message::new(buffer, meta, ancillary));
            }
        }
        carried
    }
}

/// Receives into lent buffers, one message each, without waiting.
pub(crate) fn recv_many(
    source: &mut Source<'_>,
    buffers: &mut [IoSliceMut<'_>],
    infos: &mut Vec<MessageInfo>,
) -> io::Result<()> {
    let before = infos.len();
    let mut capacities = [0; mmsg::MESSAGES_PER_CALL];
    for (capacity, buffer) in capacities.iter_mut().zip(&*buffers) {
        *capacity = buffer.len();
    }
    let asked = buffers.len().min(mmsg::MESSAGES_PER_CALL);
    let received = mmsg::receive_many(source, mmsg::lent(buffers), |index, received, reader| {
        infos.push(MessageInfo::new(&received.without(reader.is_empty()), capacities[index]));
    })?;
    // At the end of the stream the kernel fills all other buffers with nothing. One of them is reported.
    let trailing = infos[before..].iter().rev().map(MessageInfo::end_of_stream);
    let ends = trailing.clone().take_while(|end| *end != Some(false)).count();
    let is_end = received == asked || trailing.clone().next() == Some(Some(true));
    if ends > 1 && is_end {
        infos.truncate(infos.len() - ends + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::task::Waker;

    use super::*;
    use crate::ancillary::wire::MAX_FDS;
    use crate::common::marks::Marks;
    use crate::sys;

    #[test]
    fn a_batch_is_as_large_after_nothing_and_of_one_message_after_an_error() {
        let (ours, theirs) = sys::socketpair().unwrap();
        let mut marks = Marks::default();
        let mut source = Source::new(ours.as_fd(), true, MAX_FDS, &mut marks);
        let mut batch = RecvBatch::default();
        batch.size.count = mmsg::MESSAGES_PER_CALL;
        let pool = Pool::new(mmsg::MESSAGES_PER_CALL, 64);
        assert!(batch.poll_buffers(&pool, &mut Context::from_waker(Waker::noop())).is_ready());

        let nothing = batch.receive(&mut source).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        assert!(!batch.wants_one());

        // A message that the peer has not read resets the connection.
        sys::send(ours.as_fd(), b"unread").unwrap();
        drop(theirs);
        let reset = batch.receive(&mut source).unwrap_err();
        assert_eq!(reset.raw_os_error(), Some(libc::ECONNRESET));
        assert!(batch.wants_one());
    }
}
