//! The receiving direction of an end.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use fastrand::Rng;
use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessageReader, OwnedAncillaryMessage};

use crate::descriptors::{Pipe, is_file};
use crate::history::{Ended, What};
use crate::message::{HEADER, Header};
use crate::report::Count;
use crate::side::{Call, Side};

/// What a receive has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Message,
    /// `WouldBlock`, or an error that ends nothing.
    Nothing,
    End,
}

pub async fn all(side: Arc<Side>, mut rng: Rng) {
    let mut line: VecDeque<Call<Step>> = VecDeque::new();
    loop {
        if line.len() < side.plan.width {
            let form = Form::draw(&side, line.is_empty(), &mut rng);
            if line.is_empty() && rng.u8(..100) == 0 {
                // In a task of its own, which is aborted.
                let task = tokio::spawn(receive(side.clone(), form, room(&side, &mut rng)));
                for _ in 0..rng.u8(..4) {
                    tokio::task::yield_now().await;
                }
                task.abort();
                side.count(Count::Aborts, 1);
                if let Ok(Step::End) = task.await {
                    return;
                }
                continue;
            }
            match Call::first_poll(receive(side.clone(), form, room(&side, &mut rng))).await {
                Ok(Step::End) => return,
                Ok(Step::Nothing) => tokio::task::yield_now().await,
                Ok(Step::Message) => {}
                Err(future) => {
                    let dropped = rng.u64(..100) < side.plan.drop_receives;
                    match dropped.then(|| rng.u8(..3)) {
                        Some(0) => drop(future),
                        left => line.push_back(Call { future, left }),
                    }
                }
            }
            continue;
        }
        let end = std::future::poll_fn(|cx| {
            // Whichever asks first has the message, so no order among these is checked.
            let (mut changed, mut end) = (false, false);
            line.retain_mut(|call| {
                match call.poll(cx) {
                    Some(Poll::Pending) => return true,
                    Some(Poll::Ready(step)) => end |= step == Step::End,
                    None => {}
                }
                changed = true;
                false
            });
            if changed { Poll::Ready(end) } else { Poll::Pending }
        })
        .await;
        if end {
            return;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Borrowed,
    Vectored,
    Ancillary,
    /// With control room for so few that most messages with descriptors are cut.
    LittleControl,
    Owned,
    OwnedAncillary,
    OwnedVectored,
    Poll,
    Try,
}

impl Form {
    fn draw(side: &Side, first: bool, rng: &mut Rng) -> Self {
        match rng.u8(..32) {
            0..2 => Form::Borrowed,
            2 => Form::Vectored,
            3..11 => Form::Ancillary,
            11 => Form::LittleControl,
            12..14 => Form::Owned,
            14 => Form::OwnedVectored,
            15 if first && side.plan.width == 1 => Form::Poll,
            16 if first => Form::Try,
            _ => Form::OwnedAncillary,
        }
    }
}

/// Mostly enough for all but the largest messages; sometimes for all, sometimes for few.
fn room(side: &Side, rng: &mut Rng) -> usize {
    match rng.u8(..32) {
        0..2 => rng.usize(HEADER..256),
        2..8 => side.largest,
        _ => side.largest.min(16 << 10),
    }
}

/// As it came.
struct Came {
    bytes: Vec<u8>,
    /// The length as it was sent, where the call tells.
    message_len: Option<usize>,
    /// Whether ancillary data was cut, where the call tells.
    control_cut: Option<bool>,
    /// `None` where the call has no room for descriptors.
    fds: Option<Vec<OwnedFd>>,
    /// Room for so many.
    fd_room: usize,
    room: usize,
}

/// Counts a receive that is dropped while it waits.
struct Waiting<'a>(Option<&'a Side>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(side) = self.0 {
            side.count(Count::DroppedReceives, 1);
            let mut received = side.book.received.lock().unwrap();
            let last = received.last;
            received.tail.note(What::DroppedReceive, last, 0);
        }
    }
}

/// Receive and check. Between the library's answer and the check nothing is awaited, so that a
/// message cannot be lost here.
async fn receive(side: Arc<Side>, form: Form, room: usize) -> Step {
    let mut waiting = Waiting(Some(&side));
    let came = call(&side, form, room).await;
    waiting.0 = None;
    match came {
        Ok(came) => arrive(&side, came),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && form == Form::Try => {
            Step::Nothing
        }
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(0) as u64;
            {
                let mut received = side.book.received.lock().unwrap();
                let last = received.last;
                received.tail.note(What::Failed, last, errno);
            }
            if error.kind() == io::ErrorKind::ConnectionReset {
                side.reset();
                return Step::Nothing;
            }
            if !side.is_closing() {
                side.fail(&format!("a receive failed: {error}"));
            }
            Step::End
        }
    }
}

async fn call(side: &Side, form: Form, room: usize) -> io::Result<Came> {
    let socket = &side.socket;
    let plain = |bytes, room| Came {
        bytes,
        message_len: None,
        control_cut: None,
        fds: None,
        fd_room: 0,
        room,
    };
    Ok(match form {
        Form::Borrowed | Form::Poll | Form::Try => {
            let mut bytes = vec![0; room];
            let len = match form {
                Form::Try => socket.try_recv(&mut bytes)?,
                Form::Poll => std::future::poll_fn(|cx| socket.poll_recv(cx, &mut bytes)).await?,
                _ => socket.recv(&mut bytes).await?,
            };
            bytes.truncate(len);
            plain(bytes, room)
        }
        Form::Vectored => {
            let mut bytes = vec![0; room];
            let (head, tail) = bytes.split_at_mut(room / 3);
            let mut vectors = [IoSliceMut::new(head), IoSliceMut::new(tail)];
            let len = socket.recv_vectored(&mut vectors).await?;
            bytes.truncate(len);
            plain(bytes, room)
        }
        Form::Ancillary | Form::LittleControl => {
            let fd_room = if form == Form::LittleControl { 2 } else { 253 };
            // A header of 16 bytes, then four for each.
            let mut control = vec![0; 16 + 4 * fd_room];
            let mut bytes = vec![0; room];
            let (len, ancillary) = socket.recv_with_ancillary(&mut bytes, &mut control).await?;
            bytes.truncate(len);
            let control_cut = Some(ancillary.is_truncated());
            let fds = Some(take_fds(ancillary));
            Came { bytes, message_len: None, control_cut, fds, fd_room, room }
        }
        Form::Owned => {
            let bytes = Vec::with_capacity(room);
            let (info, bytes) = socket.recv_owned(bytes).await;
            let info = info?;
            let (message_len, control_cut) =
                (Some(info.message_len()), Some(info.ancillary_truncated()));
            Came { message_len, control_cut, ..plain(bytes, room) }
        }
        Form::OwnedVectored => {
            let parts = vec![Vec::with_capacity(room / 3), Vec::with_capacity(room - room / 3)];
            let (info, parts) = socket.recv_owned_vectored(parts).await;
            let info = info?;
            let (message_len, control_cut) =
                (Some(info.message_len()), Some(info.ancillary_truncated()));
            Came { message_len, control_cut, ..plain(parts.concat(), room) }
        }
        Form::OwnedAncillary => {
            let (bytes, ancillary) = (Vec::with_capacity(room), AncillaryBuffer::new());
            let (info, bytes, mut ancillary) =
                socket.recv_owned_with_ancillary(bytes, ancillary).await;
            let info = info?;
            Came {
                bytes,
                message_len: Some(info.message_len()),
                control_cut: Some(info.ancillary_truncated()),
                fds: Some(ancillary.take_fds()),
                fd_room: 253,
                room,
            }
        }
    })
}

fn take_fds(ancillary: AncillaryMessageReader<'_>) -> Vec<OwnedFd> {
    let mut taken = Vec::new();
    for message in ancillary.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
            taken.extend(fds);
        }
    }
    taken
}

fn arrive(side: &Side, came: Came) -> Step {
    let mut received = side.book.received.lock().unwrap();
    if came.bytes.is_empty() {
        received.empties += 1;
        let last = received.last;
        received.tail.note(What::Empty, last, 0);
        if received.empties <= side.plan.run {
            return Step::Message;
        }
        received.ended = Ended::AtEnd;
        received.tail.note(What::End, last, 0);
        drop(received);
        side.gone.store(true, Ordering::Relaxed);
        return Step::End;
    }
    let header = match Header::decode(&came.bytes) {
        Ok(header) => header,
        Err(error) => {
            drop(received);
            side.fail(&error);
            return Step::Message;
        }
    };
    side.count(Count::Empty, received.empties);
    side.count(Count::Messages, 1 + received.empties);
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

fn check_bytes(side: &Side, header: &Header, came: &Came) -> Result<(), String> {
    let Header { slot, life, from, sequence, .. } = *header;
    if (slot, life, from) != (side.plan.slot, side.plan.life, side.shared().end.other()) {
        return Err(format!("a message of another connection: {header:?}"));
    }
    let len = header.len as usize;
    if came.bytes.len() != len.min(came.room) {
        let (got, room) = (came.bytes.len(), came.room);
        return Err(format!("#{sequence} of {len} bytes came as {got}, with room for {room}"));
    }
    if let Some(told) = came.message_len.filter(|told| *told != len) {
        return Err(format!("#{sequence} of {len} bytes is told to have {told}"));
    }
    side.count(Count::Cut, u64::from(len > came.room && came.message_len.is_some()));
    Ok(())
}

fn check_fds(side: &Side, header: &Header, came: Came) -> Result<(), String> {
    let (sequence, sent) = (header.sequence, usize::from(header.fds));
    let Some(fds) = came.fds else {
        return match came.control_cut {
            // A plain receive need not know that some were discarded.
            Some(true) if sent == 0 => {
                Err(format!("#{sequence} with no fds, and ancillary data is said to be cut"))
            }
            _ => Ok(()),
        };
    };
    let expected = sent.min(came.fd_room);
    let (got, cut) = (fds.len(), came.control_cut == Some(true));
    let squeezed = || side.shared().limit.was_squeezed(side.shared().begin);
    if got > expected || (got < expected && !squeezed()) {
        return Err(format!("#{sequence} with {sent} fds came with {got}, not {expected}"));
    }
    if cut != (got < sent) {
        return Err(format!("#{sequence} with {sent} fds came with {got}: cut is {cut}"));
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
