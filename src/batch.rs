//! Many messages with one system call: [`SendBatch`], and receiving into lent buffers.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use crate::ancillary::AncillaryBuffer;
use crate::ancillary::wire::MAX_CONTROL;
use crate::backend::{self, Waiting};
use crate::error::refused_send;
use crate::outgoing::Outgoing;
use crate::{MessageInfo, mmsg, sys};

/// Messages to be sent with as few system calls as possible, in order; made by
/// [`UnixSeqpacket::batch`](crate::UnixSeqpacket::batch).
///
/// The batch knows at any time how many of them have gone out. It borrows messages and descriptors, and
/// can be sent, added to and sent again.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use tokio_seqpacket::UnixSeqpacket;
///
/// let (a, b) = UnixSeqpacket::pair()?;
/// let mut batch = a.batch();
/// batch.push(b"one");
/// batch.push(b"two");
/// assert_eq!(batch.send().await?, 2);
///
/// let mut buffer = [0; 8];
/// assert_eq!(b.recv(&mut buffer).await?, 3);
/// # Ok(()) }
/// ```
pub struct SendBatch<'a> {
    socket: &'a backend::Socket,
    messages: Vec<Entry<'a>>,
    /// Control data of the messages that have some.
    controls: Vec<u8>,
    sent: usize,
    /// The message that is next, if it waits for room in the peer's queue.
    waiting: Option<Waiting<'a>>,
}

struct Entry<'a> {
    bytes: &'a [u8],
    control: Range<usize>,
}

impl<'a> SendBatch<'a> {
    pub(crate) fn new(socket: &'a backend::Socket) -> Self {
        Self { socket, messages: Vec::new(), controls: Vec::new(), sent: 0, waiting: None }
    }

    /// Add a message.
    pub fn push(&mut self, message: &'a [u8]) {
        self.messages.push(Entry { bytes: message, control: 0..0 });
    }

    /// Add a message with ancillary data. Descriptors are lent: they have to stay open until the
    /// message has been sent.
    ///
    /// # Errors
    /// `InvalidInput` for more than 253 descriptors; the message is not added.
    pub fn push_with_ancillary(
        &mut self,
        message: &'a [u8],
        ancillary: &'a AncillaryBuffer,
    ) -> io::Result<()> {
        let mut control = [0; MAX_CONTROL];
        let len = ancillary.encode(&mut control)?;
        let from = self.controls.len();
        self.controls.extend_from_slice(&control[..len]);
        self.messages.push(Entry { bytes: message, control: from..from + len });
        Ok(())
    }

    /// Messages in the batch, sent or not.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many messages have gone out. After an error this is the index of the message that it is
    /// about.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Leave out the message that is next, for instance after an error.
    pub fn skip(&mut self) {
        if self.sent < self.messages.len() {
            self.waiting = None;
            self.messages.remove(self.sent);
        }
    }

    /// Empty the batch, for other messages. Its memory is kept.
    pub fn clear(&mut self) {
        self.waiting = None;
        self.messages.clear();
        self.controls.clear();
        self.sent = 0;
    }

    /// Send what has not been sent yet. Returns how many messages went out in this call.
    ///
    /// While nobody is ahead and the peer's queue has room, up to 32 messages go with one
    /// `sendmmsg(2)`. A message that finds the queue full stands in line as a [send] does.
    ///
    /// # Cancel safety
    /// A future that is dropped loses nothing and sends nothing twice: the message that waits stays in
    /// line as long as the batch lives, and the next call goes on from there. Dropping the batch takes
    /// it out: it goes out whole or never will.
    ///
    /// # Errors
    /// As [send]. It is about the message at [`sent()`](Self::sent); those before have gone out, it
    /// and those behind it have not.
    ///
    /// [send]: crate::UnixSeqpacket::send
    pub async fn send(&mut self) -> io::Result<usize> {
        let before = self.sent;
        loop {
            if let Some(waiting) = &mut self.waiting {
                let sent = std::future::poll_fn(|cx| waiting.poll(cx)).await;
                self.waiting = None;
                self.explained(sent)?;
                self.sent += 1;
                continue;
            }
            let rest = &self.messages[self.sent..];
            let Some(next) = rest.first() else { return Ok(self.sent - before) };
            let controls = &self.controls;
            // Counted when they go, which can be before this future learns of it.
            let count = &mut self.sent;
            let sent = self
                .socket
                .send_many(|fd| {
                    let messages =
                        rest.iter().map(|entry| (entry.bytes, &controls[entry.control.clone()]));
                    let sent = mmsg::send_many(fd, messages)?;
                    *count += sent;
                    Ok(sent)
                })
                .await;
            match sent {
                Ok(sent) => {
                    self.explained(sent)?;
                }
                Err(spare) => {
                    let control = &controls[next.control.clone()];
                    let payload = Outgoing::copy(&[IoSlice::new(next.bytes)], control, spare)?;
                    self.waiting = Some(self.socket.wait(payload));
                }
            }
        }
    }

    fn explained(&self, sent: io::Result<usize>) -> io::Result<usize> {
        sent.map_err(|error| match self.messages.get(self.sent) {
            Some(entry) => refused_send(
                error,
                self.socket.fd(),
                entry.bytes.len(),
                &self.controls[entry.control.clone()],
            ),
            None => error,
        })
    }
}

impl fmt::Debug for SendBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch")
            .field("len", &self.messages.len())
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

/// Receive into lent buffers, one message each, without waiting.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    infos: &mut Vec<MessageInfo>,
) -> io::Result<()> {
    let before = infos.len();
    let mut capacities = [0; mmsg::AT_ONCE];
    for (capacity, buffer) in capacities.iter_mut().zip(&*buffers) {
        *capacity = buffer.len();
    }
    let asked = buffers.len().min(mmsg::AT_ONCE);
    let received = mmsg::receive_many(fd, mmsg::lent(buffers), false, |index, received, _| {
        infos.push(MessageInfo::new(&received, capacities[index]));
    })?;
    // At end of stream the kernel fills all that is left with empty messages: one tells of it.
    let ends_empty = infos.last().is_some_and(|info| info.message_len() == 0);
    if received == asked && received > 1 && ends_empty && sys::has_ended(fd).unwrap_or(false) {
        let new = &infos[before..];
        let trailing = new.iter().rev().take_while(|info| info.message_len() == 0).count();
        infos.truncate(infos.len() - trailing.saturating_sub(1));
    }
    Ok(())
}
