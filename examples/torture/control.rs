//! The channel between the two processes: frames of words over a seqpacket socket of their own, by
//! plain blocking calls, so that a bug of the library does not silence its own report.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    sockopt,
};

use crate::descriptors::Limit;
use crate::history::Record;
use crate::plan::Plan;
use crate::report::Counts;

pub enum Frame {
    /// To the peer: this is an end of a connection.
    Live(Box<Plan>, OwnedFd),
    /// To the peer: no more connections, finish.
    Finish,
    Record(Box<Record>),
    Counts(Box<Counts>),
    Failure(String),
    /// All is closed: open descriptors and resident memory, at the base line and now.
    Done([u64; 4]),
}

#[derive(Clone)]
pub struct Control(Arc<OwnedFd>);

const LARGEST: usize = 1 << 20;

pub fn pair() -> io::Result<(Control, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for fd in [&ours, &theirs] {
        sockopt::set_socket_send_buffer_size(fd, LARGEST)?;
    }
    Ok((Control(Arc::new(ours)), theirs))
}

impl Control {
    pub fn new(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }

    pub fn send(&self, frame: &Frame) -> io::Result<()> {
        let (kind, words, fd) = match frame {
            Frame::Live(plan, fd) => (0, plan.to_words(), Some(fd.as_fd())),
            Frame::Finish => (1, Vec::new(), None),
            Frame::Record(record) => (2, record.to_words(), None),
            Frame::Counts(counts) => (3, counts.to_words(), None),
            Frame::Failure(text) => (4, text.bytes().map(u64::from).collect(), None),
            Frame::Done(words) => (5, words.to_vec(), None),
        };
        let mut bytes = u64::to_le_bytes(kind).to_vec();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        let fds: &[BorrowedFd<'_>] = fd.as_slice();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg(&*self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next frame; `None` if the other process is gone.
    pub fn receive(&self, limit: &Limit) -> Option<Frame> {
        let mut bytes = vec![0; LARGEST];
        let mut readable = [PollFd::new(&*self.0, PollFlags::IN)];
        while poll(&mut readable, None).is_err() {}
        // A frame can bring a descriptor.
        let _need = limit.need();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut vectors = [IoSliceMut::new(&mut bytes)];
        let len =
            recvmsg(&*self.0, &mut vectors, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?.bytes;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let mut words = bytes[..len]
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("chunks of eight")));
        let kind = words.next()?;
        let words: Vec<u64> = words.collect();
        Some(match kind {
            0 => Frame::Live(Box::new(Plan::from_words(&words)), fd?),
            1 => Frame::Finish,
            2 => Frame::Record(Box::new(Record::from_words(&words))),
            3 => Frame::Counts(Box::new(Counts::from_words(&words))),
            4 => {
                let text: Vec<u8> = words.iter().map(|word| *word as u8).collect();
                Frame::Failure(String::from_utf8_lossy(&text).into_owned())
            }
            _ => Frame::Done(words.try_into().ok()?),
        })
    }
}
