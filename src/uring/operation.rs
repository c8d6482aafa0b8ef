//! What a batch runs, and what came of it.

use std::io;
use std::os::fd::BorrowedFd;

use crate::ancillary::ReceivedControl;
use crate::common::pending_send::PendingSend;

/// One operation of a batch.
#[derive(Clone, Copy)]
pub(crate) enum Operation<'a> {
    /// `SEND`, or `SENDMSG` where that is needed.
    Send(BorrowedFd<'a>, &'a PendingSend),
    /// `RECV`, which discards ancillary data.
    Recv(BorrowedFd<'a>),
    /// `RECVMSG`, with capacity for so many bytes of control data, `MAX_CONTROL` at most.
    RecvMsg(BorrowedFd<'a>, usize),
}

/// The outcome of one operation.
pub(crate) enum Completion<'a> {
    Sent(io::Result<usize>),
    /// The whole message, or as much as a slot holds. `control` owns the descriptors that came with it. It is `None` if the
    /// kernel was not asked for control data.
    Received {
        bytes: &'a [u8],
        message_len: usize,
        control: Option<ReceivedControl>,
    },
    NotReceived(i32),
    /// The kernel has not taken it: nothing was sent or received.
    NotTaken,
    /// The kernel took it and has not reported what became of it. The memory that it points to must never be freed.
    Unknown,
}
