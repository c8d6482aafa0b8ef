//! The sending direction of an end.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinHandle;
use tokio_seqpacket::ancillary::{AncillaryBuffer, AncillaryMessageWriter};

use crate::descriptors::{Pipe, duplicate};
use crate::history::{Fate, What};
use crate::line::Line;
use crate::message::{HEADER, Header};
use crate::report::Count;
use crate::side::{Side, borrowed};
use crate::watch::{self, By};

/// So many descriptors go with one message at most (`SCM_MAX_FD`).
const MOST_FDS: u64 = 253;

/// Pipes of one end whose end has not been seen.
const PIPES: usize = 8;

pub async fn all(side: Arc<Side>, mut rng: Rng) {
    // Half of them leave the other end something to wait for.
    let burst = if rng.bool() { rng.u64(1..200) } else { u64::MAX };
    let mut line: Line<()> = Line::new(&side);
    let mut in_burst = 0;
    // The call in the line has no place among the sends before it goes out: no other may begin.
    let mut exclusive = false;
    loop {
        line.resume(&mut rng);
        let sequence = 1 + side.sent.lock().unwrap().count;
        let over = side.is_gone() || sequence > side.plan.most || Instant::now() >= side.until;
        if over && line.is_empty() {
            break;
        }
        exclusive &= !line.is_empty();
        if !over && !exclusive && line.len() < side.plan.width {
            let message = Message::draw(&side, sequence, &mut rng);
            let form = Form::draw(&side, line.is_empty(), &mut rng);
            let alone = !form.is_exclusive() && line.leaves_alone(&mut rng);
            if let Err(future) = Line::first_poll(send(side.clone(), message, form), alone).await {
                side.count(Count::Waited, 1);
                side.sent.lock().unwrap().tail.note(What::Waits, sequence, 0);
                exclusive = form.is_exclusive();
                if alone {
                    line.leave_alone(future, &mut rng);
                } else if !exclusive && rng.u8(..8) == 0 {
                    let task = Task(tokio::spawn(future));
                    line.keep(Box::pin(task.join()), side.plan.drop_sends, &mut rng);
                } else {
                    line.keep(future, side.plan.drop_sends, &mut rng);
                }
            }
            in_burst += 1;
            if in_burst == burst {
                in_burst = 0;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            continue;
        }
        line.next().await;
    }
    // From here on the descriptor stays where it is: two last messages would be one too many.
    if side.claim() || side.is_gone() {
        return;
    }
    let sequence = {
        let mut sent = side.sent.lock().unwrap();
        sent.over = true;
        1 + sent.count
    };
    let header = Header { last: true, ..blank(&side, sequence, HEADER) };
    let message = Message { header, empty: false, oversize: false, pipe: None };
    send(side, message, Form::Lent).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lent,
    Owned,
    Vectored,
    OwnedVectored,
    Poll,
    Try,
    Ready(By),
}

impl Form {
    fn draw(side: &Side, first: bool, rng: &mut Rng) -> Self {
        match rng.u8(..9) {
            _ if side.plan.by_readiness => Form::Ready(By::draw_for_send(rng)),
            0 | 1 => Form::Lent,
            2 | 3 => Form::Owned,
            4 => Form::Vectored,
            5 => Form::OwnedVectored,
            6 if first => Form::Poll,
            7 if first => Form::Ready(By::draw_for_send(rng)),
            8 => Form::Try,
            _ => Form::Lent,
        }
    }

    /// Whether the message has no place among the sends that wait.
    fn is_exclusive(self) -> bool {
        matches!(self, Form::Poll | Form::Ready(_))
    }
}

/// A task that is aborted once its handle is dropped.
struct Task(JoinHandle<()>);

impl Task {
    async fn join(mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Message {
    header: Header,
    empty: bool,
    /// Larger than the socket takes.
    oversize: bool,
    pipe: Option<OwnedFd>,
}

fn blank(side: &Side, sequence: u64, len: usize) -> Header {
    Header {
        slot: side.plan.slot,
        life: side.plan.life,
        from: side.shared().end,
        sequence,
        len: len as u32,
        fds: 0,
        pipe: false,
        last: false,
        files: side.shared().files.owner,
        first_file: 0,
    }
}

impl Message {
    fn draw(side: &Side, sequence: u64, rng: &mut Rng) -> Self {
        let plan = &side.plan;
        let mut sent = side.sent.lock().unwrap();
        if rng.u64(..1000) < plan.empty && sent.run < plan.run {
            sent.run += 1;
            let header = blank(side, sequence, 0);
            return Self { header, empty: true, oversize: false, pipe: None };
        }
        drop(sent);
        let largest = side.largest;
        let (len, oversize) = match rng.u32(..1000) {
            0 => (largest, false),
            1 => (largest + 1, true),
            2..7 => (rng.usize(HEADER..=largest), false),
            7..60 => (rng.usize(HEADER..=largest.min(16 << 10)), false),
            60..250 => (rng.usize(HEADER..=largest.min(4 << 10)), false),
            _ => (rng.usize(HEADER..=256), false),
        };
        let mut header = blank(side, sequence, len);
        let mut pipe = None;
        if !oversize && rng.u64(..1000) < plan.with_fds {
            let full = rng.u64(..1000) < plan.full;
            header.fds = if full { MOST_FDS } else { rng.u64(1..=4) } as u16;
            header.first_file = rng.u32(..1000);
            if !full && rng.u8(..4) == 0 {
                pipe = new_pipe(side, sequence);
                header.pipe = pipe.is_some();
            }
        }
        Self { header, empty: false, oversize, pipe }
    }
}

fn new_pipe(side: &Side, sequence: u64) -> Option<OwnedFd> {
    let mut pipes = side.pipes.lock().unwrap();
    if pipes.len() == PIPES {
        pipes.retain_mut(|pipe| {
            pipe.has_ended().map_or_else(
                |error| {
                    side.shared().fail(error);
                    false
                },
                |ended| !ended,
            )
        });
    }
    if pipes.len() == PIPES {
        return None;
    }
    // No descriptor may be left.
    let (pipe, writer) = Pipe::new(sequence).ok()?;
    pipes.push(pipe);
    side.count(Count::Pipes, 1);
    Some(writer)
}

/// A send from its first poll to its result or its drop.
struct Entry<'a> {
    side: &'a Side,
    sequence: u64,
    empty: bool,
    settled: bool,
}

impl Entry<'_> {
    fn settle(&mut self, fate: Fate, what: What, number: u64) {
        let mut sent = self.side.sent.lock().unwrap();
        sent.settle(self.sequence, self.empty, fate);
        sent.tail.note(what, self.sequence, number);
        self.settled = true;
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.side.count(Count::DroppedSends, 1);
            self.settle(Fate::Dropped, What::Dropped, 0);
        }
    }
}

async fn send(side: Arc<Side>, message: Message, form: Form) {
    let (sequence, empty) = (message.header.sequence, message.empty);
    side.sent.lock().unwrap().count = sequence;
    let mut entry = Entry { side: &side, sequence, empty, settled: false };
    let (fds, oversize) = (message.header.fds, message.oversize);
    let result = call(&side, message, form).await;
    match &result {
        Ok(len) => {
            entry.settle(Fate::Ok, What::Sent, *len as u64);
            if oversize {
                side.fail(&format!("#{sequence} is larger than the limit, and was sent"));
            }
        }
        Err(error) => {
            let errno = error.raw_os_error();
            side.count(Count::Refused, 1);
            // A send that its runtime abandons may be on its way.
            let fate = if side.is_closing() { Fate::Dropped } else { Fate::Failed };
            entry.settle(fate, What::Refused, errno.unwrap_or(0) as u64);
            let squeezed = || side.shared().limit.was_squeezed(side.shared().begin);
            match error.kind() {
                io::ErrorKind::BrokenPipe => side.gone.store(true, Ordering::Relaxed),
                io::ErrorKind::ConnectionReset => side.reset(),
                io::ErrorKind::WouldBlock if form == Form::Try => {}
                io::ErrorKind::InvalidInput if oversize => {}
                _ if errno == Some(rustix::io::Errno::MFILE.raw_os_error()) && squeezed() => {}
                // As an unprivileged user there is a limit on descriptors in flight.
                _ if errno == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error()) && fds > 0 => {}
                _ if side.is_closing() => side.gone.store(true, Ordering::Relaxed),
                _ => side.fail(&format!("#{sequence} was refused: {error}")),
            }
        }
    }
}

async fn call(side: &Side, message: Message, form: Form) -> io::Result<usize> {
    let Message { header, empty, pipe, .. } = message;
    let bytes = if empty { Vec::new() } else { header.encode() };
    let socket = &side.socket;
    let len = bytes.len();
    let files = usize::from(header.fds) - usize::from(header.pipe);
    let mut fds = borrowed(&side.shared().files, header.first_file, files);
    let sent = match form {
        Form::Try | Form::Ready(_) => {
            fds.extend(pipe.as_ref().map(AsFd::as_fd));
            match form {
                Form::Ready(by) => watch::send(side, by, &bytes, &fds).await?,
                _ => watch::try_send(socket, &bytes, &fds)?,
            }
        }
        // Duplicates of many are expensive.
        Form::Lent | Form::Owned if (1..8).contains(&header.fds) => {
            let mut ancillary = AncillaryBuffer::new();
            for file in fds {
                ancillary.push_fd(duplicate(file)?)?;
            }
            if let Some(pipe) = pipe {
                ancillary.push_fd(pipe)?;
            }
            let (sent, bytes, ancillary) = socket.send_owned_with_ancillary(bytes, ancillary).await;
            if bytes.len() != len || ancillary.fds().len() != usize::from(header.fds) {
                side.fail("a send gave back something else than it got");
            }
            sent?
        }
        _ if header.fds > 0 => {
            fds.extend(pipe.as_ref().map(AsFd::as_fd));
            let mut control = vec![0; 64 + 4 * fds.len()];
            let mut ancillary = AncillaryMessageWriter::new(&mut control);
            ancillary.add_fds(&fds)?;
            socket.send_with_ancillary(&bytes, &mut ancillary).await?
        }
        Form::Lent => socket.send(&bytes).await?,
        Form::Owned => {
            let (sent, bytes) = socket.send_owned(bytes).await;
            if bytes.len() != len {
                side.fail("a send gave back something else than it got");
            }
            sent?
        }
        Form::Vectored => {
            let (head, tail) = bytes.split_at(len / 3);
            socket.send_vectored(&[IoSlice::new(head), IoSlice::new(tail)]).await?
        }
        Form::OwnedVectored => {
            let (head, tail) = bytes.split_at(len / 3);
            socket.send_owned_vectored(vec![head.to_vec(), tail.to_vec()]).await.0?
        }
        Form::Poll => std::future::poll_fn(|cx| socket.poll_send(cx, &bytes)).await?,
    };
    if sent != len {
        side.fail(&format!("#{} has {len} bytes, {sent} were sent", header.sequence));
    }
    Ok(sent)
}
