//! The receiving direction of an end.

use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fastrand::Rng;
use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessageReader, OwnedAncillaryMessage};

use crate::arrive::{Came, Step, arrive};
use crate::history::{Ended, What};
use crate::line::Line;
use crate::message::HEADER;
use crate::report::Count;
use crate::side::Side;
use crate::stream;
use crate::toggle::toggle;
use crate::watch::{self, By};

pub async fn all(side: Arc<Side>, mut rng: Rng) {
    let mut line: Line<Step> = Line::new(&side);
    let mut step = Step::Message;
    // Where no receive may be dropped, one waits at a time, and is awaited.
    let (width, dropped) = match side.whole {
        true => (1, 0),
        false => (side.plan.width, side.plan.drop_receives),
    };
    while step != Step::End && side.received.lock().unwrap().ended != Ended::AtEnd {
        if line.is_empty() && side.stopping.load(Ordering::SeqCst) {
            return;
        }
        if side.plan.toggles && rng.u8(..64) == 0 {
            toggle(&side, &mut rng);
        }
        line.resume(&mut rng);
        if line.len() >= width {
            step = line.next().await.into_iter().fold(step, Step::then);
            continue;
        }
        if !side.whole && line.is_empty() && side.plan.streams && rng.u8(..32) == 0 {
            step = stream::take(&side, &mut rng).await;
            continue;
        }
        let form = Form::draw(&side, line.is_empty(), &mut rng);
        let future = receive(side.clone(), form, capacity(&side, &mut rng));
        if !side.whole && line.is_empty() && rng.u8(..100) == 0 {
            step = in_a_task(&side, future, &mut rng).await;
            continue;
        }
        let alone = !side.whole && !form.polls() && line.leaves_alone(&mut rng);
        match Line::first_poll(future, alone).await {
            Ok(Step::Nothing) => tokio::task::yield_now().await,
            // Also where others wait: a message goes to the receive that asks first.
            Ok(came) => step = came,
            Err(future) if alone => line.leave_alone(future, &mut rng),
            Err(future) => line.keep(future, dropped, &mut rng),
        }
    }
}

/// In a task of its own, which is aborted.
async fn in_a_task(
    side: &Side,
    future: impl Future<Output = Step> + Send + 'static,
    rng: &mut Rng,
) -> Step {
    let task = tokio::spawn(future);
    for _ in 0..rng.u8(..4) {
        tokio::task::yield_now().await;
    }
    task.abort();
    side.count(Count::Aborts, 1);
    task.await.unwrap_or(Step::Nothing)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Borrowed,
    Vectored,
    Ancillary,
    /// With capacity for so few descriptors that most messages with descriptors are truncated.
    LittleControl,
    Owned,
    OwnedAncillary,
    OwnedVectored,
    Poll,
    Try,
    Batch,
    Ready(By),
}

impl Form {
    fn draw(side: &Side, first: bool, rng: &mut Rng) -> Self {
        if side.plan.by_readiness {
            return Form::Ready(By::draw(rng));
        }
        match rng.u8(..34) {
            0..2 => Form::Borrowed,
            2 => Form::Vectored,
            3..11 => Form::Ancillary,
            11 => Form::LittleControl,
            12..14 => Form::Owned,
            14 => Form::OwnedVectored,
            15 => Form::Poll,
            16 if first => Form::Try,
            17 => Form::Batch,
            18..20 => Form::Ready(By::draw(rng)),
            _ => Form::OwnedAncillary,
        }
    }

    /// Whether it is a `poll_*` call: only the last waker of these is woken.
    fn polls(self) -> bool {
        matches!(self, Form::Poll | Form::Ready(By::Poll | By::PollPeek))
    }
}

/// Mostly enough for all but the largest messages. Sometimes it is enough for all, sometimes for few.
fn capacity(side: &Side, rng: &mut Rng) -> usize {
    match rng.u8(..32) {
        0..2 => rng.usize(HEADER..256),
        2..8 => side.largest,
        _ => side.largest.min(16 << 10),
    }
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
pub async fn receive(side: Arc<Side>, form: Form, capacity: usize) -> Step {
    let mut waiting = Waiting(Some(&side));
    let came = call(&side, form, capacity).await;
    waiting.0 = None;
    match came {
        Ok(came) => {
            came.into_iter().fold(Step::Nothing, |step, came| step.then(arrive(&side, came)))
        }
        Err(error) => failed(&side, &error),
    }
}

/// What a dropped receive has left, if it has left anything.
pub fn try_one(side: &Side) {
    match watch::try_receive(&side.socket, side.largest) {
        Ok(came) => drop(arrive(side, came)),
        Err(error) => drop(failed(side, &error)),
    }
}

pub fn failed(side: &Side, error: &io::Error) -> Step {
    if error.kind() == io::ErrorKind::WouldBlock {
        return Step::Nothing;
    }
    let errno = error.raw_os_error().unwrap_or(0) as u64;
    {
        let mut received = side.received.lock().unwrap();
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

async fn call(side: &Side, form: Form, capacity: usize) -> io::Result<Vec<Came>> {
    let socket = &side.socket;
    Ok(vec![match form {
        Form::Borrowed | Form::Poll | Form::Try => {
            let mut bytes = vec![0; capacity];
            let len = match form {
                Form::Try => socket.try_recv(&mut bytes)?,
                Form::Poll => std::future::poll_fn(|cx| socket.poll_recv(cx, &mut bytes)).await?,
                _ => socket.recv(&mut bytes).await?,
            };
            bytes.truncate(len);
            Came::plain(bytes, capacity)
        }
        Form::Vectored => {
            let mut bytes = vec![0; capacity];
            let (head, tail) = bytes.split_at_mut(capacity / 3);
            let mut vectors = [IoSliceMut::new(head), IoSliceMut::new(tail)];
            let len = socket.recv_vectored(&mut vectors).await?;
            bytes.truncate(len);
            Came::plain(bytes, capacity)
        }
        Form::Ancillary | Form::LittleControl => {
            // A header of 16 bytes, then four for each; and what options bring.
            let (fd_capacity, more) = if form == Form::LittleControl { (2, 0) } else { (253, 128) };
            let mut control = vec![0; 16 + 4 * fd_capacity + more];
            let mut bytes = vec![0; capacity];
            let (len, ancillary) = socket.recv_with_ancillary(&mut bytes, &mut control).await?;
            bytes.truncate(len);
            let truncated = ancillary.is_truncated();
            Came::plain(bytes, capacity)
                .with_fds(take_fds(ancillary), fd_capacity)
                .control_truncated(truncated)
        }
        Form::Owned => {
            let (info, bytes) = socket.recv_owned(Vec::with_capacity(capacity)).await;
            Came::owned(bytes, info?, capacity)
        }
        Form::OwnedVectored => {
            let parts =
                vec![Vec::with_capacity(capacity / 3), Vec::with_capacity(capacity - capacity / 3)];
            let (info, parts) = socket.recv_owned_vectored(parts).await;
            Came::owned(parts.concat(), info?, capacity)
        }
        Form::OwnedAncillary => {
            let (bytes, ancillary) = (Vec::with_capacity(capacity), AncillaryBuffer::new());
            let (info, bytes, mut ancillary) =
                socket.recv_owned_with_ancillary(bytes, ancillary).await;
            Came::owned(bytes, info?, capacity).with_fds(ancillary.take_fds(), 253)
        }
        Form::Ready(by) => watch::receive(side, by, capacity).await?,
        Form::Batch => return stream::batch(side, capacity).await,
    }])
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
