//! Raw loops on io_uring: one ring on each thread, a loop around it, and as little else as possible.
//!
//! A batch is one `io_uring_enter(2)`: first all sends, then all receives. A receive whose message the same batch
//! sends completes inline. Receives are attempts (`MSG_DONTWAIT`): one that finds nothing is retried in the next
//! batches, [`ATTEMPTS`] times, and only then parked in the ring. The loop waits when everything is parked.

#![allow(unsafe_code, reason = "a ring in the raw")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::net::SocketType;

use super::{Maker, Threads, Turn};
use crate::contestants::{Contestant, Rig};
use crate::libraries::{socketpair, truncated};
use crate::rig::PAUSE;
use crate::work::{SMALL, Setting, Work};

/// How often a receive is attempted before it is parked.
const ATTEMPTS: u8 = 8;
/// The largest number of sends, and of receives, in a batch. The messages of a larger one leave the cache before they are
/// received.
const BATCH: usize = 128;

/// The operations it is made of.
#[derive(Clone, Copy, PartialEq)]
pub enum RawRing {
    /// SEND and RECV.
    Plain,
    /// SENDMSG and RECVMSG.
    Messages,
    /// SEND, and one RECV for all messages of a socket, into buffers that the ring is given. No attempts.
    Multishot,
}

impl Contestant for RawRing {
    fn name(&self) -> &'static str {
        match self {
            Self::Plain => "raw ring, SEND/RECV",
            Self::Messages => "raw ring, SENDMSG/RECVMSG",
            Self::Multishot => "raw ring, multishot RECV",
        }
    }

    fn short(&self) -> &'static str {
        match self {
            Self::Plain => "ring",
            Self::Messages => "ringmsg",
            Self::Multishot => "multi",
        }
    }

    fn rig(&self, setting: Setting, work: Work) -> Result<Box<dyn Rig>, String> {
        let (pairs, size, pauses) = match work {
            _ if setting == Setting::BlockOn => {
                return Err("a plain loop has no tasks".into());
            }
            _ if setting == Setting::TwoBusy => return Err("it does not poll busily".into()),
            Work::Echo { descriptor: true, .. } => {
                return Err("the loop was not written for descriptors".into());
            }
            Work::Echo { pairs, size, .. } => (pairs, size, false),
            Work::Calls { pairs } => (pairs, SMALL, false),
            Work::Paced => (1, SMALL, true),
            Work::OneWay { .. } | Work::Volleys { .. } | Work::Large { .. } | Work::Connect => {
                return Err("the loop was written for single round trips".into());
            }
            Work::Changing { .. }
            | Work::Flood { .. }
            | Work::Beside { .. }
            | Work::Memory
            | Work::Pipe { .. } => {
                return Err("a plain loop has no tasks".into());
            }
        };
        let plan = Plan { operations: *self, size, pauses };
        let mut threads = match setting {
            Setting::CurrentThread | Setting::BlockOn => vec![Vec::new()],
            Setting::TwoRuntimes | Setting::TwoBusy | Setting::MultiThread => {
                vec![Vec::new(), Vec::new()]
            }
        };
        let count = threads.len();
        for pair in 0..pairs {
            let (server, client) =
                socketpair(SocketType::SEQPACKET).map_err(|error| error.to_string())?;
            let (servers, clients) = match setting {
                Setting::TwoRuntimes => (0, 1),
                _ => (pair % count, pair % count),
            };
            threads[servers].push((Role::Server, server));
            threads[clients].push((Role::Client, client));
        }
        threads.retain(|sockets| !sockets.is_empty());
        let maker = |sockets| -> Maker { Box::new(move || turn(plan, sockets)) };
        Ok(Box::new(Threads::new(pairs, threads.into_iter().map(maker).collect())?))
    }

    fn idle(&self, _count: usize, _sample: &mut dyn FnMut()) -> Result<(), String> {
        Err("a plain loop has no tasks".into())
    }
}

#[derive(Clone, Copy)]
struct Plan {
    operations: RawRing,
    size: usize,
    pauses: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Server,
    Client,
}

/// A socket. It has one operation at a time, except for a multishot receive.
struct Endpoint {
    role: Role,
    /// Multishot: a receive is armed.
    armed: bool,
    /// Of the current receive.
    attempts: u8,
    fd: types::Fd,
    /// Round trips to do.
    left: usize,
    memory: Memory,
}

/// What the kernel may touch for an endpoint, on the heap, so that it stays where it is.
struct Memory {
    _socket: OwnedFd,
    buffer: Box<[u8]>,
    header: Option<Box<Header>>,
}

struct Header {
    header: libc::msghdr,
    vector: libc::iovec,
}

impl Memory {
    fn new(plan: Plan, socket: OwnedFd) -> Self {
        let mut buffer = vec![7; plan.size].into_boxed_slice();
        let header = (plan.operations == RawRing::Messages).then(|| {
            let vector =
                libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
            // SAFETY: a C struct of integers and pointers, for which all zeroes is a value.
            let mut header = Box::new(Header { header: unsafe { std::mem::zeroed() }, vector });
            header.header.msg_iov = &raw mut header.vector;
            header.header.msg_iovlen = 1;
            header
        });
        Self { _socket: socket, buffer, header }
    }
}

impl Endpoint {
    fn send(&mut self) -> squeue::Entry {
        let (fd, flags) = (self.fd, libc::MSG_NOSIGNAL);
        match &self.memory.header {
            Some(header) => {
                opcode::SendMsg::new(fd, &raw const header.header).flags(flags as u32).build()
            }
            None => {
                let buffer = &self.memory.buffer;
                opcode::Send::new(fd, buffer.as_ptr(), buffer.len() as u32).flags(flags).build()
            }
        }
    }

    /// An attempt, or, after the last one, a receive that is parked.
    fn recv(&mut self) -> squeue::Entry {
        let fd = self.fd;
        let flags = if self.attempts < ATTEMPTS { libc::MSG_DONTWAIT } else { 0 };
        match &mut self.memory.header {
            Some(header) => {
                opcode::RecvMsg::new(fd, &raw mut header.header).flags(flags as u32).build()
            }
            None => {
                let buffer = &mut self.memory.buffer;
                let (pointer, len) = (buffer.as_mut_ptr(), buffer.len() as u32);
                opcode::Recv::new(fd, pointer, len).flags(flags).build()
            }
        }
    }
}

/// The buffers' group.
const GROUP: u16 = 0;

/// Buffers that the kernel picks from, and the ring through which it is given them.
struct Given {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    count: u16,
    tail: u16,
    buffers: Vec<u8>,
    size: usize,
}

impl Given {
    fn to(ring: &IoUring, at_least: usize, size: usize) -> io::Result<Self> {
        let count = at_least.next_power_of_two().min(1 << 15) as u16;
        let layout = Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(4096))
            .expect("fits");
        // SAFETY: the layout is not empty. Zeroed: entries are integers.
        let entries = NonNull::new(unsafe { alloc_zeroed(layout) }.cast()).expect("memory");
        let buffers = vec![0; usize::from(count) * size];
        let mut this = Self { entries, layout, count, tail: 0, buffers, size };
        let address = this.entries.as_ptr() as u64;
        // SAFETY: the entries are freed by Drop, after the ring is closed (Loop's field order).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0)? };
        (0..count).for_each(|id| this.give(id));
        Ok(this)
    }

    fn give(&mut self, id: u16) {
        let buffer = &mut self.buffers[usize::from(id) * self.size..][..self.size];
        let at = usize::from(self.tail & (self.count - 1));
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the index is below the count; the kernel reads entries only up to the tail, which is
        // stored after they are written. The tail lies in the first entry's reserved field, and is an
        // aligned u16 that the kernel and this thread share.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(at);
            entry.set_addr(buffer.as_mut_ptr() as u64);
            entry.set_len(self.size as u32);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `to`.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}

/// A ring and its sockets.
struct Loop {
    plan: Plan,
    // Before the endpoints: it is closed first.
    ring: IoUring,
    given: Option<Given>,
    endpoints: Vec<Endpoint>,
    /// Endpoints that send in the next batch.
    sends: VecDeque<u32>,
    /// Endpoints that receive in the next batch.
    receives: VecDeque<u32>,
    /// What completes together.
    completions: Vec<(u64, i32, u32)>,
}

fn turn(plan: Plan, sockets: Vec<(Role, OwnedFd)>) -> io::Result<Turn> {
    let count = sockets.len();
    let entries = (2 * count).next_power_of_two().clamp(64, 8192) as u32;
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .build(entries)?;
    let endpoints = sockets
        .into_iter()
        .map(|(role, socket)| Endpoint {
            role,
            armed: false,
            attempts: 0,
            fd: types::Fd(socket.as_raw_fd()),
            left: 0,
            memory: Memory::new(plan, socket),
        })
        .collect();
    let given = match plan.operations {
        RawRing::Multishot => Some(Given::to(&ring, 2 * count, plan.size)?),
        _ => None,
    };
    let mut this = Loop {
        plan,
        ring,
        given,
        endpoints,
        sends: VecDeque::new(),
        receives: VecDeque::new(),
        completions: Vec::new(),
    };
    Ok(Box::new(move |each| {
        if !this.plan.pauses || this.endpoints[0].role == Role::Server {
            this.round(each)?;
            return Ok(Vec::new());
        }
        let mut samples = Vec::with_capacity(each);
        for _ in 0..each {
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            this.round(1)?;
            samples.push(start.elapsed().as_nanos() as f64);
        }
        Ok(samples)
    }))
}

const SEND: u64 = 1 << 32;

impl Loop {
    fn round(&mut self, each: usize) -> io::Result<()> {
        for at in 0..self.endpoints.len() {
            let end = &mut self.endpoints[at];
            end.left = each;
            match end.role {
                Role::Client => self.sends.push_back(at as u32),
                Role::Server => self.receive(at),
            }
        }
        let mut left = each * self.endpoints.len();
        while left > 0 {
            self.submit()?;
            let mut completions = std::mem::take(&mut self.completions);
            let parts = |done: cqueue::Entry| (done.user_data(), done.result(), done.flags());
            completions.extend(self.ring.completion().map(parts));
            for (key, result, flags) in completions.drain(..) {
                let at = (key & (SEND - 1)) as usize;
                left -= self.completed(at, key & SEND != 0, result, flags)?;
            }
            self.completions = completions;
        }
        Ok(())
    }

    /// One batch.
    fn submit(&mut self) -> io::Result<()> {
        let Self { plan, ring, endpoints, sends, receives, .. } = self;
        let mut ready = 0;
        let mut queue = ring.submission();
        let mut push = |entry: squeue::Entry, key: u64| {
            // SAFETY: the entry points into buffers and headers that `endpoints` owns on the heap, or to the
            // group of buffers that `given` owns: they outlive the ring (field order) and Drop's cancel.
            unsafe { queue.push(&entry.user_data(key)) }.expect("has an entry for each endpoint")
        };
        for at in sends.drain(..sends.len().min(BATCH)) {
            push(endpoints[at as usize].send(), u64::from(at) | SEND);
            ready += 1;
        }
        for at in receives.drain(..receives.len().min(BATCH)) {
            let end = &mut endpoints[at as usize];
            let entry = match plan.operations {
                RawRing::Multishot => opcode::RecvMulti::new(end.fd, GROUP).build(),
                _ => {
                    ready += u32::from(end.attempts < ATTEMPTS);
                    end.recv()
                }
            };
            push(entry, u64::from(at));
        }
        let (count, has_work) = (queue.len(), queue.taskrun());
        drop(queue);
        let idle = ready == 0 && sends.is_empty() && receives.is_empty();
        if idle || plan.operations == RawRing::Multishot {
            // What is not armed or parked completes at once.
            ring.submit_and_wait(1)?;
            return Ok(());
        }
        const GETEVENTS: u32 = 1;
        let flags = if has_work { GETEVENTS } else { 0 };
        // SAFETY: no argument is passed.
        unsafe { ring.submitter().enter::<libc::sigset_t>(count as u32, 0, flags, None)? };
        Ok(())
    }

    /// How much less there is to do.
    fn completed(&mut self, at: usize, sent: bool, result: i32, flags: u32) -> io::Result<usize> {
        let end = &mut self.endpoints[at];
        let is_empty = !sent && end.attempts < ATTEMPTS && self.given.is_none();
        // RECVMSG on Linux 6.1 to 6.9 says ENOMEM for EAGAIN.
        if is_empty && [-libc::EAGAIN, -libc::ENOMEM].contains(&result) {
            end.attempts += 1;
            self.receives.push_back(at as u32);
            return Ok(0);
        }
        if result != self.plan.size as i32 {
            return Err(match result {
                error @ ..0 => io::Error::from_raw_os_error(-error),
                _ => truncated(),
            });
        }
        if !sent {
            end.armed = cqueue::more(flags);
            if let (Some(given), Some(id)) = (&mut self.given, cqueue::buffer_select(flags)) {
                given.give(id);
            }
        }
        // A server's trip ends with its send, a client's with its receive.
        let ends = sent == (end.role == Role::Server);
        end.left -= usize::from(ends);
        if !ends || end.left > 0 {
            match sent {
                true => self.receive(at),
                false => self.sends.push_back(at as u32),
            }
        }
        Ok(usize::from(ends))
    }

    fn receive(&mut self, at: usize) {
        let end = &mut self.endpoints[at];
        if !end.armed {
            end.attempts = 0;
            end.armed = self.plan.operations == RawRing::Multishot;
            self.receives.push_back(at as u32);
        }
    }
}

impl Drop for Loop {
    /// The kernel lets go of all buffers before they are freed.
    fn drop(&mut self) {
        let all = types::CancelBuilder::any();
        let cancelled = self.ring.submitter().register_sync_cancel(None, all);
        let none_left = match &cancelled {
            Ok(()) => true,
            Err(error) => error.raw_os_error() == Some(libc::ENOENT),
        };
        if !none_left {
            std::mem::forget((std::mem::take(&mut self.endpoints), self.given.take()));
        }
    }
}
