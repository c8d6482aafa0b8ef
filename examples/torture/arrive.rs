//! What a receive call has brought: checked, and noted in the history.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use tokio_seqpacket::MessageInfo;

use crate::descriptors::{Pipe, is_file};
use crate::history::{Ended, What};
use crate::message::Header;
use crate::report::Count;
use crate::side::Side;

/// What a receive has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Message,
    /// `WouldBlock`, or an error that ends nothing.
    Nothing,
    End,
}

impl Step {
    /// The end is final.
    pub fn then(self, next: Self) -> Self {
        if self == Step::End { self } else { next }
    }
}

/// As it came.
pub struct Came {
    bytes: Vec<u8>,
    /// Where the call returns it: the length as it was sent, and whether it was the end.
    info: Option<MessageInfo>,
    /// Whether ancillary data was truncated, where the call reports it.
    control_truncated: Option<bool>,
    /// `None` where the call has no capacity for descriptors.
    fds: Option<Vec<OwnedFd>>,
    /// Capacity for so many.
    fd_capacity: usize,
    capacity: usize,
}

impl Came {
    pub fn plain(bytes: Vec<u8>, capacity: usize) -> Self {
        Self { bytes, info: None, control_truncated: None, fds: None, fd_capacity: 0, capacity }
    }

    pub fn owned(bytes: Vec<u8>, info: MessageInfo, capacity: usize) -> Self {
        Self { info: Some(info), ..Self::plain(bytes, capacity) }
    }

    /// The truncation of ancillary data as `info` reports it.
    pub fn with_fds(self, fds: Vec<OwnedFd>, fd_capacity: usize) -> Self {
        let truncated = self.info.is_some_and(|info| info.ancillary_truncated());
        Self { fds: Some(fds), fd_capacity, ..self.control_truncated(truncated) }
    }

    pub fn control_truncated(self, truncated: bool) -> Self {
        Self { control_truncated: Some(truncated), ..self }
    }
}

pub fn arrive(side: &Side, came: Came) -> Step {
    if came.bytes.is_empty() {
        return arrive_empty(side, came.info);
    }
    let mut received = side.received.lock().unwrap();
    let header = match Header::decode(&came.bytes) {
        Ok(header) => header,
        Err(error) => {
            drop(received);
            side.fail(&error);
            return Step::Message;
        }
    };
    let empties = received.empties + received.doubtful;
    side.count(Count::Empty, empties);
    side.count(Count::Messages, 1 + empties);
    received.tail.note(What::Received, header.sequence, came.bytes.len() as u64);
    let arrived = received.arrive(header.sequence);
    if header.last {
        received.ended = Ended::AtEnd;
    }
    drop(received);
    let last = header.last;
    let checked = arrived
        .and_then(|()| check_bytes(side, &header, &came))
        .and_then(|()| check_fds(side, &header, came));
    if let Err(error) = checked {
        side.fail(&error);
    }
    if last { Step::End } else { Step::Message }
}

/// An empty message, or the end.
fn arrive_empty(side: &Side, info: Option<MessageInfo>) -> Step {
    let mut received = side.received.lock().unwrap();
    let last = received.last;
    let ended = match info.map(|info| info.end_of_stream()) {
        Some(Some(end)) => {
            received.empties += u64::from(!end);
            side.count(Count::SignaledEnds, u64::from(end));
            end
        }
        Some(None) if side.plan.marked => {
            drop(received);
            side.fail("an empty message, or the end: the call does not say which");
            return Step::End;
        }
        end_of_stream => {
            received.doubtful += 1;
            if end_of_stream.is_some() {
                // Of several in a batch at the very end, one is reported.
                received.unsaid = side.plan.run;
            }
            // No plan sends that many empty messages in a row. Receives that wait complete late.
            received.empties + received.doubtful > 4 * side.plan.run
        }
    };
    received.tail.note(if ended { What::End } else { What::Empty }, last, 0);
    drop(received);
    if ended { end(side) } else { Step::Message }
}

/// The end of the stream.
pub fn end(side: &Side) -> Step {
    side.received.lock().unwrap().ended = Ended::AtEnd;
    side.gone.store(true, Ordering::Relaxed);
    Step::End
}

fn check_bytes(side: &Side, header: &Header, came: &Came) -> Result<(), String> {
    let sequence = header.sequence;
    if !header.is_for(side) {
        return Err(format!("a message of another connection: {header:?}"));
    }
    let len = header.len as usize;
    if came.bytes.len() != len.min(came.capacity) {
        let (got, capacity) = (came.bytes.len(), came.capacity);
        return Err(format!(
            "#{sequence} of {len} bytes came as {got}, with capacity for {capacity}"
        ));
    }
    if let Some(reported) = came.info.map(|info| info.message_len()).filter(|other| *other != len) {
        return Err(format!("#{sequence} of {len} bytes is reported with {reported}"));
    }
    side.count(Count::Truncated, u64::from(len > came.capacity && came.info.is_some()));
    Ok(())
}

fn check_fds(side: &Side, header: &Header, came: Came) -> Result<(), String> {
    let (sequence, sent) = (header.sequence, usize::from(header.fds));
    // Control data that the sender did not add is truncated as well.
    let marked = side.marks.any();
    let Some(fds) = came.fds else {
        return match came.control_truncated {
            Some(truncated) if truncated != (sent > 0) && !(truncated && marked) => Err(format!(
                "#{sequence} with {sent} fds, and no capacity for them: truncated is {truncated}"
            )),
            _ => Ok(()),
        };
    };
    let expected = sent.min(came.fd_capacity);
    let (got, truncated) = (fds.len(), came.control_truncated == Some(true));
    let squeezed = || side.shared().limit.was_squeezed(side.shared().begin);
    let little = marked && came.fd_capacity < 253;
    if got > expected || (got < expected && !little && !squeezed()) {
        return Err(format!("#{sequence} with {sent} fds came with {got}, not {expected}"));
    }
    let pidfd_missing = || side.marks.pidfds() && squeezed();
    if truncated != (got < sent) && !(truncated && (little || pidfd_missing())) {
        return Err(format!(
            "#{sequence} with {sent} fds came with {got}: truncated is {truncated}"
        ));
    }
    side.count(Count::Fds, got as u64);
    for (at, fd) in fds.into_iter().enumerate() {
        if header.pipe && at + 1 == sent {
            Pipe::mark(fd, sequence);
            continue;
        }
        // Of many, a sample.
        let file = header.first_file.wrapping_add(at as u32);
        if (at < 8 || at % 31 == 0) && !is_file(fd.as_fd(), header.files, file) {
            return Err(format!("#{sequence}: descriptor {at} is not what was sent"));
        }
    }
    Ok(())
}
