//! One end of a connection, for one life: its socket, and what happened, which it hands in when nothing can be
//! added to it.

use std::collections::HashMap;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use tokio_seqpacket::UnixSeqpacket;

use crate::control::Frame;
use crate::descriptors::{Files, Limit, Pipe, Pipes};
use crate::elsewhere::Elsewhere;
use crate::history::{Received, Record, Sent};
use crate::plan::{End, Plan};
use crate::report::{Count, Counters};
use crate::toggle::Marks;

/// What all ends in one process share.
pub struct Shared {
    pub begin: Instant,
    pub end: End,
    pub files: Files,
    pub pipes: Pipes,
    pub limit: Limit,
    pub counters: Counters,
    pub elsewhere: Elsewhere,
    pub outbox: mpsc::Sender<Frame>,
    /// Those that live, by slot, for a failure message.
    pub sides: Mutex<HashMap<u16, Weak<Side>>>,
}

impl Shared {
    pub fn new(end: End, outbox: mpsc::Sender<Frame>) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            begin: Instant::now(),
            end,
            files: Files::new()?,
            pipes: Pipes::default(),
            limit: Limit::default(),
            counters: Counters::default(),
            elsewhere: Elsewhere::start(),
            outbox,
            sides: Mutex::default(),
        }))
    }

    pub fn fail(&self, text: String) {
        // The receiver is gone once the first failure has been reported.
        let _ = self.outbox.send(Frame::Failure(text));
    }
}

/// A socket of an end. Another may follow it, in the same life.
pub struct Side {
    pub socket: UnixSeqpacket,
    /// No receive of this socket is dropped before its descriptor is taken out.
    pub whole: bool,
    /// The descriptor is going to be taken out: the receiving task stops where no receive waits.
    pub stopping: AtomicBool,
    /// The runtime of this end is about to go.
    pub closing: Arc<AtomicBool>,
    /// After the socket: handed in once that is closed.
    pub book: Book,
}

/// What happened at this end, in all of its life.
pub struct Book {
    pub shared: Arc<Shared>,
    pub plan: Plan,
    /// The largest message.
    pub largest: usize,
    /// When sending ends.
    pub until: Instant,
    /// The other end has gone.
    pub gone: AtomicBool,
    /// The last message is on its way, or the descriptor: the first to claim it has it.
    claimed: AtomicBool,
    resets: AtomicU32,
    pub marks: Marks,
    pub sent: Mutex<Sent>,
    pub received: Mutex<Received>,
    pub pipes: Mutex<Vec<Pipe>>,
}

impl Deref for Side {
    type Target = Book;

    fn deref(&self) -> &Book {
        &self.book
    }
}

impl Book {
    pub fn record(&self) -> Record {
        Record {
            slot: self.plan.slot,
            life: self.plan.life,
            end: self.shared.end,
            sent: self.sent.lock().unwrap().clone(),
            received: self.received.lock().unwrap().clone(),
        }
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        let Plan { slot, life, .. } = self.plan;
        let of = format!("connection {slot} life {life}, {:?}", self.shared.end);
        let pipes = std::mem::take(&mut *self.pipes.lock().unwrap());
        self.shared.pipes.hand_in(pipes, &of);
        let _ = self.shared.outbox.send(Frame::Record(Box::new(self.record())));
    }
}

/// How the kernel accounts a message in the send buffer.
const OVERHEAD: usize = 32;

impl Side {
    pub fn adopt(
        shared: &Arc<Shared>,
        closing: &Arc<AtomicBool>,
        plan: Plan,
        fd: OwnedFd,
    ) -> io::Result<Arc<Self>> {
        let _need = shared.limit.need();
        let largest = sockopt::socket_send_buffer_size(&fd)?.saturating_sub(OVERHEAD);
        let book = Book {
            shared: shared.clone(),
            largest,
            until: Instant::now() + Duration::from_millis(plan.millis),
            gone: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
            resets: AtomicU32::new(0),
            marks: Marks::default(),
            sent: Mutex::default(),
            received: Mutex::default(),
            pipes: Mutex::default(),
            plan,
        };
        let side = Self::with(fd, book, closing.clone(), false)?;
        if side.plan.marked {
            side.marks.add();
            side.socket.set_pass_credentials(true)?;
        }
        Ok(side)
    }

    /// A socket of this descriptor, with what happened before.
    pub fn with(
        fd: OwnedFd,
        book: Book,
        closing: Arc<AtomicBool>,
        whole: bool,
    ) -> io::Result<Arc<Self>> {
        let options = tokio_seqpacket::Options::new().keep_ancillary(true);
        let backend = book.plan.backend(book.shared.end);
        let socket = options.backend(backend.selection()).socket_from_fd(fd)?;
        let side =
            Arc::new(Self { socket, whole, stopping: AtomicBool::new(false), closing, book });
        let known = Arc::downgrade(&side);
        side.shared().sides.lock().unwrap().insert(side.plan.slot, known);
        Ok(side)
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.book.shared
    }

    pub fn count(&self, count: Count, number: u64) {
        self.book.shared.counters.add(count, number);
    }

    pub fn fail(&self, what: &str) {
        let Plan { slot, life, backends, .. } = &self.plan;
        let end = self.shared().end;
        self.shared().fail(format!(
            "connection {slot} life {life} ({backends:?}, largest message {}), at {end:?}: {what}\n  {}",
            self.largest,
            self.book.record().describe()
        ));
    }

    /// A call says `ECONNRESET`, which may happen once.
    pub fn reset(&self) {
        self.count(Count::Resets, 1);
        if self.resets.fetch_add(1, Ordering::Relaxed) > 0 {
            self.fail("ECONNRESET for the second time");
        }
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Sending goes on, unless its last message is out.
    pub fn begin_leg(&self) {
        self.claimed.store(self.sent.lock().unwrap().over, Ordering::SeqCst);
    }

    /// Whether the other has claimed before: the last message, or the taking out of the descriptor.
    pub fn claim(&self) -> bool {
        self.claimed.swap(true, Ordering::SeqCst)
    }
}

/// The files of a message, to be sent by number.
pub fn borrowed(files: &Files, first: u32, count: usize) -> Vec<BorrowedFd<'_>> {
    (0..count as u32).map(|at| files.get(first.wrapping_add(at)).as_fd()).collect()
}
